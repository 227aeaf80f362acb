/*-------------------------------------------------------------------------
 *
 * read_completion.c
 *	  Decryption of what an asynchronous read has read.
 *
 * A read is started in one process and may be completed in any other: by an
 * I/O worker, or, with io_uring, by whoever drains the ring of the process
 * that started it.  Completion runs in a critical section, where the key
 * could not be looked up.  So the process that starts a read puts the key
 * into a slot in shared memory, one for each I/O handle, and the process that
 * completes it takes it from there and wipes it.  The memory is locked and
 * left out of core dumps.
 *
 * A slot belongs to a read if it has the generation of the handle, which
 * changes each time the handle is used again.  A read without a slot was
 * started while no relation of the cluster was encrypted.
 *
 * bufmgr.c calls us for each page after it has verified it, and so its
 * checksum, and before it lets others see it; and once at the end for the
 * result.  A page that we cannot accept is never zeroed on error: that is for
 * pages that are damaged, and this one is likely to be whole.  The result then
 * says what was wrong under a callback id of our own, since bufmgr.c's own
 * uses all bits of it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/read_completion.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "storage/aio_internal.h"
#include "storage/aio_subsys.h"
#include "storage/proc.h"
#include "storage_internal.h"
#include "tde/smgr.h"

typedef struct ReadSlot
{
	uint64		generation;		/* of the handle; 0: slot is not in use */
	bool		encrypted;		/* key is valid */
	bool		zero;			/* the pages are given up */
	bool		zero_stranger;	/* another relation's page may be zeroed */
	uint8		failed_status;	/* TdePageStatus of the first failure */
	uint8		failed_offset;	/* of its block in the read */
	TdeRelationKey key;
} ReadSlot;

/* One for each of pgaio_ctl->io_handles. */
static ReadSlot *read_slots = NULL;

/*
 * error_data of a result with our callback id: bits 0 to 7 are the status,
 * bits 16 to 22 the offset of the block.  Bits 9 to 15 stay what bufmgr.c put
 * there: shared_buffer_readv_complete_local() takes them from any result as
 * the number of checksum failures.
 */
#define RESULT_STATUS_MASK		0xFF
#define RESULT_CHECKFAIL_MASK	(0x7F << 9)
#define RESULT_OFFSET_SHIFT		16

StaticAssertDecl(PG_IOV_MAX <= 128 && PGAIO_RESULT_ERROR_BITS >= 23,
				 "no room for a block offset in PgAioResult");

/*
 * Make the slots, or wipe them if this is a reinitialisation after a crash.
 * Called where shared memory is initialised, after AioShmemInit().
 */
void
TdeAioShmemInit(void)
{
	bool		locked;
	Size		size = mul_size(pgaio_ctl->io_handle_count, sizeof(ReadSlot));

	if (read_slots != NULL)
		tde_wipe(read_slots, size);
	else
	{
		read_slots = tde_secure_alloc(size, true, &locked);
		if (read_slots == NULL)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not allocate %zu bytes of memory for the keys of reads: %m",
							size)));
	}

	TdePageCiphersInit();
}

/*
 * A read is about to be staged: remember the relation's key, or that it has
 * none, for its completion; or that whatever is read is to become zeros.
 */
void
TdeStartRead(PgAioHandle *ioh, ForkNumber forknum, const TdeRelationKey *key,
			 bool zero)
{
	ReadSlot   *slot = &read_slots[pgaio_io_get_id(ioh)];

	slot->generation = ioh->generation;
	slot->failed_status = TDE_PAGE_OK;
	slot->zero = zero;
	slot->encrypted = (key != NULL);
	if (key != NULL)
		tde_copy_relation_key(&slot->key, key);

	/*
	 * A base backup can hold pages of the free space map and visibility map
	 * of an older relation beside the key of a newer one that got its number;
	 * and a standby that starts again replays an older, plain relation over
	 * the files of a newer, encrypted one.  Replay repairs the other forks by
	 * full page images before it reads them.
	 */
	slot->zero_stranger = InRecovery && !reachedConsistency &&
		(forknum == FSM_FORKNUM || forknum == VISIBILITYMAP_FORKNUM);
}

/*
 * One page of a read is there and is verified: decrypt it.  Returns false,
 * having logged why, if the page must not be used.  See
 * TdeCompleteReadPage(), which is what bufmgr.c calls.
 */
bool
TdeDecryptReadPage(PgAioTargetData *td, uint8 buf_off, void *page)
{
	PgAioHandle *ioh = (PgAioHandle *)
		((char *) td - offsetof(PgAioHandle, target_data));
	ReadSlot   *slot = &read_slots[pgaio_io_get_id(ioh)];
	BlockNumber blocknum = td->smgr.blockNum + buf_off;
	RelFileLocatorBackend rlocator;
	TdePageStatus status;

	/* started while nothing was encrypted */
	if (slot->generation != ioh->generation)
	{
		memset(slot, 0, sizeof(ReadSlot));
		slot->generation = ioh->generation;
	}

	if (unlikely(slot->zero))
	{
		memset(page, 0, BLCKSZ);
		return true;
	}
	status = TdeDecryptPage(slot->encrypted ? &slot->key : NULL, page,
							blocknum, td->smgr.forkNum);
	if (likely(status == TDE_PAGE_OK))
		return true;

	rlocator.locator = td->smgr.rlocator;
	rlocator.backend = td->smgr.is_temp ? ioh->owner_procno :
		INVALID_PROC_NUMBER;

	if ((status == TDE_PAGE_NOT_ENCRYPTED || status == TDE_PAGE_NO_KEY) &&
		slot->zero_stranger)
	{
		memset(page, 0, BLCKSZ);
		ereport(LOG,
				(status == TDE_PAGE_NO_KEY ?
				 errmsg("zeroing block %u of relation \"%s\", which is encrypted",
						blocknum, relpath(rlocator, td->smgr.forkNum).str) :
				 errmsg("zeroing block %u of relation \"%s\", which is not encrypted",
						blocknum, relpath(rlocator, td->smgr.forkNum).str)));
		return true;
	}

	if (slot->failed_status == TDE_PAGE_OK)
	{
		slot->failed_status = status;
		slot->failed_offset = buf_off;
	}

	/* for the server log, as bufmgr.c does: the reader may never look */
	TdeReportPage(status, &rlocator, td->smgr.forkNum, blocknum,
				  _(tde_cipher_error()), LOG_SERVER_ONLY);

	return false;
}

/*
 * All pages of a read are done: turn the result into ours if one of them
 * failed, and wipe the key.
 */
PgAioResult
TdeFinishRead(PgAioHandle *ioh, PgAioResult result)
{
	ReadSlot   *slot = &read_slots[pgaio_io_get_id(ioh)];

	if (slot->generation != ioh->generation)
		return result;

	if (slot->failed_status != TDE_PAGE_OK)
	{
		result.id = PGAIO_HCB_TDE_READV;
		result.status = PGAIO_RS_ERROR;
		result.error_data &= RESULT_CHECKFAIL_MASK;
		result.error_data |= slot->failed_status |
			(uint32) slot->failed_offset << RESULT_OFFSET_SHIFT;
	}

	slot->generation = 0;
	if (slot->encrypted)
		tde_wipe(&slot->key, sizeof(slot->key));

	return result;
}

/*
 * The report callback: raise or log what went wrong in the process that
 * started the read.
 */
static void
tde_readv_report(PgAioResult result, const PgAioTargetData *td, int elevel)
{
	RelFileLocatorBackend rlocator;

	rlocator.locator = td->smgr.rlocator;
	rlocator.backend = td->smgr.is_temp ? MyProcNumber : INVALID_PROC_NUMBER;

	TdeReportPage(result.error_data & RESULT_STATUS_MASK, &rlocator,
				  td->smgr.forkNum,
				  td->smgr.blockNum +
				  (result.error_data >> RESULT_OFFSET_SHIFT),
				  NULL, elevel);
}

/* Never registered with a handle: results name it. */
const PgAioHandleCallbacks aio_tde_readv_cb = {
	.report = tde_readv_report,
};
