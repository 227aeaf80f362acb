/*-------------------------------------------------------------------------
 *
 * secure_memory.c
 *	  Memory for keys: wiped after use, locked against swapping where the
 *	  kernel lets us, left out of core dumps.
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

void
tde_wipe(void *buf, size_t len)
{
	OPENSSL_cleanse(buf, len);
}

void *
tde_secure_alloc(size_t size, bool shared, bool *locked)
{
	void	   *ptr;

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

	*locked = mlock(ptr, size) == 0;
	return ptr;
}

void
tde_secure_free(void *ptr, size_t size)
{
	if (ptr == NULL)
		return;
	tde_wipe(ptr, size);
	munmap(ptr, size);
}
