/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  The shared cache of internal keys, and of relations known to be plain.
 *
 * Each partition has a counter, its generation, that moves whenever an answer
 * given for one of its locators may no longer hold.  A process that looked
 * something up in a file must say which generation it saw before it looked:
 * if it has moved meanwhile the result is not kept.  The process's own table
 * (local.c) checks the same counter.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/cache.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "relation_internal.h"

static TdeCachePartition *partitions = NULL;

/*
 * Make the cache the first time; empty it.
 */
void
TdeCacheShmemInit(int tranche)
{
	if (partitions == NULL)
		partitions = tde_map_shared(sizeof(TdeCachePartition) *
									TDE_CACHE_PARTITIONS, true);
	for (int i = 0; i < TDE_CACHE_PARTITIONS; i++)
	{
		TdeCachePartition *part = &partitions[i];

		tde_wipe(part, sizeof(*part));
		LWLockInitialize(&part->lock, tranche);
		pg_atomic_init_u64(&part->generation, 1);
	}
}

uint32
tde_locator_hash(const RelFileLocator *locator)
{
	return hash_combine(murmurhash32(locator->relNumber),
						murmurhash32(locator->dbOid ^
									 pg_rotate_left32(locator->spcOid, 16)));
}

TdeCachePartition *
tde_cache_partition_number(int partition)
{
	return &partitions[partition];
}

TdeCachePartition *
tde_cache_partition(const RelFileLocator *locator)
{
	return &partitions[tde_locator_hash(locator) % TDE_CACHE_PARTITIONS];
}

static inline TdeCacheEntry *
locator_set(TdeCachePartition *part, const RelFileLocator *locator)
{
	return part->entries[(tde_locator_hash(locator) / TDE_CACHE_PARTITIONS) %
						 TDE_CACHE_SETS];
}

/* In the same order as the partitions. */
#define partition_counters(part) \
	tde_cache_counters((part) - partitions)

static TdeCacheEntry *
find_entry(TdeCachePartition *part, const RelFileLocator *locator)
{
	TdeCacheEntry *set = locator_set(part, locator);

	for (int i = 0; i < TDE_CACHE_WAYS; i++)
		if (set[i].state != TDE_CACHE_EMPTY &&
			RelFileLocatorEquals(set[i].locator, *locator))
			return &set[i];
	return NULL;
}

/*
 * Store an answer; caller holds the lock exclusively.  The victim is an empty
 * entry, else one that says "plain", else any in turn.
 */
static void
store_entry(TdeCachePartition *part, const RelFileLocator *locator,
			TdeCacheState state, const TdeRelationKey *key)
{
	TdeCacheEntry *entry = find_entry(part, locator);

	if (entry == NULL)
	{
		TdeCacheEntry *set = locator_set(part, locator);
		uint32		first = part->next_victim++;

		entry = &set[first % TDE_CACHE_WAYS];
		for (int i = 0; i < TDE_CACHE_WAYS; i++)
		{
			TdeCacheEntry *e = &set[(first + i) % TDE_CACHE_WAYS];

			if (e->state < entry->state)
				entry = e;
		}
		if (entry->state != TDE_CACHE_EMPTY)
			pg_atomic_fetch_add_u64(&partition_counters(part)->evictions, 1);
	}

	tde_wipe(entry, sizeof(*entry));
	if (state == TDE_CACHE_EMPTY)
		return;
	entry->locator = *locator;
	if (state == TDE_CACHE_KEY)
		tde_copy_relation_key(&entry->key, key);
	entry->state = state;
}

/*
 * Look a relation up.  Also returns the partition's generation as it was
 * before, to be given to tde_cache_put after the key file was read.
 */
TdeCacheState
tde_cache_get(const RelFileLocator *locator, TdeRelationKey *key,
			  uint64 *generation)
{
	TdeCachePartition *part = tde_cache_partition(locator);
	TdeCacheEntry *entry;
	TdeCacheState state = TDE_CACHE_EMPTY;

	LWLockAcquire(&part->lock, LW_SHARED);
	*generation = pg_atomic_read_u64(&part->generation);
	entry = find_entry(part, locator);
	if (entry)
	{
		state = entry->state;
		if (state == TDE_CACHE_KEY)
			tde_copy_relation_key(key, &entry->key);
	}
	LWLockRelease(&part->lock);

	pg_atomic_fetch_add_u64(state == TDE_CACHE_EMPTY ?
							&partition_counters(part)->misses :
							&partition_counters(part)->hits, 1);
	return state;
}

/*
 * Keep what was read from a file, unless the partition has changed since.
 */
void
tde_cache_put(const RelFileLocator *locator, TdeCacheState state,
			  const TdeRelationKey *key, uint64 generation)
{
	TdeCachePartition *part = tde_cache_partition(locator);

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u64(&part->generation) == generation)
	{
		store_entry(part, locator, state, key);
		if (state == TDE_CACHE_KEY)
			tde_known_set(locator, TDE_KNOWN_ENCRYPTED);
	}
	LWLockRelease(&part->lock);
}

/*
 * The answer has changed: tell everybody.  Caller holds the partition's lock
 * exclusively since before it changed the file.
 */
void
tde_cache_change(TdeCachePartition *part, const RelFileLocator *locator,
				 TdeCacheState state, const TdeRelationKey *key)
{
	Assert(LWLockHeldByMeInMode(&part->lock, LW_EXCLUSIVE));
	store_entry(part, locator, state, key);
	pg_atomic_fetch_add_u64(&part->generation, 1);
}

/*
 * A relation must not be taken for plain any more.  Caller holds the
 * partition's lock exclusively.
 */
void
tde_cache_distrust_plain(TdeCachePartition *part,
						 const RelFileLocator *locator)
{
	TdeCacheEntry *entry = find_entry(part, locator);

	if (entry == NULL || entry->state == TDE_CACHE_PLAIN)
		tde_cache_change(part, locator, TDE_CACHE_EMPTY, NULL);
}

/*
 * A database is gone, with all of its keys.
 */
void
tde_cache_forget_database(Oid dbOid)
{
	for (int i = 0; i < TDE_CACHE_PARTITIONS; i++)
	{
		TdeCachePartition *part = &partitions[i];

		LWLockAcquire(&part->lock, LW_EXCLUSIVE);
		for (int set = 0; set < TDE_CACHE_SETS; set++)
		{
			for (int way = 0; way < TDE_CACHE_WAYS; way++)
			{
				TdeCacheEntry *entry = &part->entries[set][way];

				if (entry->locator.dbOid == dbOid)
					tde_wipe(entry, sizeof(*entry));
			}
		}
		pg_atomic_fetch_add_u64(&part->generation, 1);
		LWLockRelease(&part->lock);
	}
}

/*
 * How many entries of a partition are in use?
 */
int
tde_cache_count(int partition)
{
	TdeCachePartition *part = &partitions[partition];
	int			n = 0;

	LWLockAcquire(&part->lock, LW_SHARED);
	for (int set = 0; set < TDE_CACHE_SETS; set++)
		for (int i = 0; i < TDE_CACHE_WAYS; i++)
			if (part->entries[set][i].state != TDE_CACHE_EMPTY)
				n++;
	LWLockRelease(&part->lock);
	return n;
}
