/*-------------------------------------------------------------------------
 *
 * read_providers.c
 *	  Reading a list of key providers.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/read_providers.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"

TdeProviderList *
tde_providers_parse(const uint8 *data, size_t len, Oid dbOid,
					const char **reason)
{
	TdeProviderList *list;
	TdeProvider *providers;
	int			n = tde_providers_count(data, len, reason);

	if (n < 0)
		return NULL;
	list = palloc0(sizeof(TdeProviderList));
	providers = palloc0(sizeof(TdeProvider) * (n + 1));
	if (tde_providers_decode(data, len, list, providers, n, reason) == 0)
	{
		if (list->dbOid == dbOid)
			return list;
		*reason = gettext_noop("it belongs to another database");
	}
	pfree(providers);
	pfree(list);
	return NULL;
}

TdeProviderList *
tde_store_read_providers(Oid dbOid, TdeStoreProblem *problem)
{
	char		path[MAXPGPATH];
	const char *reason;
	TdeProviderList *list;
	uint8	   *data;
	size_t		len;

	tde_provider_path(dbOid, path);
	data = tde_store_read_file(path, &len, problem);
	if (data == NULL)
		return NULL;
	list = tde_providers_parse(data, len, dbOid, &reason);
	pfree(data);
	if (list == NULL)
		tde_store_damaged(problem, path, reason);
	return list;
}

TdeProvider *
tde_find_provider(const TdeProviderList *list, const char *name)
{
	for (int i = 0; i < list->nproviders; i++)
		if (strcmp(list->providers[i].name, name) == 0)
			return &list->providers[i];
	return NULL;
}
