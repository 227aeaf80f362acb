/*-------------------------------------------------------------------------
 *
 * read_key_store.c
 *	  The key store of a data directory, read by a program: what
 *	  common/tde/store has, with messages, and keys of relations opened.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/read_key_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/int.h"
#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

/* ---- scopes and providers ---- */

TdeScope *
tde_fe_read_scope(TdeScopeKind kind, Oid dbOid, char **problem)
{
	TdeStoreProblem found;
	TdeScope   *scope = tde_store_read_scope(kind, dbOid, &found);

	*problem = scope ? NULL : tde_store_problem_text(&found);
	return scope;
}

TdeProviderList *
tde_fe_read_providers(Oid dbOid, char **problem)
{
	TdeStoreProblem found;
	TdeProviderList *list = tde_store_read_providers(dbOid, &found);

	*problem = list ? NULL : tde_store_problem_text(&found);
	return list;
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
tde_fe_read_key(const RelFileLocator *locator, const TdeScope *scope,
				TdeKey *key, bool *orphan, char **problem)
{
	uint8		record[TDE_KEY_RECORD_LEN + 1];
	char		path[MAXPGPATH];
	const char *reason;
	const uint8 *scope_key = NULL;
	int			len = tde_store_read_key(locator, record, key, &reason);

	*problem = NULL;
	*orphan = false;
	if (len == 0)
		return false;
	tde_key_path(locator, path);
	if (len < 0 && reason == NULL)
	{
		*problem = psprintf(_("could not read file \"%s\": %m"), path);
		return false;
	}
	if (len > 0 && scope != NULL)
	{
		for (int i = 0; i < scope->ngenerations; i++)
			if (TdeIdEquals(&scope->generations[i].id, &key->generation))
				scope_key = scope->generations[i].key;
		*orphan = scope_key == NULL;
		if (*orphan)
			reason = gettext_noop("its scope key does not exist");
		else
			(void) tde_key_record_unwrap(record, len, scope_key, key, &reason);
	}
	if (reason != NULL)
		*problem = psprintf(_("could not use file \"%s\": %s"), path,
							_(reason));
	return reason == NULL;
}

static int
compare_oids(const void *a, const void *b)
{
	return pg_cmp_u32(*(const Oid *) a, *(const Oid *) b);
}

void
tde_fe_refuse_foreign_store(const char *dir)
{
	char		name[MAXPGPATH];

	if (!tde_store_is_foreign(dir, name))
		return;
	pg_log_error("the data directory was encrypted by Percona's pg_tde");
	pg_log_error_detail("File \"%s/%s\" is one of its key store.", dir, name);
	pg_log_error_hint("Start it with the server that made it, and bring the data to a cluster of this one with pg_dumpall.");
	exit(1);
}

Oid *
tde_fe_list_databases(int *n)
{
	TdeStoreProblem problem;
	Oid		   *oids;

	tde_fe_refuse_foreign_store(TDE_DIR);
	oids = tde_store_list_databases(n, &problem);
	if (oids == NULL)
		pg_fatal("%s", tde_store_problem_text(&problem));
	qsort(oids, *n, sizeof(Oid), compare_oids);
	return oids;
}

typedef struct KeyList
{
	int			n;
	int			max;
	RelFileLocator *locators;
} KeyList;

static void
add_key(const RelFileLocator *locator, void *arg)
{
	KeyList    *list = arg;

	if (list->n == list->max)
	{
		list->max *= 2;
		list->locators = pg_realloc(list->locators,
									sizeof(RelFileLocator) * list->max);
	}
	list->locators[list->n++] = *locator;
}

RelFileLocator *
tde_fe_list_keys(Oid dbOid, int *n)
{
	TdeStoreProblem problem;
	KeyList		list = {.max = 64};

	list.locators = pg_malloc(sizeof(RelFileLocator) * list.max);
	if (!tde_store_list_keys(dbOid, add_key, &list, &problem))
		pg_fatal("%s", tde_store_problem_text(&problem));
	*n = list.n;
	return list.locators;
}

bool
tde_fe_scope_is_over(const TdeScope *scope)
{
	int			n = 0;

	if (!scope->retired)
		return false;
	if (scope->kind == TDE_SCOPE_DATABASE)
		pfree(tde_fe_list_keys(scope->dbOid, &n));
	return n == 0;
}

/* ---- writing ---- */

void
tde_fe_write_providers(TdeProviderList *list)
{
	char		path[MAXPGPATH];
	uint8	   *data = pg_malloc(tde_providers_encoded_size(list->nproviders));
	size_t		len;

	if (tde_providers_draw_uuids(list) != 0)
		pg_fatal("could not make an id: %s", _(tde_cipher_error()));
	len = tde_providers_encode(list, data);
	if (len == 0)
		pg_fatal("could not encode the list of key providers: %s",
				 _(tde_cipher_error()));
	tde_provider_path(list->dbOid, path);
	tde_fe_write_file(path, data, len);
	pfree(data);
}
