/*-------------------------------------------------------------------------
 *
 * pg_tde.c
 *	  The library of the extension: being preloaded, its version, and what
 *	  its SQL functions have in common.
 *
 * Encryption itself is in the server.  The library says by being preloaded
 * that this cluster means to use it; the server makes no first key without.
 * It may also be loaded later, by the first use of a function or of tde_heap
 * in a session, and what exists is then readable as always.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/pg_tde.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "pg_tde.h"
#include "tde/principal.h"
#include "tde/subsys.h"
#include "tde/scope.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define PG_TDE_VERSION	"2.2"

PG_MODULE_MAGIC_EXT(
					.name = "pg_tde",
					.version = PG_TDE_VERSION
);

PG_FUNCTION_INFO_V1(pg_tde_require_preload);
PG_FUNCTION_INFO_V1(pg_tde_version);

void
_PG_init(void)
{
	if (process_shared_preload_libraries_in_progress)
	{
		tde_preloaded = true;
		TdeRegisterKeyStateWorker("pg_tde", "pg_tde_key_state_main");
		TdeRegisterRetryWorker("pg_tde", "pg_tde_key_retry_main");
	}
}

/*
 * Where the background worker begins that asks for the state of principal
 * keys.
 */
void
pg_tde_key_state_main(Datum main_arg)
{
	TdeKeyStateWorkerMain();
}

/*
 * Where the background worker begins that tries keys again that could not be
 * had when the server started.
 */
void
pg_tde_key_retry_main(Datum main_arg)
{
	TdeRetryWorkerMain();
}

/*
 * Called by the extension's script, which so fails where the library was not
 * preloaded, and ends the session: a restore that went on after an error would
 * fill tables in clear, of the default access method, instead of encrypted ones.
 *
 * It fails, too, in pg_catalog, where the function is if the extension is to
 * be: the extension has views, and the server lets nobody make relations there,
 * nor would it restore them in pg_upgrade.
 */
Datum
pg_tde_require_preload(PG_FUNCTION_ARGS)
{
	if (!tde_preloaded)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_tde must be loaded via \"shared_preload_libraries\""),
				 errhint("Add pg_tde to \"shared_preload_libraries\" and restart the server.")));

	if (get_func_namespace(fcinfo->flinfo->fn_oid) == PG_CATALOG_NAMESPACE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extension \"%s\" cannot be created in schema \"%s\"",
						"pg_tde", "pg_catalog"),
				 errdetail("It has views, which cannot be created in this schema."),
				 errhint("Name another schema, in the SCHEMA clause or first in \"search_path\".")));

	PG_RETURN_VOID();
}

/*
 * Version of the extension, and of the server with the product's name and
 * version, which come from the build.
 */
Datum
pg_tde_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text("pg_tde " PG_TDE_VERSION
									 ", PostgreSQL " PG_VERSION));
}

/* ---- what SQL functions begin with ---- */

typedef struct AuditedCall
{
	FunctionCallInfo fcinfo;
	PgTdeChange change;
	TdeScopeKind kind;
	Oid			provider_db;
} AuditedCall;

static void
run_audited(void *arg)
{
	AuditedCall *call = arg;

	call->change(call->fcinfo, call->kind, call->provider_db);
}

/*
 * Those that take options of a provider have "provider" in their operation: in
 * place of the path of a file somebody may give the secret that it holds.
 */
Datum
pg_tde_audited(FunctionCallInfo fcinfo, const char *operation,
			   PgTdeChange change, TdeScopeKind kind, Oid provider_db)
{
	AuditedCall call = {fcinfo, change, kind, provider_db};

	TdeAudited(operation, get_func_name(fcinfo->flinfo->fn_oid),
			   strstr(operation, "provider") != NULL, run_audited, &call);
	PG_RETURN_VOID();
}

void
pg_tde_require_superuser(FunctionCallInfo fcinfo)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s",
						get_func_name(fcinfo->flinfo->fn_oid)),
				 errdetail("Only superusers may use this function, even where others were granted it.")));
}

void
pg_tde_require_writable(FunctionCallInfo fcinfo)
{
	char	   *name = psprintf("%s()", get_func_name(fcinfo->flinfo->fn_oid));

	PreventCommandDuringRecovery(name);
	PreventCommandIfReadOnly(name);
}

char *
pg_tde_text_arg(FunctionCallInfo fcinfo, int argno, const char *what,
				int max_bytes)
{
	text	   *arg;
	int			len;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));

	arg = PG_GETARG_TEXT_PP(argno);
	len = VARSIZE_ANY_EXHDR(arg);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (len > max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than %d bytes", what, max_bytes),
				 errdetail("The value has %d bytes.", len)));

	return text_to_cstring(arg);
}

char *
pg_tde_provider_name_arg(FunctionCallInfo fcinfo, int argno)
{
	return pg_tde_text_arg(fcinfo, argno, "key provider name",
						   TDE_MAX_PROVIDER_NAME);
}

char *
pg_tde_key_name_arg(FunctionCallInfo fcinfo, int argno)
{
	return pg_tde_text_arg(fcinfo, argno, "key name", TDE_MAX_KEY_NAME);
}
