/*-------------------------------------------------------------------------
 *
 * wal_page.h
 *	  Encryption of WAL pages; specified in doc/wal-format.md.
 *
 * A byte of WAL is encrypted by AES-CTR, its position in the WAL being the
 * counter, so any piece can be encrypted or decrypted by itself.  Nothing
 * here allocates, raises or does I/O.  A position (lsn, pageaddr) is an
 * XLogRecPtr; the type is not used because programs that know nothing else of
 * WAL compile this.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/wal_page.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_PAGE_H
#define TDE_WAL_PAGE_H

#include "tde/cipher.h"

/* Bytes of an epoch's key. */
#define TDE_WAL_KEY_LEN			16

/*
 * Where a page's header, long or short, has the id of the epoch under whose
 * key the page is: four bytes of padding upstream, 0 for a page in clear.
 */
#define TDE_WAL_KEY_ID_OFFSET	20

/*
 * In that id: the page was encrypted under the epoch named by the other bits,
 * and is in clear here (pg_tde_archive_decrypt).  Ids of epochs do not have it.
 */
#define TDE_WAL_DECRYPTED		0x80000000

static inline uint32
tde_wal_page_key_id(const void *page)
{
	uint32		id;

	memcpy(&id, (const uint8 *) page + TDE_WAL_KEY_ID_OFFSET, sizeof(id));
	return id;
}

static inline void
tde_wal_page_set_key_id(void *page, uint32 id)
{
	memcpy((uint8 *) page + TDE_WAL_KEY_ID_OFFSET, &id, sizeof(id));
}

/* Bytes of the unit in which "was this written?" is decided, and of a marker. */
#define TDE_WAL_WORD			8

/*
 * Encrypt len bytes that will stand at lsn, or decrypt them: the same thing.
 * in and out may be the same.  The range may not contain a page's header; it
 * may begin and end anywhere.  0, or -1 with tde_cipher_error().
 */
extern int	tde_wal_crypt(TdeCtr *ctx, uint64 lsn,
						  const void *in, void *out, size_t len);

/*
 * Decrypt, in place, what was read of a page.
 *
 * page is where the page begins, pageaddr its position; from and to are the
 * offsets of the first byte after its header and of the first byte that was
 * not read.  What was never written is left as zeros, and so is a marker and
 * what follows it.  0, or -1 with tde_cipher_error().
 */
extern int	tde_wal_page_decrypt(TdeCtr *ctx, uint64 pageaddr, uint8 *page,
								 size_t from, size_t to);

/*
 * The marker "the rest of this page is unused, WAL goes on with the next one",
 * TDE_WAL_WORD bytes that stand in clear where a record would begin.
 */
extern void tde_wal_make_marker(uint64 lsn, uint8 *marker);
extern bool tde_wal_is_marker(uint64 lsn, const uint8 *word);

#endif							/* TDE_WAL_PAGE_H */
