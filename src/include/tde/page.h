/*-------------------------------------------------------------------------
 *
 * page.h
 *	  Encryption of one relation page, and the process-local cipher contexts
 *	  that it needs.
 *
 * The format is specified in doc/page-format.md.  In short: the first 24
 * bytes (the page header) stay in clear; bytes 24 to 31 are masked; bytes 32
 * to BLCKSZ - 1 are encrypted in place; the layout version in
 * pd_pagesize_version says 5 instead of 4; pd_checksum, where checksums are
 * on, is computed by the caller over the result.  A page of zeros stays a
 * page of zeros.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/page.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PAGE_H
#define TDE_PAGE_H

#include "common/relpath.h"
#include "storage/block.h"
#include "storage/bufpage.h"
#include "tde/cipher.h"

/* Layout version that marks an encrypted page on disk. */
#define TDE_PAGE_LAYOUT_VERSION		5

/* First encrypted byte; before it, from the end of the header, masked bytes. */
#define TDE_PAGE_HEADER_LEN			24
#define TDE_PAGE_BODY_OFFSET		32
#define TDE_PAGE_BODY_LEN			(BLCKSZ - TDE_PAGE_BODY_OFFSET)

/* Does the page carry the mark? */
static inline bool
tde_page_is_marked(const void *page)
{
	return PageGetPageLayoutVersion((const PageData *) page) ==
		TDE_PAGE_LAYOUT_VERSION;
}

/*
 * A cipher context: everything OpenSSL needs to encrypt and decrypt pages
 * under one key.  Creating one allocates (about 5 us); setting a key and
 * using it does not.  Each belongs to one process.
 */
typedef struct TdePageCipher TdePageCipher;

extern TdePageCipher *tde_page_cipher_create(void); /* NULL: out of memory */
extern void tde_page_cipher_free(TdePageCipher *ctx);

/*
 * Give the context a key, tde_cipher_key_len(cipher) bytes long.
 */
extern int	tde_page_cipher_set_key(TdePageCipher *ctx, TdeCipher cipher,
									const uint8 *key);

/*
 * Overwrite all that the context knows of its key; allocates nothing.
 */
extern void tde_page_cipher_forget_key(TdePageCipher *ctx);

/*
 * Encrypt src, a page as it is in memory, into dst, BLCKSZ bytes each; they
 * may be the same, or must not overlap.  src is read once from front to back
 * so that hint bits may be set in it meanwhile.  The checksum field is copied
 * as it is: the caller sets it.
 *
 * Fails (-1) if src already carries the mark, has another layout version than
 * 4 or another page size, or if OpenSSL fails; dst is then zeroed.  The
 * caller deals with all-zero pages (tde_page_is_zero) itself.
 */
extern int	tde_page_encrypt(TdePageCipher *ctx, const void *src, void *dst,
							 BlockNumber blkno, ForkNumber forknum);

/*
 * The inverse, in place.  The mark is taken off.  Fails (-1) without touching
 * the page if it does not carry the mark; if OpenSSL fails the page is
 * zeroed.
 */
extern int	tde_page_decrypt(TdePageCipher *ctx, void *page,
							 BlockNumber blkno, ForkNumber forknum);

/*
 * Is the page all zeros?  Cheap for pages that are not: tests pd_upper first
 * and scans only if that is 0.
 */
extern bool tde_page_is_zero(const void *page);

#endif							/* TDE_PAGE_H */
