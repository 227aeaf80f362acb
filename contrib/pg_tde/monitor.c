/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  Functions behind the monitoring views.
 *
 * They ask no provider and use no key.  A file of the key store that is
 * damaged becomes a row that says so, or a warning: who looks for what is
 * wrong must see the rest.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/monitor.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pg_tde.h"
#include "storage/procnumber.h"
#include "tde/heap_am.h"
#include "tde/keys.h"
#include "tde/monitor.h"
#include "utils/builtins.h"
#include "utils/relmapper.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pg_stat_get_tde_provider_list);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_providers);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_principal_keys);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_cache);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_rotations);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_key_memory);
PG_FUNCTION_INFO_V1(pg_stat_tde_reset);
PG_FUNCTION_INFO_V1(pg_stat_get_tde_relation_key);

/*
 * A row under construction.  Columns are added in their order, so that a
 * function reads like the declaration of its result.
 */
#define MAX_COLUMNS		16

typedef struct Row
{
	int			n;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Row;

static void
add(Row *row, Datum value)
{
	Assert(row->n < MAX_COLUMNS);
	row->nulls[row->n] = false;
	row->values[row->n++] = value;
}

static void
add_null(Row *row)
{
	Assert(row->n < MAX_COLUMNS);
	row->values[row->n] = (Datum) 0;
	row->nulls[row->n++] = true;
}

static void
add_text(Row *row, const char *value)
{
	if (value && value[0] != '\0')
		add(row, CStringGetTextDatum(value));
	else
		add_null(row);
}

/* InvalidOid stands for the server. */
static void
add_database(Row *row, Oid dbOid)
{
	if (OidIsValid(dbOid))
		add(row, ObjectIdGetDatum(dbOid));
	else
		add_null(row);
}

/* 0 is never. */
static void
add_time(Row *row, TimestampTz time)
{
	if (time != 0)
		add(row, TimestampTzGetDatum(time));
	else
		add_null(row);
}

static void
add_unix_time(Row *row, uint64 micros)
{
	if (micros != 0)
		add_time(row, pg_tde_unix_time(micros));
	else
		add_null(row);
}

static void
add_milliseconds(Row *row, int64 micros)
{
	add(row, Float8GetDatum(micros / 1000.0));
}

/* -1 is not counted. */
static void
add_count(Row *row, int64 count)
{
	if (count >= 0)
		add(row, Int64GetDatum(count));
	else
		add_null(row);
}

static void
put(FunctionCallInfo fcinfo, Row *row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	Assert(row->n == rsinfo->setDesc->natts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
						 row->values, row->nulls);
	row->n = 0;
}

/* ---- providers ---- */

/*
 * Call back for each provider of the server and of all databases.
 */
static void
for_each_provider(FunctionCallInfo fcinfo,
				  void (*callback) (FunctionCallInfo, Oid, const TdeProvider *))
{
	int			n;
	Oid		   *databases;

	InitMaterializedSRF(fcinfo, 0);

	databases = TdeListDatabases(&n);
	for (int i = 0; i < n; i++)
	{
		char	   *problem;
		TdeProviderList *list = TdeTryGetProviders(databases[i], &problem);

		if (list == NULL)
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg_internal("%s", problem)));
		for (int j = 0; list != NULL && j < list->nproviders; j++)
			callback(fcinfo, databases[i], &list->providers[j]);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
put_provider(FunctionCallInfo fcinfo, Oid dbOid, const TdeProvider *provider)
{
	Row			row = {0};

	add_database(&row, dbOid);
	add(&row, Int32GetDatum(provider->id));
	add_text(&row, provider->name);
	add_text(&row, provider->type);
	put(fcinfo, &row);
}

Datum
pg_stat_get_tde_provider_list(PG_FUNCTION_ARGS)
{
	for_each_provider(fcinfo, put_provider);
	return (Datum) 0;
}

static void
put_provider_counters(FunctionCallInfo fcinfo, Oid dbOid,
					  const TdeProvider *provider)
{
	TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS];

	TdeGetProviderCounters(dbOid, provider->id, counters);
	for (int i = 0; i < TDE_PROVIDER_OPERATIONS; i++)
	{
		const TdeProviderCounters *c = &counters[i];
		Row			row = {0};

		add_database(&row, dbOid);
		add(&row, Int32GetDatum(provider->id));
		add_text(&row, provider->name);
		add_text(&row, TdeProviderOperationName(i));
		add(&row, Int64GetDatum(c->calls));
		add(&row, Int64GetDatum(c->failures));
		add_milliseconds(&row, c->total_time);
		add_milliseconds(&row, c->max_time);
		add_time(&row, c->last_success);
		add_time(&row, c->last_failure);
		add_text(&row, c->last_error);
		add_time(&row, TdeCountersResetTime());
		put(fcinfo, &row);
	}
}

Datum
pg_stat_get_tde_providers(PG_FUNCTION_ARGS)
{
	for_each_provider(fcinfo, put_provider_counters);
	return (Datum) 0;
}

/* ---- principal keys ---- */

static void
put_principal_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	TdePrincipalInfo info;
	char	   *problem;
	Row			row = {0};

	if (!TdeGetPrincipalDetails(kind, dbOid, &info, &problem))
	{
		if (problem == NULL)
			return;
		add_text(&row, TdeScopeKindName(kind));
		add_database(&row, dbOid);
		for (int i = 0; i < 8; i++)
			add_null(&row);
		add(&row, BoolGetDatum(false));
		add_text(&row, problem);
		put(fcinfo, &row);
		return;
	}

	add_text(&row, TdeScopeKindName(kind));
	add_database(&row, dbOid);
	add_text(&row, info.ref.key_name);
	add(&row, Int32GetDatum(info.ref.provider_id));
	add_text(&row, info.ref.provider_name);
	add(&row, BoolGetDatum(info.follows_default));
	add_unix_time(&row, info.ref.created);
	/* what every principal key wraps scope keys with */
	add_text(&row, "aes_256_gcm");
	add(&row, Int32GetDatum(info.generations));
	add_unix_time(&row, info.last_generation);
	add(&row, BoolGetDatum(info.resident));
	add_text(&row, problem == NULL && info.retired ?
			 _("no longer set, but needed for relations that were dropped") :
			 problem);
	put(fcinfo, &row);
}

Datum
pg_stat_get_tde_principal_keys(PG_FUNCTION_ARGS)
{
	int			n;
	Oid		   *databases;

	InitMaterializedSRF(fcinfo, 0);

	databases = TdeListDatabases(&n);
	put_principal_key(fcinfo, TDE_SCOPE_SERVER, InvalidOid);
	put_principal_key(fcinfo, TDE_SCOPE_DEFAULT, InvalidOid);
	for (int i = 0; i < n; i++)
	{
		if (OidIsValid(databases[i]))
			put_principal_key(fcinfo, TDE_SCOPE_DATABASE, databases[i]);
		CHECK_FOR_INTERRUPTS();
	}
	return (Datum) 0;
}

/* ---- memory ---- */

Datum
pg_stat_get_tde_cache(PG_FUNCTION_ARGS)
{
	TdeCacheInfo caches[TDE_CACHES];

	InitMaterializedSRF(fcinfo, 0);

	TdeGetCaches(caches);
	for (int i = 0; i < TDE_CACHES; i++)
	{
		Row			row = {0};

		add_text(&row, caches[i].name);
		add(&row, Int64GetDatum(caches[i].entries));
		add_count(&row, caches[i].max_entries);
		add_count(&row, caches[i].hits);
		add_count(&row, caches[i].misses);
		add_count(&row, caches[i].evictions);
		add_time(&row, TdeCountersResetTime());
		put(fcinfo, &row);
	}
	return (Datum) 0;
}

static Datum
one_row(FunctionCallInfo fcinfo, Row *row)
{
	TupleDesc	tupdesc;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Assert(row->n == tupdesc->natts);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, row->values, row->nulls));
}

Datum
pg_stat_get_tde_key_memory(PG_FUNCTION_ARGS)
{
	Row			row = {0};
	TdeKeyMemory memory;

	TdeGetKeyMemory(&memory);
	add(&row, Int64GetDatum((int64) memory.size));
	add(&row, BoolGetDatum(memory.locked));
	add(&row, Int64GetDatum(memory.unlocked_processes));
	return one_row(fcinfo, &row);
}

Datum
pg_stat_tde_reset(PG_FUNCTION_ARGS)
{
	TdeResetCounters();
	PG_RETURN_VOID();
}

/* ---- rotation ---- */

static const char *
phase_name(TdeRotationPhase phase)
{
	switch (phase)
	{
		case TDE_ROTATION_FETCHING:
			return "fetching principal key";
		case TDE_ROTATION_WAITING:
			return "waiting for another change";
		case TDE_ROTATION_WRAPPING:
			return "wrapping scope keys";
		case TDE_ROTATION_WRITING:
			return "writing files";
		case TDE_ROTATION_LOGGING:
			return "writing WAL";
		case TDE_ROTATION_INSTALLING:
			return "installing files";
	}
	return "unknown";
}

Datum
pg_stat_get_tde_rotations(PG_FUNCTION_ARGS)
{
	TdeRotationProgress rotations[TDE_MAX_ROTATIONS];
	int			n;

	InitMaterializedSRF(fcinfo, 0);

	n = TdeGetRotations(rotations);
	for (int i = 0; i < n; i++)
	{
		const TdeRotationProgress *r = &rotations[i];
		Row			row = {0};

		add(&row, Int32GetDatum(r->pid));
		add(&row, ObjectIdGetDatum(r->datid));
		add_text(&row, TdeScopeKindName(r->kind));
		add_text(&row, r->key_name);
		add_text(&row, r->provider_name);
		add_text(&row, phase_name(r->phase));
		add(&row, Int64GetDatum(r->total));
		add(&row, Int64GetDatum(r->done));
		add_time(&row, r->started);
		put(fcinfo, &row);
	}
	return (Datum) 0;
}

/* ---- relations ---- */

/*
 * Where a relation's main fork is, from its row of pg_class alone; false if it
 * has none that a key could belong to.
 */
static bool
relation_locator(Oid relid, Form_pg_class class, RelFileLocator *locator)
{
	if (!RELKIND_HAS_STORAGE(class->relkind))
		return false;
	locator->spcOid = OidIsValid(class->reltablespace) ?
		class->reltablespace : MyDatabaseTableSpace;
	locator->dbOid = class->relisshared ? InvalidOid : MyDatabaseId;
	locator->relNumber = OidIsValid(class->relfilenode) ?
		class->relfilenode :
		RelationMapOidToFilenumber(relid, class->relisshared);
	return RelFileNumberIsValid(locator->relNumber);
}

/*
 * The key of a temporary relation is in its session: only that one can tell.
 */
static Datum
temporary_relation_key(FunctionCallInfo fcinfo, Form_pg_class class,
					   const RelFileLocator *locator)
{
	Row			row = {0};
	const TdeRelationKey *key;
	RelFileLocatorBackend rlocator = {
		.locator = *locator,
		.backend = MyProcNumber
	};

	if (!isTempOrTempToastNamespace(class->relnamespace))
	{
		for (int i = 0; i < 4; i++)
			add_null(&row);
		return one_row(fcinfo, &row);
	}
	key = TdeGetRelationKey(&rlocator);
	add(&row, BoolGetDatum(key != NULL));
	add_text(&row, key ? tde_cipher_name(key->cipher) : NULL);
	add_null(&row);
	add_null(&row);
	return one_row(fcinfo, &row);
}

/*
 * What is known of a relation's key, without opening the relation: it waits
 * for no lock, and a key that is missing or damaged is no error.  NULL for
 * what has no storage or is gone.
 */
Datum
pg_stat_get_tde_relation_key(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	HeapTuple	tuple;
	FormData_pg_class class;
	RelFileLocator locator;
	TdeCipher	cipher = TDE_CIPHER_INVALID;
	uint64		created = 0;
	char	   *problem;
	TdeKeyStatus status;
	Row			row = {0};

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		PG_RETURN_NULL();
	memcpy(&class, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
	ReleaseSysCache(tuple);

	if (!relation_locator(relid, &class, &locator))
		PG_RETURN_NULL();
	if (class.relpersistence == RELPERSISTENCE_TEMP)
		return temporary_relation_key(fcinfo, &class, &locator);

	status = TdeGetKeyStatus(&locator, &cipher, &created, &problem);

	/* An empty file does not tell that it should be encrypted. */
	if (status == TDE_STATUS_PLAIN && RELKIND_HAS_TABLE_AM(class.relkind) &&
		TdeAccessMethodEncrypts(class.relam))
	{
		status = TDE_STATUS_LOST;
		problem = psprintf(_("Key file \"%s\" does not exist."),
						   TdeKeyFilePath(&locator));
	}

	add(&row, BoolGetDatum(status != TDE_STATUS_PLAIN));
	add_text(&row, status == TDE_STATUS_ENCRYPTED ?
			 tde_cipher_name(cipher) : NULL);
	add_unix_time(&row, created);
	add_text(&row, problem);
	return one_row(fcinfo, &row);
}
