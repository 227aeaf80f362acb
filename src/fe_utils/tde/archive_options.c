/*-------------------------------------------------------------------------
 *
 * archive_options.c
 *	  The command line of the programs between the server and an archive.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/archive_options.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/logging.h"
#include "getopt_long.h"
#include "tde/fe_wal_archive.h"

pg_noreturn static void
try_help(const char *program)
{
	pg_log_error_hint("Try \"%s --help\" for more information.",
					  get_progname(program));
	exit(1);
}

void
tde_fe_parse_archive_options(int argc, char **argv, bool needs_command,
							 TdeArchiveOptions *options)
{
	static const struct option long_options[] = {
		{"pgdata", required_argument, NULL, 'D'},
		{"temp-directory", required_argument, NULL, 'T'},
		{NULL, 0, NULL, 0}
	};
	int			n;
	int			c;

	memset(options, 0, sizeof(TdeArchiveOptions));
	options->temp_directory = "/dev/shm";
	while ((c = getopt_long(argc, argv, "D:T:", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'D':
				options->pgdata = optarg;
				break;
			case 'T':
				options->temp_directory = optarg;
				break;
			default:
				try_help(argv[0]);
		}
	}

	n = argc - optind;
	argv += optind;
	if (n < (needs_command ? 3 : 2))
	{
		pg_log_error("too few arguments");
		try_help(argv[-optind]);
	}
	if (n > 3)
	{
		pg_log_error("too many command-line arguments (first is \"%s\")",
					 argv[3]);
		try_help(argv[-optind]);
	}
	options->name = argv[0];
	options->path = argv[1];
	options->command = n > 2 ? argv[2] : NULL;
}

void
tde_fe_print_archive_options(const char *temp_use)
{
	printf(_("\nOptions:\n"));
	printf(_("  -D, --pgdata=DATADIR       data directory, with the keys\n"));
	printf(_("  -T, --temp-directory=DIR   %s,\n"
			 "                             in memory (default: /dev/shm)\n"),
		   temp_use);
	printf(_("  -V, --version              output version information, then exit\n"));
	printf(_("  -?, --help                 show this help, then exit\n"));
	printf(_("\nWithout -D the data directory is the one whose pg_wal the path is in, or the\n"
			 "current directory, or the value of the environment variable PGDATA.\n"));
}
