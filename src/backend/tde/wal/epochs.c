/*-------------------------------------------------------------------------
 *
 * epochs.c
 *	  The epochs of WAL that the server knows: their file, their keys, and the
 *	  replay of their records.
 *
 * The file, pg_tde/global/wal_epochs, has the record of each epoch that this
 * server wrote or replayed.  An epoch is in it, durably, before its first page
 * is written, or before what follows its record is replayed.  So whoever reads
 * WAL in the server finds the key there, by way of epoch_cache.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/epochs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "../keys/scope/scope_internal.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "postmaster/startup.h"
#include "tde/settings.h"
#include "tde/wal_reader.h"
#include "wal_internal.h"

TdeWalWriting *tde_wal_writing = NULL;

void
TdeWalShmemInit(void)
{
	bool		locked;

	if (tde_wal_writing == NULL)
	{
		tde_wal_writing = tde_secure_alloc(sizeof(TdeWalWriting), true,
										   &locked);
		if (tde_wal_writing == NULL)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not map shared memory for encryption keys: %m")));
		tde_wal_insert_init();
	}
	tde_wal_writing->id = 0;
	tde_wipe(tde_wal_writing->key, sizeof(tde_wal_writing->key));
	pg_atomic_init_u32(&tde_wal_writing->replaying, 0);
	pg_atomic_init_u64(&tde_wal_writing->encrypted_since, InvalidXLogRecPtr);
	pg_atomic_init_u32(&tde_wal_writing->encrypted_tli, 0);
	tde_wal_epoch_cache_init();
	tde_wal_epochs_init();
	tde_ask_wal_is_encrypted = TdeWalIsEncrypted;
}

bool
TdeWalIsEncrypted(void)
{
	if (RecoveryInProgress())
		return pg_atomic_read_u32(&tde_wal_writing->replaying) != 0;
	return tde_wal_writing->id != 0;
}

TdeWalKeyStatus
tde_wal_epoch_authenticate(const uint8 *record, size_t len, TdeWalEpoch *epoch,
						   char *problem, size_t problem_size)
{
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	const char *why;
	int			result;

	if (tde_wal_epoch_decode(record, len, epoch, &why) < 0)
	{
		strlcpy(problem, _(why), problem_size);
		return TDE_WAL_KEY_UNUSABLE;
	}
	if (!tde_wal_epoch_is_tagged(epoch))
	{
		strlcpy(problem, _("record has no tag"), problem_size);
		return TDE_WAL_KEY_UNUSABLE;
	}
	if (!tde_generation_key(&epoch->generation, scope_key))
	{
		char		path[MAXPGPATH];
		char		reason[TDE_REASON_LEN];

		if (tde_scope_is_unavailable(TDE_SCOPE_SERVER, InvalidOid, reason))
		{
			snprintf(problem, problem_size,
					 _("the server's scope key that it is under is not available: %s"),
					 reason);
			return TDE_WAL_KEY_UNUSABLE;
		}
		tde_scope_path(TDE_SCOPE_SERVER, InvalidOid, path);
		snprintf(problem, problem_size,
				 _("the server's scope key that it is under is not in file \"%s\""),
				 path);
		return TDE_WAL_KEY_UNUSABLE;
	}
	result = tde_wal_epoch_unwrap(record, len, scope_key, epoch, &why);
	tde_wipe(scope_key, sizeof(scope_key));
	if (result < 0)
	{
		strlcpy(problem, _(why), problem_size);
		return TDE_WAL_KEY_UNUSABLE;
	}
	return TDE_WAL_KEY_FOUND;
}

static TdeWalKeyStatus
find_key(const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
		 char *problem, size_t problem_size)
{
	uint8		record[TDE_WAL_EPOCH_MAX_LEN];
	size_t		len;
	TdeWalKeyStatus status = tde_wal_epoch_look_up(query, epoch, record, &len,
												   problem, problem_size);

	if (status == TDE_WAL_KEY_FOUND)
		status = tde_wal_epoch_authenticate(record, len, epoch, problem,
											problem_size);
	epoch->scope = NULL;
	epoch->scope_len = 0;
	if (status == TDE_WAL_KEY_FOUND && AmStartupProcess() &&
		pg_atomic_exchange_u32(&tde_wal_writing->replaying, query->id) == 0)
		TdeWalWarnOfPromotion();
	return status;
}

/*
 * Recovery may not take WAL that it has no key for as the end of WAL.  Only a
 * standby goes on: what it reads may be a leftover, and the right page may yet
 * come from another source.
 */
static void
no_key(XLogRecPtr pageptr, const char *message)
{
	if (IsUnderPostmaster ? !AmStartupProcess() : !RecoveryInProgress())
		return;
	if (StandbyMode && !PromoteIsTriggered())
	{
		tde_wal_unread_page = pageptr;
		return;
	}
	ereport(FATAL,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("%s", message),
			 tde_scope_is_unavailable(TDE_SCOPE_SERVER, InvalidOid, NULL) ?
			 errhint("Start the server when the key provider returns the server's key; if it has moved, tell the server with pg_tde_change_key_provider.") :
			 errhint("Restore the file from a backup, together with \"%s\", or take the keys from an archive of WAL with %s.",
					 TDE_GLOBAL_DIR, "pg_tde_rebuild_epochs")));
}

/*
 * The startup process looks for a key that is missing where it may yet be.
 */
static bool
rebuild(void)
{
	bool		rebuilt;

	if (IsUnderPostmaster && !AmStartupProcess())
		return false;
	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	rebuilt = tde_wal_epochs_rebuild();
	LWLockRelease(&tde_store->lock);
	return rebuilt;
}

void
tde_wal_epochs_init(void)
{
	static const TdeWalKeySource source = {
		.find = find_key,
		.rebuild = rebuild,
		.no_key = no_key,
		.check_clear_page = tde_wal_check_clear_page,
	};

	tde_wal_key_source = &source;
}

uint8 *
tde_wal_epochs_read(size_t *len, char **problem)
{
	TdeStoreProblem found;
	int			n;
	uint8	   *data = tde_store_read_epochs(TDE_WAL_EPOCHS_PATH, len, &n, &found);

	*problem = NULL;
	if (data == NULL && !found.missing)
		*problem = pstrdup(tde_store_problem_text(&found));
	return data;
}

/*
 * The file's content, palloc'd; NULL if there is no such file.  Damage that
 * cannot be mended is an error.
 */
static uint8 *
read_epochs_to_change(size_t *len, int *n)
{
	TdeStoreProblem problem;
	uint8	   *data = tde_store_read_epochs(TDE_WAL_EPOCHS_PATH, len, n,
											 &problem);

	/* An error of the operating system is neither damage nor loss. */
	if (data == NULL && (problem.missing || problem.errnum == 0) &&
		tde_wal_epochs_rebuild())
		data = tde_store_read_epochs(TDE_WAL_EPOCHS_PATH, len, n, &problem);

	if (data == NULL && problem.errnum != 0 && !problem.missing)
		tde_store_report(ERROR, &problem);
	if (data == NULL && !problem.missing)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg_internal("%s", tde_store_problem_text(&problem)),
				 errhint("Restore the file from a backup, or rebuild it from an archive of WAL with %s; or, if no WAL that was written before is needed any more, remove it.",
						 "pg_tde_rebuild_epochs")));
	return data;
}

bool
tde_wal_epoch_id_is_used(uint32 id)
{
	size_t		len;
	int			n;
	size_t		position = 0;
	size_t		epoch_len;
	const uint8 *p;
	bool		used = false;
	uint8	   *data;

	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	data = read_epochs_to_change(&len, &n);
	LWLockRelease(&tde_store->lock);
	if (data == NULL)
		return false;
	while (!used &&
		   (p = tde_wal_epochs_next(data, len, &position, &epoch_len)) != NULL)
		used = tde_wal_epoch_id(p) == id;
	pfree(data);
	return used;
}

void
tde_wal_epoch_store(const uint8 *record, size_t record_len)
{
	size_t		len;
	int			n;
	uint8	   *data;
	TdeWalEpoch epoch;
	TdeWalEpoch other;
	const char *reason;
	bool		there = false;
	bool		unique = true;
	size_t		body = 0;		/* bytes of the epochs that there are */
	size_t		position = 0;
	size_t		other_len;
	const uint8 *p;

	(void) tde_wal_epoch_decode(record, record_len, &epoch, &reason);
	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	data = read_epochs_to_change(&len, &n);
	if (data != NULL)
	{
		while ((p = tde_wal_epochs_next(data, len, &position, &other_len)) != NULL)
		{
			if (other_len == record_len && memcmp(p, record, record_len) == 0)
				there = true;
			else if (tde_wal_epoch_id(p) == epoch.id &&
					 tde_wal_epoch_decode(p, other_len, &other, &reason) == 0 &&
					 other.tli == epoch.tli)
				unique = false;
		}
		body = len - TDE_WAL_EPOCHS_OVERHEAD;
	}

	if (!there)
	{
		uint8	   *file = palloc(TDE_WAL_EPOCHS_OVERHEAD + body + record_len);

		if (data != NULL)
			memcpy(file + TDE_WAL_EPOCHS_HEADER, data + TDE_WAL_EPOCHS_HEADER,
				   body);
		memcpy(file + TDE_WAL_EPOCHS_HEADER + body, record, record_len);
		len = tde_wal_epochs_finish(file, body + record_len, n + 1);

		tde_make_directory(InvalidOid);
		tde_write_temp_file(TDE_WAL_EPOCHS_PATH, file, len, true);
		tde_rename_temp_file(TDE_WAL_EPOCHS_PATH, ERROR);
		pfree(file);
	}
	tde_wal_epochs_changed(record, unique ? record_len : 0);
	LWLockRelease(&tde_store->lock);
	if (data != NULL)
		pfree(data);
}

/* ---- replay ---- */

/*
 * The epoch in a record; its bytes at *data, *len of them.
 */
static void
decode_record(XLogReaderState *record, TdeWalEpoch *epoch,
			  const uint8 **data, size_t *len)
{
	const char *reason = NULL;

	*data = (const uint8 *) XLogRecGetData(record);
	*len = tde_wal_epoch_length(*data, XLogRecGetDataLen(record));
	if (tde_wal_epoch_decode(*data, *len, epoch, &reason) == 0 &&
		epoch->start != record->EndRecPtr)
		reason = "wrong position";
	if (reason)
		ereport(PANIC,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid record of a WAL epoch at %X/%X: %s",
						LSN_FORMAT_ARGS(record->ReadRecPtr), reason)));
}

void
TdeWalEpochTimelines(XLogReaderState *record,
					 TimeLineID *tli, TimeLineID *prev_tli)
{
	TdeWalEpoch epoch;
	const uint8 *data;
	size_t		len;

	decode_record(record, &epoch, &data, &len);
	*tli = epoch.tli;
	*prev_tli = epoch.prev_tli;
}

/*
 * The record has what the epoch's key is under.  Normally that is resident:
 * the server's scope was read at the start, and its changes were replayed.
 */
static void
make_generation_resident(const TdeWalEpoch *epoch)
{
	uint8		key[TDE_WRAP_KEY_LEN];
	TdeScope   *scope;
	const char *reason;

	if (tde_generation_key(&epoch->generation, key))
	{
		tde_wipe(key, sizeof(key));
		return;
	}
	scope = tde_scope_parse(epoch->scope, epoch->scope_len, &reason);
	if (scope == NULL)
		elog(PANIC, "invalid scope in the record of a WAL epoch: %s", reason);
	tde_provider_wait_reset();
	(void) tde_scope_make_resident(scope, FATAL, NULL);
	tde_scope_free(scope);
}

void
tde_redo_wal_epoch(XLogReaderState *record)
{
	TdeWalEpoch epoch;
	const uint8 *data;
	size_t		len;
	char		problem[MAXPGPATH];
	bool		was_encrypted =
		pg_atomic_read_u32(&tde_wal_writing->replaying) != 0;

	decode_record(record, &epoch, &data, &len);
	if (epoch.system_identifier != GetSystemIdentifier())
		ereport(PANIC,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("record of a WAL epoch at %X/%X is of another database system",
						LSN_FORMAT_ARGS(record->ReadRecPtr))));

	if (epoch.id != 0)
	{
		make_generation_resident(&epoch);
		if (tde_wal_epoch_authenticate(data, len, &epoch, problem,
									   sizeof(problem)) != TDE_WAL_KEY_FOUND)
			ereport(FATAL,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not use key %08X of the WAL epoch at %X/%X: %s",
							epoch.id, LSN_FORMAT_ARGS(record->ReadRecPtr),
							problem)));
		tde_wipe(epoch.key, sizeof(epoch.key));
	}
	tde_wal_epoch_store(data, len);
	pg_atomic_write_u32(&tde_wal_writing->replaying, epoch.id);
	tde_wal_scrub_replayed(&epoch, !was_encrypted);
	tde_wal_epoch_replayed(&epoch);
}
