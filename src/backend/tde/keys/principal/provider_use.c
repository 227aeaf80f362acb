/*-------------------------------------------------------------------------
 *
 * provider_use.c
 *	  Which scopes have their principal key in a provider.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/provider_use.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "principal_internal.h"

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

	if (scope && tde_provider_is_named(provider, &scope->principal) &&
		!tde_scope_is_over(scope))
		return scope;
	if (scope)
	{
		tde_scope_free(scope);
		return NULL;
	}

	if (reason[0] != '\0' ||
		tde_scope_is_lost(kind, dbOid, reason, sizeof(reason)))
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
List *
tde_read_provider_users(Oid dbOid, const TdeProvider *provider, int unknown)
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

void
tde_free_provider_users(List *users)
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
	List	   *users = tde_read_provider_users(dbOid, provider, WARNING);
	bool		found = false;

	foreach_ptr(TdeScope, user, users)
		found = found || strcmp(user->principal.key_name, key_name) == 0;
	tde_free_provider_users(users);
	return found;
}
