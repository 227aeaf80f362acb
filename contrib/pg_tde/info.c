/*-------------------------------------------------------------------------
 *
 * info.c
 *	  SQL functions that tell what is set and what is encrypted.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/info.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "datatype/timestamp.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pg_tde.h"
#include "tde/keys.h"
#include "tde/principal.h"
#include "tde/wal.h"
#include "tde/storage.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pg_tde_key_info);
PG_FUNCTION_INFO_V1(pg_tde_server_key_info);
PG_FUNCTION_INFO_V1(pg_tde_default_key_info);
PG_FUNCTION_INFO_V1(pg_tde_is_encrypted);
PG_FUNCTION_INFO_V1(pg_tde_is_wal_encrypted);

TimestampTz
pg_tde_unix_time(uint64 micros)
{
	return (TimestampTz) micros -
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

/* A row: name of the principal key, its provider, when it was set. */
static Datum
key_info(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	TupleDesc	tupdesc;
	TdePrincipalRef ref;
	bool		follows_default;
	Datum		values[4] = {0};
	bool		nulls[4] = {true, true, true, true};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (TdeGetPrincipalInfo(kind, dbOid, &ref, &follows_default))
	{
		values[0] = CStringGetTextDatum(ref.key_name);
		values[1] = CStringGetTextDatum(ref.provider_name);
		values[2] = Int32GetDatum(ref.provider_id);
		values[3] = TimestampTzGetDatum(pg_tde_unix_time(ref.created));
		memset(nulls, false, sizeof(nulls));
	}

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

Datum
pg_tde_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, TDE_SCOPE_DATABASE, MyDatabaseId);
}

Datum
pg_tde_server_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, TDE_SCOPE_SERVER, InvalidOid);
}

Datum
pg_tde_default_key_info(PG_FUNCTION_ARGS)
{
	return key_info(fcinfo, TDE_SCOPE_DEFAULT, InvalidOid);
}

/*
 * Do the catalogs demand a key?  What they say of a sequence is what a new
 * one would be, which an existing one may differ from.
 */
static bool
must_have_key(Relation rel)
{
	return rel->rd_rel->relkind != RELKIND_SEQUENCE && TdeRelationWantsKey(rel);
}

/*
 * Is a relation's storage encrypted?  NULL where there is no storage, and for
 * a relation that is gone (as pg_relation_size does, so that a query over
 * pg_class is not disturbed by a concurrent DROP).
 *
 * It is the key that answers, not the catalogs.  Where the catalogs demand
 * one that is missing, and where it is damaged, that is the error a reader of
 * the relation would get: neither "yes" nor "no" would be true.
 */
Datum
pg_tde_is_encrypted(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	rel;
	bool		result;

	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		PG_RETURN_NULL();

	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
	{
		relation_close(rel, AccessShareLock);
		PG_RETURN_NULL();
	}

	/* The key of another session's temporary relation is in that session. */
	if (RELATION_IS_OTHER_TEMP(rel))
		result = TdeRelationWantsKey(rel);
	else
	{
		RelFileLocatorBackend rlocator;

		rlocator.locator = rel->rd_locator;
		rlocator.backend = rel->rd_backend;

		result = TdeGetRelationKey(&rlocator) != NULL;
		if (!result && must_have_key(rel))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("encryption key of relation \"%s\" is missing",
							RelationGetRelationName(rel)),
					 errdetail("Key file \"%s\" does not exist.",
							   TdeKeyFilePath(&rlocator.locator))));
	}

	relation_close(rel, AccessShareLock);
	PG_RETURN_BOOL(result);
}

/*
 * Is the WAL that is written now, or replayed by a standby, encrypted?
 */
Datum
pg_tde_is_wal_encrypted(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TdeWalIsEncrypted());
}
