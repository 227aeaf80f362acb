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
#include "utils/memutils.h"

void
TdeShmemInit(void)
{
	static bool tested = false;
	bool		keys_locked;
	bool		aio_locked;
	bool		wal_locked;

	TdeLockMemory();

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
	(void) TdeGetKeyMemory(&keys_locked);
	aio_locked = TdeAioShmemInit();
	wal_locked = TdeWalShmemInit();

	if (!keys_locked || !aio_locked || !wal_locked)
		ereport(LOG,
				(errmsg("could not lock the memory that holds encryption keys"),
				 errdetail("The keys could be written to swap space."),
				 errhint("Raise the limit of locked memory (\"ulimit -l\", or LimitMEMLOCK in a systemd unit), or encrypt the swap space.")));
}

/*
 * smgr_init: called in each process.
 */
void
tde_smgr_init(void)
{
	mdinit();
	if (tde_lock_memory)
		TdeLockMemory();
	TdeKeysProcessInit();
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

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
