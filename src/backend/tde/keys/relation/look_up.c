/*-------------------------------------------------------------------------
 *
 * look_up.c
 *	  The key of a relation: from the table that each process keeps of those it
 *	  used last, from the shared cache, from the key file.
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
#include "access/xlogutils.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "relation_internal.h"
#include "storage/procnumber.h"
#include "tde/settings.h"
#include "tde/subsys.h"

/* Sets of ways: two relations in use all the time must not displace each other. */
#define LOCAL_SETS		64		/* a power of two */
#define LOCAL_WAYS		4
#define LOCAL_ENTRIES	(LOCAL_SETS * LOCAL_WAYS)

typedef struct LocalEntry
{
	RelFileLocator locator;
	TdeCacheState state;
	TdeCachePartition *partition;
	uint64		generation;
	TdeRelationKey key;
} LocalEntry;

static LocalEntry *local_entries = NULL;

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

/* Why a key cannot be had. */
typedef struct Failure
{
	TdeKeyFileStatus status;
	char		reason[TDE_REASON_LEN];
} Failure;

static int
give_up_hint(Oid dbOid)
{
	return errhint("Start the server when the key provider returns the key; if it has moved, tell the server with pg_tde_change_key_provider. To lose the encrypted relations of the database instead, start the server with \"%s\" set to '%u'.",
				   "pg_tde.give_up_databases", dbOid);
}

/*
 * Say that a key cannot be had.  Callable from any process, with or without
 * transaction.
 */
static void
report_bad_key(const RelFileLocator *locator, const Failure *failure)
{
	char		path[MAXPGPATH];
	RelPathStr	relpath = relpathperm(*locator, MAIN_FORKNUM);

	tde_key_path(locator, path);
	switch (failure->status)
	{
		case TDE_KEYFILE_UNAVAILABLE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("encryption key of relation \"%s\" is not available",
							relpath.str),
					 errdetail("The reason is: %s.", failure->reason),
					 InRecovery ? give_up_hint(locator->dbOid) :
					 errhint("When that is repaired, no restart is needed: let the key provider return the key, change the key provider, or restore the file.")));
			break;
		case TDE_KEYFILE_GIVEN_UP:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 tde_relation_given_up(locator) != 0 ?
					 errmsg("relation \"%s\" is lost, because it was given up in recovery",
							relpath.str) :
					 errmsg("relation \"%s\" is lost, because its database was given up in recovery",
							relpath.str),
					 errhint("Drop the relation, or restore the database from a backup.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not get the encryption key of relation \"%s\"",
							relpath.str),
					 errdetail("Key file \"%s\": %s.", path, failure->reason),
					 InRecovery ?
					 errhint("Restore the key file from a backup. To lose the relation instead, start the server with \"%s\" set to '%u/%u'.",
							 "pg_tde.give_up_databases",
							 locator->dbOid, locator->relNumber) :
					 RecoveryInProgress() ?
					 errhint("Restore the key file from a backup.") :
					 errhint("Restore the key file from a backup, or drop the relation.")));
	}
}

static TdeKnownState
known_state(const RelFileLocator *locator)
{
	TdeCachePartition *part = tde_cache_partition(locator);
	TdeKnownState known;

	LWLockAcquire(&part->lock, LW_SHARED);
	known = tde_known_get(locator);
	LWLockRelease(&part->lock);
	return known;
}

/*
 * There is no key file.  Is the relation plain?  Returns false with a reason
 * if it is encrypted, or if that cannot be found out.
 *
 * What is known comes first, then the first page of the relation.  Where it
 * has none, the database's list is read.
 */
bool
tde_relation_is_plain(const RelFileLocator *locator, char *reason,
					  size_t reason_size)
{
	switch (known_state(locator))
	{
		case TDE_KNOWN_REMOVED:
			strlcpy(reason, _("it was removed when the relation was dropped"),
					reason_size);
			return false;
		case TDE_KNOWN_ENCRYPTED:
			strlcpy(reason, _("the file does not exist"), reason_size);
			return false;
		case TDE_KNOWN_LISTED:
		case TDE_KNOWN_NOTHING:
			break;
	}

	switch (tde_data_file_mark(locator))
	{
		case TDE_MARK_PLAIN:
			return true;
		case TDE_MARK_NO_FILE:
			/* replay, which makes the file anew, gives it a key */
			return true;
		case TDE_MARK_NO_PAGE:
			tde_registry_load(locator->dbOid);
			if (known_state(locator) == TDE_KNOWN_NOTHING)
				return true;
			break;
		case TDE_MARK_ENCRYPTED:
			break;
		case TDE_MARK_UNKNOWN:
			snprintf(reason, reason_size,
					 _("the file does not exist, and the relation's first page could not be read: %m"));
			return false;
	}
	strlcpy(reason, _("the file does not exist"), reason_size);
	return false;
}

/*
 * The key file of a relation is lost or damaged: does recovery give it up, or
 * did it before?
 */
static bool
no_key_file(const RelFileLocator *locator, Failure *failure)
{
	failure->status = TDE_KEYFILE_BAD;
	if (tde_relation_given_up(locator) == 0)
	{
		if (!InRecovery ||
			!TdeGivesUpRelation(locator->dbOid, locator->relNumber))
			return false;
		tde_give_up_relation(locator, failure->reason);
	}
	failure->status = TDE_KEYFILE_GIVEN_UP;
	return false;
}

/*
 * Ask the shared cache, then the key file.  Returns false with a reason if
 * the key cannot be had.
 */
static bool
look_up(const RelFileLocator *locator, LocalEntry *entry, Failure *failure)
{
	TdeKey		key;

	tde_wipe(entry, sizeof(*entry));
	entry->partition = tde_cache_partition(locator);

	entry->state = tde_cache_get(locator, &entry->key, &entry->generation);
	if (entry->state == TDE_CACHE_EMPTY)
	{
		failure->status = tde_key_file_read(locator, &key, true,
											failure->reason,
											sizeof(failure->reason));
		switch (failure->status)
		{
			case TDE_KEYFILE_BAD:
				return no_key_file(locator, failure);
			case TDE_KEYFILE_UNAVAILABLE:
			case TDE_KEYFILE_GIVEN_UP:
				return false;
			case TDE_KEYFILE_NONE:
				if (!tde_relation_is_plain(locator, failure->reason,
										   sizeof(failure->reason)))
					return no_key_file(locator, failure);
				entry->state = TDE_CACHE_PLAIN;
				break;
			case TDE_KEYFILE_OK:
				tde_fill_relation_key(&key, &entry->key);
				tde_wipe(&key, sizeof(key));
				entry->state = TDE_CACHE_KEY;
				break;
		}
		tde_cache_put(locator, entry->state, &entry->key, entry->generation);
	}
	entry->locator = *locator;
	return true;
}

static inline bool
local_is_current(const LocalEntry *entry)
{
	return entry->generation ==
		pg_atomic_read_u64(&entry->partition->generation);
}

/*
 * The place of a relation in the process's own table, filled and current; or
 * NULL with a reason if its key cannot be had.
 */
static LocalEntry *
find_local(const RelFileLocator *locator, Failure *failure)
{
	static uint32 next_victim = 0;
	uint32		hash = locator->relNumber * 2654435761u ^
		locator->dbOid ^ locator->spcOid * 31;
	LocalEntry *set;
	LocalEntry *place = NULL;

	if (unlikely(local_entries == NULL))
		local_table_init();
	set = &local_entries[(hash >> 3 & (LOCAL_SETS - 1)) * LOCAL_WAYS];

	for (int i = 0; i < LOCAL_WAYS; i++)
	{
		LocalEntry *entry = &set[i];

		if (entry->state == TDE_CACHE_EMPTY)
		{
			if (place == NULL)
				place = entry;
		}
		else if (RelFileLocatorEquals(entry->locator, *locator))
		{
			if (likely(local_is_current(entry)))
				return entry;
			place = entry;
			break;
		}
	}
	if (place == NULL)
		place = &set[next_victim++ % LOCAL_WAYS];
	return look_up(locator, place, failure) ? place : NULL;
}

void
TdeKeysForgetStale(void)
{
	for (int i = 0; local_entries != NULL && i < LOCAL_ENTRIES; i++)
	{
		LocalEntry *entry = &local_entries[i];

		if (entry->state != TDE_CACHE_EMPTY && !local_is_current(entry))
			tde_wipe(entry, sizeof(*entry));
	}
}

const TdeRelationKey *
TdeGetRelationKey(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	LocalEntry *entry;
	Failure		failure;

	/* Shared relations are never encrypted. */
	if (!TdeIsActive() || !OidIsValid(locator->dbOid))
		return NULL;
	if (RelFileLocatorBackendIsTemp(*rlocator))
	{
		bool		lost;
		const TdeRelationKey *key = tde_temp_key_find(locator, &lost);

		if (lost)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not get the encryption key of temporary relation \"%s\"",
							relpath(*rlocator, MAIN_FORKNUM).str)));
		return key;
	}

	entry = find_local(locator, &failure);
	if (entry == NULL)
		report_bad_key(locator, &failure);
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
	Failure		failure;

	if (!TdeIsActive() || !OidIsValid(locator->dbOid))
		return false;
	if (RelFileLocatorBackendIsTemp(*rlocator))
	{
		bool		lost;

		return tde_temp_key_find(locator, &lost) != NULL || lost;
	}
	entry = find_local(locator, &failure);
	return entry == NULL || entry->state == TDE_CACHE_KEY;
}

bool
TdeRelationKeyIsLost(const RelFileLocatorBackend *rlocator)
{
	Failure		failure;

	if (!TdeIsActive() || !OidIsValid(rlocator->locator.dbOid) ||
		RelFileLocatorBackendIsTemp(*rlocator))
		return false;
	return find_local(&rlocator->locator, &failure) == NULL;
}

bool
TdeDatabaseInTrouble(Oid dbOid)
{
	return tde_any_trouble() &&
		(tde_given_up(dbOid) != 0 ||
		 tde_scope_is_unavailable(TDE_SCOPE_DATABASE, dbOid, NULL));
}

bool
TdeIsGivenUp(const RelFileLocatorBackend *rlocator)
{
	Failure		failure;

	return OidIsValid(rlocator->locator.dbOid) &&
		!RelFileLocatorBackendIsTemp(*rlocator) &&
		(tde_given_up(rlocator->locator.dbOid) != 0 ||
		 tde_relation_given_up(&rlocator->locator) != 0 ||
		 (InRecovery && TdeGivesUpRelation(rlocator->locator.dbOid,
										   rlocator->locator.relNumber))) &&
		find_local(&rlocator->locator, &failure) == NULL &&
		failure.status == TDE_KEYFILE_GIVEN_UP;
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

/*
 * The catalogs say that a relation is encrypted: from now on no process takes
 * it for plain.
 */
void
TdeExpectEncrypted(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	TdeCachePartition *part = tde_cache_partition(locator);
	TdeKnownState known;

	if (!TdeIsActive())
		pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);

	if (RelFileLocatorBackendIsTemp(*rlocator))
	{
		/* of other sessions' nothing is read or written here */
		if (rlocator->backend == ProcNumberForTempRelations())
			tde_temp_key_expect(locator);
		return;
	}

	LWLockAcquire(&part->lock, LW_SHARED);
	known = tde_known_get(locator);
	LWLockRelease(&part->lock);
	if (known == TDE_KNOWN_ENCRYPTED || known == TDE_KNOWN_REMOVED)
		return;

	/* Somebody may have found no key file, and said that it is plain. */
	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	known = tde_known_get(locator);
	if (known == TDE_KNOWN_NOTHING || known == TDE_KNOWN_LISTED)
	{
		tde_known_set(locator, TDE_KNOWN_ENCRYPTED);
		tde_cache_distrust_plain(part, locator);
	}
	LWLockRelease(&part->lock);
}
