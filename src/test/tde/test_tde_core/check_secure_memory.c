/*-------------------------------------------------------------------------
 *
 * check_secure_memory.c
 *	  Memory for keys: what the kernel says of it, and whether a core dump
 *	  would contain keys.  Much of this is known of Linux only.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_secure_memory.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tde/cipher.h"
#include "tde/page.h"

#include "checks.h"

/*
 * AddressSanitizer makes mlock() do nothing, and stops a program that looks
 * through all of its memory, so these checks are left to other builds.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define KNOW_MAPPINGS
#endif

#ifdef KNOW_MAPPINGS

/* A mapping of this process, and the flags that the kernel gives it. */
typedef struct Mapping
{
	const char *start;
	const char *end;
	char		flags[256];		/* " rd wr dd ...": dd is not dumped, lo is
								 * locked, sh is shared */
} Mapping;

static bool
next_mapping(FILE *smaps, Mapping *m)
{
	char		line[1024];

	while (fgets(line, sizeof(line), smaps))
	{
		unsigned long start;
		unsigned long end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
		{
			m->start = (const char *) start;
			m->end = (const char *) end;
		}
		else if (strncmp(line, "VmFlags:", 8) == 0)
		{
			strlcpy(m->flags, line + 8, sizeof(m->flags));
			return true;
		}
	}
	return false;
}

static bool
mapping_has_flag(const void *address, const char *flag)
{
	FILE	   *smaps = fopen("/proc/self/smaps", "r");
	Mapping		m;
	bool		found = false;

	while (smaps && next_mapping(smaps, &m))
	{
		if ((const char *) address >= m.start &&
			(const char *) address < m.end)
			found = strstr(m.flags, flag) != NULL;
	}
	if (smaps)
		fclose(smaps);
	return found;
}

bool
core_dump_contains(const uint8 *bytes, size_t len)
{
	FILE	   *smaps = fopen("/proc/self/smaps", "r");
	Mapping		m;
	bool		found = false;

	while (smaps && next_mapping(smaps, &m))
	{
		if (strstr(m.flags, " wr") && !strstr(m.flags, " sh") &&
			!strstr(m.flags, " dd") &&
			memmem(m.start, m.end - m.start, bytes, len) != NULL)
			found = true;
	}
	if (smaps)
		fclose(smaps);
	return found;
}

/*
 * Set keys and use them, as the server does, and look for them where a core
 * dump would show them.  Without the secure heap they must be found, or we
 * would not know how to look.
 */
static void
check_core_dump(Checks *checks)
{
	bool		locked;
	uint8	   *key = tde_secure_alloc(8192, false, &locked);
	uint8		zero_page[BLCKSZ] = {0};
	uint8		counter[16] = {0};
	PageHeader	header = (PageHeader) zero_page;
	TdePageCipher *page = tde_page_cipher_create();
	TdeCtr	   *ctr = tde_ctr_create();

	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		int			half = tde_cipher_key_len(i) / 2;
		bool		found;

		header->pd_pagesize_version = BLCKSZ | PG_PAGE_LAYOUT_VERSION;
		tde_generate_key(i, key);
		tde_page_cipher_set_key(page, i, key);
		tde_page_encrypt(page, zero_page, zero_page, 0, MAIN_FORKNUM);
		tde_page_decrypt(page, zero_page, 0, MAIN_FORKNUM);

		/* a key schedule begins, or ends, with 16 bytes of the key */
		found = core_dump_contains(key, 16) ||
			core_dump_contains(key + half, 16);
		check(checks, found == !checks->secure_heap,
			  "core dump: key of %s is %s it", tde_cipher_name(i),
			  checks->secure_heap ? "not in" : "in");
	}

	tde_random(key, 32);
	tde_ctr_set_key(ctr, key, 32);
	tde_ctr_crypt(ctr, counter, zero_page, zero_page, 16);
	tde_ctr_crypt(ctr, counter, zero_page, zero_page, BLCKSZ);
	check(checks, core_dump_contains(key, 16) == !checks->secure_heap,
		  "core dump: key of CTR is %s it",
		  checks->secure_heap ? "not in" : "in");
	tde_page_cipher_free(page);
	tde_ctr_free(ctr);

	/* what a wrapping leaves behind */
	tde_random(key, 128);
	tde_hkdf(key, 32, counter, 16, "info", key + 32, 32);
	tde_wrap(key + 32, NULL, 0, key + 64, 32, counter, key + 96, key + 4096);
	tde_unwrap(key + 32, counter, NULL, 0, key + 96, 32, key + 96, key + 4096);
	if (checks->secure_heap)
		check(checks, !core_dump_contains(key, 16) &&
			  !core_dump_contains(key + 32, 16) &&
			  !core_dump_contains(key + 64, 16),
			  "core dump: keys of a wrapping are not in it");
	tde_secure_free(key, 8192);
}

bool
core_dump_is_known(void)
{
	return true;
}

#else

bool
core_dump_contains(const uint8 *bytes, size_t len)
{
	return false;
}

bool
core_dump_is_known(void)
{
	return false;
}
#endif

static bool
all_zero(const uint8 *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (p[i] != 0)
			return false;
	}
	return true;
}

void
check_secure_memory(Checks *checks)
{
	size_t		size = 100000;
	uint8		buf[100];

	for (int shared = 0; shared <= 1; shared++)
	{
		bool		locked;
		uint8	   *p = tde_secure_alloc(size, shared, &locked);
		int			status;
		pid_t		pid;

		check(checks, p != NULL && all_zero(p, size),
			  "secure memory: zeroed, shared %d", shared);
#ifdef KNOW_MAPPINGS
		check(checks, mapping_has_flag(p, " dd"),
			  "secure memory: not in core dumps, shared %d", shared);
		check(checks, mapping_has_flag(p, " lo") == locked,
			  "secure memory: locked if it says so, shared %d", shared);
#endif

		/* what a child process writes is seen here only if it is shared */
		fflush(NULL);
		pid = fork();
		if (pid == 0)
		{
			p[size - 1] = 1;
			_exit(0);
		}
		check(checks, pid > 0 && waitpid(pid, &status, 0) == pid &&
			  p[size - 1] == shared,
			  "secure memory: written by a child, shared %d", shared);
		tde_secure_free(p, size);
	}

	memset(buf, 1, sizeof(buf));
	tde_wipe(buf + 1, sizeof(buf) - 2);
	check(checks, buf[0] == 1 && buf[sizeof(buf) - 1] == 1 &&
		  all_zero(buf + 1, sizeof(buf) - 2), "wipe");
#ifdef KNOW_MAPPINGS
	check_core_dump(checks);
#endif
}
