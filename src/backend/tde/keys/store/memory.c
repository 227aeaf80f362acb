/*-------------------------------------------------------------------------
 *
 * memory.c
 *	  Memory for keys that goes with a memory context; and whether all such
 *	  memory is locked.
 *
 * Whoever holds a key while an error can be raised needs memory that is wiped
 * then, too.  A block made here is one of tde_secure_alloc(), so it is locked
 * and no part of a core dump.  It hangs on a memory context of its own, below
 * the current one, whose end is the block's.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/memory.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>

#include "miscadmin.h"
#include "store_internal.h"
#include "utils/memutils.h"

void
TdeNoteUnlockedMemory(void)
{
	static pid_t noted_by = 0;	/* children inherit it */
	bool		locked;
	size_t		size = tde_secure_size(&locked);
	struct rlimit limit;
	bool		known;

	if (likely(locked) || noted_by == MyProcPid)
		return;
	noted_by = MyProcPid;
	if (pg_atomic_fetch_add_u32(&tde_store->unlocked_processes, 1) != 0 ||
		!IsPostmasterEnvironment)
		return;

	known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
		limit.rlim_cur != RLIM_INFINITY;
	ereport(LOG,
			(errmsg("could not lock the memory that holds encryption keys"),
			 known ?
			 errdetail("The keys could be written to swap space. A process has at least %zu kB of such memory, and may lock at most %zu kB.",
					   (size + 1023) / 1024, (size_t) limit.rlim_cur / 1024) :
			 errdetail("The keys could be written to swap space."),
			 errhint("Raise the limit of locked memory (\"ulimit -l\", or LimitMEMLOCK in a systemd unit), or encrypt the swap space.")));
}

void
TdeGetKeyMemory(TdeKeyMemory *memory)
{
	TdeNoteUnlockedMemory();
	memory->size = tde_secure_size(&memory->locked);
	memory->unlocked_processes =
		pg_atomic_read_u32(&tde_store->unlocked_processes);
	if (memory->unlocked_processes > 0)
		memory->locked = false;
}

/* What a block begins with. */
typedef struct SecureHeader
{
	MemoryContext context;
	size_t		size;			/* of all of it */
} SecureHeader;

static void
free_block(void *arg)
{
	SecureHeader *header = arg;

	tde_secure_free(header, header->size);
}

/*
 * Zeroed memory for keys, until tde_secure_pfree() or the end of the current
 * memory context.
 */
void *
tde_secure_palloc(size_t size)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "key",
												  ALLOCSET_SMALL_SIZES);
	MemoryContextCallback *callback;
	SecureHeader *header;
	bool		locked;

	callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));
	size += MAXALIGN(sizeof(SecureHeader));
	header = tde_secure_alloc(size, false, &locked);
	if (header == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not allocate memory for encryption keys: %m")));
	TdeNoteUnlockedMemory();
	header->context = context;
	header->size = size;
	callback->func = free_block;
	callback->arg = header;
	MemoryContextRegisterResetCallback(context, callback);
	return (char *) header + MAXALIGN(sizeof(SecureHeader));
}

void
tde_secure_pfree(void *ptr)
{
	SecureHeader *header;

	header = (SecureHeader *) ((char *) ptr - MAXALIGN(sizeof(SecureHeader)));
	MemoryContextDelete(header->context);
}
