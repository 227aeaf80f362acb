/*-------------------------------------------------------------------------
 *
 * create.c
 *	  Which new storage gets encrypted.
 *
 * The decision falls where storage is made, whatever command makes it: each
 * caller of RelationCreateStorage() knows the relation, and notes here what
 * the file about to be made must be; RelationCreateStorage(), which sees only
 * the locator and whose signature extensions rely on, consumes the note.
 *
 * One note is enough, because nothing else is created between the two calls.
 * It names the locator and the subtransaction it was made in, so that a note
 * whose file was never made, for an error, means nothing to anyone else.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/storage/create.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/storage_xlog.h"
#include "commands/defrem.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tde/keys.h"
#include "tde/storage.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/injection_point.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* When a note was made; it is void in any other subtransaction. */
typedef struct NoteTime
{
	LocalTransactionId lxid;
	SubTransactionId subid;
} NoteTime;

static struct
{
	NoteTime	time;
	RelFileLocator rlocator;
	bool		encrypted;
}			storage_note;

static struct
{
	NoteTime	time;
	Oid			index;
	bool		encrypted;
}			index_note;

static NoteTime
note_time(void)
{
	NoteTime	now = {MyProc->vxid.lxid, GetCurrentSubTransactionId()};

	return now;
}

static bool
note_is_valid(const NoteTime *time)
{
	NoteTime	now = note_time();

	return time->subid != InvalidSubTransactionId &&
		time->subid == now.subid && time->lxid == now.lxid;
}

bool
TdeAccessMethodEncrypts(Oid amoid)
{
	HeapTuple	tuple;
	Form_pg_am	am;
	Oid			handler;
	bool		result = false;

	if (amoid == HEAP_TABLE_AM_OID || !OidIsValid(amoid))
		return false;

	tuple = SearchSysCache1(AMOID, ObjectIdGetDatum(amoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for access method %u", amoid);
	am = (Form_pg_am) GETSTRUCT(tuple);
	handler = am->amtype == AMTYPE_TABLE ? am->amhandler : InvalidOid;
	ReleaseSysCache(tuple);
	if (!OidIsValid(handler))
		return false;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", handler);
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		Datum		prosrc = SysCacheGetAttrNotNull(PROCOID, tuple,
													Anum_pg_proc_prosrc);
		char	   *symbol = TextDatumGetCString(prosrc);

		result = strcmp(symbol, TDE_AM_HANDLER) == 0;
		pfree(symbol);
	}
	ReleaseSysCache(tuple);

	return result;
}

/*
 * Are the indexes of this table to be encrypted?  The answer for a catalog
 * must need no lookup: it is asked while catalogs are being rebuilt.
 */
static bool
indexes_are_encrypted(Oid table)
{
	return !IsCatalogRelationOid(table) &&
		TdeAccessMethodEncrypts(get_rel_relam(table));
}

static bool
storage_has_key(Relation rel)
{
	RelFileLocatorBackend rlocator = {rel->rd_locator, rel->rd_backend};

	return TdeRelationHasKey(&rlocator);
}

/*
 * Is a sequence of this owner (InvalidOid: it has none) to be encrypted?
 * Without owner it is plain, unless encryption is enforced now.
 *
 * A partitioned table may leave the access method of its partitions open.
 * Then its sequence is made what a partition made now would be, but an
 * encrypted sequence never becomes plain only because a session has another
 * default_table_access_method.
 */
static bool
sequence_is_encrypted(Relation seqrel, Oid owner)
{
	Oid			amoid;

	if (!OidIsValid(owner))
		return TdeEncryptionIsEnforced(RelationGetRelid(seqrel));

	amoid = get_rel_relam(owner);
	if (!OidIsValid(amoid) &&
		get_rel_relkind(owner) == RELKIND_PARTITIONED_TABLE)
	{
		if (storage_has_key(seqrel))
			return true;
		amoid = get_table_am_oid(default_table_access_method, true);
	}

	return TdeAccessMethodEncrypts(amoid);
}

bool
TdeRelationWantsKey(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	Oid			owner;
	int32		column;

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_INDEX:
			if (rel->rd_index != NULL)
				return indexes_are_encrypted(rel->rd_index->indrelid);

			/* It is being created, and pg_index does not know it yet. */
			if (!note_is_valid(&index_note.time) || index_note.index != relid)
				elog(ERROR, "table of new index \"%s\" is not known",
					 RelationGetRelationName(rel));
			return index_note.encrypted;

		case RELKIND_SEQUENCE:
			if (!sequenceIsOwned(relid, DEPENDENCY_AUTO, &owner, &column) &&
				!sequenceIsOwned(relid, DEPENDENCY_INTERNAL, &owner, &column))
				owner = InvalidOid;
			return sequence_is_encrypted(rel, owner);

		default:
			return TdeAccessMethodEncrypts(rel->rd_rel->relam);
	}
}

void
TdeNoteIndex(Oid indexOid, Relation table)
{
	index_note.index = indexOid;
	index_note.encrypted = TdeAccessMethodEncrypts(table->rd_rel->relam);
	index_note.time = note_time();
}

void
TdeNoteStorage(const RelFileLocator *rlocator, bool encrypted)
{
	storage_note.rlocator = *rlocator;
	storage_note.encrypted = encrypted;
	storage_note.time = note_time();
}

void
TdeNoteCopy(const RelFileLocator *source, const RelFileLocator *rlocator)
{
	RelFileLocatorBackend from = {*source, INVALID_PROC_NUMBER};

	/* Not TdeRelationHasKey(): a damaged key must not make a plain copy. */
	TdeNoteStorage(rlocator, TdeIsActive() && TdeGetRelationKey(&from) != NULL);
}

void
TdePrepareStorage(const RelFileLocatorBackend *rlocator)
{
	bool		encrypted = note_is_valid(&storage_note.time) &&
		RelFileLocatorEquals(storage_note.rlocator, rlocator->locator) &&
		storage_note.encrypted;

	INJECTION_POINT("tde-prepare-storage", NULL);
	storage_note.time.subid = InvalidSubTransactionId;

	/*
	 * pg_upgrade brings the keys of the old cluster, whose files it will put
	 * in place of the one that is about to be made.
	 */
	if (IsBinaryUpgrade && TdeKeyFileExists(&rlocator->locator))
		return;

	if (encrypted)
		TdeCreateKey(rlocator);
	else if (TdeIsActive())
		TdeForgetStaleKey(rlocator);
}

static TdeId created_key;		/* has to last until the record is inserted */
static bool has_created_key;

void
TdeFindCreatedKey(const RelFileLocator *rlocator)
{
	INJECTION_POINT("tde-find-created-key", NULL);
	has_created_key = TdeIsActive() && TdeGetKeyId(rlocator, &created_key);
}

void
TdeLogCreatedKey(void)
{
	if (has_created_key)
		XLogRegisterData(&created_key, sizeof(created_key));
}

void
TdeReplayCreateStorage(XLogReaderState *record)
{
	xl_smgr_create *xlrec = (xl_smgr_create *) XLogRecGetData(record);

	if (XLogRecGetDataLen(record) >= sizeof(*xlrec) + sizeof(TdeId))
		TdeRedoCreateStorage(&xlrec->rlocator, (const TdeId *) (xlrec + 1));
	else if (TdeIsActive())
		TdeRedoCreateStorage(&xlrec->rlocator, NULL);
}

/*
 * The catalogs are read here only for a relation whose access method is not
 * heap, when RelationInitTableAccessMethod() has just read the same rows.
 *
 * Indexes and sequences raise no expectation.  An index is rebuilt some time
 * after its table, in the same transaction, became encrypted or plain; and
 * neither is ever extended without reading its first page, which tells.
 *
 * A historic snapshot may show storage that is gone.
 */
void
TdeRelationLocated(Relation rel)
{
	RelFileLocatorBackend rlocator = {rel->rd_locator, rel->rd_backend};

	if (HistoricSnapshotActive())
		return;

	if (RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind) &&
		TdeAccessMethodEncrypts(rel->rd_rel->relam))
		TdeExpectEncrypted(&rlocator);
}

void
TdeSequenceOwned(Relation seqrel, Relation owner)
{
	Oid			owner_oid = owner ? RelationGetRelid(owner) : InvalidOid;

	/* pg_upgrade needs the file numbers as they are, and brings the keys */
	if (IsBinaryUpgrade)
		return;

	if (sequence_is_encrypted(seqrel, owner_oid) == storage_has_key(seqrel))
		return;

	/* TdeRelationWantsKey() will look for the owner in the catalogs */
	CommandCounterIncrement();
	SequenceChangePersistence(RelationGetRelid(seqrel),
							  seqrel->rd_rel->relpersistence);
}

void
TdeOwnedSequencesFollow(Oid owner)
{
	Relation	table = relation_open(owner, NoLock);

	foreach_oid(seqid, getOwnedSequences(owner))
	{
		Relation	seqrel = relation_open(seqid, AccessExclusiveLock);

		TdeSequenceOwned(seqrel, table);
		relation_close(seqrel, NoLock);
	}
	relation_close(table, NoLock);
}

void
TdeUseAccessMethodOf(Relation rel)
{
	(void) set_config_option("default_table_access_method",
							 get_am_name(rel->rd_rel->relam),
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	TdeAllowHelperTable(rel->rd_rel->relam);
}
