/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  Counters and the progress of rotations, in shared memory; and what else
 *	  the monitoring views show.
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
 * src/backend/tde/keys/monitor.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "common/string.h"
#include "key_store.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

TdeMonitor *tde_monitor = NULL;

/* This process's place among the rotations, while it does one. */
static TdeRotationProgress *my_rotation = NULL;

/*
 * Called by TdeShmemInit(): make the mapping the first time, empty it.
 */
void
tde_monitor_init(int tranche)
{
	if (tde_monitor == NULL)
	{
		tde_monitor = mmap(NULL, sizeof(TdeMonitor), PROT_READ | PROT_WRITE,
						   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (tde_monitor == MAP_FAILED)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not map shared memory for key statistics: %m")));
	}
	else
		memset(tde_monitor, 0, sizeof(TdeMonitor));

	LWLockInitialize(&tde_monitor->lock, tranche);
	for (int i = 0; i < lengthof(tde_monitor->caches); i++)
	{
		pg_atomic_init_u64(&tde_monitor->caches[i].c.hits, 0);
		pg_atomic_init_u64(&tde_monitor->caches[i].c.misses, 0);
		pg_atomic_init_u64(&tde_monitor->caches[i].c.evictions, 0);
	}
	tde_monitor->reset_time = GetCurrentTimestamp();
}

/* ---- calls to providers ---- */

static TdeCountedProvider *
find_provider(Oid dbOid, int32 provider_id)
{
	for (int i = 0; i < TDE_MAX_COUNTED_PROVIDERS; i++)
	{
		TdeCountedProvider *p = &tde_monitor->providers[i];

		if (p->id == provider_id && p->dbOid == dbOid)
			return p;
	}
	return NULL;
}

/*
 * The place of a provider; if it has none, an unused one, or that of the one
 * whose last call is longest ago.
 */
static TdeCountedProvider *
provider_place(Oid dbOid, int32 provider_id)
{
	TdeCountedProvider *place = find_provider(dbOid, provider_id);

	if (place)
		return place;

	place = &tde_monitor->providers[0];
	for (int i = 0; i < TDE_MAX_COUNTED_PROVIDERS && place->id != 0; i++)
	{
		TdeCountedProvider *p = &tde_monitor->providers[i];

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
	TdeCountedProvider *place;
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

	LWLockAcquire(&tde_monitor->lock, LW_EXCLUSIVE);
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
	LWLockRelease(&tde_monitor->lock);

	if (message)
		pfree(message);
}

/*
 * The providers of a database are gone.
 */
void
tde_forget_provider_calls(Oid dbOid)
{
	LWLockAcquire(&tde_monitor->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TDE_MAX_COUNTED_PROVIDERS; i++)
	{
		TdeCountedProvider *p = &tde_monitor->providers[i];

		if (p->id != 0 && p->dbOid == dbOid)
			memset(p, 0, sizeof(*p));
	}
	LWLockRelease(&tde_monitor->lock);
}

void
TdeGetProviderCounters(Oid dbOid, int32 provider_id,
					   TdeProviderCounters counters[TDE_PROVIDER_OPERATIONS])
{
	TdeCountedProvider *place;

	LWLockAcquire(&tde_monitor->lock, LW_SHARED);
	place = find_provider(dbOid, provider_id);
	if (place)
		memcpy(counters, place->counters, sizeof(place->counters));
	else
		memset(counters, 0,
			   sizeof(TdeProviderCounters) * TDE_PROVIDER_OPERATIONS);
	LWLockRelease(&tde_monitor->lock);
}

/* ---- caches ---- */

/*
 * Read the counters of the relation keys' cache, which has one set a
 * partition, or of another cache.
 */
static void
read_cache_counters(TdeCacheInfo *info, int first, int n)
{
	info->hits = info->misses = info->evictions = 0;
	for (int i = first; i < first + n; i++)
	{
		TdeCacheCounters *c = &tde_monitor->caches[i].c;

		info->hits += pg_atomic_read_u64(&c->hits);
		info->misses += pg_atomic_read_u64(&c->misses);
		info->evictions += pg_atomic_read_u64(&c->evictions);
	}
}

void
TdeGetCaches(TdeCacheInfo caches[TDE_CACHES])
{
	TdeCacheInfo *relations = &caches[0];
	TdeCacheInfo *scopes = &caches[1];
	TdeCacheInfo *generations = &caches[2];
	TdeCacheInfo *principals = &caches[3];
	TdeCacheInfo *removals = &caches[4];

	for (int i = 0; i < TDE_CACHES; i++)
		caches[i] = (TdeCacheInfo) {.hits = -1,.misses = -1,.evictions = -1};

	relations->name = "relation_keys";
	relations->max_entries = TDE_CACHE_PARTITIONS * TDE_CACHE_SETS *
		TDE_CACHE_WAYS;
	for (int i = 0; i < TDE_CACHE_PARTITIONS; i++)
		relations->entries += tde_cache_count(&tde_shared->partitions[i]);
	read_cache_counters(relations, 0, TDE_CACHE_PARTITIONS);

	LWLockAcquire(&tde_shared->table_lock, LW_SHARED);
	scopes->name = "scopes";
	scopes->entries = tde_shared->nscopes;
	scopes->max_entries = TDE_MAX_SCOPES * 3 / 4;
	generations->name = "scope_keys";
	generations->entries = tde_shared->ngenerations;
	generations->max_entries = tde_max_generations();
	principals->name = "principal_keys";
	principals->max_entries = TDE_MAX_PRINCIPALS;
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
		if (pg_atomic_read_u32(&tde_shared->principals[i].valid))
			principals->entries++;
	LWLockRelease(&tde_shared->table_lock);
	read_cache_counters(principals, TDE_CACHE_PARTITIONS, 1);

	LWLockAcquire(&tde_removals->lock, LW_SHARED);
	removals->name = "key_removals";
	removals->entries = tde_removals->n;
	removals->max_entries = TDE_MAX_REMOVALS;
	LWLockRelease(&tde_removals->lock);
}

void
TdeResetCounters(void)
{
	LWLockAcquire(&tde_monitor->lock, LW_EXCLUSIVE);
	memset(tde_monitor->providers, 0, sizeof(tde_monitor->providers));
	for (int i = 0; i < lengthof(tde_monitor->caches); i++)
	{
		pg_atomic_write_u64(&tde_monitor->caches[i].c.hits, 0);
		pg_atomic_write_u64(&tde_monitor->caches[i].c.misses, 0);
		pg_atomic_write_u64(&tde_monitor->caches[i].c.evictions, 0);
	}
	tde_monitor->reset_time = GetCurrentTimestamp();
	LWLockRelease(&tde_monitor->lock);
}

TimestampTz
TdeCountersResetTime(void)
{
	TimestampTz result;

	LWLockAcquire(&tde_monitor->lock, LW_SHARED);
	result = tde_monitor->reset_time;
	LWLockRelease(&tde_monitor->lock);
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
	LWLockAcquire(&tde_monitor->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TDE_MAX_ROTATIONS && my_rotation == NULL; i++)
		if (tde_monitor->rotations[i].pid == 0)
			my_rotation = &tde_monitor->rotations[i];
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
	LWLockRelease(&tde_monitor->lock);
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
	LWLockAcquire(&tde_monitor->lock, LW_EXCLUSIVE);
	my_rotation->pid = 0;
	LWLockRelease(&tde_monitor->lock);
	my_rotation = NULL;
}

int
TdeGetRotations(TdeRotationProgress rotations[TDE_MAX_ROTATIONS])
{
	int			n = 0;

	LWLockAcquire(&tde_monitor->lock, LW_SHARED);
	for (int i = 0; i < TDE_MAX_ROTATIONS; i++)
		if (tde_monitor->rotations[i].pid != 0)
			rotations[n++] = tde_monitor->rotations[i];
	LWLockRelease(&tde_monitor->lock);
	return n;
}

/* ---- keys ---- */

const char *
TdeScopeKindName(TdeScopeKind kind)
{
	switch (kind)
	{
		case TDE_SCOPE_DATABASE:
			return "database";
		case TDE_SCOPE_SERVER:
			return "server";
		case TDE_SCOPE_DEFAULT:
			return "default";
	}
	return "unknown";
}

Oid *
TdeListDatabases(int *n)
{
	Oid		   *databases = tde_list_databases(n);
	Oid		   *result = palloc(sizeof(Oid) * (*n + 1));

	result[0] = InvalidOid;
	memcpy(result + 1, databases, sizeof(Oid) * *n);
	pfree(databases);
	(*n)++;
	return result;
}

bool
TdeGetPrincipalDetails(TdeScopeKind kind, Oid dbOid, TdePrincipalInfo *info,
					   char **problem)
{
	char		reason[256];
	TdeScope   *scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));

	*problem = NULL;
	if (scope == NULL)
	{
		if (reason[0] != '\0')
		{
			char		path[MAXPGPATH];

			tde_scope_path(kind, dbOid, path);
			*problem = psprintf(_("could not use key file \"%s\": %s"),
								path, reason);
		}
		return false;
	}
	if (tde_scope_is_over(scope))
	{
		tde_scope_free(scope);
		return false;
	}

	info->ref = scope->principal;
	info->follows_default = scope->follows_default;
	info->retired = scope->retired;
	info->generations = scope->ngenerations;
	info->last_generation = scope->generations[scope->ngenerations - 1].created;
	info->resident = tde_scope_is_resident(scope);
	tde_scope_free(scope);
	return true;
}

TdeKeyStatus
TdeGetKeyStatus(const RelFileLocator *rlocator, TdeCipher *cipher,
				uint64 *created, char **problem)
{
	TdeKey		key;
	char		reason[256];
	char		path[MAXPGPATH];

	*problem = NULL;
	if (!TdeIsActive() || !OidIsValid(rlocator->dbOid))
		return TDE_STATUS_PLAIN;

	switch (tde_key_file_read(rlocator, &key, false, reason, sizeof(reason)))
	{
		case TDE_KEYFILE_OK:
			*cipher = key.cipher;
			*created = key.created;
			return TDE_STATUS_ENCRYPTED;
		case TDE_KEYFILE_NONE:
			if (!tde_data_file_is_marked(rlocator))
				return TDE_STATUS_PLAIN;
			strlcpy(reason, _("the file does not exist"), sizeof(reason));
			break;
		case TDE_KEYFILE_BAD:
			break;
	}
	tde_key_path(rlocator, path);
	*problem = psprintf(_("Key file \"%s\": %s."), path, reason);
	return TDE_STATUS_LOST;
}
