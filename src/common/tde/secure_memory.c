/*-------------------------------------------------------------------------
 *
 * secure_memory.c
 *	  Memory for keys: wiped after use, locked against swapping where the
 *	  kernel lets us, left out of core dumps.
 *
 * A lock on memory is not inherited by a child process: what it writes to a
 * private mapping goes to pages of its own, which may be swapped out, and a
 * shared one stays in memory only as long as the parent lives.  So we keep a
 * list of all mappings, and a child locks them again before it uses a key.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/secure_memory.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <openssl/crypto.h>
#include <sys/mman.h>

#include "tde/cipher.h"

typedef struct SecureMapping
{
	void	   *ptr;
	size_t		size;
	bool		shared;
	bool		locked;			/* in this process */
} SecureMapping;

static SecureMapping *mappings = NULL;
static int	nmappings = 0;
static int	max_mappings = 0;

void
tde_wipe(void *buf, size_t len)
{
	OPENSSL_cleanse(buf, len);
}

/*
 * Room for one more in the list.
 */
static bool
make_room(void)
{
	SecureMapping *larger;
	int			n;

	if (nmappings < max_mappings)
		return true;
	n = Max(16, max_mappings * 2);
	larger = realloc(mappings, n * sizeof(SecureMapping));
	if (larger == NULL)
		return false;
	mappings = larger;
	max_mappings = n;
	return true;
}

void *
tde_secure_alloc(size_t size, bool shared, bool *locked)
{
	void	   *ptr;

	if (!make_room())
	{
		errno = ENOMEM;
		return NULL;
	}
	ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
	if (ptr == MAP_FAILED)
		return NULL;

#if defined(MADV_DONTDUMP)
#define TDE_MADV_NO_DUMP	MADV_DONTDUMP
#elif defined(MADV_NOCORE)
#define TDE_MADV_NO_DUMP	MADV_NOCORE
#endif
#ifdef TDE_MADV_NO_DUMP
	if (madvise(ptr, size, TDE_MADV_NO_DUMP) != 0)
	{
		int			save_errno = errno;

		munmap(ptr, size);
		errno = save_errno;
		return NULL;
	}
#endif

	/*
	 * This makes all pages present.  Of a shared mapping they must be, here:
	 * one that only a child has touched is free to go when the child ends.
	 */
	*locked = mlock(ptr, size) == 0;
	mappings[nmappings++] = (SecureMapping) {
		.ptr = ptr,
		.size = size,
		.shared = shared,
		.locked = *locked,
	};
	return ptr;
}

void
tde_secure_free(void *ptr, size_t size)
{
	if (ptr == NULL)
		return;
	tde_wipe(ptr, size);
	munmap(ptr, size);
	for (int i = nmappings - 1; i >= 0; i--)
	{
		if (mappings[i].ptr == ptr)
		{
			mappings[i] = mappings[--nmappings];
			break;
		}
	}
}

/*
 * Lock what is present now, and the rest when it is touched: making all of a
 * large shared mapping present would make the start of a process slow, and of
 * a private one it would copy pages that nobody is going to write to.
 */
static bool
lock_on_fault(void *ptr, size_t size)
{
#ifdef MLOCK_ONFAULT
	if (mlock2(ptr, size, MLOCK_ONFAULT) == 0)
		return true;
#endif
	/* the kernel is older than the C library, or we may not */
	return mlock(ptr, size) == 0;
}

void
tde_secure_relock(void)
{
	for (int i = 0; i < nmappings; i++)
		mappings[i].locked = lock_on_fault(mappings[i].ptr, mappings[i].size);
}

void
tde_secure_detach(void)
{
	int			kept = 0;

	for (int i = 0; i < nmappings; i++)
	{
		if (mappings[i].shared)
			munmap(mappings[i].ptr, mappings[i].size);
		else
			mappings[kept++] = mappings[i];
	}
	nmappings = kept;
	tde_secure_relock();
}

size_t
tde_secure_size(bool *locked)
{
	size_t		size = 0;

	*locked = true;
	for (int i = 0; i < nmappings; i++)
	{
		size += mappings[i].size;
		if (!mappings[i].locked)
			*locked = false;
	}
	return size;
}
