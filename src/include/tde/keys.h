/*-------------------------------------------------------------------------
 *
 * keys.h
 *	  Internal keys of relations, for those who make, read, write and remove
 *	  relations' files.  principal.h has the keys above them, subsys.h what the
 *	  server calls when it starts.
 *
 * The key store keeps its durable state under $PGDATA/pg_tde, its secrets in
 * a locked shared mapping, and WAL-logs each change.  See
 * src/backend/tde/keys/README.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/keys.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYS_H
#define TDE_KEYS_H

#include "access/xlogreader.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/relfilelocator.h"
#include "tde/cipher.h"
#include "tde/key_record.h"
#include "tde/provider.h"
#include "tde/scope.h"

/*
 * Shared flag: does this cluster hold, or has it ever held, an encrypted
 * relation, as far as this server knows?  False means that every relation is
 * plain and nothing needs to be looked up.  (While WAL is replayed it is never
 * false: the directory pg_tde may be missing where it should not.)
 */
extern PGDLLIMPORT pg_atomic_uint32 *tde_active_flag;

static inline bool
TdeIsActive(void)
{
	return tde_active_flag != NULL &&
		pg_atomic_read_u32(tde_active_flag) != 0;
}

/* ---- internal keys, for the storage layer ---- */

/* A relation's key, as it is used to encrypt. */
typedef struct TdeRelationKey
{
	TdeId		id;
	TdeCipher	cipher;
	uint8		key[TDE_MAX_KEY_LEN];
} TdeRelationKey;

static inline void
tde_copy_relation_key(TdeRelationKey *dst, const TdeRelationKey *src)
{
	dst->id = src->id;
	dst->cipher = src->cipher;
	tde_copy_key(dst->key, src->key, TDE_MAX_KEY_LEN);
}

/*
 * The key of a relation, or NULL if it is plain.  Looks in the process's own
 * table, the shared cache and the key file, in this order; never asks a
 * provider.  The result stays valid until the next call of this function in
 * this process.
 *
 * Raises an error, which names the relation and the key file, if the file is
 * damaged, or missing although the relation's first page is encrypted, or its
 * scope key is not available.
 *
 * Cheap when nothing changed: one read of a shared counter and one probe.
 * Takes a shared lock on a cache partition on a miss.
 */
extern const TdeRelationKey *TdeGetRelationKey(const RelFileLocatorBackend *rlocator);

/* The same, but NULL where that one raises.  For decisions, not for I/O. */
extern bool TdeRelationHasKey(const RelFileLocatorBackend *rlocator);

/* Would that one raise? */
extern bool TdeRelationKeyIsLost(const RelFileLocatorBackend *rlocator);

/*
 * Are keys of a database unavailable, or was it given up in recovery?  Cheap
 * where nothing is.
 */
extern bool TdeDatabaseInTrouble(Oid dbOid);

/*
 * Was the relation given up in recovery (keys/scope/given_up.c)?  Then the
 * first function raises an error, and what replay would do to the relation's
 * pages, or has done to them in shared buffers, is not to be done on disk.
 */
extern bool TdeIsGivenUp(const RelFileLocatorBackend *rlocator);

/* Path of a key file, relative to the data directory. */
extern char *TdeKeyFilePath(const RelFileLocator *rlocator);	/* palloc'd */

/*
 * The relation cache tells of each relation with a table access method that it
 * builds and that the catalogs say must be encrypted.  From then on a missing
 * key is an error in every process, not "plain".  (Indexes and sequences need
 * no such word: they are never extended before their first page is read.)
 */
extern void TdeExpectEncrypted(const RelFileLocatorBackend *rlocator);

/*
 * Make a key for a relation that is about to be created.  permanent: log it
 * and write its file (also for unlogged relations); otherwise (temporary) it
 * lives in this process only.  Raises an error if the database has no
 * principal key, or the cipher cannot be used in this cluster.
 */
extern void TdeCreateKey(const RelFileLocatorBackend *rlocator);

/*
 * The relation that is about to be created is plain: a key that an earlier
 * life of its number left behind must not apply to it.
 */
extern void TdeForgetStaleKey(const RelFileLocatorBackend *rlocator);

/*
 * The relation's main fork was unlinked: its key may go once no replay can
 * need it any more.
 */
extern void TdeRelationUnlinked(const RelFileLocatorBackend *rlocator,
								bool isRedo);

/*
 * Recovery creates the missing main fork of a relation of which nothing is
 * known: give it a key of this node, durably, before its file exists.
 */
extern void TdeCreateFallbackKey(const RelFileLocatorBackend *rlocator);

/*
 * The id of the relation's key, to be logged with its creation; false if it
 * is plain.
 */
extern bool TdeGetKeyId(const RelFileLocator *rlocator, TdeId *id);

/* Redo of that: demand the key, or forget any other (keyid NULL). */
extern void TdeRedoCreateStorage(const RelFileLocator *rlocator,
								 const TdeId *keyid);

/* Is a number taken by a key that is waiting for its removal? */
extern bool TdeKeyFileExists(const RelFileLocator *rlocator);

/* A key of the current database that belongs to no relation. */
typedef struct TdeOrphanedKey
{
	RelFileLocator locator;
	TdeId		id;
	uint64		created;		/* microseconds since 1970 */
} TdeOrphanedKey;

/*
 * Those that pg_class has no file number of, that have no data file and do not
 * wait for their removal; a palloc'd list.  A key that is being made in this
 * moment can be among them.
 */
extern List *TdeListOrphanedKeys(void);

/*
 * Wait for the other transactions of this database to end, queue the orphans
 * for removal and take a checkpoint; returns how many are gone after it, and
 * says if a base backup holds others up.  Not in recovery, nor in a
 * transaction that has an ID.
 */
extern int	TdeRemoveOrphanedKeys(void);

/*
 * The files of a database in one tablespace are about to be copied: make a key
 * for each encrypted relation of the copy, and its file.  In another database
 * these are fresh keys, with the cipher of the source, and that gets scope and
 * providers where it has none; else they are the same keys again.
 *
 * Returns the *nkeys key records, palloc'd, to be logged with the copy; NULL
 * if nothing there is encrypted.  Error if a key cannot be read.
 */
extern uint8 *TdeCopyDatabaseKeys(Oid src_db, Oid src_spc,
								  Oid dst_db, Oid dst_spc, int *nkeys);

/*
 * Redo, before the files are copied: the numbers there are given out anew, and
 * these key files put in place.  PANIC if they are not what was logged.
 */
extern void TdeRedoDatabaseKeys(XLogReaderState *record,
								Oid dst_db, Oid dst_spc,
								const uint8 *records, Size len);

/* A database is created from a template: give it providers and scope. */
extern void TdeCopyDatabaseScope(Oid src_db, Oid dst_db);

/*
 * The files of a database in a tablespace are gone (movedb), or about to be
 * removed (redo).
 */
extern void TdeDatabaseFilesRemoved(Oid db, Oid spc);

/* A pg_database row is gone: its scope goes too, when nothing needs it. */
extern void TdeDatabaseDropped(Oid db);

/* An OID is given to a new database: errors if old keys are in the way. */
extern void TdeCheckNewDatabaseOid(Oid db);

#endif							/* TDE_KEYS_H */
