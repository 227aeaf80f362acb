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
 * The stack is locked, too, as far as keys are used in it.  We wipe our own
 * copies, but when a signal arrives the kernel saves the registers there, and
 * what moves 16 bytes of a key at a time, or encrypts with them, has them in
 * registers.
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
#include <unistd.h>

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
static bool stack_locked = true;	/* or not tried */

void
tde_wipe(void *buf, size_t len)
{
	OPENSSL_cleanse(buf, len);
}

void
tde_copy_key(void *dst, const void *src, size_t len)
{
	volatile uint8 *to = dst;
	const volatile uint8 *from = src;

	for (size_t i = 0; i < len; i++)
		to[i] = from[i];
}

/* Deeper than calls of OpenSSL are. */
pg_noinline void
tde_wipe_stack(void)
{
	uint8		below[32 * 1024];

	tde_wipe(below, sizeof(below));
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

/*
 * Of the stack, this much below the caller is locked, and the caller's frame
 * and a little more above it.  The kernel maps 128 kB at the beginning, of
 * which a server has used little before its processes begin; and we must not
 * lock the end where the stack grows, or a deep one could not grow any more.
 */
#define STACK_BELOW		(96 * 1024)
#define STACK_ABOVE		2048

static bool
lock_stack(void)
{
#ifdef MLOCK_ONFAULT
	char		here;
	uintptr_t	page_size = sysconf(_SC_PAGESIZE);
	uintptr_t	start = TYPEALIGN_DOWN(page_size,
									   (uintptr_t) &here - STACK_BELOW);
	uintptr_t	end = TYPEALIGN(page_size, (uintptr_t) &here + STACK_ABOVE);

	return lock_on_fault((void *) start, end - start);
#else
	return true;				/* not known how the stack is mapped */
#endif
}

void
tde_secure_relock(void)
{
	stack_locked = lock_stack();
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

	*locked = stack_locked;
	for (int i = 0; i < nmappings; i++)
	{
		size += mappings[i].size;
		if (!mappings[i].locked)
			*locked = false;
	}
	return size;
}
