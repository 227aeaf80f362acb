/*-------------------------------------------------------------------------
 *
 * wal_archive.h
 *	  WAL pages for an archive in clear, and back; specified in
 *	  doc/wal-format.md.
 *
 * Nothing here allocates, raises or does I/O.  A page is whole, of "size" bytes,
 * and aligned; its header says what it is, and is believed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/wal_archive.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_ARCHIVE_H
#define TDE_WAL_ARCHIVE_H

#include "tde/wal_page.h"

/*
 * Decrypt a page, in place, and set TDE_WAL_DECRYPTED in its id.  0, or -1 with
 * tde_cipher_error().
 */
extern int	tde_wal_page_archive(TdeCtr *ctx, uint8 *page, size_t size);

/*
 * Encrypt such a page again, under the same key, and clear the bit.  If the
 * page is valid WAL it is the very page that was there before; in any case it
 * reads the same.
 */
extern int	tde_wal_page_restore(TdeCtr *ctx, uint8 *page, size_t size);

/*
 * The record of an epoch in a page in clear: *len bytes, in the format of
 * wal_epoch.h (which the caller checks); NULL if there is none.
 */
extern const uint8 *tde_wal_page_find_epoch(const uint8 *page, size_t size,
											size_t *len);

#endif							/* TDE_WAL_ARCHIVE_H */
