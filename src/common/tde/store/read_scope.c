/*-------------------------------------------------------------------------
 *
 * read_scope.c
 *	  Reading the scope keys of a database or the server, wrapped.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/read_scope.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"

TdeScope *
tde_scope_parse(const uint8 *data, size_t len, const char **reason)
{
	TdeScope   *scope;
	TdeScopeGeneration *generations;
	int			n = tde_scope_count(data, len, reason);

	if (n < 0)
		return NULL;

	/* in secure memory, since they may come to have keys in clear */
	scope = palloc0(sizeof(TdeScope));
	generations = tde_secure_palloc(sizeof(TdeScopeGeneration) * Max(n, 1));
	if (tde_scope_decode(data, len, scope, generations, n, reason) != 0)
	{
		tde_secure_pfree(generations);
		pfree(scope);
		return NULL;
	}
	return scope;
}

void
tde_scope_free(TdeScope *scope)
{
	tde_secure_pfree(scope->generations);
	pfree(scope);
}

TdeScope *
tde_store_read_scope(TdeScopeKind kind, Oid dbOid, TdeStoreProblem *problem)
{
	char		path[MAXPGPATH];
	const char *reason;
	TdeScope   *scope;
	uint8	   *data;
	size_t		len;

	tde_scope_path(kind, dbOid, path);
	data = tde_store_read_file(path, &len, problem);
	if (data == NULL)
		return NULL;
	scope = tde_scope_parse(data, len, &reason);
	pfree(data);
	if (scope != NULL &&
		(scope->kind != kind ||
		 (kind == TDE_SCOPE_DATABASE && scope->dbOid != dbOid)))
	{
		reason = gettext_noop("it belongs to another database");
		tde_scope_free(scope);
		scope = NULL;
	}
	if (scope == NULL)
		tde_store_damaged(problem, path, reason);
	return scope;
}
