/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  What the directory of the key store holds: databases, and key files.
 *
 * A list says what is there; that something is not in it proves nothing about
 * the relation or database that it belongs to.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/listing.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <dirent.h>

#include "store_reading.h"
#ifndef FRONTEND
#include "storage/fd.h"
#else
#define AllocateDir(path)	opendir(path)
#define FreeDir(dir)		closedir(dir)
#endif

bool
tde_store_walk(const char *path, void (*callback) (const char *name, void *arg),
			   void *arg, TdeStoreProblem *problem)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *de;
	bool		ok;

	if (dir == NULL)
	{
		tde_store_failed(problem, path,
						 gettext_noop("could not open directory \"%s\": %m"));
		problem->missing = problem->errnum == ENOENT;
		return false;
	}
	while (errno = 0, (de = readdir(dir)) != NULL)
		callback(de->d_name, arg);
	ok = errno == 0;
	if (!ok)
		tde_store_failed(problem, path,
						 gettext_noop("could not read directory \"%s\": %m"));
	(void) FreeDir(dir);
	return ok;
}

/* The same of a directory that has no names if it does not exist. */
static bool
walk(const char *path, void (*callback) (const char *name, void *arg),
	 void *arg, TdeStoreProblem *problem)
{
	return tde_store_walk(path, callback, arg, problem) || problem->missing;
}

typedef struct DatabaseList
{
	int			n;
	int			max;
	Oid		   *oids;
} DatabaseList;

static void
add_database(const char *name, void *arg)
{
	DatabaseList *list = arg;
	Oid			oid = tde_parse_database_dir(name);

	if (!OidIsValid(oid))
		return;
	if (list->n == list->max)
	{
		list->max *= 2;
		list->oids = repalloc(list->oids, sizeof(Oid) * list->max);
	}
	list->oids[list->n++] = oid;
}

Oid *
tde_store_list_databases(int *n, TdeStoreProblem *problem)
{
	DatabaseList list = {.max = 64};

	list.oids = palloc(sizeof(Oid) * list.max);
	if (!walk(TDE_DIR, add_database, &list, problem))
	{
		pfree(list.oids);
		return NULL;
	}
	*n = list.n;
	return list.oids;
}

/*
 * Percona's pg_tde names its files N_keys, N_providers (N is a database, or
 * 1664) and wal_keys.  No file or directory of ours has such a name.
 */
static void
note_foreign(const char *name, void *arg)
{
	char	   *found = arg;
	const char *rest = name + strspn(name, "0123456789");

	if (strcmp(name, "wal_keys") == 0 ||
		(rest > name && (strcmp(rest, "_keys") == 0 ||
						 strcmp(rest, "_providers") == 0)))
		strlcpy(found, name, MAXPGPATH);
}

bool
tde_store_is_foreign(const char *dir, char *name)
{
	TdeStoreProblem problem;

	name[0] = '\0';
	(void) walk(dir, note_foreign, name, &problem);
	return name[0] != '\0';
}

typedef struct KeyWalk
{
	Oid			dbOid;
	void		(*callback) (const RelFileLocator *, void *);
	void	   *arg;
} KeyWalk;

static void
report_key(const char *name, void *arg)
{
	KeyWalk    *state = arg;
	RelFileLocator locator;

	if (tde_parse_key_file_name(name, state->dbOid, &locator))
		state->callback(&locator, state->arg);
}

bool
tde_store_list_keys(Oid dbOid,
					void (*callback) (const RelFileLocator *, void *),
					void *arg, TdeStoreProblem *problem)
{
	KeyWalk		state = {dbOid, callback, arg};
	char		path[MAXPGPATH];

	tde_database_dir(dbOid, path);
	return walk(path, report_key, &state, problem);
}
