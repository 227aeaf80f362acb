/*-------------------------------------------------------------------------
 *
 * pg_tde_restore_encrypt.c
 *	  Gets WAL from an archive in clear: runs a restore_command and encrypts
 *	  what that brings.
 *
 * To the server, a restore_command that fails in an ordinary way says that the
 * archive has no such file, which is the end of WAL; a point up to which to
 * recover, or rows that were committed, may lie beyond it.  Only the command
 * can know that.  So all our own failures end with a status that stops
 * recovery.
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

#include "common/file_perm.h"
#include "common/file_utils.h"
#include "common/logging.h"
#include "fe_utils/option_utils.h"
#include "tde/fe_wal_archive.h"
#include "tde/paths.h"

/* Any status above 125 stops recovery. */
#define EXIT_STOP_RECOVERY	255

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
	tde_fe_print_archive_options(_("where RESTORE-COMMAND puts the file"));
	printf(_("\nRESTORE-COMMAND is run with %%f and %%p standing for SOURCE-NAME and the path of\n"
			 "a temporary file.  What it puts there is encrypted into DEST-PATH.\n"));
	printf(_("\nUse as restore_command in postgresql.conf:\n"
			 "  restore_command = '%s %%f %%p \"RESTORE-COMMAND with %%%%f and %%%%p\"'\n"), program);
	printf(_("\nExit status is that of RESTORE-COMMAND, or %d, which stops recovery, if something\n"
			 "else failed.\n"), EXIT_STOP_RECOVERY);
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

static char *
expand(const TdeArchiveOptions *options, const char *path)
{
	return tde_fe_expand_command(options->command, "RESTORE-COMMAND",
								 options->name, path);
}

int
main(int argc, char **argv)
{
	TdeArchiveOptions options;
	char	   *path;
	struct stat st;
	TdeWalCopy *copy;
	int			status;

	pg_logging_init(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_restore_encrypt"));
	handle_help_version_opts(argc, argv, "pg_tde_restore_encrypt", usage);
	atexit(at_exit);

	tde_fe_parse_archive_options(argc, argv, true, &options);

	if (!tde_fe_is_wal_segment(options.name))
		tde_fe_become_command(expand(&options, options.path));

	tde_fe_wal_copy_init(options.pgdata, options.path);
	path = psprintf("%s/%s", tde_fe_make_private_dir(options.temp_directory),
					options.name);
	status = tde_fe_run_command(expand(&options, path));
	if (status != 0)
		pass_status(status);
	if (stat(path, &st) != 0 && errno == ENOENT)
	{
		/* to the server, too, that means that there is none */
		pg_log_error("RESTORE-COMMAND succeeded, but file \"%s\" does not exist",
					 path);
		pass_status(1);
	}
	copy = tde_fe_wal_copy_open(options.name, path, options.name,
								TDE_WAL_COPY_ENCRYPT);
	tde_fe_remove_private_dir();

	(void) tde_fe_wal_copy_prepare(copy);
	write_dest(copy, options.path);
	pass_status(0);
}
