/*-------------------------------------------------------------------------
 *
 * scrub.c
 *	  Keeps WAL in clear out of segments that encrypted WAL goes to.
 *
 * A segment that is recycled has its old content until it is overwritten, page
 * by page.  Once WAL is encrypted nobody expects anything in clear in pg_wal,
 * and what is copied from there: the last segment of a timeline, which is
 * archived with the suffix .partial, or that of a backup with -X fetch.  So
 *
 *	- where WAL goes from clear to encrypted, the startup process removes the
 *	  segments recycled for later, and zeroes what is behind the end of WAL;
 *	- a segment with WAL in clear is removed and not recycled;
 *	- the receiver of WAL zeroes leftovers in clear in a segment that it opens;
 *	- what is behind the end of a timeline is zeroed before it is archived.
 *
 * A leftover is told by its page's header: a page of WAL states its position,
 * and is a leftover if that is not where it is.  Nothing else is removed.
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
#include "common/file_utils.h"
#include "storage/fd.h"
#include "tde/settings.h"
#include "wal_internal.h"

/* What a page of a segment is. */
typedef enum PageContent
{
	PAGE_IN_PLACE,				/* WAL of this position, or encrypted */
	PAGE_EMPTY,
	PAGE_LEFTOVER,				/* WAL in clear of another position */
} PageContent;

/*
 * Read the header of a page and judge it; *in_clear if it is WAL in clear, of
 * whatever position.  False with errno set if it cannot be read.
 */
static bool
look_at_page(int fd, off_t offset, XLogRecPtr pageaddr, PageContent *content,
			 bool *in_clear)
{
	XLogPageHeaderData header;
	static const XLogPageHeaderData zeros;
	uint32		id;
	ssize_t		n;

	errno = 0;
	n = pg_pread(fd, &header, sizeof(header), offset);
	if (n != sizeof(header))
	{
		if (n >= 0)
			errno = EIO;
		return false;
	}
	id = tde_wal_page_key_id(&header);
	*in_clear = id == 0 || (id & TDE_WAL_DECRYPTED);
	if (memcmp(&header, &zeros, sizeof(header)) == 0)
	{
		*content = PAGE_EMPTY;
		*in_clear = false;
	}
	else if (*in_clear && header.xlp_pageaddr != pageaddr)
		*content = PAGE_LEFTOVER;
	else
		*content = PAGE_IN_PLACE;
	return true;
}

static void
report_segment(int elevel, const char *action, const char *path)
{
	ereport(elevel,
			(errcode_for_file_access(),
			 errmsg("could not remove WAL in clear from file \"%s\": could not %s: %m",
					path, action)));
}

/* Is what is written encrypted, or will it be? */
static bool
is_to_be_encrypted(void)
{
	return tde_wal_encrypt || TdeWalIsEncrypted();
}

/*
 * Zero a piece of a segment; the caller syncs it.
 */
static void
zero(int fd, const char *path, off_t from, off_t to)
{
	errno = 0;
	if (from < to && pg_pwrite_zeros(fd, to - from, from) != to - from)
	{
		if (errno == 0)
			errno = ENOSPC;
		report_segment(ERROR, "write", path);
	}
}

static void
sync_and_close(int fd, const char *path)
{
	if (pg_fsync(fd) != 0)
		report_segment(ERROR, "fsync", path);
	close(fd);
}

static int
open_segment(const char *path)
{
	int			fd = BasicOpenFile(path, O_RDWR | PG_BINARY);

	if (fd < 0)
		report_segment(ERROR, "open", path);
	return fd;
}

/*
 * Zero all behind a position in a segment, whatever it is.  It is in no
 * page that anybody writes.
 */
static void
zero_behind(const char *path, XLogRecPtr end)
{
	int			fd = open_segment(path);

	zero(fd, path, XLogSegmentOffset(end, wal_segment_size),
		 wal_segment_size);
	sync_and_close(fd, path);
}

bool
TdeWalMayRecycle(const char *path)
{
	bool		may = true;
	int			fd;

	if (!is_to_be_encrypted())
		return true;
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return false;
	for (off_t at = 0; may && at < wal_segment_size; at += XLOG_BLCKSZ)
	{
		PageContent content;
		bool		in_clear;

		may = look_at_page(fd, at, InvalidXLogRecPtr, &content, &in_clear) &&
			!in_clear;
	}
	close(fd);
	return may;
}

void
TdeWalScrubSegment(XLogSegNo segno, TimeLineID tli)
{
	char		path[MAXPGPATH];
	XLogRecPtr	start;
	int			nzeroed = 0;
	int			fd;

	if (!is_to_be_encrypted())
		return;
	XLogFilePath(path, tli, segno, wal_segment_size);
	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, start);
	fd = open_segment(path);
	for (off_t at = 0; at < wal_segment_size; at += XLOG_BLCKSZ)
	{
		PageContent content;
		bool		in_clear;

		if (!look_at_page(fd, at, start + at, &content, &in_clear))
			report_segment(ERROR, "read", path);
		if (content != PAGE_LEFTOVER)
			continue;
		zero(fd, path, at, at + XLOG_BLCKSZ);
		nzeroed++;
	}
	if (nzeroed == 0)
	{
		close(fd);
		return;
	}
	sync_and_close(fd, path);
	ereport(DEBUG1,
			(errmsg_internal("zeroed %d pages of WAL in clear in recycled file \"%s\"",
							 nzeroed, path)));
}

void
TdeWalScrubBehindEnd(const char *path, XLogRecPtr end)
{
	if (is_to_be_encrypted())
		zero_behind(path, end);
}

/*
 * Remove the segments that were recycled for later, after that of "end".
 * Whether one was, its first page tells.
 */
static int
remove_recycled_segments(XLogRecPtr end)
{
	XLogSegNo	end_segno;
	DIR		   *dir;
	struct dirent *de;
	int			nremoved = 0;

	XLByteToPrevSeg(end, end_segno, wal_segment_size);
	dir = AllocateDir(XLOGDIR);
	while ((de = ReadDir(dir, XLOGDIR)) != NULL)
	{
		char		path[MAXPGPATH];
		XLogSegNo	segno;
		TimeLineID	tli;
		XLogRecPtr	start;
		PageContent content;
		bool		in_clear;
		bool		read;
		int			fd;

		if (!IsXLogFileName(de->d_name))
			continue;
		XLogFromFileName(de->d_name, &tli, &segno, wal_segment_size);
		if (segno <= end_segno)
			continue;
		XLogFilePath(path, tli, segno, wal_segment_size);
		XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, start);
		fd = open_segment(path);
		read = look_at_page(fd, 0, start, &content, &in_clear);
		close(fd);
		if (!read)
			report_segment(ERROR, "read", path);
		if (content != PAGE_LEFTOVER)
			continue;
		if (durable_unlink(path, ERROR) == 0)
			nremoved++;
	}
	FreeDir(dir);
	return nremoved;
}

void
tde_wal_scrub_ahead(XLogRecPtr end, TimeLineID tli)
{
	XLogRecPtr	next_page = (end + XLOG_BLCKSZ - 1) / XLOG_BLCKSZ * XLOG_BLCKSZ;
	char		path[MAXPGPATH];
	XLogSegNo	segno;
	int			nremoved;

	/* Nothing is behind the last page of a segment. */
	if (XLogSegmentOffset(next_page, wal_segment_size) != 0)
	{
		XLByteToSeg(next_page, segno, wal_segment_size);
		XLogFilePath(path, tli, segno, wal_segment_size);
		zero_behind(path, next_page);
	}
	nremoved = remove_recycled_segments(end);
	if (nremoved > 0)
		ereport(LOG,
				(errmsg_plural("removed %d recycled WAL segment with WAL in clear",
							   "removed %d recycled WAL segments with WAL in clear",
							   nremoved, nremoved)));
}
