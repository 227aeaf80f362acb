/*-------------------------------------------------------------------------
 *
 * pg_tde_archive_decrypt.c
 *	  Hands WAL to an archive in clear: decrypts a segment for an
 *	  archive_command, or to standard output.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/bin/pg_tde_archive_decrypt/pg_tde_archive_decrypt.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/logging.h"
#include "fe_utils/option_utils.h"
#include "tde/fe_wal_archive.h"

static void
usage(const char *program)
{
	printf(_("%s decrypts a WAL segment for an archive.\n\n"), program);
	printf(_("Usage:\n"));
	printf(_("  %s [OPTION]... DEST-NAME SOURCE-PATH [ARCHIVE-COMMAND]\n"), program);
	tde_fe_print_archive_options(_("where the decrypted copy is made"), "0");
	printf(_("\nARCHIVE-COMMAND is run with %%f and %%p standing for DEST-NAME and the path of\n"
			 "the decrypted copy.  Without it the segment goes to standard output.\n"));
	printf(_("\nUse as archive_command in postgresql.conf:\n"
			 "  archive_command = '%s %%f %%p \"ARCHIVE-COMMAND with %%%%f and %%%%p\"'\n"), program);
}

static void
to_stdout(TdeWalCopy *copy)
{
	struct stat st;

	/* who reads may stop: end as programs do then, though the server does not */
	signal(SIGPIPE, SIG_DFL);
	tde_fe_wal_copy_write(copy, STDOUT_FILENO, "stdout");
	if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
		fsync(STDOUT_FILENO) != 0)
		pg_fatal("could not fsync file \"%s\": %m", "stdout");
	if (close(STDOUT_FILENO) != 0)
		pg_fatal("could not close file \"%s\": %m", "stdout");
}

static char *
expand(const TdeArchiveOptions *options, const char *path)
{
	return tde_fe_expand_command(options->command, "ARCHIVE-COMMAND",
								 options->name, path);
}

int
main(int argc, char **argv)
{
	TdeArchiveOptions options;
	char	   *path;
	TdeWalCopy *copy;
	bool		is_segment;
	bool		is_encrypted;
	int			fd;

	pg_logging_init(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_archive_decrypt"));
	handle_help_version_opts(argc, argv, "pg_tde_archive_decrypt", usage);

	tde_fe_parse_archive_options(argc, argv, false, 0, &options);

	is_segment = tde_fe_is_wal_segment(options.name);
	if (is_segment)
		tde_fe_wal_copy_init(options.pgdata, options.path);
	if (options.keys_on_stdin)
		tde_fe_read_given_keys();
	copy = tde_fe_wal_copy_open(options.name, options.path, options.path,
								is_segment ? TDE_WAL_COPY_DECRYPT : TDE_WAL_COPY_AS_IS);
	is_encrypted = is_segment && tde_fe_wal_copy_prepare(copy);

	if (options.command == NULL)
	{
		to_stdout(copy);
		return 0;
	}
	if (!is_encrypted)
		tde_fe_become_command(expand(&options, options.path));

	path = psprintf("%s/%s", tde_fe_make_private_dir(options.temp_directory),
					options.name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY | O_CLOEXEC,
			  S_IRUSR | S_IWUSR);
	if (fd < 0)
		pg_fatal("could not create file \"%s\": %m", path);
	tde_fe_wal_copy_write(copy, fd, path);
	if (close(fd) != 0)
		pg_fatal("could not close file \"%s\": %m", path);
	return tde_fe_run_command(expand(&options, path));
}
