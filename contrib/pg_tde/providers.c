/*-------------------------------------------------------------------------
 *
 * providers.c
 *	  SQL functions for key providers: add, change, delete, list.
 *
 * Each function comes twice, for the providers of the current database and
 * for the global ones.  Type and options are judged by the keyring, which
 * knows the provider types; here only what holds for all of them.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/providers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "pg_tde.h"
#include "tde/principal.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pg_tde_add_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_add_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_change_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_change_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_delete_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_delete_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_list_all_database_key_providers);
PG_FUNCTION_INFO_V1(pg_tde_list_all_global_key_providers);

/* Add or change a provider of a database, or (InvalidOid) a global one. */
static void
put_provider(FunctionCallInfo fcinfo, Oid dbOid, bool change)
{
	char	   *type;
	char	   *name;
	char	   *options;

	pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);

	/* One that is too long is unknown, which says more. */
	type = pg_tde_text_arg(fcinfo, 0, "key provider type", PG_INT32_MAX);
	name = pg_tde_provider_name_arg(fcinfo, 1);
	options = pg_tde_text_arg(fcinfo, 2, "key provider options",
							  TDE_MAX_PROVIDER_OPTIONS);

	if (change)
		TdeChangeProvider(dbOid, type, name, options);
	else
		(void) TdeAddProvider(dbOid, type, name, options);
}

static void
add_provider(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	put_provider(fcinfo, dbOid, false);
}

static void
change_provider(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	put_provider(fcinfo, dbOid, true);
}

Datum
pg_tde_add_database_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "add_provider",
						  add_provider, TDE_SCOPE_DATABASE, MyDatabaseId);
}

Datum
pg_tde_add_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "add_provider",
						  add_provider, TDE_SCOPE_SERVER, InvalidOid);
}

Datum
pg_tde_change_database_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "change_provider",
						  change_provider, TDE_SCOPE_DATABASE, MyDatabaseId);
}

Datum
pg_tde_change_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "change_provider",
						  change_provider, TDE_SCOPE_SERVER, InvalidOid);
}

static void
delete_provider(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);

	TdeDeleteProvider(dbOid, pg_tde_provider_name_arg(fcinfo, 0));
}

Datum
pg_tde_delete_database_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "delete_provider", delete_provider,
						  TDE_SCOPE_DATABASE, MyDatabaseId);
}

Datum
pg_tde_delete_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "delete_provider", delete_provider,
						  TDE_SCOPE_SERVER, InvalidOid);
}

/* One row a provider: id, name, type, and the options as they were given. */
static Datum
list_providers(FunctionCallInfo fcinfo, Oid dbOid)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TdeProviderList *list;

	InitMaterializedSRF(fcinfo, 0);

	list = TdeGetProviders(dbOid);
	for (int i = 0; i < list->nproviders; i++)
	{
		const TdeProvider *provider = &list->providers[i];
		Datum		values[4];
		bool		nulls[4] = {0};

		values[0] = Int32GetDatum(provider->id);
		values[1] = CStringGetTextDatum(provider->name);
		values[2] = CStringGetTextDatum(provider->type);
		values[3] = CStringGetTextDatum(provider->options);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

Datum
pg_tde_list_all_database_key_providers(PG_FUNCTION_ARGS)
{
	return list_providers(fcinfo, MyDatabaseId);
}

Datum
pg_tde_list_all_global_key_providers(PG_FUNCTION_ARGS)
{
	return list_providers(fcinfo, InvalidOid);
}
