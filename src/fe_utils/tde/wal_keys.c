/*-------------------------------------------------------------------------
 *
 * wal_keys.c
 *	  Keys of WAL for programs, from the key store of a data directory.
 *
 * Epochs are known from the key store's file, and from their records, which a
 * reader meets on its way.  An epoch's key is wrapped by a generation of the
 * server's scope key, which is looked for in the server's scope file; where
 * that is lost or has no such generation (it was made on a branch that
 * pg_rewind gave up), the copy of the scope in the epoch itself serves, and the
 * principal key named there, of the provider that is described there.
 *
 * A program has one key store.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/wal_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <sys/stat.h>

#include "common/logging.h"
#include "tde/fe_key_store.h"
#include "tde/paths.h"

/* The directory "pg_tde". */
static const char *key_store = NULL;

/*
 * The epochs that are known; and why those of the file are not among them, or
 * NULL.
 */
static TdeEpochTable *known = NULL;
static char *file_problem = NULL;

/* Scopes of the server whose keys are unwrapped. */
typedef struct OpenScope
{
	struct OpenScope *next;
	TdeScope   *scope;
} OpenScope;

static OpenScope *open_scopes = NULL;

/* ---- files ---- */

/* Path of a file in the key store that "path" names from a data directory. */
static char *
store_path(const char *path)
{
	return psprintf("%s%s", key_store, path + strlen(TDE_DIR));
}

/* Read it; if it does not exist that is a problem, too. */
static uint8 *
read_store_file(const char *path, size_t *len, char **problem)
{
	char	   *full = store_path(path);
	uint8	   *data = tde_fe_read_file(full, len, problem);

	if (data == NULL && *problem == NULL)
		*problem = psprintf(_("file \"%s\" does not exist"), full);
	pfree(full);
	return data;
}

static char *
damaged(const char *path, const char *reason)
{
	return psprintf(_("could not use file \"%s\": %s"), store_path(path),
					_(reason));
}

/* ---- epochs ---- */

static void
read_epochs(void)
{
	TdeStoreProblem problem;
	char	   *path = store_path(TDE_WAL_EPOCHS_PATH);
	size_t		len;
	int			n;
	uint8	   *data = tde_store_read_epochs(path, &len, &n, &problem);

	if (data)
	{
		tde_epoch_table_add_file(known, data, len);
		pfree(data);
	}
	else if (problem.missing)
		file_problem = psprintf(_("file \"%s\" does not exist"), path);
	else
		file_problem = tde_store_problem_text(&problem);
	pfree(path);
}

void
tde_fe_wal_learn_epoch(const uint8 *record, size_t len)
{
	TdeWalEpoch epoch;
	const char *reason;

	if (tde_wal_epoch_decode(record, len, &epoch, &reason) == 0)
		(void) tde_epoch_table_add(known, record, len);
}

/* ---- scope keys ---- */

static const uint8 *
find_open_scope_key(const TdeId *generation)
{
	for (OpenScope *open = open_scopes; open != NULL; open = open->next)
		for (int i = 0; i < open->scope->ngenerations; i++)
			if (TdeIdEquals(&open->scope->generations[i].id, generation))
				return open->scope->generations[i].key;
	return NULL;
}

/*
 * Unwrap the keys of an encoded scope and keep it.  Returns why that is not
 * possible, or NULL.  "path" is where it was read.
 */
static char *
open_server_scope(const uint8 *data, size_t len, const char *path)
{
	static TdeProviderList *providers = NULL;
	static char *providers_problem = NULL;
	TdeScope   *scope;
	OpenScope  *open;
	const char *reason;
	const char *hint;
	char	   *problem;

	if (providers == NULL && providers_problem == NULL)
	{
		char		list[MAXPGPATH];
		size_t		list_len;
		uint8	   *list_data;

		tde_provider_path(InvalidOid, list);
		list_data = read_store_file(list, &list_len, &providers_problem);
		if (list_data)
		{
			providers = tde_providers_parse(list_data, list_len,
											InvalidOid, &reason);
			if (providers == NULL)
				providers_problem = damaged(list, reason);
			pfree(list_data);
		}
	}
	scope = tde_scope_parse(data, len, &reason);
	if (scope != NULL && scope->kind != TDE_SCOPE_SERVER)
	{
		reason = gettext_noop("it belongs to another database");
		tde_scope_free(scope);
		scope = NULL;
	}
	if (scope == NULL)
		return damaged(path, reason);
	if (!tde_fe_open_scope(scope, providers, &problem, &hint))
	{
		/* the lack of a list counts if the scope does not make up for it */
		if (providers == NULL && scope->principal.provider_type[0] == '\0')
			problem = providers_problem;
		tde_scope_free(scope);
		return problem;
	}

	open = pg_malloc(sizeof(OpenScope));
	open->scope = scope;
	open->next = open_scopes;
	open_scopes = open;
	return NULL;
}

bool
tde_fe_wal_open_own_scope(char **problem)
{
	static bool tried = false;
	static char *scope_problem = NULL;

	if (!tried)
	{
		char		path[MAXPGPATH];
		size_t		len;
		uint8	   *data;

		tried = true;
		tde_scope_path(TDE_SCOPE_SERVER, InvalidOid, path);
		data = read_store_file(path, &len, &scope_problem);
		if (data)
		{
			scope_problem = open_server_scope(data, len, path);
			pfree(data);
		}
	}
	*problem = scope_problem;
	return scope_problem == NULL;
}

/*
 * The scope key that wraps an epoch's key; NULL with *problem.
 */
static const uint8 *
find_scope_key(const TdeWalEpoch *epoch, char **problem)
{
	char	   *own_problem;
	bool		own = tde_fe_wal_open_own_scope(&own_problem);
	const uint8 *key = find_open_scope_key(&epoch->generation);

	if (key)
		return key;
	*problem = open_server_scope(epoch->scope, epoch->scope_len,
								 TDE_WAL_EPOCHS_PATH);
	if (*problem == NULL)
		return find_open_scope_key(&epoch->generation);
	if (!own && strcmp(own_problem, *problem) != 0)
		*problem = psprintf("%s; %s", *problem, own_problem);
	return NULL;
}

bool
tde_fe_wal_prove_epoch(const uint8 *record, size_t len, char **problem)
{
	TdeWalEpoch epoch;
	const uint8 *scope_key;
	const char *reason;
	bool		proven;

	if (!tde_fe_wal_open_own_scope(problem))
		return false;
	if (tde_wal_epoch_decode(record, len, &epoch, &reason) < 0)
	{
		*problem = pstrdup(_(reason));
		return false;
	}
	scope_key = find_open_scope_key(&epoch.generation);
	if (scope_key == NULL)
	{
		*problem = pstrdup(_("the server's scope has no key of that generation"));
		return false;
	}
	proven = tde_wal_epoch_unwrap(record, len, scope_key, &epoch, &reason) == 0;
	tde_wipe(epoch.key, sizeof(epoch.key));
	if (!proven)
		*problem = pstrdup(_(reason));
	return proven;
}

/* ---- the key source ---- */

TdeWalKeyStatus
tde_fe_wal_find_epoch(const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
					  char *problem, size_t problem_size)
{
	char	   *path = store_path(TDE_WAL_EPOCHS_PATH);
	const uint8 *found;
	size_t		len;
	const uint8 *scope_key;
	const char *reason;
	char	   *why;
	TdeWalKeyStatus status;

	status = tde_epoch_table_find(known, path, query, epoch,
								  &found, &len, problem, problem_size);
	if (status == TDE_WAL_KEY_UNKNOWN)
	{
		/* the file may have grown since it was read */
		read_epochs();
		status = tde_epoch_table_find(known, path, query, epoch,
									  &found, &len, problem, problem_size);
	}
	pfree(path);
	if (status == TDE_WAL_KEY_UNKNOWN && file_problem)
		strlcpy(problem, file_problem, problem_size);
	if (status != TDE_WAL_KEY_FOUND)
		return status;

	scope_key = find_scope_key(epoch, &why);
	if (scope_key == NULL)
	{
		strlcpy(problem, why, problem_size);
		return TDE_WAL_KEY_UNUSABLE;
	}
	if (tde_wal_epoch_unwrap(found, len, scope_key, epoch, &reason) < 0)
	{
		strlcpy(problem, damaged(TDE_WAL_EPOCHS_PATH, reason), problem_size);
		return TDE_WAL_KEY_UNUSABLE;
	}
	epoch->scope = NULL;
	epoch->scope_len = 0;
	return TDE_WAL_KEY_FOUND;
}

static void
no_key(XLogRecPtr pageptr, const char *message)
{
	pg_fatal("%s", message);
}

void
tde_fe_wal_keys_init(const char *path)
{
	static const TdeWalKeySource source = {
		.find = tde_fe_wal_find_epoch,
		.learn = tde_fe_wal_learn_epoch,
		.no_key = no_key,
	};
	char	   *parent = psprintf("%s/..", path);

	if (!tde_secure_heap_init())
		pg_fatal("could not set up memory for keys");

	/* by name, not through a link */
	canonicalize_path(parent);
	tde_keyring_set_directory(parent);
	key_store = path;
	known = tde_epoch_table_create();
	tde_wal_key_source = &source;
}

char *
tde_fe_key_store_of_wal(const char *waldir)
{
	char	   *parent = psprintf("%s/..", waldir);
	char	   *physical = psprintf("%s/../%s", waldir, TDE_DIR);
	char	   *path;
	struct stat st;

	/* pg_wal may be a link, and be given as a link or as where that leads to */
	canonicalize_path(parent);
	path = psprintf("%s/%s", parent, TDE_DIR);
	return stat(path, &st) != 0 && stat(physical, &st) == 0 ? physical : path;
}
