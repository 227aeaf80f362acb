/*-------------------------------------------------------------------------
 *
 * pg_tde_restore_encrypt.c
 *	  Gets WAL from an archive in clear: runs a restore_command and encrypts
 *	  what that brings.
 *
 * To the server, a restore_command that fails in an ordinary way says that the
 * archive has no such file, which is the end of WAL; a point up to which to
 * recover, or rows that were committed, may lie beyond it.  Only the command
 * can know that, and its status is believed only if it cannot mean anything
 * else: if it has written nothing, and there was room for what it would have
 * written, before and after.  All else, and all our own failures, end with a
 * status that stops recovery.  A key provider that does not answer is waited for:
 * a standby should not go down for that.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/bin/pg_tde_restore_encrypt/pg_tde_restore_encrypt.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "common/file_utils.h"
#include "common/logging.h"
#include "fe_utils/option_utils.h"
#include "tde/fe_wal_archive.h"
#include "tde/paths.h"

/* Any status above the first stops recovery. */
#define MAX_NO_FILE			125
#define EXIT_STOP_RECOVERY	255

/* Enough for the history of a timeline, which has a line for each one before. */
#define OTHER_FILE_SIZE		(64 * 1024)

/* The file that is being written, if any. */
static char *unfinished = NULL;

/* Is the status with which the program ends the one of the command? */
static bool passes_status = false;

static void
usage(const char *program)
{
	printf(_("%s encrypts WAL from an archive in which it is in clear.\n\n"), program);
	printf(_("Usage:\n"));
	printf(_("  %s [OPTION]... SOURCE-NAME DEST-PATH RESTORE-COMMAND\n"), program);
	tde_fe_print_archive_options(_("where RESTORE-COMMAND puts the file"), "-1");
	printf(_("\nRESTORE-COMMAND is run with %%f and %%p standing for SOURCE-NAME and the path of\n"
			 "a temporary file.  What it puts there is encrypted into DEST-PATH.\n"));
	printf(_("\nUse as restore_command in postgresql.conf:\n"
			 "  restore_command = '%s %%f %%p \"RESTORE-COMMAND with %%%%f and %%%%p\"'\n"), program);
	printf(_("\nExit status is that of RESTORE-COMMAND if that has written nothing, or %d, which\n"
			 "stops recovery, if something else failed.\n"), EXIT_STOP_RECOVERY);
}

static void
at_exit(void)
{
	if (unfinished)
		unlink(unfinished);
	if (passes_status)
		return;
	fflush(NULL);
	_exit(EXIT_STOP_RECOVERY);
}

pg_noreturn static void
pass_status(int status)
{
	passes_status = true;
	exit(status);
}

/*
 * Write the file, durably.
 */
static void
write_dest(TdeWalCopy *copy, const char *dest)
{
	char	   *temp = psprintf("%s%s", dest, TDE_TEMP_SUFFIX);
	int			fd;

	tde_fe_hold_signals();
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY,
			  pg_file_create_mode);
	if (fd < 0)
		pg_fatal("could not create file \"%s\": %m", temp);
	unfinished = temp;
	tde_fe_wal_copy_write(copy, fd, temp);
	if (close(fd) != 0)
		pg_fatal("could not close file \"%s\": %m", temp);
	if (durable_rename(temp, dest) != 0)	/* which reports, and fsyncs */
		exit(1);
	unfinished = NULL;
	tde_fe_release_signals();
}

/*
 * How long is a segment?  Where there is no control file to tell it, as long
 * as most are.
 */
static uint64
segment_size(const char *pgdata)
{
	char	   *path = psprintf("%s/global/pg_control", pgdata);
	bool		exists = access(path, F_OK) == 0;
	bool		crc_ok;
	ControlFileData *control;

	pfree(path);
	if (!exists)
		return DEFAULT_XLOG_SEG_SIZE;
	control = get_controlfile(pgdata, &crc_ok);
	return crc_ok && IsValidWalSegSize(control->xlog_seg_size) ?
		control->xlog_seg_size : DEFAULT_XLOG_SEG_SIZE;
}

static void
require_room(const char *dir, uint64 size)
{
	if (tde_fe_has_room(dir, size))
		return;
	pg_log_error("there is no room for %llu bytes in directory \"%s\"",
				 (unsigned long long) size, dir);
	pg_log_error_hint("Make room there; or, if it is for temporary files, name another one with --temp-directory.");
	exit(1);
}

/*
 * The command has failed, with a status that would tell the server that there
 * is no such file.  Has it said that?
 */
static void
check_nothing_there(int status, const char *path)
{
	struct stat st;

	if (lstat(path, &st) != 0)
	{
		if (errno == ENOENT)
			return;
		pg_fatal("could not stat file \"%s\": %m", path);
	}
	pg_log_error("RESTORE-COMMAND failed with status %d, and has written %lld bytes",
				 status, (long long) st.st_size);
	pg_log_error_detail("So the archive may have the file, and the command could not get all of it.");
	exit(1);
}

static char *
expand(const TdeArchiveOptions *options, const char *path)
{
	return tde_fe_expand_command(options->command, "RESTORE-COMMAND",
								 options->name, path);
}

/*
 * Run the command, which is to write that file, of at most that size, in the
 * directory.  Comes back if it has succeeded.
 */
static void
fetch(const TdeArchiveOptions *options, const char *path, const char *dir,
	  uint64 size)
{
	struct stat st;
	bool		was_there = lstat(path, &st) == 0;
	int			status;

	require_room(dir, size);
	status = tde_fe_run_command(expand(options, path));
	if (status == 0)
		return;
	if (status <= MAX_NO_FILE)
	{
		if (!was_there)
			check_nothing_there(status, path);
		require_room(dir, size);
	}
	pass_status(status);
}

/*
 * A file that is not encrypted goes right to the destination; the server has
 * seen to it that nothing is there.  The history of a timeline that cannot be
 * written is not one that does not exist, either.
 */
static void
fetch_other_file(const TdeArchiveOptions *options)
{
	char	   *dir = pstrdup(options->path);

	get_parent_directory(dir);
	tde_fe_hold_signals();
	fetch(options, options->path, dir[0] ? dir : ".", OTHER_FILE_SIZE);
}

int
main(int argc, char **argv)
{
	TdeArchiveOptions options;
	const char *dir;
	char	   *path;
	struct stat st;
	uint64		size;
	TdeWalCopy *copy;

	pg_logging_init(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_restore_encrypt"));
	handle_help_version_opts(argc, argv, "pg_tde_restore_encrypt", usage);
	atexit(at_exit);

	tde_fe_parse_archive_options(argc, argv, true, -1, &options);

	if (!tde_fe_is_wal_segment(options.name))
	{
		fetch_other_file(&options);
		pass_status(0);
	}

	size = segment_size(tde_fe_wal_copy_init(options.pgdata, options.path));
	dir = tde_fe_make_private_dir(options.temp_directory);
	path = psprintf("%s/%s", dir, options.name);
	fetch(&options, path, dir, size);
	if (stat(path, &st) != 0 && errno == ENOENT)
		pg_fatal("RESTORE-COMMAND succeeded, but file \"%s\" does not exist",
				 path);
	copy = tde_fe_wal_copy_open(options.name, path, options.name,
								TDE_WAL_COPY_ENCRYPT);
	tde_fe_remove_private_dir();

	(void) tde_fe_wal_copy_prepare(copy);
	write_dest(copy, options.path);
	pass_status(0);
}
