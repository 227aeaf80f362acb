/*-------------------------------------------------------------------------
 *
 * monitor.h
 *	  What the server tells about keys and their providers: counters of calls
 *	  to providers and of the key caches, progress of a rotation, and what is
 *	  set and encrypted.  For the views of the extension.
 *
 * All functions here are for a backend with a database.  They check no
 * privileges, never return key material or options of a provider, and ask no
 * provider.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/monitor.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_MONITOR_H
#define TDE_MONITOR_H

#include "datatype/timestamp.h"
#include "storage/relfilelocator.h"
#include "tde/cipher.h"
#include "tde/provider.h"

/* ---- calls to providers ---- */

typedef enum TdeProviderOperation
{
	TDE_PROVIDER_VALIDATE,		/* can it be reached and used? */
	TDE_PROVIDER_FETCH,			/* get a principal key */
	TDE_PROVIDER_CREATE,		/* make a principal key */
	TDE_PROVIDER_CHECK,			/* ask for the state of a principal key */
} TdeProviderOperation;

#define TDE_PROVIDER_OPERATIONS	(TDE_PROVIDER_CHECK + 1)

/* "validate", ... */
extern const char *TdeProviderOperationName(TdeProviderOperation operation);

#define TDE_LAST_ERROR_LEN	256

typedef struct TdeProviderCounters
{
	int64		calls;
	int64		failures;
	int64		total_time;		/* microseconds, of all calls */
	int64		max_time;		/* of the longest */
	TimestampTz last_success;	/* 0: never */
	TimestampTz last_failure;
	char		last_error[TDE_LAST_ERROR_LEN]; /* ASCII; "": never */
} TdeProviderCounters;

/*
 * Counters of a provider since the last reset, one for each operation; zeros
 * if it was not called.  dbOid is that of its list, InvalidOid for the global
 * one.
 */
extern void TdeGetProviderCounters(Oid dbOid, int32 provider_id,
								   TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS]);

/* ---- what the server keeps in memory ---- */

typedef struct TdeCacheInfo
{
	const char *name;
	int64		entries;
	int64		max_entries;	/* -1: none */
	int64		hits;			/* -1: not counted */
	int64		misses;
	int64		evictions;
} TdeCacheInfo;

#define TDE_CACHES	5

extern void TdeGetCaches(TdeCacheInfo caches[TDE_CACHES]);

/*
 * The memory that holds keys.
 */
typedef struct TdeKeyMemory
{
	size_t		size;			/* bytes that this process has, shared ones
								 * included */
	bool		locked;			/* all of it, in all processes */
	uint32		unlocked_processes; /* that could not lock all of theirs,
									 * since the server started */
} TdeKeyMemory;

extern void TdeGetKeyMemory(TdeKeyMemory *memory);

/*
 * To be called where this process may have got memory for keys: counts it if
 * it could not lock all that it has, and says so if it is the first of all
 * (initdb is not bothered with that).
 */
extern void TdeNoteUnlockedMemory(void);

/* ---- resetting ---- */

extern void TdeResetCounters(void);
extern TimestampTz TdeCountersResetTime(void);

/* ---- rotation ---- */

typedef enum TdeRotationPhase
{
	TDE_ROTATION_FETCHING,		/* waiting for the provider */
	TDE_ROTATION_WAITING,		/* for another change of keys */
	TDE_ROTATION_WRAPPING,		/* scope keys, in memory */
	TDE_ROTATION_WRITING,		/* new files beside the old ones */
	TDE_ROTATION_LOGGING,		/* one WAL record */
	TDE_ROTATION_INSTALLING,	/* new files in place of the old ones */
} TdeRotationPhase;

typedef struct TdeRotationProgress
{
	int			pid;			/* 0: unused */
	Oid			datid;			/* the database that it is connected to */
	TdeScopeKind kind;
	TdeRotationPhase phase;
	int			total;			/* scopes to change; 0: not known yet */
	int			done;			/* of them, in this phase */
	TimestampTz started;
	char		key_name[TDE_MAX_KEY_NAME + 1];
	char		provider_name[TDE_MAX_PROVIDER_NAME + 1];
} TdeRotationProgress;

/* At most so many are shown; any more run unseen. */
#define TDE_MAX_ROTATIONS	16

extern int	TdeGetRotations(TdeRotationProgress rotations[TDE_MAX_ROTATIONS]);

/* ---- keys ---- */

/*
 * The databases that have providers or keys of their own, with InvalidOid,
 * which stands for the server, in front; palloc'd.
 */
extern Oid *TdeListDatabases(int *n);

typedef struct TdePrincipalInfo
{
	TdePrincipalRef ref;
	bool		follows_default;
	bool		retired;		/* not set any more, old keys need it still */
	int			generations;	/* of the scope key */
	uint64		last_generation;	/* when it began, microseconds since 1970 */
	bool		resident;		/* the scope keys are in memory */
} TdePrincipalInfo;

/*
 * The principal key of a scope that has one of its own or follows the default
 * key.  False if there is none.  *problem says, palloc'd, what is wrong, also
 * with one that there is; NULL if nothing is.
 */
extern bool TdeGetPrincipalDetails(TdeScopeKind kind, Oid dbOid,
								   TdePrincipalInfo *info, char **problem);

/* A list of providers; NULL, and a palloc'd reason, if it is damaged. */
extern TdeProviderList *TdeTryGetProviders(Oid dbOid, char **problem);

/*
 * What is known of a relation's key without using it: one small file is
 * looked for, caches are left alone.  Not for temporary relations.
 */
typedef enum TdeKeyStatus
{
	TDE_STATUS_PLAIN,
	TDE_STATUS_ENCRYPTED,
	TDE_STATUS_LOST,			/* encrypted, and the key cannot be used */
} TdeKeyStatus;

extern TdeKeyStatus TdeGetKeyStatus(const RelFileLocator *rlocator,
									TdeCipher *cipher, uint64 *created,
									char **problem);

#endif							/* TDE_MONITOR_H */
