/*-------------------------------------------------------------------------
 *
 * providers.c
 *	  The lists of key providers: one global, one for each database that wants
 *	  its own.
 *
 * A list is a small file that is replaced whole.  A provider is named by its
 * id wherever a principal key is referred to, so its options may change.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/providers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xloginsert.h"
#include "access/xlog.h"
#include "key_store.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"

/*
 * Decode a list, palloc'd; NULL with a reason if it is damaged.
 */
static TdeProviderList *
parse_list(const uint8 *data, size_t len, const char **reason)
{
	TdeProviderList *list;
	TdeProvider *providers;
	int			n = tde_providers_count(data, len, reason);

	if (n < 0)
		return NULL;

	/* room for one more, for TdeAddProvider */
	list = palloc0(sizeof(TdeProviderList));
	providers = palloc0(sizeof(TdeProvider) * (n + 1));
	if (tde_providers_decode(data, len, list, providers, n, reason) != 0)
		return NULL;
	return list;
}

/*
 * Read a list; NULL with a reason if it is damaged.
 */
static TdeProviderList *
read_list(Oid dbOid, const char *path, const char **reason)
{
	TdeProviderList *list;
	uint8	   *data;
	size_t		len;

	data = tde_read_file(path, &len);
	if (data == NULL)
	{
		list = palloc0(sizeof(TdeProviderList));
		list->dbOid = dbOid;
		list->providers = palloc0(sizeof(TdeProvider));
		return list;
	}
	list = parse_list(data, len, reason);
	pfree(data);
	if (list != NULL && list->dbOid != dbOid)
	{
		*reason = gettext_noop("it belongs to another database");
		list = NULL;
	}
	return list;
}

TdeProviderList *
TdeGetProviders(Oid dbOid)
{
	char		path[MAXPGPATH];
	const char *reason = NULL;
	TdeProviderList *list;

	tde_provider_path(dbOid, path);
	list = read_list(dbOid, path, &reason);
	if (list == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not use the list of key providers in file \"%s\": %s",
						path, _(reason)),
				 errhint("Restore the file from a backup.")));
	return list;
}

TdeProviderList *
TdeTryGetProviders(Oid dbOid, char **problem)
{
	char		path[MAXPGPATH];
	const char *reason = NULL;
	TdeProviderList *list;

	tde_provider_path(dbOid, path);
	list = read_list(dbOid, path, &reason);
	*problem = list ? NULL :
		psprintf(_("could not use the list of key providers in file \"%s\": %s"),
				 path, _(reason));
	return list;
}

TdeProvider *
tde_find_provider(TdeProviderList *list, const char *name)
{
	for (int i = 0; i < list->nproviders; i++)
		if (strcmp(list->providers[i].name, name) == 0)
			return &list->providers[i];
	return NULL;
}

TdeProvider *
tde_find_provider_by_id(TdeProviderList *list, int32 id)
{
	for (int i = 0; i < list->nproviders; i++)
		if (list->providers[i].id == id)
			return &list->providers[i];
	return NULL;
}

/*
 * Put a list in its file, in redo.
 */
void
tde_providers_install(const TdeProviderList *list, const uint8 *data,
					  size_t len)
{
	char		path[MAXPGPATH];

	tde_make_directory(list->dbOid);
	tde_provider_path(list->dbOid, path);
	tde_write_temp_file(path, data, len, true);
	tde_rename_temp_file(path, ERROR);
}

/*
 * Log a changed list and replace its file; see tde_scopes_log_and_store().
 * Caller holds store_lock exclusively.
 */
void
tde_providers_log_and_store(TdeProviderList *list)
{
	char		path[MAXPGPATH];
	uint8	   *data;
	size_t		len;
	XLogRecPtr	lsn;

	Assert(LWLockHeldByMeInMode(&tde_shared->store_lock, LW_EXCLUSIVE));

	if (list->change++ == 0 && tde_random(list->id.b, TDE_ID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make an id: %s", tde_cipher_error())));
	data = palloc(tde_providers_encoded_size(list->nproviders));
	len = tde_providers_encode(list, data);
	if (len == 0)
		elog(ERROR, "could not encode the list of key providers: %s",
			 tde_cipher_error());

	tde_make_directory(list->dbOid);
	tde_provider_path(list->dbOid, path);
	tde_write_temp_file(path, data, len, true);

	INJECTION_POINT("tde-providers-written", NULL);
	INJECTION_POINT_LOAD("tde-providers-logged");

	START_CRIT_SECTION();
	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	XLogBeginInsert();
	XLogRegisterData(data, len);
	lsn = XLogInsert(RM_TDE_ID, XLOG_TDE_PROVIDERS);
	XLogFlush(lsn);
	INJECTION_POINT_CACHED("tde-providers-logged", NULL);
	tde_rename_temp_file(path, PANIC);
	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	END_CRIT_SECTION();

	pg_atomic_fetch_or_u32(&tde_shared->active, TDE_ACTIVE);
	pfree(data);
}

/*
 * Fill in a provider from what the user gave, and ask its type whether that
 * makes sense.  id is 0 for one that is to be added.
 */
static void
make_provider(TdeProvider *provider, Oid dbOid, int32 id, const char *type,
			  const char *name, const char *options)
{
	TdeKeyringError error;
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};

	memset(provider, 0, sizeof(*provider));
	provider->id = id;
	if (strlcpy(provider->type, type, sizeof(provider->type)) >=
		sizeof(provider->type) || tde_keyring_type(type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key provider type \"%s\"", type),
				 errhint("Known types: %s.", tde_keyring_type_names())));
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a key provider must not be empty")));
	if (strlcpy(provider->name, name, sizeof(provider->name)) >=
		sizeof(provider->name))
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of a key provider is too long"),
				 errdetail("It can have at most %d bytes.",
						   TDE_MAX_PROVIDER_NAME)));
	if (strlcpy(provider->options, options, sizeof(provider->options)) >=
		sizeof(provider->options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options of key provider \"%s\" are too long", name),
				 errdetail("They can have at most %d bytes.",
						   TDE_MAX_PROVIDER_OPTIONS)));

	if (tde_keyring_check_options(provider, &error) != TDE_KEYRING_OK ||
		tde_provider_validate(dbOid, provider, &call, &error) != TDE_KEYRING_OK)
	{
		CHECK_FOR_INTERRUPTS();
		ereport(ERROR,
				(errcode(error.status == TDE_KEYRING_BAD_OPTIONS ?
						 ERRCODE_INVALID_PARAMETER_VALUE :
						 ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
				 error.detail[0] ?
				 errmsg("could not use key provider \"%s\": %s",
						name, error.message) :
				 errmsg("could not use key provider \"%s\"", name),
				 error.detail[0] ?
				 errdetail_internal("%s", error.detail) :
				 errdetail_internal("%s", error.message),
				 error.hint[0] ? errhint("%s", error.hint) : 0));
	}
}

int32
TdeAddProvider(Oid dbOid, const char *type, const char *name,
			   const char *options)
{
	TdeProvider provider;
	TdeProviderList *list;

	make_provider(&provider, dbOid, 0, type, name, options);

	LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
	list = TdeGetProviders(dbOid);
	if (tde_find_provider(list, name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("key provider \"%s\" already exists", name)));
	if (list->nproviders >= TDE_MAX_PROVIDERS || abs(list->last_id) == PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many key providers"),
				 errdetail("There can be at most %d.", TDE_MAX_PROVIDERS)));
	list->last_id += OidIsValid(dbOid) ? 1 : -1;
	provider.id = list->last_id;
	list->providers[list->nproviders++] = provider;
	tde_providers_log_and_store(list);
	LWLockRelease(&tde_shared->store_lock);
	return provider.id;
}

/* ---- what uses a provider ---- */

/*
 * The scope, if its principal key is in the provider; else NULL.
 *
 * Of one whose file is damaged, or missing although there are keys that it
 * protects, nobody can tell.  "unknown" is where that is reported, or ERROR.
 */
static TdeScope *
read_user(TdeScopeKind kind, Oid dbOid, const TdeProvider *provider,
		  int unknown)
{
	char		reason[256];
	char		path[MAXPGPATH];
	TdeScope   *scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));

	if (scope && scope->principal.provider_id == provider->id &&
		!tde_scope_is_over(scope))
		return scope;
	if (scope)
	{
		tde_scope_free(scope);
		return NULL;
	}

	if (reason[0] == '\0' && kind == TDE_SCOPE_DATABASE &&
		tde_database_has_keys(dbOid))
		strlcpy(reason, _("the file does not exist, but there are keys that it protects"),
				sizeof(reason));
	if (reason[0] != '\0')
	{
		tde_scope_path(kind, dbOid, path);
		ereport(unknown,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not find out whether key provider \"%s\" is in use",
						provider->name),
				 errdetail("Key file \"%s\" cannot be used: %s.", path, reason),
				 errhint("Restore the file from a backup.")));
	}
	return NULL;
}

/*
 * All scopes whose principal key is in a provider of dbOid's list.
 */
static List *
read_users(Oid dbOid, const TdeProvider *provider, int unknown)
{
	Oid			one = dbOid;
	Oid		   *databases = &one;
	int			n = 1;
	List	   *users = NIL;
	TdeScope   *scope;

	if (!OidIsValid(dbOid))
	{
		static const TdeScopeKind kinds[] = {
			TDE_SCOPE_SERVER, TDE_SCOPE_DEFAULT
		};

		for (int i = 0; i < lengthof(kinds); i++)
			if ((scope = read_user(kinds[i], InvalidOid, provider, unknown)))
				users = lappend(users, scope);
		databases = tde_list_databases(&n);
	}
	for (int i = 0; i < n; i++)
	{
		if ((scope = read_user(TDE_SCOPE_DATABASE, databases[i], provider,
							   unknown)))
			users = lappend(users, scope);
		CHECK_FOR_INTERRUPTS();
	}
	return users;
}

static void
free_users(List *users)
{
	foreach_ptr(TdeScope, scope, users)
		tde_scope_free(scope);
	list_free(users);
}

/*
 * Is the principal key of that name in use?  Caller holds store_lock.
 */
bool
tde_provider_key_in_use(Oid dbOid, const TdeProvider *provider,
						const char *key_name)
{
	List	   *users = read_users(dbOid, provider, WARNING);
	bool		found = false;

	foreach_ptr(TdeScope, user, users)
		found = found || strcmp(user->principal.key_name, key_name) == 0;
	free_users(users);
	return found;
}

/* ---- a changed provider must return the very keys that are in use ---- */

/* A version of a scope that the changed provider's key opens. */
typedef struct VerifiedScope
{
	TdeId		id;
	uint64		change;
} VerifiedScope;

static bool
is_verified(List *verified, const TdeScope *scope)
{
	foreach_ptr(VerifiedScope, v, verified)
	{
		if (TdeIdEquals(&v->id, &scope->id) && v->change == scope->change)
			return true;
	}
	return false;
}

static void
fetch_key_in_use(Oid dbOid, const TdeProvider *provider, const char *name,
				 TdePrincipalKey *key)
{
	TdeKeyringError error;
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};

	if (tde_provider_fetch(dbOid, provider, name, &call, key,
						   &error) != TDE_KEYRING_OK)
	{
		CHECK_FOR_INTERRUPTS();
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("key provider \"%s\" does not return principal key \"%s\", which is in use",
						provider->name, name),
				 tde_errdetail_provider(&error)));
	}
}

/*
 * Ask the provider for the keys of those scopes that are not verified yet,
 * once for each key, and add the scopes.  Errors if a key does not open its
 * scope.
 */
static List *
verify_users(Oid dbOid, const TdeProvider *provider, List *users,
			 List *verified)
{
	foreach_ptr(TdeScope, user, users)
	{
		const char *name = user->principal.key_name;
		TdePrincipalKey *key;
		bool		ok = true;

		if (is_verified(verified, user))
			continue;
		key = tde_secure_palloc(sizeof(TdePrincipalKey));
		fetch_key_in_use(dbOid, provider, name, key);
		foreach_ptr(TdeScope, scope, users)
		{
			VerifiedScope *v;

			if (strcmp(scope->principal.key_name, name) != 0)
				continue;
			ok = tde_scope_unwrap(scope, key->key, key->len) == 0;
			if (!ok)
				break;
			v = palloc(sizeof(VerifiedScope));
			v->id = scope->id;
			v->change = scope->change;
			verified = lappend(verified, v);
		}
		tde_secure_pfree(key);
		if (!ok)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("key provider \"%s\" returns another principal key \"%s\" than the one in use",
							provider->name, name),
					 errhint("Copy the principal keys in use to the new place first.")));
	}
	return verified;
}

static void
refuse_user(const TdeScope *scope, const TdeProvider *provider)
{
	const char *name = scope->principal.key_name;

	if (scope->kind != TDE_SCOPE_DATABASE)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot delete key provider \"%s\"", provider->name),
				 scope->kind == TDE_SCOPE_SERVER ?
				 errdetail("Principal key \"%s\" is the server key.", name) :
				 errdetail("Principal key \"%s\" is the default key.", name)));
	if (scope->retired)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot delete key provider \"%s\"", provider->name),
				 errdetail("Principal key \"%s\" still protects the keys of relations that were dropped from database %u.",
						   name, scope->dbOid),
				 errhint("Try again after a checkpoint; base backups that run must have ended.")));
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot delete key provider \"%s\"", provider->name),
			 errdetail("Principal key \"%s\" protects the keys of database %u.",
					   name, scope->dbOid)));
}

static TdeProvider *
must_find(TdeProviderList *list, const char *name)
{
	TdeProvider *provider = tde_find_provider(list, name);

	if (provider == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("key provider \"%s\" does not exist", name)));
	return provider;
}

/*
 * Providers are slow, and others wait for store_lock: so the keys are
 * verified before it is taken, and again those that have come into use
 * meanwhile.
 */
void
TdeChangeProvider(Oid dbOid, const char *type, const char *name,
				  const char *options)
{
	TdeProvider changed;
	TdeProvider *provider;
	TdeProviderList *list;
	List	   *verified = NIL;
	List	   *users;
	int32		id = must_find(TdeGetProviders(dbOid), name)->id;

	make_provider(&changed, dbOid, id, type, name, options);
	users = read_users(dbOid, &changed, WARNING);
	for (;;)
	{
		bool		all = true;

		verified = verify_users(dbOid, &changed, users, verified);
		free_users(users);

		LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
		list = TdeGetProviders(dbOid);
		provider = must_find(list, name);
		changed.id = provider->id;
		users = read_users(dbOid, &changed, DEBUG1);
		foreach_ptr(TdeScope, user, users)
			all = all && is_verified(verified, user);
		if (all)
			break;
		LWLockRelease(&tde_shared->store_lock);
	}
	*provider = changed;
	tde_providers_log_and_store(list);
	LWLockRelease(&tde_shared->store_lock);
	free_users(users);
}

void
TdeDeleteProvider(Oid dbOid, const char *name)
{
	TdeProviderList *list;
	TdeProvider *provider;
	int			i;

	LWLockAcquire(&tde_shared->store_lock, LW_EXCLUSIVE);
	list = TdeGetProviders(dbOid);
	provider = must_find(list, name);
	foreach_ptr(TdeScope, user, read_users(dbOid, provider, ERROR))
		refuse_user(user, provider);

	i = provider - list->providers;
	memmove(provider, provider + 1,
			sizeof(TdeProvider) * (list->nproviders - i - 1));
	list->nproviders--;
	tde_providers_log_and_store(list);
	LWLockRelease(&tde_shared->store_lock);
}
