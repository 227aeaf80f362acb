/*-------------------------------------------------------------------------
 *
 * set.c
 *	  Principal keys: setting, rotating and verifying the one of a scope.
 *
 * Rotation wraps the scope keys anew and begins a new generation for keys
 * made from now on; it touches no internal key, so it costs the same with
 * ten relations and with a million.
 *
 * Providers are asked before store_lock is taken, never under it: if then the
 * key that was asked for is not the one needed any more, all begins anew.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/set.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "principal_internal.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/ipc.h"
#include "tde/settings.h"

/* ---- the SQL functions ---- */

static void
make_ref(Oid provider_db, const char *provider_name, const char *key_name,
		 TdePrincipalRef *ref, TdeProvider *provider)
{
	TdeProviderList *list = TdeGetProviders(provider_db);
	TdeProvider *found = tde_find_provider(list, provider_name);

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
	tde_provider_embed(ref, list, found);
	ref->created = tde_now();
}

void
TdeCreatePrincipalKey(Oid provider_db, const char *provider_name,
					  const char *key_name)
{
	TdePrincipalRef ref;
	TdeProvider provider;
	TdePrincipalKey *key = tde_secure_palloc(sizeof(TdePrincipalKey));
	TdeKeyringError error;
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};

	make_ref(provider_db, provider_name, key_name, &ref, &provider);
	if (tde_provider_create(provider_db, &provider, key_name, TDE_WRAP_KEY_LEN,
							&call, key, &error) != TDE_KEYRING_OK)
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
	tde_secure_pfree(key);
}

/*
 * Read a scope for a change; errors if the file is damaged, or lost: a new one
 * in its place could not be put together with the old one any more when that
 * is found again.
 */
TdeScope *
tde_scope_read_for_change(TdeScopeKind kind, Oid dbOid)
{
	char		reason[256];
	char		path[MAXPGPATH];
	TdeScope   *scope;

	scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));
	if (scope == NULL &&
		(reason[0] != '\0' ||
		 tde_scope_is_lost(kind, dbOid, reason, sizeof(reason))))
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
TdeScope *
tde_scope_next_version(TdeScope *scope, TdeScopeKind kind, Oid dbOid,
					   const TdePrincipalRef *ref,
					   const TdePrincipalKey *key, bool follows_default)
{
	if (scope == NULL)
		scope = tde_scope_new(kind, dbOid);
	else if ((tde_scope_is_over(scope) || kind == TDE_SCOPE_DEFAULT) &&
			 !tde_scope_is_resident(scope))
	{
		/* Nothing needs its old keys, which a start did not get. */
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
 * Is a provider still what it was?  One that was changed while we asked for
 * a key need not have that key: who changed it did not know that it would be
 * in use.
 */
static bool
provider_is_unchanged(Oid provider_db, const TdeProvider *old)
{
	TdeProvider *now = tde_find_provider(TdeGetProviders(provider_db),
										 old->name);

	return now != NULL && now->id == old->id &&
		TdeIdEquals(&now->uuid, &old->uuid) &&
		strcmp(now->type, old->type) == 0 &&
		strcmp(now->options, old->options) == 0;
}

static void
set_principal_key(TdeScopeKind kind, Oid dbOid, Oid provider_db,
				  const char *provider_name, const char *key_name)
{
	TdePrincipalRef ref;
	TdeProvider provider;
	TdePrincipalKey *key;
	TdeDefaultMove move = {0};
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

	key = tde_secure_palloc(sizeof(TdePrincipalKey));
	for (;;)
	{
		make_ref(provider_db, provider_name, key_name, &ref, &provider);
		(void) tde_principal_fetch(provider_db, &ref, key, ERROR, NULL);
		tde_require_active(provider_db, &provider, key_name, key);

		tde_rotation_phase(TDE_ROTATION_WAITING, 0);
		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		if (provider_is_unchanged(provider_db, &provider))
			break;
		LWLockRelease(&tde_store->lock);
	}
	tde_refuse_second_key(provider_db, &provider, &ref, key);

	scope = tde_scope_read_for_change(kind, dbOid);
	first = scope == NULL || scope->retired;
	if (kind == TDE_SCOPE_DEFAULT)
		tde_default_begin_move(&move, first ? NULL : &scope->principal, &ref);
	scopes = palloc(sizeof(TdeScope *) * (list_length(move.scopes) + 2));
	tde_rotation_phase(TDE_ROTATION_WRAPPING,
					   list_length(move.scopes) + move.sets_server + 1);
	foreach_ptr(TdeScope, other, move.scopes)
	{
		scopes[n++] = tde_scope_next_version(other, other->kind, other->dbOid,
											 &ref, key, other->follows_default);
		tde_rotation_advance();
	}
	if (move.sets_server)
	{
		scopes[n++] = tde_scope_next_version(move.server, TDE_SCOPE_SERVER,
											 InvalidOid, &ref, key, false);
		tde_rotation_advance();
	}
	scopes[n++] = tde_scope_next_version(scope, kind, dbOid, &ref, key, false);
	tde_rotation_advance();

	tde_scopes_log_and_store(scopes, n);
	tde_principal_remember(provider_db, &ref, key);
	tde_principals_forget_unused();
	if (kind == TDE_SCOPE_DEFAULT)
		tde_default_end_move(&move);
	LWLockRelease(&tde_store->lock);

	tde_secure_pfree(key);
	tde_log_key_change(first ? "set" : "rotate", scopes[n - 1]);
	for (int i = 0; i < n - 1; i++)
		if (!scopes[i]->follows_default)
			tde_log_key_change(move.sets_server && i == n - 2 ?
							   "set" : "rotate", scopes[i]);
	if (kind == TDE_SCOPE_DEFAULT)
		tde_default_report_move(&move, &ref);
	for (int i = 0; i < n; i++)
		tde_scope_free(scopes[i]);
}

/*
 * The provider has answered: it may have the keys of others, too, that were
 * not to be had.
 */
static void
retry_in_provider(Oid provider_db, const char *provider_name,
				  const char *key_name)
{
	TdePrincipalRef ref;
	TdeProvider provider;

	if (!tde_any_trouble())
		return;
	make_ref(provider_db, provider_name, key_name, &ref, &provider);
	tde_retry_unavailable(provider_db, &ref);
}

void
TdeSetPrincipalKey(TdeScopeKind kind, Oid dbOid, Oid provider_db,
				   const char *provider_name, const char *key_name)
{
	/* what is there already comes along, and what is under the default key */
	if (tde_scope_is_unavailable(kind, dbOid, NULL))
		tde_retry_unavailable(dbOid, NULL);
	else if (kind == TDE_SCOPE_DEFAULT)
		tde_default_retry();

	tde_rotation_begin(kind, key_name, provider_name);
	PG_ENSURE_ERROR_CLEANUP(tde_rotation_end, (Datum) 0);
	{
		set_principal_key(kind, dbOid, provider_db, provider_name, key_name);
	}
	PG_END_ENSURE_ERROR_CLEANUP(tde_rotation_end, (Datum) 0);
	tde_rotation_end(0, (Datum) 0);
	retry_in_provider(provider_db, provider_name, key_name);
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

	(void) tde_principal_fetch(provider_db, ref, key, ERROR, NULL);
	if (!opens_scope(scope, key))
	{
		tde_wipe(key, sizeof(*key));
		fail_other_key(ref);
	}
	tde_principal_remember(provider_db, ref, key);
}

/*
 * Take store_lock with the principal key of a scope in hand, which is asked
 * for before others must wait.  "read" reads the scope, or returns NULL if
 * there is none of the kind that the caller wants; then there is no key.
 */
TdeScope *
tde_lock_with_principal(TdeScope *(*read) (Oid dbOid), Oid dbOid,
						TdePrincipalKey *key)
{
	for (;;)
	{
		TdeScope   *scope = read(dbOid);
		TdeScope   *now;
		bool		same;

		if (scope)
			tde_scope_principal(scope, key);

		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		now = read(dbOid);
		same = scope == NULL ? now == NULL :
			now != NULL && TdeIdEquals(&now->id, &scope->id) &&
			now->change == scope->change;
		if (now)
			tde_scope_free(now);
		if (same)
			return scope;

		LWLockRelease(&tde_store->lock);
		if (scope)
			tde_scope_free(scope);
	}
}

/*
 * The default key for a database to follow.  NULL if there is none, or
 * databases are not to use it.
 */
TdeScope *
tde_read_default_scope(Oid dbOid)
{
	TdeScope   *scope;

	if (!tde_inherit_global_providers)
		return NULL;
	scope = tde_scope_read_for_change(TDE_SCOPE_DEFAULT, InvalidOid);
	if (scope && scope->retired)
	{
		tde_scope_free(scope);
		scope = NULL;
	}
	return scope;
}

/*
 * Give a database that has none a scope under the default key.
 */
void
tde_scope_follow_default(Oid dbOid)
{
	TdePrincipalKey *key = tde_secure_palloc(sizeof(TdePrincipalKey));
	TdeScope   *defaults;
	TdeScope   *scope;

	defaults = tde_lock_with_principal(tde_read_default_scope, InvalidOid, key);
	scope = tde_scope_read_for_change(TDE_SCOPE_DATABASE, dbOid);
	if (scope != NULL && !scope->retired)
	{
		/* somebody else was faster */
		LWLockRelease(&tde_store->lock);
		tde_secure_pfree(key);
		tde_scope_free(scope);
		if (defaults)
			tde_scope_free(defaults);
		return;
	}

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

	scope = tde_scope_next_version(scope, TDE_SCOPE_DATABASE, dbOid,
								   &defaults->principal, key, true);
	tde_secure_pfree(key);
	tde_scopes_log_and_store(&scope, 1);
	LWLockRelease(&tde_store->lock);
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
	TdeScope   *scope = tde_scope_read_for_change(kind, dbOid);

	*follows_default = false;
	if (scope && scope->retired)
		scope = NULL;
	if (scope)
		*follows_default = scope->follows_default;
	else if (kind == TDE_SCOPE_DATABASE && tde_inherit_global_providers)
	{
		scope = tde_scope_read_for_change(TDE_SCOPE_DEFAULT, InvalidOid);
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
	TdePrincipalKey *key;
	bool		ok;

	if (scope == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 kind == TDE_SCOPE_SERVER ?
				 errmsg("principal key is not set for the server") :
				 kind == TDE_SCOPE_DEFAULT ?
				 errmsg("default principal key is not set") :
				 errmsg("principal key is not set for the database")));

	key = tde_secure_palloc(sizeof(TdePrincipalKey));
	(void) tde_principal_fetch(scope->principal.provider_id > 0 ?
							   scope->dbOid : InvalidOid,
							   &scope->principal, key, ERROR, NULL);
	ok = opens_scope(scope, key);
	tde_secure_pfree(key);
	if (!ok)
		fail_other_key(&scope->principal);
	tde_retry_unavailable(scope->principal.provider_id > 0 ?
						  scope->dbOid : InvalidOid, &scope->principal);
	tde_scope_free(scope);
}
