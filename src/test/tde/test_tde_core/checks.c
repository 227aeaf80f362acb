/*-------------------------------------------------------------------------
 *
 * checks.c
 *	  Reporting, files of vectors, and helpers of the checks.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/checks.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "port/pg_crc32c.h"
#include "tde/cipher.h"

#include "checks.h"

void
check_all(Checks *checks)
{
	const char *failed = tde_cipher_self_test();

	check(checks, failed == NULL, "self-test: %s", failed ? failed : "passes");
	check_primitives(checks);
	check_secure_memory(checks);
	check_pages(checks);
	check_key_records(checks);
	check_scopes(checks);
	check_providers(checks);
	check_ttlv(checks);
	check_kmip_messages(checks);
	check_kmip_client(checks);
	check_kmip_keys(checks);
	check_wal(checks);
}

bool
check(Checks *checks, bool ok, const char *fmt,...)
{
	char		name[256];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(name, sizeof(name), fmt, args);
	va_end(args);
	checks->report(checks, ok, name);
	return ok;
}

void
vectors_open(Vectors *v, Checks *checks, const char *filename)
{
	char		path[MAXPGPATH];
	FILE	   *file;
	size_t		size = 1024 * 1024;
	size_t		len = 0;

	memset(v, 0, sizeof(*v));
	snprintf(path, sizeof(path), "%s/%s", checks->vector_dir, filename);
	v->text = palloc0(size + 1);
	file = fopen(path, "r");
	if (file != NULL)
	{
		len = fread(v->text, 1, size, file);
		fclose(file);
	}
	check(checks, len > 0 && len < size, "vectors are there: %s", filename);
	v->next = v->text;
	v->end = v->text +len;
}

void
vectors_close(Vectors *v)
{
	pfree(v->text);
}

/* Where the line that begins here ends: cuts it off there. */
static char *
end_of_line(char *line, char *end)
{
	char	   *p = memchr(line, '\n', end - line);

	if (p == NULL)
		p = end;
	*p = '\0';
	return p;
}

bool
vectors_next(Vectors *v)
{
	char	   *line = v->next;

	v->current = NULL;
	while (line < v->end)
	{
		char	   *this_line = line;

		line = end_of_line(this_line, v->end) + 1;
		v->current_end = this_line;
		if (this_line[0] == '\0' && v->current != NULL)
			break;
		if (this_line[0] != '\0' && this_line[0] != '#' && v->current == NULL)
			v->current = this_line;
	}
	if (line >= v->end)
		v->current_end = v->end;
	v->next = line;
	return v->current != NULL;
}

const char *
vectors_nth(Vectors *v, const char *name, int n)
{
	size_t		len = strlen(name);

	for (char *line = v->current; line < v->current_end; line += strlen(line) + 1)
	{
		if (strncmp(line, name, len) == 0 &&
			strncmp(line + len, " =", 2) == 0 && n-- == 0)
			return line + len + 2 + (line[len + 2] == ' ');
	}
	return NULL;
}

const char *
vectors_get(Vectors *v, const char *name)
{
	const char *value = vectors_nth(v, name, 0);

	return value ? value : "";
}

uint64
vectors_uint(Vectors *v, const char *name)
{
	return strtou64(vectors_get(v, name), NULL, 10);
}

static int
hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int) (p - digits) : -1;
}

size_t
vectors_nth_bytes(Vectors *v, const char *name, int n, uint8 *buf, size_t size)
{
	const char *value = vectors_nth(v, name, n);
	size_t		len = value ? strlen(value) / 2 : 0;

	if (len > size)
		return 0;
	for (size_t i = 0; i < len; i++)
	{
		int			high = hex_digit(value[2 * i]);
		int			low = hex_digit(value[2 * i + 1]);

		if (high < 0 || low < 0)
			return 0;
		buf[i] = high << 4 | low;
	}
	return len;
}

size_t
vectors_bytes(Vectors *v, const char *name, uint8 *buf, size_t size)
{
	return vectors_nth_bytes(v, name, 0, buf, size);
}

TdeCipher
vectors_cipher(Vectors *v)
{
	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		if (strcmp(vectors_get(v, "cipher"), tde_cipher_name(i)) == 0)
			return i;
	}
	return TDE_CIPHER_INVALID;
}

void
fill_pattern(uint8 *buf, size_t len, uint32 seed)
{
	for (size_t i = 0; i < len; i++)
	{
		seed = seed * 1664525 + 1013904223;
		buf[i] = seed >> 24;
	}
}

void
fix_crc(uint8 *buf, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, buf, len - 4);
	FIN_CRC32C(crc);
	for (int i = 0; i < 4; i++)
		buf[len - 4 + i] = crc >> (8 * i);
}

void
check_decoder(Checks *checks, const char *what, Decoder decode,
			  const uint8 *file, size_t len)
{
	uint8		buf[MAX_VECTOR + 16];
	const char *reason;
	bool		bits = true;
	bool		lengths = true;

	for (size_t bit = 0; bit < len * 8; bit++)
	{
		memcpy(buf, file, len);
		buf[bit / 8] ^= 1 << bit % 8;
		reason = NULL;
		bits = bits && !decode(buf, len, &reason) && reason != NULL;
	}
	check(checks, bits, "%s: each flipped bit is refused", what);

	memset(buf, 0, sizeof(buf));
	memcpy(buf, file, len);
	for (size_t n = 0; n < len + 16; n++)
	{
		uint8	   *exact = palloc(n + 1);	/* so that a sanitizer sees */

		memcpy(exact, buf, n);
		reason = NULL;
		lengths = lengths && (n == len ? decode(exact, n, &reason) :
							  (!decode(exact, n, &reason) && reason != NULL));
		pfree(exact);
	}
	check(checks, lengths, "%s: each other length is refused", what);

	decode(buf, 0, &reason);
	check(checks, strcmp(reason, "file is truncated") == 0,
		  "%s: reason of an empty file", what);
	decode(buf, len - 1, &reason);
	check(checks, strcmp(reason, "file is truncated") == 0,
		  "%s: reason of a truncated file", what);
	decode(buf, len + 1, &reason);
	check(checks, strcmp(reason, "file is longer than it says") == 0,
		  "%s: reason of a file with more behind it", what);
	buf[0] ^= 1;
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "magic number is wrong") == 0,
		  "%s: reason of a wrong magic number", what);
	buf[0] ^= 1;
	buf[4] += 2;				/* formats may have two */
	fix_crc(buf, len);
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "format version is not supported") == 0,
		  "%s: reason of another version", what);
	buf[4] -= 2;
	fix_crc(buf, len);
	buf[len - 5] ^= 1;
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "checksum does not match") == 0,
		  "%s: reason of damage", what);
}

bool
sha256_is(const void *data, size_t len, const uint8 *expected)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		hash[PG_SHA256_DIGEST_LENGTH];
	bool		ok;

	ok = pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, data, len) >= 0 &&
		pg_cryptohash_final(ctx, hash, sizeof(hash)) >= 0 &&
		memcmp(hash, expected, sizeof(hash)) == 0;
	pg_cryptohash_free(ctx);
	return ok;
}
