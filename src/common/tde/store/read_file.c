/*-------------------------------------------------------------------------
 *
 * read_file.c
 *	  Reading a file of the key store, and what is said if that fails.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/read_file.c
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

#include "store_reading.h"
#ifndef FRONTEND
#include "storage/fd.h"
#endif

/* None of our files is anywhere near. */
#define MAX_FILE_LEN	(512 * 1024 * 1024)

/* The server's own descriptors are closed when an error is raised. */
#ifndef FRONTEND
#define open_file(path)		OpenTransientFile(path, O_RDONLY | PG_BINARY)
#define open_small(path)	BasicOpenFile(path, O_RDONLY | PG_BINARY)
#define close_file(fd)		CloseTransientFile(fd)
#else
#define open_file(path)		open(path, O_RDONLY | PG_BINARY, 0)
#define open_small(path)	open_file(path)
#define close_file(fd)		close(fd)
#endif

void
tde_store_failed(TdeStoreProblem *problem, const char *path,
				 const char *message)
{
	problem->errnum = errno;
	problem->missing = false;
	problem->message = message;
	strlcpy(problem->path, path, sizeof(problem->path));
}

void
tde_store_damaged(TdeStoreProblem *problem, const char *path,
				  const char *reason)
{
	problem->errnum = 0;
	problem->missing = false;
	problem->message = reason;
	strlcpy(problem->path, path, sizeof(problem->path));
}

char *
tde_store_problem_text(const TdeStoreProblem *problem)
{
	if (problem->missing)
		return NULL;
	if (problem->errnum == 0)
		return psprintf(_("could not use file \"%s\": %s"), problem->path,
						_(problem->message));
	errno = problem->errnum;
	return psprintf(_(problem->message), problem->path);
}

/*
 * Read up to size bytes.  Returns how many, or -1 with errno.
 */
static ssize_t
read_all(int fd, uint8 *buf, size_t size)
{
	size_t		n = 0;

	while (n < size)
	{
		ssize_t		r = read(fd, buf + n, size - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		n += r;
	}
	return n;
}

uint8 *
tde_store_read_file(const char *path, size_t *len, TdeStoreProblem *problem)
{
	struct stat st;
	uint8	   *data = NULL;
	ssize_t		n;
	int			fd = open_file(path);

	if (fd < 0)
	{
		tde_store_failed(problem, path,
						 gettext_noop("could not open file \"%s\": %m"));
		problem->missing = problem->errnum == ENOENT;
		return NULL;
	}
	if (fstat(fd, &st) != 0)
		tde_store_failed(problem, path,
						 gettext_noop("could not stat file \"%s\": %m"));
	else if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE_LEN)
		tde_store_damaged(problem, path,
						  gettext_noop("it is not a file of the key store"));
	else
	{
		data = palloc(st.st_size + 1);
		n = read_all(fd, data, st.st_size);
		if (n < 0)
		{
			tde_store_failed(problem, path,
							 gettext_noop("could not read file \"%s\": %m"));
			pfree(data);
			data = NULL;
		}
		else
			*len = n;
	}
	(void) close_file(fd);
	return data;
}

int
tde_store_read_small(const char *path, uint8 *buf, int size)
{
	int			fd = open_small(path);
	int			n;
	int			save_errno;

	if (fd < 0)
		return -1;
	n = (int) read_all(fd, buf, size);
	save_errno = errno;
	close(fd);
	errno = save_errno;
	return n;
}
