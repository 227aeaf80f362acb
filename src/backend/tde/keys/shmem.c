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
#include <sys/stat.h>

#include "key_store.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "tde/settings.h"
#include "tde/smgr.h"
#include "tde/wal.h"

#ifdef EXEC_BACKEND
#error "the key store's mapping is inherited by fork(), which EXEC_BACKEND does without"
#endif

TdeShared  *tde_shared = NULL;
TdeRemovalQueue *tde_removals = NULL;
pg_atomic_uint32 *tde_active_flag = NULL;
bool		tde_preloaded = false;

static size_t shared_size;

/* Is the shared memory that holds keys locked? */
static bool locked = false;

/*
 * How many generations to make room for: for twice those that there are, at a
 * load of 3/4.  They are not counted one by one: the size of a file tells how
 * many it can have.
 */
static int
choose_generation_slots(void)
{
	int			ndatabases;
	Oid		   *databases = tde_list_databases(&ndatabases);
	uint64		n = 0;

	for (int i = 0; i < ndatabases; i++)
	{
		char		path[MAXPGPATH];
		struct stat st;

		tde_scope_path(TDE_SCOPE_DATABASE, databases[i], path);
		if (stat(path, &st) == 0)
			n += st.st_size / TDE_SCOPE_GENERATION_LEN;
	}
	pfree(databases);

	n = Min(n, PG_INT32_MAX / 8);
	return Max(TDE_MIN_GENERATIONS, pg_nextpower2_32(n * 8 / 3 + 1));
}

static void
make_mappings(void)
{
	const char *failed;
	int			slots;

	failed = tde_cipher_self_test();
	if (failed)
		ereport(FATAL,
				(errmsg("self-test of the encryption library failed: %s",
						failed),
				 errhint("The OpenSSL library in use does not compute what it should; do not use it.")));

	slots = choose_generation_slots();
	shared_size = offsetof(TdeShared, generations) +
		sizeof(TdeGenerationSlot) * slots;
	tde_shared = tde_secure_alloc(shared_size, true, &locked);
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

	tde_shared->generation_slots = slots;
	for (int i = 0; i < slots; i++)
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
	return shared_size;
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

	if (!TdeAioShmemInit() || !TdeWalShmemInit())
		locked = false;
	if (!locked)
		ereport(LOG,
				(errmsg("could not lock the memory that holds encryption keys"),
				 errdetail("The keys could be written to swap space."),
				 errhint("Raise the limit of locked memory (\"ulimit -l\", or LimitMEMLOCK in a systemd unit), or encrypt the swap space.")));
}
