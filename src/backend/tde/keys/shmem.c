/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  The shared mapping of the key store.
 *
 * The mapping is made once by the postmaster, outside the main shared memory
 * segment: after a crash of a backend that segment is made anew, and the
 * server must come back without asking a key provider.  What is derived from
 * files (scopes, cached keys) is wiped and filled again then; unwrapped scope
 * keys and principal keys stay.
 *
 * The LWLocks in it take their tranche from the main segment's counter, so
 * that lwlocklist.h, which extensions have compiled in, stays as it is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/shmem.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "key_store.h"
#include "miscadmin.h"
#include "tde/settings.h"
#include "tde/smgr.h"

#ifdef EXEC_BACKEND
#error "the key store's mapping is inherited by fork(), which EXEC_BACKEND does without"
#endif

TdeShared  *tde_shared = NULL;
TdeRemovalQueue *tde_removals = NULL;
pg_atomic_uint32 *tde_active_flag = NULL;
bool		tde_preloaded = false;

/* Is the shared memory that holds keys locked? */
static bool locked = false;

static void
make_mappings(void)
{
	const char *failed;

	failed = tde_cipher_self_test();
	if (failed)
		ereport(FATAL,
				(errmsg("self-test of the encryption library failed: %s",
						failed),
				 errhint("The OpenSSL library in use does not compute what it should; do not use it.")));

	tde_shared = tde_secure_alloc(sizeof(TdeShared), true, &locked);
	if (tde_shared == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map shared memory for encryption keys: %m")));

	tde_removals = mmap(NULL, sizeof(TdeRemovalQueue), PROT_READ | PROT_WRITE,
						MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tde_removals == MAP_FAILED)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map shared memory for the removal of encryption keys: %m")));

	for (int i = 0; i < TDE_MAX_GENERATIONS; i++)
		pg_atomic_init_u32(&tde_shared->generations[i].state,
						   TDE_GENERATION_EMPTY);
	for (int i = 0; i < TDE_MAX_PRINCIPALS; i++)
		pg_atomic_init_u32(&tde_shared->principals[i].valid, 0);
	pg_atomic_init_u32(&tde_shared->active, 0);
}

size_t
TdeGetKeyMemory(bool *is_locked)
{
	*is_locked = locked;
	return sizeof(TdeShared);
}

void
TdeShmemInit(void)
{
	int			tranche;

	TdeLockMemory();

	if (tde_shared == NULL)
		make_mappings();

	tranche = LWLockNewTrancheId();
	LWLockRegisterTranche(tranche, "TdeKeyStore");

	LWLockInitialize(&tde_shared->store_lock, tranche);
	LWLockInitialize(&tde_shared->table_lock, tranche);

	/* What is read from files is read again by the startup process. */
	memset(tde_shared->scopes, 0, sizeof(tde_shared->scopes));
	tde_shared->nscopes = 0;
	tde_generations_recount();
	for (int i = 0; i < TDE_CACHE_PARTITIONS; i++)
	{
		TdeCachePartition *part = &tde_shared->partitions[i];

		tde_wipe(part, sizeof(*part));
		LWLockInitialize(&part->lock, tranche);
		pg_atomic_init_u64(&part->generation, 1);
	}

	LWLockInitialize(&tde_removals->lock, tranche);
	tde_removals->n = 0;
	tde_removals->overflowed = false;

	tde_monitor_init(tranche);

	tde_active_flag = &tde_shared->active;

	if (!TdeAioShmemInit())
		locked = false;
	if (!locked)
		ereport(LOG,
				(errmsg("could not lock the memory that holds encryption keys"),
				 errdetail("The keys could be written to swap space."),
				 errhint("Raise the limit of locked memory (\"ulimit -l\", or LimitMEMLOCK in a systemd unit), or encrypt the swap space.")));
}
