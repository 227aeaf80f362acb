/*-------------------------------------------------------------------------
 *
 * unwrap_scope.c
 *	  Opening scope keys with the principal key that a provider returns.
 *
 * A provider is asked once for each principal key, however many scopes it
 * serves, whether or not the answer was good; but a program may choose to wait
 * for one that does not answer.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/unwrap_scope.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <time.h>

#include "common/logging.h"
#include "tde/fe_key_store.h"

/* What is found at a place. */
typedef struct Answer
{
	struct Answer *next;
	char		type[TDE_MAX_PROVIDER_TYPE + 1];
	char		options[TDE_MAX_PROVIDER_OPTIONS + 1];
	char		key_name[TDE_MAX_KEY_NAME + 1];
	TdePrincipalKey *key;		/* secure memory */
	TdeKeyringError error;
} Answer;

static Answer *answers = NULL;

/*
 * How long the program waits, in seconds, -1 without limit; and since when it
 * does, and when it said so.
 */
static int	key_wait = 0;
static time_t wait_began = 0;
static time_t wait_reported = 0;

/* Seconds between two attempts, and between two messages. */
#define RETRY_AFTER		1
#define REPORT_AFTER	60

void
tde_fe_set_key_wait(int seconds)
{
	key_wait = seconds;
}

/* After a failure: wait a little and return true; false if time is up. */
static bool
wait_for_provider(const TdeProvider *provider, const char *key_name,
				  const TdeKeyringError *error)
{
	time_t		now = time(NULL);

	if (wait_began == 0)
		wait_began = now;
	if (key_wait >= 0 && now - wait_began >= key_wait)
		return false;
	if (wait_reported == 0 || now - wait_reported >= REPORT_AFTER)
	{
		pg_log_warning("waiting for key provider \"%s\" to return principal key \"%s\"",
					   provider->name, key_name);
		pg_log_warning_detail(error->detail[0] ? "%s: %s" : "%s",
							  error->message, error->detail);
		wait_reported = now;
	}
	pg_usleep(RETRY_AFTER * 1000000L);
	return true;
}

static const Answer *
ask(const TdeProvider *provider, const char *key_name)
{
	Answer	   *answer;
	bool		locked;

	for (answer = answers; answer != NULL; answer = answer->next)
	{
		if (strcmp(answer->type, provider->type) == 0 &&
			strcmp(answer->options, provider->options) == 0 &&
			strcmp(answer->key_name, key_name) == 0)
		{
			if (answer->error.status == TDE_KEYRING_UNREACHABLE &&
				key_wait != 0)
				(void) tde_keyring_fetch(provider, key_name, NULL,
										 answer->key, &answer->error);
			return answer;
		}
	}

	answer = pg_malloc0(sizeof(Answer));
	strlcpy(answer->type, provider->type, sizeof(answer->type));
	strlcpy(answer->options, provider->options, sizeof(answer->options));
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

	answer = ask(provider, key_name);
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
	TdeProvider provider[TDE_MAX_CANDIDATES];
	int			n = tde_provider_candidates(&scope->principal, list, provider);

	if (n == 0)
	{
		*problem = psprintf(_("key provider \"%s\" (number %d), which has principal key \"%s\", does not exist"),
							scope->principal.provider_name,
							scope->principal.provider_id,
							scope->principal.key_name);
		*hint = _("Restore the list of key providers from a backup.");
		return false;
	}
	do
	{
		for (int i = 0; i < n; i++)
		{
			TdeKeyringError later;

			/* what is wrong with the first, which the list names, counts */
			if (tde_fe_unwrap_scope(scope, &provider[i],
									i == 0 ? &error : &later))
				return true;
		}
	} while (error.status == TDE_KEYRING_UNREACHABLE &&
			 wait_for_provider(&provider[0], scope->principal.key_name,
							   &error));
	*problem = psprintf(error.detail[0] ? "%s: %s" : "%s",
						error.message, error.detail);
	*hint = error.hint[0] ? error.hint : NULL;
	return false;
}
