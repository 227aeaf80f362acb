/*-------------------------------------------------------------------------
 *
 * scopes.c
 *	  Scope keys: the keys of a database, or of the server, that wrap internal
 *	  keys and are themselves wrapped by a principal key.
 *
 * Here scopes are made, read, opened with their principal key, logged and
 * written; their keys are then in the tables of scope_tables.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope/scopes.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "scope_internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"

/* ---- scopes in memory ---- */

/* The generations are in secure memory, since they may have keys in clear. */
static TdeScopeGeneration *
alloc_generations(int n)
{
	return tde_secure_palloc(sizeof(TdeScopeGeneration) * n);
}

/*
 * A new scope with its first generation, and no principal key yet.
 */
TdeScope *
tde_scope_new(TdeScopeKind kind, Oid dbOid)
{
	TdeScope   *scope = palloc0(sizeof(TdeScope));

	scope->kind = kind;
	scope->dbOid = kind == TDE_SCOPE_DATABASE ? dbOid : InvalidOid;
	if (tde_random(scope->id.b, TDE_ID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make a scope key: %s", tde_cipher_error())));
	scope->generations = alloc_generations(1);
	tde_scope_add_generation(scope);
	return scope;
}

/*
 * Begin a new generation: keys made from now on are under it.
 */
void
tde_scope_add_generation(TdeScope *scope)
{
	TdeScopeGeneration *generations;
	TdeScopeGeneration *gen;

	if (scope->ngenerations >= TDE_SCOPE_MAX_GENERATIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("principal key was rotated too often"),
				 errdetail("A database can have at most %d generations of its scope key.",
						   TDE_SCOPE_MAX_GENERATIONS)));
	generations = alloc_generations(scope->ngenerations + 1);
	memcpy(generations, scope->generations,
		   sizeof(TdeScopeGeneration) * scope->ngenerations);
	tde_secure_pfree(scope->generations);
	scope->generations = generations;
	gen = &scope->generations[scope->ngenerations];
	gen->number = scope->ngenerations == 0 ? 1 : gen[-1].number + 1;
	gen->created = tde_now();
	if (tde_random(gen->id.b, TDE_ID_LEN) != 0 ||
		tde_random(gen->key, TDE_WRAP_KEY_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make a scope key: %s", tde_cipher_error())));
	scope->ngenerations++;
}

/*
 * Read a scope from its file.  NULL if there is none (*reason is empty) or it
 * cannot be used (*reason says why).  An error where the file cannot be read.
 */
TdeScope *
tde_scope_read(TdeScopeKind kind, Oid dbOid, char *reason, size_t reason_size)
{
	TdeStoreProblem problem;
	TdeScope   *scope = tde_store_read_scope(kind, dbOid, &problem);

	reason[0] = '\0';
	if (scope == NULL && problem.errnum != 0)
		tde_store_report(ERROR, &problem);
	if (scope == NULL && problem.errnum == 0)
		strlcpy(reason, _(problem.message), reason_size);
	return scope;
}

/*
 * As tde_scope_read(), but a file that cannot be read at all is a reason too.
 */
TdeScope *
tde_scope_try_read(TdeScopeKind kind, Oid dbOid, char *reason,
				   size_t reason_size)
{
	MemoryContext context = CurrentMemoryContext;
	TdeScope   *volatile scope = NULL;

	PG_TRY();
	{
		scope = tde_scope_read(kind, dbOid, reason, reason_size);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		strlcpy(reason, error->message, reason_size);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return scope;
}

/*
 * Say that a scope key is not there, and why.
 */
pg_noreturn static void
report_unavailable(TdeScopeKind kind, Oid dbOid)
{
	char		reason[TDE_REASON_LEN];
	bool		known = tde_scope_is_unavailable(kind, dbOid, reason);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 kind == TDE_SCOPE_DATABASE ?
			 errmsg("scope keys of database %u are not available", dbOid) :
			 errmsg("scope keys of the server are not available"),
			 known ? errdetail("The reason is: %s.", reason) : 0,
			 known ?
			 errhint("When that is repaired, no restart is needed: let the key provider return the key, change the key provider, or restore the file.") :
			 errhint("See the server log for what was wrong with them when the server started.")));
	pg_unreachable();
}

/*
 * Raise an error that says why the keys of a database are not available.
 */
void
tde_database_keys_unavailable(Oid dbOid)
{
	report_unavailable(TDE_SCOPE_DATABASE, dbOid);
}

/*
 * Fill in the keys of a scope from those that are resident.
 */
void
tde_scope_fill_keys(TdeScope *scope)
{
	for (int i = 0; i < scope->ngenerations; i++)
	{
		TdeScopeGeneration *gen = &scope->generations[i];

		if (!tde_generation_key(&gen->id, gen->key))
			report_unavailable(scope->kind, scope->dbOid);
	}
}

/*
 * Does nothing need the keys of this scope any more?  It has no principal key,
 * and the last key under it is gone, which it is only when no WAL that is
 * still to be replayed can ask for it.
 */
bool
tde_scope_is_over(const TdeScope *scope)
{
	return scope->retired &&
		!(scope->kind == TDE_SCOPE_DATABASE &&
		  tde_database_has_keys(scope->dbOid));
}

/*
 * There is no file of this scope.  Is it lost?  Yes, with the reason, where
 * there are keys under it.
 */
bool
tde_scope_is_lost(TdeScopeKind kind, Oid dbOid, char *reason, size_t size)
{
	if (kind != TDE_SCOPE_DATABASE || !tde_database_has_keys(dbOid))
		return false;
	strlcpy(reason, _("the file does not exist, but there are keys that it protects"),
			size);
	return true;
}

/*
 * Are all keys of a scope resident?
 */
bool
tde_scope_is_resident(const TdeScope *scope)
{
	bool		ok = true;

	for (int i = 0; ok && i < scope->ngenerations; i++)
	{
		uint8		key[TDE_WRAP_KEY_LEN];

		ok = tde_generation_key(&scope->generations[i].id, key);
		tde_wipe(key, sizeof(key));
	}
	return ok;
}

/*
 * Make sure that all keys of a scope are resident, asking the provider of its
 * principal key if one is not.  Returns false after a report below ERROR, and
 * the reason in asking->problem.
 */
bool
tde_scope_make_resident(TdeScope *scope, int elevel, TdeAsking *asking)
{
	TdePrincipalKey *principal;
	Oid			provider_db;
	bool		ok;

	if (tde_scope_is_resident(scope))
		return true;

	principal = tde_secure_palloc(sizeof(TdePrincipalKey));
	provider_db = scope->principal.provider_id > 0 ? scope->dbOid : InvalidOid;
	ok = tde_principal_get(provider_db, &scope->principal, principal) &&
		tde_scope_unwrap(scope, principal->key, principal->len) == 0;
	if (!ok)
	{
		if (!tde_principal_fetch(provider_db, &scope->principal, principal,
								 elevel, asking))
		{
			tde_secure_pfree(principal);
			return false;
		}
		ok = tde_scope_unwrap(scope, principal->key, principal->len) == 0;
		if (ok && !scope->retired)
			tde_principal_remember(provider_db, &scope->principal, principal);
	}
	tde_secure_pfree(principal);
	if (!ok)
	{
		char		path[MAXPGPATH];

		tde_scope_path(scope->kind, scope->dbOid, path);
		if (asking)
			asking->problem = psprintf(_("principal key \"%s\" from key provider \"%s\" is not the key that was in use"),
									   scope->principal.key_name,
									   scope->principal.provider_name);
		ereport(elevel,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("principal key \"%s\" from key provider \"%s\" is not the key that was in use",
						scope->principal.key_name,
						scope->principal.provider_name),
				 errdetail("It does not open the scope keys in file \"%s\".",
						   path),
				 errhint("Restore the principal key in the key provider, or the file from a backup.")));
		return false;
	}

	for (int i = 0; i < scope->ngenerations; i++)
	{
		TdeScopeGeneration *gen = &scope->generations[i];

		tde_generation_remember(&gen->id, gen->key);
		tde_wipe(gen->key, sizeof(gen->key));
	}
	return true;
}

/* ---- scopes on disk ---- */

static uint8 *
encode_scope(const TdeScope *scope, size_t *len)
{
	uint8	   *data = palloc(tde_scope_encoded_size(scope->ngenerations));

	*len = tde_scope_encode(scope, data);
	if (*len == 0)
		elog(ERROR, "could not encode a scope: %s", tde_cipher_error());
	return data;
}

/*
 * Put a scope that was logged before in its file.  For redo; the primary has
 * tde_scopes_log_and_store().
 */
void
tde_scope_install(const TdeScope *scope)
{
	char		path[MAXPGPATH];
	size_t		len;
	uint8	   *data = encode_scope(scope, &len);

	tde_make_directory(scope->dbOid);
	tde_scope_path(scope->kind, scope->dbOid, path);
	tde_write_temp_file(path, data, len, true);
	tde_rename_temp_file(path, ERROR);
	pfree(data);
}

/*
 * Have a scope that is to be written say what the list of providers says now
 * of the provider of its principal key.  What the list does not know, or
 * cannot be read, stays as it was.  The global list is read once.
 */
static void
embed_provider(TdeScope *scope, TdeProviderList **global)
{
	TdePrincipalRef *ref = &scope->principal;
	TdeProviderList *list = *global;
	TdeProvider *provider;
	char	   *problem;

	if (ref->provider_id > 0)
		list = TdeTryGetProviders(scope->dbOid, &problem);
	else if (list == NULL)
		list = *global = TdeTryGetProviders(InvalidOid, &problem);
	provider = list ? tde_find_named_provider(list, ref) : NULL;
	if (provider)
		tde_provider_embed(ref, list, provider);
}

/*
 * Log new versions of scopes in one record, replace their files and publish
 * them.  The scopes are wrapped; their keys, in clear in the structs, become
 * resident, but for those of scopes that are retired now.  Caller holds
 * store_lock exclusively.
 *
 * Whatever can fail is done before the record is written.  After that a
 * failure is a PANIC: standbys have the new version then, and recovery gives
 * it to this node too.
 */
void
tde_scopes_log_and_store(TdeScope **scopes, int nscopes)
{
	xl_tde_scopes xlrec = {.nscopes = nscopes};
	char	  **paths = palloc(sizeof(char *) * nscopes);
	TdeProviderList *global = NULL;
	StringInfoData body;
	XLogRecPtr	lsn;

	Assert(LWLockHeldByMeInMode(&tde_store->lock, LW_EXCLUSIVE));

	tde_scopes_check_room(scopes, nscopes);

	tde_rotation_phase(TDE_ROTATION_WRITING, nscopes);
	initStringInfo(&body);
	for (int i = 0; i < nscopes; i++)
	{
		TdeScope   *scope = scopes[i];
		size_t		len;
		uint8	   *data;
		uint32		len32;

		embed_provider(scope, &global);
		data = encode_scope(scope, &len);
		len32 = (uint32) len;
		paths[i] = palloc(MAXPGPATH);
		tde_make_directory(scope->dbOid);
		tde_scope_path(scope->kind, scope->dbOid, paths[i]);
		tde_write_temp_file(paths[i], data, len, false);

		appendBinaryStringInfo(&body, &len32, sizeof(len32));
		appendBinaryStringInfo(&body, data, len);
		pfree(data);
		tde_rotation_advance();
	}
	for (int i = 0; i < nscopes; i++)
		tde_sync_temp_file(paths[i]);

	/* those of a scope that is retired need not be at hand, see retire() */
	for (int i = 0; i < nscopes; i++)
		for (int j = 0; !scopes[i]->retired && j < scopes[i]->ngenerations; j++)
			tde_generation_remember(&scopes[i]->generations[j].id,
									scopes[i]->generations[j].key);

	INJECTION_POINT("tde-scopes-written", NULL);
	INJECTION_POINT_LOAD("tde-scopes-logged");
	INJECTION_POINT_LOAD("tde-scope-renamed");

	tde_rotation_phase(TDE_ROTATION_LOGGING, nscopes);

	START_CRIT_SECTION();
	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;

	XLogBeginInsert();
	XLogRegisterData(&xlrec, SizeOfTdeScopes);
	XLogRegisterData(body.data, body.len);
	lsn = XLogInsert(RM_TDE_ID, XLOG_TDE_SCOPES);
	XLogFlush(lsn);

	INJECTION_POINT_CACHED("tde-scopes-logged", NULL);

	tde_rotation_phase(TDE_ROTATION_INSTALLING, nscopes);
	for (int i = 0; i < nscopes; i++)
	{
		tde_move_temp_file(paths[i], PANIC);
		tde_rotation_advance();
		INJECTION_POINT_CACHED("tde-scope-renamed", NULL);
	}
	for (int i = 0; i < nscopes; i++)
		tde_sync_directory_of(paths[i], PANIC);

	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	END_CRIT_SECTION();

	INJECTION_POINT("tde-scopes-renamed", NULL);

	for (int i = 0; i < nscopes; i++)
	{
		tde_scope_publish(scopes[i]);
		pfree(paths[i]);
	}
	pfree(paths);
	pfree(body.data);
}

