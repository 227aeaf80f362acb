/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  A file for each database that lists its encrypted relations.
 *
 * A key file that is lost while the server is down leaves no word behind.
 * Where no page of its relation is on disk either, recovery would take the
 * relation for plain and write in clear what it replays.  So it is also listed
 * here that the relation has a key: 16 bytes that are appended before the key
 * file is put in its place, and again, saying the opposite, before the key is
 * removed or the number given to a plain relation.  What was said last counts.
 *
 * Replay asks here, too (tde_registry_word), where a relation's file is missing,
 * whether it was encrypted: one that never was is plain, and its file may only be
 * away with its tablespace.  And where a key is missing, whether it was removed.
 *
 * The checkpoint that syncs a key file syncs the list with its directory.
 *
 * A list is read into the table of known.c, which then decides, when the first
 * relation without a key file is met in its database.  Entries that are
 * damaged are passed over: the list is a second witness, which can only make a
 * relation count as encrypted.
 *
 * An entry is never torn: it does not cross a block of the file system.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/registry.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "port/pg_crc32c.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "utils/hsearch.h"

/* All in the byte order of the machine, as in data files. */
typedef struct RegistryEntry
{
	Oid			spcOid;
	RelFileNumber relNumber;
	uint32		word;			/* a TdeRegistryWord */
	pg_crc32c	crc;			/* of the above and the database's OID */
} RegistryEntry;

/*
 * A list is not written anew before it has so many entries.  Then as many of
 * the newest ones are kept as pg_rewind may yet bring back in replay, also
 * those of relations that were dropped.
 */
#define COMPACT_FROM	(1024 * 1024)
#define COMPACT_KEEP	(COMPACT_FROM / 4)

/* The databases whose lists were read, an open-addressed table. */
#define MAX_LOADED		(2 * TDE_MAX_SCOPES)

typedef struct RegistryShared
{
	LWLock		lock;			/* the first of the locks of relations' keys */
	pg_atomic_uint32 loaded[MAX_LOADED];
} RegistryShared;

static RegistryShared *registry_shared = NULL;

/*
 * After a crash the lists are read again, which does no harm.
 */
void
TdeRegistryShmemInit(int tranche)
{
	if (registry_shared == NULL)
		registry_shared = tde_map_shared(sizeof(RegistryShared), false);
	LWLockInitialize(&registry_shared->lock, tranche);
	for (int i = 0; i < MAX_LOADED; i++)
		pg_atomic_init_u32(&registry_shared->loaded[i], InvalidOid);
}

static pg_atomic_uint32 *
loaded_place(Oid dbOid)
{
	uint32		hash = murmurhash32(dbOid);

	for (int i = 0; i < MAX_LOADED; i++)
	{
		pg_atomic_uint32 *place = &registry_shared->loaded[(hash + i) % MAX_LOADED];
		Oid			oid = pg_atomic_read_u32(place);

		if (oid == dbOid || oid == InvalidOid)
			return place;
	}
	return NULL;
}

static bool
is_loaded(Oid dbOid)
{
	pg_atomic_uint32 *place = loaded_place(dbOid);

	return place != NULL && pg_atomic_read_u32(place) == dbOid;
}

/* Caller holds the lock.  Where there is no place it will be read again. */
static void
note_loaded(Oid dbOid)
{
	pg_atomic_uint32 *place = loaded_place(dbOid);

	if (place != NULL)
		pg_atomic_write_u32(place, dbOid);
}

static pg_crc32c
entry_crc(const RegistryEntry *entry, Oid dbOid)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, entry, offsetof(RegistryEntry, crc));
	COMP_CRC32C(crc, &dbOid, sizeof(dbOid));
	FIN_CRC32C(crc);
	return crc;
}

static RegistryEntry
make_entry(const RelFileLocator *locator, TdeRegistryWord word)
{
	RegistryEntry entry = {
		.spcOid = locator->spcOid,
		.relNumber = locator->relNumber,
		.word = word
	};

	entry.crc = entry_crc(&entry, locator->dbOid);
	return entry;
}

/* ---- what replay remembers of lists, in its own memory ---- */

/* Relations that have, or had, a key, and which of that. */
typedef struct Listed
{
	RelFileLocator locator;
	TdeRegistryWord word;
	size_t		number;			/* of its last entry, for compaction */
} Listed;

static HTAB *had_key = NULL;

/* Stands among them for the database itself, whose list was read. */
static RelFileLocator
list_mark(Oid dbOid)
{
	RelFileLocator mark = {.dbOid = dbOid};

	return mark;
}

static void
remember(const RelFileLocator *locator, TdeRegistryWord word)
{
	Listed	   *listed = hash_search(had_key, locator, HASH_ENTER, NULL);

	listed->word = word;
}

/*
 * Say what a relation is from now on.  Returns false with errno set if that
 * could not be written.  The caller requests the sync.
 */
bool
tde_registry_append(const RelFileLocator *locator, TdeRegistryWord word)
{
	RegistryEntry entry = make_entry(locator, word);
	char		path[MAXPGPATH];
	ssize_t		n;
	int			fd;
	int			save_errno;

	tde_registry_path(locator->dbOid, path);
	fd = BasicOpenFile(path, O_WRONLY | O_CREAT | O_APPEND | PG_BINARY);
	if (fd < 0)
	{
		/* no key store of this database: nothing is listed */
		return errno == ENOENT && word != TDE_WORD_ENCRYPTED;
	}
	errno = 0;
	do
	{
		n = write(fd, &entry, sizeof(entry));
	} while (n < 0 && errno == EINTR);
	save_errno = errno ? errno : ENOSPC;
	close(fd);
	if (had_key != NULL)
		remember(locator, word);
	errno = save_errno;
	return n == sizeof(entry);
}

/* A list that is being read. */
typedef struct RegistryList
{
	Oid			dbOid;
	uint8	   *data;			/* NULL: there is none */
	size_t		len;
	size_t		at;
} RegistryList;

/*
 * Read the list of a database.  There is none where no key was made since
 * there are lists.
 */
static void
read_list(RegistryList *list, Oid dbOid)
{
	char		path[MAXPGPATH];

	tde_registry_path(dbOid, path);
	list->dbOid = dbOid;
	list->at = 0;
	list->data = tde_read_file(path, &list->len);
	if (list->data == NULL)
		list->len = 0;
}

/*
 * The next entry of a list; false at its end.  After damage, which need not
 * be of the length of entries, the next one is looked for byte by byte.
 */
static bool
next_entry(RegistryList *list, RelFileLocator *locator, TdeRegistryWord *word)
{
	for (; list->at + sizeof(RegistryEntry) <= list->len; list->at++)
	{
		RegistryEntry entry;

		memcpy(&entry, list->data + list->at, sizeof(entry));
		if (!EQ_CRC32C(entry.crc, entry_crc(&entry, list->dbOid)))
			continue;
		list->at += sizeof(entry);
		locator->spcOid = entry.spcOid;
		locator->dbOid = list->dbOid;
		locator->relNumber = entry.relNumber;
		*word = (TdeRegistryWord) entry.word;
		return true;
	}
	return false;
}

/*
 * See to it that what is listed of a database is known.  Called before a
 * relation without a key file is taken for plain, and before a number is given
 * to a plain one; so whoever has forgotten a relation has done so after its
 * list was read, and is not overruled.
 */
void
tde_registry_load(Oid dbOid)
{
	RegistryList list;
	RelFileLocator locator;
	TdeRegistryWord word;

	if (is_loaded(dbOid))
		return;

	LWLockAcquire(&registry_shared->lock, LW_EXCLUSIVE);
	if (!is_loaded(dbOid))
	{
		read_list(&list, dbOid);
		while (next_entry(&list, &locator, &word))
			tde_known_list(&locator, word == TDE_WORD_ENCRYPTED);
		if (list.data)
			pfree(list.data);
	}
	note_loaded(dbOid);
	LWLockRelease(&registry_shared->lock);
}

/*
 * The last word of a relation in its database's list; that it is plain if
 * there is none.  A list that cannot be read is an error.  For replay: what
 * other processes append after this was first asked is not noticed, and replay
 * appends itself what it may ask for.
 */
TdeRegistryWord
tde_registry_word(const RelFileLocator *locator)
{
	Listed	   *found;
	RelFileLocator mark = list_mark(locator->dbOid);

	if (had_key == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(RelFileLocator),
			.entrysize = sizeof(Listed),
		};

		had_key = hash_create("relations that had a key", 1024, &ctl,
							  HASH_ELEM | HASH_BLOBS);
	}
	if (hash_search(had_key, &mark, HASH_FIND, NULL) == NULL)
	{
		RegistryList list;
		RelFileLocator listed;
		TdeRegistryWord word;

		read_list(&list, locator->dbOid);
		while (next_entry(&list, &listed, &word))
			remember(&listed, word);
		if (list.data)
			pfree(list.data);
		remember(&mark, TDE_WORD_PLAIN);
	}
	found = hash_search(had_key, locator, HASH_FIND, NULL);
	return found ? found->word : TDE_WORD_PLAIN;
}

/*
 * Write a long list anew if most of it does not count any more.  Only at a
 * start, when nobody appends to it.
 */
void
tde_registry_compact(Oid dbOid)
{
	HASHCTL		ctl = {
		.keysize = sizeof(RelFileLocator),
		.entrysize = sizeof(Listed),
		.hcxt = CurrentMemoryContext,
	};
	char		path[MAXPGPATH];
	struct stat st;
	RegistryList list;
	RegistryEntry *entries;
	RelFileLocator locator;
	TdeRegistryWord word;
	HTAB	   *relations;
	HASH_SEQ_STATUS status;
	Listed	   *found;
	size_t		n = 0;
	size_t		kept = 0;

	/* if this fails the list is not to be compacted now */
	tde_registry_path(dbOid, path);
	if (stat(path, &st) != 0 ||
		st.st_size < COMPACT_FROM * sizeof(RegistryEntry))
		return;

	read_list(&list, dbOid);
	relations = hash_create("listed relations", COMPACT_FROM, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	while (next_entry(&list, &locator, &word))
	{
		found = hash_search(relations, &locator, HASH_ENTER, NULL);
		found->word = word;
		found->number = n++;
	}
	entries = palloc(sizeof(RegistryEntry) *
					 (hash_get_num_entries(relations) + 1));
	hash_seq_init(&status, relations);
	while ((found = hash_seq_search(&status)) != NULL)
	{
		if (found->word == TDE_WORD_ENCRYPTED ||
			found->number + COMPACT_KEEP >= n)
			entries[kept++] = make_entry(&found->locator, found->word);
	}
	if (kept < n / 2)
	{
		tde_write_temp_file(path, (uint8 *) entries,
							sizeof(RegistryEntry) * kept, true);
		tde_rename_temp_file(path, ERROR);
	}
	pfree(entries);
	hash_destroy(relations);
	if (list.data)
		pfree(list.data);
}
