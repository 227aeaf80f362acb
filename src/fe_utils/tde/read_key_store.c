/*-------------------------------------------------------------------------
 *
 * read_key_store.c
 *	  The key store of a data directory, read by a program.
 *
 * Files are replaced as a whole, so a program reads each of them in one state
 * or the next even while a server runs; it takes no lock.
 *
 * Scope keys that are unwrapped live in memory of tde_secure_alloc().
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/read_key_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>

#include "common/int.h"
#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

static uint8 *
read_file(const char *pgdata, const char *path, size_t *len, char **problem)
{
	char		full[MAXPGPATH * 2];

	snprintf(full, sizeof(full), "%s/%s", pgdata, path);
	return tde_fe_read_file(full, len, problem);
}

static char *
damaged(const char *path, const char *reason)
{
	return psprintf(_("could not use file \"%s\": %s"), path, _(reason));
}

/* ---- scopes and providers ---- */

TdeScope *
tde_fe_decode_scope(const uint8 *data, size_t len, TdeScopeKind kind,
					Oid dbOid, const char **reason)
{
	TdeScopeGeneration *generations;
	TdeScope   *scope;
	bool		locked;
	int			n;

	*reason = NULL;
	n = tde_scope_count(data, len, reason);
	if (n < 0)
		return NULL;

	generations = tde_secure_alloc(sizeof(TdeScopeGeneration) * Max(n, 1),
								   false, &locked);
	if (generations == NULL)
		pg_fatal("out of memory");
	scope = pg_malloc0(sizeof(TdeScope));
	if (tde_scope_decode(data, len, scope, generations, n, reason) == 0 &&
		(scope->kind != kind ||
		 (kind == TDE_SCOPE_DATABASE && scope->dbOid != dbOid)))
		*reason = gettext_noop("it belongs to another database");
	if (*reason != NULL)
	{
		scope->generations = generations;
		scope->ngenerations = Max(n, 1);
		tde_fe_free_scope(scope);
		return NULL;
	}
	return scope;
}

TdeScope *
tde_fe_read_scope(const char *pgdata, TdeScopeKind kind, Oid dbOid,
				  char **problem)
{
	char		path[MAXPGPATH];
	const char *reason;
	TdeScope   *scope;
	uint8	   *data;
	size_t		len;

	tde_scope_path(kind, dbOid, path);
	data = read_file(pgdata, path, &len, problem);
	if (data == NULL)
		return NULL;
	scope = tde_fe_decode_scope(data, len, kind, dbOid, &reason);
	if (scope == NULL)
		*problem = damaged(path, reason);
	pfree(data);
	return scope;
}

void
tde_fe_free_scope(TdeScope *scope)
{
	tde_secure_free(scope->generations,
					sizeof(TdeScopeGeneration) * scope->ngenerations);
	pfree(scope);
}

TdeProviderList *
tde_fe_decode_providers(const uint8 *data, size_t len, Oid dbOid,
						const char **reason)
{
	TdeProvider *providers;
	TdeProviderList *list;
	int			n;

	*reason = NULL;
	n = tde_providers_count(data, len, reason);
	if (n < 0)
		return NULL;

	providers = pg_malloc0(sizeof(TdeProvider) * Max(n, 1));
	list = pg_malloc0(sizeof(TdeProviderList));
	if (tde_providers_decode(data, len, list, providers, n, reason) == 0 &&
		list->dbOid != dbOid)
		*reason = gettext_noop("it belongs to another database");
	if (*reason != NULL)
	{
		pfree(providers);
		pfree(list);
		return NULL;
	}
	return list;
}

TdeProviderList *
tde_fe_read_providers(const char *pgdata, Oid dbOid, char **problem)
{
	char		path[MAXPGPATH];
	const char *reason;
	TdeProviderList *list;
	uint8	   *data;
	size_t		len;

	tde_provider_path(dbOid, path);
	data = read_file(pgdata, path, &len, problem);
	if (data == NULL)
		return NULL;
	list = tde_fe_decode_providers(data, len, dbOid, &reason);
	if (list == NULL)
		*problem = damaged(path, reason);
	pfree(data);
	return list;
}

TdeProvider *
tde_fe_find_provider(const TdeProviderList *list, const char *name)
{
	for (int i = 0; i < list->nproviders; i++)
		if (strcmp(list->providers[i].name, name) == 0)
			return &list->providers[i];
	return NULL;
}

char *
tde_fe_scope_name(TdeScopeKind kind, Oid dbOid)
{
	switch (kind)
	{
		case TDE_SCOPE_DEFAULT:
			return pg_strdup(_("default key"));
		case TDE_SCOPE_SERVER:
			return pg_strdup(_("server key"));
		case TDE_SCOPE_DATABASE:
			break;
	}
	return psprintf(_("database %u"), dbOid);
}

/* ---- keys of relations ---- */

bool
tde_fe_read_key(const char *pgdata, const RelFileLocator *locator,
				const TdeScope *scope, TdeKey *key, bool *orphan,
				char **problem)
{
	char		path[MAXPGPATH];
	const char *reason = NULL;
	uint8	   *data;
	size_t		len;

	*orphan = false;
	tde_key_path(locator, path);
	data = read_file(pgdata, path, &len, problem);
	if (data == NULL)
		return false;

	if (tde_key_record_decode(data, len, key, &reason) == 0)
	{
		if (!RelFileLocatorEquals(key->locator, *locator))
			reason = gettext_noop("it belongs to another relation");
		else if (scope != NULL)
		{
			const uint8 *scope_key = NULL;

			for (int i = 0; i < scope->ngenerations; i++)
				if (TdeIdEquals(&scope->generations[i].id, &key->generation))
					scope_key = scope->generations[i].key;
			if (scope_key == NULL)
			{
				*orphan = true;
				reason = gettext_noop("its scope key does not exist");
			}
			else
				(void) tde_key_record_unwrap(data, len, scope_key, key,
											 &reason);
		}
	}
	pfree(data);
	if (reason != NULL)
		*problem = damaged(path, reason);
	return reason == NULL;
}

static int
compare_oids(const void *a, const void *b)
{
	return pg_cmp_u32(*(const Oid *) a, *(const Oid *) b);
}

Oid *
tde_fe_list_databases(const char *pgdata, int *n)
{
	char		path[MAXPGPATH];
	DIR		   *dir;
	struct dirent *de;
	int			max = 64;
	Oid		   *oids = pg_malloc(sizeof(Oid) * max);

	*n = 0;
	snprintf(path, sizeof(path), "%s/%s", pgdata, TDE_DIR);
	dir = opendir(path);
	if (dir == NULL && errno == ENOENT)
		return oids;
	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", path);
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		Oid			oid = tde_parse_database_dir(de->d_name);

		if (!OidIsValid(oid))
			continue;
		if (*n == max)
		{
			max *= 2;
			oids = pg_realloc(oids, sizeof(Oid) * max);
		}
		oids[(*n)++] = oid;
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", path);
	closedir(dir);
	qsort(oids, *n, sizeof(Oid), compare_oids);
	return oids;
}

RelFileLocator *
tde_fe_list_keys(const char *pgdata, Oid dbOid, int *n)
{
	char		sub[MAXPGPATH];
	char		path[MAXPGPATH * 2];
	DIR		   *dir;
	struct dirent *de;
	int			max = 64;
	RelFileLocator *locators = pg_malloc(sizeof(RelFileLocator) * max);

	*n = 0;
	tde_database_dir(dbOid, sub);
	snprintf(path, sizeof(path), "%s/%s", pgdata, sub);
	dir = opendir(path);
	if (dir == NULL && errno == ENOENT)
		return locators;
	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", path);
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		if (*n == max)
		{
			max *= 2;
			locators = pg_realloc(locators, sizeof(RelFileLocator) * max);
		}
		if (tde_parse_key_file_name(de->d_name, dbOid, &locators[*n]))
			(*n)++;
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", path);
	closedir(dir);
	return locators;
}

bool
tde_fe_scope_is_over(const char *pgdata, const TdeScope *scope)
{
	int			n = 0;

	if (!scope->retired)
		return false;
	if (scope->kind == TDE_SCOPE_DATABASE)
		pfree(tde_fe_list_keys(pgdata, scope->dbOid, &n));
	return n == 0;
}

/* ---- writing ---- */

void
tde_fe_write_providers(const char *pgdata, const TdeProviderList *list)
{
	char		sub[MAXPGPATH];
	char		path[MAXPGPATH * 2];
	uint8	   *data = pg_malloc(tde_providers_encoded_size(list->nproviders));
	size_t		len = tde_providers_encode(list, data);

	if (len == 0)
		pg_fatal("could not encode the list of key providers: %s",
				 _(tde_cipher_error()));
	tde_provider_path(list->dbOid, sub);
	snprintf(path, sizeof(path), "%s/%s", pgdata, sub);
	tde_fe_write_file(path, data, len);
	pfree(data);
}
