/*-------------------------------------------------------------------------
 *
 * need.c
 *	  Is anything under a scope, so that its principal key is needed?
 *
 * Under the scope of a database are the keys of its relations, under that of
 * the server encrypted WAL, under that of the default key nothing: it only
 * lends its principal key to others.  A scope with nothing under it does not
 * need its principal key; whoever puts the first thing under it does.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/need.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "principal_internal.h"
#include "storage/fd.h"
#include "tde/paths.h"
#include "tde/settings.h"
#include "tde/wal_page.h"

/*
 * Is a page of this segment encrypted?  What a segment that waits to be used
 * again has in it is of another address, and no WAL any more; nor is one that
 * is gone when we come to it, which only who needs no WAL of it removes.
 */
static bool
segment_is_encrypted(const char *name, XLogSegNo segno)
{
	char		path[MAXPGPATH];
	XLogRecPtr	addr;
	int			fd;
	bool		found = false;

	snprintf(path, sizeof(path), XLOGDIR "/%s", name);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			return false;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	}
	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, addr);
	for (int at = 0; !found && at < wal_segment_size; at += XLOG_BLCKSZ)
	{
		XLogPageHeaderData header;
		ssize_t		len = pg_pread(fd, &header, SizeOfXLogShortPHD, at);
		uint32		id;

		if (len < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", path)));
		if (len < (ssize_t) SizeOfXLogShortPHD)
			break;
		id = tde_wal_page_key_id(&header);
		found = header.xlp_pageaddr == addr + at && id != 0 &&
			(id & TDE_WAL_DECRYPTED) == 0;
	}
	CloseTransientFile(fd);
	return found;
}

/*
 * Is there encrypted WAL in pg_wal, from the segment of "from" on?  Returns the
 * name of a segment in "segment", MAXFNAMELEN bytes.
 */
bool
tde_find_encrypted_wal(XLogRecPtr from, char *segment)
{
	DIR		   *dir = AllocateDir(XLOGDIR);
	struct dirent *de;
	XLogSegNo	first;
	bool		found = false;

	XLByteToSeg(from, first, wal_segment_size);
	while (!found && (de = ReadDir(dir, XLOGDIR)) != NULL)
	{
		TimeLineID	tli;
		XLogSegNo	segno;

		CHECK_FOR_INTERRUPTS();
		if (!IsXLogFileName(de->d_name))
			continue;
		XLogFromFileName(de->d_name, &tli, &segno, wal_segment_size);
		found = segno >= first && segment_is_encrypted(de->d_name, segno);
		if (found)
			strlcpy(segment, de->d_name, MAXFNAMELEN);
	}
	FreeDir(dir);
	return found;
}

/*
 * Is something under a scope that the server needs to start?  "redo" is where
 * replay begins, or what is read of WAL where nothing is replayed;
 * InvalidXLogRecPtr if WAL may come from elsewhere.
 */
bool
tde_scope_is_needed_to_start(const TdeScope *scope, XLogRecPtr redo)
{
	struct stat st;
	char		segment[MAXFNAMELEN];

	switch (scope->kind)
	{
		case TDE_SCOPE_DEFAULT:
			return false;
		case TDE_SCOPE_DATABASE:
			return tde_database_has_keys(scope->dbOid);
		case TDE_SCOPE_SERVER:
			break;
	}
	if (tde_wal_encrypt)
		return true;

	/* WAL from elsewhere may be encrypted if any of this cluster ever was */
	if (XLogRecPtrIsInvalid(redo) &&
		(stat(TDE_WAL_EPOCHS_PATH, &st) == 0 || errno != ENOENT))
		return true;
	return tde_find_encrypted_wal(redo, segment);
}
