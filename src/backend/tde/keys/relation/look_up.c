/*-------------------------------------------------------------------------
 *
 * look_up.c
 *	  What each process keeps for itself: the keys it used last and its
 *	  expectations.
 *
 * Every read and write of a relation asks TdeGetRelationKey() again; the
 * answer comes from the process's own table as long as the shared partition's
 * generation has not moved.  The tables of keys live in locked memory that
 * stays out of core dumps.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/look_up.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "relation_internal.h"
#include "storage/procnumber.h"
#include "tde/subsys.h"
#include "utils/hsearch.h"

#define LOCAL_ENTRIES	256		/* a power of two */

typedef struct LocalEntry
{
	RelFileLocator locator;
	TdeCacheState state;
	TdeCachePartition *partition;
	uint64		generation;
	TdeRelationKey key;
} LocalEntry;

static LocalEntry *local_entries = NULL;

/* Relations that the catalogs say are encrypted. */
typedef struct Expectation
{
	RelFileLocatorBackend rlocator;
} Expectation;

static HTAB *expectations = NULL;
bool		tde_have_expectations = false;

static void
local_table_init(void)
{
	bool		locked;

	local_entries = tde_secure_alloc(sizeof(LocalEntry) * LOCAL_ENTRIES,
									 false, &locked);
	if (local_entries == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map memory for encryption keys: %m")));
	TdeNoteUnlockedMemory();
}

void
TdeKeysProcessInit(void)
{
	if (TdeIsActive() && local_entries == NULL)
		local_table_init();
}

/*
 * Say that a key cannot be had.  Callable from any process, with or without
 * transaction.
 */
static void
report_bad_key(const RelFileLocator *locator, const char *reason)
{
	char		path[MAXPGPATH];
	RelPathStr	relpath = relpathperm(*locator, MAIN_FORKNUM);

	tde_key_path(locator, path);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("could not get the encryption key of relation \"%s\"",
					relpath.str),
			 errdetail("Key file \"%s\": %s.", path, reason),
			 RecoveryInProgress() ?
			 errhint("Restore the key file from a backup.") :
			 errhint("Restore the key file from a backup, or drop the relation.")));
}

/*
 * Ask the shared cache, then the key file.  Returns false with a reason if
 * the key cannot be had.
 */
static bool
look_up(const RelFileLocator *locator, LocalEntry *entry,
		char *reason, size_t reason_size)
{
	TdeKey		key;
	TdeKeyFileStatus status;

	tde_wipe(entry, sizeof(*entry));
	entry->partition = tde_cache_partition(locator);

	entry->state = tde_cache_get(locator, &entry->key, &entry->generation);
	if (entry->state == TDE_CACHE_EMPTY)
	{
		status = tde_key_file_read(locator, &key, true, reason, reason_size);
		if (status == TDE_KEYFILE_BAD)
			return false;
		if (status == TDE_KEYFILE_NONE && tde_data_file_is_marked(locator))
		{
			strlcpy(reason, _("the file does not exist"), reason_size);
			return false;
		}
		if (status == TDE_KEYFILE_OK)
		{
			tde_fill_relation_key(&key, &entry->key);
			tde_wipe(&key, sizeof(key));
			entry->state = TDE_CACHE_KEY;
		}
		else
			entry->state = TDE_CACHE_PLAIN;
		tde_cache_put(locator, entry->state, &entry->key, entry->generation);
	}
	entry->locator = *locator;
	return true;
}

static inline LocalEntry *
find_local(const RelFileLocator *locator)
{
	uint32		hash = locator->relNumber * 2654435761u ^
		locator->dbOid ^ locator->spcOid * 31;

	return &local_entries[hash >> 3 & (LOCAL_ENTRIES - 1)];
}

static inline bool
local_is_current(const LocalEntry *entry, const RelFileLocator *locator)
{
	return entry->state != TDE_CACHE_EMPTY &&
		RelFileLocatorEquals(entry->locator, *locator) &&
		entry->generation ==
		pg_atomic_read_u64(&entry->partition->generation);
}

void
TdeKeysForgetStale(void)
{
	for (int i = 0; local_entries != NULL && i < LOCAL_ENTRIES; i++)
	{
		LocalEntry *entry = &local_entries[i];

		if (!local_is_current(entry, &entry->locator))
			tde_wipe(entry, sizeof(*entry));
	}
}

const TdeRelationKey *
TdeGetRelationKey(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	LocalEntry *entry;
	char		reason[256];

	/* Shared relations are never encrypted. */
	if (!TdeIsActive() || !OidIsValid(locator->dbOid))
		return NULL;
	if (RelFileLocatorBackendIsTemp(*rlocator))
		return tde_temp_key_find(locator);

	if (unlikely(local_entries == NULL))
		local_table_init();
	entry = find_local(locator);
	if (unlikely(!local_is_current(entry, locator)))
	{
		if (!look_up(locator, entry, reason, sizeof(reason)))
			report_bad_key(locator, reason);
	}
	return entry->state == TDE_CACHE_KEY ? &entry->key : NULL;
}

/*
 * Is there a key, usable or not?
 */
bool
TdeRelationHasKey(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	LocalEntry *entry;
	char		reason[256];

	if (!TdeIsActive() || !OidIsValid(locator->dbOid))
		return false;
	if (RelFileLocatorBackendIsTemp(*rlocator))
		return tde_temp_key_find(locator) != NULL;

	if (local_entries == NULL)
		local_table_init();
	entry = find_local(locator);
	if (!local_is_current(entry, locator) &&
		!look_up(locator, entry, reason, sizeof(reason)))
		return true;
	return entry->state == TDE_CACHE_KEY;
}

bool
TdeRelationKeyIsLost(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	LocalEntry *entry;
	char		reason[256];

	if (!TdeIsActive() || !OidIsValid(locator->dbOid) ||
		RelFileLocatorBackendIsTemp(*rlocator))
		return false;

	if (local_entries == NULL)
		local_table_init();
	entry = find_local(locator);
	return !local_is_current(entry, locator) &&
		!look_up(locator, entry, reason, sizeof(reason));
}

bool
TdeGetKeyId(const RelFileLocator *rlocator, TdeId *id)
{
	RelFileLocatorBackend rlocatorb = {
		.locator = *rlocator,
		.backend = INVALID_PROC_NUMBER
	};
	const TdeRelationKey *key = TdeGetRelationKey(&rlocatorb);

	if (key == NULL)
		return false;
	*id = key->id;
	return true;
}

void
TdeExpectEncrypted(const RelFileLocatorBackend *rlocator)
{
	if (expectations == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(RelFileLocatorBackend),
			.entrysize = sizeof(Expectation),
		};

		expectations = hash_create("relations expected to be encrypted", 64,
								   &ctl, HASH_ELEM | HASH_BLOBS);
	}
	(void) hash_search(expectations, rlocator, HASH_ENTER, NULL);
	tde_have_expectations = true;
}

void
TdeExpectPlain(const RelFileLocatorBackend *rlocator)
{
	if (tde_have_expectations)
		(void) hash_search(expectations, rlocator, HASH_REMOVE, NULL);
}

void
TdeRaiseIfExpected(const RelFileLocatorBackend *rlocator)
{
	TdeCachePartition *part = tde_cache_partition(&rlocator->locator);

	if (hash_search(expectations, rlocator, HASH_FIND, NULL) == NULL)
		return;

	/* The cache says "plain".  Look again next time: the file may be back. */
	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	tde_cache_change(part, &rlocator->locator, TDE_CACHE_EMPTY, NULL);
	LWLockRelease(&part->lock);

	report_bad_key(&rlocator->locator, _("the file does not exist"));
}
