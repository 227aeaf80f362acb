/*-------------------------------------------------------------------------
 *
 * databases.c
 *	  Keys when databases are created, moved and dropped.
 *
 * Where files are copied as they are (CREATE DATABASE ... STRATEGY FILE_COPY,
 * ALTER DATABASE ... SET TABLESPACE) the copies are under the same internal
 * keys.  Each gets a key record of its own, with its own id and identity,
 * before the first file is copied.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/databases.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "relation_internal.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/proc.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"

/* Key records in one WAL record. */
#define KEYS_A_RECORD	256

typedef struct CopyState
{
	Oid			src_spc;
	int			n;
	int			max;
	RelFileLocator *locators;
} CopyState;

static void
collect_key(const RelFileLocator *locator, void *arg)
{
	CopyState  *state = arg;

	if (OidIsValid(state->src_spc) && locator->spcOid != state->src_spc)
		return;
	if (state->n == state->max)
	{
		state->max = Max(state->max * 2, 64);
		if (state->locators == NULL)
			state->locators = palloc(sizeof(RelFileLocator) * state->max);
		else
			state->locators = repalloc_huge(state->locators,
											sizeof(RelFileLocator) * state->max);
	}
	state->locators[state->n++] = *locator;
}

/*
 * Make the record of one copied key and write its file's new version.
 */
static void
copy_key(const RelFileLocator *src, const RelFileLocator *dst,
		 TdeKey *key, uint8 *record)
{
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	char		reason[256];
	char		path[MAXPGPATH];
	int			rc;

	if (tde_key_file_read(src, key, true, reason, sizeof(reason)) !=
		TDE_KEYFILE_OK)
	{
		tde_key_path(src, path);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not copy the encryption key of a relation"),
				 errdetail("Key file \"%s\": %s.", path, reason),
				 errhint("Restore the key file from a backup, or drop the relation.")));
	}

	key->locator = *dst;
	tde_current_generation(dst->dbOid, &key->generation, scope_key);
	rc = tde_random(key->id.b, TDE_ID_LEN);
	if (rc == 0)
		rc = tde_key_record_encode(key, scope_key, record);
	tde_wipe(scope_key, sizeof(scope_key));
	tde_wipe(key->key, sizeof(key->key));
	if (rc != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make an encryption key: %s",
						tde_cipher_error())));

	tde_key_path(dst, path);
	tde_write_temp_file(path, record, TDE_KEY_RECORD_LEN, false);
}

void
TdeCopyDatabaseKeys(Oid src_db, Oid src_spc, Oid dst_db, Oid dst_spc)
{
	CopyState	state = {.src_spc = src_spc};
	TdeKey	   *keys;
	uint8	   *records;

	if (!TdeIsActive())
		return;
	tde_list_key_files(src_db, collect_key, &state);
	if (state.n == 0)
		return;

	if (src_db != dst_db)
		TdeCopyDatabaseScope(src_db, dst_db);
	tde_make_directory(dst_db);
	tde_known_forget_database(dst_db, dst_spc);

	keys = tde_secure_palloc(sizeof(TdeKey) * KEYS_A_RECORD);
	records = palloc(TDE_KEY_RECORD_LEN * KEYS_A_RECORD);
	for (int done = 0; done < state.n;)
	{
		int			n = 0;

		tde_begin_key_creation(dst_db);
		for (; n < KEYS_A_RECORD && done < state.n; n++, done++)
		{
			RelFileLocator dst = state.locators[done];

			dst.dbOid = dst_db;
			dst.spcOid = dst_spc;
			copy_key(&state.locators[done], &dst, &keys[n],
					 records + n * TDE_KEY_RECORD_LEN);
		}
		tde_log_and_install_keys(keys, records, n);
		tde_end_key_creation();
		CHECK_FOR_INTERRUPTS();
	}

	/*
	 * The records must be there whenever a copied file is.  (Not what
	 * GetXLogInsertRecPtr() says: at the end of a WAL page that is a place on
	 * the next one, up to which nothing can be flushed yet.)
	 */
	XLogFlush(XactLastRecEnd);
	INJECTION_POINT("tde-database-keys-copied", NULL);

	tde_secure_pfree(keys);
	pfree(records);
	pfree(state.locators);
}

/*
 * The scope of a database, if it has a principal key of its own.
 */
static TdeScope *
read_own_scope(Oid dbOid)
{
	char		reason[256];
	TdeScope   *scope = tde_scope_read(TDE_SCOPE_DATABASE, dbOid,
									   reason, sizeof(reason));

	if (scope && (scope->retired || scope->follows_default))
	{
		tde_scope_free(scope);
		scope = NULL;
	}
	return scope;
}

/*
 * A database with a principal key of its own hands it on to its copies, with
 * its providers; the copy gets a scope key of its own.  One that follows the
 * default key, or has none, hands nothing on: the copy follows the default
 * key when it first needs one.
 */
void
TdeCopyDatabaseScope(Oid src_db, Oid dst_db)
{
	TdeScope   *src;
	TdeScope   *dst;
	TdePrincipalKey *key;

	if (!TdeIsActive() || tde_scope_is_present(dst_db) ||
		!tde_scope_is_present(src_db))
		return;

	key = tde_secure_palloc(sizeof(TdePrincipalKey));
	src = tde_lock_with_principal(read_own_scope, src_db, key);
	if (src != NULL)
	{
		TdeProviderList *list = TdeGetProviders(src_db);

		if (list->nproviders > 0)
		{
			list->dbOid = dst_db;
			list->change = 0;	/* a new list */
			tde_providers_log_and_store(list);
		}
		dst = tde_scope_new(TDE_SCOPE_DATABASE, dst_db);
		dst->change = 1;
		dst->principal = src->principal;
		if (tde_scope_wrap(dst, key->key, key->len) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
					 errmsg("could not wrap scope keys: %s",
							tde_cipher_error())));
		tde_scopes_log_and_store(&dst, 1);
		tde_principal_remember(src->principal.provider_id > 0 ?
							   dst_db : InvalidOid, &dst->principal, key);
		tde_scope_free(dst);
		tde_scope_free(src);
	}
	LWLockRelease(&tde_store->lock);
	tde_secure_pfree(key);
}

typedef struct RemoveState
{
	Oid			spc;
	XLogRecPtr	lsn;
} RemoveState;

static void
queue_key(const RelFileLocator *locator, void *arg)
{
	RemoveState *state = arg;

	if (!OidIsValid(state->spc) || locator->spcOid == state->spc)
		tde_queue_key_removal(locator, state->lsn);
}

void
TdeDatabaseFilesRemoved(Oid db, Oid spc)
{
	RemoveState state = {.spc = spc};
	bool		redo = RecoveryInProgress();

	if (!TdeIsActive())
		return;
	state.lsn = tde_current_lsn(redo);
	tde_list_key_files(db, queue_key, &state);

	/*
	 * As when relations are dropped: once the files are gone this node must
	 * not start again as if it had not come so far yet.
	 */
	if (redo)
		XLogFlush(state.lsn);
}

void
TdeDatabaseDropped(Oid db)
{
	xl_tde_database_drop xlrec = {.dbOid = db};
	TdeRemoval	removal = {.locator.dbOid = db};
	char		dir[MAXPGPATH];
	char		reason[256];
	struct stat st;
	TdeScope   *scope;

	if (!TdeIsActive() || IsBinaryUpgrade)
		return;
	tde_database_dir(db, dir);
	if (stat(dir, &st) != 0)
	{
		if (errno == ENOENT)
			return;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat directory \"%s\": %m", dir)));
	}

	scope = tde_scope_read(TDE_SCOPE_DATABASE, db, reason, sizeof(reason));
	if (scope)
	{
		xlrec.id = scope->id;
		tde_scope_free(scope);
	}
	XLogBeginInsert();
	XLogRegisterData(&xlrec, sizeof(xlrec));
	(void) XLogInsert(RM_TDE_ID, XLOG_TDE_DATABASE_DROP);

	removal.id = xlrec.id;
	removal.lsn = tde_current_lsn(false);
	tde_queue_removal(&removal);
}

/*
 * A new database must not find the keys of an old one under its OID.  They
 * go with the next checkpoint.
 */
void
TdeCheckNewDatabaseOid(Oid db)
{
	char		dir[MAXPGPATH];
	struct stat st;

	if (!TdeIsActive() || IsBinaryUpgrade)
		return;
	tde_database_dir(db, dir);
	if (stat(dir, &st) != 0 && errno == ENOENT)
		return;

	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	if (stat(dir, &st) == 0 || errno != ENOENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("database OID %u is still in use by the encryption keys of a dropped database",
						db),
				 errdetail("The keys in directory \"%s\" are kept while a base backup runs.",
						   dir),
				 errhint("Try again when the backup has ended, or use another OID.")));
}
