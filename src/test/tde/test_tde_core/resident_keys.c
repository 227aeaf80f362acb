/*-------------------------------------------------------------------------
 *
 * resident_keys.c
 *	  The keys that the key store of a server has in memory, and whether the
 *	  backend that asks has left copies of them lying about; and the keys
 *	  themselves, for who looks for them in the memory of other processes.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/resident_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "scope/scope_internal.h"
#include "tde/cipher.h"
#include "tde/wal.h"
#include "utils/builtins.h"
#include "utils/injection_point.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "varatt.h"

#include "checks.h"

PG_FUNCTION_INFO_V1(resident_keys);
PG_FUNCTION_INFO_V1(count_keys_at);
PG_FUNCTION_INFO_V1(key_bytes);
PG_FUNCTION_INFO_V1(relation_key_bytes);
PG_FUNCTION_INFO_V1(expose_key);

extern PGDLLEXPORT void count_exposed_keys(const char *name,
										   const void *private_data,
										   void *arg);

/* What resident_keys() returns; a copy of one key, if there is to be one */
typedef struct Rows
{
	ReturnSetInfo *rsinfo;
	const char *kind;
	uint8	   *copy;
} Rows;

static void
put_row(const char *name, const uint8 *key, int len, void *arg)
{
	Rows	   *rows = arg;
	Datum		values[3] = {CStringGetTextDatum(rows->kind),
	CStringGetTextDatum(name)};
	bool		nulls[3] = {false, false, !core_dump_is_known()};

	values[2] = BoolGetDatum(core_dump_contains(key, len));
	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc,
						 values, nulls);
}

static void
copy_key(const char *name, const uint8 *key, int len, void *arg)
{
	memcpy(arg, key, Min(len, TDE_WRAP_KEY_LEN));
}

Datum
resident_keys(PG_FUNCTION_ARGS)
{
	Rows		rows = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};

	InitMaterializedSRF(fcinfo, 0);
	if (PG_GETARG_BOOL(0))
	{
		rows.copy = palloc(TDE_WRAP_KEY_LEN);
		tde_generations_walk(copy_key, rows.copy);
	}
	rows.kind = "scope key";
	tde_generations_walk(put_row, &rows);
	rows.kind = "principal key";
	tde_principals_walk(put_row, &rows);
	if (rows.copy)
		tde_wipe(rows.copy, TDE_WRAP_KEY_LEN);
	return (Datum) 0;
}

static void
count_exposed(const char *name, const uint8 *key, int len, void *arg)
{
	if (core_dump_contains(key, len))
		(*(int *) arg)++;
}

/* At an injection point. */
void
count_exposed_keys(const char *name, const void *private_data, void *arg)
{
	int			found = 0;

	tde_generations_walk(count_exposed, &found);
	tde_principals_walk(count_exposed, &found);
	elog(WARNING, "%s: %d keys exposed", name, found);
}

Datum
count_keys_at(PG_FUNCTION_ARGS)
{
#ifdef USE_INJECTION_POINTS
	InjectionPointAttach(text_to_cstring(PG_GETARG_TEXT_PP(0)),
						 "test_tde_core", "count_exposed_keys", NULL, 0);
#else
	elog(ERROR, "injection points are not supported by this build");
#endif
	PG_RETURN_VOID();
}

static Datum
to_bytea(const uint8 *key, int len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), key, len);
	return PointerGetDatum(result);
}

static void
put_key(const char *name, const uint8 *key, int len, void *arg)
{
	Rows	   *rows = arg;
	Datum		values[3] = {CStringGetTextDatum(rows->kind),
		CStringGetTextDatum(name),
	to_bytea(key, len)};
	bool		nulls[3] = {false, false, false};

	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc,
						 values, nulls);
}

Datum
key_bytes(PG_FUNCTION_ARGS)
{
	Rows		rows = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};

	InitMaterializedSRF(fcinfo, 0);
	rows.kind = "scope key";
	tde_generations_walk(put_key, &rows);
	rows.kind = "principal key";
	tde_principals_walk(put_key, &rows);
	rows.kind = "WAL key";
	if (tde_wal_writing->id != 0)
		put_key("", tde_wal_writing->key, TDE_WAL_KEY_LEN, &rows);
	return (Datum) 0;
}

Datum
relation_key_bytes(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	RelFileLocatorBackend rlocator = {rel->rd_locator, rel->rd_backend};
	const TdeRelationKey *key = TdeGetRelationKey(&rlocator);
	Datum		result = (Datum) 0;

	if (key != NULL)
		result = to_bytea(key->key, tde_cipher_key_len(key->cipher));
	relation_close(rel, AccessShareLock);
	if (key == NULL)
		PG_RETURN_NULL();
	return result;
}

Datum
expose_key(PG_FUNCTION_ARGS)
{
	tde_generations_walk(copy_key, MemoryContextAlloc(TopMemoryContext,
													  TDE_WRAP_KEY_LEN));
	PG_RETURN_VOID();
}
