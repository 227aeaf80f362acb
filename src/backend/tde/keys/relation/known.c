/*-------------------------------------------------------------------------
 *
 * known.c
 *	  Relations that are known to be encrypted, or to have been.
 *
 * That a relation has no key file does not prove that it is plain: the file
 * may be lost.  Where a page of the relation is on disk, its mark tells.  For
 * a relation whose pages are all in memory, or zeros, this table does: what
 * has had a key while this server runs, or is encrypted by the catalogs as the
 * relation cache of any process has read them, is never taken for plain by
 * any process, until its file number is created anew.  So a key that was
 * removed, or lost, leaves word behind.
 *
 * The table is fixed in size and holds no secrets.  Each set of entries
 * belongs to a partition of the cache of keys and is protected by its lock.
 * Where a set is full, the word of a relation that was dropped makes room; if
 * there is none the new word is not kept, and such a relation is protected as
 * it is by the marks of its pages only.
 *
 * It outlives the reinitialisation of shared memory after a crash: what it
 * says is still true then.  A process that died while it changed an entry
 * leaves an empty one, since the state is written last and erased first.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/known.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relation_internal.h"

#define KNOWN_WAYS		8
#define KNOWN_SETS		8192	/* a partition */

typedef struct KnownEntry
{
	RelFileLocator locator;
	TdeKnownState state;
} KnownEntry;

typedef struct KnownSet
{
	KnownEntry	entries[KNOWN_WAYS];
} KnownSet;

static KnownSet *known_sets = NULL;

void
TdeKnownShmemInit(void)
{
	if (known_sets == NULL)
		known_sets = tde_map_shared(sizeof(KnownSet) * KNOWN_SETS *
									TDE_CACHE_PARTITIONS, false);
}

static KnownSet *
known_set(const RelFileLocator *locator)
{
	uint32		hash = tde_locator_hash(locator);

	return &known_sets[hash % TDE_CACHE_PARTITIONS * KNOWN_SETS +
					   hash / TDE_CACHE_PARTITIONS % KNOWN_SETS];
}

/*
 * What is known of a relation.  Caller holds the lock of its partition.
 */
TdeKnownState
tde_known_get(const RelFileLocator *locator)
{
	KnownSet   *set = known_set(locator);

	for (int i = 0; i < KNOWN_WAYS; i++)
	{
		KnownEntry *entry = &set->entries[i];

		if (entry->state != TDE_KNOWN_NOTHING &&
			RelFileLocatorEquals(entry->locator, *locator))
			return entry->state;
	}
	return TDE_KNOWN_NOTHING;
}

static void
write_entry(KnownEntry *entry, const RelFileLocator *locator,
			TdeKnownState state)
{
	entry->state = TDE_KNOWN_NOTHING;
	pg_write_barrier();
	entry->locator = *locator;
	pg_write_barrier();
	entry->state = state;
}

/*
 * Say what is known of a relation from now on.  Caller holds the lock of its
 * partition exclusively.
 */
void
tde_known_set(const RelFileLocator *locator, TdeKnownState state)
{
	KnownSet   *set = known_set(locator);
	KnownEntry *place = NULL;

	for (int i = 0; i < KNOWN_WAYS; i++)
	{
		KnownEntry *entry = &set->entries[i];

		if (entry->state != TDE_KNOWN_NOTHING &&
			RelFileLocatorEquals(entry->locator, *locator))
		{
			write_entry(entry, locator, state);
			return;
		}
		if (place == NULL || entry->state < place->state)
			place = entry;
	}
	if (state > place->state)
		write_entry(place, locator, state);
}

/*
 * What the list of a database says, entry by entry.  What this server knows of
 * its own counts more.
 */
void
tde_known_list(const RelFileLocator *locator, bool encrypted)
{
	TdeCachePartition *part = tde_cache_partition(locator);
	TdeKnownState known;

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	known = tde_known_get(locator);
	if (known == TDE_KNOWN_NOTHING && encrypted)
		tde_known_set(locator, TDE_KNOWN_LISTED);
	else if (known == TDE_KNOWN_LISTED && !encrypted)
		tde_known_set(locator, TDE_KNOWN_NOTHING);
	LWLockRelease(&part->lock);
}

/*
 * The numbers of a database in a tablespace are given out anew: a database
 * with that OID is about to be made there, and the log, or pg_database, says
 * that there is none.
 */
void
tde_known_forget_database(Oid dbOid, Oid spcOid)
{
	for (int p = 0; p < TDE_CACHE_PARTITIONS; p++)
	{
		TdeCachePartition *part = tde_cache_partition_number(p);

		LWLockAcquire(&part->lock, LW_EXCLUSIVE);
		for (int i = 0; i < KNOWN_SETS; i++)
		{
			KnownEntry *entries = known_sets[p * KNOWN_SETS + i].entries;

			for (int j = 0; j < KNOWN_WAYS; j++)
				if (entries[j].locator.dbOid == dbOid &&
					entries[j].locator.spcOid == spcOid)
					entries[j].state = TDE_KNOWN_NOTHING;
		}
		LWLockRelease(&part->lock);
	}
}
