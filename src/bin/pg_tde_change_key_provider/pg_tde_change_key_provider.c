/*-------------------------------------------------------------------------
 *
 * pg_tde_change_key_provider.c
 *	  Changes type and options of a key provider while the server is down:
 *	  for the case that it cannot start because its key provider has moved.
 *
 * Only the list of providers is written.  The principal keys in use must be
 * in the new place already, and are looked for there.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/bin/pg_tde_change_key_provider/pg_tde_change_key_provider.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "common/logging.h"
#include "fe_utils/option_utils.h"
#include "getopt_long.h"
#include "lib/stringinfo.h"
#include "tde/cipher.h"
#include "tde/fe_key_store.h"

static const char *progname;

static void
usage(const char *program)
{
	printf(_("%s changes a key provider of a PostgreSQL server that is not running.\n\n"), program);
	printf(_("Usage:\n"));
	printf(_("  %s [OPTION]... DBOID NAME TYPE ARGUMENT...\n"), program);
	printf(_("\nArguments:\n"));
	printf(_("  DBOID                    OID of the database that the key provider belongs to,\n"
			 "                           %u for a global one\n"), GLOBALTABLESPACE_OID);
	printf(_("  NAME                     name of the key provider\n"));
	printf(_("  TYPE ARGUMENT...         its new type and options:\n"));
	printf("                             file PATH\n");
	printf("                             vault-v2 URL MOUNT TOKEN [CA [NAMESPACE]]\n");
	printf("                             kmip HOST PORT CERT KEY [CA [VERSION]]\n");
	printf(_("\nOptions:\n"));
	printf(_("  -D, --pgdata=DIR         data directory\n"));
	printf(_("  -f, --force              change it even after a crash of the server\n"));
	printf(_("      --no-verify          do not ask the key provider for the keys in use\n"));
	printf(_("  -V, --version            output version information, then exit\n"));
	printf(_("  -?, --help               show this help, then exit\n"));
	printf(_("\nIf no data directory is specified, the environment variable PGDATA is used.\n"));
}

/* ---- is the server down? ---- */

static void
check_server_is_down(bool force)
{
	ControlFileData *control;
	bool		crc_ok;
	struct stat st;

	tde_fe_check_server_is_down(_("Use the SQL functions to change its key providers, or stop it first. If that process is something else, remove \"postmaster.pid\"."));
	control = get_controlfile(".", &crc_ok);
	if (!crc_ok)
		pg_fatal("pg_control CRC value is incorrect");
	if (control->pg_control_version != PG_CONTROL_VERSION)
		pg_fatal("cluster is not compatible with this version of %s",
				 progname);
	if (control->state != DB_SHUTDOWNED &&
		control->state != DB_SHUTDOWNED_IN_RECOVERY &&
		stat("backup_label", &st) != 0 && !force)
	{
		pg_log_error("cluster was not shut down, or its server is running elsewhere");
		pg_log_error_hint("Stop the server. If it crashed and cannot start because of its key provider, use --force.");
		exit(1);
	}
	pg_free(control);
}

/* ---- the new options ---- */

/* A JSON string. */
static void
append_string(StringInfo buf, const char *value)
{
	appendStringInfoChar(buf, '"');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfo(buf, "\\%c", *p);
		else if ((unsigned char) *p < ' ')
			appendStringInfo(buf, "\\u%04x", (unsigned char) *p);
		else
			appendStringInfoChar(buf, *p);
	}
	appendStringInfoChar(buf, '"');
}

/*
 * Type and options from the command line, in the order of the type's table of
 * options.  An empty argument stands for an option that is not given.
 */
static void
fill_provider(TdeProvider *provider, const char *type_name,
			  int nargs, char **args)
{
	const TdeKeyringType *type = tde_keyring_type(type_name);
	StringInfoData buf;
	int			i = 0;

	if (type == NULL)
	{
		pg_log_error("unknown key provider type \"%s\"", type_name);
		pg_log_error_hint("Known types: %s.", tde_keyring_type_names());
		exit(1);
	}

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (; i < nargs && type->options[i].name != NULL; i++)
	{
		const TdeKeyringOption *option = &type->options[i];

		if (args[i][0] == '\0' && !option->required)
			continue;
		if (buf.len > 1)
			appendStringInfoString(&buf, ", ");
		append_string(&buf, option->name);
		appendStringInfoString(&buf, ": ");
		if (option->number && args[i][0] != '\0' &&
			strspn(args[i], "0123456789") == strlen(args[i]))
			appendStringInfoString(&buf, args[i]);
		else
			append_string(&buf, args[i]);
	}
	appendStringInfoChar(&buf, '}');

	if (i < nargs)
	{
		pg_log_error("too many arguments for a key provider of type \"%s\" (first is \"%s\")",
					 type->name, args[i]);
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}
	strlcpy(provider->type, type->name, sizeof(provider->type));
	if (strlcpy(provider->options, buf.data, sizeof(provider->options)) >=
		sizeof(provider->options))
	{
		pg_log_error("options of key provider \"%s\" are too long",
					 provider->name);
		pg_log_error_detail("They can have at most %d bytes.",
							TDE_MAX_PROVIDER_OPTIONS);
		exit(1);
	}
	pfree(buf.data);
}

/* ---- does it return the keys in use? ---- */

static void
report(const TdeKeyringError *error)
{
	pg_log_error_detail(error->detail[0] ? "%s: %s" : "%s",
						error->message, error->detail);
	if (error->hint[0])
		pg_log_error_hint("%s", error->hint);
}

/*
 * If the principal key of a scope is in the provider, ask for it.  Returns
 * false after a report.
 */
static bool
check_scope(TdeScopeKind kind, Oid dbOid, const TdeProvider *provider)
{
	TdeKeyringError error;
	char	   *problem;
	bool		ok = true;
	TdeScope   *scope = tde_fe_read_scope(kind, dbOid, &problem);

	if (scope == NULL)
	{
		/* not our affair, but worth a word */
		if (problem)
			pg_log_warning("%s", problem);
		return true;
	}
	if (tde_provider_is_named(provider, &scope->principal) &&
		!tde_fe_scope_is_over(scope) &&
		!tde_fe_unwrap_scope(scope, provider, &error))
	{
		pg_log_error("key provider \"%s\" does not return principal key \"%s\", which is in use (%s)",
					 provider->name, scope->principal.key_name,
					 tde_fe_scope_name(kind, dbOid));
		report(&error);
		ok = false;
	}
	tde_scope_free(scope);
	return ok;
}

static bool
check_keys_in_use(Oid dbOid, const TdeProvider *provider)
{
	Oid		   *databases;
	int			n;
	bool		ok;

	if (OidIsValid(dbOid))
		return check_scope(TDE_SCOPE_DATABASE, dbOid, provider);

	ok = check_scope(TDE_SCOPE_DEFAULT, InvalidOid, provider) &&
		check_scope(TDE_SCOPE_SERVER, InvalidOid, provider);
	databases = tde_fe_list_databases(&n);
	for (int i = 0; ok && i < n; i++)
		ok = check_scope(TDE_SCOPE_DATABASE, databases[i], provider);
	pg_free(databases);
	return ok;
}

static void
verify(Oid dbOid, const TdeProvider *provider)
{
	TdeKeyringError error;

	if (tde_keyring_validate(provider, NULL, &error) != TDE_KEYRING_OK)
	{
		pg_log_error("could not use key provider \"%s\"", provider->name);
		report(&error);
	}
	else if (check_keys_in_use(dbOid, provider))
		return;
	pg_log_error_hint("Nothing was changed. With --no-verify the key provider is changed without being asked.");
	exit(1);
}

/* ---- the list of key providers ---- */

/*
 * The list of a database, or the global one.  It is empty, and its change
 * number 0, where there is none.
 */
static TdeProviderList *
read_list(Oid dbOid)
{
	char	   *problem;
	TdeProviderList *list = tde_fe_read_providers(dbOid, &problem);

	if (list != NULL)
		return list;
	if (problem)
		pg_fatal("%s", problem);
	list = pg_malloc0(sizeof(TdeProviderList));
	list->dbOid = dbOid;
	list->providers = pg_malloc0(sizeof(TdeProvider));
	return list;
}

/*
 * Put a provider in its place among the others, which are in the order of
 * their numbers' magnitude.  There is room for it.
 */
static void
insert_provider(TdeProviderList *list, const TdeProvider *provider)
{
	int			i = list->nproviders++;

	for (; i > 0 && abs(list->providers[i - 1].id) > abs(provider->id); i--)
		list->providers[i] = list->providers[i - 1];
	list->providers[i] = *provider;
	if (abs(list->last_id) < abs(provider->id))
		list->last_id = provider->id;
}

/*
 * If the principal key of a scope is in the provider of that name, which the
 * list does not know, enter it as the scope describes it.
 */
static bool
enter_provider_of(TdeScopeKind kind, Oid dbOid, TdeProviderList *list,
				  const char *name)
{
	char	   *problem;
	TdeScope   *scope = tde_fe_read_scope(kind, dbOid, &problem);
	TdeProvider found[TDE_MAX_CANDIDATES];
	bool		ok;

	if (scope == NULL)
		return false;
	ok = strcmp(scope->principal.provider_name, name) == 0 &&
		(scope->principal.provider_id > 0) == OidIsValid(list->dbOid) &&
		list->nproviders < TDE_MAX_PROVIDERS &&
		tde_provider_candidates(&scope->principal, NULL, found) > 0;
	for (int i = 0; ok && i < list->nproviders; i++)
		ok = list->providers[i].id != found[0].id;
	if (ok)
	{
		insert_provider(list, &found[0]);
		if (list->change == 0)
		{
			list->change = scope->principal.provider_change;
			if (tde_random(list->id.b, TDE_ID_LEN) != 0)
				pg_fatal("could not make an id: %s", _(tde_cipher_error()));
		}
	}
	tde_scope_free(scope);
	return ok;
}

/*
 * A provider that came into use while a base backup ran may be missing in the
 * backup's list, which replay mends; and a list may be lost.  Scopes say
 * themselves what their provider is.
 */
static void
enter_missing_provider(TdeProviderList *list, const char *name)
{
	Oid		   *databases;
	int			n;

	if (OidIsValid(list->dbOid))
	{
		(void) enter_provider_of(TDE_SCOPE_DATABASE, list->dbOid, list, name);
		return;
	}
	if (enter_provider_of(TDE_SCOPE_DEFAULT, InvalidOid, list, name) ||
		enter_provider_of(TDE_SCOPE_SERVER, InvalidOid, list, name))
		return;
	databases = tde_fe_list_databases(&n);
	for (int i = 0; i < n; i++)
		if (enter_provider_of(TDE_SCOPE_DATABASE, databases[i], list, name))
			break;
	pg_free(databases);
}

/*
 * Again, before something is written: to ask the key provider takes a while.
 */
static void
check_nothing_changed(bool force, Oid dbOid, const TdeId *id, uint64 change)
{
	TdeProviderList *now;

	check_server_is_down(force);
	now = read_list(dbOid);
	if (!TdeIdEquals(&now->id, id) || now->change != change)
	{
		pg_log_error("the list of key providers was changed while the key provider was asked");
		pg_log_error_hint("Nothing was changed. Try again when the server is down.");
		exit(1);
	}
}

static TdeProvider *
find_provider(TdeProviderList *list, const char *name)
{
	TdeProvider *provider = tde_find_provider(list, name);

	if (provider == NULL)
	{
		enter_missing_provider(list, name);
		provider = tde_find_provider(list, name);
	}
	if (provider == NULL)
	{
		if (list->nproviders == 0 && OidIsValid(list->dbOid))
			pg_fatal("database %u has no key providers", list->dbOid);
		if (list->nproviders == 0)
			pg_fatal("there are no global key providers");
		if (OidIsValid(list->dbOid))
			pg_log_error("key provider \"%s\" of database %u does not exist",
						 name, list->dbOid);
		else
			pg_log_error("global key provider \"%s\" does not exist", name);
		for (int i = 0; i < list->nproviders; i++)
			pg_log_error_detail("There is \"%s\", of type \"%s\".",
								list->providers[i].name,
								list->providers[i].type);
		exit(1);
	}
	return provider;
}

/* ---- the program ---- */

static Oid
parse_database(const char *arg)
{
	char	   *end;
	unsigned long oid;

	errno = 0;
	oid = strtoul(arg, &end, 10);
	if (errno != 0 || strspn(arg, "0123456789") != strlen(arg) || oid == 0 ||
		oid > PG_UINT32_MAX)
		pg_fatal("invalid OID of a database: \"%s\"", arg);
	return oid == GLOBALTABLESPACE_OID ? InvalidOid : (Oid) oid;
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"pgdata", required_argument, NULL, 'D'},
		{"force", no_argument, NULL, 'f'},
		{"no-verify", no_argument, NULL, 1},
		{NULL, 0, NULL, 0}
	};
	const char *pgdata = getenv("PGDATA");
	bool		force = false;
	bool		no_verify = false;
	Oid			dbOid;
	TdeProviderList *list;
	TdeProvider *provider;
	TdeId		list_id;
	uint64		list_change;
	TdeKeyringError error;
	int			c;

	/* before anything makes OpenSSL allocate memory */
	(void) tde_secure_heap_init();

	pg_logging_init(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("pg_tde_change_key_provider"));
	progname = get_progname(argv[0]);
	handle_help_version_opts(argc, argv, "pg_tde_change_key_provider", usage);

	while ((c = getopt_long(argc, argv, "D:f", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'D':
				pgdata = optarg;
				break;
			case 'f':
				force = true;
				break;
			case 1:
				no_verify = true;
				break;
			default:
				pg_log_error_hint("Try \"%s --help\" for more information.",
								  progname);
				exit(1);
		}
	}
	if (argc - optind < 3)
	{
		pg_log_error("too few arguments");
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}
	if (pgdata == NULL)
	{
		pg_log_error("no data directory specified");
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}

	/* Files would belong to root, and the server could not read them. */
	if (geteuid() == 0)
	{
		pg_log_error("cannot be executed by \"root\"");
		pg_log_error_hint("You must run %s as the PostgreSQL superuser.",
						  progname);
		exit(1);
	}

	if (!GetDataDirectoryCreatePerm(pgdata))
		pg_fatal("could not read permissions of directory \"%s\": %m", pgdata);
	umask(pg_mode_mask);

	/* Relative paths in options start from here, as they do in the server. */
	if (chdir(pgdata) < 0)
		pg_fatal("could not change directory to \"%s\": %m", pgdata);
	check_server_is_down(force);

	dbOid = parse_database(argv[optind]);
	list = read_list(dbOid);
	list_id = list->id;
	list_change = list->change;
	provider = find_provider(list, argv[optind + 1]);
	fill_provider(provider, argv[optind + 2],
				  argc - optind - 3, argv + optind + 3);
	if (tde_keyring_check_options(provider, &error) != TDE_KEYRING_OK)
	{
		pg_log_error("could not use key provider \"%s\"", provider->name);
		report(&error);
		exit(1);
	}

	if (!no_verify)
		verify(dbOid, provider);
	check_nothing_changed(force, dbOid, &list_id, list_change);
	tde_fe_write_providers(list);
	printf(_("Key provider \"%s\" was changed.\n"), provider->name);
	return 0;
}
