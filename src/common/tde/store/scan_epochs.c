/*-------------------------------------------------------------------------
 *
 * scan_epochs.c
 *	  Looking for the records of WAL epochs where they may be found when their
 *	  file is lost: on pages of WAL, and in what is left of the file.
 *
 * Nothing that is found is believed here.  An epoch that stands on a page of
 * WAL is at the place that it names itself; whoever takes it unwraps it, and
 * only so knows that a server of ours wrote it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/scan_epochs.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "store_reading.h"
#include "tde/wal_archive.h"
#ifndef FRONTEND
#include "storage/fd.h"
#define open_file(path)		OpenTransientFile(path, O_RDONLY | PG_BINARY)
#define close_file(fd)		CloseTransientFile(fd)
#else
#define open_file(path)		open(path, O_RDONLY | PG_BINARY, 0)
#define close_file(fd)		close(fd)
#endif

/* Read at once; pages. */
#define CHUNK			(64 * XLOG_BLCKSZ)

/*
 * Is it a page of WAL in clear, at that position?  One that was decrypted for
 * an archive has no epoch's record.
 */
static bool
may_have_epoch(const uint8 *page, XLogRecPtr pageaddr)
{
	const XLogPageHeaderData *header = (const XLogPageHeaderData *) page;

	return header->xlp_magic == XLOG_PAGE_MAGIC &&
		header->xlp_pageaddr == pageaddr &&
		(header->xlp_info & ~XLP_ALL_FLAGS) == 0 &&
		tde_wal_page_key_id(page) == 0;
}

static void
scan_page(const uint8 *page, XLogRecPtr pageaddr,
		  TdeEpochCallback callback, void *arg)
{
	TdeWalEpoch epoch;
	const uint8 *record;
	const char *reason;
	size_t		len;

	if (!may_have_epoch(page, pageaddr))
		return;
	record = tde_wal_page_find_epoch(page, XLOG_BLCKSZ, &len);
	if (record != NULL &&
		tde_wal_epoch_decode(record, len, &epoch, &reason) == 0 &&
		tde_wal_epoch_is_tagged(&epoch) &&
		epoch.tli == ((const XLogPageHeaderData *) page)->xlp_tli &&
		epoch.start == pageaddr + XLOG_BLCKSZ)
		callback(record, len, &epoch, arg);
}

bool
tde_store_scan_segment(const char *path, const char *name,
					   TdeEpochCallback callback, void *arg,
					   TdeStoreProblem *problem)
{
	uint8	   *buf;
	struct stat st;
	TimeLineID	tli;
	XLogSegNo	segno;
	XLogRecPtr	start;
	off_t		offset = 0;
	ssize_t		n = 0;
	int			fd = open_file(path);

	if (fd < 0)
	{
		tde_store_failed(problem, path,
						 gettext_noop("could not open file \"%s\": %m"));
		problem->missing = problem->errnum == ENOENT;
		return false;
	}
	if (fstat(fd, &st) != 0)
	{
		tde_store_failed(problem, path,
						 gettext_noop("could not stat file \"%s\": %m"));
		(void) close_file(fd);
		return false;
	}
	if (!S_ISREG(st.st_mode) || !IsValidWalSegSize(st.st_size))
	{
		tde_store_damaged(problem, path,
						  gettext_noop("it does not have the size of a WAL segment"));
		(void) close_file(fd);
		return false;
	}
	XLogFromFileName(name, &tli, &segno, st.st_size);
	XLogSegNoOffsetToRecPtr(segno, 0, st.st_size, start);

	buf = palloc(CHUNK);
	while (offset < st.st_size)
	{
		n = pg_pread(fd, buf, CHUNK, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < XLOG_BLCKSZ)
			break;
		n -= n % XLOG_BLCKSZ;
		for (ssize_t i = 0; i < n; i += XLOG_BLCKSZ)
			scan_page(buf + i, start + offset + i, callback, arg);
		offset += n;
	}
	if (n < 0)
		tde_store_failed(problem, path,
						 gettext_noop("could not read file \"%s\": %m"));
	(void) close_file(fd);
	pfree(buf);
	return n >= 0;
}

typedef struct NameList
{
	int			n;
	int			max;
	char	  **names;
} NameList;

static void
add_segment(const char *name, void *arg)
{
	NameList   *list = arg;

	if (!IsXLogFileName(name) && !IsPartialXLogFileName(name))
		return;
	if (list->n == list->max)
	{
		list->max *= 2;
		list->names = repalloc(list->names, sizeof(char *) * list->max);
	}
	list->names[list->n++] = pstrdup(name);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

char	  **
tde_store_list_segments(const char *directory, int *n,
						TdeStoreProblem *problem)
{
	NameList	list = {.max = 64};

	list.names = palloc(sizeof(char *) * list.max);
	if (!tde_store_walk(directory, add_segment, &list, problem))
		return NULL;
	qsort(list.names, list.n, sizeof(char *), compare_names);
	*n = list.n;
	return list.names;
}

void
tde_store_scan_remains(const uint8 *data, size_t len,
					   TdeEpochCallback callback, void *arg)
{
	TdeWalEpoch epoch;
	const char *reason;

	for (size_t i = 0; i < len; i++)
	{
		size_t		n;

		if (data[i] != 'C')		/* how a record begins */
			continue;
		n = tde_wal_epoch_length(data + i, len - i);
		if (tde_wal_epoch_decode(data + i, n, &epoch, &reason) == 0 &&
			tde_wal_epoch_is_tagged(&epoch))
		{
			callback(data + i, n, &epoch, arg);
			i += n - 1;
		}
	}
}
