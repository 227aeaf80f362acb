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
extern TdeCachePartition *tde_cache_partition(const RelFileLocator *locator);
extern TdeCacheState tde_cache_get(const RelFileLocator *locator,
								   TdeRelationKey *key, uint64 *generation);
extern void tde_cache_put(const RelFileLocator *locator, TdeCacheState state,
						  const TdeRelationKey *key, uint64 generation);
extern void tde_cache_change(TdeCachePartition *part,
							 const RelFileLocator *locator,
							 TdeCacheState state, const TdeRelationKey *key);
extern void tde_cache_forget_database(Oid dbOid);
extern int	tde_cache_count(int partition);

/* ---- key files (key_file.c) ---- */

typedef enum TdeKeyFileStatus
{
	TDE_KEYFILE_NONE,			/* there is none */
	TDE_KEYFILE_OK,
	TDE_KEYFILE_BAD,			/* cannot be used; see reason */
} TdeKeyFileStatus;

extern TdeKeyFileStatus tde_key_file_read(const RelFileLocator *locator,
										  TdeKey *key, bool unwrap,
										  char *reason, size_t reason_size);
extern bool tde_data_file_is_marked(const RelFileLocator *locator);
extern void tde_key_file_install(const TdeKey *key, const uint8 *record);
extern void tde_key_file_forget(const RelFileLocator *locator);
extern void tde_fill_relation_key(const TdeKey *key, TdeRelationKey *out);

/* ---- what a process keeps (look_up.c, temp_keys.c) ---- */

extern const TdeRelationKey *tde_temp_key_find(const RelFileLocator *locator);
extern void tde_temp_key_create(const RelFileLocator *locator,
								const TdeRelationKey *key);
extern void tde_temp_key_drop(const RelFileLocator *locator);

/* ---- making keys (create.c) ---- */

extern void tde_log_and_install_keys(const TdeKey *keys, const uint8 *records,
									 int nkeys);

/* ---- removal (removal.c) ---- */

#define TDE_MAX_REMOVALS		65536

extern void TdeRemovalShmemInit(int tranche);
extern int	tde_removal_count(void);
extern void tde_queue_removal(const RelFileLocator *locator, const TdeId *id,
							  XLogRecPtr lsn);
extern void tde_queue_key_removal(const RelFileLocator *locator,
								  XLogRecPtr lsn);
extern bool tde_cancel_database_removal(Oid dbOid, const TdeId *id);
extern void tde_sweep(XLogRecPtr lsn);
extern XLogRecPtr tde_current_lsn(bool isRedo);
extern bool tde_database_exists(Oid dbOid);
extern bool tde_relation_has_file(const RelFileLocator *locator);

#endif							/* TDE_RELATION_INTERNAL_H */
