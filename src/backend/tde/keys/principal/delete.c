/*-------------------------------------------------------------------------
 *
 * delete.c
 *	  Taking the principal key from a scope.
 *
 * The scope is then under the default key, or retired: its generations stay
 * for what was under them, until replay cannot ask for that any more.
 *
 * The default key takes the server's along where that is the same one and no WAL
 * needs it, as it brought it when it was set.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/delete.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
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
	if (kind == TDE_SCOPE_SERVER)
		return InvalidOid;

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

/*
 * Nothing is under it, so nobody asks for its keys any more: they need not even
 * be resident.
 */
static void
retire(TdeScope *scope)
{
	scope->change++;
	scope->retired = true;
}

/*
 * Does WAL need the server's key?  Without encryption of WAL none comes to what
 * there is.  That, in pg_wal, may only wait for the checkpoint after which it is
 * not needed any more.  If it is needed, "segment" names some, or is empty where
 * WAL is encrypted now.
 */
static bool
wal_needs_server_key(char *segment)
{
	segment[0] = '\0';
	if (tde_wal_encrypt)
		return true;
	if (!tde_find_encrypted_wal(InvalidXLogRecPtr, segment))
		return false;
	(void) RequestXLogSwitch(false);
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE |
					  CHECKPOINT_WAIT);
	return tde_find_encrypted_wal(InvalidXLogRecPtr, segment);
}

static int
errdetail_wal(const char *segment)
{
	return segment[0] == '\0' ?
		errdetail("WAL is encrypted: \"%s\" is on.", "pg_tde.wal_encrypt") :
		errdetail("WAL that is in \"%s\" still is encrypted, for example in file \"%s\".",
				  XLOGDIR, segment);
}

static int
errhint_wal(const char *segment, const char *function)
{
	return segment[0] == '\0' ?
		errhint("Turn \"%s\" off, restart the server, and call %s again.",
				"pg_tde.wal_encrypt", function) :
		errhint("Call %s again when that file is not needed any more: when it is archived, and neither a replication slot nor \"%s\" holds it.",
				function, "wal_keep_size");
}

/*
 * Does the key of the server go with one of this kind?  Answered without lock,
 * to know whether WAL is to be looked at.
 */
static bool
concerns_server(TdeScopeKind kind)
{
	TdePrincipalRef server;
	TdePrincipalRef defaults;
	bool		follows;

	if (kind == TDE_SCOPE_DATABASE ||
		!TdeGetPrincipalInfo(TDE_SCOPE_SERVER, InvalidOid, &server, &follows))
		return false;
	return kind == TDE_SCOPE_SERVER ||
		(TdeGetPrincipalInfo(TDE_SCOPE_DEFAULT, InvalidOid, &defaults,
							 &follows) &&
		 tde_same_principal(&server, &defaults));
}

static void
report_not_set(TdeScopeKind kind, const TdeScope *scope)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 kind == TDE_SCOPE_DEFAULT ?
			 errmsg("default principal key is not set") :
			 kind == TDE_SCOPE_SERVER ?
			 errmsg("principal key is not set for the server") :
			 errmsg("principal key is not set for the database"),
			 scope && scope->follows_default ?
			 errdetail("The database uses the default principal key.") : 0));
}

/*
 * The key is gone from the default scope: tell what else went, and what is
 * under it still.
 */
static void
report_default_deleted(const TdePrincipalRef *ref, bool server_too,
					   const char *left, bool server_left,
					   bool wal_needs, const char *segment)
{
	if (server_too)
		ereport(NOTICE,
				(errmsg("principal key \"%s\" of key provider \"%s\" is not the server key any more, either",
						ref->key_name, ref->provider_name)));
	if (left)
		ereport(NOTICE,
				(errmsg("principal key \"%s\" of key provider \"%s\" is still in use: %s",
						ref->key_name, ref->provider_name, left),
				 wal_needs ? errdetail_wal(segment) : 0,
				 wal_needs ?
				 errhint_wal(segment, "pg_tde_delete_server_key()") :
				 server_left ?
				 errhint("Call pg_tde_delete_server_key().") :
				 errhint("Call pg_tde_delete_key() in each of these databases.")));
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
	char		segment[MAXFNAMELEN];
	bool		looked_at_wal = concerns_server(kind);
	bool		wal_needs = looked_at_wal && wal_needs_server_key(segment);
	bool		server_too = false;
	char	   *left = NULL;
	bool		server_left = false;

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
		report_not_set(kind, scope);
	if (kind == TDE_SCOPE_SERVER && !looked_at_wal)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot delete the server key"),
				 errdetail("It was set just now, by another session."),
				 errhint("Try again.")));
	if (kind == TDE_SCOPE_SERVER && wal_needs)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot delete the server key"),
				 errdetail_wal(segment),
				 errhint_wal(segment, "pg_tde_delete_server_key()")));

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
	scopes = palloc(sizeof(TdeScope *) * (list_length(followers) + 2));
	foreach_ptr(TdeScope, follower, followers)
	{
		refuse_during_backup(follower->dbOid);
		retire(follower);
		scopes[n++] = follower;
	}

	if (kind == TDE_SCOPE_DEFAULT && looked_at_wal && !wal_needs)
	{
		TdeScope   *server = tde_scope_read_for_change(TDE_SCOPE_SERVER,
													   InvalidOid);

		server_too = server && !server->retired &&
			tde_same_principal(&server->principal, &scope->principal);
		if (server_too)
		{
			retire(server);
			scopes[n++] = server;
		}
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
	foreach_ptr(TdeUsedPrincipal, used, kind == TDE_SCOPE_DEFAULT ?
				tde_used_principals() : NIL)
	{
		if (OidIsValid(used->provider_db) ||
			!tde_same_principal(&used->ref, &scope->principal))
			continue;
		left = tde_describe_use(used);
		server_left = used->is_server;
	}
	LWLockRelease(&tde_store->lock);
	tde_secure_pfree(key);
	tde_log_key_change("delete", scope);
	if (server_too)
		tde_log_key_change("delete", scopes[n - 2]);
	if (kind == TDE_SCOPE_DEFAULT)
		report_default_deleted(&scope->principal, server_too, left,
							   server_left, wal_needs, segment);
	for (int i = 0; i < n; i++)
		tde_scope_free(scopes[i]);
}
