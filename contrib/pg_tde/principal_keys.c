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

static Datum
create_key(FunctionCallInfo fcinfo, Oid provider_db)
{
	char	   *key_name;
	char	   *provider_name;

	pg_tde_require_writable(fcinfo);
	key_name = pg_tde_key_name_arg(fcinfo, 0);
	provider_name = pg_tde_provider_name_arg(fcinfo, 1);

	TdeCreatePrincipalKey(provider_db, provider_name, key_name);

	PG_RETURN_VOID();
}

Datum
pg_tde_create_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	return create_key(fcinfo, MyDatabaseId);
}

Datum
pg_tde_create_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	return create_key(fcinfo, InvalidOid);
}

/* ---- set, or rotate ---- */

static Datum
set_key(FunctionCallInfo fcinfo, TdeScopeKind kind, Oid provider_db)
{
	char	   *key_name;
	char	   *provider_name;

	pg_tde_require_writable(fcinfo);
	key_name = pg_tde_key_name_arg(fcinfo, 0);
	provider_name = pg_tde_provider_name_arg(fcinfo, 1);

	TdeSetPrincipalKey(kind,
					   kind == TDE_SCOPE_DATABASE ? MyDatabaseId : InvalidOid,
					   provider_db, provider_name, key_name);

	PG_RETURN_VOID();
}

Datum
pg_tde_set_key_using_database_key_provider(PG_FUNCTION_ARGS)
{
	return set_key(fcinfo, TDE_SCOPE_DATABASE, MyDatabaseId);
}

Datum
pg_tde_set_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	return set_key(fcinfo, TDE_SCOPE_DATABASE, InvalidOid);
}

Datum
pg_tde_set_server_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	return set_key(fcinfo, TDE_SCOPE_SERVER, InvalidOid);
}

Datum
pg_tde_set_default_key_using_global_key_provider(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	return set_key(fcinfo, TDE_SCOPE_DEFAULT, InvalidOid);
}

/* ---- verify ---- */

Datum
pg_tde_verify_key(PG_FUNCTION_ARGS)
{
	TdeVerifyPrincipalKey(TDE_SCOPE_DATABASE, MyDatabaseId);
	PG_RETURN_VOID();
}

Datum
pg_tde_verify_server_key(PG_FUNCTION_ARGS)
{
	TdeVerifyPrincipalKey(TDE_SCOPE_SERVER, InvalidOid);
	PG_RETURN_VOID();
}

Datum
pg_tde_verify_default_key(PG_FUNCTION_ARGS)
{
	TdeVerifyPrincipalKey(TDE_SCOPE_DEFAULT, InvalidOid);
	PG_RETURN_VOID();
}

/* ---- delete ---- */

Datum
pg_tde_delete_key(PG_FUNCTION_ARGS)
{
	pg_tde_require_writable(fcinfo);
	TdeDeletePrincipalKey(TDE_SCOPE_DATABASE, MyDatabaseId);
	PG_RETURN_VOID();
}

Datum
pg_tde_delete_server_key(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);
	TdeDeletePrincipalKey(TDE_SCOPE_SERVER, InvalidOid);
	PG_RETURN_VOID();
}

Datum
pg_tde_delete_default_key(PG_FUNCTION_ARGS)
{
	pg_tde_require_superuser(fcinfo);
	pg_tde_require_writable(fcinfo);
	TdeDeletePrincipalKey(TDE_SCOPE_DEFAULT, InvalidOid);
	PG_RETURN_VOID();
}
