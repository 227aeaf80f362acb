/*-------------------------------------------------------------------------
 *
 * file_format.c
 *	  Encoding and decoding of a keyring file.
 *
 * A keyring file is text:
 *
 *	  coffer keyring 1
 *	  key NAME CREATED KEY CHECK
 *	  ...
 *	  end CHECK
 *
 * The rule that keeps the parser simple: what stands in a file must be what
 * we would have written.  A line is taken apart without much ado, put
 * together again, and must come out the same byte for byte, its checksum
 * included.  So there is one spelling of each entry, and no byte of a line
 * that does not count.
 *
 * All buffers that see a key are the caller's, or are wiped here.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/file_format.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <openssl/evp.h>

#include "file_format.h"
#include "tde/cipher.h"

#define MAGIC			"coffer keyring "
#define HEADER			MAGIC "1\n"
#define HEADER_LEN		(sizeof(HEADER) - 1)

#define SHA_LEN			32
#define LINE_CHECK_LEN	16		/* hex digits of SHA-256 kept for a line */

/* "end ", 64 hex digits, line feed */
#define TRAILER_LEN		(4 + 2 * SHA_LEN + 1)

/* "key ", name with each byte escaped, time, 32 bytes in hex, check */
#define MAX_LINE_LEN	(4 + 3 * TDE_MAX_KEY_NAME + 1 + 20 + 1 + 64 + 1 + \
						 LINE_CHECK_LEN + 1)

StaticAssertDecl(KEYRING_MAX_GROWTH >= HEADER_LEN + MAX_LINE_LEN + TRAILER_LEN,
				 "KEYRING_MAX_GROWTH is too small");

/* ---- small pieces ---- */

static const char hex_digits[] = "0123456789abcdef";
static const char upper_digits[] = "0123456789ABCDEF";

static char *
put_hex(char *out, const uint8 *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		*out++ = hex_digits[bytes[i] >> 4];
		*out++ = hex_digits[bytes[i] & 15];
	}
	return out;
}

/* The value of a hex digit of the given alphabet, or -1. */
static int
digit_value(char c, const char *digits)
{
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int) (p - digits) : -1;
}

/* The first ndigits hex digits of SHA-256 (FIPS 180-4) over the text. */
static bool
put_check(char *out, const char *text, size_t len, int ndigits)
{
	uint8		sha[EVP_MAX_MD_SIZE];
	unsigned int shalen;

	if (EVP_Digest(text, len, sha, &shalen, EVP_sha256(), NULL) != 1)
		return false;
	Assert(shalen == SHA_LEN);
	put_hex(out, sha, ndigits / 2);
	return true;
}

/* ---- one line ---- */

/* May the byte stand in a name as it is? */
static inline bool
is_plain(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != '%';
}

static char *
put_name(char *out, const char *name)
{
	for (; *name; name++)
	{
		unsigned char c = *name;

		if (is_plain(c))
			*out++ = c;
		else
		{
			*out++ = '%';
			*out++ = upper_digits[c >> 4];
			*out++ = upper_digits[c & 15];
		}
	}
	return out;
}

/* The line of an entry, MAX_LINE_LEN bytes at most; 0 if OpenSSL fails. */
static size_t
put_line(char *out, const KeyringEntry *entry)
{
	char	   *p = out;

	memcpy(p, "key ", 4);
	p = put_name(p + 4, entry->name);
	*p++ = ' ';
	memcpy(p, entry->created, KEYRING_TIME_LEN - 1);
	p += KEYRING_TIME_LEN - 1;
	*p++ = ' ';
	p = put_hex(p, entry->key.key, entry->key.len);
	if (!put_check(p + 1, out, p - out, LINE_CHECK_LEN))
		return 0;
	*p++ = ' ';
	p += LINE_CHECK_LEN;
	*p++ = '\n';
	return p - out;
}

/*
 * Decoders of the fields.  Each takes the field from *p on and moves *p
 * behind it; what they let pass is judged by get_line.
 */
static bool
get_name(const char **p, const char *end, char *name)
{
	int			n = 0;

	for (; *p < end && **p != ' '; (*p)++)
	{
		int			c = (unsigned char) **p;

		if (c == '%')
		{
			int			hi,
						lo;

			if (end - *p < 3)
				return false;
			hi = digit_value((*p)[1], upper_digits);
			lo = digit_value((*p)[2], upper_digits);
			if (hi < 0 || lo < 0)
				return false;
			c = hi << 4 | lo;
			*p += 2;
		}
		if (c == '\0' || n == TDE_MAX_KEY_NAME)
			return false;
		name[n++] = c;
	}
	name[n] = '\0';
	return n > 0;
}

static bool
get_time(const char **p, const char *end, char *created)
{
	static const char pattern[] = "0000-00-00T00:00:00Z";

	if (end - *p < KEYRING_TIME_LEN - 1)
		return false;
	for (int i = 0; i < KEYRING_TIME_LEN - 1; i++)
	{
		char		c = *(*p)++;

		if (pattern[i] == '0' ? !(c >= '0' && c <= '9') : c != pattern[i])
			return false;
		created[i] = c;
	}
	created[KEYRING_TIME_LEN - 1] = '\0';
	return true;
}

static bool
get_key(const char **p, const char *end, TdePrincipalKey *key)
{
	int			n;

	for (n = 0; end - *p >= 2 && **p != ' '; n++, *p += 2)
	{
		int			hi = digit_value((*p)[0], hex_digits);
		int			lo = digit_value((*p)[1], hex_digits);

		if (hi < 0 || lo < 0 || n == 32)
			return false;
		key->key[n] = hi << 4 | lo;
	}
	key->len = n;
	return n == 16 || n == 24 || n == 32;
}

static bool
get_space(const char **p, const char *end)
{
	return *p < end && *(*p)++ == ' ';
}

/*
 * Decode a line, line feed included.  Returns NULL, or what is wrong.  entry
 * may hold a key in either case.
 */
static const char *
get_line(const char *line, size_t len, KeyringEntry *entry)
{
	char		again[MAX_LINE_LEN];
	const char *p = line;
	const char *end = line + len;
	size_t		againlen;
	bool		same;

	memset(entry, 0, sizeof(*entry));	/* nothing of another entry stays */
	if (len < 4 || len > MAX_LINE_LEN || memcmp(line, "key ", 4) != 0)
		return _("not an entry of a keyring file");
	p += 4;
	if (!get_name(&p, end, entry->name) || !get_space(&p, end) ||
		!get_time(&p, end, entry->created) || !get_space(&p, end) ||
		!get_key(&p, end, &entry->key))
		return _("not an entry of a keyring file");

	againlen = put_line(again, entry);
	same = (againlen == len && memcmp(again, line, len) == 0);
	tde_wipe(again, sizeof(again));
	if (againlen == 0)
		return _("checksum could not be computed");
	return same ? NULL : _("checksum does not match");
}

/* ---- the file ---- */

/* Why a file is no keyring file of this version, or NULL. */
static const char *
check_header(const char *file, size_t len)
{
	if (len < HEADER_LEN && memcmp(file, HEADER, len) == 0)
		return _("file is truncated");
	if (len < HEADER_LEN || memcmp(file, MAGIC, sizeof(MAGIC) - 1) != 0)
		return _("it does not begin with \"coffer keyring\"");
	if (memcmp(file, HEADER, HEADER_LEN) != 0)
		return _("unsupported version of the file format");
	return NULL;
}

/* What stands from "trailer" on must be the last line; NULL if it is. */
static const char *
check_trailer(const char *file, size_t len, const char *trailer)
{
	char		check[2 * SHA_LEN];
	size_t		left = file + len - trailer;

	if (left < TRAILER_LEN)
		return _("file is truncated");
	if (!put_check(check, file, trailer - file, 2 * SHA_LEN))
		return _("checksum could not be computed");
	if (memcmp(trailer + 4, check, sizeof(check)) != 0 ||
		trailer[TRAILER_LEN - 1] != '\n')
		return _("checksum of the file does not match");
	if (left > TRAILER_LEN)
		return _("data after the end of the keyring");
	return NULL;
}

KeyringFind
keyring_file_find(const char *file, size_t len, const char *name,
				  KeyringEntry *entry, const char **reason, int *line)
{
	const char *p = file + HEADER_LEN;
	const char *end = file + len;
	KeyringEntry current;
	KeyringFind result = KEYRING_ABSENT;

	memset(entry, 0, sizeof(*entry));
	*line = 1;
	*reason = check_header(file, len);

	while (*reason == NULL)
	{
		const char *eol;

		++*line;
		if (end - p >= 4 && memcmp(p, "end ", 4) == 0)
			break;
		eol = p < end ? memchr(p, '\n', end - p) : NULL;
		if (eol == NULL)
		{
			*line = 0;
			*reason = _("file is truncated");
			break;
		}
		*reason = get_line(p, eol + 1 - p, &current);
		if (*reason == NULL && name && strcmp(current.name, name) == 0)
		{
			if (result == KEYRING_FOUND)
				*reason = _("two keys have the same name");
			result = KEYRING_FOUND;
			*entry = current;
		}
		p = eol + 1;
	}
	tde_wipe(&current, sizeof(current));

	if (*reason == NULL)
	{
		*line = 0;
		*reason = check_trailer(file, len, p);
	}
	if (*reason != NULL)
		result = KEYRING_DAMAGED;
	if (result != KEYRING_FOUND)
		tde_wipe(entry, sizeof(*entry));
	return result;
}

size_t
keyring_file_append(const char *file, size_t len, const KeyringEntry *entry,
					char *out)
{
	char	   *p = out;
	size_t		linelen;

	if (len == 0)
	{
		memcpy(p, HEADER, HEADER_LEN);
		p += HEADER_LEN;
	}
	else
	{
		memcpy(p, file, len - TRAILER_LEN);
		p += len - TRAILER_LEN;
	}
	if (entry)
	{
		linelen = put_line(p, entry);
		if (linelen == 0)
			return 0;
		p += linelen;
	}
	if (!put_check(p + 4, out, p - out, 2 * SHA_LEN))
		return 0;
	memcpy(p, "end ", 4);
	p += TRAILER_LEN;
	p[-1] = '\n';
	return p - out;
}
