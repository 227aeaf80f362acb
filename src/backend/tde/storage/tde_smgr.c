/*-------------------------------------------------------------------------
 *
 * tde_smgr.c
 *	  The storage manager's functions that move pages.
 *
 * smgr.c's one dispatch entry names these functions in place of md.c's, which
 * they call.  Each asks anew whether the relation is encrypted, and nothing
 * about that is kept in an SMgrRelation: such an object may live on in a
 * process while its file number is given to another relation, and may have
 * been opened before the relation had its key.
 *
 * A read that is started here is completed in read_completion.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/tde_smgr.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "storage/aio.h"
#include "storage/bufmgr.h"
#include "storage/checksum.h"
#include "storage/md.h"
#include "storage/proc.h"
#include "storage_internal.h"
#include "tde/smgr.h"

/*
 * The key of a relation, NULL if it is plain.
 */
static inline const TdeRelationKey *
relation_key(SMgrRelation reln)
{
	return TdeIsActive() ? TdeGetRelationKey(&reln->smgr_rlocator) : NULL;
}

/*
 * Is replay to leave the relation alone, because its database was given up?
 */
static inline bool
replay_skips(SMgrRelation reln)
{
	return InRecovery && TdeIsActive() && TdeIsGivenUp(&reln->smgr_rlocator);
}

bool
TdeReplaySkips(RelFileLocator locator)
{
	RelFileLocatorBackend rlocator = {
		.locator = locator,
		.backend = INVALID_PROC_NUMBER
	};

	return TdeIsActive() && TdeIsGivenUp(&rlocator);
}

/*
 * smgr_nblocks.  Replay may have left pages in shared buffers of a relation
 * that was given up, or pages of zeros on disk: no session is to find them.
 */
BlockNumber
tde_smgr_nblocks(SMgrRelation reln, ForkNumber forknum)
{
	if (MyProc != NULL && MyProc->databaseId != InvalidOid &&
		TdeIsActive() && TdeIsGivenUp(&reln->smgr_rlocator))
		(void) relation_key(reln);

	return mdnblocks(reln, forknum);
}

/*
 * smgr_unlink.  The key of a relation may go when its main fork is gone, but
 * not at once: the key store waits until no replay can need it.
 */
void
tde_smgr_unlink(RelFileLocatorBackend rlocator, ForkNumber forknum,
				bool isRedo)
{
	mdunlink(rlocator, forknum, isRedo);

	if (!TdeIsActive() ||
		(forknum != MAIN_FORKNUM && forknum != InvalidForkNumber))
		return;
	TdeRelationUnlinked(&rlocator, isRedo);

	/* A temporary relation's key is gone now. */
	if (RelFileLocatorBackendIsTemp(rlocator))
		TdeForgetPageCiphers();
}

/*
 * smgr_extend.
 */
void
tde_smgr_extend(SMgrRelation reln, ForkNumber forknum, BlockNumber blocknum,
				const void *buffer, bool skipFsync)
{
	const TdeRelationKey *key;

	if (replay_skips(reln))
	{
		mdzeroextend(reln, forknum, blocknum, 1, skipFsync);
		return;
	}

	key = relation_key(reln);
	if (key != NULL)
		TdeEncryptPages(key, reln, forknum, blocknum, &buffer, 1, &buffer);

	mdextend(reln, forknum, blocknum, buffer, skipFsync);
}

/*
 * smgr_zeroextend.  Pages of zeros are the same in encrypted relations, but
 * one that must have a key and has none gets no pages.
 */
void
tde_smgr_zeroextend(SMgrRelation reln, ForkNumber forknum,
					BlockNumber blocknum, int nblocks, bool skipFsync)
{
	if (!replay_skips(reln))
		(void) relation_key(reln);

	mdzeroextend(reln, forknum, blocknum, nblocks, skipFsync);
}

/*
 * smgr_writev.
 */
void
tde_smgr_writev(SMgrRelation reln, ForkNumber forknum, BlockNumber blocknum,
				const void **buffers, BlockNumber nblocks, bool skipFsync)
{
	const TdeRelationKey *key;

	/* what replay did to it before it had to leave it, whoever writes it */
	if (TdeIsActive() && TdeIsGivenUp(&reln->smgr_rlocator))
		return;

	key = relation_key(reln);
	if (key == NULL)
	{
		mdwritev(reln, forknum, blocknum, buffers, nblocks, skipFsync);
		return;
	}

	while (nblocks > 0)
	{
		const void *pages[TDE_WRITE_PAGES];
		int			n;

		n = TdeEncryptPages(key, reln, forknum, blocknum, buffers, nblocks,
							pages);
		mdwritev(reln, forknum, blocknum, pages, n, skipFsync);

		blocknum += n;
		buffers += n;
		nblocks -= n;
	}
}

/*
 * Make a page that was read synchronously what the reader expects: one in
 * clear, which PageIsVerified() accepts if, and only if, the encrypted page
 * had the right checksum.  So what the reader then does with a damaged page,
 * under ignore_checksum_failure or zero_damaged_pages, is as upstream does.
 */
static void
finish_read_page(const TdeRelationKey *key, SMgrRelation reln,
				 ForkNumber forknum, BlockNumber blocknum, void *page)
{
	PageHeader	phdr = (PageHeader) page;
	bool		damaged = false;
	TdePageStatus status;

	if (PageIsNew(page))
		return;					/* all zeros, or damaged and seen as such */

	if (key != NULL && DataChecksumsEnabled())
		damaged = pg_checksum_page(page, blocknum) != phdr->pd_checksum;

	status = TdeDecryptPage(key, page, blocknum, forknum);

	if (status != TDE_PAGE_OK)
	{
		/* the lost mark of a page with a bad checksum is part of the damage */
		if (status == TDE_PAGE_NOT_ENCRYPTED && damaged &&
			!ignore_checksum_failure)
			return;

		TdeReportPage(status, &reln->smgr_rlocator, forknum, blocknum,
					  _(tde_cipher_error()), ERROR);
	}

	if (key != NULL && DataChecksumsEnabled())
	{
		uint16		checksum = pg_checksum_page(page, blocknum);

		if (!damaged)
			phdr->pd_checksum = checksum;
		else if (phdr->pd_checksum == checksum)
			phdr->pd_checksum = 0;	/* never a valid one */
	}
}

/*
 * smgr_readv.
 */
void
tde_smgr_readv(SMgrRelation reln, ForkNumber forknum, BlockNumber blocknum,
			   void **buffers, BlockNumber nblocks)
{
	const TdeRelationKey *key;

	if (replay_skips(reln))
	{
		for (BlockNumber i = 0; i < nblocks; i++)
			memset(buffers[i], 0, BLCKSZ);
		return;
	}

	key = relation_key(reln);
	mdreadv(reln, forknum, blocknum, buffers, nblocks);

	for (BlockNumber i = 0; i < nblocks; i++)
		finish_read_page(key, reln, forknum, blocknum + i, buffers[i]);
}

/*
 * smgr_startreadv.
 */
void
tde_smgr_startreadv(PgAioHandle *ioh, SMgrRelation reln, ForkNumber forknum,
					BlockNumber blocknum, void **buffers, BlockNumber nblocks)
{
	if (replay_skips(reln))
		TdeStartRead(ioh, forknum, NULL, true);
	else if (TdeIsActive())
	{
		/*
		 * For the startup process an error is the end, and a process must not
		 * end with a handle that it has not used.
		 */
		if (InRecovery && TdeRelationKeyIsLost(&reln->smgr_rlocator))
			pgaio_io_release(ioh);

		TdeStartRead(ioh, forknum, TdeGetRelationKey(&reln->smgr_rlocator),
					 false);
	}

	mdstartreadv(ioh, reln, forknum, blocknum, buffers, nblocks);
}

/*
 * Called in redo, where a fork that is missing is about to be created because
 * a record wants to change it: the relation is dropped further on.  Whether
 * it was encrypted nobody knows any more if its key is gone too, so that it
 * gets a key of this node.
 *
 * Only the main fork matters: the others hold no user data, and those of
 * living plain relations are created in this way every day.
 */
void
TdeRedoCreateMissing(SMgrRelation reln, ForkNumber forknum)
{
	if (forknum == MAIN_FORKNUM && TdeIsActive() &&
		(!TdeRelationHasKey(&reln->smgr_rlocator) ||
		 TdeRelationKeyIsLost(&reln->smgr_rlocator)) &&
		!smgrexists(reln, MAIN_FORKNUM))
		TdeCreateFallbackKey(&reln->smgr_rlocator);
}

/*
 * Called in redo before a page of the relation is read, or made without being
 * read from its full-page image.  That page has to be written some time, so a
 * key that cannot be had stops replay here, where the record is known and a
 * database can be given up, and not the next checkpoint and each one after it.
 */
void
TdeRedoBeforeChange(SMgrRelation reln, ForkNumber forknum)
{
	TdeRedoCreateMissing(reln, forknum);
	if (!replay_skips(reln))
		(void) relation_key(reln);
}

/*
 * Will a write to the relation be encrypted?  Its checksum is then computed
 * after that, and the buffer manager need not compute one, nor copy the page
 * for it.
 */
bool
TdeWriteEncrypts(SMgrRelation reln)
{
	return (TdeIsActive() && TdeIsGivenUp(&reln->smgr_rlocator)) ||
		relation_key(reln) != NULL;
}
