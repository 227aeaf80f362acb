/*-------------------------------------------------------------------------
 *
 * wal_reader.h
 *	  Reading encrypted WAL: what xlogreader.c calls.
 *
 * Every reader of WAL, in the server and in programs, gets its pages through
 * ReadPageInternal(), which hands them to tde_wal_read_page().  A page says by
 * the id in its header which epoch's key it is under; the reader says which
 * epoch it is in (state->tde_epoch_id and tde_epoch_start), having met that
 * epoch's record.  Where keys come from depends on who reads: the server
 * (src/backend/tde/wal) and programs (src/fe_utils/tde) each set
 * tde_wal_key_source.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/wal_reader.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_READER_H
#define TDE_WAL_READER_H

#include "access/xlogreader.h"
#include "tde/wal_epoch.h"

typedef enum TdeWalKeyStatus
{
	TDE_WAL_KEY_FOUND,
	TDE_WAL_KEY_UNKNOWN,		/* no epoch of that id is known (yet) */
	TDE_WAL_KEY_UNUSABLE,		/* it is known, but its key cannot be had */
} TdeWalKeyStatus;

typedef struct TdeWalKeySource
{
	/*
	 * Find the key of a page's epoch.  UNKNOWN or UNUSABLE come with the
	 * reason in "problem", a translated phrase.  Does not raise.
	 */
	TdeWalKeyStatus (*find) (const TdeWalEpochQuery *query,
							 TdeWalEpoch *epoch,
							 char *problem, size_t problem_size);

	/*
	 * Look further for a key that find did not: true if it should be asked
	 * again.  May be NULL.
	 */
	bool		(*rebuild) (void);

	/*
	 * A reader has decoded the record of an epoch.  NULL if who reads learns
	 * of epochs in another way.
	 */
	void		(*learn) (const uint8 *record, size_t len);

	/*
	 * A page cannot be read for want of its key: message says all about it.
	 * If this returns (or is NULL) the page is an invalid one.
	 */
	void		(*no_key) (XLogRecPtr pageptr, const char *message);

	/*
	 * Is a page in clear, whose header is valid, to be believed?  Returns
	 * readLen if so, and else as tde_wal_read_page does.  NULL where all are.
	 */
	int			(*check_clear_page) (XLogReaderState *state,
									 XLogRecPtr pageptr, int readLen);
} TdeWalKeySource;

extern PGDLLIMPORT const TdeWalKeySource *tde_wal_key_source;

/*
 * A page that the source of keys could not do anything with, if it says so;
 * InvalidXLogRecPtr when that page, or a better one in its place, was read.
 */
extern PGDLLIMPORT XLogRecPtr tde_wal_unread_page;

/*
 * Decrypt the page at the beginning of state->readBuf, of which readLen bytes
 * were read and whose header is valid.  Returns readLen; XLREAD_WOULDBLOCK if
 * its key may come to be known by replay and the reader does not want to wait;
 * or XLREAD_FAIL, with the reason in state->errormsg_buf.
 */
extern int	tde_wal_read_page(XLogReaderState *state, XLogRecPtr pageptr,
							  int readLen);

/*
 * Say what is wrong in state->errormsg_buf.  fmt is translated.
 */
extern void tde_wal_reader_fail(XLogReaderState *state, const char *fmt,...)
			pg_attribute_printf(2, 3);

/* A record was decoded: if it begins an epoch, the reader is in it now. */
extern void tde_wal_enter_epoch(XLogReaderState *state,
								const DecodedXLogRecord *record);

/*
 * A reader is not needed any more: give back the cipher contexts, which all
 * readers of a process share, with the keys in them.  One that goes on asks
 * for its key again.
 */
extern void tde_wal_reader_forget_keys(void);

/* The reader will go on somewhere else: it is in no epoch that it knows of. */
static inline void
tde_wal_leave_epoch(XLogReaderState *state)
{
	state->tde_epoch_id = 0;
	state->tde_epoch_start = InvalidXLogRecPtr;
}

#endif							/* TDE_WAL_READER_H */
