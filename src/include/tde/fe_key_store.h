/*-------------------------------------------------------------------------
 *
 * fe_key_store.h
 *	  The key store as programs handle it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/fe_key_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FE_KEY_STORE_H
#define TDE_FE_KEY_STORE_H

#include "catalog/pg_control.h"
#include "tde/keyring.h"
#include "tde/store.h"
#include "tde/wal_reader.h"

/*
 * Copy the key store of a stopped cluster into another one, which must have
 * none.  Does nothing if the first has none.  Ends the program with a message
 * on failure.  The caller sees to it that the copies are fsynced.
 */
extern void tde_copy_key_store(const char *from_pgdata, const char *to_pgdata);

/* ---- reading (read_key_store.c) ---- */

/*
 * The current directory is the data directory.
 *
 * The functions below return NULL, or false, where there is nothing (*problem
 * is NULL then) or it cannot be used (*problem says why; it is palloc'd).
 */

/*
 * The scope keys of a database, or of the server, wrapped.  Free with
 * tde_scope_free(), which wipes.
 */
extern TdeScope *tde_fe_read_scope(TdeScopeKind kind, Oid dbOid,
								   char **problem);

/* A list of providers; dbOid InvalidOid for the global one. */
extern TdeProviderList *tde_fe_read_providers(Oid dbOid, char **problem);

/*
 * The key of a relation.  With a scope whose keys are unwrapped the key is
 * unwrapped too, and so authenticated; *orphan tells that the scope has no
 * such generation.  With scope NULL the record is only decoded.
 */
extern bool tde_fe_read_key(const RelFileLocator *locator,
							const TdeScope *scope, TdeKey *key,
							bool *orphan, char **problem);

/*
 * Ends the program with a message if a directory is the key store of Percona's
 * pg_tde.
 */
extern void tde_fe_refuse_foreign_store(const char *dir);

/*
 * The databases that have a directory in the key store, sorted; palloc'd.
 * None if there is no key store; not of one that is Percona's.
 */
extern Oid *tde_fe_list_databases(int *n);

/* The relations of a database that have key files; palloc'd. */
extern RelFileLocator *tde_fe_list_keys(Oid dbOid, int *n);

/*
 * Does nothing need the keys of a scope any more?  (No principal key is set,
 * and the last key under it is gone.)
 */
extern bool tde_fe_scope_is_over(const TdeScope *scope);

/* "default key", "server key", "database 5"; palloc'd and translated */
extern char *tde_fe_scope_name(TdeScopeKind kind, Oid dbOid);

/* ---- files (files.c) ---- */

/* The content of a file, palloc'd. */
extern uint8 *tde_fe_read_file(const char *path, size_t *len, char **problem);

/* Write all of it, or return false with errno set. */
extern bool tde_fe_write_all(int fd, const uint8 *data, size_t len);

/*
 * Replace a file, durably.  Ends the program with a message on failure.
 */
extern void tde_fe_write_file(const char *path, const uint8 *data, size_t len);

/* ---- is the server down? (server_is_down.c) ---- */

/*
 * Ends the program with a message, and this hint, if the process that
 * postmaster.pid in the current directory names is there and alive.
 */
extern void tde_fe_check_server_is_down(const char *hint);

/* ---- principal keys (unwrap_scope.c) ---- */

/*
 * How long tde_fe_open_scope() waits for providers that do not answer, in
 * seconds, counted from the first that does not; -1 without limit.  It does not
 * wait unless this is called.
 */
extern void tde_fe_set_key_wait(int seconds);

/*
 * Ask the principal key's provider, as the list (NULL if there is none) or the
 * scope itself describes it, and unwrap the scope keys; false with *problem,
 * and *hint or NULL, if that is not possible.
 */
extern bool tde_fe_open_scope(TdeScope *scope, const TdeProviderList *list,
							  char **problem, const char **hint);

/*
 * Ask a provider for the principal key of a scope and unwrap the scope keys;
 * false, with *error, if it does not return the very key.  Each key is asked
 * for once in the life of the program.
 */
extern bool tde_fe_unwrap_scope(TdeScope *scope, const TdeProvider *provider,
								TdeKeyringError *error);

/* How many principal keys were asked for. */
extern int	tde_fe_principals_asked(void);

/* ---- keys of WAL (wal_keys.c) ---- */

/*
 * Make keys of WAL available (tde_wal_key_source) from a key store, whose
 * directory "pg_tde" is given; it need not exist.  Nothing is read, nor any
 * provider asked, before WAL turns out to be encrypted.  To be called before
 * anything makes OpenSSL allocate memory: it calls tde_secure_heap_init().
 *
 * A reader that meets WAL whose key is missing ends the program.
 */
extern void tde_fe_wal_keys_init(const char *key_store);

/*
 * The key store of the data directory that a directory of WAL is in: where it
 * is, or would be; palloc'd.
 */
extern char *tde_fe_key_store_of_wal(const char *waldir);

/*
 * For programs that do not read WAL through a reader: find an epoch with its
 * key, and make an epoch known that was met in WAL.  See TdeWalKeySource in
 * wal_reader.h.  epoch->scope is not valid.  The caller wipes epoch->key.
 */
extern TdeWalKeyStatus tde_fe_wal_find_epoch(const TdeWalEpochQuery *query,
											 TdeWalEpoch *epoch,
											 char *problem,
											 size_t problem_size);
extern void tde_fe_wal_learn_epoch(const uint8 *record, size_t len);

/*
 * Open the key store's own scope of the server, by its provider; and unwrap an
 * epoch's record with that, which proves that it is genuine.  Here the copy of
 * the scope in the record does not count.  False with *problem; nothing of a
 * key is returned.
 */
extern bool tde_fe_wal_open_own_scope(char **problem);
extern bool tde_fe_wal_prove_epoch(const uint8 *record, size_t len,
								   char **problem);

/* ---- merging epochs of WAL (merge_epochs.c) ---- */

/*
 * Merge the epochs of another key store's file (TDE_WAL_EPOCHS_FILE) with those
 * of a data directory, in memory.  Ends the program with a message if either
 * file cannot be used.  (other_len is a pointer so that the call that reads the
 * file can stand in the argument before.)
 */
extern void tde_fe_wal_merge_epochs(const char *pgdata, const char *other,
									const size_t *other_len);

/* Write what was merged to the data directory, durably, unless dry_run. */
extern void tde_fe_wal_write_epochs(const char *pgdata, bool dry_run);

/*
 * Where WAL ends in a data directory whose checkpoint's record ends at "end": if
 * it was shut down, and a start that failed has begun an epoch there, behind
 * that beginning (failed_start.c).
 */
extern XLogRecPtr tde_fe_wal_end(const char *pgdata,
								 const ControlFileData *control,
								 XLogRecPtr end);

/* ---- writing ---- */

/*
 * Replace a list of providers, durably.  Its change number stays: what the
 * server changes later counts more, here and on standbys.  Ends the program
 * with a message on failure.
 */
extern void tde_fe_write_providers(TdeProviderList *list);

#endif							/* TDE_FE_KEY_STORE_H */
