/*-------------------------------------------------------------------------
 *
 * orphans.c
 *	  Keys that belong to no relation: found by asking the catalogs, and
 *	  removed where a superuser wants that.
 *
 * A crash can leave a key whose relation was never committed, and a shutdown
 * forgets which keys wait for a base backup to end (removal.c).  Nobody removes
 * these by himself.  That one of them is needed by nobody is proved so:
 *
 * A key in a list of this database's keys was made by a transaction that had
 * begun before the list was read, in this database: CREATE DATABASE and ALTER
 * DATABASE SET TABLESPACE, which make keys from elsewhere, refuse a database
 * that somebody is connected to.  So all transactions that run here after the
 * list was read are waited for, prepared ones too.  Then each key's maker has
 * ended.  If it committed, a snapshot taken now sees a pg_class row with the
 * file number: that of the maker, or one that took the number over from it
 * (those that exchange file numbers of relations replace rows in one
 * transaction), or, while a transaction that drops the relation is in progress,
 * the row that it has not deleted yet.  No such row: the maker has aborted, or
 * was cut off by a crash, or the relation was dropped.  And no such row can
 * come: numbers come from GetNewRelFileNumber(), which gives out none that has
 * a key file, or from existing rows.
 *
 * All this is about rows.  Replay asks for keys as well, so an orphan goes the
 * way of all keys: into the queue, with the present end of WAL.  It is removed
 * by a checkpoint whose redo pointer is past that, while no base backup runs,
 * and only if the file still holds the key that was in the list and the data
 * file does not exist.  Other nodes have orphans of their own; nothing is
 * logged.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/orphans.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "relation_internal.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/relmapper.h"
#include "utils/snapmgr.h"

/*
 * Callback: add a key to the list if it may be an orphan, from what is on disk.
 * A damaged file has no id by which it could be told from its successor.
 */
static void
note_candidate(const RelFileLocator *locator, void *arg)
{
	List	  **candidates = arg;
	TdeOrphanedKey *orphan;
	TdeKey		key;
	char		reason[256];

	CHECK_FOR_INTERRUPTS();
	if (!tde_data_file_is_gone(locator) || tde_removal_is_queued(locator) ||
		tde_key_file_read(locator, &key, false, reason, sizeof(reason)) !=
		TDE_KEYFILE_OK)
		return;

	orphan = palloc(sizeof(TdeOrphanedKey));
	orphan->locator = *locator;
	orphan->id = key.id;
	orphan->created = key.created;
	*candidates = lappend(*candidates, orphan);
}

/*
 * Does a relation have this file number, by pg_class as the snapshot shows it
 * or by the map of those that pg_class has no number of?
 */
static bool
number_is_in_use(Relation pg_class, Snapshot snapshot,
				 const RelFileLocator *locator)
{
	Oid			tablespace = locator->spcOid;
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		found;

	if (OidIsValid(RelationMapFilenumberToOid(locator->relNumber, false)))
		return true;

	/* a relation in the database's own tablespace has 0 there */
	if (tablespace == MyDatabaseTableSpace)
		tablespace = InvalidOid;
	ScanKeyInit(&keys[0], Anum_pg_class_reltablespace, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(tablespace));
	ScanKeyInit(&keys[1], Anum_pg_class_relfilenode, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(locator->relNumber));
	scan = systable_beginscan(pg_class, ClassTblspcRelfilenodeIndexId, true,
							  snapshot, lengthof(keys), keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/*
 * Wait for all transactions of this database but our own.  VACUUM (that which
 * makes no files) need not be waited for.
 */
static void
wait_for_transactions(void)
{
	int			n;
	VirtualTransactionId *vxids = GetCurrentVirtualXIDs(InvalidTransactionId,
														false, false,
														PROC_IN_VACUUM, &n);

	for (int i = 0; i < n; i++)
		(void) VirtualXactLock(vxids[i], true);
	pfree(vxids);
}

static List *
find_orphans(bool wait)
{
	List	   *candidates = NIL;
	List	   *orphans = NIL;
	Relation	pg_class;
	Snapshot	snapshot;

	tde_list_key_files(MyDatabaseId, note_candidate, &candidates);
	if (candidates == NIL)
		return NIL;
	if (wait)
		wait_for_transactions();

	pg_class = table_open(RelationRelationId, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach_ptr(TdeOrphanedKey, candidate, candidates)
	{
		CHECK_FOR_INTERRUPTS();
		if (!number_is_in_use(pg_class, snapshot, &candidate->locator))
			orphans = lappend(orphans, candidate);
	}
	UnregisterSnapshot(snapshot);
	table_close(pg_class, AccessShareLock);
	list_free(candidates);
	return orphans;
}

List *
TdeListOrphanedKeys(void)
{
	return find_orphans(false);
}

int
TdeRemoveOrphanedKeys(void)
{
	List	   *orphans;
	XLogRecPtr	lsn;
	int			nremoved = 0;
	int			nleft;

	/* Our own transaction is the one that cannot be waited for. */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot remove orphaned keys in a transaction that has changed something")));

	orphans = find_orphans(true);
	if (orphans == NIL)
		return 0;

	lsn = tde_current_lsn(false);
	foreach_ptr(TdeOrphanedKey, orphan, orphans)
	{
		TdeRemoval	removal = {.locator = orphan->locator,.id = orphan->id,
		.lsn = lsn};

		tde_queue_removal(&removal);
	}
	tde_checkpoint_removals();

	foreach_ptr(TdeOrphanedKey, orphan, orphans)
	{
		TdeKey		key;
		char		reason[256];

		if (tde_key_file_read(&orphan->locator, &key, false,
							  reason, sizeof(reason)) == TDE_KEYFILE_NONE)
			nremoved++;
	}
	nleft = list_length(orphans) - nremoved;
	if (nleft > 0)
		ereport(NOTICE,
				(errmsg_plural("%d orphaned key is still there",
							   "%d orphaned keys are still there",
							   nleft, nleft),
				 errdetail("A base backup that is running may need them. They are removed by the first checkpoint after its end, unless the server is stopped before.")));
	list_free_deep(orphans);
	return nremoved;
}
