/*-------------------------------------------------------------------------
 *
 * secure_heap.c
 *	  Puts the keys that OpenSSL holds for us into secure memory.
 *
 * A cipher context contains the key (an AES key schedule begins with it), and
 * OpenSSL allocates it with malloc, so that it would be in every core dump.
 * OpenSSL lets a program replace its allocator, but only before the first
 * allocation.  Ours is malloc, except while this layer makes a context or
 * gives OpenSSL a key for the length of one call: then memory comes from
 * chunks that tde_secure_alloc() gives, which are locked and left out of core
 * dumps.  What is in a chunk stays in one, however it grows.
 *
 * Contexts are few and come in few sizes, so a block that is freed goes to a
 * list of its size and waits there for the next one.  Chunks are never given
 * back.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/secure_heap.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <openssl/crypto.h>

#include "cipher_internal.h"
#include "tde/cipher.h"

#define CHUNK_SIZE		65536

/*
 * Blocks are multiples of UNIT, the first unit being the block's header.
 * Nothing that holds a key is larger than MAX_BLOCK; what is comes from malloc.
 */
#define UNIT			16
#define MAX_BLOCK		8192

typedef struct Chunk
{
	struct Chunk *next;
	size_t		used;			/* bytes, this header included */
} Chunk;

typedef struct Block
{
	struct Block *next;			/* while it is free */
	size_t		size;			/* header included */
} Block;

StaticAssertDecl(sizeof(Block) <= UNIT, "a block's header is one unit");
StaticAssertDecl(sizeof(Chunk) <= UNIT, "a chunk's header is one unit");

static Chunk *chunks = NULL;
static Block *free_blocks[MAX_BLOCK / UNIT + 1];

/*
 * How many have begun and not ended?  Per thread, so that threads which a
 * library has started never touch the above.
 */
static __thread int in_use = 0;

static Block *
secure_block(size_t size)
{
	size_t		block_size = UNIT + TYPEALIGN(UNIT, size);
	Block	   *block = free_blocks[block_size / UNIT];

	if (block != NULL)
	{
		free_blocks[block_size / UNIT] = block->next;
		return block;
	}
	if (chunks == NULL || chunks->used + block_size > CHUNK_SIZE)
	{
		bool		locked;
		Chunk	   *chunk = tde_secure_alloc(CHUNK_SIZE, false, &locked);

		if (chunk == NULL)
			return NULL;
		chunk->next = chunks;
		chunk->used = UNIT;
		chunks = chunk;
	}
	block = (Block *) ((char *) chunks + chunks->used);
	block->size = block_size;
	chunks->used += block_size;
	return block;
}

static bool
is_secure(const void *ptr)
{
	for (const Chunk *chunk = chunks; chunk != NULL; chunk = chunk->next)
	{
		if ((const char *) ptr > (const char *) chunk &&
			(const char *) ptr < (const char *) chunk + CHUNK_SIZE)
			return true;
	}
	return false;
}

static void *
secure_malloc(size_t size)
{
	Block	   *block;

	if (size > MAX_BLOCK - UNIT)
		return malloc(size);
	block = secure_block(size);
	return block ? (char *) block + UNIT : NULL;
}

static void *
heap_malloc(size_t size, const char *file, int line)
{
	return in_use > 0 ? secure_malloc(size) : malloc(size);
}

static void
heap_free(void *ptr, const char *file, int line)
{
	Block	   *block;

	if (!is_secure(ptr))
	{
		free(ptr);
		return;
	}
	block = (Block *) ((char *) ptr - UNIT);
	tde_wipe(ptr, block->size - UNIT);
	block->next = free_blocks[block->size / UNIT];
	free_blocks[block->size / UNIT] = block;
}

static void *
heap_realloc(void *ptr, size_t size, const char *file, int line)
{
	size_t		old_size;
	void	   *result;

	if (ptr == NULL)
		return heap_malloc(size, file, line);
	if (!is_secure(ptr))
		return realloc(ptr, size);
	if (size == 0)
	{
		heap_free(ptr, file, line);
		return NULL;
	}
	old_size = ((Block *) ((char *) ptr - UNIT))->size - UNIT;
	if (size <= old_size)
		return ptr;
	result = secure_malloc(size);
	if (result != NULL)
	{
		memcpy(result, ptr, old_size);
		heap_free(ptr, file, line);
	}
	return result;
}

bool
tde_secure_heap_init(void)
{
	return CRYPTO_set_mem_functions(heap_malloc, heap_realloc, heap_free) == 1;
}

void
tde_secure_heap_begin(void)
{
	in_use++;
}

void
tde_secure_heap_end(void)
{
	Assert(in_use > 0);
	in_use--;
}
