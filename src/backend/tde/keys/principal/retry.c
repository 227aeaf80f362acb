/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  Scopes that could not be opened when the server started are tried again:
 *	  by a background worker, now and then, and where a session changes or
 *	  verifies what they depend on.
 *
 * The worker ends when there is nothing left to try, so that normally it lasts
 * for a moment.  A scope becomes unavailable only at a start or in replay,
 * before the worker begins.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/retry.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "principal_internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "tde/subsys.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* How long the worker waits, at first and in the end. */
#define FIRST_RETRY_MS	10000
#define LAST_RETRY_MS	60000

/*
 * The keys of a scope are resident.  It counts if the file has not been
 * replaced since it was read.
 */
static void
publish(const TdeScope *scope)
{
	char		reason[256];
	TdeScope   *now;
	bool		same;

	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	now = tde_scope_read(scope->kind, scope->dbOid, reason, sizeof(reason));
	same = now && TdeIdEquals(&now->id, &scope->id) &&
		now->change == scope->change;
	if (same && tde_scope_is_unavailable(scope->kind, scope->dbOid, NULL))
	{
		tde_end_given_up(scope->dbOid);
		tde_scope_publish(scope);
	}
	LWLockRelease(&tde_store->lock);
	if (now)
		tde_scope_free(now);
	if (!same)
		return;

	if (scope->kind == TDE_SCOPE_DATABASE)
		ereport(LOG,
				(errmsg("keys of database %u are available again",
						scope->dbOid)));
	else
		ereport(LOG,
				(scope->kind == TDE_SCOPE_SERVER ?
				 errmsg("keys of the server are available again") :
				 errmsg("default keys are available again")));
}

static void
retry(TdeScopeName name, const TdePrincipalRef *ref, TdeAsking *asking)
{
	char		reason[256];
	TdeScope   *scope = tde_scope_try_read(name.kind, name.dbOid, reason,
										   sizeof(reason));

	if (scope == NULL)
		return;					/* the file is still damaged, or gone */
	if (ref == NULL ||
		((ref->provider_id > 0) == (scope->principal.provider_id > 0) &&
		 tde_same_provider(ref->provider_id, &ref->provider_uuid,
						   scope->principal.provider_id,
						   &scope->principal.provider_uuid)))
	{
		if (tde_scope_make_resident(scope, DEBUG1, asking))
			publish(scope);
		else
			tde_scope_note_unavailable(name.kind, name.dbOid,
									   asking->problem);
	}
	tde_scope_free(scope);
}

/*
 * Try the scopes that are unavailable again: those whose principal key is in
 * the provider that "ref" names, or in any (NULL); and only that of a database,
 * or all (InvalidOid).  Raises what an interrupt raises.
 * Caller holds no lock of the key store.
 */
void
tde_retry_unavailable(Oid dbOid, const TdePrincipalRef *ref)
{
	TdeAsking	asking = {0};
	TdeScopeName *names;
	int			n;

	if (!tde_any_trouble())
		return;
	names = tde_list_unavailable(&n);
	for (int i = 0; i < n; i++)
	{
		if (OidIsValid(dbOid) && names[i].dbOid != dbOid)
			continue;
		retry(names[i], ref, &asking);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(names);
}

/* ---- the worker ---- */

static bool
all_are_available(void)
{
	int			n;

	pfree(tde_list_unavailable(&n));
	return n == 0;
}

void
TdeRetryWorkerMain(void)
{
	MemoryContext context;
	uint32		wait_event;
	long		ms = FIRST_RETRY_MS;

	if (all_are_available())
		proc_exit(0);

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	wait_event = WaitEventExtensionNew("TdeKeyRetry");
	tde_retries_forever = true;

	/* no database, but a line in pg_stat_activity */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	context = AllocSetContextCreate(TopMemoryContext, "key retry",
									ALLOCSET_DEFAULT_SIZES);
	while (!all_are_available())
	{
		MemoryContext oldcontext;
		TimestampTz next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   ms);
		long		left = ms;

		while (left > 0)
		{
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 left, wait_event);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												   next);
		}
		ms = Min(ms * 2, LAST_RETRY_MS);

		oldcontext = MemoryContextSwitchTo(context);
		tde_retry_unavailable(InvalidOid, NULL);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	}
	proc_exit(0);
}

/*
 * To be called while libraries are preloaded; see TdeRegisterKeyStateWorker().
 */
void
TdeRegisterRetryWorker(const char *library, const char *function)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "pg_tde key retry", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_tde key retry", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 10;
	strlcpy(worker.bgw_library_name, library, MAXPGPATH);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
