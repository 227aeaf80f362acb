/*-------------------------------------------------------------------------
 *
 * after_shutdown.c
 *	  What starts that failed have written behind a clean shutdown's checkpoint.
 *
 * pg_control says "shut down" until a start has succeeded, so that a start which
 * fails, for want of disk space say, costs nobody his unlogged tables.  By then
 * it may have begun an epoch, and written what a server logs before anybody may
 * write: settings that have changed, and a checkpoint.  Nothing else can be there.
 * The next start goes on behind all that, as it would after a crash, but replays
 * nothing, since nothing was changed; only what was said last of settings is taken
 * note of, so that this start contradicts it where it must.
 *
 * WAL that contains anything else is not of failed starts: pg_control was put
 * back to an older state.  It is ignored as upstream ignores all that is behind
 * such a checkpoint.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/after_shutdown.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "wal_internal.h"

/*
 * Can an epoch's record, or one in the epoch of the record just read, follow
 * that?
 */
static bool
may_go_on(const XLogReaderState *reader)
{
	int			offset = reader->EndRecPtr % XLOG_BLCKSZ;

	return tde_wal_page_key_id(reader->readBuf) != 0 || offset == 0 ||
		tde_wal_is_marker(reader->EndRecPtr,
						  (const uint8 *) reader->readBuf + offset);
}

/* Is it one of those that a start writes before anybody else may? */
static bool
is_of_start(const XLogRecord *record)
{
	if (record->xl_rmid != RM_XLOG_ID)
		return TdeWalIsEpochRecord(record);

	switch (record->xl_info & ~XLR_INFO_MASK)
	{
		case XLOG_OVERWRITE_CONTRECORD:
		case XLOG_CHECKPOINT_SHUTDOWN:
		case XLOG_PARAMETER_CHANGE:
			return true;
		default:
			return false;
	}
}

XLogRecPtr
TdeWalAfterShutdown(XLogPrefetcher *prefetcher, TdeWalReadRecord read_record,
					TimeLineID tli)
{
	XLogReaderState *reader = XLogPrefetcherGetReader(prefetcher);
	XLogRecPtr	checkpoint = reader->ReadRecPtr;
	XLogRecPtr	last = checkpoint;
	bool		in_epoch = tde_wal_page_key_id(reader->readBuf) != 0;
	XLogRecPtr	settings = InvalidXLogRecPtr;
	XLogRecord *record;

	if (!may_go_on(reader))
		return checkpoint;

	while ((record = read_record(prefetcher, DEBUG1, false, tli)) != NULL)
	{
		if (!is_of_start(record) ||
			(!in_epoch && !TdeWalIsEpochRecord(record)))
		{
			last = checkpoint;
			break;
		}
		in_epoch = true;
		if (TdeWalIsEpochRecord(record))
			tde_redo_wal_epoch(reader);
		last = reader->ReadRecPtr;
		if (record->xl_rmid == RM_XLOG_ID &&
			(record->xl_info & ~XLR_INFO_MASK) == XLOG_PARAMETER_CHANGE)
			settings = last;
	}

	if (last != checkpoint && !XLogRecPtrIsInvalid(settings))
	{
		XLogPrefetcherBeginRead(prefetcher, settings);
		(void) read_record(prefetcher, PANIC, false, tli);
		GetRmgr(RM_XLOG_ID).rm_redo(reader);
	}
	XLogPrefetcherBeginRead(prefetcher, last);
	(void) read_record(prefetcher, PANIC, false, tli);
	if (last != checkpoint)
		ereport(LOG,
				(errmsg("WAL of a start that failed ends at %X/%X, after the shutdown's checkpoint at %X/%X",
						LSN_FORMAT_ARGS(reader->EndRecPtr),
						LSN_FORMAT_ARGS(checkpoint))));
	return last;
}
