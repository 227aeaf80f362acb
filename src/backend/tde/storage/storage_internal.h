/*-------------------------------------------------------------------------
 *
 * storage_internal.h
 *	  Encryption and decryption of single pages on their way to and from
 *	  relation files.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/storage/storage_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORAGE_INTERNAL_H
#define TDE_STORAGE_INTERNAL_H

#include "storage/smgr.h"
#include "tde/keys.h"
#include "tde/page.h"

/*
 * What can be wrong with a page that was read.  The values travel in eight
 * bits of a PgAioResult.
 */
typedef enum TdePageStatus
{
	TDE_PAGE_OK = 0,
	TDE_PAGE_NO_KEY,			/* encrypted, but the relation has no key */
	TDE_PAGE_NOT_ENCRYPTED,		/* in clear, but the relation has a key */
	TDE_PAGE_CIPHER_FAILED,		/* OpenSSL refused */
} TdePageStatus;

/*
 * Pages that one call of md's write function gets at most; also the size of
 * the private buffer that they are encrypted in.
 */
#define TDE_WRITE_PAGES		16

/*
 * A prefix of the pages of a write, encrypted: fills out[] with pointers to
 * at most TDE_WRITE_PAGES pages that stay as they are until the next call,
 * and returns their number.  Raises an error for a page that must not be
 * written.
 */
extern int	TdeEncryptPages(const TdeRelationKey *key, SMgrRelation reln,
							ForkNumber forknum, BlockNumber blocknum,
							const void **pages, BlockNumber npages,
							const void **out);

/*
 * Decrypt a page that was read, in place; key is NULL for a plain relation.
 * Does not allocate and does not raise, so that it may be called in a
 * critical section.  A page of zeros, or one so damaged that pd_upper is 0,
 * is left alone.
 */
extern TdePageStatus TdeDecryptPage(const TdeRelationKey *key, void *page,
									BlockNumber blocknum, ForkNumber forknum);

/*
 * Say what is wrong with a page.  "reason" is OpenSSL's reason, where this
 * process knows it, else NULL.  May be called in a critical section if elevel
 * is less than ERROR.
 */
extern void TdeReportPage(TdePageStatus status,
						  const RelFileLocatorBackend *rlocator,
						  ForkNumber forknum, BlockNumber blocknum,
						  const char *reason, int elevel);

/*
 * The process's cipher contexts (page_ciphers.c).  TdePageCiphersInit() makes
 * them, in the process from which all others are forked; TdeGetPageCipher()
 * returns one that is set up for the key, or NULL if OpenSSL failed, and
 * allocates nothing.  It may be used until the next call.
 */
extern void TdePageCiphersInit(void);
extern TdePageCipher *TdeGetPageCipher(const TdeRelationKey *key);

#endif							/* TDE_STORAGE_INTERNAL_H */
