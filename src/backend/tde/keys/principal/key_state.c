/*-------------------------------------------------------------------------
 *
 * key_state.c
 *	  A background worker that asks the key providers, now and then, whether
 *	  the principal keys in use may still be used.
 *
 * A server keeps the keys that it has and needs no key provider, so it would
 * not notice that a principal key was revoked, by an administrator who wants
 * the data to be out of reach.  With pg_tde.key_state_poll_interval it does;
 * pg_tde.key_state_action says what follows.
 *
 * No answer is no report: a provider that cannot be reached is logged, and
 * nothing else happens.  The same holds for a key that is merely missing:
 * nobody has said that it must not be used, and this server may be all that
 * is left to put the data under another one.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/key_state.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "principal_internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "tde/settings.h"
#include "tde/subsys.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* ---- asking ---- */

/*
 * Ask for the state of one key and log what is worth it.  Returns whether the
 * key must not be used any more.
 */
static bool
key_is_revoked(const TdeUsedPrincipal *key)
{
	char	   *problem;
	TdeProviderList *list;
	TdeProvider provider[TDE_MAX_CANDIDATES];
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};
	TdeKeyringError error;
	TdePrincipalState state;

	/* a list that is damaged must not keep us from asking for other keys */
	list = TdeTryGetProviders(key->provider_db, &problem);
	if (list == NULL)
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg_internal("%s", problem)));
	if (tde_provider_candidates(&key->ref, list, provider) == 0)
		return false;			/* lost, which a start reports */

	if (tde_provider_state(key->provider_db, provider, key->ref.key_name,
						   &call, &state, &error) != TDE_KEYRING_OK)
	{
		CHECK_FOR_INTERRUPTS();
		ereport(LOG,
				(errmsg("could not ask key provider \"%s\" for the state of principal key \"%s\"",
						provider->name, key->ref.key_name),
				 tde_errdetail_provider(&error)));
		return false;
	}
	if (state == TDE_PRINCIPAL_ACTIVE)
		return false;

	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("key provider \"%s\" reports principal key \"%s\" as %s",
					provider->name, key->ref.key_name,
					tde_principal_state_name(state)),
			 errdetail("It is in use: %s.", tde_describe_use(key)),
			 errhint("Set another principal key, or restore this one, before the server is restarted.")));
	return state != TDE_PRINCIPAL_PRE_ACTIVE &&
		state != TDE_PRINCIPAL_MISSING;
}

/*
 * Ask for all keys.  Returns whether one must not be used any more.
 */
static bool
poll_states(void)
{
	bool		revoked = false;

	foreach_ptr(TdeUsedPrincipal, key, tde_used_principals())
	{
		if (key_is_revoked(key))
			revoked = true;
		CHECK_FOR_INTERRUPTS();
	}
	return revoked;
}

/* ---- the worker ---- */

void
TdeKeyStateWorkerMain(void)
{
	MemoryContext context;
	uint32		wait_event = WaitEventExtensionNew("TdeKeyStatePoll");

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	/* no database, but a line in pg_stat_activity */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	context = AllocSetContextCreate(TopMemoryContext, "key state poll",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz next;
		MemoryContext oldcontext;
		bool		revoked;

		oldcontext = MemoryContextSwitchTo(context);
		revoked = poll_states();
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);

		if (revoked && tde_key_state_action == TDE_KEY_STATE_SHUTDOWN)
		{
			ereport(LOG,
					(errmsg("shutting down because of the state of a principal key"),
					 errhint("This follows from the setting \"%s\".",
							 "pg_tde.key_state_action")));
			kill(PostmasterPid, SIGINT);
		}

		next = TimestampTzPlusSeconds(GetCurrentTimestamp(),
									  tde_key_state_poll_interval);
		for (;;)
		{
			long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
															 next);

			if (ms <= 0)
				break;
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 ms, wait_event);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}
		}
	}
}

/*
 * To be called while libraries are preloaded, with the library and the
 * function in it that the worker begins with.
 */
void
TdeRegisterKeyStateWorker(const char *library, const char *function)
{
	BackgroundWorker worker = {0};

	if (tde_key_state_poll_interval == 0)
		return;
	strlcpy(worker.bgw_name, "pg_tde key state poll", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_tde key state poll", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = Min(tde_key_state_poll_interval, 60);
	strlcpy(worker.bgw_library_name, library, MAXPGPATH);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
