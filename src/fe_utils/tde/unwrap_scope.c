/*-------------------------------------------------------------------------
 *
 * unwrap_scope.c
 *	  Opening scope keys with the principal key that a provider returns.
 *
 * A provider is asked once for each principal key, however many scopes it
 * serves, whether or not the answer was good.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/unwrap_scope.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/logging.h"
#include "tde/fe_key_store.h"

/* A provider's answer. */
typedef struct Answer
{
	struct Answer *next;
	Oid			provider_db;
	int32		provider_id;
	char		key_name[TDE_MAX_KEY_NAME + 1];
	TdePrincipalKey *key;		/* secure memory */
	TdeKeyringError error;
} Answer;

static Answer *answers = NULL;

static const Answer *
ask(Oid provider_db, const TdeProvider *provider, const char *key_name)
{
	Answer	   *answer;
	bool		locked;

	for (answer = answers; answer != NULL; answer = answer->next)
	{
		if (answer->provider_db == provider_db &&
			answer->provider_id == provider->id &&
			strcmp(answer->key_name, key_name) == 0)
			return answer;
	}

	answer = pg_malloc0(sizeof(Answer));
	answer->provider_db = provider_db;
	answer->provider_id = provider->id;
	strlcpy(answer->key_name, key_name, sizeof(answer->key_name));
	answer->key = tde_secure_alloc(sizeof(TdePrincipalKey), false, &locked);
	if (answer->key == NULL)
		pg_fatal("out of memory");
	(void) tde_keyring_fetch(provider, key_name, NULL, answer->key,
							 &answer->error);
	answer->next = answers;
	answers = answer;
	return answer;
}

int
tde_fe_principals_asked(void)
{
	int			n = 0;

	for (const Answer *answer = answers; answer != NULL; answer = answer->next)
		n++;
	return n;
}

bool
tde_fe_unwrap_scope(TdeScope *scope, const TdeProvider *provider,
					TdeKeyringError *error)
{
	const char *key_name = scope->principal.key_name;
	const Answer *answer;

	answer = ask(provider->id > 0 ? scope->dbOid : InvalidOid, provider,
				 key_name);
	if (answer->error.status != TDE_KEYRING_OK)
	{
		*error = answer->error;
		return false;
	}
	if (tde_scope_unwrap(scope, answer->key->key, answer->key->len) != 0)
	{
		tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
						 _("Restore the principal key in the key provider."),
						 _("principal key \"%s\" from key provider \"%s\" is not the key in use"),
						 key_name, provider->name);
		return false;
	}
	return true;
}

bool
tde_fe_open_scope(TdeScope *scope, const TdeProviderList *list,
				  char **problem, const char **hint)
{
	static TdeKeyringError error;
	const TdeProvider *provider = NULL;

	if (list)
		provider = tde_fe_find_provider_by_id(list,
											  scope->principal.provider_id);
	if (provider == NULL)
	{
		*problem = psprintf(_("key provider \"%s\" (number %d), which has principal key \"%s\", does not exist"),
							scope->principal.provider_name,
							scope->principal.provider_id,
							scope->principal.key_name);
		*hint = _("Restore the list of key providers from a backup.");
		return false;
	}
	if (!tde_fe_unwrap_scope(scope, provider, &error))
	{
		*problem = psprintf(error.detail[0] ? "%s: %s" : "%s",
							error.message, error.detail);
		*hint = error.hint[0] ? error.hint : NULL;
		return false;
	}
	return true;
}
