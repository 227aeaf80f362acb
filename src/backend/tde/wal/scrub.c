/*-------------------------------------------------------------------------
 *
 * scrub.c
 *	  Zeroes what WAL in clear has left behind in segments that encrypted WAL
 *	  is written to.
 *
 * PostgreSQL recycles segments: the file of a segment that is not needed any
 * more becomes one to come, with its old content.  Where WAL goes from clear to
 * encrypted, such files, and the rest of the segment that WAL has got to, still
 * have rows in clear.  They are overwritten only as WAL gets there, and are
 * copied, archived and backed up before that.
 *
 * So they are zeroed, durably, by the startup process: on a primary before the
 * epoch's first page is written, on a standby when the epoch's record is
 * replayed, before what follows is.  A crash in the middle thus leaves WAL that
 * is in clear, and the next start, or the replay of the same record, does it
 * again; there is no need for a mark.  Afterwards segments with WAL in clear are
 * removed instead of recycled (TdeWalMayRecycle), so there is nothing to do where
 * one encrypted epoch follows another.
 *
 * Content tells what is to be zeroed: each page that is not zero and whose header
 * does not say that it is encrypted.  A standby may have received WAL that it did
 * not replay yet, and where the primary went back to clear that is such pages,
 * too; but they are at the place that their headers state, which leftovers
 * never are.
 *
 * A page that a standby has received a part of has leftovers behind that part.
 * How far it received is known here while its walreceiver has just been stopped,
 * and at the end of recovery.  Where encrypted WAL is replayed that an earlier
 * start has received, it is not; so a standby that is to encrypt, or has replayed
 * encrypted WAL before, zeroes leftovers in each segment that it opens, as long as
 * it is not known that there are none.
 *
 * A restartpoint that is about to recycle a segment in clear when the first
 * encrypted epoch's record is replayed, on a standby without
 * pg_tde.wal_encrypt, does not: redo keeps it from installing segments.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/scrub.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/file_utils.h"
#include "miscadmin.h"
#include "postmaster/startup.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "tde/settings.h"
#include "utils/injection_point.h"
#include "utils/memutils.h"
#include "wal_internal.h"

/* Read at once. */
#define CHUNK_SIZE		(32 * XLOG_BLCKSZ)

static bool
is_encrypted(const char *page)
{
	uint32		id = tde_wal_page_key_id(page);

	return ((const XLogPageHeaderData *) page)->xlp_magic == XLOG_PAGE_MAGIC &&
		id != 0 && (id & TDE_WAL_DECRYPTED) == 0;
}

static bool
is_in_clear(const char *page)
{
	return !is_encrypted(page) && !pg_memory_is_all_zeros(page, XLOG_BLCKSZ);
}

static void
could_not_scrub(const char *path)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not overwrite WAL in clear in file \"%s\": %m",
					path),
			 errdetail("The file is to be used for encrypted WAL.")));
}

/*
 * Zero the pages in clear of a segment from offset "from" on, and fsync; only
 * leftovers, if so.  Returns the bytes zeroed, or -1 with errno.  The first
 * page is the last one to go, so that it tells whether this was done.
 */
static int64
scrub_segment(const char *path, XLogSegNo segno, size_t from,
			  bool only_leftovers)
{
	static char *buffer = NULL;
	XLogRecPtr	start;
	int64		zeroed = 0;
	int			fd;
	int			save_errno;

	if (buffer == NULL)
		buffer = MemoryContextAllocAligned(TopMemoryContext, CHUNK_SIZE,
										   PG_IO_ALIGN_SIZE, 0);
	fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	if (fd < 0)
		return -1;

	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, start);
	for (size_t end = wal_segment_size; end > from;)
	{
		size_t		chunk = (end - 1) / CHUNK_SIZE * CHUNK_SIZE;
		ssize_t		n;

		chunk = Max(chunk, from);
		n = pg_pread(fd, buffer, end - chunk, chunk);
		if (n < 0)
			goto fail;
		for (ssize_t i = (n - XLOG_BLCKSZ) / XLOG_BLCKSZ * XLOG_BLCKSZ;
			 i >= 0 && n >= XLOG_BLCKSZ; i -= XLOG_BLCKSZ)
		{
			const char *page = buffer + i;
			XLogPageHeader header = (XLogPageHeader) page;

			if (!is_in_clear(page) ||
				(only_leftovers && header->xlp_magic == XLOG_PAGE_MAGIC &&
				 header->xlp_pageaddr == start + chunk + i))
				continue;
			if (chunk + i == 0 && zeroed > 0 && pg_fsync(fd) != 0)
				goto fail;
			if (pg_pwrite_zeros(fd, XLOG_BLCKSZ, chunk + i) < 0)
				goto fail;
			zeroed += XLOG_BLCKSZ;
		}
		end = chunk;
	}
	if (zeroed > 0 && pg_fsync(fd) != 0)
		goto fail;
	if (CloseTransientFile(fd) != 0)
		return -1;
	return zeroed;

fail:
	save_errno = errno;
	CloseTransientFile(fd);
	errno = save_errno;
	return -1;
}

/*
 * Zero from a position to the end of its page, if the segment is there.
 */
static int64
scrub_page_from(const char *path, XLogRecPtr lsn)
{
	size_t		len = XLOG_BLCKSZ - lsn % XLOG_BLCKSZ;
	int			fd;

	fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 ||
		pg_pwrite_zeros(fd, len,
						XLogSegmentOffset(lsn, wal_segment_size)) < 0 ||
		pg_fsync(fd) != 0 ||
		CloseTransientFile(fd) != 0)
		could_not_scrub(path);
	return len;
}

/*
 * Is the first page of a segment, or another one with "whole", in clear?  -1 if
 * that cannot be told, with errno.
 */
static int
has_clear_pages(const char *path, bool whole)
{
	PGAlignedXLogBlock *pages;
	int			npages = whole ? CHUNK_SIZE / XLOG_BLCKSZ : 1;
	off_t		offset = 0;
	ssize_t		n;
	int			result = 0;
	int			fd;

	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return -1;
	pages = palloc_aligned((Size) npages * XLOG_BLCKSZ, PG_IO_ALIGN_SIZE, 0);
	do
	{
		n = pg_pread(fd, pages, (size_t) npages * XLOG_BLCKSZ, offset);
		for (int i = 0; result == 0 && (i + 1) * XLOG_BLCKSZ <= n; i++)
			result = is_in_clear(pages[i].data);
		offset += n;
	} while (whole && n > 0 && result == 0);
	pfree(pages);
	if (n < 0)
		result = -1;
	CloseTransientFile(fd);
	return result;
}

/*
 * Scrub the segments of a timeline (0: of all) from "from" on; those whose first
 * page is in clear, or all.
 */
static void
scrub_segments(XLogRecPtr from, TimeLineID tli, bool all, bool only_leftovers)
{
	DIR		   *dir;
	struct dirent *entry;
	XLogSegNo	first;
	int			nsegments = 0;
	int64		total = 0;

	XLByteToSeg(from, first, wal_segment_size);
	begin_startup_progress_phase();
	dir = AllocateDir(XLOGDIR);
	while ((entry = ReadDir(dir, XLOGDIR)) != NULL)
	{
		char		path[MAXPGPATH];
		XLogSegNo	segno;
		TimeLineID	segment_tli;
		int64		zeroed;
		size_t		offset = 0;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &segment_tli, &segno,
						 wal_segment_size);
		if (segno < first || (tli != 0 && segment_tli != tli))
			continue;
		ereport_startup_progress("overwriting WAL in clear in unused segments, elapsed time: %ld.%02d s, current segment: %s",
								 entry->d_name);
		snprintf(path, sizeof(path), XLOGDIR "/%s", entry->d_name);
		if (segno == first)
			offset = XLogSegmentOffset(from, wal_segment_size);
		else if (!all && has_clear_pages(path, false) == 0)
			continue;

		zeroed = scrub_segment(path, segno, offset, only_leftovers);
		if (zeroed < 0)
			could_not_scrub(path);
		if (zeroed > 0)
			nsegments++;
		total += zeroed;
		INJECTION_POINT("tde-wal-segment-scrubbed", NULL);
	}
	FreeDir(dir);
	if (total > 0)
		ereport(LOG,
				(errmsg_plural("overwrote %lld kB of WAL in clear in %d unused segment",
							   "overwrote %lld kB of WAL in clear in %d unused segments",
							   nsegments,
							   (long long) (total / 1024), nsegments)));
}

void
tde_wal_scrub_for_epoch(XLogRecPtr page, TimeLineID tli, bool after_clear)
{
	scrub_segments(page, tli, after_clear, false);
}

/*
 * From where on, and on which timeline, there is nothing but encrypted WAL in
 * segments: what the startup process knows of the epochs that it wrote or
 * replayed without a gap.
 */
void
tde_wal_encrypted_since(XLogRecPtr start, TimeLineID tli)
{
	pg_atomic_write_u64(&tde_wal_writing->encrypted_since, start);
	pg_atomic_write_u32(&tde_wal_writing->encrypted_tli, tli);
}

void
tde_wal_scrub_replayed(const TdeWalEpoch *epoch, bool after_clear)
{
	XLogRecPtr	received;
	TimeLineID	tli;
	char		path[MAXPGPATH];
	XLogSegNo	segno;

	if (epoch->id == 0)
	{
		tde_wal_encrypted_since(InvalidXLogRecPtr, 0);
		return;
	}
	/* In crash recovery it is an epoch that this server itself began. */
	if (after_clear && ArchiveRecoveryRequested)
	{
		/*
		 * Nobody else may write to segments now.  So the walreceiver is
		 * stopped, and the checkpointer kept from recycling; that ends when
		 * recovery asks for WAL to be streamed again.
		 */
		if (StandbyMode)
			XLogShutdownWalRcv();
		received = GetWalRcvFlushRecPtr(NULL, &tli);
		if (received >= epoch->start && received % XLOG_BLCKSZ != 0)
		{
			XLByteToSeg(received, segno, wal_segment_size);
			XLogFilePath(path, tli, segno, wal_segment_size);
			(void) scrub_page_from(path, received);
		}
		scrub_segments(epoch->start, 0, true, true);
	}
	if (after_clear ||
		pg_atomic_read_u32(&tde_wal_writing->encrypted_tli) != epoch->tli)
		tde_wal_encrypted_since(epoch->start, epoch->tli);
}

void
tde_wal_scrub_old_timeline(XLogRecPtr end, TimeLineID tli)
{
	char		path[MAXPGPATH];
	XLogSegNo	segno;
	XLogRecPtr	unused = end;
	size_t		offset;

	if (XLogSegmentOffset(end, wal_segment_size) == 0)
		return;					/* it is full */

	/* Where recovery had a target, valid WAL may follow. */
	if (recoveryTarget != RECOVERY_TARGET_UNSET)
		unused = GetWalRcvFlushRecPtr(NULL, NULL);

	XLByteToSeg(end, segno, wal_segment_size);
	XLogFilePath(path, tli, segno, wal_segment_size);
	if (unused >= end && unused % XLOG_BLCKSZ != 0 &&
		unused / wal_segment_size == end / wal_segment_size)
		(void) scrub_page_from(path, unused);
	offset = XLogSegmentOffset(end + XLOG_BLCKSZ - 1, wal_segment_size);
	offset -= offset % XLOG_BLCKSZ;
	if (offset > 0 && scrub_segment(path, segno, offset, true) < 0 &&
		errno != ENOENT)
		could_not_scrub(path);
}

/*
 * Is WAL in clear to be kept out?  A standby that will encrypt when it is
 * promoted prepares for that.
 */
static bool
is_to_be_encrypted(void)
{
	return tde_wal_will_encrypt() || TdeWalIsEncrypted();
}

/*
 * Is it known that a segment has been scrubbed, or written later?
 */
static bool
is_clean(XLogSegNo segno, TimeLineID tli)
{
	XLogRecPtr	since = pg_atomic_read_u64(&tde_wal_writing->encrypted_since);
	XLogSegNo	since_segno;

	XLByteToSeg(since, since_segno, wal_segment_size);
	return !XLogRecPtrIsInvalid(since) && segno > since_segno &&
		tli == pg_atomic_read_u32(&tde_wal_writing->encrypted_tli);
}

bool
TdeWalMayRecycle(const char *path)
{
	const char *slash = strrchr(path, '/');
	TimeLineID	tli;
	XLogSegNo	segno;

	if (!is_to_be_encrypted())
		return true;
	XLogFromFileName(slash + 1, &tli, &segno, wal_segment_size);
	return is_clean(segno, tli) || has_clear_pages(path, true) == 0;
}

void
TdeWalScrubSegment(XLogSegNo segno, TimeLineID tli)
{
	char		path[MAXPGPATH];

	if (!is_to_be_encrypted() || is_clean(segno, tli))
		return;
	XLogFilePath(path, tli, segno, wal_segment_size);
	if (scrub_segment(path, segno, 0, true) < 0)
		could_not_scrub(path);
}
