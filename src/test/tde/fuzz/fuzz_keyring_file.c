/*-------------------------------------------------------------------------
 *
 * fuzz_keyring_file.c
 *	  Fuzz target: the parser of keyring files.
 *
 * Each input is parsed three times: as it is; with its checksums made right,
 * without which nothing behind them would ever be reached; and as the name
 * and key of an entry that is added to an empty file and looked up again.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_keyring_file.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <openssl/evp.h>

#include "../../../common/tde/keyring/file_format.h"

#include "fuzz.h"

#define MAX_INPUT_LEN	65536

/* Write n hex digits of the checksum of a text. */
static void
put_sum(char *out, const char *text, size_t len, int n)
{
	static const char digits[] = "0123456789abcdef";
	uint8		sha[EVP_MAX_MD_SIZE];

	FUZZ_REQUIRE(EVP_Digest(text, len, sha, NULL, EVP_sha256(), NULL) == 1);
	for (int i = 0; i < n; i++)
		out[i] = digits[i % 2 ? sha[i / 2] & 15 : sha[i / 2] >> 4];
}

/* Make the checksum of each line right that has room for one. */
static void
make_right(char *file, size_t len)
{
	char	   *line = file;
	char	   *eol;

	for (; (eol = memchr(line, '\n', file + len - line)) != NULL; line = eol + 1)
	{
		if (eol - line > 21 && memcmp(line, "key ", 4) == 0)
			put_sum(eol - 16, line, eol - line - 17, 16);
		else if (eol - line == 68 && memcmp(line, "end ", 4) == 0)
			put_sum(line + 4, file, line - file, 64);
	}
}

/* What was found must be found again in a file that was made from it. */
static void
parse(const char *file, size_t len, const char *name)
{
	static char longer[MAX_INPUT_LEN + KEYRING_MAX_GROWTH];
	KeyringEntry entry;
	KeyringEntry added;
	KeyringEntry again;
	KeyringFind found;
	const char *reason;
	int			line;
	size_t		newlen;

	/* an exact copy on the heap, for the address sanitizer */
	char	   *copy = malloc(len);

	FUZZ_REQUIRE(copy != NULL || len == 0);
	if (len > 0)
		memcpy(copy, file, len);
	found = keyring_file_find(copy, len, name, &entry, &reason, &line);
	FUZZ_REQUIRE((found == KEYRING_DAMAGED) == (reason != NULL));
	if (found != KEYRING_FOUND)
		FUZZ_REQUIRE(entry.key.len == 0 && entry.name[0] == '\0');
	else
		FUZZ_REQUIRE(strcmp(entry.name, name) == 0 &&
			 (entry.key.len == 16 || entry.key.len == 24 ||
			  entry.key.len == 32));

	memset(&added, 0, sizeof(added));
	strcpy(added.name, "key that is added");
	strcpy(added.created, "2026-01-31T23:59:59Z");
	added.key.len = 24;
	if (found != KEYRING_DAMAGED &&
		keyring_file_find(copy, len, added.name, &again, &reason,
						  &line) == KEYRING_ABSENT)
	{
		newlen = keyring_file_append(copy, len, &added, longer);
		FUZZ_REQUIRE(newlen > len && newlen <= len + KEYRING_MAX_GROWTH);
		FUZZ_REQUIRE(keyring_file_find(longer, newlen, added.name, &again, &reason,
							   &line) == KEYRING_FOUND);
		FUZZ_REQUIRE(memcmp(&again, &added, sizeof(added)) == 0);
		FUZZ_REQUIRE(keyring_file_find(longer, newlen, name, &again, &reason,
							   &line) == found);
		FUZZ_REQUIRE(memcmp(&again, &entry, sizeof(entry)) == 0);
	}
	free(copy);
}

/* The input as name and key of an entry. */
static void
round_trip(const uint8 *data, size_t size)
{
	static char file[KEYRING_MAX_GROWTH];
	KeyringEntry entry;
	KeyringEntry again;
	const char *reason;
	int			line;
	size_t		len;

	if (size < 2)
		return;
	memset(&entry, 0, sizeof(entry));
	entry.key.len = 16 + data[0] % 3 * 8;
	data++;
	size--;
	for (int i = 0; i < entry.key.len; i++)
		entry.key.key[i] = data[i % size];
	memcpy(entry.name, data, Min(size, TDE_MAX_KEY_NAME));
	if (entry.name[0] == '\0')
		return;
	/* what stands behind a terminator does not come back */
	for (size_t i = strlen(entry.name); i < sizeof(entry.name); i++)
		entry.name[i] = '\0';
	strcpy(entry.created, "0000-00-00T00:00:00Z");
	len = keyring_file_append(NULL, 0, &entry, file);
	FUZZ_REQUIRE(len > 0 && len <= KEYRING_MAX_GROWTH);
	FUZZ_REQUIRE(keyring_file_find(file, len, entry.name, &again, &reason,
						   &line) == KEYRING_FOUND);
	FUZZ_REQUIRE(memcmp(&entry, &again, sizeof(entry)) == 0);
}

void
fuzz_keyring_file(const uint8 *data, size_t size)
{
	static char fixed[MAX_INPUT_LEN];

	if (size > MAX_INPUT_LEN)
		return;
	parse((const char *) data, size, "a");
	if (size > 0)
		memcpy(fixed, data, size);
	make_right(fixed, size);
	parse(fixed, size, "a");
	parse(fixed, size, "b c");
	round_trip(data, size);
}
