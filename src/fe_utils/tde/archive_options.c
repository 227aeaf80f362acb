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

#include <limits.h>

#include "common/logging.h"
#include "fe_utils/option_utils.h"
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
							 int default_wait, TdeArchiveOptions *options)
{
	static const struct option long_options[] = {
		{"pgdata", required_argument, NULL, 'D'},
		{"temp-directory", required_argument, NULL, 'T'},
		{"wait", required_argument, NULL, 'w'},
		{"keys-on-stdin", no_argument, NULL, 1},
		{NULL, 0, NULL, 0}
	};
	int			n;
	int			c;
	int			seconds = default_wait;

	memset(options, 0, sizeof(TdeArchiveOptions));
	options->temp_directory = "/dev/shm";
	while ((c = getopt_long(argc, argv, "D:T:w:", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'D':
				options->pgdata = optarg;
				break;
			case 'T':
				options->temp_directory = optarg;
				break;
			case 'w':
				if (!option_parse_int(optarg, "-w/--wait", -1, INT_MAX, &seconds))
					exit(1);
				break;
			case 1:
				options->keys_on_stdin = true;
				break;
			default:
				try_help(argv[0]);
		}
	}

	tde_fe_set_key_wait(seconds);
	if (options->keys_on_stdin && needs_command)
	{
		pg_log_error("option %s cannot be used here", "--keys-on-stdin");
		try_help(argv[0]);
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
tde_fe_print_archive_options(const char *temp_use, const char *default_wait)
{
	printf(_("\nOptions:\n"));
	printf(_("  -D, --pgdata=DATADIR       data directory, with the keys\n"));
	printf(_("  -T, --temp-directory=DIR   %s,\n"
			 "                             in memory (default: /dev/shm)\n"),
		   temp_use);
	printf(_("  -w, --wait=SECONDS         how long to wait for a key provider that does not\n"
			 "                             answer; -1: without limit (default: %s)\n"),
		   default_wait);
	printf(_("  -V, --version              output version information, then exit\n"));
	printf(_("  -?, --help                 show this help, then exit\n"));
	printf(_("\nWithout -D the data directory is the one whose pg_wal the path is in, or the\n"
			 "current directory, or the value of the environment variable PGDATA.\n"));
}
