/*-------------------------------------------------------------------------
 *
 * failed_start.c
 *	  WAL behind the checkpoint of a clean shutdown, for programs.
 *
 * A server that was shut down, and whose next start failed, may have the
 * beginning of an epoch behind the checkpoint (see after_shutdown.c of the
 * server).  It counts as WAL: who goes on from there reads it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/failed_start.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "common/logging.h"
#include "port/pg_crc32c.h"
#include "tde/fe_key_store.h"
#include "tde/wal_archive.h"

/*
 * The page of WAL at a position; false if there is none.
 */
static bool
read_page(const char *pgdata, const ControlFileData *control,
		  XLogRecPtr pageaddr, char *page)
{
	char		name[MAXFNAMELEN];
	char	   *path;
	XLogSegNo	segno;
	int			fd;
	ssize_t		n;

	XLByteToSeg(pageaddr, segno, control->xlog_seg_size);
	XLogFileName(name, control->checkPointCopy.ThisTimeLineID, segno,
				 control->xlog_seg_size);
	path = psprintf("%s/" XLOGDIR "/%s", pgdata, name);
	fd = open(path, O_RDONLY | PG_BINARY, 0);
	if (fd < 0 && errno == ENOENT)
		return false;
	if (fd < 0)
		pg_fatal("could not open file \"%s\": %m", path);
	n = pg_pread(fd, page, XLOG_BLCKSZ,
				 XLogSegmentOffset(pageaddr, control->xlog_seg_size));
	if (n < 0)
		pg_fatal("could not read file \"%s\": %m", path);
	close(fd);
	pfree(path);
	return n == XLOG_BLCKSZ &&
		((XLogPageHeader) page)->xlp_magic == XLOG_PAGE_MAGIC &&
		((XLogPageHeader) page)->xlp_pageaddr == pageaddr;
}

/* Is the record valid whose data, to the end of the page, begin there? */
static bool
is_valid(const char *page, const char *data)
{
	const char *record = data - SizeOfXLogRecordDataHeaderLong -
		SizeOfXLogRecord;
	const char *rest = record + SizeOfXLogRecord;
	pg_crc32c	crc;
	pg_crc32c	stated;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, rest, page + XLOG_BLCKSZ - rest);
	COMP_CRC32C(crc, record, offsetof(XLogRecord, xl_crc));
	FIN_CRC32C(crc);
	memcpy(&stated, record + offsetof(XLogRecord, xl_crc), sizeof(stated));
	return EQ_CRC32C(crc, stated);
}

XLogRecPtr
tde_fe_wal_end(const char *pgdata, const ControlFileData *control,
			   XLogRecPtr end)
{
	PGAlignedXLogBlock page;
	TdeWalEpoch epoch;
	const uint8 *data;
	size_t		len;
	const char *reason;

	if (control->state != DB_SHUTDOWNED ||
		!read_page(pgdata, control, TYPEALIGN64(XLOG_BLCKSZ, end), page.data))
		return end;
	data = tde_wal_page_find_epoch((uint8 *) page.data, XLOG_BLCKSZ, &len);
	if (data == NULL || !is_valid(page.data, (const char *) data) ||
		tde_wal_epoch_decode(data, len, &epoch, &reason) < 0 ||
		epoch.prev_end != end)
		return end;
	return epoch.start;
}
