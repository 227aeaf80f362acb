/*-------------------------------------------------------------------------
 *
 * principal.c
 *	  Principal keys: setting, rotating, verifying and deleting the one of a
 *	  scope.
 *
 * Rotation wraps the scope keys anew and begins a new generation for keys
 * made from now on; it touches no internal key, so it costs the same with
 * ten relations and with a million.
 *
 * Providers are asked before store_lock is taken; under it only where the key
 * that was asked for is not the one needed any more.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "key_store.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/ipc.h"
#include "tde/settings.h"

/* ---- the SQL functions ---- */

static void
make_ref(Oid provider_db, const char *provider_name, const char *key_name,
		 TdePrincipalRef *ref, TdeProvider *provider)
{
	TdeProvider *found = tde_find_provider(TdeGetProviders(provider_db),
										   provider_name);

	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("key provider \"%s\" does not exist", provider_name)));
	*provider = *found;

	memset(ref, 0, sizeof(*ref));
	if (key_name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a principal key must not be empty")));
	if (strlcpy(ref->key_name, key_name, sizeof(ref->key_name)) >=
		sizeof(ref->key_name))
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of a principal key is too long"),
				 errdetail("It can have at most %d bytes.", TDE_MAX_KEY_NAME)));
	ref->provider_id = found->id;
	strlcpy(ref->provider_name, found->name, sizeof(ref->provider_name));
	ref->created = tde_now();
}

void
TdeCreatePrincipalKey(Oid provider_db, const char *provider_name,
					  const char *key_name)
{
	TdePrincipalRef ref;
	TdeProvider provider;
	TdePrincipalKey key;
	TdeKeyringError error;
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};

	make_ref(provider_db, provider_name, key_name, &ref, &provider);
	if (tde_provider_create(provider_db, &provider, key_name, TDE_WRAP_KEY_LEN,
							&call, &key, &error) != TDE_KEYRING_OK)
	{
		CHECK_FOR_INTERRUPTS();
		if (error.status == TDE_KEYRING_EXISTS)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("principal key \"%s\" already exists in key provider \"%s\"",
							key_name, provider_name),
					 error.hint[0] ? errhint("%s", error.hint) : 0));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not create principal key \"%s\" in key provider \"%s\"",
						key_name, provider_name),
				 tde_errdetail_provider(&error)));
	}
	tde_wipe(&key, sizeof(key));
}

/*
 * Read a scope for a change; errors if the file is damaged, or lost: a new one
 * in its place could not be put together with the old one any more when that
 * is found again.
 */
static TdeScope *
read_for_change(TdeScopeKind kind, Oid dbOid)
{
	char		reason[256];
	char		path[MAXPGPATH];
	TdeScope   *scope;

	scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));
	if (scope == NULL && reason[0] == '\0' &&
		kind == TDE_SCOPE_DATABASE && tde_database_has_keys(dbOid))
		strlcpy(reason, _("the file does not exist, but there are keys that it protects"),
				sizeof(reason));
	if (scope == NULL && reason[0] != '\0')
	{
		tde_scope_path(kind, dbOid, path);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not use key file \"%s\": %s", path, reason),
				 errhint("Restore the file from a backup.")));
	}
	return scope;
}

/*
 * The next version of a scope, under a principal key: a new scope, or the old
 * one with one more generation.
 */
static TdeScope *
next_version(TdeScope *scope, TdeScopeKind kind, Oid dbOid,
			 const TdePrincipalRef *ref, const TdePrincipalKey *key,
			 bool follows_default)
{
	if (scope == NULL)
		scope = tde_scope_new(kind, dbOid);
	else if (tde_scope_is_over(scope) &&
			 !tde_scope_make_resident(scope, DEBUG1))
	{
		/* Nothing needs its old keys, and there is no way to have them. */
		tde_scope_add_generation(scope);
		scope->generations[0] = scope->generations[scope->ngenerations - 1];
		scope->ngenerations = 1;
	}
	else
	{
		tde_scope_fill_keys(scope);
		tde_scope_add_generation(scope);
	}
	scope->change++;
	scope->principal = *ref;
	scope->follows_default = follows_default;
	scope->retired = false;
	if (tde_scope_wrap(scope, key->key, key->len) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not wrap scope keys: %s", tde_cipher_error())));
	return scope;
}

/*
 * The databases that follow the default key.
 */
static List *
read_followers(void)
{
	List	   *result = NIL;
	int			n;
	Oid		   *databases = tde_list_databases(&n);

	for (int i = 0; i < n; i++)
	{
		char		reason[256];
		TdeScope   *scope = tde_scope_read(TDE_SCOPE_DATABASE, databases[i],
										   reason, sizeof(reason));

		/* a damaged one stays as it is, and is reported where it is used */
		if (scope && scope->follows_default && !scope->retired)
			result = lappend(result, scope);
		CHECK_FOR_INTERRUPTS();
	}
	return result;
}

/*
 * Is a provider still what it was?  One that was changed while we asked for
 * a key need not have that key: who changed it did not know that it would be
 * in use.
 */
static bool
provider_is_unchanged(Oid provider_db, const TdeProvider *old)
{
	TdeProvider *now = tde_find_provider_by_id(TdeGetProviders(provider_db),
											   old->id);

	return now != NULL && strcmp(now->name, old->name) == 0 &&
		strcmp(now->type, old->type) == 0 &&
		strcmp(now->options, old->options) == 0;
}

static void
set_principal_key(TdeScopeKind kind, Oid dbOid, Oid provider_db,
				  const char *provider_name, const char *key_name)
{
	TdePrincipalRef ref;
	TdeProvider provider;
	TdePrincipalKey key;
	List	   *followers = NIL;
	TdeScope  **scopes;
	TdeScope   *scope;
	bool		first;
	int			n = 0;

	if (!tde_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"pg_tde\" must be preloaded to set a principal key"),
				 errhint("Add \"pg_tde\" to \"shared_preload_libraries\" and restart the server.")));

	if (kind == TDE_SCOPE_DATABASE && !OidIsValid(provider_db) &&
		!tde_inherit_global_providers)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot use global key provider \"%s\" for the key of a database",
						provider_name),
				 errdetail("\"%s\" is off.", "pg_tde.inherit_global_providers"),
				 errhint("Use a key provider of the database.")));

	for (;;)
	{
		make_ref(provider_db, provider_name, key_name, &ref, &provider);
		(void) tde_principal_fetch(provider_db, &ref, &key, ERROR);
		tde_require_active(provider_db, &provider, key_name, &key);

		tde_rotation_phase(TDE_ROTATION_WAITING, 0);
		LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
		if (provider_is_unchanged(provider_db, &provider))
			break;
		LWLockRelease(&tde_shared->store_lock);
		tde_wipe(&key, sizeof(key));
	}
	tde_refuse_second_key(provider_db, &provider, &ref, &key);

	if (kind == TDE_SCOPE_DEFAULT)
		followers = read_followers();
	scopes = palloc(sizeof(TdeScope *) * (list_length(followers) + 1));
	tde_rotation_phase(TDE_ROTATION_WRAPPING, list_length(followers) + 1);
	foreach_ptr(TdeScope, follower, followers)
	{
		scopes[n++] = next_version(follower, TDE_SCOPE_DATABASE,
								   follower->dbOid, &ref, &key, true);
		tde_rotation_advance();
	}
	scope = read_for_change(kind, dbOid);
	first = scope == NULL || scope->retired;
	scopes[n++] = next_version(scope, kind, dbOid, &ref, &key, false);
	tde_rotation_advance();

	tde_scopes_log_and_store(scopes, n);
	tde_principal_remember(provider_db, &ref, &key);
	LWLockRelease(&tde_shared->store_lock);

	tde_wipe(&key, sizeof(key));
	tde_log_key_change(first ? "set" : "rotate", scopes[n - 1]);
	for (int i = 0; i < n; i++)
		tde_scope_free(scopes[i]);
}

void
TdeSetPrincipalKey(TdeScopeKind kind, Oid dbOid, Oid provider_db,
				   const char *provider_name, const char *key_name)
{
	tde_rotation_begin(kind, key_name, provider_name);
	PG_ENSURE_ERROR_CLEANUP(tde_rotation_end, (Datum) 0);
	{
		set_principal_key(kind, dbOid, provider_db, provider_name, key_name);
	}
	PG_END_ENSURE_ERROR_CLEANUP(tde_rotation_end, (Datum) 0);
	tde_rotation_end(0, (Datum) 0);
}

static void
fail_other_key(const TdePrincipalRef *ref)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("principal key \"%s\" from key provider \"%s\" is not the key in use",
					ref->key_name, ref->provider_name),
			 errhint("Restore the principal key in the key provider before the server is restarted, or set another one now.")));
}

static bool
opens_scope(TdeScope *scope, const TdePrincipalKey *key)
{
	bool		ok = tde_scope_unwrap(scope, key->key, key->len) == 0;

	for (int i = 0; i < scope->ngenerations; i++)
		tde_wipe(scope->generations[i].key, TDE_WRAP_KEY_LEN);
	return ok;
}

/*
 * Get the principal key that a scope is under: from memory, or from its
 * provider.
 *
 * Whoever wraps another scope with it must be sure that it is that key.  With
 * another one of the same name, which the provider may have by now, the new
 * scope would be lost when the right one is put back.
 */
void
tde_scope_principal(TdeScope *scope, TdePrincipalKey *key)
{
	const TdePrincipalRef *ref = &scope->principal;
	Oid			provider_db = ref->provider_id > 0 ? scope->dbOid : InvalidOid;

	if (tde_principal_get(provider_db, ref, key) && opens_scope(scope, key))
		return;

	(void) tde_principal_fetch(provider_db, ref, key, ERROR);
	if (!opens_scope(scope, key))
	{
		tde_wipe(key, sizeof(*key));
		fail_other_key(ref);
	}
	tde_principal_remember(provider_db, ref, key);
}

/*
 * Get the default key for a database to follow.  NULL if there is none, or
 * databases are not to use it.
 */
static TdeScope *
read_default(TdePrincipalKey *key)
{
	TdeScope   *scope;

	if (!tde_inherit_global_providers)
		return NULL;
	scope = read_for_change(TDE_SCOPE_DEFAULT, InvalidOid);
	if (scope == NULL || scope->retired)
		return NULL;
	tde_scope_principal(scope, key);
	return scope;
}

/*
 * Have the default key in memory before store_lock is taken, for which others
 * would wait while its provider is asked.
 */
static void
prefetch_default(void)
{
	TdePrincipalKey key;
	TdeScope   *scope = read_default(&key);

	if (scope == NULL)
		return;
	tde_wipe(&key, sizeof(key));
	tde_scope_free(scope);
}

/*
 * Give a database that has none a scope under the default key.
 */
void
tde_scope_follow_default(Oid dbOid)
{
	TdePrincipalKey key;
	TdeScope   *defaults;
	TdeScope   *scope;

	prefetch_default();
	LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
	scope = read_for_change(TDE_SCOPE_DATABASE, dbOid);
	if (scope != NULL && !scope->retired)
	{
		/* somebody else was faster */
		LWLockRelease(&tde_shared->store_lock);
		tde_scope_free(scope);
		return;
	}

	defaults = read_default(&key);
	if (defaults == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("principal key is not set for the database"),
				 tde_inherit_global_providers ? 0 :
				 errdetail("A default key is not used, because \"%s\" is off.",
						   "pg_tde.inherit_global_providers"),
				 !tde_inherit_global_providers ?
				 errhint("Set one with pg_tde_set_key_using_database_key_provider(), or turn the setting on.") :
				 errhint("Set one with pg_tde_set_key_using_database_key_provider() or pg_tde_set_key_using_global_key_provider(), or a default key for all databases with pg_tde_set_default_key_using_global_key_provider().")));

	scope = next_version(scope, TDE_SCOPE_DATABASE, dbOid,
						 &defaults->principal, &key, true);
	tde_wipe(&key, sizeof(key));
	tde_scopes_log_and_store(&scope, 1);
	LWLockRelease(&tde_shared->store_lock);
	tde_scope_free(scope);
	tde_scope_free(defaults);
}

/* ---- information ---- */

/*
 * The scope that counts for a question about a scope: a database without one
 * of its own is answered for by the default.
 */
static TdeScope *
read_effective(TdeScopeKind kind, Oid dbOid, bool *follows_default)
{
	TdeScope   *scope = read_for_change(kind, dbOid);

	*follows_default = false;
	if (scope && scope->retired)
		scope = NULL;
	if (scope)
		*follows_default = scope->follows_default;
	else if (kind == TDE_SCOPE_DATABASE && tde_inherit_global_providers)
	{
		scope = read_for_change(TDE_SCOPE_DEFAULT, InvalidOid);
		if (scope && scope->retired)
			scope = NULL;
		*follows_default = scope != NULL;
	}
	return scope;
}

bool
TdeGetPrincipalInfo(TdeScopeKind kind, Oid dbOid, TdePrincipalRef *ref,
					bool *follows_default)
{
	TdeScope   *scope = read_effective(kind, dbOid, follows_default);

	if (scope == NULL)
		return false;
	*ref = scope->principal;
	tde_scope_free(scope);
	return true;
}

void
TdeVerifyPrincipalKey(TdeScopeKind kind, Oid dbOid)
{
	bool		follows_default;
	TdeScope   *scope = read_effective(kind, dbOid, &follows_default);
	TdePrincipalKey key;
	bool		ok;

	if (scope == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 kind == TDE_SCOPE_SERVER ?
				 errmsg("principal key is not set for the server") :
				 kind == TDE_SCOPE_DEFAULT ?
				 errmsg("default principal key is not set") :
				 errmsg("principal key is not set for the database")));

	(void) tde_principal_fetch(scope->principal.provider_id > 0 ?
							   scope->dbOid : InvalidOid,
							   &scope->principal, &key, ERROR);
	ok = opens_scope(scope, &key);
	tde_wipe(&key, sizeof(key));
	if (!ok)
		fail_other_key(&scope->principal);
	tde_scope_free(scope);
}

/* ---- deletion ---- */

static void
note_live_key(const RelFileLocator *locator, void *arg)
{
	if (tde_relation_has_file(locator))
		*(bool *) arg = true;
}

static bool
database_has_encrypted_relations(Oid dbOid)
{
	bool		found = false;

	tde_list_key_files(dbOid, note_live_key, &found);
	return found;
}

/*
 * A database that would be left without a principal key if this one went, and
 * for which "has_need" is true; InvalidOid if there is none.
 */
static Oid
database_in_need(TdeScopeKind kind, Oid dbOid, bool (*has_need) (Oid))
{
	TdePrincipalRef ref;
	bool		follows_default;

	if (kind == TDE_SCOPE_DATABASE)
	{
		if ((!tde_inherit_global_providers ||
			 !TdeGetPrincipalInfo(TDE_SCOPE_DEFAULT, InvalidOid, &ref,
								  &follows_default)) &&
			has_need(dbOid))
			return dbOid;
		return InvalidOid;
	}

	foreach_ptr(TdeScope, follower, read_followers())
	{
		if (has_need(follower->dbOid))
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

void
TdeDeletePrincipalKey(TdeScopeKind kind, Oid dbOid)
{
	TdePrincipalKey key;
	TdeScope   *scope;
	TdeScope   *defaults = NULL;
	Oid			in_need;

	/*
	 * The file of a dropped relation stays until the next checkpoint, and
	 * must not count (DROP TABLESPACE has the same problem).  Its key stays
	 * until recovery does not need it any more, which must be before the
	 * principal key goes.
	 */
	if (OidIsValid(database_in_need(kind, dbOid, tde_database_has_keys)))
		RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE |
						  CHECKPOINT_WAIT);

	if (kind == TDE_SCOPE_DATABASE)
		prefetch_default();
	LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
	scope = read_for_change(kind, dbOid);
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

	in_need = database_in_need(kind, dbOid, database_has_encrypted_relations);

	if (kind == TDE_SCOPE_DEFAULT)
	{
		if (OidIsValid(in_need))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot delete the default principal key"),
					 errdetail("Database %u has encrypted relations and no principal key of its own.",
							   in_need),
					 errhint("Set a principal key for that database first.")));

		foreach_ptr(TdeScope, follower, read_followers())
			refuse_during_backup(follower->dbOid);

		/* Databases that have nothing encrypted lose their key too. */
		foreach_ptr(TdeScope, follower, read_followers())
		{
			tde_scope_fill_keys(follower);
			follower->change++;
			follower->retired = true;
			tde_scopes_log_and_store(&follower, 1);
		}
	}
	else
		defaults = read_default(&key);

	if (defaults)
	{
		scope = next_version(scope, kind, dbOid, &defaults->principal, &key,
							 true);
		tde_wipe(&key, sizeof(key));
	}
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
		tde_scope_fill_keys(scope);
		scope->change++;
		scope->retired = true;
	}
	tde_scopes_log_and_store(&scope, 1);
	LWLockRelease(&tde_shared->store_lock);
	tde_log_key_change("delete", scope);
	tde_scope_free(scope);
}
