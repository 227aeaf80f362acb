/*-------------------------------------------------------------------------
 *
 * redo.c
 *	  Replay of the key store's WAL records.
 *
 * Replay is idempotent, and old records may meet newer files (a base backup
 * copies these whenever it comes to them): scopes and lists of providers carry
 * a change number, and the higher one stays.  That holds for one and the same
 * scope or list; one with another id belongs to an earlier database of the
 * same OID, or to a branch of history that is given up, and is replaced.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/redo.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "relation/relation_internal.h"
#include "tde/settings.h"
#include "tde/subsys.h"
#include "tde/xlog.h"

static void
damaged_record(XLogReaderState *record, const char *reason)
{
	ereport(PANIC,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid WAL record of the key store at %X/%X: %s",
					LSN_FORMAT_ARGS(record->ReadRecPtr), reason)));
}

static void
redo_key_records(XLogReaderState *record, const uint8 *records, Size len)
{
	const char *reason;

	if (len % TDE_KEY_RECORD_LEN != 0)
		damaged_record(record, "wrong length");

	for (; len > 0; len -= TDE_KEY_RECORD_LEN, records += TDE_KEY_RECORD_LEN)
	{
		TdeKey		key;

		if (tde_key_record_decode(records, TDE_KEY_RECORD_LEN,
								  &key, &reason) != 0)
			damaged_record(record, reason);
		TdeKeysReplayNeeds(key.locator.dbOid);
		tde_make_directory(key.locator.dbOid);
		tde_key_file_install(&key, records);
	}
}

static void
redo_keys(XLogReaderState *record)
{
	xl_tde_keys *xlrec = (xl_tde_keys *) XLogRecGetData(record);
	Size		len = XLogRecGetDataLen(record) - SizeOfTdeKeys;

	if (len != (Size) xlrec->nkeys * TDE_KEY_RECORD_LEN)
		damaged_record(record, "wrong length");
	redo_key_records(record, (const uint8 *) xlrec + SizeOfTdeKeys, len);
}

void
TdeRedoDatabaseKeys(XLogReaderState *record, Oid dst_db, Oid dst_spc,
					const uint8 *records, Size len)
{
	if (len > 0)
		pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);
	if (!TdeIsActive())
		return;
	tde_known_forget_database(dst_db, dst_spc);
	redo_key_records(record, records, len);
}

/*
 * Returns whether a principal key may have gone out of use.
 */
static bool
redo_scope(XLogReaderState *record, const uint8 *data, size_t len)
{
	const char *why;
	char		reason[256];
	char		problem[TDE_REASON_LEN];
	TdeScope   *scope = tde_scope_parse(data, len, &why);
	TdeScope   *old;
	bool		is_newer;
	bool		resident;
	bool		replaced;
	bool		is_older;
	bool		unavailable;
	bool		lenient;
	bool		may_give_up;
	bool		over;
	TdeAsking	asking = {0};

	if (scope == NULL)
		damaged_record(record, why);

	/*
	 * If keys of an earlier database of this OID wait for their removal, they
	 * must not take these with them.
	 */
	if (scope->kind == TDE_SCOPE_DATABASE)
		(void) tde_cancel_database_removal(scope->dbOid, NULL);

	/* A damaged file is replaced. */
	old = tde_scope_try_read(scope->kind, scope->dbOid, reason,
							 sizeof(reason));
	is_newer = old == NULL || !TdeIdEquals(&old->id, &scope->id) ||
		old->change < scope->change;

	/*
	 * A principal key that was deleted may be gone for good, and its provider
	 * with it.  What it protected had been dropped, and the primary had taken
	 * a checkpoint, before it was deleted; from now on this node, too, must
	 * not start from before that.  (Single-user mode makes no restartpoints.)
	 */
	if (is_newer && scope->retired && InArchiveRecovery && IsUnderPostmaster)
		RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE |
						  CHECKPOINT_WAIT);

	/*
	 * The keys come first: if they cannot be had this node can still start
	 * again with the file that it has, up to here.  Where the file is newer
	 * its keys are these and more; if nobody returns the principal key that it
	 * is under, these will do for now, under the one that the record names.
	 *
	 * What the start could not open is not waited for again: it is those
	 * records that cannot be replayed without the keys that stop replay.
	 *
	 * With a record that ends a scope with nothing under it there is nothing to
	 * ask for.
	 */
	over = scope->retired && tde_scope_is_over(is_newer ? scope : old);
	unavailable = tde_scope_is_unavailable(scope->kind, scope->dbOid,
										   problem);
	may_give_up = scope->kind == TDE_SCOPE_DATABASE &&
		TdeGivesUpDatabase(scope->dbOid);
	lenient = scope->retired ||
		(!is_newer && (old->retired || unavailable)) ||
		(scope->kind == TDE_SCOPE_DATABASE && unavailable &&
		 tde_given_up(scope->dbOid) != 0);
	if (!is_newer && !over && !unavailable &&
		tde_scope_make_resident(old, WARNING, &asking))
	{
		tde_scope_free(scope);
		scope = old;
		old = NULL;
		resident = true;
		is_older = false;
	}
	else
	{
		is_older = !is_newer;
		asking.wait = !lenient;
		if (!lenient && scope->kind == TDE_SCOPE_DATABASE)
			asking.hint = psprintf(_("Start the server when the key provider returns the key; if it has moved, tell the server with pg_tde_change_key_provider. To lose the encrypted relations of the database instead, start the server with \"%s\" set to '%u'."),
								   "pg_tde.give_up_databases", scope->dbOid);
		resident = over ? tde_scope_is_resident(scope) :
			tde_scope_make_resident(scope, lenient || may_give_up ?
									WARNING : FATAL, &asking);
	}
	if (resident)
		tde_provider_wait_reset();

	/* store_lock keeps removal off. */
	if (is_newer)
	{
		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		tde_scope_install(scope);
		LWLockRelease(&tde_store->lock);
	}
	if (resident || (over && is_newer))
	{
		if (!is_older && scope->kind == TDE_SCOPE_DATABASE)
			tde_end_given_up(scope->dbOid);
		tde_scope_publish(scope);
	}
	else if (is_newer && !scope->retired)
	{
		tde_scope_publish(scope);
		tde_scope_note_unavailable(scope->kind, scope->dbOid, asking.problem);
		if (may_give_up)
			tde_give_up(scope->dbOid);
	}
	if (is_older && unavailable)
		tde_scope_note_unavailable(scope->kind, scope->dbOid, problem);
	replaced = is_newer && old != NULL && !old->retired;
	tde_scope_free(scope);
	if (old)
		tde_scope_free(old);
	return replaced;
}

static void
redo_scopes(XLogReaderState *record)
{
	xl_tde_scopes *xlrec = (xl_tde_scopes *) XLogRecGetData(record);
	const uint8 *data = (const uint8 *) XLogRecGetData(record) + SizeOfTdeScopes;
	Size		left = XLogRecGetDataLen(record) - SizeOfTdeScopes;
	bool		replaced = false;

	tde_provider_wait_reset();
	for (uint32 i = 0; i < xlrec->nscopes; i++)
	{
		uint32		len;

		if (left < sizeof(len))
			damaged_record(record, "wrong length");
		memcpy(&len, data, sizeof(len));
		data += sizeof(len);
		left -= sizeof(len);
		if (left < len)
			damaged_record(record, "wrong length");
		if (redo_scope(record, data, len))
			replaced = true;
		data += len;
		left -= len;
	}

	if (replaced)
	{
		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		tde_principals_forget_unused();
		LWLockRelease(&tde_store->lock);
	}
}

static void
redo_providers(XLogReaderState *record)
{
	const uint8 *data = (const uint8 *) XLogRecGetData(record);
	size_t		len = XLogRecGetDataLen(record);
	const char *reason;
	TdeProviderList list;
	TdeProviderList *old;
	TdeProvider *providers;
	int			n = tde_providers_count(data, len, &reason);

	if (n < 0)
		damaged_record(record, reason);
	providers = palloc0(sizeof(TdeProvider) * Max(n, 1));
	if (tde_providers_decode(data, len, &list, providers, n, &reason) != 0)
		damaged_record(record, reason);

	/* as in redo_scope */
	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	if (OidIsValid(list.dbOid))
		(void) tde_cancel_database_removal(list.dbOid, NULL);
	old = TdeGetProviders(list.dbOid);
	if (!TdeIdEquals(&old->id, &list.id) || old->change < list.change)
		tde_providers_install(&list, data, len);
	LWLockRelease(&tde_store->lock);
}

static void
redo_database_drop(XLogReaderState *record)
{
	xl_tde_database_drop *xlrec;
	TdeRemoval	removal = {0};

	xlrec = (xl_tde_database_drop *) XLogRecGetData(record);
	removal.locator.dbOid = xlrec->dbOid;
	removal.id = xlrec->id;
	removal.lsn = record->EndRecPtr;
	tde_queue_removal(&removal);
}


/*
 * Replay a record of the key store; the caller resets the memory context.
 */
void
TdeKeysRedo(XLogReaderState *record)
{
	pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);

	switch (XLogRecGetInfo(record) & ~XLR_INFO_MASK)
	{
		case XLOG_TDE_KEYS:
			redo_keys(record);
			break;
		case XLOG_TDE_SCOPES:
			redo_scopes(record);
			break;
		case XLOG_TDE_PROVIDERS:
			redo_providers(record);
			break;
		case XLOG_TDE_DATABASE_DROP:
			redo_database_drop(record);
			break;
		default:
			elog(PANIC, "tde_redo: unknown op code %u",
				 XLogRecGetInfo(record) & ~XLR_INFO_MASK);
	}
}
