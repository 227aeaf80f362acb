/*-------------------------------------------------------------------------
 *
 * facts.c
 *	  What a report says.
 *
 * A report must be fit to be shown to strangers.  So it names neither
 * databases nor roles nor hosts, and of the settings it gives only values that
 * cannot hold a secret: those of settings that are no text, and those of a
 * short list of text settings.  A text setting that is not in the list may be
 * a command with a password in it, or one of an extension that we know nothing
 * of.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/percona_pg_telemetry/facts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "percona_pg_telemetry.h"
#include "utils/fmgrprotos.h"
#include "utils/guc_tables.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Text settings whose values are given. */
static const char *const harmless_text_settings[] = {
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"client_encoding",
	"default_table_access_method",
	"default_text_search_config",
	"jit_provider",
	"lc_messages",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"log_destination",
	"log_timezone",
	"server_encoding",
	"server_version",
	"shared_preload_libraries",
	"wal_consistency_checking",
};

typedef struct Database
{
	Oid			oid;
	bool		connectable;
} Database;

static bool
value_is_harmless(const struct config_generic *setting)
{
	if (setting->vartype != PGC_STRING)
		return true;
	for (int i = 0; i < lengthof(harmless_text_settings); i++)
		if (strcmp(setting->name, harmless_text_settings[i]) == 0)
			return true;
	return false;
}

static void
append_settings(StringInfo json)
{
	int			n;
	struct config_generic **settings = get_guc_variables(&n);
	bool		first = true;

	appendStringInfoChar(json, '[');
	for (int i = 0; i < n; i++)
	{
		struct config_generic *setting = settings[i];
		const char *unit = get_config_unit_name(setting->flags);

		/* set by somebody, defined by nobody: it may be anything */
		if (setting->flags & GUC_CUSTOM_PLACEHOLDER)
			continue;

		appendStringInfoString(json, first ? "{\"name\": " : ",\n  {\"name\": ");
		first = false;
		escape_json(json, setting->name);
		if (unit)
		{
			appendStringInfoString(json, ", \"unit\": ");
			escape_json(json, unit);
		}
		appendStringInfoString(json, ", \"setting\": ");
		if (value_is_harmless(setting))
			escape_json(json, ShowGUCOption(setting, false));
		else
			appendStringInfoString(json, "null");
		appendStringInfoChar(json, '}');
	}
	appendStringInfoChar(json, ']');
}

/*
 * The databases but for templates, which CREATE DATABASE would find in use.
 * To be called in a transaction; the result is in "context".
 */
static List *
list_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;
		Database   *database;

		if (form->datistemplate || database_is_invalid_form(form))
			continue;
		old = MemoryContextSwitchTo(context);
		database = palloc(sizeof(Database));
		database->oid = form->oid;
		database->connectable = form->datallowconn;
		result = lappend(result, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Bytes; 0 if the database is gone.  To be called in a transaction. */
static int64
database_size(Oid oid)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(oid);
	fcinfo->args[0].isnull = false;
	result = pg_database_size_oid(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetInt64(result);
}

static void
append_databases(StringInfo json)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *databases;
	bool		first = true;

	StartTransactionCommand();
	databases = list_databases(context);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	appendStringInfo(json, "\"databases_count\": %d,\n\"databases\": [",
					 list_length(databases));
	foreach_ptr(Database, database, databases)
	{
		int64		size;

		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		size = database_size(database->oid);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);

		appendStringInfo(json,
						 "%s{\"database_oid\": %u, \"database_size\": " INT64_FORMAT ", \"active_extensions\": ",
						 first ? "" : ",\n  ", database->oid, size);
		first = false;
		if (database->connectable)
			telemetry_extensions(json, database->oid);
		else
			appendStringInfoString(json, "null");
		appendStringInfoChar(json, '}');
	}
	appendStringInfoChar(json, ']');
}

void
telemetry_report(StringInfo json)
{
	appendStringInfo(json, "{\"db_instance_id\": \"" UINT64_FORMAT "\",\n",
					 GetSystemIdentifier());
	appendStringInfoString(json, "\"pillar_version\": ");
	escape_json(json, PG_VERSION);
	appendStringInfo(json, ",\n\"uptime\": " INT64_FORMAT ",\n",
					 (GetCurrentTimestamp() - PgStartTime) / USECS_PER_SEC);
	append_databases(json);
	appendStringInfoString(json, ",\n\"settings\": ");
	append_settings(json);
	appendStringInfoString(json, "}\n");
}
