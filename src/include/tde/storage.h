/*-------------------------------------------------------------------------
 *
 * storage.h
 *	  The decision which new relation files are encrypted.
 *
 * See src/backend/tde/storage/README.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/storage.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORAGE_H
#define TDE_STORAGE_H

#include "access/xlogreader.h"
#include "catalog/pg_class.h"
#include "nodes/pg_list.h"
#include "storage/relfilelocator.h"
#include "storage/smgr.h"
#include "tde/heap_am.h"
#include "utils/rel.h"

/*
 * Should storage made now for the relation be encrypted?  Tables, matviews
 * and TOAST tables by their access method, indexes by their table's, owned
 * sequences by their owner's.
 */
extern bool TdeRelationWantsKey(Relation rel);

/*
 * Note, for RelationCreateStorage(), that the storage about to be made at
 * this locator is to be encrypted, or that it is to be plain.  The note is
 * good for the current (sub)transaction only, and for the next storage that
 * is made.  Storage that nobody noted (made by an extension) is plain.
 */
extern void TdeNoteStorage(const RelFileLocator *rlocator, bool encrypted);

/* The same for a copy from another database: encrypted if the source is. */
extern void TdeNoteCopy(const RelFileLocator *source,
						const RelFileLocator *rlocator);

/*
 * index_create() is about to make this index of the table, which heap_create()
 * cannot find out by itself.
 */
extern void TdeNoteIndex(Oid indexOid, Relation table);

/*
 * Called by RelationCreateStorage() before the file is made: consumes the
 * note; creates the key, or forgets a stale one.  Errors of TdeCreateKey().
 */
extern void TdePrepareStorage(const RelFileLocatorBackend *rlocator);

/*
 * The end of the record XLOG_SMGR_CREATE: log_smgrcreate() calls the first
 * before it begins the record, since that raises errors and those who clean up
 * after one write WAL; the second after it registered the rest; smgr_redo() the
 * third before it acts.
 */
extern void TdeFindCreatedKey(const RelFileLocator *rlocator);
extern void TdeLogCreatedKey(void);
extern void TdeReplayCreateStorage(XLogReaderState *record);

/*
 * copydir(src_path, dst_path, false) for a directory of a database: makes the
 * keys of the copy first, and encrypts the copy's files under them if it is in
 * another database.  After it, TdeLogDatabaseCopy() ends the record
 * XLOG_DBASE_CREATE_FILE_COPY, after the caller registered the rest, with the
 * key records.  TdeReplayDatabaseCopy() is redo of both.
 */
extern void TdeCopyDatabaseDir(const char *src_path, const char *dst_path,
							   Oid src_db, Oid src_spc,
							   Oid dst_db, Oid dst_spc);
extern void TdeLogDatabaseCopy(void);
extern void TdeReplayDatabaseCopy(XLogReaderState *record,
								  const char *src_path, const char *dst_path);

/*
 * Redo of the same record, before it acts: is the copy to stay as it is?  Where
 * replay begins again in front of a record that it has replayed before, the
 * source may be gone since (the database was moved, or its template dropped), and
 * copying would leave an empty directory.  That the copy was whole is proved by
 * its PG_VERSION, together with a source that has none.
 */
extern bool TdeReplayKeepsCopy(XLogReaderState *record, const char *src_path,
							   const char *dst_path);

/*
 * copydir() is about to copy this file: true if that has been done, or is not
 * to be done, as part of such a copy.
 */
extern bool TdeCopyFile(const char *from, const char *to);

/*
 * Called by the relation cache when it knows a relation's locator: tells the
 * key store what to expect there.
 */
extern void TdeRelationLocated(Relation rel);

/*
 * A sequence got another owner, or none (NULL): give it new storage with its
 * present value if it must become encrypted or plain.  Takes an
 * AccessExclusiveLock on the sequence then.
 */
extern void TdeSequenceOwned(Relation seqrel, Relation owner);

/* The same for all sequences of a table that got another access method. */
extern void TdeOwnedSequencesFollow(Oid owner);

/*
 * Is pg_tde.enforce_encryption on, and does it apply to this relation?  Not to
 * those that initdb or pg_upgrade makes.
 */
extern bool TdeEncryptionIsEnforced(Oid relid);

/*
 * Called when a relation is about to be made, before its storage: error if
 * encryption is enforced and it is a table, materialized view or partitioned
 * table of an access method that does not encrypt.  rewritten: InvalidOid, or
 * the relation whose file the new one is to replace, which may stay as it is.
 */
extern void TdeCheckNewTable(Oid relid, const char *relname, char relkind,
							 char relpersistence, Oid amoid, Oid rewritten);

/*
 * Called before a relation gets another access method (InvalidOid: none, for
 * a partitioned table): the same error.
 */
extern void TdeCheckAccessMethodChange(Oid relid, Oid amoid);

/*
 * Called before a table is attached as a partition, with the OIDs of it and of
 * its own partitions, all locked: error if encryption is enforced and one of
 * them has an access method that does not encrypt.
 */
extern void TdeCheckAttachedTables(List *relids);

/*
 * The next temporary table that is made in this subtransaction is a helper of
 * a command on a table of this access method, and may have the same.
 */
extern void TdeAllowHelperTable(Oid amoid);

/*
 * Tables that are made as helpers of this one from here to the end of the
 * caller's GUC nest level get its access method.
 */
extern void TdeUseAccessMethodOf(Relation rel);

/*
 * The access method of a new table for which no other than amoid was asked:
 * if by its schema and name it is pg_repack's copy of a table that is
 * encrypted, that of the original; likewise if the original is plain, but only
 * in the schema of the extension pg_repack itself; else amoid.
 */
extern Oid	TdeAccessMethodOfCopy(Oid namespaceId, const char *relname,
								  Oid amoid);

/*
 * Called by autovacuum for each row of pg_class of its database: can the
 * relation not be used for want of its key?
 */
extern bool TdeAutovacuumSkips(const FormData_pg_class *class);

#endif							/* TDE_STORAGE_H */
