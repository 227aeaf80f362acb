/*-------------------------------------------------------------------------
 *
 * begin_epoch.c
 *	  The startup process begins a new epoch of WAL, under a new key.
 *
 * Nothing that may have been written is ever written again.  What WAL there is
 * ends at E, inside a page or at a page's end.  The rest of E's page stays
 * unused: a marker there says that WAL goes on with the next page.  That one,
 * P1, is in clear and holds the epoch's record, which ends with the page; the
 * page after it, P2, is the first one of the epoch, and all inserting begins
 * there.  If WAL ends with a record that was cut off at a page's end, P1 is the
 * page after that, and begins with the record that says so.
 *
 * Both pages are written here, durably, before any other process may insert or
 * send WAL.  A crash in between leaves WAL that ends at E again.  If the start
 * fails later, the next one goes on behind what this one wrote: after a crash
 * because that is replayed, after a clean shutdown see after_shutdown.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/begin_epoch.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "../keys/principal/principal_internal.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogarchive.h"
#include "access/xlogrecord.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "common/file_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "tde/settings.h"
#include "utils/injection_point.h"
#include "utils/timestamp.h"
#include "wal_internal.h"

StaticAssertDecl(XLOG_BLCKSZ >= 4096,
				 "WAL blocks must have 4 kB or more: the record of an epoch is on one page");

/*
 * Of the last record's page, or what that record begins; 0: in clear, and never
 * encrypted.
 */
static uint32 last_epoch_id = 0;

static bool needs_checkpoint = false;

/*
 * This comes before anything is changed on disk, so that the next start, or
 * promotion, finds what this one did.
 */
static void
refuse_unread_wal(XLogRecPtr end)
{
	if (!tde_wal_goes_on(end))
		return;
	ereport(FATAL,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("WAL does not end at %X/%X, but goes on with a page that cannot be used",
					LSN_FORMAT_ARGS(end)),
			 errdetail("The page at %X/%X could not be decrypted, or is not to be believed.",
					   LSN_FORMAT_ARGS(tde_wal_unread_page)),
			 errhint("See the server log for the key that is missing or for what is wrong with the page.")));
}

bool
TdeWalNeedsCheckpoint(void)
{
	return needs_checkpoint;
}

/* ---- the key ---- */

/*
 * The server's scope with one generation, i, encoded.
 */
static uint8 *
encode_generation(const TdeScope *scope, int i, size_t *len)
{
	TdeScope	single = *scope;
	uint8	   *encoded = palloc(tde_scope_encoded_size(1));

	single.generations += i;
	single.ngenerations = 1;
	*len = tde_scope_encode(&single, encoded);
	return encoded;
}

/*
 * The scope that a new epoch's key is under: the server's, with its newest
 * generation only, encoded; and that generation's key.
 */
static uint8 *
server_scope(TdeId *generation, uint8 *scope_key, size_t *len)
{
	TdeWalObstacle obstacle;
	TdeScope   *scope = tde_wal_server_scope(scope_key, &obstacle);
	uint8	   *encoded;

	if (scope == NULL)
		tde_wal_report_obstacle(&obstacle);
	*generation = scope->generations[scope->ngenerations - 1].id;
	encoded = encode_generation(scope, scope->ngenerations - 1, len);
	tde_scope_free(scope);
	return encoded;
}

/*
 * The scope for the tag of an epoch in clear: any generation whose key is in
 * memory will do, as that of the WAL which recovery has just read is.  NULL if
 * there is none: that WAL had been decrypted for an archive.
 */
static uint8 *
scope_for_tag(TdeId *generation, uint8 *scope_key, size_t *len)
{
	char		reason[256];
	TdeScope   *scope = tde_scope_read(TDE_SCOPE_SERVER, InvalidOid, reason,
									   sizeof(reason));
	uint8	   *encoded = NULL;

	*len = 0;
	if (scope == NULL)
		return NULL;
	for (int i = scope->ngenerations - 1; i >= 0 && encoded == NULL; i--)
	{
		*generation = scope->generations[i].id;
		if (tde_generation_key(generation, scope_key))
			encoded = encode_generation(scope, i, len);
	}
	tde_scope_free(scope);
	if (encoded == NULL)
		memset(generation, 0, sizeof(*generation));
	return encoded;
}

static void
draw(void *to, size_t len)
{
	if (tde_random(to, len) < 0)
		ereport(FATAL,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make a key for WAL: %s",
						_(tde_cipher_error()))));
}

/*
 * Draw an epoch's key, and its id unless it is in clear, and encode it into
 * buf; returns the length.
 */
static size_t
encode_new_epoch(TdeWalEpoch *epoch, bool encrypt, uint8 *buf)
{
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	uint8	   *scope;
	size_t		len;

	scope = (encrypt ? server_scope : scope_for_tag)
		(&epoch->generation, scope_key, &epoch->scope_len);
	epoch->scope = scope;
	if (scope != NULL)
		draw(epoch->key, sizeof(epoch->key));
	while (encrypt &&
		   (epoch->id == 0 || tde_wal_epoch_id_is_used(epoch->id)))
	{
		draw(&epoch->id, sizeof(epoch->id));
		epoch->id &= ~TDE_WAL_DECRYPTED;
	}

	len = tde_wal_epoch_encode(epoch, scope_key, buf);
	tde_wipe(scope_key, sizeof(scope_key));
	if (len == 0)
		ereport(FATAL,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make a key for WAL: %s",
						_(tde_cipher_error()))));
	if (scope != NULL)
		pfree(scope);
	return len;
}

/* ---- the pages ---- */

/*
 * Write a part of a page of WAL, or all of it, and fsync.  The page may be the
 * first of a segment that is not there yet.
 */
static void
write_wal(XLogRecPtr lsn, const char *data, size_t len, TimeLineID tli)
{
	XLogSegNo	segno;
	char		path[MAXPGPATH];
	int			fd;
	ssize_t		written;

	/* Makes the segment; its descriptor may be one for direct I/O. */
	XLByteToSeg(lsn, segno, wal_segment_size);
	close(XLogFileInit(segno, tli));

	XLogFilePath(path, tli, segno, wal_segment_size);
	fd = BasicOpenFile(path, O_RDWR | PG_BINARY);
	if (fd < 0)
		ereport(PANIC,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	errno = 0;
	written = pg_pwrite(fd, data, len,
						XLogSegmentOffset(lsn, wal_segment_size));
	if (written != (ssize_t) len)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(PANIC,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
	}
	if (pg_fsync(fd) != 0)
		ereport(PANIC,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", path)));
	close(fd);
}

/*
 * The header of a page.
 */
static char *
begin_page(char *page, XLogRecPtr pageaddr, TimeLineID tli)
{
	XLogLongPageHeader header = (XLogLongPageHeader) page;

	header->std.xlp_magic = XLOG_PAGE_MAGIC;
	header->std.xlp_tli = tli;
	header->std.xlp_pageaddr = pageaddr;
	header->std.xlp_info = XLP_BKP_REMOVABLE;
	if (XLogSegmentOffset(pageaddr, wal_segment_size) != 0)
		return page + SizeOfXLogShortPHD;

	header->std.xlp_info |= XLP_LONG_HEADER;
	header->xlp_sysid = GetSystemIdentifier();
	header->xlp_seg_size = wal_segment_size;
	header->xlp_xlog_blcksz = XLOG_BLCKSZ;
	return page + SizeOfXLogLongPHD;
}

/*
 * Put a record there, whose data are the len bytes given and zeros after them
 * that make it "size" bytes long.  Returns where it ends.
 */
static char *
put_record(char *at, RmgrId rmid, uint8 info, XLogRecPtr prev,
		   const void *data, size_t len, size_t size)
{
	XLogRecord *record = (XLogRecord *) at;
	char	   *p = at + SizeOfXLogRecord;
	pg_crc32c	crc;

	record->xl_tot_len = size;
	record->xl_prev = prev;
	record->xl_info = info;
	record->xl_rmid = rmid;
	if (size - SizeOfXLogRecord - SizeOfXLogRecordDataHeaderShort <= PG_UINT8_MAX)
	{
		*p++ = (char) XLR_BLOCK_ID_DATA_SHORT;
		*p++ = (char) (size - SizeOfXLogRecord -
					   SizeOfXLogRecordDataHeaderShort);
	}
	else
	{
		uint32		data_len = size - SizeOfXLogRecord -
			SizeOfXLogRecordDataHeaderLong;

		*p++ = (char) XLR_BLOCK_ID_DATA_LONG;
		memcpy(p, &data_len, sizeof(data_len));
		p += sizeof(data_len);
	}
	memcpy(p, data, len);

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, at + SizeOfXLogRecord, size - SizeOfXLogRecord);
	COMP_CRC32C(crc, at, offsetof(XLogRecord, xl_crc));
	FIN_CRC32C(crc);
	record->xl_crc = crc;
	return at + MAXALIGN(size);
}

/*
 * Make P1 and write it; returns the position of the epoch's record.
 */
static XLogRecPtr
write_epoch_page(XLogRecPtr pageaddr, TimeLineID tli, XLogRecPtr aborted,
				 XLogRecPtr prev, const uint8 *epoch, size_t epoch_len)
{
	PGAlignedXLogBlock block = {0};
	char	   *page = block.data;
	char	   *p = begin_page(page, pageaddr, tli);

	if (!XLogRecPtrIsInvalid(aborted))
	{
		xl_overwrite_contrecord overwrite = {
			.overwritten_lsn = aborted,
			.overwrite_time = GetCurrentTimestamp(),
		};
		XLogRecPtr	lsn = pageaddr + (p - page);

		((XLogPageHeader) page)->xlp_info |= XLP_FIRST_IS_OVERWRITE_CONTRECORD;
		p = put_record(p, RM_XLOG_ID, XLOG_OVERWRITE_CONTRECORD, prev,
					   &overwrite, sizeof(overwrite),
					   SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort +
					   sizeof(overwrite));
		prev = lsn;
	}
	(void) put_record(p, RM_TDE_ID, XLOG_TDE_WAL_EPOCH, prev,
					  epoch, epoch_len, page + XLOG_BLCKSZ - p);
	write_wal(pageaddr, page, XLOG_BLCKSZ, tli);
	return pageaddr + (p - page);
}

/*
 * End the page that WAL ends in.
 */
static void
write_marker(XLogRecPtr end, TimeLineID tli)
{
	PGAlignedXLogBlock rest = {0};

	tde_wal_make_marker(end, (uint8 *) rest.data);
	write_wal(end, rest.data, XLOG_BLCKSZ - end % XLOG_BLCKSZ, tli);
}

/* ---- the archiver ---- */

/*
 * The beginning of an epoch at "start" ended the segments from that on in which
 * WAL ended before, if any.  XLogWrite() does not write what ends them, so we
 * tell the archiver; if "again" only about those of which it may not know.
 */
static void
notify_archiver(TimeLineID tli, XLogRecPtr prev_end, XLogRecPtr start,
				bool again)
{
	XLogSegNo	segno;
	XLogSegNo	end_segno;
	char		name[MAXFNAMELEN];

	XLByteToSeg(prev_end, segno, wal_segment_size);
	XLByteToSeg(start, end_segno, wal_segment_size);
	for (; segno < end_segno; segno++)
	{
		XLogFileName(name, tli, segno, wal_segment_size);

		/* if that is wrong it is archived twice, which archives allow for */
		if (!again || !XLogArchiveIsReadyOrDone(name))
			XLogArchiveNotify(name);
	}
}

void
tde_wal_epoch_replayed(const TdeWalEpoch *epoch)
{
	if (XLogArchivingActive() && !ArchiveRecoveryRequested)
		notify_archiver(epoch->tli, epoch->prev_end, epoch->start, true);
}

/* ---- the checkpoint that fences stock servers off ---- */

/*
 * Is the record of the checkpoint that pg_control names in encrypted WAL?
 */
static bool
checkpoint_is_encrypted(const ControlFileData *control)
{
	XLogRecPtr	pageaddr = control->checkPoint - control->checkPoint % XLOG_BLCKSZ;
	XLogSegNo	segno;
	char		path[MAXPGPATH];
	PGAlignedXLogBlock page;
	int			fd;
	uint32		id;
	bool		encrypted;

	XLByteToSeg(pageaddr, segno, wal_segment_size);
	XLogFilePath(path, control->checkPointCopy.ThisTimeLineID, segno,
				 wal_segment_size);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return false;
	encrypted = pg_pread(fd, page.data, SizeOfXLogShortPHD,
						 XLogSegmentOffset(pageaddr, wal_segment_size)) ==
		(ssize_t) SizeOfXLogShortPHD &&
		((XLogPageHeader) page.data)->xlp_pageaddr == pageaddr;
	id = tde_wal_page_key_id(page.data);
	encrypted = encrypted && id != 0 && (id & TDE_WAL_DECRYPTED) == 0;
	close(fd);
	return encrypted;
}

/* ---- all together ---- */

bool
tde_wal_will_encrypt(void)
{
	/* While pg_upgrade fills a new cluster, it may have no key yet. */
	return tde_wal_encrypt && !IsBootstrapProcessingMode() && !IsBinaryUpgrade;
}

void
TdeWalRecoveryEnds(const XLogReaderState *reader)
{
	/* What stops a promotion does so before it has changed anything. */
	refuse_unread_wal(reader->EndRecPtr);
	last_epoch_id = reader->tde_epoch_id;

	/*
	 * A page that was decrypted for an archive is in no epoch, but may not be
	 * written on: what is added would be encrypted under the page's key if it
	 * goes to an archive and back.
	 */
	if (last_epoch_id == 0)
		last_epoch_id = tde_wal_page_key_id(reader->readBuf);
	tde_wal_check_writing(last_epoch_id != 0);
}

XLogRecPtr
TdeWalBeginEpoch(const EndOfWalRecoveryInfo *info, XLogRecPtr end,
				 TimeLineID tli, const ControlFileData *control,
				 XLogRecPtr *last_record)
{
	bool		encrypt = tde_wal_will_encrypt();
	TdeWalEpoch epoch = {0};
	uint8		encoded[TDE_WAL_EPOCH_MAX_LEN];
	size_t		len;
	XLogRecPtr	page;
	bool		in_file;

	*last_record = info->lastRec;
	page = (end + XLOG_BLCKSZ - 1) / XLOG_BLCKSZ * XLOG_BLCKSZ;

	/*
	 * Where WAL is in clear and stays so nothing begins, unless a start that
	 * failed has left an epoch in the file, but not in WAL: who reads what
	 * follows would take it for forged.
	 */
	if (!encrypt && last_epoch_id == 0)
	{
		(void) tde_wal_ask_epochs(tli, page + XLOG_BLCKSZ, &in_file);
		if (!in_file)
			return end;
	}

	if (encrypt)
		tde_wal_scrub_for_epoch(page, tli, last_epoch_id == 0 ||
								(last_epoch_id & TDE_WAL_DECRYPTED) != 0);
	if (tli != info->endOfLogTLI)
		tde_wal_scrub_old_timeline(end, info->endOfLogTLI);
	INJECTION_POINT("tde-wal-scrubbed", NULL);

	epoch.tli = tli;
	epoch.prev_tli = info->lastRecTLI;
	epoch.prev_end = end;
	epoch.start = page + XLOG_BLCKSZ;
	epoch.system_identifier = GetSystemIdentifier();
	epoch.created = tde_now();
	len = encode_new_epoch(&epoch, encrypt, encoded);
	tde_wal_epoch_store(encoded, len);
	INJECTION_POINT("tde-wal-epoch-stored", NULL);
	if (encrypt)
		needs_checkpoint = !checkpoint_is_encrypted(control);

	if (end < page)
		write_marker(end, tli);
	INJECTION_POINT("tde-wal-epoch-marker", NULL);
	*last_record = write_epoch_page(page, tli, info->abortedRecPtr,
									info->lastRec, encoded, len);
	INJECTION_POINT("tde-wal-epoch-written", NULL);

	if (XLogArchivingActive())
		notify_archiver(tli, end, epoch.start, false);

	tde_copy_key(tde_wal_writing->key, epoch.key, TDE_WAL_KEY_LEN);
	tde_wal_writing->id = epoch.id;
	tde_wipe(epoch.key, sizeof(epoch.key));
	tde_wal_encrypted_since(encrypt ? epoch.start : InvalidXLogRecPtr, tli);
	if (encrypt)
		ereport(LOG,
				(errmsg("WAL is encrypted from %X/%X on, with key %08X",
						LSN_FORMAT_ARGS(epoch.start), epoch.id)));
	else
		ereport(LOG,
				(errmsg("WAL is in clear from %X/%X on",
						LSN_FORMAT_ARGS(epoch.start))));
	return epoch.start;
}

bool
TdeWalShutdownNeedsSwitch(void)
{
	char		segment[MAXFNAMELEN];

	return TdeIsActive() && !tde_wal_will_encrypt() &&
		tde_find_encrypted_wal(GetXLogInsertRecPtr(), segment);
}
