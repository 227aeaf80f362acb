/*-------------------------------------------------------------------------
 *
 * copy_wal.c
 *	  Copying WAL segments while their pages are decrypted, or encrypted
 *	  again; specified in doc/wal-format.md ("An archive in clear").
 *
 * A segment is read twice: first to get all keys that it needs, so that what
 * may take long, or fail, is over before anything is written.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/copy_wal.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "common/file_perm.h"
#include "common/logging.h"
#include "tde/fe_wal_archive.h"
#include "tde/paths.h"
#include "tde/wal_archive.h"
#include "tde/wal_epoch.h"

/* Read and written at once; pages. */
#define CHUNK			(16 * XLOG_BLCKSZ)

typedef struct EpochCipher
{
	struct EpochCipher *next;
	uint32		id;
	TimeLineID	tli;
	TdeCtr	   *ctr;
} EpochCipher;

struct TdeWalCopy
{
	const char *path;
	const char *shown;
	TdeWalCopyMode mode;
	int			fd;
	uint64		size;
	XLogRecPtr	start;			/* position of a segment to be decrypted */
	EpochCipher *ciphers;
	uint8	   *buf;			/* CHUNK bytes */
};

static bool
is_data_dir(const char *path)
{
	char	   *version = psprintf("%s/PG_VERSION", path[0] ? path : ".");
	struct stat st;
	bool		result = stat(version, &st) == 0;

	pfree(version);
	return result;
}

const char *
tde_fe_wal_copy_init(const char *pgdata, const char *file)
{
	char	   *above = pstrdup(file);
	char	   *path;

	/* of the directory of WAL, which may be a link */
	get_parent_directory(above);
	get_parent_directory(above);
	if (pgdata == NULL && is_data_dir(above))
		pgdata = above[0] ? above : ".";
	if (pgdata == NULL && !is_data_dir("."))
		pgdata = getenv("PGDATA");
	if (pgdata == NULL)
		pgdata = ".";
	if (GetDataDirectoryCreatePerm(pgdata))
		umask(pg_mode_mask);
	path = psprintf("%s/%s", pgdata, TDE_DIR);
	canonicalize_path(path);
	tde_fe_wal_keys_init(path);
	return pgdata;
}

bool
tde_fe_is_wal_segment(const char *name)
{
	return IsXLogFileName(name) || IsPartialXLogFileName(name);
}

TdeWalCopy *
tde_fe_wal_copy_open(const char *name, const char *path, const char *shown,
					 TdeWalCopyMode mode)
{
	TdeWalCopy *copy = pg_malloc0(sizeof(TdeWalCopy));
	struct stat st;

	copy->path = path;
	copy->shown = shown;
	copy->mode = mode;
	copy->buf = pg_malloc(CHUNK);
	copy->fd = open(path, O_RDONLY | PG_BINARY | O_CLOEXEC, 0);
	if (copy->fd < 0)
		pg_fatal("could not open file \"%s\": %m", path);
	if (fstat(copy->fd, &st) != 0)
		pg_fatal("could not stat file \"%s\": %m", path);
	copy->size = st.st_size;

	if (mode == TDE_WAL_COPY_DECRYPT)
	{
		TimeLineID	tli;
		XLogSegNo	segno;

		if (!IsValidWalSegSize(st.st_size))
			pg_fatal("file \"%s\" has %lld bytes, which is not the size of a WAL segment",
					 shown, (long long) st.st_size);
		XLogFromFileName(name, &tli, &segno, st.st_size);
		XLogSegNoOffsetToRecPtr(segno, 0, st.st_size, copy->start);
	}
	return copy;
}

/* Read the chunk at offset into copy->buf; returns its length. */
static size_t
read_chunk(const TdeWalCopy *copy, uint64 offset)
{
	size_t		len = Min(CHUNK, copy->size - offset);
	size_t		n = 0;

	while (n < len)
	{
		ssize_t		r = pg_pread(copy->fd, copy->buf + n, len - n, offset + n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			pg_fatal("could not read file \"%s\": %m", copy->path);
		if (r == 0)
			pg_fatal("file \"%s\" became shorter while it was read",
					 copy->path);
		n += r;
	}
	return len;
}

/*
 * Is a page to be changed?  On the way to the archive pages of another place,
 * which a recycled segment contains, are not.  On the way back nothing that is
 * in clear and was not is left so.
 */
static bool
is_to_change(const TdeWalCopy *copy, const uint8 *page, uint64 offset)
{
	XLogPageHeader hdr = (XLogPageHeader) page;
	uint32		id = tde_wal_page_key_id(page);
	bool		was_decrypted = (id & TDE_WAL_DECRYPTED) != 0;

	if (copy->mode == TDE_WAL_COPY_ENCRYPT)
		return was_decrypted;
	return copy->mode == TDE_WAL_COPY_DECRYPT && id != 0 && !was_decrypted &&
		hdr->xlp_magic == XLOG_PAGE_MAGIC &&
		hdr->xlp_pageaddr == copy->start + offset;
}

/*
 * If a page has the record of an epoch, make that known.  The key store may not
 * have it yet: a server that recovers learns of it from this page.
 */
static void
learn_epoch(const uint8 *page)
{
	size_t		len;
	const uint8 *record;

	if (((XLogPageHeader) page)->xlp_magic != XLOG_PAGE_MAGIC)
		return;
	record = tde_wal_page_find_epoch(page, XLOG_BLCKSZ, &len);
	if (record)
		tde_fe_wal_learn_epoch(record, len);
}

/*
 * The cipher context for a page's epoch.
 */
static TdeCtr *
get_cipher(TdeWalCopy *copy, const uint8 *page)
{
	XLogPageHeader hdr = (XLogPageHeader) page;
	TdeWalEpochQuery query = {
		.id = tde_wal_page_key_id(page) & ~TDE_WAL_DECRYPTED,
		.tli = hdr->xlp_tli,
		.pageaddr = hdr->xlp_pageaddr,
		.start = InvalidXLogRecPtr,
	};
	TdeWalEpoch epoch;
	EpochCipher *c;
	char		problem[1024];
	bool		done;

	for (c = copy->ciphers; c != NULL; c = c->next)
	{
		if (c->id == query.id && c->tli == query.tli)
			return c->ctr;
	}

	if (!tde_fe_find_given_key(&query, &epoch) &&
		tde_fe_wal_find_epoch(&query, &epoch, problem,
							  sizeof(problem)) != TDE_WAL_KEY_FOUND)
		pg_fatal("key %08X of WAL page at %X/%X of timeline %u in file \"%s\" is not available: %s",
				 query.id, LSN_FORMAT_ARGS(query.pageaddr), query.tli,
				 copy->shown, problem);

	c = pg_malloc(sizeof(EpochCipher));
	c->next = copy->ciphers;
	c->id = query.id;
	c->tli = query.tli;
	c->ctr = tde_ctr_create();
	done = c->ctr && tde_ctr_set_key(c->ctr, epoch.key, TDE_WAL_KEY_LEN) == 0;
	tde_wipe(epoch.key, sizeof(epoch.key));
	if (!done)
		pg_fatal("could not use key %08X: %s", query.id, _(tde_cipher_error()));
	copy->ciphers = c;
	return c->ctr;
}

bool
tde_fe_wal_copy_prepare(TdeWalCopy *copy)
{
	bool		found = false;

	for (uint64 offset = 0; offset < copy->size; offset += CHUNK)
	{
		size_t		len = read_chunk(copy, offset);

		for (size_t i = 0; i + XLOG_BLCKSZ <= len; i += XLOG_BLCKSZ)
		{
			if (is_to_change(copy, copy->buf + i, offset + i))
			{
				(void) get_cipher(copy, copy->buf + i);
				found = true;
			}
			else if (tde_wal_page_key_id(copy->buf + i) == 0)
				learn_epoch(copy->buf + i);
		}
	}
	return found;
}

static void
change_page(TdeWalCopy *copy, uint8 *page)
{
	TdeCtr	   *ctr = get_cipher(copy, page);
	int			result;

	if (copy->mode == TDE_WAL_COPY_DECRYPT)
		result = tde_wal_page_archive(ctr, page, XLOG_BLCKSZ);
	else
		result = tde_wal_page_restore(ctr, page, XLOG_BLCKSZ);
	if (result < 0)
		pg_fatal("could not decrypt or encrypt WAL page at %X/%X: %s",
				 LSN_FORMAT_ARGS(((XLogPageHeader) page)->xlp_pageaddr),
				 _(tde_cipher_error()));
}

void
tde_fe_wal_copy_write(TdeWalCopy *copy, int fd, const char *path)
{
	for (uint64 offset = 0; offset < copy->size; offset += CHUNK)
	{
		size_t		len = read_chunk(copy, offset);
		size_t		i;

		for (i = 0; i + XLOG_BLCKSZ <= len; i += XLOG_BLCKSZ)
		{
			if (is_to_change(copy, copy->buf + i, offset + i))
				change_page(copy, copy->buf + i);
		}

		/*
		 * The server refuses a file that is not whole pages, and judges its
		 * length: leave that as it is, and nothing in clear.
		 */
		if (copy->mode != TDE_WAL_COPY_AS_IS)
			memset(copy->buf + i, 0, len - i);
		if (!tde_fe_write_all(fd, copy->buf, len))
			pg_fatal("could not write file \"%s\": %m", path);
	}
	close(copy->fd);
	copy->fd = -1;
}
