/*-------------------------------------------------------------------------
 *
 * principal_keys.c
 *	  SQL functions for principal keys: create, set, verify, delete.
 *
 * Who may call what: the functions of the current database's own key and
 * provider can be granted to whoever runs that database; those that use a
 * global provider, or set the server's or the default key, also demand a
 * superuser.
 *
 * What these functions do is done at once and stays done, whatever becomes of
 * the transaction: a key that other sessions may have begun to use cannot be
 * taken back.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/principal_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pg_tde.h"
#include "tde/principal.h"

PG_FUNCTION_INFO_V1(pg_tde_create_key_using_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_create_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_key_using_database_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_server_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_set_default_key_using_global_key_provider);
PG_FUNCTION_INFO_V1(pg_tde_verify_key);
PG_FUNCTION_INFO_V1(pg_tde_verify_server_key);
PG_FUNCTION_INFO_V1(pg_tde_verify_default_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_server_key);
PG_FUNCTION_INFO_V1(pg_tde_delete_default_key);

/* ---- create ---- */

static void
create_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid provider_db)
{
	char	   *key_name;
	char	   *provider_name;

	if (!OidIsValid(provider_db))
		pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);
	key_name = pg_tde_key_name_arg(fcinfo, 0);
	provider_name = pg_tde_provider_name_arg(fcinfo, 1);

	TdeCreatePrincipalKey(provider_db, provider_name, key_name);
}

Datum
pg_tde_create_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "create", create_key, TDE_SCOPE_DATABASE,
						  MyDatabaseId);
}

Datum
pg_tde_create_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "create", create_key, TDE_SCOPE_SERVER,
						  InvalidOid);
}

/* ---- set, or rotate ---- */

static void
set_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid provider_db)
{
	char	   *key_name;
	char	   *provider_name;

	if (!OidIsValid(provider_db))
		pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);
	key_name = pg_tde_key_name_arg(fcinfo, 0);
	provider_name = pg_tde_provider_name_arg(fcinfo, 1);

	TdeSetPrincipalKey(kind,
					   kind == TDE_SCOPE_DATABASE ? MyDatabaseId : InvalidOid,
					   provider_db, provider_name, key_name);
}

Datum
pg_tde_set_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "set", set_key, TDE_SCOPE_DATABASE,
						  MyDatabaseId);
}

Datum
pg_tde_set_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "set", set_key, TDE_SCOPE_DATABASE,
						  InvalidOid);
}

Datum
pg_tde_set_server_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "set", set_key, TDE_SCOPE_SERVER,
						  InvalidOid);
}

Datum
pg_tde_set_default_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "set", set_key, TDE_SCOPE_DEFAULT,
						  InvalidOid);
}

/* ---- verify ---- */

static void
verify_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	TdeVerifyPrincipalKey(kind, dbOid);
}

Datum
pg_tde_verify_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "verify", verify_key, TDE_SCOPE_DATABASE,
						  MyDatabaseId);
}

Datum
pg_tde_verify_server_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "verify", verify_key, TDE_SCOPE_SERVER,
						  InvalidOid);
}

Datum
pg_tde_verify_default_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "verify", verify_key, TDE_SCOPE_DEFAULT,
						  InvalidOid);
}

/* ---- delete ---- */

static void
delete_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid dbOid)
{
	if (kind != TDE_SCOPE_DATABASE)
		pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);
	TdeDeletePrincipalKey(kind, dbOid);
}

Datum
pg_tde_delete_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "delete", delete_key, TDE_SCOPE_DATABASE,
						  MyDatabaseId);
}

Datum
pg_tde_delete_server_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "delete", delete_key, TDE_SCOPE_SERVER,
						  InvalidOid);
}

Datum
pg_tde_delete_default_key(PG_FUNCTION_ARGS)
{
	return pg_tde_audited(fcinfo, "delete", delete_key, TDE_SCOPE_DEFAULT,
						  InvalidOid);
}
