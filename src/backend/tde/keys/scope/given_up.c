/*-------------------------------------------------------------------------
 *
 * given_up.c
 *	  Databases that were given up in recovery.
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
	uint64		until;			/* microseconds since 1970 */
} GivenUpFile;

static void
given_up_path(Oid dbOid, char *path)
{
	snprintf(path, MAXPGPATH, "%s/%u/%s", TDE_DIR, dbOid, GIVEN_UP_FILE);
}

static pg_crc32c
given_up_crc(const GivenUpFile *file)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &file->until, sizeof(file->until));
	FIN_CRC32C(crc);
	return crc;
}

/*
 * The time in the file, 0 if there is none.  A file that is damaged still
 * says that the database was given up.
 */
static uint64
read_file(Oid dbOid)
{
	char		path[MAXPGPATH];
	GivenUpFile *file;
	uint64		until = FOREVER;
	size_t		len;

	given_up_path(dbOid, path);
	file = (GivenUpFile *) tde_read_file(path, &len);
	if (file == NULL)
		return 0;
	if (len == sizeof(*file) && file->magic == GIVEN_UP_MAGIC &&
		EQ_CRC32C(file->crc, given_up_crc(file)))
		until = file->until;
	else
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" is damaged", path),
				 errdetail("All relations of database %u that are encrypted now count as given up.",
						   dbOid)));
	pfree(file);
	return until;
}

static void
write_file(Oid dbOid, uint64 until)
{
	char		path[MAXPGPATH];
	GivenUpFile file = {.magic = GIVEN_UP_MAGIC,.until = until};

	file.crc = given_up_crc(&file);
	given_up_path(dbOid, path);
	tde_write_temp_file(path, (uint8 *) &file, sizeof(file), true);
	tde_rename_temp_file(path, ERROR);
}

/*
 * At a start: was the database given up before?
 */
bool
tde_load_given_up(Oid dbOid)
{
	uint64		until = read_file(dbOid);

	if (until != 0)
		tde_note_given_up(dbOid, until);
	return until == FOREVER;
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
	write_file(dbOid, FOREVER);
	tde_note_given_up(dbOid, FOREVER);
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
	write_file(dbOid, until);
	tde_note_given_up(dbOid, until);
}
