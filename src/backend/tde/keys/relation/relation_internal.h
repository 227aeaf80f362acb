/*-------------------------------------------------------------------------
 *
 * relation_internal.h
 *	  Internal keys of relations: looked up, made, copied with a database,
 *	  removed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/relation_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_RELATION_INTERNAL_H
#define TDE_RELATION_INTERNAL_H

#include "../principal/principal_internal.h"

/* ---- the shared cache (cache.c) ---- */

/*
 * The cache of internal keys: partitions by hash of the locator, each a few
 * sets of a few ways.  16,384 entries in all.
 */
#define TDE_CACHE_SETS			128
#define TDE_CACHE_WAYS			8

typedef enum TdeCacheState
{
	TDE_CACHE_EMPTY = 0,
	TDE_CACHE_PLAIN,
	TDE_CACHE_KEY,
} TdeCacheState;

typedef struct TdeCacheEntry
{
	RelFileLocator locator;
	TdeCacheState state;
	TdeRelationKey key;
} TdeCacheEntry;

typedef struct TdeCachePartition
{
	LWLock		lock;			/* entries; and key files being replaced */
	pg_atomic_uint64 generation;	/* moves when an answer may have changed */
	uint32		next_victim;
	TdeCacheEntry entries[TDE_CACHE_SETS][TDE_CACHE_WAYS];
} TdeCachePartition;

extern void TdeCacheShmemInit(int tranche);
extern uint32 tde_locator_hash(const RelFileLocator *locator);
extern TdeCachePartition *tde_cache_partition_number(int partition);
extern TdeCachePartition *tde_cache_partition(const RelFileLocator *locator);
extern TdeCacheState tde_cache_get(const RelFileLocator *locator,
								   TdeRelationKey *key, uint64 *generation);
extern void tde_cache_put(const RelFileLocator *locator, TdeCacheState state,
						  const TdeRelationKey *key, uint64 generation);
extern void tde_cache_change(TdeCachePartition *part,
							 const RelFileLocator *locator,
							 TdeCacheState state, const TdeRelationKey *key);
extern void tde_cache_distrust_plain(TdeCachePartition *part,
									 const RelFileLocator *locator);
extern void tde_cache_forget_database(Oid dbOid);
extern int	tde_cache_count(int partition);

/* ---- what is known without a key file (known.c) ---- */

/* In the order in which one makes room for another. */
typedef enum TdeKnownState
{
	TDE_KNOWN_NOTHING = 0,
	TDE_KNOWN_REMOVED,			/* was encrypted and dropped; key is gone */
	TDE_KNOWN_LISTED,			/* had a key when the server was stopped */
	TDE_KNOWN_ENCRYPTED,
} TdeKnownState;

extern void TdeKnownShmemInit(void);
extern TdeKnownState tde_known_get(const RelFileLocator *locator);
extern void tde_known_set(const RelFileLocator *locator, TdeKnownState state);
extern void tde_known_list(const RelFileLocator *locator, bool encrypted);
extern void tde_known_forget_database(Oid dbOid, Oid spcOid);

/* ---- what had a key before the server was started (registry.c) ---- */

extern void TdeRegistryShmemInit(int tranche);
/* What is said of a relation, as it stands in the file. */
typedef enum TdeRegistryWord
{
	TDE_WORD_REMOVED = 0,		/* had a key, and was dropped */
	TDE_WORD_ENCRYPTED = 1,		/* has a key */
	TDE_WORD_PLAIN = 2,			/* the number was given to a plain one */
} TdeRegistryWord;

extern bool tde_registry_append(const RelFileLocator *locator,
								TdeRegistryWord word);
extern void tde_registry_load(Oid dbOid);
extern TdeRegistryWord tde_registry_word(const RelFileLocator *locator);
extern void tde_registry_compact(Oid dbOid);

/* ---- key files (key_file.c) ---- */

typedef enum TdeKeyFileStatus
{
	TDE_KEYFILE_NONE,			/* there is none */
	TDE_KEYFILE_OK,
	TDE_KEYFILE_BAD,			/* cannot be used; see reason */
	TDE_KEYFILE_UNAVAILABLE,	/* its scope key cannot be had; see reason */
	TDE_KEYFILE_GIVEN_UP,		/* in recovery, or its database */
} TdeKeyFileStatus;

extern TdeKeyFileStatus tde_key_file_read(const RelFileLocator *locator,
										  TdeKey *key, bool unwrap,
										  char *reason, size_t reason_size);
extern TdeDataFileMark tde_data_file_mark(const RelFileLocator *locator);
extern void tde_key_file_install(const TdeKey *key, const uint8 *record);
extern void tde_key_file_forget(const RelFileLocator *locator);
extern void tde_fill_relation_key(const TdeKey *key, TdeRelationKey *out);

/* ---- what a process keeps (look_up.c, temp_keys.c) ---- */

extern bool tde_relation_is_plain(const RelFileLocator *locator, char *reason,
								  size_t reason_size);
extern const TdeRelationKey *tde_temp_key_find(const RelFileLocator *locator,
											   bool *lost);
extern void tde_temp_key_expect(const RelFileLocator *locator);
extern void tde_temp_key_create(const RelFileLocator *locator,
								const TdeRelationKey *key);
extern void tde_temp_key_drop(const RelFileLocator *locator);

/* ---- making keys (create.c) ---- */

extern void tde_begin_key_creation(Oid dbOid);
extern void tde_end_key_creation(void);
extern void tde_draw_key(const RelFileLocator *locator, TdeCipher cipher,
						 const TdeId *id, TdeKey *key, uint8 *record);
extern void tde_log_and_install_keys(const TdeKey *keys, const uint8 *records,
									 int nkeys);

/* ---- removal (removal.c, removal_queue.c) ---- */

/* What is known from the log to have been dropped. */
typedef struct TdeRemoval
{
	RelFileLocator locator;		/* relNumber 0: a whole database */
	TdeId		id;				/* of the key, or of the scope; zeros if the
								 * file is damaged, or there is no scope */
	XLogRecPtr	lsn;			/* nothing before it may be replayed again */
} TdeRemoval;

extern void TdeRemovalShmemInit(int tranche);
extern void tde_queue_removal(const TdeRemoval *removal);
extern bool tde_cancel_database_removal(Oid dbOid, const TdeId *id);
extern TdeRemoval *tde_removals_take_spilled(XLogRecPtr redo, int *n);
extern TdeRemoval *tde_removals_take(XLogRecPtr redo, int *n);
extern void tde_count_removed(void);
extern void tde_removal_counts(int64 *waiting, int64 *removed);
extern bool tde_removal_is_queued(const RelFileLocator *locator);
extern void tde_queue_key_removal(const RelFileLocator *locator,
								  XLogRecPtr lsn);
extern XLogRecPtr tde_current_lsn(bool isRedo);
extern bool tde_data_file_is_gone(const RelFileLocator *locator);

#endif							/* TDE_RELATION_INTERNAL_H */
