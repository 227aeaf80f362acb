/*-------------------------------------------------------------------------
 *
 * copy_database.c
 *	  Copies of databases by copying their files.
 *
 * CREATE DATABASE ... STRATEGY FILE_COPY gives each encrypted relation of the
 * copy a key of its own, so that its pages have to be decrypted under the key
 * of the source and encrypted under the new one on their way.  copydir() still
 * copies the directory; it offers us each file first (TdeCopyFile).  In a
 * database that moves to another tablespace the keys are the same, and so are
 * the files.
 *
 * Replay does the same again, with the keys that the record carries.  It can
 * meet files that were not there when the record was written: a standby that
 * starts again has later ones on disk already.  The record is what counts: a
 * relation that it names is encrypted in the copy, one that it does not name
 * is not, or is not copied.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/copy_database.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "commands/dbcommands_xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/checksum.h"
#include "storage/copydir.h"
#include "storage/fd.h"
#include "storage/reinit.h"
#include "storage_internal.h"
#include "tde/storage.h"
#include "utils/injection_point.h"
#include "utils/wait_event.h"

/* Pages that are read and written at a time; how far writing is flushed. */
#define COPY_PAGES		16
#define FLUSH_BYTES		(1024 * 1024)

/* The copy that copydir() is making; no fresh keys, no copy of ours. */
typedef struct DatabaseCopy
{
	Oid			src_db;
	Oid			src_spc;
	Oid			dst_db;
	Oid			dst_spc;
	int			nkeys;
	RelFileNumber *numbers;		/* of relations that have a key, sorted */
} DatabaseCopy;

static DatabaseCopy *current_copy = NULL;

/* The key records of the last copy, until they are logged. */
static uint8 *logged_records = NULL;
static int	logged_nkeys = 0;

/* One fork of one relation, from the one file into the other. */
typedef struct ForkCopy
{
	RelFileLocatorBackend src;
	RelFileLocatorBackend dst;
	ForkNumber	forknum;
	const char *from;
	const char *to;
} ForkCopy;

static int
compare_numbers(const void *a, const void *b)
{
	RelFileNumber na = *(const RelFileNumber *) a;
	RelFileNumber nb = *(const RelFileNumber *) b;

	return na < nb ? -1 : na > nb;
}

/*
 * Bring a page into the state in which it can be encrypted.  Returns false if
 * it is to be copied as it is: it is empty, or so damaged that it cannot be
 * read in the copy either.  *damaged: it fails its checksum.
 *
 * key is NULL where replay finds a plain file in the place of an encrypted
 * one, as a later relation of its number.
 */
static bool
open_page(const ForkCopy *fork, const TdeRelationKey *key, char *page,
		  BlockNumber blocknum, bool *damaged)
{
	TdePageStatus status;

	*damaged = false;
	if (PageIsNew(page))
		return false;
	if (DataChecksumsEnabled())
		*damaged = pg_checksum_page(page, blocknum) !=
			((PageHeader) page)->pd_checksum;
	if (!tde_page_is_marked(page))
		return key == NULL &&
			((PageHeader) page)->pd_pagesize_version ==
			(BLCKSZ | PG_PAGE_LAYOUT_VERSION);
	if (PageGetPageSize((PageData *) page) != BLCKSZ)
		return false;

	status = TdeDecryptPage(key, page, blocknum, fork->forknum);
	if (status != TDE_PAGE_OK)
		TdeReportPage(status, &fork->src, fork->forknum, blocknum,
					  _(tde_cipher_error()), ERROR);
	return true;
}

/*
 * Encrypt a page again, in place.  Damage stays visible: no checksum is 0.
 */
static void
close_page(const ForkCopy *fork, const TdeRelationKey *key, char *page,
		   BlockNumber blocknum, bool damaged)
{
	TdePageCipher *cipher = TdeGetPageCipher(key);

	if (cipher == NULL ||
		tde_page_encrypt(cipher, page, page, blocknum, fork->forknum) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not encrypt block %u of relation \"%s\": %s",
						blocknum, relpath(fork->dst, fork->forknum).str,
						_(tde_cipher_error()))));
	if (DataChecksumsEnabled())
		((PageHeader) page)->pd_checksum = damaged ? 0 :
			pg_checksum_page(page, blocknum);
}

/*
 * Encrypt pages under the key of the copy.  The two keys are asked for one
 * after the other, because each is good until the next is asked for; nobody
 * may be interrupted while it has one.
 */
static void
convert_pages(const ForkCopy *fork, char *pages, BlockNumber blocknum, int n)
{
	const TdeRelationKey *key;
	bool		opened[COPY_PAGES];
	bool		damaged[COPY_PAGES];

	HOLD_INTERRUPTS();
	key = TdeGetRelationKey(&fork->src);
	for (int i = 0; i < n; i++)
		opened[i] = open_page(fork, key, pages + i * BLCKSZ, blocknum + i,
							  &damaged[i]);

	key = TdeGetRelationKey(&fork->dst);
	if (key == NULL)
		elog(ERROR, "copy \"%s\" has no encryption key", fork->to);
	for (int i = 0; i < n; i++)
	{
		if (opened[i])
			close_page(fork, key, pages + i * BLCKSZ, blocknum + i, damaged[i]);
	}
	RESUME_INTERRUPTS();
}

/*
 * Read as much as there is, at most size bytes.
 */
static int
read_all(int fd, char *buf, int size, const char *path)
{
	int			n = 0;

	while (n < size)
	{
		ssize_t		r;

		pgstat_report_wait_start(WAIT_EVENT_COPY_FILE_READ);
		r = read(fd, buf + n, size - n);
		pgstat_report_wait_end();
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", path)));
		if (r == 0)
			break;
		n += r;
	}
	return n;
}

static void
write_all(int fd, const char *buf, int size, const char *path)
{
	int			n = 0;

	while (n < size)
	{
		ssize_t		w;

		errno = 0;
		pgstat_report_wait_start(WAIT_EVENT_COPY_FILE_WRITE);
		w = write(fd, buf + n, size - n);
		pgstat_report_wait_end();
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
		{
			/* if write didn't set errno, assume problem is no disk space */
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to file \"%s\": %m", path)));
		}
		n += w;
	}
}

/*
 * Copy a file whose first page is block "blocknum" of its fork.  What is left
 * at its end after the last whole page, of which nobody takes notice, is
 * copied as it is.
 */
static void
copy_fork_file(const ForkCopy *fork, BlockNumber blocknum)
{
	char	   *buf = palloc_aligned(COPY_PAGES * BLCKSZ, PG_IO_ALIGN_SIZE, 0);
	int			src_fd;
	int			dst_fd;
	off_t		offset = 0;
	off_t		flushed = 0;

	src_fd = OpenTransientFile(fork->from, O_RDONLY | PG_BINARY);
	if (src_fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", fork->from)));
	dst_fd = OpenTransientFile(fork->to,
							   O_RDWR | O_CREAT | O_EXCL | PG_BINARY);
	if (dst_fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", fork->to)));

	for (;;)
	{
		int			n;

		CHECK_FOR_INTERRUPTS();
		n = read_all(src_fd, buf, COPY_PAGES * BLCKSZ, fork->from);
		if (n == 0)
			break;
		convert_pages(fork, buf, blocknum, n / BLCKSZ);
		write_all(dst_fd, buf, n, fork->to);
		blocknum += n / BLCKSZ;
		offset += n;

		/* copydir() syncs the file later; let the kernel begin now */
		if (offset - flushed >= FLUSH_BYTES)
		{
			pg_flush_data(dst_fd, flushed, offset - flushed);
			flushed = offset;
		}
	}
	if (offset > flushed)
		pg_flush_data(dst_fd, flushed, offset - flushed);

	if (CloseTransientFile(dst_fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", fork->to)));
	if (CloseTransientFile(src_fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", fork->from)));
	pfree(buf);
}

bool
TdeCopyFile(const char *from, const char *to)
{
	DatabaseCopy *copy = current_copy;
	ForkCopy	fork = {.from = from,.to = to};
	RelFileNumber number;
	unsigned	segno;

	if (copy == NULL ||
		!parse_filename_for_nontemp_relation(last_dir_separator(from) + 1,
											 &number, &fork.forknum, &segno))
		return false;

	fork.src.locator.spcOid = copy->src_spc;
	fork.src.locator.dbOid = copy->src_db;
	fork.src.locator.relNumber = number;
	fork.src.backend = INVALID_PROC_NUMBER;
	fork.dst.locator.spcOid = copy->dst_spc;
	fork.dst.locator.dbOid = copy->dst_db;
	fork.dst.locator.relNumber = number;
	fork.dst.backend = INVALID_PROC_NUMBER;

	/* of a database that was given up there is nothing to be copied */
	if (InRecovery && (TdeIsGivenUp(&fork.src) || TdeIsGivenUp(&fork.dst)))
		return true;

	if (bsearch(&number, copy->numbers, copy->nkeys, sizeof(RelFileNumber),
				compare_numbers) != NULL)
	{
		copy_fork_file(&fork, segno * (BlockNumber) RELSEG_SIZE);
		INJECTION_POINT("tde-database-file-copied", NULL);
		return true;
	}

	/*
	 * It is plain, or should be.  A key that is lost is an error on the
	 * primary, as it is with the other strategy.  In replay, what is not plain
	 * now is not what was copied then.
	 */
	if (InRecovery)
		return TdeRelationHasKey(&fork.src);
	if (TdeGetRelationKey(&fork.src) != NULL)
		elog(ERROR, "file \"%s\" has an encryption key that was not copied",
			 from);
	return false;
}

/*
 * copydir() for a copy whose relations have fresh keys, those of the records.
 */
static void
copy_encrypted(const char *src_path, const char *dst_path,
			   DatabaseCopy *copy, const uint8 *records)
{
	copy->numbers = MemoryContextAllocHuge(CurrentMemoryContext,
										   sizeof(RelFileNumber) * copy->nkeys);
	for (int i = 0; i < copy->nkeys; i++)
	{
		const char *reason;
		TdeKey		key;

		if (tde_key_record_decode(records + (Size) i * TDE_KEY_RECORD_LEN,
								  TDE_KEY_RECORD_LEN, &key, &reason) != 0)
			elog(ERROR, "invalid key record: %s", reason);
		copy->numbers[i] = key.locator.relNumber;
	}
	qsort(copy->numbers, copy->nkeys, sizeof(RelFileNumber), compare_numbers);

	current_copy = copy;
	PG_TRY();
	{
		copydir(src_path, dst_path, false);
	}
	PG_FINALLY();
	{
		current_copy = NULL;
	}
	PG_END_TRY();
	pfree(copy->numbers);
}

void
TdeCopyDatabaseDir(const char *src_path, const char *dst_path,
				   Oid src_db, Oid src_spc, Oid dst_db, Oid dst_spc)
{
	DatabaseCopy copy = {
		.src_db = src_db,
		.src_spc = src_spc,
		.dst_db = dst_db,
		.dst_spc = dst_spc
	};

	logged_nkeys = 0;
	logged_records = TdeCopyDatabaseKeys(src_db, src_spc, dst_db, dst_spc,
										 &copy.nkeys);
	if (copy.nkeys == 0 || src_db == dst_db)
		copydir(src_path, dst_path, false);
	else
		copy_encrypted(src_path, dst_path, &copy, logged_records);
	logged_nkeys = copy.nkeys;
}

void
TdeLogDatabaseCopy(void)
{
	if (logged_nkeys > 0)
		XLogRegisterData(logged_records,
						 (uint32) logged_nkeys * TDE_KEY_RECORD_LEN);
}

/*
 * Is there the PG_VERSION of a database's directory?  An errno in "error" says
 * otherwise; what is not ENOENT proves nothing.
 */
static bool
has_version(const char *path, int *error)
{
	char		file[MAXPGPATH];
	struct stat st;

	snprintf(file, sizeof(file), "%s/PG_VERSION", path);
	*error = stat(file, &st) == 0 ? 0 : errno;
	return *error == 0;
}

bool
TdeReplayKeepsCopy(XLogReaderState *record, const char *src_path,
				   const char *dst_path)
{
	xl_dbase_create_file_copy_rec *xlrec =
		(xl_dbase_create_file_copy_rec *) XLogRecGetData(record);

	int			error;

	if (!TdeIsActive() || !has_version(dst_path, &error) ||
		has_version(src_path, &error) || error != ENOENT)
		return false;

	TdeRedoDatabaseKeys(record, xlrec->db_id, xlrec->tablespace_id,
						(const uint8 *) (xlrec + 1),
						XLogRecGetDataLen(record) - sizeof(*xlrec));
	ereport(LOG,
			(errmsg("database directory \"%s\" is kept: it was copied before, and its source \"%s\" is gone",
					dst_path, src_path)));
	return true;
}

void
TdeReplayDatabaseCopy(XLogReaderState *record, const char *src_path,
					  const char *dst_path)
{
	xl_dbase_create_file_copy_rec *xlrec =
		(xl_dbase_create_file_copy_rec *) XLogRecGetData(record);
	const uint8 *records = (const uint8 *) (xlrec + 1);
	Size		len = XLogRecGetDataLen(record) - sizeof(*xlrec);
	DatabaseCopy copy = {
		.src_db = xlrec->src_db_id,
		.src_spc = xlrec->src_tablespace_id,
		.dst_db = xlrec->db_id,
		.dst_spc = xlrec->tablespace_id,
		.nkeys = len / TDE_KEY_RECORD_LEN
	};

	TdeRedoDatabaseKeys(record, copy.dst_db, copy.dst_spc, records, len);
	INJECTION_POINT("tde-redo-database-keys", NULL);

	if (copy.nkeys == 0 || copy.src_db == copy.dst_db)
		copydir(src_path, dst_path, false);
	else
		copy_encrypted(src_path, dst_path, &copy, records);
}
