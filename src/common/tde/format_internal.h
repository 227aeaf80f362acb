/*-------------------------------------------------------------------------
 *
 * format_internal.h
 *	  What the formats of the key store share: a checksum at the end, and how
 *	  it is checked.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/format_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FORMAT_INTERNAL_H
#define TDE_FORMAT_INTERNAL_H

#include "port/pg_crc32c.h"
#include "tde/codec.h"

#define TDE_MAGIC_LEN		4
#define TDE_CRC_LEN			4

/* CRC-32C of what stands before the last four bytes. */
static inline pg_crc32c
tde_format_crc(const uint8 *buf, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, buf, len - TDE_CRC_LEN);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Begin to read: magic and version, in this order, so that a reader says of a
 * newer format that it is newer.  The reader then stands behind them.  Returns
 * the version, which is 1 to "newest", or 0 with *reason.
 */
static inline int
tde_format_begin(TdeReader *r, const uint8 *buf, size_t len,
				 const char *magic, int newest, const char **reason)
{
	char		found[TDE_MAGIC_LEN];
	int			version = 0;

	tde_reader_init(r, buf, len);
	tde_get_bytes(r, found, TDE_MAGIC_LEN);
	if (!r->failed && memcmp(found, magic, TDE_MAGIC_LEN) != 0)
		*reason = gettext_noop("magic number is wrong");
	else
	{
		version = (int) tde_get_uint(r, 2);
		if (r->failed)
			*reason = gettext_noop("file is truncated");
		else if (version < 1 || version > newest)
			*reason = gettext_noop("format version is not supported");
		else
			return version;
	}
	return 0;
}

/*
 * Does what was read have the length it says it has, and the right checksum?
 * Afterwards the reader ends before the checksum.
 */
static inline bool
tde_format_check(TdeReader *r, const uint8 *buf, size_t len, size_t stated,
				 const char **reason)
{
	TdeReader	crc;

	if (r->failed || len < stated)
	{
		*reason = gettext_noop("file is truncated");
		return false;
	}
	if (len > stated)
	{
		*reason = gettext_noop("file is longer than it says");
		return false;
	}
	if ((size_t) (r->p - buf) + TDE_CRC_LEN > len)
	{
		*reason = gettext_noop("stated length is too small");
		return false;
	}
	tde_reader_init(&crc, buf + len - TDE_CRC_LEN, TDE_CRC_LEN);
	if (tde_get_uint(&crc, TDE_CRC_LEN) != tde_format_crc(buf, len))
	{
		*reason = gettext_noop("checksum does not match");
		return false;
	}
	r->end -= TDE_CRC_LEN;
	return true;
}

#endif							/* TDE_FORMAT_INTERNAL_H */
