/*-------------------------------------------------------------------------
 *
 * create.c
 *	  Making an internal key, and dealing with what an earlier life of a file
 *	  number left behind.
 *
 * Record, file and redo pointer are one step: from before the WAL record is
 * inserted until the file is in place and its sync is requested, no
 * checkpoint may take its redo pointer.  Else a checkpoint could put it after
 * the record and finish before the file exists.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/create.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "relation_internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "tde/settings.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"
#include "utils/timestamp.h"

/* Redo of its creation says that this relation is plain; see below. */
static RelFileLocator redo_plain_locator;

/*
 * Log keys, whose temporary files are there, and put the files in place.
 */
void
tde_log_and_install_keys(const TdeKey *keys, const uint8 *records, int nkeys)
{
	xl_tde_keys xlrec = {.nkeys = nkeys};

	Assert(LWLockHeldByMeInMode(&tde_store->creation_lock, LW_SHARED));
	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	PG_TRY();
	{
		XLogBeginInsert();
		XLogRegisterData(&xlrec, SizeOfTdeKeys);
		XLogRegisterData(records, nkeys * TDE_KEY_RECORD_LEN);
		(void) XLogInsert(RM_TDE_ID, XLOG_TDE_KEYS);

		INJECTION_POINT("tde-key-logged", NULL);

		for (int i = 0; i < nkeys; i++)
			tde_key_file_install(&keys[i], NULL);

		INJECTION_POINT("tde-key-installed", NULL);
	}
	PG_FINALLY();
	{
		MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	}
	PG_END_TRY();
}

/*
 * Between this and the next no principal key is taken from the database: a
 * key that was drawn under one would otherwise be installed after it is gone.
 * May make the database's scope, and raises an error where it has none and
 * gets none.  An error in between releases what is held.
 */
void
tde_begin_key_creation(Oid dbOid)
{
	TdeId		generation;

	for (;;)
	{
		tde_ensure_scope(dbOid);
		LWLockAcquire(&tde_store->creation_lock, LW_SHARED);
		if (tde_find_current_generation(dbOid, false, &generation))
			return;
		/* it was taken away again */
		LWLockRelease(&tde_store->creation_lock);
		CHECK_FOR_INTERRUPTS();
	}
}

void
tde_end_key_creation(void)
{
	LWLockRelease(&tde_store->creation_lock);
}

/*
 * Draw a key for a relation under the current scope key of its database, with
 * that id, or a new one if it is NULL.  (Between tde_begin_key_creation() and its end, but for redo.)
 */
void
tde_draw_key(const RelFileLocator *locator, TdeCipher cipher,
			 const TdeId *id, TdeKey *key, uint8 *record)
{
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	int			rc;

	memset(key, 0, sizeof(*key));
	key->locator = *locator;
	key->cipher = cipher;
	key->state = TDE_KEY_ACTIVE;
	key->created = tde_now();

	/* in a database that was given up it is as good as none */
	if (RecoveryInProgress() && tde_given_up(locator->dbOid) > key->created)
		rc = tde_random(key->generation.b, TDE_ID_LEN) != 0 ||
			tde_random(scope_key, sizeof(scope_key)) != 0;
	else
	{
		tde_current_generation(locator->dbOid, &key->generation, scope_key);
		rc = 0;
	}

	if (id != NULL)
		key->id = *id;
	else if (rc == 0)
		rc = tde_random(key->id.b, TDE_ID_LEN);
	if (rc == 0)
		rc = tde_generate_key(key->cipher, key->key);
	if (rc == 0)
		rc = tde_key_record_encode(key, scope_key, record);
	tde_wipe(scope_key, sizeof(scope_key));
	if (rc != 0)
	{
		tde_wipe(key, sizeof(*key));
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make an encryption key: %s",
						tde_cipher_error())));
	}
}

static void
check_cipher(void)
{
	/*
	 * Under CBC a torn write of a hint bit destroys the rest of the page; data
	 * checksums see to it that hint bits are logged.
	 */
	if (TdeCipherIsCBC(tde_cipher) && !DataChecksumsEnabled())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cipher \"%s\" needs data checksums",
						tde_cipher_name(tde_cipher)),
				 errdetail("Data checksums are disabled in this cluster; without them, an interrupted write could damage pages encrypted in CBC mode."),
				 errhint("Set \"pg_tde.cipher\" to \"aes_128_xts\" or \"aes_256_xts\", or enable data checksums with pg_checksums.")));
}

void
TdeCreateKey(const RelFileLocatorBackend *rlocator)
{
	TdeKey		key;
	uint8		record[TDE_KEY_RECORD_LEN];
	char		path[MAXPGPATH];

	check_cipher();
	tde_begin_key_creation(rlocator->locator.dbOid);
	tde_draw_key(&rlocator->locator, tde_cipher, NULL, &key, record);
	INJECTION_POINT("tde-key-drawn", NULL);

	if (RelFileLocatorBackendIsTemp(*rlocator))
	{
		TdeRelationKey relkey;

		tde_fill_relation_key(&key, &relkey);
		tde_temp_key_create(&rlocator->locator, &relkey);
		tde_wipe(&relkey, sizeof(relkey));
		tde_wipe(&key, sizeof(key));
		tde_end_key_creation();
		return;
	}

	/* The key itself is not needed any more. */
	tde_wipe(key.key, sizeof(key.key));

	tde_make_directory(rlocator->locator.dbOid);
	tde_key_path(&rlocator->locator, path);
	tde_write_temp_file(path, record, TDE_KEY_RECORD_LEN, false);
	tde_log_and_install_keys(&key, record, 1);
	tde_end_key_creation();
	INJECTION_POINT("tde-key-created", NULL);
}

static TdeKnownState
what_is_known(const RelFileLocator *locator)
{
	TdeCachePartition *part = tde_cache_partition(locator);
	TdeKnownState known;

	LWLockAcquire(&part->lock, LW_SHARED);
	known = tde_known_get(locator);
	LWLockRelease(&part->lock);
	return known;
}

/*
 * Make a key of this node for a relation that replay will drop, with the id that
 * the log has, or a new one if that is NULL.  There is no WAL to write now, so
 * the file is made durable at once.  False if the database never had a scope.
 */
static bool
make_local_key(const RelFileLocator *locator, const TdeId *id)
{
	TdeCipher	cipher = tde_cipher;
	TdeKey		key;
	uint8		record[TDE_KEY_RECORD_LEN];
	char		path[MAXPGPATH];
	RelPathStr	relpath;

	if (!tde_scope_is_present(locator->dbOid))
		return false;

	/* A CBC key without checksums would keep the server from starting again. */
	if (TdeCipherIsCBC(cipher) && !DataChecksumsEnabled())
		cipher = TDE_AES_128_XTS;

	tde_draw_key(locator, cipher, id, &key, record);
	tde_wipe(key.key, sizeof(key.key));
	tde_key_path(locator, path);
	tde_write_temp_file(path, record, TDE_KEY_RECORD_LEN, true);
	tde_key_file_install(&key, NULL);
	tde_database_dir(locator->dbOid, path);
	fsync_fname(path, true);

	relpath = relpathperm(*locator, MAIN_FORKNUM);
	ereport(DEBUG1,
			(errmsg_internal("made a local encryption key for relation \"%s\", which replay creates",
							 relpath.str)));
	return true;
}

/*
 * Recovery is about to create the main fork of a relation that is not there.
 * If it was dropped later in the WAL, maybe together with its key, its pages
 * will be written until that drop is replayed: never in clear, if it was
 * encrypted.
 *
 * That the file is missing proves nothing, neither that there was a drop, since
 * its tablespace may be away, nor that there was a key: a relation that never
 * had one is plain, and must be found plain when its file comes back.
 */
void
TdeCreateFallbackKey(const RelFileLocatorBackend *rlocator)
{
	const RelFileLocator *locator = &rlocator->locator;
	TdeKey		key;
	char		reason[256];

	if (!TdeIsActive() || RelFileLocatorBackendIsTemp(*rlocator) ||
		!OidIsValid(locator->dbOid))
		return;
	if (RelFileLocatorEquals(redo_plain_locator, *locator))
		return;
	if (tde_key_file_read(locator, &key, false,
						  reason, sizeof(reason)) != TDE_KEYFILE_NONE)
		return;

	if (what_is_known(locator) == TDE_KNOWN_NOTHING &&
		tde_registry_word(locator) == TDE_WORD_PLAIN)
		return;

	(void) make_local_key(locator, NULL);
}

/*
 * A plain relation is about to be created under a number that may have had a
 * key.
 */
static void
forget_if_known(const RelFileLocator *locator)
{
	tde_registry_load(locator->dbOid);
	if (what_is_known(locator) != TDE_KNOWN_NOTHING ||
		TdeKeyFileExists(locator))
		tde_key_file_forget(locator);
}

void
TdeForgetStaleKey(const RelFileLocatorBackend *rlocator)
{
	if (!TdeIsActive() || !OidIsValid(rlocator->locator.dbOid))
		return;
	if (RelFileLocatorBackendIsTemp(*rlocator))
		tde_temp_key_drop(&rlocator->locator);
	else
		forget_if_known(&rlocator->locator);
}

/*
 * Redo of XLOG_SMGR_CREATE, before the file is created.
 */
void
TdeRedoCreateStorage(const RelFileLocator *rlocator, const TdeId *keyid)
{
	TdeKey		key;
	char		reason[256];
	char		path[MAXPGPATH];
	RelPathStr	relpath;

	if (keyid == NULL)
	{
		redo_plain_locator = *rlocator;
		forget_if_known(rlocator);

		/*
		 * A standby that starts again can have files of a later, encrypted
		 * relation on disk: the record says that this one is plain, and their
		 * pages say what they are.  Now that the key is gone nobody could
		 * read them, nor take this relation for plain; replay makes them
		 * anew.
		 */
		switch (tde_data_file_mark(rlocator))
		{
			case TDE_MARK_NO_FILE:
			case TDE_MARK_NO_PAGE:
			case TDE_MARK_PLAIN:
				break;
			case TDE_MARK_ENCRYPTED:
				{
					SMgrRelation reln = smgropen(*rlocator,
												 INVALID_PROC_NUMBER);

					smgrdounlinkall(&reln, 1, true);
					break;
				}
			case TDE_MARK_UNKNOWN:
				relpath = relpathperm(*rlocator, MAIN_FORKNUM);
				ereport(FATAL,
						(errcode_for_file_access(),
						 errmsg("could not read file \"%s\", which recovery creates: %m",
								relpath.str)));
		}
		return;
	}

	memset(&redo_plain_locator, 0, sizeof(redo_plain_locator));
	switch (tde_key_file_read(rlocator, &key, false, reason, sizeof(reason)))
	{
		case TDE_KEYFILE_OK:
			if (TdeIdEquals(&key.id, keyid))
				return;
			strlcpy(reason, _("it holds another key than the one logged"),
					sizeof(reason));
			break;
		case TDE_KEYFILE_NONE:

			/*
			 * A key that was logged before replay began, and was removed when
			 * a checkpoint was past the drop of its relation.  That drop will
			 * be replayed: pg_rewind has put replay back to before it, and
			 * taken the list from the server whose WAL this is.
			 */
			if (tde_registry_word(rlocator) == TDE_WORD_REMOVED &&
				make_local_key(rlocator, keyid))
				return;
			strlcpy(reason, _("the file does not exist"), sizeof(reason));
			break;
		default:
			break;
	}
	tde_key_path(rlocator, path);
	relpath = relpathperm(*rlocator, MAIN_FORKNUM);
	ereport(FATAL,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("could not get the encryption key of relation \"%s\" that recovery creates",
					relpath.str),
			 errdetail("Key file \"%s\": %s.", path, reason),
			 errhint("Restore the directory \"pg_tde\" of the same backup, or start from another base backup.")));
}
