/*-------------------------------------------------------------------------
 *
 * pg_tde_rebuild_epochs.c
 *	  Rebuilds the file with the keys of encrypted WAL from WAL: from pg_wal,
 *	  and from directories of archived segments.
 *
 * Each epoch stands in WAL where it begins.  What is found is taken only if it
 * is of this database system and the server's scope key, which the key
 * provider's principal key opens, authenticates it: an archive proves nothing.
 * The copy of the scope in an epoch's record is not asked, since who can write
 * to an archive can make one up.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/bin/pg_tde_rebuild_epochs/pg_tde_rebuild_epochs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "common/file_utils.h"
#include "common/logging.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "tde/fe_key_store.h"

static const char *progname;

static TdeEpochTable *table;
static uint64 system_identifier;

/* Of records that were found, apart from those that are known. */
static int	ntaken = 0;
static int	nforeign = 0;
static int	nunproven = 0;

static bool unread = false;

static void
usage(const char *program)
{
	printf(_("%s rebuilds the file with the keys of encrypted WAL from WAL.\n\n"), program);
	printf(_("Usage:\n"));
	printf(_("  %s [OPTION]... [DIRECTORY]...\n"), program);
	printf(_("\nArguments:\n"));
	printf(_("  DIRECTORY                directory of WAL segments, such as an archive; pg_wal is\n"
			 "                           always looked through\n"));
	printf(_("\nOptions:\n"));
	printf(_("  -D, --pgdata=DIR         data directory\n"));
	printf(_("  -n, --dry-run            look only, and change nothing\n"));
	printf(_("  -V, --version            output version information, then exit\n"));
	printf(_("  -?, --help               show this help, then exit\n"));
	printf(_("\nIf no data directory is specified, the environment variable PGDATA is used.\n"));
}

static void
check_server_is_down(void)
{
	tde_fe_check_server_is_down(_("Stop it first. If that process is something else, remove \"postmaster.pid\"."));
}

/* ---- looking for epochs ---- */

/* TdeEpochCallback */
static void
take_if_proven(const uint8 *record, size_t len, const TdeWalEpoch *found,
			   void *arg)
{
	TdeWalEpochQuery query = {
		found->id, found->tli, found->start, found->start
	};
	TdeWalEpoch epoch;
	const uint8 *known;
	size_t		known_len;
	char		why[MAXPGPATH];
	char	   *problem;

	if (tde_epoch_table_find(table, TDE_WAL_EPOCHS_PATH, &query, &epoch,
							 &known, &known_len, why,
							 sizeof(why)) != TDE_WAL_KEY_UNKNOWN)
		return;
	if (found->system_identifier != system_identifier)
	{
		nforeign++;
		return;
	}
	if (!tde_fe_wal_prove_epoch(record, len, &problem))
	{
		nunproven++;
		pg_log_warning("key %08X of WAL from %X/%X of timeline %u on was found but not taken: %s",
					   found->id, LSN_FORMAT_ARGS(found->start), found->tli,
					   problem);
		return;
	}
	if (tde_epoch_table_add(table, record, len))
		ntaken++;
}

static void
scan_directory(const char *path)
{
	TdeStoreProblem problem;
	int			n;
	char	  **names = tde_store_list_segments(path, &n, &problem);

	if (names == NULL)
	{
		errno = problem.errnum;
		pg_fatal("could not read directory \"%s\": %m", path);
	}
	for (int i = 0; i < n; i++)
	{
		char	   *file = psprintf("%s/%s", path, names[i]);

		if (!tde_store_scan_segment(file, names[i], take_if_proven, NULL,
									&problem))
		{
			unread = true;
			if (problem.missing)
				pg_log_error("file \"%s\" has been removed meanwhile", file);
			else
				pg_log_error("%s", tde_store_problem_text(&problem));
		}
		pfree(file);
	}
}

/* ---- the file ---- */

/*
 * Put a damaged file aside, under a name that no file has.
 */
static void
put_aside(void)
{
	char		path[MAXPGPATH];
	struct stat st;

	snprintf(path, sizeof(path), "%s.damaged", TDE_WAL_EPOCHS_PATH);
	for (int i = 1; lstat(path, &st) == 0; i++)
		snprintf(path, sizeof(path), "%s.damaged.%d", TDE_WAL_EPOCHS_PATH, i);
	if (errno != ENOENT)
		pg_fatal("could not stat file \"%s\": %m", path);
	if (durable_rename(TDE_WAL_EPOCHS_PATH, path) != 0) /* which reports */
		exit(1);
	printf(_("the damaged file is now \"%s\"\n"), path);
}

static void
rebuild(int ndirectories, char **directories, bool dry_run)
{
	TdeStoreProblem problem;
	const char *reason = NULL;
	uint8	   *data;
	size_t		len;
	int			nknown = 0;

	data = tde_store_read_file(TDE_WAL_EPOCHS_PATH, &len, &problem);
	if (data == NULL && !problem.missing)
		pg_fatal("%s", tde_store_problem_text(&problem));
	table = tde_epoch_table_create();
	if (data != NULL)
		nknown = tde_wal_epochs_open(data, len, &reason);
	if (nknown < 0)
	{
		pg_log_warning("could not use file \"%s\": %s", TDE_WAL_EPOCHS_PATH,
					   _(reason));
		tde_store_scan_remains(data, len, take_if_proven, NULL);
		nknown = 0;
	}
	else if (data != NULL)
		tde_epoch_table_add_file(table, data, len);

	scan_directory(XLOGDIR);
	for (int i = 0; i < ndirectories; i++)
		scan_directory(directories[i]);

	printf(_("%d keys were in the file, %d others were found\n"),
		   nknown, ntaken);
	if (nforeign > 0)
		printf(_("%d keys of another database system were not taken\n"),
			   nforeign);
	if (ntaken == 0 && (reason || data == NULL))
	{
		pg_log_error("no key of WAL was found");
		pg_log_error_hint("Name a directory with segments of WAL from before the position where recovery needs the key.");
		exit(1);
	}
	if (ntaken > 0 && !dry_run)
	{
		uint8	   *file = tde_epoch_table_file(table, &len);

		check_server_is_down();
		if (reason)
			put_aside();
		tde_fe_write_file(TDE_WAL_EPOCHS_PATH, file, len);
		printf(_("file \"%s\" was written\n"), TDE_WAL_EPOCHS_PATH);
	}
}

/* ---- the program ---- */

/* A directory from the command line, as it is from the data directory. */
static char *
absolute(const char *path)
{
	char	   *full = make_absolute_path(path);

	if (full == NULL)
		exit(1);				/* it reported why */
	return full;
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"pgdata", required_argument, NULL, 'D'},
		{"dry-run", no_argument, NULL, 'n'},
		{NULL, 0, NULL, 0}
	};
	const char *pgdata = NULL;
	bool		dry_run = false;
	ControlFileData *control;
	bool		crc_ok;
	char	   *problem;
	int			c;

	pg_logging_init(argv[0]);
	tde_fe_wal_keys_init(TDE_DIR);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_rebuild_epochs"));
	progname = get_progname(argv[0]);
	handle_help_version_opts(argc, argv, "pg_tde_rebuild_epochs", usage);

	while ((c = getopt_long(argc, argv, "D:n", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'D':
				pgdata = optarg;
				break;
			case 'n':
				dry_run = true;
				break;
			default:
				pg_log_error_hint("Try \"%s --help\" for more information.",
								  progname);
				exit(1);
		}
	}
	if (pgdata == NULL)
		pgdata = getenv("PGDATA");
	if (pgdata == NULL)
	{
		pg_log_error("no data directory specified");
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}
	for (int i = optind; i < argc; i++)
		argv[i] = absolute(argv[i]);

	if (chdir(pgdata) < 0)
		pg_fatal("could not change directory to \"%s\": %m", pgdata);
	if (!GetDataDirectoryCreatePerm("."))
		pg_fatal("could not read permissions of directory \"%s\": %m", pgdata);
	umask(pg_mode_mask);

	control = get_controlfile(".", &crc_ok);
	if (!crc_ok)
		pg_fatal("pg_control CRC value is incorrect");
	if (control->pg_control_version != PG_CONTROL_VERSION)
		pg_fatal("cluster is not compatible with this version of %s",
				 progname);
	system_identifier = control->system_identifier;
	pg_free(control);

	if (!dry_run)
		check_server_is_down();
	if (!tde_fe_wal_open_own_scope(&problem))
	{
		pg_log_error("could not open the server's scope key: %s", problem);
		pg_log_error_detail("Without it no key of WAL can be told from a forged one.");
		exit(1);
	}
	rebuild(argc - optind, argv + optind, dry_run);
	if (unread)
	{
		pg_log_error("not all segments of WAL could be read");
		exit(1);
	}
	return 0;
}
