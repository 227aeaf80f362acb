/*-------------------------------------------------------------------------
 *
 * removal_queue.c
 *	  The queue of keys that wait for their removal.
 *
 * Whoever drops relations must not wait for it, nor fail, and there is no
 * bound to how many are dropped between two checkpoints.  So when the table in
 * shared memory is full it goes to a file as a whole.  Entries are nearly in
 * the order of their LSNs; a file is read back when the redo pointer has passed
 * the highest one in it.
 *
 * The files have the suffix of temporary files: a start, which begins with an
 * empty queue, removes them.  Where one cannot be written or read the log says
 * so, and the keys that were in it stay, as orphans.
 *
 * Databases are few and never leave the table, since their removal may be
 * cancelled.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/removal_queue.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/file_utils.h"
#include "miscadmin.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "utils/injection_point.h"

#define MAX_ENTRIES		65536
#define MAX_SPILLED		1024

typedef struct SpilledFile
{
	uint32		number;
	int			n;				/* entries in it */
	XLogRecPtr	lsn;			/* the highest in it */
} SpilledFile;

typedef struct QueueShared
{
	LWLock		lock;
	uint64		removed;		/* since the server was started */
	int			n;
	int			nspilled;
	uint32		next_number;
	TdeRemoval	entries[MAX_ENTRIES];
	SpilledFile spilled[MAX_SPILLED];
} QueueShared;

/* It holds no secrets. */
static QueueShared *queue = NULL;

#define is_database(removal) \
	(!RelFileNumberIsValid((removal)->locator.relNumber))

void
TdeRemovalShmemInit(int tranche)
{
	if (queue == NULL)
		queue = tde_map_shared(sizeof(QueueShared), false);
	LWLockInitialize(&queue->lock, tranche);
	queue->n = 0;
	queue->nspilled = 0;
}

static void
spill_path(uint32 number, char *path)
{
	snprintf(path, MAXPGPATH, "%s/removals.%u%s", TDE_GLOBAL_DIR, number,
			 TDE_TEMP_SUFFIX);
}

/*
 * Write entries to a file.  Raises nothing: this may be after a commit.
 */
static bool
write_spill(const char *path, const TdeRemoval *entries, int n)
{
	ssize_t		size = sizeof(TdeRemoval) * n;
	struct iovec iov = {.iov_base = unconstify(TdeRemoval *, entries),.iov_len = size};
	int			fd;
	bool		ok;

	fd = BasicOpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	errno = fd < 0 ? errno : 0;
	ok = fd >= 0 && pg_pwritev_with_retry(fd, &iov, 1, 0) == size;
	if (!ok)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

/*
 * Make room in the table, which is full.  Caller holds the lock.
 */
static void
spill(void)
{
	TdeRemoval	databases[64];
	int			ndatabases = 0;
	int			kept = 0;
	int			lost = 0;
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	char		path[MAXPGPATH];

	/* relations to the front, databases aside */
	for (int i = 0; i < queue->n; i++)
	{
		TdeRemoval *removal = &queue->entries[i];

		if (is_database(removal))
		{
			if (ndatabases < lengthof(databases))
				databases[ndatabases++] = *removal;
			else
				lost++;
			continue;
		}
		lsn = Max(lsn, removal->lsn);
		queue->entries[kept++] = *removal;
	}

	spill_path(queue->next_number, path);
	if (queue->nspilled < MAX_SPILLED &&
		write_spill(path, queue->entries, kept))
	{
		SpilledFile *file = &queue->spilled[queue->nspilled++];

		file->number = queue->next_number++;
		file->n = kept;
		file->lsn = lsn;
	}
	else
		lost += kept;
	if (lost > 0)
		ereport(LOG,
				(errmsg("could not keep note of all relations with encryption keys that were dropped since the last checkpoint"),
				 errdetail("The keys of %d of them stay.", lost),
				 errhint("A superuser can remove them with pg_tde_remove_orphaned_keys().")));
	memcpy(queue->entries, databases, sizeof(TdeRemoval) * ndatabases);
	queue->n = ndatabases;
}

/*
 * Queue a key, or, with file number 0, a whole database, for removal when the
 * redo pointer has come to its LSN.  The caller knows from the log that it was
 * dropped.
 */
void
tde_queue_removal(const TdeRemoval *removal)
{
	/*
	 * pg_upgrade makes and drops databases and relations of which it has
	 * brought the keys already.
	 */
	if (IsBinaryUpgrade)
		return;

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	if (queue->n == MAX_ENTRIES || (queue->n >= 10 &&
									IS_INJECTION_POINT_ATTACHED("tde-removal-queue-full")))
		spill();
	queue->entries[queue->n++] = *removal;
	LWLockRelease(&queue->lock);
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

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	n = queue->n;
	for (int i = 0; i < n; i++)
	{
		TdeRemoval *removal = &queue->entries[i];

		if (removal->locator.dbOid != dbOid || !is_database(removal) ||
			(id != NULL && !TdeIdEquals(&removal->id, id)))
			queue->entries[kept++] = *removal;
	}
	queue->n = kept;
	LWLockRelease(&queue->lock);
	return kept < n;
}

/*
 * Read a file of the queue and remove it; NULL after a report.
 */
static TdeRemoval *
read_spill(const SpilledFile *file)
{
	int			size = sizeof(TdeRemoval) * file->n;
	TdeRemoval *entries = palloc_extended(size, MCXT_ALLOC_NO_OOM);
	char		path[MAXPGPATH];

	spill_path(file->number, path);
	if (entries != NULL &&
		tde_store_read_small(path, (uint8 *) entries, size) != size)
	{
		ereport(LOG,
				(errmsg("could not read file \"%s\"", path),
				 errdetail("The key files of %d relations that were dropped stay.",
						   file->n),
				 errhint("A superuser can remove them with pg_tde_remove_orphaned_keys().")));
		pfree(entries);
		entries = NULL;
	}
	if (unlink(path) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
	return entries;
}

/*
 * Take what is due out of the queue: what was dropped before "redo".  An
 * array, palloc'd, to be asked for until it is NULL.  Databases are in it and
 * stay in the queue until they are cancelled.
 */
TdeRemoval *
tde_removals_take_spilled(XLogRecPtr redo, int *n)
{
	SpilledFile file;
	bool		found = false;
	TdeRemoval *entries = NULL;

	do
	{
		LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
		found = queue->nspilled > 0 && queue->spilled[0].lsn <= redo;
		if (found)
		{
			file = queue->spilled[0];
			queue->nspilled--;
			memmove(&queue->spilled[0], &queue->spilled[1],
					sizeof(SpilledFile) * queue->nspilled);
		}
		LWLockRelease(&queue->lock);
		if (found)
			entries = read_spill(&file);
		*n = entries ? file.n : 0;
	} while (found && entries == NULL);
	return entries;
}

TdeRemoval *
tde_removals_take(XLogRecPtr redo, int *n)
{
	TdeRemoval *due;
	int			kept = 0;

	*n = 0;
	due = palloc_extended(sizeof(TdeRemoval) * MAX_ENTRIES, MCXT_ALLOC_NO_OOM);
	if (due == NULL)
		return NULL;

	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	for (int i = 0; i < queue->n; i++)
	{
		TdeRemoval *removal = &queue->entries[i];
		bool		isdue = removal->lsn <= redo;

		if (isdue)
			due[(*n)++] = *removal;
		if (!isdue || is_database(removal))
			queue->entries[kept++] = *removal;
	}
	queue->n = kept;
	LWLockRelease(&queue->lock);
	return due;
}

void
tde_count_removed(void)
{
	LWLockAcquire(&queue->lock, LW_EXCLUSIVE);
	queue->removed++;
	LWLockRelease(&queue->lock);
}

/*
 * How many wait, and how many keys were removed since the server was started.
 */
void
tde_removal_counts(int64 *waiting, int64 *removed)
{
	LWLockAcquire(&queue->lock, LW_SHARED);
	*waiting = queue->n + pg_atomic_read_u64(&tde_store->removals);
	for (int i = 0; i < queue->nspilled; i++)
		*waiting += queue->spilled[i].n;
	*removed = queue->removed;
	LWLockRelease(&queue->lock);
}

/*
 * Does a key wait for its removal?
 */
bool
tde_removal_is_queued(const RelFileLocator *locator)
{
	bool		found = false;

	LWLockAcquire(&queue->lock, LW_SHARED);
	for (int i = 0; !found && i < queue->n; i++)
		found = RelFileLocatorEquals(queue->entries[i].locator, *locator);
	LWLockRelease(&queue->lock);
	return found;
}
