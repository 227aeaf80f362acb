/*-------------------------------------------------------------------------
 *
 * resident_keys.c
 *	  The keys that the key store of a server has in memory, and whether the
 *	  backend that asks has left copies of them lying about.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/resident_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "key_store.h"
#include "tde/cipher.h"
#include "utils/builtins.h"
#include "utils/injection_point.h"

#include "checks.h"

PG_FUNCTION_INFO_V1(resident_keys);
PG_FUNCTION_INFO_V1(count_keys_at);

extern PGDLLEXPORT void count_exposed_keys(const char *name,
										   const void *private_data,
										   void *arg);

static void
put_row(ReturnSetInfo *rsinfo, const char *kind, const char *name,
		const uint8 *key, int len)
{
	Datum		values[3] = {CStringGetTextDatum(kind),
	CStringGetTextDatum(name)};
	bool		nulls[3] = {false, false, !core_dump_is_known()};

	values[2] = BoolGetDatum(core_dump_contains(key, len));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
resident_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint8	   *copy = NULL;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < tde_shared->generation_slots; i++)
	{
		TdeGenerationSlot *slot = &tde_shared->generations[i];
		char		name[TDE_ID_LEN * 2 + 1];

		if (pg_atomic_read_u32(&slot->state) != TDE_GENERATION_VALID)
			continue;
		if (PG_GETARG_BOOL(0) && copy == NULL)
		{
			copy = palloc(TDE_WRAP_KEY_LEN);
			memcpy(copy, slot->key, TDE_WRAP_KEY_LEN);
		}
		hex_encode((const char *) slot->id.b, TDE_ID_LEN, name);
		name[TDE_ID_LEN * 2] = '\0';
		put_row(rsinfo, "scope key", name, slot->key, TDE_WRAP_KEY_LEN);
	}
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		TdePrincipalSlot *slot = &tde_shared->principals[i];

		if (pg_atomic_read_u32(&slot->valid))
			put_row(rsinfo, "principal key", slot->key_name,
					slot->key.key, slot->key.len);
	}
	if (copy)
		tde_wipe(copy, TDE_WRAP_KEY_LEN);
	return (Datum) 0;
}

/* At an injection point. */
void
count_exposed_keys(const char *name, const void *private_data, void *arg)
{
	int			found = 0;

	for (int i = 0; i < tde_shared->generation_slots; i++)
	{
		TdeGenerationSlot *slot = &tde_shared->generations[i];

		if (pg_atomic_read_u32(&slot->state) == TDE_GENERATION_VALID &&
			core_dump_contains(slot->key, TDE_WRAP_KEY_LEN))
			found++;
	}
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		TdePrincipalSlot *slot = &tde_shared->principals[i];

		if (pg_atomic_read_u32(&slot->valid) &&
			core_dump_contains(slot->key.key, slot->key.len))
			found++;
	}
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
