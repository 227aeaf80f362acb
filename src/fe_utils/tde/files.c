/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Reading and replacing small files as a whole.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/files.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "common/file_utils.h"
#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

/* As in the server: none of our files is anywhere near. */
#define MAX_FILE_LEN	(512 * 1024 * 1024)

uint8 *
tde_fe_read_file(const char *path, size_t *len, char **problem)
{
	struct stat st;
	uint8	   *data;
	int			fd;
	size_t		n = 0;

	*problem = NULL;
	fd = open(path, O_RDONLY | PG_BINARY, 0);
	if (fd < 0)
	{
		if (errno != ENOENT)
			*problem = psprintf(_("could not open file \"%s\": %m"), path);
		return NULL;
	}
	if (fstat(fd, &st) != 0)
	{
		*problem = psprintf(_("could not stat file \"%s\": %m"), path);
		close(fd);
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE_LEN)
	{
		*problem = psprintf(_("file \"%s\" is not a file of the key store"),
							path);
		close(fd);
		return NULL;
	}

	data = pg_malloc(st.st_size + 1);
	while (n < st.st_size)
	{
		ssize_t		r = read(fd, data + n, st.st_size - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
		{
			*problem = psprintf(_("could not read file \"%s\": %m"), path);
			close(fd);
			pfree(data);
			return NULL;
		}
		if (r == 0)
			break;
		n += r;
	}
	close(fd);
	*len = n;
	return data;
}

bool
tde_fe_write_all(int fd, const uint8 *data, size_t len)
{
	size_t		n = 0;

	while (n < len)
	{
		ssize_t		r;

		errno = 0;
		r = write(fd, data + n, len - n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			return false;
		}
		n += r;
	}
	return true;
}

void
tde_fe_write_file(const char *path, const uint8 *data, size_t len)
{
	char		temp[MAXPGPATH * 2 + sizeof(TDE_TEMP_SUFFIX)];
	int			fd;

	snprintf(temp, sizeof(temp), "%s%s", path, TDE_TEMP_SUFFIX);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY,
			  pg_file_create_mode);
	if (fd < 0)
		pg_fatal("could not create file \"%s\": %m", temp);
	if (!tde_fe_write_all(fd, data, len))
	{
		pg_log_error("could not write file \"%s\": %m", temp);
		unlink(temp);
		exit(1);
	}
	if (close(fd) != 0)
		pg_fatal("could not close file \"%s\": %m", temp);
	if (durable_rename(temp, path) != 0)	/* which reports, and fsyncs */
		exit(1);
}
