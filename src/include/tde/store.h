/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Reading the key store of a data directory, for server and programs.
 *
 * The current directory is the data directory.  Files are replaced as a whole,
 * so a reader gets each of them in one state or the next; it takes no lock.
 *
 * Nothing here reports.  A function that has nothing to return says in a
 * TdeStoreProblem why; the server makes an ereport() of it, a program a
 * message.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORE_H
#define TDE_STORE_H

#include "tde/key_record.h"
#include "tde/paths.h"
#include "tde/provider.h"
#include "tde/scope.h"
#include "tde/wal_reader.h"

typedef struct TdeStoreProblem
{
	/*
	 * The operating system said that there is no such file or directory.
	 * Whether that is a problem only the caller knows; no other error counts
	 * as that.
	 */
	bool		missing;
	int			errnum;			/* what else it said; 0: the file is damaged */
	const char *message;		/* with errnum, a message with the path and
								 * %m, else the reason, a phrase; both to be
								 * translated */
	char		path[MAXPGPATH];
} TdeStoreProblem;

/*
 * The problem as one message, translated and palloc'd; NULL where a file is
 * merely missing.
 */
extern char *tde_store_problem_text(const TdeStoreProblem *problem);

/* ---- files (read_file.c) ---- */

/*
 * Read a whole file; palloc'd.  NULL with a problem.
 */
extern uint8 *tde_store_read_file(const char *path, size_t *len,
								  TdeStoreProblem *problem);

/*
 * Read a file of at most size bytes into buf, without allocating.  Returns the
 * number of bytes read, or -1 with errno.
 */
extern int	tde_store_read_small(const char *path, uint8 *buf, int size);

/* ---- scopes (read_scope.c) ---- */

/*
 * Decode a scope; palloc'd, its generations in secure memory.  NULL with a
 * reason if it is damaged.  tde_scope_free() wipes.
 */
extern TdeScope *tde_scope_parse(const uint8 *data, size_t len,
								 const char **reason);
extern void tde_scope_free(TdeScope *scope);

/* The same from its file, which must be of that kind and database. */
extern TdeScope *tde_store_read_scope(TdeScopeKind kind, Oid dbOid,
									  TdeStoreProblem *problem);

/* ---- lists of providers (read_providers.c) ---- */

/*
 * Decode a list; palloc'd, with room for one more.  NULL with a reason if it
 * is damaged.  InvalidOid is the global list.
 */
extern TdeProviderList *tde_providers_parse(const uint8 *data, size_t len,
											Oid dbOid, const char **reason);
extern TdeProviderList *tde_store_read_providers(Oid dbOid,
												 TdeStoreProblem *problem);

/* A provider of a list, by name; NULL if there is none. */
extern TdeProvider *tde_find_provider(const TdeProviderList *list,
									  const char *name);

/* ---- keys of relations (read_key.c) ---- */

/*
 * Read the key file of a relation and decode it; allocates nothing.  The
 * record as it is goes to "record", for tde_key_record_unwrap(), with the
 * returned length.  0 if there is no such file; -1 with a reason, which is
 * NULL where errno has it.
 */
extern int	tde_store_read_key(const RelFileLocator *locator,
							   uint8 record[TDE_KEY_RECORD_LEN + 1],
							   TdeKey *key, const char **reason);

/* ---- what there is (listing.c) ---- */

/*
 * The databases that have a directory in the key store; palloc'd, in no order.
 * None if there is no key store.  NULL with a problem.
 */
extern Oid *tde_store_list_databases(int *n, TdeStoreProblem *problem);

/*
 * Is a directory the key store of Percona's pg_tde, or of both?  Returns in
 * "name", of MAXPGPATH bytes, what tells.  False, too, if it cannot be read,
 * which whoever reads the key store next reports.
 */
extern bool tde_store_is_foreign(const char *dir, char *name);

/*
 * Call back for each key file of a database.  Returns false with a problem,
 * true also if there is no such directory.
 */
extern bool tde_store_list_keys(Oid dbOid,
								void (*callback) (const RelFileLocator *, void *),
								void *arg, TdeStoreProblem *problem);

/* ---- epochs of WAL (read_epochs.c, epoch_table.c) ---- */

/*
 * Read a file of epochs, which is whole; palloc'd, with the number of epochs
 * in it.  NULL with a problem.
 */
extern uint8 *tde_store_read_epochs(const char *path, size_t *len, int *n,
									TdeStoreProblem *problem);

/*
 * Epochs in memory, wrapped; in the memory context that is current when it is
 * made.  An epoch is in it once: tde_epoch_table_add() returns false if it is
 * there, byte for byte.  What is added can be decoded, and a file is one that
 * tde_wal_epochs_open() has accepted.
 */
typedef struct TdeEpochTable TdeEpochTable;

extern TdeEpochTable *tde_epoch_table_create(void);
extern void tde_epoch_table_free(TdeEpochTable *table);
extern bool tde_epoch_table_add(TdeEpochTable *table, const uint8 *record,
								size_t len);
extern void tde_epoch_table_add_file(TdeEpochTable *table, const uint8 *file,
									 size_t len);

/* A file of all that are in it, in the order of adding; palloc'd. */
extern uint8 *tde_epoch_table_file(const TdeEpochTable *table, size_t *len);

/*
 * Look for an epoch (table NULL: none is known).  It is decoded, all but the
 * key, for which its record is returned, in the table; of several records of
 * one epoch (id, timeline and start) that which was added first.  If it is not
 * there, or not unambiguously, "problem" says so, with the path of the file
 * that the table is of.
 */
extern TdeWalKeyStatus tde_epoch_table_find(const TdeEpochTable *table,
											const char *path,
											const TdeWalEpochQuery *query,
											TdeWalEpoch *epoch,
											const uint8 **record,
											size_t *record_len,
											char *problem,
											size_t problem_size);

/* ---- epochs whose file is lost (scan_epochs.c) ---- */

/*
 * The record of an epoch was found, and can be decoded.  That it is genuine is
 * proven only by unwrapping.
 */
typedef void (*TdeEpochCallback) (const uint8 *record, size_t len,
								  const TdeWalEpoch *epoch, void *arg);

/*
 * The names of the segments of WAL in a directory, partial ones too; sorted,
 * palloc'd.  NULL with a problem.
 */
extern char **tde_store_list_segments(const char *directory, int *n,
									  TdeStoreProblem *problem);

/*
 * Look on the pages of a segment, by its name, for epochs that begin there.
 * False with a problem; what was found until then was.
 */
extern bool tde_store_scan_segment(const char *path, const char *name,
								   TdeEpochCallback callback, void *arg,
								   TdeStoreProblem *problem);

/* Look for records in what is left of a file of epochs. */
extern void tde_store_scan_remains(const uint8 *data, size_t len,
								   TdeEpochCallback callback, void *arg);

/* ---- data files (probe.c) ---- */

/* What the first page of a data file says. */
typedef enum TdeDataFileMark
{
	TDE_MARK_NO_FILE,
	TDE_MARK_NO_PAGE,			/* or one of zeros */
	TDE_MARK_PLAIN,				/* there is a page, and it is plain */
	TDE_MARK_ENCRYPTED,
	TDE_MARK_UNKNOWN,			/* it could not be read; errno says why */
} TdeDataFileMark;

/*
 * Does the first page of a file bear the mark of an encrypted page?  That
 * there is no page is believed only if the operating system says that there is
 * no such file, or that it ends there.
 */
extern TdeDataFileMark tde_store_data_file_mark(const char *path);

/* ---- memory for keys ---- */

/*
 * Zeroed memory for keys, wiped when it is freed.  In the server it goes with
 * the current memory context (backend/tde/keys/store/memory.c), in a program
 * it stays (fe_memory.c).
 */
extern void *tde_secure_palloc(size_t size);
extern void tde_secure_pfree(void *ptr);

#endif							/* TDE_STORE_H */
