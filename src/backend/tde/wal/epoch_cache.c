/*-------------------------------------------------------------------------
 *
 * epoch_cache.c
 *	  The epochs of WAL in memory, so that who reads WAL does not read their
 *	  file each time.
 *
 * The epoch that was stored last is in shared memory: most of what is read
 * is in that.  For other epochs a process reads the file once, and again when a
 * counter in shared memory says that it has changed, or when an epoch is not
 * in what it read.
 *
 * All this is wrapped, as in the file.  A key is unwrapped for the reader that
 * asks for it, and is nowhere but in the reader's cipher context.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/epoch_cache.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "../keys/store/store_internal.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "wal_internal.h"

typedef struct EpochsShared
{
	LWLock		lock;			/* of all but the counter */
	pg_atomic_uint64 changes;	/* of the file, from 1 on */

	/*
	 * What was stored last, if no other epoch in the file has the same id and
	 * timeline; else the length is 0.
	 */
	size_t		len;
	uint8		record[TDE_WAL_EPOCH_MAX_LEN];
} EpochsShared;

static EpochsShared *shared = NULL;

/* What this process read, when the counter was there. */
static TdeEpochTable *table = NULL;
static uint64 table_changes = 0;

void
tde_wal_epoch_cache_init(void)
{
	int			tranche = LWLockNewTrancheId();

	LWLockRegisterTranche(tranche, "TdeWalEpochs");
	if (shared == NULL)
	{
		shared = tde_map_shared(sizeof(EpochsShared), false);
		pg_atomic_init_u64(&shared->changes, 0);
	}
	LWLockInitialize(&shared->lock, tranche);
	shared->len = 0;
	pg_atomic_fetch_add_u64(&shared->changes, 1);
}

void
tde_wal_epochs_changed(const uint8 *record, size_t len)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (len > 0)
		memcpy(shared->record, record, len);
	shared->len = len;
	LWLockRelease(&shared->lock);
	pg_atomic_fetch_add_u64(&shared->changes, 1);
}

/*
 * Is it the one that was stored last?  Then its record is copied to buf.
 */
static bool
is_last(const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
		uint8 buf[TDE_WAL_EPOCH_MAX_LEN], size_t *len)
{
	const char *reason;

	LWLockAcquire(&shared->lock, LW_SHARED);
	*len = shared->len;
	memcpy(buf, shared->record, shared->len);
	LWLockRelease(&shared->lock);
	return *len > 0 && tde_wal_epoch_id(buf) == query->id &&
		tde_wal_epoch_decode(buf, *len, epoch, &reason) == 0 &&
		tde_wal_epoch_matches(epoch, query);
}

/*
 * Read the file; what was read before is forgotten if that succeeds.
 */
static bool
read_table(TdeStoreProblem *problem)
{
	uint64		changes = pg_atomic_read_membarrier_u64(&shared->changes);
	size_t		len;
	int			n;
	uint8	   *data = tde_store_read_epochs(TDE_WAL_EPOCHS_PATH, &len, &n,
											 problem);
	MemoryContext old;

	if (data == NULL)
		return false;
	tde_epoch_table_free(table);
	table = NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	table = tde_epoch_table_create();
	MemoryContextSwitchTo(old);
	tde_epoch_table_add_file(table, data, len);
	table_changes = changes;
	pfree(data);
	return true;
}

TdeWalKeyStatus
tde_wal_epoch_look_up(const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
					  uint8 buf[TDE_WAL_EPOCH_MAX_LEN], size_t *len,
					  char *problem, size_t problem_size)
{
	TdeStoreProblem found;
	TdeWalKeyStatus status = TDE_WAL_KEY_UNKNOWN;
	const uint8 *record;
	const char *reason;

	if (is_last(query, epoch, buf, len))
		return TDE_WAL_KEY_FOUND;

	if (table_changes == pg_atomic_read_membarrier_u64(&shared->changes))
		status = tde_epoch_table_find(table, TDE_WAL_EPOCHS_PATH, query, epoch,
									  &record, len, problem, problem_size);
	if (status == TDE_WAL_KEY_UNKNOWN)
	{
		if (!read_table(&found))
		{
			if (found.missing)
				snprintf(problem, problem_size, _("there is no file \"%s\""),
						 TDE_WAL_EPOCHS_PATH);
			else
				strlcpy(problem, tde_store_problem_text(&found), problem_size);
			return found.missing ? TDE_WAL_KEY_UNKNOWN : TDE_WAL_KEY_UNUSABLE;
		}
		status = tde_epoch_table_find(table, TDE_WAL_EPOCHS_PATH, query, epoch,
									  &record, len, problem, problem_size);
	}
	if (status == TDE_WAL_KEY_FOUND)
	{
		memcpy(buf, record, *len);
		(void) tde_wal_epoch_decode(buf, *len, epoch, &reason);
	}
	return status;
}
