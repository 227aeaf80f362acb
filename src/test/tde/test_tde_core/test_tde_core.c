/*-------------------------------------------------------------------------
 *
 * test_tde_core.c
 *	  The checks in a backend, as a set-returning function.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/test_tde_core.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "tde/cipher.h"
#include "utils/builtins.h"

#include "checks.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(test_tde_core);

static void
report(Checks *checks, bool ok, const char *name)
{
	ReturnSetInfo *rsinfo = checks->arg;
	Datum		values[2] = {BoolGetDatum(ok), CStringGetTextDatum(name)};
	bool		nulls[2] = {false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
test_tde_core(PG_FUNCTION_ARGS)
{
	Checks		checks = {report};

	InitMaterializedSRF(fcinfo, 0);
	checks.arg = fcinfo->resultinfo;
	checks.vector_dir = text_to_cstring(PG_GETARG_TEXT_PP(0));
	checks.secure_heap = PG_GETARG_BOOL(1);
	check_all(&checks);
	return (Datum) 0;
}
