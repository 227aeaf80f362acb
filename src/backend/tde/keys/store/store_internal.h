/*-------------------------------------------------------------------------
 *
 * store_internal.h
 *	  The lowest layer of the key store: its files, memory for keys, the lock
 *	  and flag of the whole store, counters.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/store_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORE_INTERNAL_H
#define TDE_STORE_INTERNAL_H

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "tde/keyring.h"
#include "tde/keys.h"
#include "tde/monitor.h"
#include "tde/store.h"

/* ---- the store as a whole (store.c) ---- */

/*
 * Why relations may be encrypted: there is a key store; or WAL is replayed
 * without one, and it remains to be seen whether it got lost.
 */
#define TDE_ACTIVE				0x01
#define TDE_ACTIVE_RECOVERY		0x02

typedef struct TdeStoreShared
{
	pg_atomic_uint32 active;	/* of these; 0: all relations are plain */

	/* those that could not lock their memory for keys, since the start */
	pg_atomic_uint32 unlocked_processes;

	/*
	 * Serialises changes of providers and scopes and is held over file I/O;
	 * nothing that creates or uses a relation waits for it.  The first lock of
	 * the key store to take.
	 */
	LWLock		lock;

	/*
	 * Held shared while a key of a relation is drawn and installed, and
	 * exclusively while a principal key is taken from a scope.  Who holds
	 * "lock" asks for it only conditionally: who holds it may have to wait for
	 * the checkpointer, which may wait for "lock".
	 */
	LWLock		creation_lock;

	/* keys that the checkpointer has begun to remove and not removed yet */
	pg_atomic_uint64 removals;
} TdeStoreShared;

extern TdeStoreShared *tde_store;

extern void TdeStoreShmemInit(int tranche);
extern void *tde_map_shared(size_t size, bool secret);
extern uint64 tde_now(void);
extern void tde_checkpoint_removals(void);

/* ---- files (files.c) ---- */

extern void tde_make_directory(Oid dbOid);
extern void tde_store_report(int elevel, const TdeStoreProblem *problem);
extern uint8 *tde_read_file(const char *path, size_t *len);
extern void tde_write_temp_file(const char *path, const uint8 *data,
								size_t len, bool durable);
extern void tde_rename_temp_file(const char *path, int elevel);
extern void tde_sync_temp_file(const char *path);
extern void tde_move_temp_file(const char *path, int elevel);
extern void tde_sync_directory_of(const char *path, int elevel);
extern void tde_remove_temp_file(const char *path);

/* ---- what there is (listing.c) ---- */

extern Oid *tde_list_databases(int *n);
extern void tde_list_key_files(Oid dbOid,
							   void (*callback) (const RelFileLocator *, void *),
							   void *arg);
extern bool tde_database_has_keys(Oid dbOid);

/* ---- memory for keys (memory.c) ---- */

/* For who walks through keys; they are not to be copied. */
typedef void (*TdeKeyCallback) (const char *name, const uint8 *key, int len,
								void *arg);

/* ---- counters and progress (counters.c) ---- */

typedef struct TdeCacheCounters
{
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;
	pg_atomic_uint64 evictions;
} TdeCacheCounters;

/* One for each partition of the cache of internal keys; principal keys. */
#define TDE_CACHE_PARTITIONS	16
#define TDE_PRINCIPAL_COUNTERS	TDE_CACHE_PARTITIONS
#define TDE_COUNTED_CACHES		(TDE_CACHE_PARTITIONS + 1)

extern void TdeCountersShmemInit(int tranche);
extern TdeCacheCounters *tde_cache_counters(int cache);
extern void tde_count_provider_call(Oid dbOid, int32 provider_id,
									TdeProviderOperation operation,
									int64 elapsed,
									const TdeKeyringError *error);
extern void tde_forget_provider_calls(Oid dbOid);
extern void tde_rotation_begin(TdeScopeKind kind, const char *key_name,
							   const char *provider_name);
extern void tde_rotation_phase(TdeRotationPhase phase, int total);
extern void tde_rotation_advance(void);
extern void tde_rotation_end(int code, Datum arg);

#endif							/* TDE_STORE_INTERNAL_H */
