/*-------------------------------------------------------------------------
 *
 * orphans.c
 *	  SQL functions for keys that belong to no relation.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/orphans.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "pg_tde.h"
#include "tde/keys.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pg_tde_orphaned_keys);
PG_FUNCTION_INFO_V1(pg_tde_remove_orphaned_keys);

/* One row a key: tablespace, file number, id of the key, when it was made. */
Datum
pg_tde_orphaned_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	pg_tde_require_superuser(fcinfo);
	InitMaterializedSRF(fcinfo, 0);

	foreach_ptr(TdeOrphanedKey, orphan, TdeListOrphanedKeys())
	{
		char		id[TDE_ID_LEN * 2 + 1];
		Datum		values[4];
		bool		nulls[4] = {0};

		id[hex_encode((char *) orphan->id.b, TDE_ID_LEN, id)] = '\0';
		values[0] = ObjectIdGetDatum(orphan->locator.spcOid);
		values[1] = ObjectIdGetDatum(orphan->locator.relNumber);
		values[2] = CStringGetTextDatum(id);
		values[3] = TimestampTzGetDatum(pg_tde_unix_time(orphan->created));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

Datum
pg_tde_remove_orphaned_keys(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);

	PG_RETURN_INT32(TdeRemoveOrphanedKeys());
}
