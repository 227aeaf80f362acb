/*-------------------------------------------------------------------------
 *
 * removal.c
 *	  Removing keys that nothing can need any more.
 *
 * A key outlives every WAL record that may need it: replay makes a missing
 * relation file anew, and without the key it would write it in clear.  So the
 * drop of a relation only queues its key, with the LSN of the drop.  The
 * checkpointer removes it when the control file names a redo pointer beyond
 * that LSN and no base backup runs, and only if the file still holds the very
 * key that was queued: file numbers come back.
 *
 * The queue is in shared memory and is lost at a shutdown.  Each start looks
 * for keys without a relation and queues them again.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/removal.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "storage/procsignal.h"
#include "tde/subsys.h"
#include "utils/injection_point.h"

/*
 * An LSN for what must stay until recovery from a crash has ended: where that
 * will be is not known when it begins, and a restartpoint on the way must not
 * take it for done.
 */
#define END_OF_RECOVERY		PG_UINT64_MAX

/* The queue holds no secrets. */
typedef struct TdeRemoval
{
	RelFileLocator locator;		/* relNumber 0: a whole database */
	TdeId		id;				/* of the key, or of the scope; zeros if the
								 * file is damaged */
	XLogRecPtr	lsn;			/* nothing before it may be replayed again */
	bool		swept;			/* not dropped, but found without a file */
} TdeRemoval;

typedef struct RemovalQueue
{
	LWLock		lock;
	int			n;
	bool		overflowed;
	TdeRemoval	entries[TDE_MAX_REMOVALS];
} RemovalQueue;

static RemovalQueue *removals = NULL;

void
TdeRemovalShmemInit(int tranche)
{
	if (removals == NULL)
		removals = tde_map_shared(sizeof(RemovalQueue), false);
	LWLockInitialize(&removals->lock, tranche);
	removals->n = 0;
	removals->overflowed = false;
}

int
tde_removal_count(void)
{
	int			n;

	LWLockAcquire(&removals->lock, LW_SHARED);
	n = removals->n;
	LWLockRelease(&removals->lock);
	return n;
}

/*
 * Where WAL is now: what is dropped now is dropped at or before this.
 */
XLogRecPtr
tde_current_lsn(bool isRedo)
{
	return isRedo ? GetCurrentReplayRecPtr(NULL) : GetXLogInsertRecPtr();
}

/*
 * Queue a key (or, with relNumber 0, a whole database) for removal when the
 * redo pointer has come to lsn.
 */
static void
queue_removal(const RelFileLocator *locator, const TdeId *id, XLogRecPtr lsn,
			  bool swept)
{
	bool		overflow = false;

	/*
	 * pg_upgrade makes and drops databases and relations of which it has
	 * brought the keys already.
	 */
	if (IsBinaryUpgrade)
		return;

	LWLockAcquire(&removals->lock, LW_EXCLUSIVE);

	/*
	 * Replay may make, and drop again, a relation that was not there at
	 * startup: only that drop counts then.  What was found at startup stands
	 * at the head of the queue.
	 */
	for (int i = 0; !swept && i < removals->n; i++)
	{
		TdeRemoval *removal = &removals->entries[i];

		if (!removal->swept)
			break;
		if (RelFileLocatorEquals(removal->locator, *locator))
			removal->lsn = lsn;
	}

	if (removals->n < TDE_MAX_REMOVALS)
	{
		TdeRemoval *removal = &removals->entries[removals->n++];

		removal->locator = *locator;
		removal->id = *id;
		removal->lsn = lsn;
		removal->swept = swept;
	}
	else if (!removals->overflowed)
	{
		overflow = true;
		removals->overflowed = true;
	}
	LWLockRelease(&removals->lock);

	if (overflow)
		ereport(LOG,
				(errmsg("too many relations with encryption keys were dropped since the last checkpoint"),
				 errdetail("The key files of some will be removed at a later start of the server.")));
}

void
tde_queue_removal(const RelFileLocator *locator, const TdeId *id,
				  XLogRecPtr lsn)
{
	queue_removal(locator, id, lsn, false);
}

/*
 * Is there something in a key file that is no key record at all?  A whole
 * record that belongs to another relation is not meant: it may be the only one
 * of a relation that lives.
 */
static bool
is_damaged(const RelFileLocator *locator)
{
	char		path[MAXPGPATH];
	uint8		record[TDE_KEY_RECORD_LEN + 1];
	const char *why;
	TdeKey		key;
	int			len;

	tde_key_path(locator, path);
	len = tde_read_small_file(path, record, sizeof(record));
	return len >= 0 && tde_key_record_decode(record, len, &key, &why) != 0;
}

/* Stands for the id of a key whose file is damaged; real ones are random. */
static const TdeId damaged_id = {0};

/*
 * A relation was dropped, or is not there: queue its key, whatever state the
 * file is in.
 */
static void
queue_key(const RelFileLocator *locator, XLogRecPtr lsn, bool swept)
{
	TdeKey		key;
	char		reason[256];

	if (tde_key_file_read(locator, &key, false, reason, sizeof(reason)) ==
		TDE_KEYFILE_OK)
		queue_removal(locator, &key.id, lsn, swept);
	else if (is_damaged(locator))
		queue_removal(locator, &damaged_id, lsn, swept);
}

void
tde_queue_key_removal(const RelFileLocator *locator, XLogRecPtr lsn)
{
	queue_key(locator, lsn, false);
}

/*
 * Does a relation have a file that its key is for?
 */
bool
tde_relation_has_file(const RelFileLocator *locator)
{
	struct stat st;
	RelPathStr	path = relpathperm(*locator, MAIN_FORKNUM);

	if (stat(path.str, &st) == 0)
		return true;
	path = relpathperm(*locator, INIT_FORKNUM);
	return stat(path.str, &st) == 0;
}

/*
 * Does the file still hold what is to be removed?
 */
static bool
holds_key(const RelFileLocator *locator, const TdeId *id)
{
	char		reason[256];
	TdeKey		key;

	if (TdeIdEquals(id, &damaged_id))
		return is_damaged(locator);
	return tde_key_file_read(locator, &key, false,
							 reason, sizeof(reason)) == TDE_KEYFILE_OK &&
		TdeIdEquals(&key.id, id);
}

/*
 * Remove a key if it is still the one that was queued.  Returns false if the
 * relation's file, which a drop leaves behind, empty, until a later
 * checkpoint, is still there.
 */
static bool
remove_key(const TdeRemoval *removal)
{
	TdeCachePartition *part = tde_cache_partition(&removal->locator);
	char		path[MAXPGPATH];
	bool		done = true;

	tde_key_path(&removal->locator, path);

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (holds_key(&removal->locator, &removal->id))
	{
		done = !tde_relation_has_file(&removal->locator);
		if (done)
		{
			if (unlink(path) != 0 && errno != ENOENT)
				ereport(LOG,
						(errcode_for_file_access(),
						 errmsg("could not remove file \"%s\": %m", path)));
			tde_cache_change(part, &removal->locator, TDE_CACHE_EMPTY, NULL);
		}
	}
	LWLockRelease(&part->lock);
	return done;
}

/*
 * Remove the directory of a dropped database, unless a new one has its OID.
 * The removal was left in the queue: if it is not there any more, replay has
 * meanwhile begun to make a database with that OID.
 */
static void
remove_database(const TdeRemoval *removal)
{
	Oid			dbOid = removal->locator.dbOid;
	char		dir[MAXPGPATH];
	char		reason[256];
	TdeScope   *scope;

	LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
	scope = tde_scope_read(TDE_SCOPE_DATABASE, dbOid, reason, sizeof(reason));
	if (tde_cancel_database_removal(dbOid, &removal->id) &&
		!tde_database_exists(dbOid) &&
		(scope == NULL || TdeIdEquals(&scope->id, &removal->id)))
	{
		tde_scope_unpublish(TDE_SCOPE_DATABASE, dbOid);
		if (scope)
			tde_generations_forget(scope);
		tde_principals_forget(dbOid);
		tde_database_dir(dbOid, dir);
		if (!rmtree(dir, true))
			ereport(LOG,
					(errmsg("some useless files may be left behind in directory \"%s\"",
							dir)));
		tde_cache_forget_database(dbOid);
	}
	LWLockRelease(&tde_store->lock);
	if (scope)
		tde_scope_free(scope);
}

/*
 * Take the removal of a database's keys out of the queue; with id NULL all
 * removals of databases with that OID.  Returns whether there was one.
 */
bool
tde_cancel_database_removal(Oid dbOid, const TdeId *id)
{
	int			kept = 0;
	int			n;

	LWLockAcquire(&removals->lock, LW_EXCLUSIVE);
	n = removals->n;
	for (int i = 0; i < n; i++)
	{
		TdeRemoval *removal = &removals->entries[i];

		if (removal->locator.dbOid != dbOid ||
			RelFileNumberIsValid(removal->locator.relNumber) ||
			(id != NULL && !TdeIdEquals(&removal->id, id)))
			removals->entries[kept++] = *removal;
	}
	removals->n = kept;
	LWLockRelease(&removals->lock);
	return kept < n;
}

void
TdeKeysRemoveObsolete(XLogRecPtr redo, bool restartpoint)
{
	TdeRemoval *due;
	int			ndue = 0;
	int			kept = 0;
	bool		databases = false;

	/* Replay has found no encrypted relation. */
	if (!RecoveryInProgress())
		pg_atomic_fetch_and_u32(&tde_store->active, ~TDE_ACTIVE_RECOVERY);

	if (!TdeIsActive() || removals->n == 0 || TdeBackupIsRunning())
		return;

	INJECTION_POINT("tde-before-removal", NULL);

	LWLockAcquire(&removals->lock, LW_EXCLUSIVE);
	due = palloc_extended(sizeof(TdeRemoval) * Max(removals->n, 1),
						  MCXT_ALLOC_NO_OOM);
	for (int i = 0; due != NULL && i < removals->n; i++)
	{
		TdeRemoval *removal = &removals->entries[i];
		bool		isdue;

		/* what was dropped ends there, and replay begins behind it */
		if (removal->lsn == END_OF_RECOVERY)
			isdue = !restartpoint;
		else
			isdue = removal->lsn <= redo;

		if (isdue)
			due[ndue++] = *removal;
		if (!isdue || !RelFileNumberIsValid(removal->locator.relNumber))
			removals->entries[kept++] = *removal;
	}
	if (due != NULL)
		removals->n = kept;
	LWLockRelease(&removals->lock);
	if (due == NULL)
		return;

	for (int i = 0; i < ndue; i++)
	{
		if (!RelFileNumberIsValid(due[i].locator.relNumber))
		{
			remove_database(&due[i]);
			databases = true;
		}
		else if (!remove_key(&due[i]) && !due[i].swept)
			tde_queue_removal(&due[i].locator, &due[i].id, due[i].lsn);
	}
	pfree(due);

	/* Nobody keeps what was removed; nobody waits for that. */
	if (ndue > 0)
		(void) EmitProcSignalBarrier(PROCSIGNAL_BARRIER_TDE_FORGET);

	if (databases)
	{
		LWLockAcquire(&tde_store->lock, LW_EXCLUSIVE);
		tde_principals_forget_unused();
		LWLockRelease(&tde_store->lock);
	}
}

/* ---- what was lost at a shutdown ---- */

static void
sweep_key(const RelFileLocator *locator, void *arg)
{
	if (!tde_relation_has_file(locator))
		queue_key(locator, *(XLogRecPtr *) arg, true);
}

/*
 * Does a database have files in any tablespace?
 */
bool
tde_database_exists(Oid dbOid)
{
	char		path[MAXPGPATH];
	struct stat st;
	DIR		   *d;
	struct dirent *de;
	bool		found;

	snprintf(path, sizeof(path), "base/%u", dbOid);
	if (stat(path, &st) == 0)
		return true;

	found = false;
	d = AllocateDir(PG_TBLSPC_DIR);
	while ((de = ReadDir(d, PG_TBLSPC_DIR)) != NULL)
	{
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s/%u", PG_TBLSPC_DIR,
				 de->d_name, TABLESPACE_VERSION_DIRECTORY, dbOid);
		if (stat(path, &st) == 0)
		{
			found = true;
			break;
		}
	}
	FreeDir(d);
	return found;
}

/*
 * Queue all keys whose relation, or whose database, has no file.  What this
 * node has done is in its files, so what is not there was dropped before lsn;
 * InvalidXLogRecPtr stands for the end of the recovery that now begins.
 */
void
tde_sweep(XLogRecPtr lsn)
{
	int			ndatabases;
	Oid		   *databases = tde_list_databases(&ndatabases);

	if (XLogRecPtrIsInvalid(lsn))
		lsn = END_OF_RECOVERY;

	for (int i = 0; i < ndatabases; i++)
	{
		char		reason[256];
		RelFileLocator none = {.dbOid = databases[i]};
		TdeScope   *scope;
		TdeId		id = {0};

		if (tde_database_exists(databases[i]))
		{
			tde_list_key_files(databases[i], sweep_key, &lsn);
			continue;
		}
		scope = tde_scope_read(TDE_SCOPE_DATABASE, databases[i],
							   reason, sizeof(reason));
		if (scope)
		{
			id = scope->id;
			tde_scope_free(scope);
		}
		queue_removal(&none, &id, lsn, true);
	}
	pfree(databases);
}
