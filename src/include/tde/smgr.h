/*-------------------------------------------------------------------------
 *
 * smgr.h
 *	  Encryption of relation files: the storage manager's functions that move
 *	  pages, and the completion of asynchronous reads.
 *
 * See src/backend/tde/storage/README.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/smgr.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SMGR_H
#define TDE_SMGR_H

#include "storage/aio.h"
#include "storage/block.h"
#include "storage/relfilelocator.h"
#include "storage/smgr.h"
#include "tde/keys.h"
#include "tde/page.h"
#include "tde/subsys.h"

/* ---- page I/O: entries of smgr.c's dispatch table ---- */

extern void tde_smgr_init(void);
extern BlockNumber tde_smgr_nblocks(SMgrRelation reln, ForkNumber forknum);
extern void tde_smgr_unlink(RelFileLocatorBackend rlocator, ForkNumber forknum,
							bool isRedo);
extern void tde_smgr_extend(SMgrRelation reln, ForkNumber forknum,
							BlockNumber blocknum, const void *buffer,
							bool skipFsync);
extern void tde_smgr_zeroextend(SMgrRelation reln, ForkNumber forknum,
								BlockNumber blocknum, int nblocks,
								bool skipFsync);
extern void tde_smgr_readv(SMgrRelation reln, ForkNumber forknum,
						   BlockNumber blocknum, void **buffers,
						   BlockNumber nblocks);
extern void tde_smgr_startreadv(PgAioHandle *ioh, SMgrRelation reln,
								ForkNumber forknum, BlockNumber blocknum,
								void **buffers, BlockNumber nblocks);
extern void tde_smgr_writev(SMgrRelation reln, ForkNumber forknum,
							BlockNumber blocknum, const void **buffers,
							BlockNumber nblocks, bool skipFsync);

/*
 * Called where redo creates a file that is missing because a record wants to
 * change it, before that: see there.
 */
extern void TdeRedoCreateMissing(SMgrRelation reln, ForkNumber forknum);

/* In redo, a page is about to be changed; FATAL if it could not be written. */
extern void TdeRedoBeforeChange(SMgrRelation reln, ForkNumber forknum);

/*
 * Called where redo wants to change a page: is the relation to be left alone,
 * because its database was given up in recovery?
 */
extern bool TdeReplaySkips(RelFileLocator locator);

/*
 * Will a write to the relation be encrypted, and get its checksum after that?
 * Raises the errors of TdeGetRelationKey().
 */
extern bool TdeWriteEncrypts(SMgrRelation reln);

/*
 * For tests that need damaged pages: while set, encrypted pages are written
 * with a checksum that is wrong.
 */
#ifdef USE_INJECTION_POINTS
extern PGDLLIMPORT bool tde_write_bad_checksums;
#define TdeWriteBadChecksums(bad) (tde_write_bad_checksums = (bad))
#else
#define TdeWriteBadChecksums(bad) ((void) (bad))
#endif

/* ---- completion of asynchronous reads ---- */

/*
 * Called by TdeShmemInit(), after AioShmemInit(): makes the memory that hands
 * keys from the start of a read to its completion, and the cipher contexts
 * that all processes inherit.
 */
extern void TdeAioShmemInit(void);

/* Overwrite the keys in all cipher contexts of this process. */
extern void TdeForgetPageCiphers(void);

/*
 * A read is about to be staged; key is NULL for a plain relation.  "zero" makes
 * zeros of whatever is read.
 */
extern void TdeStartRead(PgAioHandle *ioh, ForkNumber forknum,
						 const TdeRelationKey *key, bool zero);

extern bool TdeDecryptReadPage(PgAioTargetData *td, uint8 buf_off,
							   void *page);

/*
 * Called in the completion of a read for each page that was verified, before
 * its buffer becomes valid; td is the target data of the I/O handle.  Decrypts
 * the page where it is encrypted.  Returns false, having logged the reason, if
 * the page must not be used.  An encrypted page that nobody has a key for is
 * found even where no relation is known to be encrypted.
 */
static inline bool
TdeCompleteReadPage(PgAioTargetData *td, uint8 buf_off, void *page)
{
	if (!TdeIsActive() && likely(!tde_page_is_marked(page)))
		return true;

	return TdeDecryptReadPage(td, buf_off, page);
}

/*
 * Called at the end of that completion with the result so far; returns the
 * result.
 */
extern PgAioResult TdeFinishRead(PgAioHandle *ioh, PgAioResult result);

extern PGDLLIMPORT const PgAioHandleCallbacks aio_tde_readv_cb;

#endif							/* TDE_SMGR_H */
