/*-------------------------------------------------------------------------
 *
 * memory.c
 *	  Memory for keys that goes with a memory context.
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

#include "store_internal.h"
#include "utils/memutils.h"

/* What the block begins with. */
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
