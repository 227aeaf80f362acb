/*-------------------------------------------------------------------------
 *
 * wal.h
 *	  Encryption of WAL in the server.
 *
 * See src/backend/tde/wal/README.md, and doc/wal-format.md for the format.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/wal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_H
#define TDE_WAL_H

#include "access/xlogprefetcher.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "port/atomics.h"
#include "tde/wal_epoch.h"
#include "tde/xlog.h"

/*
 * In shared memory: the epoch that this server writes.  It is set by the
 * startup process before anybody may insert WAL and does not change until the
 * server stops, or reinitialises after a crash.
 */
typedef struct TdeWalWriting
{
	uint32		id;				/* 0: WAL is written in clear */
	uint8		key[TDE_WAL_KEY_LEN];
	pg_atomic_uint32 replaying; /* id of the epoch that was replayed last */

	/* see scrub.c; invalid if unknown */
	pg_atomic_uint64 encrypted_since;
	pg_atomic_uint32 encrypted_tli;
} TdeWalWriting;

extern PGDLLIMPORT TdeWalWriting *tde_wal_writing;

/*
 * Called by TdeShmemInit(): makes that memory the first time, wipes it when
 * shared memory is made anew.
 */
extern void TdeWalShmemInit(void);

/*
 * Is WAL encrypted: that which the server writes, or, in recovery, that which
 * it replays?
 */
extern bool TdeWalIsEncrypted(void);

/* ---- insertion (insert.c), called by xlog.c ---- */

extern void tde_wal_copy(char *dst, XLogRecPtr lsn, const char *src, int len);
extern void tde_wal_copy_flush(void);
extern void tde_wal_copy_end(void);

/* A page's header was made in a WAL buffer. */
static inline void
TdeWalInitPage(void *page)
{
	if (tde_wal_writing->id != 0)
		tde_wal_page_set_key_id(page, tde_wal_writing->id);
}

/*
 * Copy a piece of a record to its place in a WAL buffer, at position lsn.  What
 * arrives there is encrypted; it need not arrive before the flush.
 */
static inline void
TdeWalCopy(char *dst, XLogRecPtr lsn, const char *src, int len)
{
	if (likely(tde_wal_writing->id == 0))
		memcpy(dst, src, len);
	else
		tde_wal_copy(dst, lsn, src, len);
}

/* To be called before the next page is asked for, which lets this one go. */
static inline void
TdeWalCopyFlush(void)
{
	if (unlikely(tde_wal_writing->id != 0))
		tde_wal_copy_flush();
}

/* The record is complete: the padding that follows is encrypted, too. */
static inline void
TdeWalCopyEnd(void)
{
	if (unlikely(tde_wal_writing->id != 0))
		tde_wal_copy_end();
}

/* ---- epochs (epochs.c) ---- */

/* Is it the record of an epoch? */
static inline bool
TdeWalIsEpochRecord(const XLogRecord *record)
{
	return record->xl_rmid == RM_TDE_ID &&
		(record->xl_info & ~XLR_INFO_MASK) == XLOG_TDE_WAL_EPOCH;
}

/*
 * Such a record may begin a timeline: which, and after which.  PANIC if it is
 * damaged.
 */
extern void TdeWalEpochTimelines(XLogReaderState *record,
								 TimeLineID *tli, TimeLineID *prev_tli);

extern void tde_redo_wal_epoch(XLogReaderState *record);

/* ---- a clean start (after_shutdown.c), called by FinishWalRecovery() ---- */

/* ReadRecord() of xlogrecovery.c. */
typedef XLogRecord *(*TdeWalReadRecord) (XLogPrefetcher *prefetcher, int emode,
										 bool fetching_ckpt,
										 TimeLineID replayTLI);

/*
 * The reader has read the checkpoint of a clean shutdown: where the last record
 * is that starts which failed have written behind that, or the checkpoint's own
 * place.  The reader has read that record last.
 */
extern XLogRecPtr TdeWalAfterShutdown(XLogPrefetcher *prefetcher,
									  TdeWalReadRecord read_record,
									  TimeLineID tli);

/* ---- beginning to write (begin_epoch.c), called by StartupXLOG() ---- */

/*
 * Recovery has read its last record, and nothing has been changed on disk yet:
 * which epoch was that in?  FATAL if WAL is to be encrypted and there is no
 * key for it, or if there is WAL at the end for which there is no key.
 */
extern void TdeWalRecoveryEnds(const XLogReaderState *reader);

/*
 * Begin an epoch after the end of WAL, "end", on timeline tli, if WAL is to be
 * encrypted or was so far; after that WAL goes on at the position returned,
 * and *last_record is the last record before it.  Else returns "end".
 */
extern XLogRecPtr TdeWalBeginEpoch(const EndOfWalRecoveryInfo *info,
								   XLogRecPtr end, TimeLineID tli,
								   const ControlFileData *control,
								   XLogRecPtr *last_record);

/*
 * Must there be a checkpoint before anything else is written?  A stock server
 * cannot read encrypted WAL and would take its beginning for the end.  If it
 * does not find its checkpoint either, it refuses to start.
 */
extern bool TdeWalNeedsCheckpoint(void);

/*
 * A server that shuts down, and writes WAL in clear: is there encrypted WAL in
 * the segment that its last checkpoint would be in?  Then that belongs into the
 * next one, so that the next start needs no key.
 */
extern bool TdeWalShutdownNeedsSwitch(void);

/* ---- standbys (promotion.c) ---- */

/*
 * Warn if this standby could not be promoted, or would then write WAL in clear after
 * encrypted, unless that was said.  For the startup process.
 */
extern void TdeWalWarnOfPromotion(void);

/*
 * Is a promotion to be refused?  The reason is reported.
 */
extern bool TdeWalRefusesPromotion(int elevel);

/* ---- no leftovers in clear (scrub.c), called by xlog.c and walreceiver.c ---- */

/*
 * May a segment that is not needed any more be used again?  Not if WAL is
 * encrypted and the segment has WAL in clear, or cannot be read.
 */
extern bool TdeWalMayRecycle(const char *path);

/*
 * Zero leftovers in clear in a segment that was opened for writing; only the
 * process that writes it may do so.
 */
extern void TdeWalScrubSegment(XLogSegNo segno, TimeLineID tli);

#endif							/* TDE_WAL_H */
