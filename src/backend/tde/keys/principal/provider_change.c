/*-------------------------------------------------------------------------
 *
 * provider_change.c
 *	  Adding, changing and deleting key providers.
 *
 * A provider that is changed must return the very keys that are in use; one
 * that is in use is not deleted.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/provider_change.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "principal_internal.h"

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

	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
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
	LWLockRelease(&tde_store->lock);
	tde_log_provider_change(dbOid, NULL, &provider);
	return provider.id;
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
	TdeProvider before;
	TdeProvider *provider;
	TdeProviderList *list;
	List	   *verified = NIL;
	List	   *users;
	TdePrincipalRef ref;

	provider = must_find(TdeGetProviders(dbOid), name);
	make_provider(&changed, dbOid, provider->id, type, name, options);
	changed.uuid = provider->uuid;
	users = tde_read_provider_users(dbOid, &changed, WARNING);
	for (;;)
	{
		bool		all = true;

		verified = verify_users(dbOid, &changed, users, verified);
		tde_free_provider_users(users);

		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		list = TdeGetProviders(dbOid);
		provider = must_find(list, name);
		changed.id = provider->id;
		changed.uuid = provider->uuid;
		users = tde_read_provider_users(dbOid, &changed, DEBUG1);
		foreach_ptr(TdeScope, user, users)
			all = all && is_verified(verified, user);
		if (all)
			break;
		LWLockRelease(&tde_store->lock);
	}
	before = *provider;
	*provider = changed;
	tde_providers_log_and_store(list);
	LWLockRelease(&tde_store->lock);
	tde_log_provider_change(dbOid, &before, &changed);
	tde_free_provider_users(users);

	memset(&ref, 0, sizeof(ref));
	ref.provider_id = changed.id;
	ref.provider_uuid = changed.uuid;
	tde_retry_unavailable(dbOid, &ref);
}

/*
 * A provider that no scope is under can go, also while a base backup runs: a
 * scope file that the backup has copied before says itself where its principal
 * key is.
 */
void
TdeDeleteProvider(Oid dbOid, const char *name)
{
	TdeProviderList *list;
	TdeProvider *provider;
	TdeProvider deleted;
	int			i;

	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	list = TdeGetProviders(dbOid);
	provider = must_find(list, name);
	foreach_ptr(TdeScope, user, tde_read_provider_users(dbOid, provider, ERROR))
		refuse_user(user, provider);

	deleted = *provider;
	i = provider - list->providers;
	memmove(provider, provider + 1,
			sizeof(TdeProvider) * (list->nproviders - i - 1));
	list->nproviders--;
	tde_providers_log_and_store(list);
	LWLockRelease(&tde_store->lock);
	tde_log_provider_change(dbOid, &deleted, NULL);
}
