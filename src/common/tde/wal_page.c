/*-------------------------------------------------------------------------
 *
 * wal_page.c
 *	  Encryption of WAL pages; specified in doc/wal-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/wal_page.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "cipher_internal.h"
#include "port/pg_bswap.h"
#include "tde/codec.h"
#include "tde/wal_page.h"

#define BLOCK			16

/*
 * A record begins with its length, which is never this large; what follows is
 * XORed with the position, so that a marker in a recycled segment is not one.
 */
#define MARKER_LENGTH	0xFFFFFFFF
#define MARKER_MAGIC	0x43774E78	/* "xNwC" */

int
tde_wal_crypt(TdeCtr *ctx, uint64 lsn, const void *in, void *out, size_t len)
{
	uint8		counter[BLOCK] = {0};
	uint64		block = pg_hton64(lsn / BLOCK);

	memcpy(counter + BLOCK - sizeof(block), &block, sizeof(block));
	return tde_ctr_crypt_from(ctx, counter, lsn % BLOCK, in, out, len);
}

void
tde_wal_make_marker(uint64 lsn, uint8 *marker)
{
	TdeWriter	w = {marker};

	tde_put_uint(&w, MARKER_LENGTH, 4);
	tde_put_uint(&w, MARKER_MAGIC ^ (uint32) lsn, 4);
}

bool
tde_wal_is_marker(uint64 lsn, const uint8 *word)
{
	uint8		marker[TDE_WAL_WORD];
	uint32		length;

	/* asked for each word of a page, so make no marker for most */
	memcpy(&length, word, sizeof(length));
	if (likely(length != MARKER_LENGTH))
		return false;
	tde_wal_make_marker(lsn, marker);
	return memcmp(word, marker, TDE_WAL_WORD) == 0;
}

static inline bool
is_zero(const uint8 *word)
{
	uint64		value;

	memcpy(&value, word, TDE_WAL_WORD);
	return value == 0;
}

/*
 * Was the word at offset i, which has no zeros before it, never written?  end
 * is where the whole words that were read end.
 */
static inline bool
is_unwritten(const uint8 *page, size_t i, size_t end)
{
	return is_zero(page + i) &&
		(i + TDE_WAL_WORD == end || is_zero(page + i + TDE_WAL_WORD));
}

int
tde_wal_page_decrypt(TdeCtr *ctx, uint64 pageaddr, uint8 *page,
					 size_t from, size_t to)
{
	size_t		end = to - (to - from) % TDE_WAL_WORD;
	size_t		start = from;	/* of what is to be decrypted */
	size_t		i = from;
	bool		marker = false;

	Assert(from % TDE_WAL_WORD == 0 && from <= to);

	while (i < end)
	{
		marker = tde_wal_is_marker(pageaddr + i, page + i);
		if (!marker && !is_unwritten(page, i, end))
		{
			i += TDE_WAL_WORD;
			continue;
		}
		if (i > start &&
			tde_wal_crypt(ctx, pageaddr + start, page + start, page + start,
						  i - start) < 0)
			return -1;
		if (marker)
			return 0;
		while (i < end && is_zero(page + i))
			i += TDE_WAL_WORD;
		start = i;
	}
	if (start < to)
		return tde_wal_crypt(ctx, pageaddr + start, page + start, page + start,
							 to - start);
	return 0;
}
