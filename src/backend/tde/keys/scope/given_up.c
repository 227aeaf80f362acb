/*-------------------------------------------------------------------------
 *
 * given_up.c
 *	  Databases and relations that were given up in recovery.
 *
 * Where WAL must be replayed and the keys of a database cannot be had,
 * pg_tde.give_up_databases lets recovery go on: what it would do to encrypted
 * relations of the database is left undone.  These relations are lost then,
 * also when the key comes back, since their pages are of different ages.  So
 * it is made durable, before anything is left out, in the file
 * pg_tde/<db>/given_up: what is under keys made up to a time is lost.
 *
 * While the keys are away that time is "forever".  When they are back it
 * becomes that moment, or the time of the newest key there, whichever is
 * later (a standby has keys by another clock), and what is made from then on
 * is as any other relation.  The file goes with the database.
 *
 * Single relations, whose key files are lost, can be given up in the same way.
 * They are in the file, too, each with the time when it was.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope/given_up.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_crc32c.h"
#include "scope_internal.h"
#include "tde/key_record.h"
#include "tde/store.h"

#define GIVEN_UP_FILE	"given_up"
#define GIVEN_UP_MAGIC	0x47555031	/* "GUP1" */
#define FOREVER			PG_UINT64_MAX

typedef struct GivenUpFile
{
	uint32		magic;
	pg_crc32c	crc;			/* of what follows */
	uint64		until;			/* microseconds since 1970; 0: it is not */
	TdeGivenUpRelation relations[FLEXIBLE_ARRAY_MEMBER];
} GivenUpFile;

#define FILE_SIZE(n) \
	(offsetof(GivenUpFile, relations) + (n) * sizeof(TdeGivenUpRelation))

static void
given_up_path(Oid dbOid, char *path)
{
	snprintf(path, MAXPGPATH, "%s/%u/%s", TDE_DIR, dbOid, GIVEN_UP_FILE);
}

static pg_crc32c
given_up_crc(const GivenUpFile *file, int n)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &file->until,
				FILE_SIZE(n) - offsetof(GivenUpFile, until));
	FIN_CRC32C(crc);
	return crc;
}

/*
 * What is in the file, palloc'd, with the number of single relations and room
 * for one more; nothing if there is none.  A file that is damaged still says
 * that the database was given up.
 */
static GivenUpFile *
read_file(Oid dbOid, int *n)
{
	char		path[MAXPGPATH];
	GivenUpFile *file;
	GivenUpFile *result;
	size_t		len = 0;

	*n = 0;
	given_up_path(dbOid, path);
	file = (GivenUpFile *) tde_read_file(path, &len);
	result = palloc0(FILE_SIZE(1) + (file ? len : 0));
	if (file == NULL)
		return result;
	if (len >= FILE_SIZE(0))
		*n = (len - FILE_SIZE(0)) / sizeof(TdeGivenUpRelation);
	if (len >= FILE_SIZE(0) && len == FILE_SIZE(*n) &&
		file->magic == GIVEN_UP_MAGIC &&
		EQ_CRC32C(file->crc, given_up_crc(file, *n)))
		memcpy(result, file, len);
	else
	{
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" is damaged", path),
				 errdetail("All relations of database %u that are encrypted now count as given up.",
						   dbOid)));
		result->until = FOREVER;
		*n = 0;
	}
	pfree(file);
	return result;
}

static void
write_file(Oid dbOid, GivenUpFile *file, int n)
{
	char		path[MAXPGPATH];

	file->magic = GIVEN_UP_MAGIC;
	file->crc = given_up_crc(file, n);
	given_up_path(dbOid, path);
	tde_write_temp_file(path, (uint8 *) file, FILE_SIZE(n), true);
	tde_rename_temp_file(path, ERROR);
}

static void
write_until(Oid dbOid, uint64 until)
{
	int			n;
	GivenUpFile *file = read_file(dbOid, &n);

	file->until = until;
	write_file(dbOid, file, n);
	pfree(file);
}

/*
 * At a start: was the database given up before?
 */
bool
tde_load_given_up(Oid dbOid)
{
	int			n;
	GivenUpFile *file = read_file(dbOid, &n);
	bool		forever = file->until == FOREVER;

	for (int i = 0; i < n; i++)
		tde_note_relation_given_up(&file->relations[i]);
	if (file->until != 0)
		tde_note_given_up(dbOid, file->until);
	pfree(file);
	return forever;
}

/*
 * Give a database up: from here on replay leaves its encrypted relations
 * alone.
 */
void
tde_give_up(Oid dbOid)
{
	if (tde_given_up(dbOid) == FOREVER)
		return;
	ereport(WARNING,
			(errmsg("giving up the encrypted relations of database %u", dbOid),
			 errdetail("Recovery leaves out what it would do to them, and they cannot be used any more."),
			 errhint("This follows from the setting \"%s\".",
					 "pg_tde.give_up_databases")));
	write_until(dbOid, FOREVER);
	tde_note_given_up(dbOid, FOREVER);
}

/*
 * Give a single relation up, whose key cannot be had.  A key that is made for
 * its number later is not.
 */
void
tde_give_up_relation(const RelFileLocator *locator, const char *reason)
{
	TdeGivenUpRelation relation = {.locator = *locator,.until = tde_now()};
	int			n;
	int			i;
	GivenUpFile *file;

	ereport(WARNING,
			(errmsg("giving up relation %u of database %u",
					locator->relNumber, locator->dbOid),
			 errdetail("Its key file: %s. Recovery leaves out what it would do to the relation, which cannot be used any more.",
					   reason),
			 errhint("This follows from the setting \"%s\".",
					 "pg_tde.give_up_databases")));
	/* first, as it fails where there is no room: then no file may say so */
	tde_note_relation_given_up(&relation);
	file = read_file(locator->dbOid, &n);
	for (i = 0; i < n; i++)
		if (RelFileLocatorEquals(file->relations[i].locator, *locator))
			break;
	file->relations[i] = relation;
	write_file(locator->dbOid, file, Max(n, i + 1));
	pfree(file);
}

static void
note_newest(const RelFileLocator *locator, void *newest)
{
	uint8		record[TDE_KEY_RECORD_LEN + 1];
	const char *reason;
	TdeKey		key;

	if (tde_store_read_key(locator, record, &key, &reason) > 0)
		*(uint64 *) newest = Max(*(uint64 *) newest, key.created);
}

/*
 * The keys of a database are available again: what is made from now on is not
 * given up.  To be called before anything can be made.
 */
void
tde_end_given_up(Oid dbOid)
{
	uint64		until;

	if (tde_given_up(dbOid) != FOREVER)
		return;
	until = tde_now();
	tde_list_key_files(dbOid, note_newest, &until);
	write_until(dbOid, until);
	tde_note_given_up(dbOid, until);
}
