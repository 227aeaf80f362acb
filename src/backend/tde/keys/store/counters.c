/*-------------------------------------------------------------------------
 *
 * counters.c
 *	  Counters of calls to key providers and of the key caches, and the progress
 *	  of rotations, in shared memory.
 *
 * Nothing here is secret or durable: the mapping is ordinary memory outside
 * the main segment, counts from the start of the server, and begins anew when
 * that is reinitialised.
 *
 * What is counted costs nothing where pages are read and written: a process
 * that finds a key in its own table counts nothing.  The shared cache is
 * asked only where that failed, under a lock; each of its partitions counts
 * in a cache line of its own, away from the generation counter that every
 * process reads.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/counters.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/string.h"
#include "miscadmin.h"
#include "store_internal.h"
#include "utils/timestamp.h"

typedef struct CountedProvider
{
	Oid			dbOid;
	int32		id;				/* 0: unused */
	TimestampTz last_call;
	TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS];
} CountedProvider;

typedef union PaddedCacheCounters
{
	TdeCacheCounters c;
	char		pad[PG_CACHE_LINE_SIZE];
} PaddedCacheCounters;

#define MAX_COUNTED_PROVIDERS	1024

/*
 * "lock" protects all but the counters of caches; it is the last one to take.
 */
typedef struct CountersShared
{
	PaddedCacheCounters caches[TDE_COUNTED_CACHES];
	LWLock		lock;
	TimestampTz reset_time;
	TdeRotationProgress rotations[TDE_MAX_ROTATIONS];
	CountedProvider providers[MAX_COUNTED_PROVIDERS];
} CountersShared;

static CountersShared *counters_shared = NULL;

/* This process's place among the rotations, while it does one. */
static TdeRotationProgress *my_rotation = NULL;

/*
 * Make the mapping the first time, empty it.
 */
void
TdeCountersShmemInit(int tranche)
{
	if (counters_shared == NULL)
		counters_shared = tde_map_shared(sizeof(CountersShared), false);
	else
		memset(counters_shared, 0, sizeof(CountersShared));

	LWLockInitialize(&counters_shared->lock, tranche);
	for (int i = 0; i < TDE_COUNTED_CACHES; i++)
	{
		TdeCacheCounters *c = tde_cache_counters(i);

		pg_atomic_init_u64(&c->hits, 0);
		pg_atomic_init_u64(&c->misses, 0);
		pg_atomic_init_u64(&c->evictions, 0);
	}
	counters_shared->reset_time = GetCurrentTimestamp();
}

/* ---- caches ---- */

TdeCacheCounters *
tde_cache_counters(int cache)
{
	return &counters_shared->caches[cache].c;
}

/* ---- calls to providers ---- */

static CountedProvider *
find_provider(Oid dbOid, int32 provider_id)
{
	for (int i = 0; i < MAX_COUNTED_PROVIDERS; i++)
	{
		CountedProvider *p = &counters_shared->providers[i];

		if (p->id == provider_id && p->dbOid == dbOid)
			return p;
	}
	return NULL;
}

/*
 * The place of a provider; if it has none, an unused one, or that of the one
 * whose last call is longest ago.
 */
static CountedProvider *
provider_place(Oid dbOid, int32 provider_id)
{
	CountedProvider *place = find_provider(dbOid, provider_id);

	if (place)
		return place;

	place = &counters_shared->providers[0];
	for (int i = 0; i < MAX_COUNTED_PROVIDERS && place->id != 0; i++)
	{
		CountedProvider *p = &counters_shared->providers[i];

		if (p->id == 0 || p->last_call < place->last_call)
			place = p;
	}
	memset(place, 0, sizeof(*place));
	place->dbOid = dbOid;
	place->id = provider_id;
	return place;
}

void
tde_count_provider_call(Oid dbOid, int32 provider_id,
						TdeProviderOperation operation, int64 elapsed,
						const TdeKeyringError *error)
{
	TimestampTz now = GetCurrentTimestamp();
	CountedProvider *place;
	TdeProviderCounters *c;
	char	   *message = NULL;

	if (provider_id == 0)
		return;

	/* sessions may have different encodings: all can show ASCII */
	if (error->status != TDE_KEYRING_OK)
	{
		char	   *text = psprintf(error->detail[0] ? "%s: %s" : "%s",
									error->message, error->detail);

		message = pg_clean_ascii(text, 0);
		pfree(text);
	}

	LWLockAcquire(&counters_shared->lock, LW_EXCLUSIVE);
	place = provider_place(dbOid, provider_id);
	place->last_call = now;
	c = &place->counters[operation];
	c->calls++;
	c->total_time += elapsed;
	c->max_time = Max(c->max_time, elapsed);
	if (message == NULL)
		c->last_success = now;
	else
	{
		c->failures++;
		c->last_failure = now;
		strlcpy(c->last_error, message, sizeof(c->last_error));
	}
	LWLockRelease(&counters_shared->lock);

	if (message)
		pfree(message);
}

/*
 * The providers of a database are gone.
 */
void
tde_forget_provider_calls(Oid dbOid)
{
	LWLockAcquire(&counters_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_COUNTED_PROVIDERS; i++)
	{
		CountedProvider *p = &counters_shared->providers[i];

		if (p->id != 0 && p->dbOid == dbOid)
			memset(p, 0, sizeof(*p));
	}
	LWLockRelease(&counters_shared->lock);
}

void
TdeGetProviderCounters(Oid dbOid, int32 provider_id,
					   TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS])
{
	CountedProvider *place;

	LWLockAcquire(&counters_shared->lock, LW_SHARED);
	place = find_provider(dbOid, provider_id);
	if (place)
		memcpy(counters, place->counters, sizeof(place->counters));
	else
		memset(counters, 0,
			   sizeof(TdeProviderCounters) * TDE_PROVIDER_OPERATIONS);
	LWLockRelease(&counters_shared->lock);
}

/* ---- resetting ---- */

void
TdeResetCounters(void)
{
	LWLockAcquire(&counters_shared->lock, LW_EXCLUSIVE);
	memset(counters_shared->providers, 0, sizeof(counters_shared->providers));
	for (int i = 0; i < TDE_COUNTED_CACHES; i++)
	{
		pg_atomic_write_u64(&tde_cache_counters(i)->hits, 0);
		pg_atomic_write_u64(&tde_cache_counters(i)->misses, 0);
		pg_atomic_write_u64(&tde_cache_counters(i)->evictions, 0);
	}
	counters_shared->reset_time = GetCurrentTimestamp();
	LWLockRelease(&counters_shared->lock);
}

TimestampTz
TdeCountersResetTime(void)
{
	TimestampTz result;

	LWLockAcquire(&counters_shared->lock, LW_SHARED);
	result = counters_shared->reset_time;
	LWLockRelease(&counters_shared->lock);
	return result;
}

/* ---- progress of a rotation ---- */

/*
 * A rotation begins in this process.  The caller sees to it that
 * tde_rotation_end() is called however it ends.
 */
void
tde_rotation_begin(TdeScopeKind kind, const char *key_name,
				   const char *provider_name)
{
	LWLockAcquire(&counters_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TDE_MAX_ROTATIONS && my_rotation == NULL; i++)
		if (counters_shared->rotations[i].pid == 0)
			my_rotation = &counters_shared->rotations[i];
	if (my_rotation)
	{
		memset(my_rotation, 0, sizeof(*my_rotation));
		my_rotation->pid = MyProcPid;
		my_rotation->datid = MyDatabaseId;
		my_rotation->kind = kind;
		my_rotation->started = GetCurrentTimestamp();
		strlcpy(my_rotation->key_name, key_name,
				sizeof(my_rotation->key_name));
		strlcpy(my_rotation->provider_name, provider_name,
				sizeof(my_rotation->provider_name));
	}
	LWLockRelease(&counters_shared->lock);
}

/*
 * A phase begins; total is the number of scopes, or 0.  This and the next may
 * be called in a critical section, and where no rotation is going on.
 */
void
tde_rotation_phase(TdeRotationPhase phase, int total)
{
	if (my_rotation == NULL)
		return;
	my_rotation->phase = phase;
	my_rotation->total = total;
	my_rotation->done = 0;
}

void
tde_rotation_advance(void)
{
	if (my_rotation)
		my_rotation->done++;
}

/* May be called again, and at the exit of the process. */
void
tde_rotation_end(int code, Datum arg)
{
	if (my_rotation == NULL)
		return;
	LWLockAcquire(&counters_shared->lock, LW_EXCLUSIVE);
	my_rotation->pid = 0;
	LWLockRelease(&counters_shared->lock);
	my_rotation = NULL;
}

int
TdeGetRotations(TdeRotationProgress rotations[TDE_MAX_ROTATIONS])
{
	int			n = 0;

	LWLockAcquire(&counters_shared->lock, LW_SHARED);
	for (int i = 0; i < TDE_MAX_ROTATIONS; i++)
		if (counters_shared->rotations[i].pid != 0)
			rotations[n++] = counters_shared->rotations[i];
	LWLockRelease(&counters_shared->lock);
	return n;
}
