/*-------------------------------------------------------------------------
 *
 * percona_pg_telemetry.c
 *	  Settings of the library, and the worker that writes the reports.
 *
 * The library writes a few facts about the server to a local directory, from
 * time to time, for whoever wants to collect them there.  It opens no
 * connection to anywhere.  It is an aid and nothing else: whatever goes wrong
 * is logged, and the server goes on.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/percona_pg_telemetry/percona_pg_telemetry.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "percona_pg_telemetry.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define DEFAULT_PATH		"/usr/local/percona/telemetry/pg"

/* Room for the name of a file in the directory */
#define MAX_PATH_LENGTH		(MAXPGPATH - 128)

PG_MODULE_MAGIC_EXT(
					.name = TELEMETRY_LIBRARY,
					.version = "1.0"
);

PGDLLEXPORT void telemetry_main(Datum arg);

char	   *telemetry_path = NULL;
int			telemetry_files_to_keep = 7;
static bool telemetry_enabled = true;
static int	telemetry_scrape_interval = 24 * 60 * 60;

static bool
check_path(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || **newval == '\0')
		return true;

	if (!is_absolute_path(*newval))
	{
		GUC_check_errdetail("The path must be absolute.");
		return false;
	}
	if (strlen(*newval) > MAX_PATH_LENGTH)
	{
		GUC_check_errdetail("The path can have at most %d bytes.",
							MAX_PATH_LENGTH);
		return false;
	}
	return true;
}

static void
define_settings(void)
{
	DefineCustomBoolVariable(TELEMETRY_LIBRARY ".enabled",
							 "Writes reports about the server to a local directory.",
							 NULL,
							 &telemetry_enabled,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable(TELEMETRY_LIBRARY ".path",
							   "Sets the directory of the reports.",
							   "Where it does not exist, or is empty, no reports are written.",
							   &telemetry_path,
							   DEFAULT_PATH,
							   PGC_SIGHUP,
							   0,
							   check_path, NULL, NULL);

	DefineCustomIntVariable(TELEMETRY_LIBRARY ".scrape_interval",
							"Sets the time between two reports.",
							NULL,
							&telemetry_scrape_interval,
							24 * 60 * 60,
							1,
							INT_MAX / 1000,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable(TELEMETRY_LIBRARY ".files_to_keep",
							"Sets how many reports of this server stay in the directory.",
							NULL,
							&telemetry_files_to_keep,
							7,
							1,
							1000,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	MarkGUCPrefixReserved(TELEMETRY_LIBRARY);
}

void
_PG_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress)
		return;

	define_settings();

	/* pg_upgrade wants nobody in its databases */
	if (IsBinaryUpgrade)
		return;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_DEFAULT_RESTART_INTERVAL;
	strlcpy(worker.bgw_library_name, TELEMETRY_LIBRARY, MAXPGPATH);
	strlcpy(worker.bgw_function_name, "telemetry_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, TELEMETRY_LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_type, TELEMETRY_LIBRARY, BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static bool
write_report(void)
{
	StringInfoData json;

	if (!telemetry_directory_is_ready())
		return false;
	initStringInfo(&json);
	telemetry_report(&json);
	return telemetry_write(&json);
}

/*
 * The worker: a report when it starts, and then one every interval.
 */
void
telemetry_main(Datum arg)
{
	MemoryContext context;
	TimestampTz last = 0;		/* when we wrote, or tried to */
	bool		written = true;
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	/* no database: shared catalogs only */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("");

	wait_event = WaitEventExtensionNew("PerconaPgTelemetryMain");
	context = AllocSetContextCreate(TopMemoryContext, "telemetry report",
									ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		long		timeout = -1;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* there may be a better directory now */
			if (!written)
				last = 0;
		}

		if (telemetry_enabled && telemetry_path[0] != '\0')
		{
			if (last == 0 ||
				TimestampDifferenceExceeds(last, GetCurrentTimestamp(),
										   telemetry_scrape_interval * 1000))
			{
				MemoryContextSwitchTo(context);
				written = write_report();
				MemoryContextReset(context);
				last = GetCurrentTimestamp();
			}
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													  TimestampTzPlusSeconds(last, telemetry_scrape_interval));
			events |= WL_TIMEOUT;
		}

		(void) WaitLatch(MyLatch, events, timeout, wait_event);
		ResetLatch(MyLatch);
	}
}
