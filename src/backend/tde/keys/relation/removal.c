/*-------------------------------------------------------------------------
 *
 * removal.c
 *	  Removing the keys of what was dropped.
 *
 * A key goes for one reason only: the log proves that its relation, or its
 * database, was dropped.  The record of the commit, abort or drop that unlinks
 * the relation's files queues the key, on the primary and in redo; nothing is
 * ever concluded from a file that is not there.
 *
 * And it outlives every WAL record that may need it: replay makes a missing
 * relation file anew, and without the key it would write it in clear.  So the
 * queue names the LSN of the drop, and the checkpointer removes the key when
 * the control file names a redo pointer beyond that and no base backup runs,
 * and only if the file still holds the very key that was queued: file numbers
 * come back.  A checkpoint removes some; what is more, the checkpointer removes
 * when it has nothing else to do.
 *
 * The queue is in shared memory, in no more than the memory it has at first:
 * when it is full it goes to a file below pg_tde/global, whole (queue.c).  At
 * a shutdown what is left of it is lost: keys whose removal a base backup held
 * up, or a crash.  (A drop behind the redo pointer is replayed at the next
 * start, and queued again.)  Such a key is an orphan of 256 bytes, which stays
 * until a superuser has the orphans removed (orphans.c).
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
#include "common/relpath.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "tde/subsys.h"
#include "utils/injection_point.h"
#include "utils/memutils.h"

/*
 * Removals between two looks at the requests to sync files; and those within a
 * checkpoint, or between two looks of the checkpointer at what else there is
 * to do.
 */
#define REMOVALS_PER_ABSORB	10
#define REMOVALS_AT_ONCE	1000

/*
 * Where WAL is now: what is dropped now is dropped at or before this.
 */
XLogRecPtr
tde_current_lsn(bool isRedo)
{
	return isRedo ? GetCurrentReplayRecPtr(NULL) : GetXLogInsertRecPtr();
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
	len = tde_store_read_small(path, record, sizeof(record));
	return len >= 0 && tde_key_record_decode(record, len, &key, &why) != 0;
}

/* Stands for the id of a key whose file is damaged; real ones are random. */
static const TdeId damaged_id = {0};

/*
 * The log says that a relation was dropped: queue its key, whatever state the
 * file is in.
 */
void
tde_queue_key_removal(const RelFileLocator *locator, XLogRecPtr lsn)
{
	TdeRemoval	removal = {.locator = *locator,.lsn = lsn};
	TdeKey		key;
	char		reason[256];

	if (tde_key_file_read(locator, &key, false, reason, sizeof(reason)) ==
		TDE_KEYFILE_OK)
		removal.id = key.id;
	else if (!is_damaged(locator))
		return;
	tde_queue_removal(&removal);
}

void
TdeRelationUnlinked(const RelFileLocatorBackend *rlocator, bool isRedo)
{
	if (!TdeIsActive() || !OidIsValid(rlocator->locator.dbOid))
		return;
	if (RelFileLocatorBackendIsTemp(*rlocator))
		tde_temp_key_drop(&rlocator->locator);
	else
		tde_queue_key_removal(&rlocator->locator, tde_current_lsn(isRedo));
}

/* ---- the checkpointer's part ---- */

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
 * Is the relation's file gone?  A drop leaves it behind, empty, until a
 * checkpoint.  This can only put a removal off; it is never the reason for
 * one.
 */
bool
tde_data_file_is_gone(const RelFileLocator *locator)
{
	struct stat st;

	return stat(relpathperm(*locator, MAIN_FORKNUM).str, &st) != 0 &&
		errno == ENOENT;
}

/*
 * Remove a key if it is still the one that was queued.  Returns false if that
 * has to wait.
 */
static bool
remove_key(const TdeRemoval *removal)
{
	const RelFileLocator *locator = &removal->locator;
	TdeCachePartition *part = tde_cache_partition(locator);
	char		path[MAXPGPATH];
	bool		removed = false;
	bool		done = true;

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (holds_key(locator, &removal->id))
	{
		done = tde_data_file_is_gone(locator);
		if (done)
		{
			/* without this word the missing key would only count as lost */
			(void) tde_registry_append(locator, TDE_WORD_REMOVED);
			tde_key_path(locator, path);
			removed = unlink(path) == 0;
			if (!removed && errno != ENOENT)
				ereport(LOG,
						(errcode_for_file_access(),
						 errmsg("could not remove file \"%s\": %m", path)));
			tde_known_set(locator, TDE_KNOWN_REMOVED);
			tde_cache_change(part, locator, TDE_CACHE_EMPTY, NULL);
		}
	}
	LWLockRelease(&part->lock);

	if (removed)
	{
		tde_count_removed();
		ereport(DEBUG1,
				(errmsg_internal("removed key file \"%s\" of a relation that was dropped before %X/%X",
								 path, LSN_FORMAT_ARGS(removal->lsn))));
	}
	return done;
}

/*
 * Does a database have files in any tablespace?  Unless that is certain, the
 * answer is yes.
 */
static bool
may_have_files(Oid dbOid)
{
	char		path[MAXPGPATH];
	struct stat st;
	DIR		   *d;
	struct dirent *de;
	bool		found = false;

	snprintf(path, sizeof(path), "base/%u", dbOid);
	if (stat(path, &st) == 0 || errno != ENOENT)
		return true;

	d = AllocateDir(PG_TBLSPC_DIR);
	while (!found && (de = ReadDir(d, PG_TBLSPC_DIR)) != NULL)
	{
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s/%u", PG_TBLSPC_DIR,
				 de->d_name, TABLESPACE_VERSION_DIRECTORY, dbOid);
		found = stat(path, &st) == 0 || errno != ENOENT;
	}
	FreeDir(d);
	return found;
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
		!may_have_files(dbOid) &&
		(scope == NULL || TdeIdEquals(&scope->id, &removal->id)))
	{
		tde_scope_unpublish(TDE_SCOPE_DATABASE, dbOid);
		if (scope)
			tde_generations_forget(scope);
		tde_principals_forget(dbOid);
		tde_database_dir(dbOid, dir);
		ereport(DEBUG1,
				(errmsg_internal("removing the keys of database %u, which was dropped before %X/%X",
								 dbOid, LSN_FORMAT_ARGS(removal->lsn))));
		if (!rmtree(dir, true))
			ereport(LOG,
					(errmsg("some useless files may be left behind in directory \"%s\"",
							dir)));
		tde_count_removed();
		tde_cache_forget_database(dbOid);
	}
	if (scope)
		tde_scope_free(scope);
	tde_principals_forget_unused();
	LWLockRelease(&tde_store->lock);
}

/*
 * The same, but an error, a file that cannot be read for instance, is logged
 * and the keys stay: a checkpoint must not fail for it, this time and every
 * time.
 */
static void
try_remove_database(const TdeRemoval *removal)
{
	MemoryContext oldcontext = CurrentMemoryContext;

	PG_TRY();
	{
		remove_database(removal);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		LWLockReleaseAll();
		EmitErrorReport();
		FlushErrorState();
		(void) tde_cancel_database_removal(removal->locator.dbOid,
										   &removal->id);
		ereport(LOG,
				(errmsg("could not remove the encryption keys of dropped database %u",
						removal->locator.dbOid),
				 errhint("Remove its directory below \"%s\" by hand when no backup needs it.",
						 TDE_DIR)));
	}
	PG_END_TRY();
}

/* ---- one after the other ---- */

/*
 * What the checkpointer has taken out of the queue, since a checkpoint has
 * made it due, and what of that has to wait.
 */
typedef struct Batch
{
	TdeRemoval *entries;
	int			n;
	int			next;			/* of them, to be removed */
} Batch;

static List *batches = NIL;
static List *later = NIL;

static int
add_batch(TdeRemoval *entries, int n)
{
	Batch	   *batch;

	if (n == 0)
	{
		pfree(entries);
		return 0;
	}
	batch = palloc(sizeof(Batch));
	batch->entries = repalloc(entries, sizeof(TdeRemoval) * n);
	batch->n = n;
	batch->next = 0;
	batches = lappend(batches, batch);
	return n;
}

/*
 * Take out of the queue what was dropped before "redo", where replay begins
 * now.
 */
static void
take_due(XLogRecPtr redo)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	TdeRemoval *due;
	int			n;
	int			taken = 0;

	while ((due = tde_removals_take_spilled(redo, &n)) != NULL)
		taken += add_batch(due, n);
	due = tde_removals_take(redo, &n);
	if (due != NULL)
		taken += add_batch(due, n);
	(void) pg_atomic_fetch_add_u64(&tde_store->removals, taken);
	MemoryContextSwitchTo(oldcontext);
}

static int
how_many_at_once(void)
{
	return IS_INJECTION_POINT_ATTACHED("tde-removal-queue-full") ? 10 :
		REMOVALS_AT_ONCE;
}

static void
remove_one(TdeRemoval *removal)
{
	if (!RelFileNumberIsValid(removal->locator.relNumber))
		try_remove_database(removal);
	else if (!remove_key(removal))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		TdeRemoval *copy = palloc(sizeof(TdeRemoval));

		*copy = *removal;
		later = lappend(later, copy);
		MemoryContextSwitchTo(oldcontext);
	}
}

/*
 * Remove at most "max" keys of those that were taken.
 */
static void
remove_some(int max)
{
	int			done = 0;

	while (batches != NIL && done < max)
	{
		Batch	   *batch = linitial(batches);

		remove_one(&batch->entries[batch->next++]);
		done++;
		if (batch->next == batch->n)
		{
			pfree(batch->entries);
			pfree(batch);
			batches = list_delete_first(batches);
		}
		if (AmCheckpointerProcess() && done % REMOVALS_PER_ABSORB == 0)
			AbsorbSyncRequests();
	}
	if (batches != NIL)
	{
		/* come back soon, when what else there is to do is done */
		SetLatch(MyLatch);
		(void) pg_atomic_fetch_sub_u64(&tde_store->removals, done);
		return;
	}

	/* Nobody keeps what was removed; nobody waits for that. */
	(void) EmitProcSignalBarrier(PROCSIGNAL_BARRIER_TDE_FORGET);

	foreach_ptr(TdeRemoval, removal, later)
		tde_queue_removal(removal);
	list_free_deep(later);
	later = NIL;
	(void) pg_atomic_fetch_sub_u64(&tde_store->removals, done);
}

void
TdeKeysRemoveObsolete(XLogRecPtr redo, bool shutdown)
{
	int64		waiting;
	int64		removed;

	/* Replay has found no encrypted relation. */
	if (!RecoveryInProgress())
		pg_atomic_fetch_and_u32(&tde_store->active, ~TDE_ACTIVE_RECOVERY);

	if (!TdeIsActive() || TdeBackupIsRunning())
		return;
	tde_removal_counts(&waiting, &removed);
	if (waiting == 0)
		return;

	INJECTION_POINT("tde-before-removal", NULL);

	take_due(redo);
	if (batches != NIL)
		remove_some(shutdown || !AmCheckpointerProcess() ? INT_MAX :
					how_many_at_once());
}

void
TdeKeysRemoveMore(void)
{
	if (batches == NIL || TdeBackupIsRunning())
		return;
	remove_some(how_many_at_once());
}
