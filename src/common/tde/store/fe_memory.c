/*-------------------------------------------------------------------------
 *
 * fe_memory.c
 *	  Memory for keys in programs: what backend/tde/keys/store/memory.c is in
 *	  the server.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/fe_memory.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#error "This file is not expected to be compiled for backend code"
#endif

#include "postgres_fe.h"

#include "tde/store.h"

/* What a block begins with. */
typedef union SecureHeader
{
	size_t		size;			/* of all of it */
	char		pad[MAXIMUM_ALIGNOF];
} SecureHeader;

void *
tde_secure_palloc(size_t size)
{
	bool		locked;
	SecureHeader *header;

	size += sizeof(SecureHeader);
	header = tde_secure_alloc(size, false, &locked);
	if (header == NULL)
	{
		fprintf(stderr, _("out of memory\n"));
		exit(EXIT_FAILURE);
	}
	header->size = size;
	return header + 1;
}

void
tde_secure_pfree(void *ptr)
{
	SecureHeader *header = (SecureHeader *) ptr - 1;

	tde_secure_free(header, header->size);
}
