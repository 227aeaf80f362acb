/*-------------------------------------------------------------------------
 *
 * key_store.h
 *	  What the files of the key store share among themselves.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/key_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEY_STORE_H
#define TDE_KEY_STORE_H

#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "tde/keyring.h"
#include "tde/keys.h"
#include "tde/monitor.h"
#include "tde/paths.h"

/* ---- shared memory (shmem.c) ---- */

/*
 * The cache of internal keys: partitions by hash of the locator, each a few
 * sets of a few ways.  16,384 entries in all.
 */
#define TDE_CACHE_PARTITIONS	16
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

/*
 * Scopes, generations and principal keys: open-addressed tables.  The latter
 * two outlive a reinitialisation of shared memory after a crash, so that it
 * does not need the providers.  An entry of theirs counts while it is marked
 * valid, which is done last and undone first, so a process that dies in the
 * middle leaves no half-made one.
 *
 * The table of generations is the one that grows with time, by one entry for
 * each database at each rotation.  It is made at the start of the server, for
 * twice the generations that there are then.
 */
#define TDE_MAX_SCOPES			8192
#define TDE_MIN_GENERATIONS		32768
#define TDE_MAX_PRINCIPALS		2048

typedef struct TdeScopeSlot
{
	bool		used;
	TdeScopeKind kind;
	Oid			dbOid;
	bool		present;		/* false: dropped, or the file is damaged */
	bool		retired;
	bool		follows_default;
	TdeId		id;
	uint64		change;
	TdeId		current;		/* generation for new keys */
} TdeScopeSlot;

typedef enum TdeGenerationState
{
	TDE_GENERATION_EMPTY = 0,	/* never used: a search ends here */
	TDE_GENERATION_VALID,
	TDE_GENERATION_FORGOTTEN,	/* may be used again */
} TdeGenerationState;

typedef struct TdeGenerationSlot
{
	pg_atomic_uint32 state;		/* a TdeGenerationState */
	TdeId		id;
	uint8		key[TDE_WRAP_KEY_LEN];
} TdeGenerationSlot;

typedef struct TdePrincipalSlot
{
	pg_atomic_uint32 valid;
	Oid			dbOid;			/* InvalidOid for a global provider */
	int32		provider_id;
	char		key_name[TDE_MAX_KEY_NAME + 1];
	TdePrincipalKey key;
} TdePrincipalSlot;

/*
 * Why relations may be encrypted: there is a key store; or WAL is replayed
 * without one, and it remains to be seen whether it got lost.
 */
#define TDE_ACTIVE				0x01
#define TDE_ACTIVE_RECOVERY		0x02

typedef struct TdeShared
{
	pg_atomic_uint32 active;	/* of these; 0: all relations are plain */

	/*
	 * store_lock serialises changes of providers and scopes and is held over
	 * file I/O; nothing that creates or uses a relation waits for it.
	 * table_lock protects the tables below and is held for moments only.
	 * Order: store_lock, then a partition's lock, then table_lock.
	 */
	LWLock		store_lock;
	LWLock		table_lock;

	TdeScopeSlot scopes[TDE_MAX_SCOPES];
	int			nscopes;		/* present ones */
	int			ngenerations;	/* valid ones */
	int			generation_slots;	/* of which 3/4 may be used */
	int			next_principal; /* that makes room for another */
	TdePrincipalSlot principals[TDE_MAX_PRINCIPALS];
	TdeCachePartition partitions[TDE_CACHE_PARTITIONS];

	TdeGenerationSlot generations[FLEXIBLE_ARRAY_MEMBER];
} TdeShared;

extern TdeShared *tde_shared;

/* The queue of removals holds no secrets and is in a mapping of its own. */
#define TDE_MAX_REMOVALS		65536

typedef struct TdeRemoval
{
	RelFileLocator locator;		/* relNumber 0: a whole database */
	TdeId		id;				/* of the key, or of the scope; zeros if the
								 * file is damaged */
	XLogRecPtr	lsn;			/* nothing before it may be replayed again */
	bool		swept;			/* not dropped, but found without a file */
} TdeRemoval;

typedef struct TdeRemovalQueue
{
	LWLock		lock;
	int			n;
	bool		overflowed;
	TdeRemoval	entries[TDE_MAX_REMOVALS];
} TdeRemovalQueue;

extern TdeRemovalQueue *tde_removals;

/*
 * Counters and progress, no secrets, in a mapping of its own too.  "lock"
 * protects all but the counters of caches; it is the last one to take.
 */
typedef struct TdeCountedProvider
{
	Oid			dbOid;
	int32		id;				/* 0: unused */
	TimestampTz last_call;
	TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS];
} TdeCountedProvider;

typedef struct TdeCacheCounters
{
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;
	pg_atomic_uint64 evictions;
} TdeCacheCounters;

typedef union TdeCacheCountersPadded
{
	TdeCacheCounters c;
	char		pad[PG_CACHE_LINE_SIZE];
} TdeCacheCountersPadded;

/* The last of them is for principal keys. */
#define TDE_COUNTED_CACHES		(TDE_CACHE_PARTITIONS + 1)

#define TDE_MAX_COUNTED_PROVIDERS	1024

typedef struct TdeMonitor
{
	TdeCacheCountersPadded caches[TDE_COUNTED_CACHES];
	LWLock		lock;
	TimestampTz reset_time;
	TdeRotationProgress rotations[TDE_MAX_ROTATIONS];
	TdeCountedProvider providers[TDE_MAX_COUNTED_PROVIDERS];
} TdeMonitor;

extern TdeMonitor *tde_monitor;

/* ---- files (files.c) ---- */

extern void tde_make_directory(Oid dbOid);
extern int	tde_read_small_file(const char *path, uint8 *buf, int size);
extern uint8 *tde_read_file(const char *path, size_t *len);
extern void tde_write_temp_file(const char *path, const uint8 *data,
								size_t len, bool durable);
extern void tde_rename_temp_file(const char *path, int elevel);
extern void tde_sync_temp_file(const char *path);
extern void tde_move_temp_file(const char *path, int elevel);
extern void tde_sync_directory_of(const char *path, int elevel);
extern void tde_remove_temp_file(const char *path);

/* ---- memory for keys (secure_palloc.c) ---- */

extern void *tde_secure_palloc(size_t size);
extern void tde_secure_pfree(void *ptr);

/* ---- the cache (cache.c) ---- */

extern TdeCachePartition *tde_cache_partition(const RelFileLocator *locator);
extern TdeCacheState tde_cache_get(const RelFileLocator *locator,
								   TdeRelationKey *key, uint64 *generation);
extern void tde_cache_put(const RelFileLocator *locator, TdeCacheState state,
						  const TdeRelationKey *key, uint64 generation);
extern void tde_cache_change(TdeCachePartition *part,
							 const RelFileLocator *locator,
							 TdeCacheState state, const TdeRelationKey *key);
extern int	tde_cache_count(TdeCachePartition *part);

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
extern void tde_list_key_files(Oid dbOid,
							   void (*callback) (const RelFileLocator *, void *),
							   void *arg);

/* ---- keys of temporary relations (local.c) ---- */

extern void tde_temp_key_create(const RelFileLocator *locator,
								const TdeRelationKey *key);
extern void tde_temp_key_drop(const RelFileLocator *locator);

/* ---- making keys (key_create.c) ---- */

extern uint64 tde_now(void);

extern void tde_log_and_install_keys(const TdeKey *keys, const uint8 *records,
									 int nkeys);

/* ---- tables of scopes and their keys (scope_tables.c) ---- */

extern int	tde_max_generations(void);
extern bool tde_generation_key(const TdeId *id, uint8 *key);
extern void tde_generation_remember(const TdeId *id, const uint8 *key);
extern void tde_generations_forget(const TdeScope *scope);
extern void tde_generations_recount(void);
extern void tde_current_generation(Oid dbOid, TdeId *id, uint8 *key);
extern bool tde_scope_is_present(Oid dbOid);
extern void tde_scopes_check_room(TdeScope **scopes, int nscopes);
extern void tde_scope_publish(const TdeScope *scope);
extern void tde_scope_unpublish(TdeScopeKind kind, Oid dbOid);

/* ---- scopes (scopes.c) ---- */

extern TdeScope *tde_scope_new(TdeScopeKind kind, Oid dbOid);
extern void tde_scope_free(TdeScope *scope);
extern void tde_scope_add_generation(TdeScope *scope);
extern TdeScope *tde_scope_parse(const uint8 *data, size_t len,
								 const char **reason);
extern TdeScope *tde_scope_read(TdeScopeKind kind, Oid dbOid,
								char *reason, size_t reason_size);
extern void tde_scope_fill_keys(TdeScope *scope);
extern bool tde_scope_is_resident(const TdeScope *scope);
extern bool tde_scope_make_resident(TdeScope *scope, int elevel);
extern bool tde_database_has_keys(Oid dbOid);
extern bool tde_scope_is_over(const TdeScope *scope);
extern void tde_scope_install(const TdeScope *scope);
extern void tde_scopes_log_and_store(TdeScope **scopes, int nscopes);
extern Oid *tde_list_databases(int *n);

/* ---- changing principal keys (principal.c) ---- */

extern TdeScope *tde_scope_read_for_change(TdeScopeKind kind, Oid dbOid);
extern TdeScope *tde_scope_next_version(TdeScope *scope, TdeScopeKind kind,
										Oid dbOid, const TdePrincipalRef *ref,
										const TdePrincipalKey *key,
										bool follows_default);
extern List *tde_read_followers(void);
extern TdeScope *tde_read_default_scope(Oid dbOid);
extern void tde_scope_principal(TdeScope *scope, TdePrincipalKey *key);
extern TdeScope *tde_lock_with_principal(TdeScope *(*read) (Oid dbOid),
										 Oid dbOid, TdePrincipalKey *key);
extern void tde_scope_follow_default(Oid dbOid);

/* ---- providers and principal keys ---- */

/* A principal key in use, and what for. */
typedef struct TdeUsedPrincipal
{
	Oid			provider_db;
	TdePrincipalRef ref;
	bool		is_default;
	bool		is_server;
	int			ndatabases;
} TdeUsedPrincipal;

extern TdeProvider *tde_find_provider(TdeProviderList *list, const char *name);
extern TdeProvider *tde_find_provider_by_id(TdeProviderList *list, int32 id);
extern bool tde_principal_get(Oid dbOid, const TdePrincipalRef *ref,
							  TdePrincipalKey *key);
extern void tde_principal_remember(Oid dbOid, const TdePrincipalRef *ref,
								   const TdePrincipalKey *key);
extern void tde_principals_forget(Oid dbOid);
extern void tde_principals_forget_unused(void);
extern List *tde_used_principals(void);
extern void tde_require_active(Oid provider_db, const TdeProvider *provider,
							   const char *key_name, TdePrincipalKey *key);
extern void tde_refuse_second_key(Oid provider_db,
								  const TdeProvider *provider,
								  const TdePrincipalRef *ref,
								  TdePrincipalKey *key);
extern bool tde_provider_key_in_use(Oid dbOid, const TdeProvider *provider,
									const char *key_name);
extern bool tde_principal_fetch(Oid dbOid, const TdePrincipalRef *ref,
								TdePrincipalKey *key, int elevel);
extern void tde_provider_wait_reset(void);
extern void tde_providers_install(const TdeProviderList *list,
								  const uint8 *data, size_t len);
extern void tde_providers_log_and_store(TdeProviderList *list);

/* ---- calls to providers (provider_calls.c) ---- */

extern bool tde_call_cancelled(void *arg);
extern int	tde_errdetail_provider(const TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_validate(Oid dbOid,
											  const TdeProvider *provider,
											  const TdeKeyringCall *call,
											  TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_fetch(Oid dbOid,
										   const TdeProvider *provider,
										   const char *key_name,
										   const TdeKeyringCall *call,
										   TdePrincipalKey *key,
										   TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_state(Oid dbOid,
										   const TdeProvider *provider,
										   const char *key_name,
										   const TdeKeyringCall *call,
										   TdePrincipalState *state,
										   TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_create(Oid dbOid,
											const TdeProvider *provider,
											const char *key_name, int keylen,
											const TdeKeyringCall *call,
											TdePrincipalKey *key,
											TdeKeyringError *error);
extern void tde_log_key_change(const char *operation, const TdeScope *scope);

/* ---- counters and progress (monitor.c) ---- */

extern void tde_monitor_init(int tranche);
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

/* ---- removal (removal.c) ---- */

extern void tde_queue_removal(const RelFileLocator *locator, const TdeId *id,
							  XLogRecPtr lsn);
extern void tde_queue_key_removal(const RelFileLocator *locator,
								  XLogRecPtr lsn);
extern bool tde_cancel_database_removal(Oid dbOid, const TdeId *id);
extern void tde_sweep(XLogRecPtr lsn);
extern XLogRecPtr tde_current_lsn(bool isRedo);
extern bool tde_database_exists(Oid dbOid);
extern bool tde_relation_has_file(const RelFileLocator *locator);

#endif							/* TDE_KEY_STORE_H */
