/*-------------------------------------------------------------------------
 *
 * storage.h
 *	  Encryption of relation files: the storage manager's functions that move
 *	  pages, the completion of asynchronous reads, and the decision which new
 *	  storage gets a key.
 *
 * See src/backend/tde/storage/README.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/storage.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORAGE_H
#define TDE_STORAGE_H

#include "storage/aio_types.h"
#include "storage/block.h"
#include "storage/relfilelocator.h"
#include "storage/smgr.h"
#include "utils/rel.h"

/* ---- page I/O: entries of smgr.c's dispatch table ---- */

extern void tde_smgr_init(void);
extern void tde_smgr_create(SMgrRelation reln, ForkNumber forknum, bool isRedo);
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

/* ---- who gets encrypted ---- */

/*
 * Does the access method encrypt (tde_heap, or another made with its
 * handler)?
 */
extern bool TdeAccessMethodEncrypts(Oid amoid);

/*
 * Should storage made now for the relation be encrypted?  Tables, matviews
 * and TOAST tables by their access method, indexes by their table's, owned
 * sequences by their owner's.
 */
extern bool TdeRelationWantsKey(Relation rel);

/*
 * Note, for RelationCreateStorage(), that the storage about to be made at
 * this locator is to be encrypted, or that it is to be plain.  The note lasts
 * until it is consumed or the (sub)transaction ends.
 */
extern void TdeNoteStorage(const RelFileLocator *rlocator, bool encrypted);

/*
 * Called by RelationCreateStorage() before the file is made: consumes the
 * note; creates the key, or forgets a stale one.
 */
extern void TdePrepareStorage(const RelFileLocatorBackend *rlocator);

/* At the end of a (sub)transaction: drop notes that nobody consumed. */
extern void TdeForgetNotes(void);

#endif							/* TDE_STORAGE_H */
