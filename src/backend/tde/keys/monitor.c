/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  What the monitoring views show of the key store.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/monitor.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relation/relation_internal.h"
#include "tde/monitor.h"
#include "utils/timestamp.h"

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
		TdeCacheCounters *c = tde_cache_counters(i);

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
		relations->entries += tde_cache_count(i);
	read_cache_counters(relations, 0, TDE_CACHE_PARTITIONS);

	scopes->name = "scopes";
	scopes->entries = tde_scope_count_present();
	scopes->max_entries = TDE_MAX_SCOPES * 3 / 4;
	generations->name = "scope_keys";
	generations->entries = tde_generation_count();
	generations->max_entries = tde_max_generations();
	principals->name = "principal_keys";
	principals->entries = tde_principal_count();
	principals->max_entries = TDE_MAX_PRINCIPALS;
	read_cache_counters(principals, TDE_PRINCIPAL_COUNTERS, 1);

	removals->name = "key_removals";
	removals->max_entries = -1;
	tde_removal_counts(&removals->entries, &removals->evictions);
}

/* ---- keys ---- */

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
	char		why_not[TDE_REASON_LEN];
	TdeScope   *scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));

	*problem = NULL;
	if (scope == NULL)
	{
		if (reason[0] != '\0' ||
			tde_scope_is_lost(kind, dbOid, reason, sizeof(reason)))
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
	if (!info->resident && tde_scope_is_unavailable(kind, dbOid, why_not))
		*problem = pstrdup(why_not);
	else if (kind == TDE_SCOPE_DATABASE && tde_given_up(dbOid) != 0)
		*problem = psprintf(_("relations made before %s were given up in recovery"),
							timestamptz_to_str(time_t_to_timestamptz(tde_given_up(dbOid) / USECS_PER_SEC)));
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
			if (key.created <= tde_relation_given_up(rlocator))
				*problem = pstrdup(_("The relation was given up in recovery."));
			else if (key.created <= tde_given_up(rlocator->dbOid))
				*problem = pstrdup(_("The database was given up in recovery."));
			return TDE_STATUS_ENCRYPTED;
		case TDE_KEYFILE_NONE:
			if (tde_relation_is_plain(rlocator, reason, sizeof(reason)))
				return TDE_STATUS_PLAIN;
			break;
		default:
			break;
	}
	tde_key_path(rlocator, path);
	*problem = psprintf(tde_relation_given_up(rlocator) != 0 ?
						_("Key file \"%s\": %s. The relation was given up in recovery.") :
						_("Key file \"%s\": %s."), path, reason);
	return TDE_STATUS_LOST;
}
