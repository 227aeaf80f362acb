/*-------------------------------------------------------------------------
 *
 * pg_tde_check_keys.c
 *	  Tells which keys a data directory needs and whether they can be had:
 *	  principal keys from their providers, keys of relations from their files.
 *
 * It reads only, and needs no server.  While one runs the answer is about
 * the moment: relations come and go under the program's eyes, so what looks
 * wrong is looked at again.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/bin/pg_tde_check_keys/pg_tde_check_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "common/logging.h"
#include "common/relpath.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "tde/cipher.h"
#include "tde/fe_key_store.h"
#include "tde/page.h"
#include "tde/paths.h"

/* Exit status; 1 is that of a program that could not do its work. */
#define EXIT_PROBLEMS	2

static const char *progname;
static bool ask_providers = true;
static bool quiet = false;
static bool show_progress = false;

/* Will the server replay WAL before anything else? */
static bool will_recover = false;

/* What was found. */
static int	nscopes = 0;
static int	nkeys = 0;
static int	norphans = 0;
static int	nproblems = 0;

static void
usage(const char *program)
{
	printf(_("%s checks the encryption keys of a PostgreSQL database cluster.\n\n"), program);
	printf(_("Usage:\n"));
	printf(_("  %s [OPTION]... [DATADIR]\n"), program);
	printf(_("\nOptions:\n"));
	printf(_(" [-D, --pgdata=]DATADIR    data directory, or base backup\n"));
	printf(_("  -n, --no-providers       do not ask the key providers\n"));
	printf(_("  -P, --progress           show progress information\n"));
	printf(_("  -q, --quiet              print problems only\n"));
	printf(_("  -V, --version            output version information, then exit\n"));
	printf(_("  -?, --help               show this help, then exit\n"));
	printf(_("\nExit status is 0 if all keys are there, 2 if not, 1 if that could not be found out.\n"));
	printf(_("\nIf no data directory is specified, the environment variable PGDATA is used.\n"));
}

/*
 * Once a second at most, and at the end.
 */
static void
progress(int done, int total, bool finished)
{
	static time_t last = 0;
	time_t		now = time(NULL);

	if (!show_progress || (now == last && !finished))
		return;
	last = now;
	fprintf(stderr, _("%d of %d databases checked, %d key files, %d problems"),
			done, total, nkeys, nproblems);
	fputc(!finished && isatty(fileno(stderr)) ? '\r' : '\n', stderr);
}

static void
problem_found(const char *subject, const char *problem, const char *hint)
{
	nproblems++;
	pg_log_error("%s: %s", subject, problem);
	if (hint && hint[0])
		pg_log_error_hint("%s", hint);
}

/* ---- scopes ---- */

/*
 * The list of providers with the principal key of a scope.  The global one is
 * read once.
 */
static const TdeProviderList *
providers_of(const TdeScope *scope, char **problem)
{
	static TdeProviderList *global = NULL;
	static char *global_problem = NULL;
	static bool global_read = false;

	if (scope->principal.provider_id > 0)
		return tde_fe_read_providers(scope->dbOid, problem);
	if (!global_read)
	{
		global = tde_fe_read_providers(InvalidOid, &global_problem);
		global_read = true;
	}
	*problem = global_problem;
	return global;
}

/*
 * Ask for the principal key and unwrap the scope keys.  Returns false after a
 * report.
 *
 * Without the list of providers the scope's own word for its provider may do,
 * but if replay does not bring the list it is lost.
 */
static bool
open_scope(TdeScope *scope, const char *name)
{
	char	   *list_problem = NULL;
	char	   *problem = NULL;
	const char *hint;
	const TdeProviderList *list = providers_of(scope, &list_problem);
	bool		open = tde_fe_open_scope(scope, list, &problem, &hint);

	if (list_problem)
		problem_found(name, list_problem,
					  _("Restore the list of key providers from a backup."));
	else if (!open)
		problem_found(name, problem, hint);
	else if (list == NULL && !will_recover)
		problem_found(name,
					  psprintf(_("key provider \"%s\" (number %d), which has principal key \"%s\", is in no list"),
							   scope->principal.provider_name,
							   scope->principal.provider_id,
							   scope->principal.key_name),
					  _("Restore the list of key providers from a backup."));
	return open;
}

/*
 * Check the keys of a scope.  The caller frees the result, whose keys are
 * unwrapped if *open is set.  NULL if there is none.
 */
static TdeScope *
check_scope(TdeScopeKind kind, Oid dbOid, bool has_keys, bool *open)
{
	char	   *name = tde_fe_scope_name(kind, dbOid);
	char	   *problem;
	TdeScope   *scope = tde_fe_read_scope(kind, dbOid, &problem);

	*open = false;
	if (scope == NULL)
	{
		if (problem == NULL && has_keys)
			problem = pg_strdup(_("there are keys of relations, but no scope key, which protects them"));
		if (problem)
			problem_found(name, problem, _("Restore the file from a backup."));
		return NULL;
	}
	if (scope->retired && !has_keys)
		return scope;			/* nothing needs it */

	nscopes++;
	if (ask_providers)
		*open = open_scope(scope, name);
	if (!quiet)
	{
		printf(_("%s: principal key \"%s\", key provider \"%s\" (%s): %s\n"),
			   name, scope->principal.key_name,
			   scope->principal.provider_name,
			   scope->principal.provider_id > 0 ? _("of the database") : _("global"),
			   *open ? _("ok") : ask_providers ? _("FAILED") : _("not asked"));
		fflush(stdout);
	}
	pg_free(name);
	return scope;
}

/* ---- keys of WAL ---- */

/*
 * Check that the key of each run of writing WAL can be had.  Which of them are
 * needed depends on what is in archives, so all are.
 */
static void
check_wal_keys(void)
{
	const char *reason;
	TdeStoreProblem found;
	char	   *problem = NULL;
	size_t		len;
	int			n;
	size_t		position = 0;
	const uint8 *record;
	size_t		record_len;
	uint8	   *file = tde_store_read_epochs(TDE_WAL_EPOCHS_PATH, &len, &n,
											 &found);

	if (file == NULL)
		problem = tde_store_problem_text(&found);
	if (problem)
		problem_found(_("keys of WAL"), problem,
					  _("Restore the file from a backup."));
	if (problem || file == NULL || !ask_providers)
		return;

	while ((record = tde_wal_epochs_next(file, len, &position,
										 &record_len)) != NULL)
	{
		TdeWalEpoch epoch;
		TdeWalEpochQuery query;
		char		why[1024];

		(void) tde_wal_epoch_decode(record, record_len, &epoch, &reason);
		query = (TdeWalEpochQuery)
		{
			epoch.id, epoch.tli, epoch.start, epoch.start
		};
		if (epoch.id != 0 &&
			tde_fe_wal_find_epoch(&query, &epoch, why,
								  sizeof(why)) != TDE_WAL_KEY_FOUND)
			problem_found(psprintf(_("key %08X of WAL from %X/%X of timeline %u on"),
								   query.id, LSN_FORMAT_ARGS(query.start),
								   query.tli), why, NULL);
		tde_wipe(epoch.key, sizeof(epoch.key));
	}
	pfree(file);
}

/* ---- keys of relations ---- */

static bool
exists(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return true;
	if (errno != ENOENT)
		pg_fatal("could not stat file \"%s\": %m", path);
	return false;
}

/*
 * Has a relation a file that its key is for?
 */
static bool
relation_has_file(const RelFileLocator *locator)
{
	RelPathStr	path = relpathperm(*locator, MAIN_FORKNUM);

	if (exists(path.str))
		return true;
	path = relpathperm(*locator, INIT_FORKNUM);
	return exists(path.str);
}

static bool
database_exists(Oid dbOid)
{
	char		path[MAXPGPATH * 2];
	DIR		   *dir;
	struct dirent *de;
	bool		found;

	snprintf(path, sizeof(path), "base/%u", dbOid);
	found = exists(path);
	dir = opendir(PG_TBLSPC_DIR);
	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", PG_TBLSPC_DIR);
	while (!found && (de = readdir(dir)) != NULL)
	{
		if (!OidIsValid(tde_parse_database_dir(de->d_name)))
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s/%u", PG_TBLSPC_DIR,
				 de->d_name, TABLESPACE_VERSION_DIRECTORY, dbOid);
		found = exists(path);
	}
	closedir(dir);
	return found;
}

/*
 * Check a key file.  One that no relation needs any more may be anything: the
 * server removes it.
 */
static void
check_key(const RelFileLocator *locator, const TdeScope *scope)
{
	TdeKey		key;
	bool		orphan;
	char	   *problem;
	bool		ok = tde_fe_read_key(locator, scope, &key, &orphan,
									 &problem);

	tde_wipe(&key, sizeof(key));
	if (!ok && problem == NULL)
		return;					/* just removed */
	nkeys++;
	if (!relation_has_file(locator))
		norphans++;
	else if (!ok)
	{
		char		name[64];

		snprintf(name, sizeof(name), _("relation %u of database %u"),
				 locator->relNumber, locator->dbOid);
		problem_found(name, problem, _("Restore the file from a backup."));
	}
	if (problem)
		pfree(problem);
}

/* Is the first page of a file encrypted?  A file that is gone is not. */
static bool
is_marked(const char *path)
{
	TdeDataFileMark mark = tde_store_data_file_mark(path);

	if (mark == TDE_MARK_UNKNOWN)
		pg_fatal("could not read file \"%s\": %m", path);
	return mark == TDE_MARK_ENCRYPTED;
}

/*
 * An encrypted relation has no key.  In a base backup, and after a crash, the
 * key may be in the WAL that is still to be replayed.
 */
static void
key_is_missing(const char *file, const char *key)
{
	if (will_recover)
		pg_log_warning("%s: the relation is encrypted, and key file \"%s\" is expected from replay of WAL",
					   file, key);
	else
		problem_found(file,
					  psprintf(_("the relation is encrypted, but key file \"%s\" does not exist"),
							   key),
					  _("Restore the file from a backup."));
}

/*
 * Look for encrypted relations without a key in a database's directory of a
 * tablespace.
 */
static void
check_relations(const char *path, Oid spcOid, Oid dbOid)
{
	DIR		   *dir = opendir(path);
	struct dirent *de;

	if (dir == NULL && errno == ENOENT)
		return;
	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", path);
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		RelFileLocator locator = {.spcOid = spcOid,.dbOid = dbOid};
		char		file[MAXPGPATH * 2];
		char		key[MAXPGPATH];

		/* main forks, first segments; names are numbers like those of databases */
		locator.relNumber = tde_parse_database_dir(de->d_name);
		if (!RelFileNumberIsValid(locator.relNumber))
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, de->d_name);
		if (!is_marked(file))
			continue;
		tde_key_path(&locator, key);
		if (!exists(key) && is_marked(file))
			key_is_missing(file, key);
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", path);
	closedir(dir);
}

static void
check_all_relations(Oid dbOid)
{
	char		path[MAXPGPATH * 2];
	DIR		   *dir;
	struct dirent *de;

	snprintf(path, sizeof(path), "base/%u", dbOid);
	check_relations(path, DEFAULTTABLESPACE_OID, dbOid);

	dir = opendir(PG_TBLSPC_DIR);
	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", PG_TBLSPC_DIR);
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		Oid			spcOid = tde_parse_database_dir(de->d_name);

		if (!OidIsValid(spcOid))
			continue;
		snprintf(path, sizeof(path), "%s/%u/%s/%u", PG_TBLSPC_DIR, spcOid,
				 TABLESPACE_VERSION_DIRECTORY, dbOid);
		check_relations(path, spcOid, dbOid);
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", PG_TBLSPC_DIR);
	closedir(dir);
}

static void
check_database(Oid dbOid)
{
	int			n;
	RelFileLocator *keys = tde_fe_list_keys(dbOid, &n);
	bool		needed = false;
	bool		open = false;
	TdeScope   *scope = NULL;

	/* What was dropped needs nothing, and the server removes it. */
	for (int i = 0; i < n && !needed; i++)
		needed = relation_has_file(&keys[i]);
	if (needed || database_exists(dbOid))
		scope = check_scope(TDE_SCOPE_DATABASE, dbOid, needed, &open);

	for (int i = 0; i < n; i++)
		check_key(&keys[i], open ? scope : NULL);
	pg_free(keys);
	if (scope)
		tde_scope_free(scope);
}

/*
 * The databases that have files or keys; sorted.  Those in other tablespaces
 * only are found by their keys.
 */
static Oid *
list_databases(int *n)
{
	Oid		   *oids = tde_fe_list_databases(n);
	int			nkeyed = *n;
	DIR		   *dir = opendir("base");
	struct dirent *de;

	if (dir == NULL)
		pg_fatal("could not open directory \"%s\": %m", "base");
	while (errno = 0, (de = readdir(dir)) != NULL)
	{
		Oid			oid = tde_parse_database_dir(de->d_name);
		int			i = 0;

		while (i < nkeyed && oids[i] != oid)
			i++;
		if (!OidIsValid(oid) || i < nkeyed)
			continue;
		oids = pg_realloc(oids, sizeof(Oid) * (*n + 1));
		oids[(*n)++] = oid;
	}
	if (errno != 0)
		pg_fatal("could not read directory \"%s\": %m", "base");
	closedir(dir);
	return oids;
}

/* ---- the program ---- */

/*
 * Not while a server runs: it has replayed what there was.
 */
static bool
needs_recovery(void)
{
	ControlFileData *control;
	bool		crc_ok;
	bool		result;

	if (exists("backup_label"))
		return true;
	if (exists("postmaster.pid"))
		return false;
	control = get_controlfile(".", &crc_ok);
	result = crc_ok && control->state != DB_SHUTDOWNED &&
		control->state != DB_SHUTDOWNED_IN_RECOVERY;
	pg_free(control);
	return result;
}

static void
check_all(void)
{
	static const TdeScopeKind kinds[] = {
		TDE_SCOPE_DEFAULT, TDE_SCOPE_SERVER
	};
	int			n;
	Oid		   *databases = list_databases(&n);
	bool		server_key_deleted = false;

	for (int i = 0; i < lengthof(kinds); i++)
	{
		bool		open;
		TdeScope   *scope = check_scope(kinds[i], InvalidOid, false, &open);

		if (scope == NULL)
			continue;
		if (kinds[i] == TDE_SCOPE_SERVER)
			server_key_deleted = scope->retired;
		tde_scope_free(scope);
	}

	/* to delete the server key was to say that they are not needed */
	if (!server_key_deleted)
		check_wal_keys();
	for (int i = 0; i < n; i++)
	{
		progress(i, n, false);
		check_database(databases[i]);
		check_all_relations(databases[i]);
	}
	progress(n, n, true);
	pg_free(databases);
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"pgdata", required_argument, NULL, 'D'},
		{"no-providers", no_argument, NULL, 'n'},
		{"progress", no_argument, NULL, 'P'},
		{"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0}
	};
	const char *pgdata = NULL;
	int			c;

	pg_logging_init(argv[0]);
	tde_fe_wal_keys_init(TDE_DIR);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_check_keys"));
	progname = get_progname(argv[0]);
	handle_help_version_opts(argc, argv, "pg_tde_check_keys", usage);

	while ((c = getopt_long(argc, argv, "D:nPq", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'D':
				pgdata = optarg;
				break;
			case 'n':
				ask_providers = false;
				break;
			case 'P':
				show_progress = true;
				break;
			case 'q':
				quiet = true;
				break;
			default:
				pg_log_error_hint("Try \"%s --help\" for more information.",
								  progname);
				exit(1);
		}
	}
	if (pgdata == NULL && optind < argc)
		pgdata = argv[optind++];
	if (pgdata == NULL)
		pgdata = getenv("PGDATA");
	if (optind < argc)
	{
		pg_log_error("too many command-line arguments (first is \"%s\")",
					 argv[optind]);
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}
	if (pgdata == NULL)
	{
		pg_log_error("no data directory specified");
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}

	/* Relative paths in options start from here, as they do in the server. */
	if (chdir(pgdata) < 0)
		pg_fatal("could not change directory to \"%s\": %m", pgdata);
	if (!exists("PG_VERSION"))
		pg_fatal("directory \"%s\" is not a data directory", pgdata);

	will_recover = needs_recovery();
	check_all();

	if (!quiet)
		printf(_("%d scopes, %d principal keys asked for, %d key files (%d not needed any more), %d problems\n"),
			   nscopes, tde_fe_principals_asked(), nkeys, norphans, nproblems);
	return nproblems > 0 ? EXIT_PROBLEMS : 0;
}
