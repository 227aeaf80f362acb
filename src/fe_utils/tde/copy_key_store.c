/*-------------------------------------------------------------------------
 *
 * copy_key_store.c
 *	  Copying the key store from one data directory to another, for
 *	  pg_upgrade.
 *
 * The files are wrapped keys and names; they are copied as they are.
 * pg_upgrade keeps the OIDs of databases and tablespaces and the file numbers
 * of relations, by which key records identify themselves.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/copy_key_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

static void
copy_file(const char *from, const char *to)
{
	char		buf[65536];
	int			src;
	int			dst;
	ssize_t		n;

	src = open(from, O_RDONLY | PG_BINARY, 0);
	if (src < 0)
		pg_fatal("could not open file \"%s\": %m", from);
	dst = open(to, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY,
			   pg_file_create_mode);
	if (dst < 0)
		pg_fatal("could not create file \"%s\": %m", to);
	while ((n = read(src, buf, sizeof(buf))) > 0)
	{
		errno = 0;
		if (write(dst, buf, n) != n)
		{
			if (errno == 0)
				errno = ENOSPC;
			pg_fatal("could not write file \"%s\": %m", to);
		}
	}
	if (n < 0)
		pg_fatal("could not read file \"%s\": %m", from);
	if (close(dst) != 0)
		pg_fatal("could not close file \"%s\": %m", to);
	close(src);
}

static void
copy_directory(const char *from, const char *to)
{
	DIR		   *dir = opendir(from);
	struct dirent *de;

	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", from);
	if (mkdir(to, pg_dir_create_mode) != 0)
		pg_fatal("could not create directory \"%s\": %m", to);

	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		char		src[MAXPGPATH];
		char		dst[MAXPGPATH];
		struct stat st;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		/* the new cluster's WAL has another history */
		if (strcmp(de->d_name, TDE_WAL_EPOCHS_FILE) == 0)
			continue;
		snprintf(src, sizeof(src), "%s/%s", from, de->d_name);
		snprintf(dst, sizeof(dst), "%s/%s", to, de->d_name);
		if (stat(src, &st) != 0)
			pg_fatal("could not stat file \"%s\": %m", src);
		if (S_ISDIR(st.st_mode))
			copy_directory(src, dst);
		else
			copy_file(src, dst);
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", from);
	closedir(dir);
}

void
tde_copy_key_store(const char *from_pgdata, const char *to_pgdata)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];
	struct stat st;

	snprintf(from, sizeof(from), "%s/%s", from_pgdata, TDE_DIR);
	snprintf(to, sizeof(to), "%s/%s", to_pgdata, TDE_DIR);

	if (stat(from, &st) != 0)
	{
		if (errno == ENOENT)
			return;
		pg_fatal("could not stat directory \"%s\": %m", from);
	}
	tde_fe_refuse_foreign_store(from);
	if (stat(to, &st) == 0)
	{
		pg_log_error("the new cluster has encryption keys of its own");
		pg_log_error_detail("Directory \"%s\" exists.", to);
		pg_log_error_hint("Upgrade into a cluster newly made by initdb.");
		exit(1);
	}
	copy_directory(from, to);
}
