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
 * src/backend/tde/keys/store/listing.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/fd.h"
#include "store_internal.h"
#include "tde/paths.h"

/*
 * The databases that have a directory in the key store; palloc'd.
 */
Oid *
tde_list_databases(int *n)
{
	DIR		   *d;
	struct dirent *de;
	int			max = 64;
	Oid		   *oids = palloc(sizeof(Oid) * max);

	*n = 0;
	d = AllocateDir(TDE_DIR);
	if (d == NULL && errno == ENOENT)
		return oids;
	while ((de = ReadDir(d, TDE_DIR)) != NULL)
	{
		Oid			oid = tde_parse_database_dir(de->d_name);

		if (!OidIsValid(oid))
			continue;
		if (*n == max)
		{
			max *= 2;
			oids = repalloc(oids, sizeof(Oid) * max);
		}
		oids[(*n)++] = oid;
	}
	FreeDir(d);
	return oids;
}

/*
 * Call back for each key file of a database.
 */
void
tde_list_key_files(Oid dbOid, void (*callback) (const RelFileLocator *, void *),
				   void *arg)
{
	char		dir[MAXPGPATH];
	DIR		   *d;
	struct dirent *de;
	RelFileLocator locator;

	tde_database_dir(dbOid, dir);
	d = AllocateDir(dir);
	if (d == NULL && errno == ENOENT)
		return;
	while ((de = ReadDir(d, dir)) != NULL)
	{
		if (tde_parse_key_file_name(de->d_name, dbOid, &locator))
			callback(&locator, arg);
	}
	FreeDir(d);
}

static void
note_key_file(const RelFileLocator *locator, void *arg)
{
	*(bool *) arg = true;
}

/*
 * Are there keys of relations of a database, which its scope protects?
 */
bool
tde_database_has_keys(Oid dbOid)
{
	bool		found = false;

	tde_list_key_files(dbOid, note_key_file, &found);
	return found;
}
