/*-------------------------------------------------------------------------
 *
 * fetch.c
 *	  Asking a provider for a principal key, and waiting for it at a start.
 *
 * A session that asks gets an answer or an error.  The startup process, where
 * it may need the key, waits for a provider that does not answer: for
 * pg_tde.key_wait_timeout, counted from the first failure to the next success;
 * when the server starts, in all for all keys.  Then it goes on without the
 * key if it can.  Only a standby that serves queries waits as long as it takes,
 * until it is asked to promote; giving up would take the queries away and
 * bring nothing.  A promotion cannot leave the record out that needs the key.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/fetch.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "provider_internal.h"
#include "miscadmin.h"
#include "postmaster/startup.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "tde/settings.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* How often the startup process asks again, and says that it still waits. */
#define RETRY_MS		1000
#define REPORT_MS		10000

/* Signals are looked at this often; the latch is not set for all of them. */
#define SLICE_MS		100

/* Of the startup process: when its present wait began; 0 if it does not. */
static TimestampTz wait_began = 0;
static TimestampTz wait_reported = 0;

/*
 * For TdeKeyringCall in the startup process: is it told to stop?  SIGTERM is
 * blocked during the call, so that it can be seen here.
 */
static bool
startup_call_cancelled(void *arg)
{
	sigset_t	pending;

	return (sigpending(&pending) == 0 && sigismember(&pending, SIGTERM)) ||
		!PostmasterIsAlive();
}

static TdeKeyringStatus
ask(Oid dbOid, const TdeProvider *provider, const char *key_name,
	TdePrincipalKey *key, TdeKeyringError *error)
{
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};
	TdeKeyringStatus status;
	sigset_t	sigterm;
	sigset_t	save;

	if (!AmStartupProcess())
		return tde_provider_fetch(dbOid, provider, key_name, &call, key, error);

	call.cancelled = startup_call_cancelled;
	sigemptyset(&sigterm);
	sigaddset(&sigterm, SIGTERM);
	sigprocmask(SIG_BLOCK, &sigterm, &save);
	status = tde_provider_fetch(dbOid, provider, key_name, &call, key, error);
	sigprocmask(SIG_SETMASK, &save, NULL);
	ProcessStartupProcInterrupts();
	return status;
}

/*
 * Ask those that may have the key, until one returns it.  The error is that of
 * the first, which the list of providers names.
 */
static bool
ask_candidates(Oid dbOid, const TdeProvider *candidates, int n,
			   const char *key_name, TdePrincipalKey *key,
			   TdeKeyringError *error)
{
	for (int i = 0; i < n; i++)
	{
		TdeKeyringError later;

		if (ask(dbOid, &candidates[i], key_name, key,
				i == 0 ? error : &later) == TDE_KEYRING_OK)
			return true;
	}
	return false;
}

/*
 * A wait for a provider begins anew.
 */
void
tde_provider_wait_reset(void)
{
	wait_began = 0;
}

/*
 * In the startup process, after a failure: wait a little and return true, or
 * false if it is no use.  What a provider denies now it may give later, but a
 * server that starts had better say so than wait.
 */
static bool
wait_for_provider(const TdeProvider *provider, const char *key_name,
				  const TdeKeyringError *error, bool can_do_without)
{
	static uint32 wait_event = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool		patient = StandbyMode && reachedConsistency && !can_do_without;

	if (error->status != TDE_KEYRING_UNREACHABLE && !InRecovery)
		return false;

	if (wait_began == 0 || (patient && !IsPromoteSignaled()))
	{
		if (wait_began == 0)
			wait_reported = 0;
		wait_began = now;
	}
	if (tde_key_wait_timeout >= 0 &&
		TimestampDifferenceExceeds(wait_began, now,
								   tde_key_wait_timeout * 1000) &&
		!(patient && !IsPromoteSignaled()))
		return false;

	if (wait_reported == 0 ||
		TimestampDifferenceExceeds(wait_reported, now, REPORT_MS))
	{
		ereport(LOG,
				(wait_reported == 0 ?
				 errmsg("waiting for key provider \"%s\" to return principal key \"%s\"",
						provider->name, key_name) :
				 errmsg("still waiting for key provider \"%s\" to return principal key \"%s\"",
						provider->name, key_name),
				 tde_errdetail_provider(error),
				 patient ?
				 errhint("Replay goes on when the key provider returns the key.") :
				 tde_key_wait_timeout < 0 ?
				 errhint("The server goes on when the key provider returns the key.") :
				 can_do_without ?
				 errhint("The server goes on when the key provider returns the key, or without it after %d s (\"%s\").",
						 tde_key_wait_timeout, "pg_tde.key_wait_timeout") :
				 errhint("The server goes on when the key provider returns the key, and gives up after %d s (\"%s\").",
						 tde_key_wait_timeout, "pg_tde.key_wait_timeout")));
		wait_reported = now;
	}

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("TdeKeyProvider");
	for (int ms = 0; ms < RETRY_MS; ms += SLICE_MS)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 SLICE_MS, wait_event);
		ResetLatch(MyLatch);
		ProcessStartupProcInterrupts();
	}
	return true;
}

/* ---- providers that failed, of one who asks for many keys ---- */

typedef struct TdeFailedProvider
{
	struct TdeFailedProvider *next;
	TdeProvider provider;
	TdeKeyringError error;
} TdeFailedProvider;

/*
 * Has this provider failed before?  Two of the same type with the same options
 * are one.
 */
static bool
has_failed(const TdeAsking *asking, const TdeProvider *provider,
		   TdeKeyringError *error)
{
	for (TdeFailedProvider *f = asking ? asking->failed : NULL; f; f = f->next)
	{
		if (strcmp(f->provider.type, provider->type) == 0 &&
			strcmp(f->provider.options, provider->options) == 0)
		{
			*error = f->error;
			return true;
		}
	}
	return false;
}

/*
 * What it says of a single key says nothing of the next one.
 */
static void
note_failed(TdeAsking *asking, const TdeProvider *provider,
			const TdeKeyringError *error)
{
	TdeFailedProvider *f;

	switch (error->status)
	{
		case TDE_KEYRING_UNREACHABLE:
		case TDE_KEYRING_BAD_OPTIONS:
		case TDE_KEYRING_BAD_DATA:
			break;
		default:
			return;
	}
	f = palloc(sizeof(TdeFailedProvider));
	f->next = asking->failed;
	f->provider = *provider;
	f->error = *error;
	asking->failed = f;
}

/*
 * Ask the provider of a principal key for it; see tde_provider_candidates().
 * Returns false after a report below ERROR.  dbOid is that of the provider's
 * list, which need not be readable if the reference says enough.
 *
 * The startup process waits for a provider that it must have the key from, or
 * where "asking", if it is given, says so.
 */
bool
tde_principal_fetch(Oid dbOid, const TdePrincipalRef *ref,
					TdePrincipalKey *key, int elevel, TdeAsking *asking)
{
	char	   *problem;
	TdeProviderList *list = TdeTryGetProviders(dbOid, &problem);
	TdeProvider provider[TDE_MAX_CANDIDATES];
	int			n = tde_provider_candidates(ref, list, provider);
	TdeKeyringError error;
	bool		listed = list && tde_find_named_provider(list, ref);
	bool		waits = AmStartupProcess() &&
		(asking ? asking->wait && !asking->time_is_up : elevel >= ERROR);
	bool		known_to_fail = false;

	if (n == 0)
	{
		if (asking)
			asking->problem = psprintf(_("key provider \"%s\" of principal key \"%s\" does not exist"),
									   ref->provider_name, ref->key_name);
		ereport(elevel,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("failed to retrieve principal key \"%s\": key provider \"%s\" does not exist",
						ref->key_name, ref->provider_name),
				 problem ? errdetail_internal("%s", problem) : 0,
				 errhint("Restore the list of key providers from a backup.")));
		return false;
	}

	/* with two candidates, each has its own turn: they are rare */
	if (n == 1)
		known_to_fail = has_failed(asking, provider, &error);

	while (known_to_fail ||
		   !ask_candidates(dbOid, provider, n, ref->key_name, key, &error))
	{
		if (waits && !known_to_fail)
		{
			if (wait_for_provider(provider, ref->key_name, &error,
								  elevel < ERROR))
				continue;
			if (asking && error.status == TDE_KEYRING_UNREACHABLE)
				asking->time_is_up = true;
		}

		CHECK_FOR_INTERRUPTS();
		if (asking)
		{
			if (!known_to_fail)
				note_failed(asking, provider, &error);
			asking->problem = psprintf(error.detail[0] ?
									   _("principal key \"%s\" cannot be had from key provider \"%s\": %s: %s") :
									   _("principal key \"%s\" cannot be had from key provider \"%s\": %s"),
									   ref->key_name, provider->name,
									   error.message, error.detail);
		}
		ereport(elevel,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("failed to retrieve principal key \"%s\" from key provider \"%s\"",
						ref->key_name, provider->name),
				 tde_errdetail_provider(&error),
				 asking && asking->hint ? errhint("%s", asking->hint) :
				 AmStartupProcess() && error.hint[0] == '\0' &&
				 elevel >= ERROR ?
				 errhint("Start the server when the key provider returns the key; if it has moved, tell the server with pg_tde_change_key_provider.") : 0));
		return false;
	}
	if (!asking)
		tde_provider_wait_reset();

	/* Replay may bring the list to where it knows it; a lost one stays lost. */
	if (!listed)
		ereport(list && list->change > 0 ? LOG : WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("key provider \"%s\" is not in the list of key providers",
						ref->provider_name),
				 problem ? errdetail_internal("%s", problem) :
				 errdetail("It was asked for principal key \"%s\" as it was when that was set.",
						   ref->key_name),
				 list && list->change > 0 ? 0 :
				 errhint("Restore the list of key providers from a backup.")));
	return true;
}
