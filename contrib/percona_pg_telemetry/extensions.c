/*-------------------------------------------------------------------------
 *
 * extensions.c
 *	  The extensions of a database.
 *
 * A process can look into one database only.  So the library's worker starts
 * another one for each database, one at a time, which leaves its answer in a
 * piece of shared memory and is gone.  Where there is no room for one more
 * worker, or its answer does not fit, the report says that it does not know.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/percona_pg_telemetry/extensions.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "percona_pg_telemetry.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"

PGDLLEXPORT void telemetry_extensions_main(Datum arg);

#define ANSWER_SIZE		(64 * 1024)

typedef struct Answer
{
	uint32		len;			/* 0: there is none */
	char		json[FLEXIBLE_ARRAY_MEMBER];
} Answer;

#define ANSWER_ROOM		(ANSWER_SIZE - offsetof(Answer, json))

void
telemetry_extensions(StringInfo json, Oid database)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	dsm_segment *segment = dsm_create(ANSWER_SIZE, 0);
	Answer	   *answer = dsm_segment_address(segment);

	answer->len = 0;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, TELEMETRY_LIBRARY, MAXPGPATH);
	strlcpy(worker.bgw_function_name, "telemetry_extensions_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, TELEMETRY_LIBRARY " for database %u",
			 database);
	strlcpy(worker.bgw_type, TELEMETRY_LIBRARY " database worker", BGW_MAXLEN);
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	memcpy(worker.bgw_extra, &database, sizeof(database));
	worker.bgw_notify_pid = MyProcPid;

	if (RegisterDynamicBackgroundWorker(&worker, &handle) &&
		WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
		proc_exit(1);

	if (answer->len > 0)
		appendBinaryStringInfo(json, answer->json, answer->len);
	else
		appendStringInfoString(json, "null");
	dsm_detach(segment);
}

/*
 * Append the array.  To be called in a transaction.
 */
static void
list_extensions(StringInfo json)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;
	bool		first = true;

	appendStringInfoChar(json, '[');
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		Datum		version = heap_getattr(tuple, Anum_pg_extension_extversion,
										   RelationGetDescr(rel), &isnull);

		appendStringInfoString(json, first ? "{\"extension_name\": " :
							   ", {\"extension_name\": ");
		first = false;
		escape_json(json, NameStr(form->extname));
		appendStringInfoString(json, ", \"extension_version\": ");
		escape_json(json, TextDatumGetCString(version));
		appendStringInfoChar(json, '}');
	}
	appendStringInfoChar(json, ']');
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * The worker for one database.
 */
void
telemetry_extensions_main(Datum arg)
{
	Oid			database;
	dsm_segment *segment;
	Answer	   *answer;
	StringInfoData json;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	memcpy(&database, MyBgworkerEntry->bgw_extra, sizeof(database));
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);

	/* the other worker may be gone, and its segment with it */
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		return;
	answer = dsm_segment_address(segment);

	StartTransactionCommand();
	initStringInfo(&json);
	list_extensions(&json);
	if (json.len <= ANSWER_ROOM)
	{
		memcpy(answer->json, json.data, json.len);
		answer->len = json.len;
	}
	CommitTransactionCommand();
	dsm_detach(segment);
}
