/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  What the directory of the key store holds (common/tde/store/listing.c),
 *	  or an error.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/listing.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "store_internal.h"

/*
 * The databases that have a directory in the key store; palloc'd.
 */
Oid *
tde_list_databases(int *n)
{
	TdeStoreProblem problem;
	Oid		   *oids = tde_store_list_databases(n, &problem);

	if (oids == NULL)
		tde_store_report(ERROR, &problem);
	return oids;
}

/*
 * Call back for each key file of a database.
 */
void
tde_list_key_files(Oid dbOid, void (*callback) (const RelFileLocator *, void *),
				   void *arg)
{
	TdeStoreProblem problem;

	if (!tde_store_list_keys(dbOid, callback, arg, &problem))
		tde_store_report(ERROR, &problem);
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
