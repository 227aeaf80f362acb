/*-------------------------------------------------------------------------
 *
 * store.c
 *	  The key store as a whole: whether it is in use, its lock, and the
 *	  mappings that its parts keep their tables in.
 *
 * The mappings are made once by the postmaster, outside the main shared memory
 * segment: after a crash of a backend that segment is made anew, and the
 * server must come back without asking a key provider.  What is derived from
 * files (scopes, cached keys) is wiped and filled again then; unwrapped scope
 * keys and principal keys stay.
 *
 * The LWLocks in them take their tranche from the main segment's counter, so
 * that lwlocklist.h, which extensions have compiled in, stays as it is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/latch.h"
#include "store_internal.h"
#include "tde/subsys.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#ifdef EXEC_BACKEND
#error "the key store's mappings are inherited by fork(), which EXEC_BACKEND does without"
#endif

TdeStoreShared *tde_store = NULL;
pg_atomic_uint32 *tde_active_flag = NULL;
bool		tde_preloaded = false;

/*
 * Zeroed memory that all children of this process will share; "secret" is for
 * keys.  FATAL if there is none.
 */
void *
tde_map_shared(size_t size, bool secret)
{
	void	   *ptr;
	bool		locked;

	if (secret)
		ptr = tde_secure_alloc(size, true, &locked);
	else
	{
		ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (ptr == MAP_FAILED)
			ptr = NULL;
	}
	if (ptr == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not map %zu bytes of shared memory for the key store: %m",
						size)));
	return ptr;
}

void
TdeStoreShmemInit(int tranche)
{
	if (tde_store == NULL)
	{
		tde_store = tde_map_shared(sizeof(TdeStoreShared), false);
		pg_atomic_init_u32(&tde_store->active, 0);
		pg_atomic_init_u32(&tde_store->unlocked_processes, 0);
	}
	pg_atomic_init_u64(&tde_store->removals, 0);
	LWLockInitialize(&tde_store->lock, tranche);
	LWLockInitialize(&tde_store->creation_lock, tranche);
	tde_active_flag = &tde_store->active;
}

/*
 * The time that goes into files of the key store: microseconds since 1970.
 */
uint64
tde_now(void)
{
	return (uint64) (GetCurrentTimestamp() +
					 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

/*
 * Take a checkpoint, so that the keys of what was dropped until now go, and
 * wait for that.  A base backup that is running holds them up: then, too, this
 * returns.
 */
void
tde_checkpoint_removals(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("TdeKeyRemoval");
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	while (pg_atomic_read_u64(&tde_store->removals) > 0 && !TdeBackupIsRunning())
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
