/*-------------------------------------------------------------------------
 *
 * startup.c
 *	  What the key store does when the server starts.
 *
 * The startup process reads all scopes before it replays anything.  Where
 * their keys are not resident (that is, not after a mere crash of a backend)
 * it asks the key providers, once for each principal key.
 *
 * A scope that cannot be opened is the trouble of its database: it is noted as
 * unavailable (scope/unavailable.c), and the server comes up with the others.
 * Only where WAL is to be replayed, which may need the key, is there a wait for
 * a provider that does not answer, in all for all scopes.
 *
 * A scope with nothing under it (principal/need.c) does not need its principal
 * key.  It comes last, is not waited for, and where the library is not preloaded,
 * so that nothing can come under it, is not asked for at all.  Should replay
 * bring a key of such a database after all, it waits then.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/startup.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "relation/relation_internal.h"
#include "storage/fd.h"
#include "tde/settings.h"
#include "tde/subsys.h"
#include "utils/memutils.h"

/*
 * Is the scope from a branch that was given up?  After pg_rewind there can be
 * one whose provider was known only there.  A list of
 * providers that is missing as a whole, or damaged, says nothing of the kind:
 * it is lost.
 */
static bool
is_from_dead_branch(const TdeScope *scope)
{
	Oid			provider_db = scope->principal.provider_id > 0 ? scope->dbOid : InvalidOid;
	TdeProviderList *list;
	char	   *problem;

	list = TdeTryGetProviders(provider_db, &problem);
	return list != NULL && list->change > 0 &&
		tde_find_named_provider(list, &scope->principal) == NULL;
}

/*
 * Whose keys they are, for messages about a scope.
 */
static void
scope_context(void *arg)
{
	const TdeScopeName *name = arg;

	if (name->kind == TDE_SCOPE_DATABASE)
		errcontext("while opening the keys of database %u", name->dbOid);
	else if (name->kind == TDE_SCOPE_SERVER)
		errcontext("while opening the keys of the server");
	else
		errcontext("while opening the default keys");
}

/* What there is to know of a start. */
typedef struct TdeStart
{
	bool		recovers;		/* WAL will be replayed */
	XLogRecPtr	redo;			/* see tde_scope_is_needed_to_start() */
	bool		rest;			/* now those with nothing under them */
	List	   *empty;			/* of TdeScopeName: these */
	TdeAsking	asking;
} TdeStart;

/* Databases with nothing under their scopes, which were not waited for. */
static List *not_waited_for = NIL;

/*
 * Opens a scope, or notes why it cannot be opened.  Returns false if it is to
 * come later.
 */
static bool
open_scope(TdeScopeKind kind, Oid dbOid, TdeStart *start)
{
	char		reason[256];
	TdeScope   *scope;
	TdeAsking  *asking = &start->asking;
	bool		needed;

	scope = tde_scope_try_read(kind, dbOid, reason, sizeof(reason));
	if (scope == NULL)
	{
		char		path[MAXPGPATH];

		if (reason[0] == '\0' &&
			!tde_scope_is_lost(kind, dbOid, reason, sizeof(reason)))
			return true;
		tde_scope_path(kind, dbOid, path);
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not use key file \"%s\": %s", path, reason),
				 errdetail("Relations whose keys it protects cannot be used."),
				 errhint("Restore the file from a backup.")));
		tde_scope_note_unavailable(kind, dbOid,
								   psprintf(_("key file \"%s\" cannot be used: %s"),
											path, reason));
		return true;
	}

	/*
	 * Where no principal key is set any more, it may be gone for good.  And
	 * after pg_rewind there can be a scope from the branch that was given up,
	 * whose provider was known only there.
	 */
	if (tde_scope_is_over(scope))
	{
		tde_scope_free(scope);
		return true;
	}

	needed = tde_scope_is_needed_to_start(scope, start->redo);
	if (!needed && !start->rest)
	{
		tde_scope_free(scope);
		return false;
	}
	if (!needed && !tde_preloaded)
	{
		tde_scope_publish(scope);
		if (!tde_scope_is_resident(scope))
			tde_scope_note_unavailable(kind, dbOid,
									   psprintf(_("principal key \"%s\" was not asked for when the server started, because nothing was under it"),
												scope->principal.key_name));
		tde_scope_free(scope);
		return true;
	}

	/*
	 * After the crash of a backend the server does not wait for what it was
	 * without before.
	 */
	asking->wait = needed && !scope->retired && !is_from_dead_branch(scope) &&
		!tde_scope_is_unavailable(kind, dbOid, NULL) &&
		(start->recovers || kind == TDE_SCOPE_SERVER);
	if (tde_scope_make_resident(scope, needed ? WARNING : LOG, asking))
	{
		tde_end_given_up(dbOid);
		tde_scope_publish(scope);
	}
	else if (!scope->retired)
	{
		/* who makes a key is told why it cannot be had */
		tde_scope_publish(scope);
		tde_scope_note_unavailable(kind, dbOid, asking->problem);
	}
	tde_scope_free(scope);
	return true;
}

/*
 * A database that the setting names is given up only where there is no other
 * way.
 */
static void
give_up_if_asked(Oid dbOid, bool recovers, bool given_up)
{
	if (!recovers || given_up || !TdeGivesUpDatabase(dbOid))
		return;
	if (!tde_scope_is_unavailable(TDE_SCOPE_DATABASE, dbOid, NULL))
	{
		ereport(LOG,
				(errmsg("database %u is not given up, because its keys are available",
						dbOid)));
		return;
	}
	tde_give_up(dbOid);
}

static void
load_scope(TdeScopeKind kind, Oid dbOid, TdeStart *start)
{
	TdeScopeName name = {.kind = kind,.dbOid = dbOid};
	ErrorContextCallback callback = {
		.callback = scope_context,
		.arg = &name,
		.previous = error_context_stack,
	};
	bool		given_up;
	bool		done;

	error_context_stack = &callback;
	given_up = kind == TDE_SCOPE_DATABASE && tde_load_given_up(dbOid);
	done = open_scope(kind, dbOid, start);
	error_context_stack = callback.previous;

	if (!done)
	{
		TdeScopeName *later = palloc(sizeof(TdeScopeName));

		*later = name;
		start->empty = lappend(start->empty, later);
	}
	else if (kind == TDE_SCOPE_DATABASE)
		give_up_if_asked(dbOid, start->recovers, given_up);
}

/*
 * Those with nothing under them, when all others have been asked for.
 */
static void
load_empty_scopes(TdeStart *start)
{
	start->rest = true;
	foreach_ptr(TdeScopeName, name, start->empty)
	{
		MemoryContext oldcontext;

		load_scope(name->kind, name->dbOid, start);
		if (!start->recovers || name->kind != TDE_SCOPE_DATABASE ||
			!tde_scope_is_unavailable(TDE_SCOPE_DATABASE, name->dbOid, NULL))
			continue;
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		not_waited_for = lappend_oid(not_waited_for, name->dbOid);
		MemoryContextSwitchTo(oldcontext);
	}
}

/*
 * Replay comes to a key of a database: if its scope was not waited for because
 * it had none, this is the time to.  A standby that serves queries waits as long
 * as it takes; others go on without it, as at a start, up to where they cannot.
 */
void
TdeKeysReplayNeeds(Oid dbOid)
{
	char		reason[256];
	TdeAsking	asking = {.wait = true};
	TdeScope   *scope;

	if (!list_member_oid(not_waited_for, dbOid))
		return;
	not_waited_for = list_delete_oid(not_waited_for, dbOid);
	if (!tde_scope_is_unavailable(TDE_SCOPE_DATABASE, dbOid, NULL) ||
		tde_given_up(dbOid) != 0)
		return;
	scope = tde_scope_try_read(TDE_SCOPE_DATABASE, dbOid, reason,
							   sizeof(reason));
	if (scope == NULL)
		return;
	tde_provider_wait_reset();
	if (tde_scope_make_resident(scope, StandbyMode && reachedConsistency ?
								FATAL : WARNING, &asking))
		tde_scope_publish(scope);
	else
		tde_scope_note_unavailable(TDE_SCOPE_DATABASE, dbOid, asking.problem);
	tde_scope_free(scope);
}

/*
 * CBC keys need data checksums.  They are refused when they are made, but
 * checksums can have been turned off since.
 */
static void
refuse_cbc_key(const RelFileLocator *locator, void *arg)
{
	TdeKey		key;
	char		reason[256];

	if (tde_key_file_read(locator, &key, false, reason, sizeof(reason)) ==
		TDE_KEYFILE_OK && TdeCipherIsCBC(key.cipher))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("data checksums are disabled, but cipher \"%s\" needs them",
						tde_cipher_name(key.cipher)),
				 errdetail("Relation %u of database %u is encrypted with this cipher.",
						   locator->relNumber, locator->dbOid),
				 errhint("Enable data checksums with pg_checksums.")));
}

/*
 * Remove what was being written of a database's scope and providers when the
 * server stopped.  Its directory can be large and is not looked through; what is
 * left there of a key is written over when the number is used again.
 */
static void
remove_temp_files_of(Oid dbOid)
{
	char		path[MAXPGPATH];

	tde_scope_path(TDE_SCOPE_DATABASE, dbOid, path);
	tde_remove_temp_file(path);
	tde_provider_path(dbOid, path);
	tde_remove_temp_file(path);
}

static void
remove_temp_files(const char *dir)
{
	DIR		   *d = AllocateDir(dir);
	struct dirent *de;

	if (d == NULL && errno == ENOENT)
		return;
	while ((de = ReadDir(d, dir)) != NULL)
	{
		size_t		len = strlen(de->d_name);
		char		path[MAXPGPATH * 2];

		if (len <= strlen(TDE_TEMP_SUFFIX) ||
			strcmp(de->d_name + len - strlen(TDE_TEMP_SUFFIX),
				   TDE_TEMP_SUFFIX) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		if (unlink(path) != 0 && errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(d);
}

/*
 * May WAL come from elsewhere?  Yes, unless the operating system says that there
 * is no signal file.
 */
static bool
may_get_wal(void)
{
	struct stat st;

	return stat(BACKUP_LABEL_FILE, &st) == 0 || errno != ENOENT ||
		stat(RECOVERY_SIGNAL_FILE, &st) == 0 || errno != ENOENT ||
		stat(STANDBY_SIGNAL_FILE, &st) == 0 || errno != ENOENT;
}

/*
 * Will WAL be replayed, and from where on?
 */
static void
look_at_wal(TdeStart *start)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (may_get_wal())
		start->recovers = true;
	else
	{
		start->recovers = control->state != DB_SHUTDOWNED;
		start->redo = control->checkPointCopy.redo;
	}
}

/*
 * A data directory of a server with Percona's pg_tde is otherwise one of
 * ours, and its encrypted tables would look like damaged ones.
 */
static void
refuse_foreign_store(void)
{
	char		name[MAXPGPATH];

	if (tde_store_is_foreign(TDE_DIR, name))
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the data directory was encrypted by Percona's pg_tde"),
				 errdetail("File \"%s/%s\" is one of its key store.",
						   TDE_DIR, name),
				 errhint("Start it with the server that made it, and bring the data here with pg_dumpall.")));
}

void
TdeKeysStartup(void)
{
	MemoryContext context;
	MemoryContext oldcontext;
	struct stat st;
	TdeStart	start = {0};
	Oid		   *databases;
	int			ndatabases;

	look_at_wal(&start);
	if (stat(TDE_DIR, &st) != 0)
	{
		if (errno == ENOENT)
		{
			if (start.recovers)
				pg_atomic_fetch_or_u32(&tde_store->active,
									   TDE_ACTIVE_RECOVERY);
			return;
		}
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not stat directory \"%s\": %m", TDE_DIR)));
	}

	refuse_foreign_store();

	context = AllocSetContextCreate(CurrentMemoryContext,
									"key store startup",
									ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);

	pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);
	tde_provider_wait_reset();

	remove_temp_files(TDE_GLOBAL_DIR);
	load_scope(TDE_SCOPE_SERVER, InvalidOid, &start);
	load_scope(TDE_SCOPE_DEFAULT, InvalidOid, &start);
	databases = tde_list_databases(&ndatabases);
	for (int i = 0; i < ndatabases; i++)
	{
		remove_temp_files_of(databases[i]);
		load_scope(TDE_SCOPE_DATABASE, databases[i], &start);
		tde_registry_compact(databases[i]);
		if (!DataChecksumsEnabled())
			tde_list_key_files(databases[i], refuse_cbc_key, NULL);
	}
	load_empty_scopes(&start);

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
