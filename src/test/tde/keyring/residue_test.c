/*-------------------------------------------------------------------------
 *
 * residue_test.c
 *	  What the keyring leaves in memory.
 *
 * A pattern that is looked for would find itself, so it is kept with a mask
 * on it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/residue_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/base64.h"
#include "common/logging.h"
#include "tde/cipher.h"
#include "test_keyring.h"

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN	true
#else
#define UNDER_ASAN	false
#endif

/* exit status of a command that cannot be done here; its output says why */
#define SKIPPED		77

#define MASK	0x5a

/* Does the range hold n bytes that are masked[] with the mask taken off? */
static int
count_masked(const uint8 *start, const uint8 *end, const uint8 *masked, int n)
{
	int			found = 0;

	for (const uint8 *p = start; p + n <= end; p++)
	{
		int			i = 0;

		while (i < n && (p[i] ^ MASK) == masked[i])
			i++;
		found += i == n;
	}
	return found;
}

/* In all memory of this process that can be written. */
static int
count_in_memory(const uint8 *masked, int n)
{
	FILE	   *maps = fopen("/proc/self/maps", "r");
	char		line[1024];
	int			found = 0;

	if (maps == NULL)
		pg_fatal("could not open \"/proc/self/maps\": %m");
	while (fgets(line, sizeof(line), maps))
	{
		unsigned long start,
					end;
		char		mode[8];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3 &&
			mode[0] == 'r' && mode[1] == 'w')
			found += count_masked((uint8 *) start, (uint8 *) end, masked, n);
	}
	fclose(maps);
	return found;
}

#define PATTERN		16

typedef uint8 Pattern[PATTERN];

/*
 * Half a key in binary, a quarter of it in hex, 3/8 of it in base64: pieces
 * from the middle, since free() writes over the beginning.
 */
static void
make_patterns(const TdePrincipalKey *key, Pattern patterns[3])
{
	static const char digits[] = "0123456789abcdef";
	char		base64[PATTERN];

	if (pg_b64_encode(key->key + 12, 12, base64, sizeof(base64)) != PATTERN)
		pg_fatal("could not encode");
	for (int i = 0; i < PATTERN; i++)
	{
		uint8		byte = key->key[8 + i / 2];

		patterns[0][i] = key->key[16 + i] ^ MASK;
		patterns[1][i] = digits[i % 2 ? byte & 15 : byte >> 4] ^ MASK;
		patterns[2][i] = base64[i] ^ MASK;
	}
	tde_wipe(base64, sizeof(base64));
}

/* A token, from its ninth byte. */
static void
read_token(const char *path, Pattern pattern)
{
	int			fd = open(path, O_RDONLY);

	if (fd < 0 || pread(fd, pattern, PATTERN, 8) != PATTERN)
		pg_fatal("could not read \"%s\": %m", path);
	close(fd);
	for (int i = 0; i < PATTERN; i++)
		pattern[i] ^= MASK;
}

/*
 * A key is fetched, and another created, and the caller's copies are wiped:
 * then neither may be left, nor the token of which token_file tells (which
 * may be empty).
 */
int
torture_residue(const TdeProvider *provider, const char *name,
				const char *token_file)
{
	static Pattern patterns[3];
	static Pattern token;
	TdePrincipalKey key;
	TdeKeyringError error;
	int			control;
	int			found = 0;

	if (UNDER_ASAN)
	{
		printf("the address sanitizer's memory cannot be searched\n");
		return SKIPPED;
	}
	if (token_file[0] != '\0')
		read_token(token_file, token);
	for (int k = 0; k < 2; k++)
	{
		TdeKeyringStatus status;

		if (k == 0)
			status = tde_keyring_fetch(provider, name, NULL, &key, &error);
		else
			status = tde_keyring_create(provider, "new", 32, NULL, &key, &error);
		if (status != TDE_KEYRING_OK)
			pg_fatal("%s", error.message);
		make_patterns(&key, patterns);

		/* the search must find the copy that is known to be there */
		control = count_in_memory(patterns[0], PATTERN);
		tde_wipe(&key, sizeof(key));
		for (int i = 0; i < lengthof(patterns); i++)
			found += count_in_memory(patterns[i], PATTERN);
		if (token_file[0] != '\0')
			found += count_in_memory(token, PATTERN);
		if (control == 0)
			pg_fatal("the search does not work");
	}
	printf("%d copies left\n", found);
	return found != 0;
}
