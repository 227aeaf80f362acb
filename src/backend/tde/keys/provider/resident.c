/*-------------------------------------------------------------------------
 *
 * resident.c
 *	  The table in shared memory of the principal keys that the server has.
 *
 * It outlives a reinitialisation of shared memory after a crash, so that this
 * does not need the providers.  An entry counts while it is marked valid, which
 * is done last and undone first, so a process that dies in the middle leaves
 * no half-made one.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/resident.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "provider_internal.h"

typedef struct PrincipalSlot
{
	pg_atomic_uint32 valid;
	Oid			dbOid;			/* InvalidOid for a global provider */
	int32		provider_id;
	TdeId		provider_uuid;
	char		key_name[TDE_MAX_KEY_NAME + 1];
	TdePrincipalKey key;
} PrincipalSlot;

typedef struct ResidentShared
{
	LWLock		lock;			/* held for moments only */
	int			next;			/* that makes room for another */
	PrincipalSlot slots[TDE_MAX_PRINCIPALS];
} ResidentShared;

static ResidentShared *resident_shared = NULL;

/*
 * Make the table the first time.  Later, after a crash, the keys stay.
 */
void
TdeResidentShmemInit(int tranche)
{
	if (resident_shared == NULL)
	{
		resident_shared = tde_map_shared(sizeof(ResidentShared), true);
		for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
			pg_atomic_init_u32(&resident_shared->slots[i].valid, 0);
	}
	LWLockInitialize(&resident_shared->lock, tranche);
}

static PrincipalSlot *
find_principal(Oid dbOid, const TdePrincipalRef *ref)
{
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		PrincipalSlot *slot = &resident_shared->slots[i];

		if (pg_atomic_read_u32(&slot->valid) && slot->dbOid == dbOid &&
			tde_same_provider(slot->provider_id, &slot->provider_uuid,
							  ref->provider_id, &ref->provider_uuid) &&
			strcmp(slot->key_name, ref->key_name) == 0)
			return slot;
	}
	return NULL;
}

static void
wipe_slot(PrincipalSlot *slot)
{
	pg_atomic_write_u32(&slot->valid, 0);
	pg_write_barrier();
	tde_wipe(&slot->key, sizeof(slot->key));
}

/*
 * A principal key that was fetched before.  dbOid is that of the provider's
 * list.
 */
bool
tde_principal_get(Oid dbOid, const TdePrincipalRef *ref, TdePrincipalKey *key)
{
	PrincipalSlot *slot;
	TdeCacheCounters *counters;

	LWLockAcquire(&resident_shared->lock, LW_SHARED);
	slot = find_principal(dbOid, ref);
	if (slot)
		*key = slot->key;
	LWLockRelease(&resident_shared->lock);

	counters = tde_cache_counters(TDE_PRINCIPAL_COUNTERS);
	pg_atomic_fetch_add_u64(slot ? &counters->hits : &counters->misses, 1);
	return slot != NULL;
}

/*
 * Keep a principal key that was found to be right.  It is a convenience: one
 * that had to make room will be fetched again.
 */
void
tde_principal_remember(Oid dbOid, const TdePrincipalRef *ref,
					   const TdePrincipalKey *key)
{
	PrincipalSlot *slot;

	LWLockAcquire(&resident_shared->lock, LW_EXCLUSIVE);
	slot = find_principal(dbOid, ref);
	for (int i = 0; slot == NULL && i < TDE_MAX_PRINCIPALS; i++)
		if (!pg_atomic_read_u32(&resident_shared->slots[i].valid))
			slot = &resident_shared->slots[i];
	if (slot == NULL)
	{
		resident_shared->next =
			(resident_shared->next + 1) % TDE_MAX_PRINCIPALS;
		slot = &resident_shared->slots[resident_shared->next];
		pg_atomic_fetch_add_u64(&tde_cache_counters(TDE_PRINCIPAL_COUNTERS)->evictions,
								1);
	}
	wipe_slot(slot);
	slot->dbOid = dbOid;
	slot->provider_id = ref->provider_id;
	slot->provider_uuid = ref->provider_uuid;
	strlcpy(slot->key_name, ref->key_name, sizeof(slot->key_name));
	slot->key = *key;
	pg_write_barrier();
	pg_atomic_write_u32(&slot->valid, 1);
	LWLockRelease(&resident_shared->lock);
}

/*
 * A database is gone, and its providers with it.  Another one with its OID
 * may come to have a provider of the same number and a key of the same name.
 */
void
tde_principals_forget(Oid dbOid)
{
	LWLockAcquire(&resident_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		PrincipalSlot *slot = &resident_shared->slots[i];

		if (pg_atomic_read_u32(&slot->valid) && slot->dbOid == dbOid)
			wipe_slot(slot);
	}
	LWLockRelease(&resident_shared->lock);

	tde_forget_provider_calls(dbOid);
}

/*
 * Wipe the keys that nobody uses any more; "used" says of each, which the
 * reference names by its provider's number and UUID and its name.
 */
void
tde_principals_forget_unless(bool (*used) (Oid dbOid,
										   const TdePrincipalRef *ref,
										   void *arg),
							 void *arg)
{
	TdePrincipalRef ref = {0};

	/* the lock for a moment each, since others need it for every key */
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		PrincipalSlot *slot = &resident_shared->slots[i];

		if (!pg_atomic_read_u32(&slot->valid))
			continue;
		LWLockAcquire(&resident_shared->lock, LW_EXCLUSIVE);
		ref.provider_id = slot->provider_id;
		ref.provider_uuid = slot->provider_uuid;
		strlcpy(ref.key_name, slot->key_name, sizeof(ref.key_name));
		if (pg_atomic_read_u32(&slot->valid) && !used(slot->dbOid, &ref, arg))
			wipe_slot(slot);
		LWLockRelease(&resident_shared->lock);
	}
}

/*
 * Call back for each of them; see tde_generations_walk().
 */
void
tde_principals_walk(TdeKeyCallback callback, void *arg)
{
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
	{
		PrincipalSlot *slot = &resident_shared->slots[i];

		if (pg_atomic_read_u32(&slot->valid))
			callback(slot->key_name, slot->key.key, slot->key.len, arg);
	}
}

int
tde_principal_count(void)
{
	int			n = 0;

	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
		if (pg_atomic_read_u32(&resident_shared->slots[i].valid))
			n++;
	return n;
}
