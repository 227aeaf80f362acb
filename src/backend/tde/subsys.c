/*-------------------------------------------------------------------------
 *
 * subsys.c
 *	  What the server calls when it and its processes start, and in replay,
 *	  for all parts of encryption: keys, storage and WAL.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/subsys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/md.h"
#include "tde/monitor.h"
#include "tde/settings.h"
#include "tde/smgr.h"
#include "tde/subsys.h"
#include "tde/wal.h"
#include "tde/wal_reader.h"
#include "utils/memutils.h"

void
TdeShmemInit(void)
{
	static bool tested = false;

	if (!tested)
	{
		const char *failed = tde_cipher_self_test();

		if (failed)
			ereport(FATAL,
					(errmsg("self-test of the encryption library failed: %s",
							failed),
					 errhint("The OpenSSL library in use does not compute what it should; do not use it.")));
		tested = true;
	}

	TdeKeysShmemInit();
	TdeAioShmemInit();
	TdeWalShmemInit();

	/* Now that all is there it can be told how much there is to lock. */
	TdeLockMemory();
	TdeNoteUnlockedMemory();
}

void
TdeShmemDetach(void)
{
	tde_secure_detach();
	TdeLockMemory();
}

/*
 * smgr_init: called in each process.
 */
void
tde_smgr_init(void)
{
	mdinit();
	/* Locks are not inherited; no key has been used since the fork. */
	tde_secure_relock();
	if (tde_lock_memory)
		TdeLockMemory();
	TdeKeysProcessInit();
	TdeNoteUnlockedMemory();
}

/*
 * What this process still needs it gets again.  The storage manager holds
 * interrupts off while it uses a key, and so this barrier.
 */
bool
TdeForgetObsoleteKeys(void)
{
	TdeKeysForgetStale();
	TdeForgetPageCiphers();
	tde_wal_reader_forget_keys();
	tde_wipe_stack();
	return true;
}

/*
 * Our resource manager's rm_redo.
 */
void
tde_redo(XLogReaderState *record)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "TDE redo",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	if (TdeWalIsEpochRecord((const XLogRecord *) &record->record->header))
		tde_redo_wal_epoch(record);
	else
		TdeKeysRedo(record);

	/* Scopes may have changed, or whether WAL is encrypted. */
	if ((XLogRecGetInfo(record) & ~XLR_INFO_MASK) != XLOG_TDE_KEYS)
		TdeWalWarnOfPromotion();

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
