/*-------------------------------------------------------------------------
 *
 * clear_pages.c
 *	  Which pages in clear recovery believes where WAL is encrypted.
 *
 * Who can write to an archive, but has no key, cannot make an encrypted page
 * that means something.  He can make one in clear.  So inside an encrypted epoch
 * recovery believes one such page only, P1 of the next epoch, and of that only
 * what the server's scope key authenticates: it contains the epoch's record, which
 * states where the WAL before it ends, and nothing else but the announcement of
 * a record that was cut off there.
 *
 * Whether a reader that was sent to a position is in an encrypted epoch, the
 * file of epochs says, which has those in clear as well.  It came with the data
 * directory, not from the archive.
 *
 * The WAL in pg_wal after a crash is this server's own.  It may end in pages of
 * an earlier use of their place, which are no attack, so all this is for archive
 * recovery and standbys.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/clear_pages.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "tde/settings.h"
#include "wal_internal.h"

/*
 * The data of a record at offset *at of a page, *len bytes; *at is moved
 * behind it.  NULL if there is no record of that kind there, or if it goes
 * beyond the page or has more than data.
 */
static const uint8 *
record_data(const char *page, size_t *at, RmgrId rmid, uint8 info, size_t *len)
{
	XLogRecord	record;
	const char *p = page + *at + SizeOfXLogRecord;
	uint32		size;

	if (*at + SizeOfXLogRecord + SizeOfXLogRecordDataHeaderLong > XLOG_BLCKSZ)
		return NULL;
	memcpy(&record, page + *at, sizeof(record));
	if (record.xl_rmid != rmid ||
		(record.xl_info & ~XLR_INFO_MASK) != info ||
		record.xl_tot_len > XLOG_BLCKSZ - *at)
		return NULL;
	if ((uint8) *p == XLR_BLOCK_ID_DATA_SHORT)
	{
		size = (uint8) p[1];
		p += SizeOfXLogRecordDataHeaderShort;
	}
	else if ((uint8) *p == XLR_BLOCK_ID_DATA_LONG)
	{
		memcpy(&size, p + 1, sizeof(size));
		p += SizeOfXLogRecordDataHeaderLong;
	}
	else
		return NULL;
	if (record.xl_tot_len != (uint64) (p - page - *at) + size)
		return NULL;
	*len = size;
	*at += MAXALIGN(record.xl_tot_len);
	return (const uint8 *) p;
}

/*
 * The record of an epoch on a page that has the form of P1; else NULL.
 */
static const uint8 *
epoch_on_page(const char *page, size_t *len)
{
	const XLogPageHeaderData *header = (const XLogPageHeaderData *) page;
	size_t		at = XLogPageHeaderSize(header);
	const uint8 *data;

	if ((header->xlp_info & XLP_FIRST_IS_CONTRECORD) ||
		header->xlp_rem_len != 0)
		return NULL;
	if ((header->xlp_info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) &&
		record_data(page, &at, RM_XLOG_ID, XLOG_OVERWRITE_CONTRECORD,
					len) == NULL)
		return NULL;
	data = record_data(page, &at, RM_TDE_ID, XLOG_TDE_WAL_EPOCH, len);
	if (data == NULL || at != XLOG_BLCKSZ)
		return NULL;
	*len = tde_wal_epoch_length(data, *len);
	return data;
}

/*
 * Why the page is not to be believed, a translated phrase; NULL if it is.
 */
static const char *
check_p1(const XLogReaderState *state, XLogRecPtr pageptr,
		 char *problem, size_t problem_size)
{
	const char *page = state->readBuf;
	const XLogPageHeaderData *header = (const XLogPageHeaderData *) page;
	const uint8 *record;
	size_t		len;
	TdeWalEpoch epoch;
	TdeWalKeyStatus status;

	record = epoch_on_page(page, &len);
	if (record == NULL)
		return _("it is in clear, and not the beginning of a new epoch");
	status = tde_wal_epoch_authenticate(record, len, &epoch,
										problem, problem_size);
	tde_wipe(epoch.key, sizeof(epoch.key));
	if (status != TDE_WAL_KEY_FOUND)
		return problem;
	if (epoch.system_identifier != GetSystemIdentifier())
		return _("it begins an epoch of another database system");
	if (epoch.start != pageptr + XLOG_BLCKSZ || epoch.tli != header->xlp_tli)
		return _("it begins an epoch of another place");

	/*
	 * The reader knows where WAL ended, unless it was sent right here.  Where
	 * a record was cut off, its page ends with what there is of it.
	 */
	if (state->NextRecPtr > pageptr || epoch.prev_end == state->NextRecPtr ||
		((header->xlp_info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) &&
		 epoch.prev_end == pageptr))
		return NULL;
	snprintf(problem, problem_size,
			 _("it begins an epoch after WAL that ends at %X/%X, not at %X/%X"),
			 LSN_FORMAT_ARGS(epoch.prev_end),
			 LSN_FORMAT_ARGS(state->NextRecPtr));
	return problem;
}

/*
 * Recovery may not end here.  Only a standby goes on: the right page may yet
 * come from another source.  And crash recovery, after which one that was
 * asked for looks at the archive.
 */
static int
refuse(XLogReaderState *state, XLogRecPtr pageptr, const char *why)
{
	char		name[MAXFNAMELEN];
	XLogSegNo	segno;

	/* Replay may yet bring what is missing. */
	if (state->nonblocking)
		return XLREAD_WOULDBLOCK;

	XLByteToSeg(pageptr, segno, wal_segment_size);
	XLogFileName(name, state->seg.ws_tli, segno, wal_segment_size);
	tde_wal_reader_fail(state, "could not accept page at %X/%X of WAL segment %s: %s",
						LSN_FORMAT_ARGS(pageptr), name, why);
	if (StandbyMode && !PromoteIsTriggered())
		tde_wal_unread_page = pageptr;
	else if (InArchiveRecovery)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("%s", state->errormsg_buf),
				 errhint("Restore the segment from another copy of the archive. If pg_tde_archive_decrypt has made it, restore it with pg_tde_restore_encrypt, or set \"%s\" if nobody but you can write to the archive.",
						 "pg_tde.accept_clear_wal")));
	return XLREAD_FAIL;
}

static bool
is_judged(void)
{
	return ArchiveRecoveryRequested && !tde_accept_clear_wal &&
		(AmStartupProcess() || !IsUnderPostmaster);
}

/*
 * The newest epoch of the file's timeline, or of those it came from, that began
 * before the page decides.
 */
char *
tde_wal_ask_epochs(TimeLineID tli, XLogRecPtr pageptr, bool *encrypted)
{
	char	   *problem;
	size_t		len;
	size_t		position = 0;
	size_t		epoch_len;
	const uint8 *p;
	const char *reason;
	XLogRecPtr	newest = InvalidXLogRecPtr;
	List	   *history = NIL;
	uint8	   *file = tde_wal_epochs_read(&len, &problem);

	*encrypted = false;
	if (file == NULL)
		return problem;
	while ((p = tde_wal_epochs_next(file, len, &position, &epoch_len)) != NULL)
	{
		TdeWalEpoch epoch;

		(void) tde_wal_epoch_decode(p, epoch_len, &epoch, &reason);
		if (epoch.start > pageptr || epoch.start < newest || epoch.tli > tli)
			continue;
		if (history == NIL)
			history = readTimeLineHistory(tli);
		if (tliOfPointInHistory(epoch.start, history) != epoch.tli)
			continue;			/* of a branch that was given up */
		newest = epoch.start;
		*encrypted = epoch.id != 0;
	}
	list_free_deep(history);
	pfree(file);
	return NULL;
}

int
tde_wal_check_clear_page(XLogReaderState *state, XLogRecPtr pageptr,
						 int readLen)
{
	bool		encrypted = state->tde_epoch_id != 0;
	char		problem[MAXPGPATH];
	const char *why;

	if (!is_judged())
		return readLen;
	if (XLogRecPtrIsInvalid(state->tde_epoch_start))
	{
		why = tde_wal_ask_epochs(state->seg.ws_tli, pageptr, &encrypted);
		if (why != NULL)
			return refuse(state, pageptr, why);
		if (!encrypted)
			state->tde_epoch_start = pageptr;
	}
	if (!encrypted)
		return readLen;

	if (tde_wal_page_key_id(state->readBuf) & TDE_WAL_DECRYPTED)
		why = _("it is in clear, decrypted for an archive");
	else if (readLen < XLOG_BLCKSZ)
		why = _("it is in clear, and incomplete");
	else
		why = check_p1(state, pageptr, problem, sizeof(problem));
	return why == NULL ? readLen : refuse(state, pageptr, why);
}
