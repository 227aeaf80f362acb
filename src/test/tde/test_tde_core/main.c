/*-------------------------------------------------------------------------
 *
 * main.c
 *	  The checks as a program; its output is TAP.
 *
 *	  tde_core_checks VECTOR_DIRECTORY
 *	  tde_core_checks --secure-heap VECTOR_DIRECTORY
 *
 * The first way counts OpenSSL's allocations, the second has them made in
 * secure memory, as the server has; there is only one hook for both.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/main.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <openssl/crypto.h>

#include "tde/cipher.h"

#include "checks.h"

static int	allocations = 0;
static int	nchecks = 0;
static int	nfailed = 0;

static void *
counting_malloc(size_t size, const char *file, int line)
{
	allocations++;
	return malloc(size);
}

static void *
counting_realloc(void *ptr, size_t size, const char *file, int line)
{
	allocations++;
	return realloc(ptr, size);
}

static void
plain_free(void *ptr, const char *file, int line)
{
	free(ptr);
}

static void
report(Checks *checks, bool ok, const char *name)
{
	nchecks++;
	if (!ok)
		nfailed++;
	printf("%sok %d - %s\n", ok ? "" : "not ", nchecks, name);
}

int
main(int argc, char **argv)
{
	Checks		checks = {report};

	checks.vector_dir = argv[argc - 1];
	if (argc == 3 && strcmp(argv[1], "--secure-heap") == 0)
	{
		checks.secure_heap = tde_secure_heap_init();
		check(&checks, checks.secure_heap, "secure heap: initialized");
	}
	else if (argc == 2 &&
			 CRYPTO_set_mem_functions(counting_malloc, counting_realloc,
									  plain_free) == 1)
		checks.allocations = &allocations;
	else
	{
		fprintf(stderr, "usage: tde_core_checks [--secure-heap] VECTOR_DIRECTORY\n");
		return 2;
	}
	check_all(&checks);
	printf("1..%d\n", nchecks);
	return nfailed > 0;
}
