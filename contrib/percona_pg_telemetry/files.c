/*-------------------------------------------------------------------------
 *
 * files.c
 *	  The directory of the reports.
 *
 * A report is the file SECONDS-SYSTEMID.json: the time in seconds since 1970,
 * and the server's system identifier, by which servers that share the
 * directory tell their files apart.  It gets that name when it is complete.
 * Members of the directory's group may read it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/percona_pg_telemetry/files.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "percona_pg_telemetry.h"
#include "storage/fd.h"

#define FILE_MODE	(S_IRUSR | S_IWUSR | S_IRGRP)

/* The directory that we complained about last. */
static char complained_about[MAXPGPATH];

bool
telemetry_directory_is_ready(void)
{
	struct stat st;
	int			err = 0;

	if (stat(telemetry_path, &st) != 0)
		err = errno;
	else if (!S_ISDIR(st.st_mode))
		err = ENOTDIR;
	else if (access(telemetry_path, W_OK | X_OK) != 0)
		err = errno;

	if (err == 0)
	{
		complained_about[0] = '\0';
		return true;
	}
	if (strcmp(complained_about, telemetry_path) != 0)
	{
		errno = err;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not use directory \"%s\", no telemetry is written: %m",
						telemetry_path),
				 errhint("Create the directory, or set \"%s\" to off.",
						 TELEMETRY_LIBRARY ".enabled")));
		strlcpy(complained_about, telemetry_path, sizeof(complained_about));
	}
	return false;
}

/* The time of a report of this server, or -1 for any other file. */
static int64
report_time(const char *name)
{
	char		suffix[64];
	char	   *end;
	int64		result;

	if (name[0] < '0' || name[0] > '9')
		return -1;
	errno = 0;
	result = strtoi64(name, &end, 10);
	snprintf(suffix, sizeof(suffix), "-" UINT64_FORMAT ".json",
			 GetSystemIdentifier());
	return errno == 0 && strcmp(end, suffix) == 0 ? result : -1;
}

static void
report_path(char *path, int64 time)
{
	snprintf(path, MAXPGPATH, "%s/" INT64_FORMAT "-" UINT64_FORMAT ".json",
			 telemetry_path, time, GetSystemIdentifier());
}

static int
compare_times(const ListCell *a, const ListCell *b)
{
	int64		ta = *(int64 *) lfirst(a);
	int64		tb = *(int64 *) lfirst(b);

	return (ta > tb) - (ta < tb);
}

static void
remove_old_reports(void)
{
	DIR		   *dir = AllocateDir(telemetry_path);
	struct dirent *entry;
	List	   *times = NIL;

	while ((entry = ReadDirExtended(dir, telemetry_path, LOG)) != NULL)
	{
		int64		time = report_time(entry->d_name);

		if (time >= 0)
		{
			int64	   *copy = palloc(sizeof(int64));

			*copy = time;
			times = lappend(times, copy);
		}
	}
	if (dir)
		FreeDir(dir);

	list_sort(times, compare_times);
	for (int i = 0; i < list_length(times) - telemetry_files_to_keep; i++)
	{
		char		path[MAXPGPATH];

		report_path(path, *(int64 *) list_nth(times, i));
		if (unlink(path) != 0 && errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
}

static bool
write_file(const char *path, const StringInfoData *json)
{
	int			fd;
	ssize_t		written;

	/* what a crash left; and never write into another file through a link */
	(void) unlink(path);
	fd = OpenTransientFile(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY);
	if (fd < 0)
		return false;
	errno = 0;
	written = write(fd, json->data, json->len);
	if (written != json->len || fchmod(fd, FILE_MODE) != 0)
	{
		int			save_errno = errno ? errno : ENOSPC;

		CloseTransientFile(fd);
		errno = save_errno;
		return false;
	}
	return CloseTransientFile(fd) == 0;
}

bool
telemetry_write(const StringInfoData *json)
{
	char		path[MAXPGPATH];
	char		temp_path[MAXPGPATH];

	report_path(path, (int64) time(NULL));
	snprintf(temp_path, sizeof(temp_path), "%s/." UINT64_FORMAT ".tmp",
			 telemetry_path, GetSystemIdentifier());

	if (!write_file(temp_path, json) || rename(temp_path, path) != 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
		(void) unlink(temp_path);
		return false;
	}

	remove_old_reports();
	return true;
}
