/*-------------------------------------------------------------------------
 *
 * databases.c
 *	  Keys when databases are created, moved and dropped.
 *
 * Where a database's files are copied, each encrypted relation of the copy
 * gets a key record of its own, with its own id and identity, before the first
 * file is copied.  For a copy in another database (CREATE DATABASE ...
 * STRATEGY FILE_COPY) it holds a fresh internal key, under which the files are
 * encrypted anew (storage/copy_database.c); for the same database in another
 * tablespace (ALTER DATABASE ... SET TABLESPACE) the same internal key.
 *
 * The records are logged in the one record that stands for the copy of the
 * files, XLOG_DBASE_CREATE_FILE_COPY.  So a standby has them when it copies,
 * wherever its replay began, and never otherwise.
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
#include "common/relpath.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "storage/reinit.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"

/* Keys made at a time; no principal key is deleted meanwhile. */
#define KEYS_A_TIME		256

/* A key of the source. */
typedef struct SourceKey
{
	RelFileLocator locator;
	bool		has_file;
} SourceKey;

typedef struct SourceKeys
{
	Oid			spc;
	int			n;
	int			max;
	SourceKey  *keys;
} SourceKeys;

static void
collect_key(const RelFileLocator *locator, void *arg)
{
	SourceKeys *source = arg;

	if (locator->spcOid != source->spc)
		return;
	if (source->n == source->max)
	{
		source->max *= 2;
		source->keys = repalloc_huge(source->keys,
									 sizeof(SourceKey) * source->max);
	}
	source->keys[source->n].locator = *locator;
	source->keys[source->n++].has_file = false;
}

static int
compare_source_keys(const void *a, const void *b)
{
	RelFileNumber na = ((const SourceKey *) a)->locator.relNumber;
	RelFileNumber nb = ((const SourceKey *) b)->locator.relNumber;

	return na < nb ? -1 : na > nb;
}

/*
 * Leave out the keys of relations of which there is no file to be copied, as
 * those that were dropped and wait for their removal.  The proof is a listing
 * of the directory, which copydir() will list again: nobody is connected to
 * the source, so that no file comes in between.
 */
static void
keep_keys_with_files(SourceKeys *source, const char *dir)
{
	DIR		   *d = AllocateDir(dir);
	struct dirent *de;
	int			n = 0;

	while ((de = ReadDir(d, dir)) != NULL)
	{
		SourceKey	wanted;
		SourceKey  *found;
		ForkNumber	forknum;
		unsigned	segno;

		if (!parse_filename_for_nontemp_relation(de->d_name,
												 &wanted.locator.relNumber,
												 &forknum, &segno))
			continue;
		found = bsearch(&wanted, source->keys, source->n, sizeof(SourceKey),
						compare_source_keys);
		if (found != NULL)
			found->has_file = true;
	}
	FreeDir(d);

	for (int i = 0; i < source->n; i++)
	{
		if (source->keys[i].has_file)
			source->keys[n++] = source->keys[i];
	}
	source->n = n;
}

/*
 * Make the record of the key of one copy, and its file.
 */
static void
copy_key(const RelFileLocator *src, const RelFileLocator *dst, TdeKey *key,
		 uint8 *record)
{
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	char		reason[TDE_REASON_LEN] = "";
	char		path[MAXPGPATH];
	int			rc;

	switch (tde_key_file_read(src, key, true, reason, sizeof(reason)))
	{
		case TDE_KEYFILE_OK:
			break;
		case TDE_KEYFILE_UNAVAILABLE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not copy the encryption key of a relation"),
					 errdetail("The reason is: %s.", reason),
					 errhint("Try again when the key provider returns the key; if it has moved, change the key provider.")));
			break;
		case TDE_KEYFILE_NONE:
			strlcpy(reason, _("the file does not exist"), sizeof(reason));
			/* FALLTHROUGH */
		default:
			tde_key_path(src, path);
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not copy the encryption key of a relation"),
					 errdetail("Key file \"%s\": %s.", path, reason),
					 errhint("Restore the key file from a backup, or drop the relation.")));
	}

	if (src->dbOid != dst->dbOid)
		tde_draw_key(dst, key->cipher, NULL, key, record);
	else
	{
		key->locator = *dst;
		tde_current_generation(dst->dbOid, &key->generation, scope_key);
		rc = tde_random(key->id.b, TDE_ID_LEN);
		if (rc == 0)
			rc = tde_key_record_encode(key, scope_key, record);
		tde_wipe(scope_key, sizeof(scope_key));
		if (rc != 0)
			ereport(ERROR,
					(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
					 errmsg("could not make an encryption key: %s",
							tde_cipher_error())));
	}
	tde_wipe(key->key, sizeof(key->key));

	tde_key_path(dst, path);
	tde_write_temp_file(path, record, TDE_KEY_RECORD_LEN, false);

	/*
	 * No record is needed before.  The checkpointer gets its request to sync
	 * the file before the record of the copy is inserted.
	 */
	tde_key_file_install(key, NULL);
}

uint8 *
TdeCopyDatabaseKeys(Oid src_db, Oid src_spc, Oid dst_db, Oid dst_spc,
					int *nkeys)
{
	SourceKeys	source = {.spc = src_spc, .max = 64};
	char	   *dir;
	TdeKey	   *key;
	uint8	   *records;

	*nkeys = 0;
	if (!TdeIsActive())
		return NULL;
	tde_known_forget_database(dst_db, dst_spc);
	source.keys = palloc(sizeof(SourceKey) * source.max);
	tde_list_key_files(src_db, collect_key, &source);
	qsort(source.keys, source.n, sizeof(SourceKey), compare_source_keys);
	dir = GetDatabasePath(src_db, src_spc);
	keep_keys_with_files(&source, dir);
	pfree(dir);
	if (source.n == 0)
	{
		pfree(source.keys);
		return NULL;
	}

	if (src_db != dst_db)
		TdeCopyDatabaseScope(src_db, dst_db);
	tde_make_directory(dst_db);

	key = tde_secure_palloc(sizeof(TdeKey));
	records = MemoryContextAllocHuge(CurrentMemoryContext,
									 (Size) source.n * TDE_KEY_RECORD_LEN);
	for (int i = 0; i < source.n;)
	{
		tde_begin_key_creation(dst_db);
		for (int n = 0; n < KEYS_A_TIME && i < source.n; n++, i++)
		{
			RelFileLocator dst = source.keys[i].locator;

			dst.dbOid = dst_db;
			dst.spcOid = dst_spc;
			copy_key(&source.keys[i].locator, &dst, key,
					 records + (Size) i * TDE_KEY_RECORD_LEN);
		}
		tde_end_key_creation();
		CHECK_FOR_INTERRUPTS();
	}
	INJECTION_POINT("tde-database-keys-copied", NULL);

	tde_secure_pfree(key);
	*nkeys = source.n;
	pfree(source.keys);
	return records;
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

	tde_checkpoint_removals();
	if (stat(dir, &st) == 0 || errno != ENOENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("database OID %u is still in use by the encryption keys of a dropped database",
						db),
				 errdetail("The keys in directory \"%s\" are kept while a base backup runs.",
						   dir),
				 errhint("Try again when the backup has ended, or use another OID.")));
}
