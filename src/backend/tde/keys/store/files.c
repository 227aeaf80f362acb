/*-------------------------------------------------------------------------
 *
 * files.c
 *	  How the files under $PGDATA/pg_tde are written; src/common/tde has their
 *	  names, in paths.c, and in store/ what reads them.
 *
 * No file is ever changed in place: a new one is written beside it, with the
 * suffix .tmp, and renamed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/store/files.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "store_internal.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Report that something could not be done with a file, and why, in errno. */
#define file_trouble(elevel, what, path) \
	ereport(elevel, \
			(errcode_for_file_access(), \
			 errmsg("could not " what " file \"%s\": %m", path)))

char *
TdeKeyFilePath(const RelFileLocator *rlocator)
{
	char	   *path = palloc(MAXPGPATH);

	tde_key_path(rlocator, path);
	return path;
}

/*
 * Make a directory if it is not there, durably.
 */
static void
make_one_directory(const char *path, const char *parent)
{
	if (MakePGDirectory(path) < 0)
	{
		if (errno == EEXIST)
			return;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", path)));
	}
	fsync_fname(path, true);
	fsync_fname(parent, true);
}

/*
 * Make the directory of a database, or the global one, and the one above it.
 */
void
tde_make_directory(Oid dbOid)
{
	char		dir[MAXPGPATH];
	struct stat st;

	tde_database_dir(dbOid, dir);
	if (stat(dir, &st) == 0)
		return;
	make_one_directory(TDE_DIR, ".");
	make_one_directory(dir, TDE_DIR);
}

/*
 * Report what tde_store_... functions had to say.  Nothing for a file that is
 * missing.
 */
void
tde_store_report(int elevel, const TdeStoreProblem *problem)
{
	char	   *text = tde_store_problem_text(problem);

	if (text == NULL)
		return;
	errno = problem->errnum;
	ereport(elevel,
			(problem->errnum != 0 ? errcode_for_file_access() :
			 errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg_internal("%s", text)));
}

/*
 * Read a whole file; palloc'd.  NULL if there is none.
 */
uint8 *
tde_read_file(const char *path, size_t *len)
{
	TdeStoreProblem problem;
	uint8	   *data = tde_store_read_file(path, len, &problem);

	if (data == NULL)
		tde_store_report(ERROR, &problem);
	return data;
}

static void
temp_path(const char *path, char *temp)
{
	snprintf(temp, MAXPGPATH, "%s%s", path, TDE_TEMP_SUFFIX);
}

/*
 * Write the new version of a file beside it.  Unless durable, it is not
 * fsynced: the caller sees to that.  Two processes never do this to the same
 * file at once: store_lock covers scope and provider files, and the number of
 * a relation belongs to the process that creates it.
 */
void
tde_write_temp_file(const char *path, const uint8 *data, size_t len,
					bool durable)
{
	char		temp[MAXPGPATH];
	int			fd;
	size_t		n = 0;

	temp_path(path, temp);
	fd = OpenTransientFile(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		file_trouble(ERROR, "create", temp);
	while (n < len)
	{
		ssize_t		r;

		errno = 0;
		r = write(fd, data + n, len - n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
		{
			int			save_errno = errno ? errno : ENOSPC;

			CloseTransientFile(fd);
			unlink(temp);
			errno = save_errno;
			file_trouble(ERROR, "write", temp);
		}
		n += r;
	}
	if (durable && pg_fsync(fd) != 0)
		file_trouble(data_sync_elevel(ERROR), "fsync", temp);
	if (CloseTransientFile(fd) != 0)
		file_trouble(ERROR, "close", temp);
}

/*
 * Put a file written by tde_write_temp_file(durable) in its place, durably.
 */
void
tde_rename_temp_file(const char *path, int elevel)
{
	char		temp[MAXPGPATH];

	temp_path(path, temp);
	(void) durable_rename(temp, path, elevel);
}

/*
 * The same for many files, step by step: written without "durable", they are
 * synced one after the other, renamed, and their directories synced.  A file
 * system that has a journal then commits it a few times, not twice for each
 * file.
 */
void
tde_sync_temp_file(const char *path)
{
	char		temp[MAXPGPATH];

	temp_path(path, temp);
	fsync_fname(temp, false);
}

void
tde_move_temp_file(const char *path, int elevel)
{
	char		temp[MAXPGPATH];

	temp_path(path, temp);
	if (rename(temp, path) < 0)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m",
						temp, path)));
}

void
tde_sync_directory_of(const char *path, int elevel)
{
	char		dir[MAXPGPATH];

	strlcpy(dir, path, sizeof(dir));
	get_parent_directory(dir);
	(void) fsync_fname_ext(dir, true, false, elevel);
}

void
tde_remove_temp_file(const char *path)
{
	char		temp[MAXPGPATH];

	temp_path(path, temp);
	if (unlink(temp) < 0 && errno != ENOENT)
		file_trouble(LOG, "remove", temp);
}
