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
#include <unistd.h>

#include "common/file_perm.h"
#include "common/file_utils.h"
#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

uint8 *
tde_fe_read_file(const char *path, size_t *len, char **problem)
{
	TdeStoreProblem found;
	uint8	   *data = tde_store_read_file(path, len, &found);

	*problem = data ? NULL : tde_store_problem_text(&found);
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
