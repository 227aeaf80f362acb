/*-------------------------------------------------------------------------
 *
 * delete.c
 *	  Taking the principal key from a scope.
 *
 * The scope is then under the default key, or retired: its generations stay
 * for what was under them, until replay cannot ask for that any more.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/delete.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "principal_internal.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "tde/settings.h"
#include "tde/subsys.h"

/*
 * A database that would be left without a principal key if this one went, and
 * has keys of relations; InvalidOid if there is none.
 */
static Oid
database_in_need(TdeScopeKind kind, Oid dbOid)
{
	TdePrincipalRef ref;
	bool		follows_default;

	if (kind == TDE_SCOPE_DATABASE)
	{
		if ((!tde_inherit_global_providers ||
			 !TdeGetPrincipalInfo(TDE_SCOPE_DEFAULT, InvalidOid, &ref,
								  &follows_default)) &&
			tde_database_has_keys(dbOid))
			return dbOid;
		return InvalidOid;
	}

	foreach_ptr(TdeScope, follower, tde_read_followers())
	{
		if (tde_database_has_keys(follower->dbOid))
			return follower->dbOid;
	}
	return InvalidOid;
}

/*
 * What a running base backup replays may need the keys of relations that have
 * been dropped since it began; the backup will have the list of providers as
 * it is in the end.
 */
static void
refuse_during_backup(Oid dbOid)
{
	if (TdeBackupIsRunning() && tde_database_has_keys(dbOid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot delete a principal key while a base backup is running"),
				 errdetail("The backup may need keys of relations that have been dropped from database %u.",
						   dbOid),
				 errhint("Try again when the backup has ended.")));
}

static void
retire(TdeScope *scope)
{
	tde_scope_fill_keys(scope);
	scope->change++;
	scope->retired = true;
}

void
TdeDeletePrincipalKey(TdeScopeKind kind, Oid dbOid)
{
	TdePrincipalKey *key = tde_secure_palloc(sizeof(TdePrincipalKey));
	TdeScope   *scope;
	TdeScope   *defaults = NULL;
	List	   *followers = NIL;
	TdeScope  **scopes;
	int			n = 0;
	Oid			in_need;

	/*
	 * The key of a dropped relation stays until recovery does not need it any
	 * more, which is when a checkpoint has taken place.  That must be before
	 * the principal key goes.
	 */
	if (OidIsValid(database_in_need(kind, dbOid)))
		tde_checkpoint_removals();

	/*
	 * Nobody may be between drawing a key under this principal key and
	 * putting it in place.
	 */
	for (;;)
	{
		if (kind == TDE_SCOPE_DATABASE)
			defaults = tde_lock_with_principal(tde_read_default_scope,
											   InvalidOid, key);
		else
			LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		if (LWLockConditionalAcquire(&tde_store->creation_lock, LW_EXCLUSIVE))
			break;

		LWLockRelease(&tde_store->lock);
		if (defaults)
			tde_scope_free(defaults);
		defaults = NULL;
		LWLockAcquire(&tde_store->creation_lock, LW_EXCLUSIVE);
		LWLockRelease(&tde_store->creation_lock);
		CHECK_FOR_INTERRUPTS();
	}
	scope = tde_scope_read_for_change(kind, dbOid);
	if (scope == NULL || scope->retired || scope->follows_default)
	{
		if (kind == TDE_SCOPE_DEFAULT)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("default principal key is not set")));
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("principal key is not set for the database"),
				 scope && scope->follows_default ?
				 errdetail("The database uses the default principal key.") : 0));
	}

	/* a backup comes first: without it these might be no keys in use */
	in_need = database_in_need(kind, dbOid);
	if (OidIsValid(in_need))
		refuse_during_backup(in_need);

	if (kind == TDE_SCOPE_DEFAULT)
	{
		if (OidIsValid(in_need))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot delete the default principal key"),
					 errdetail("Database %u has keys of encrypted relations and no principal key of its own.",
							   in_need),
					 errhint("Set a principal key for that database first, or drop its encrypted relations.")));

		/* Databases that have nothing encrypted lose their key too. */
		followers = tde_read_followers();
	}
	scopes = palloc(sizeof(TdeScope *) * (list_length(followers) + 1));
	foreach_ptr(TdeScope, follower, followers)
	{
		refuse_during_backup(follower->dbOid);
		retire(follower);
		scopes[n++] = follower;
	}

	if (defaults)
		scope = tde_scope_next_version(scope, kind, dbOid,
									   &defaults->principal, key, true);
	else
	{
		if (kind == TDE_SCOPE_DATABASE && OidIsValid(in_need))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot delete the principal key of the database"),
					 tde_inherit_global_providers ?
					 errdetail("The database has encrypted relations, and there is no default principal key to fall back to.") :
					 errdetail("The database has encrypted relations, and may not fall back to a default principal key, because \"%s\" is off.",
							   "pg_tde.inherit_global_providers"),
					 errhint("Drop the relations, or move them to an access method that does not encrypt, or set a default principal key.")));
		if (kind == TDE_SCOPE_DATABASE)
			refuse_during_backup(dbOid);
		retire(scope);
	}
	scopes[n++] = scope;
	tde_scopes_log_and_store(scopes, n);
	LWLockRelease(&tde_store->creation_lock);
	tde_principals_forget_unused();
	LWLockRelease(&tde_store->lock);
	tde_secure_pfree(key);
	tde_log_key_change("delete", scope);
	for (int i = 0; i < n; i++)
		tde_scope_free(scopes[i]);
}
