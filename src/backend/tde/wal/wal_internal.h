/*-------------------------------------------------------------------------
 *
 * wal_internal.h
 *	  What the files of src/backend/tde/wal share among themselves.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/wal_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_INTERNAL_H
#define TDE_WAL_INTERNAL_H

#include "tde/wal.h"
#include "tde/wal_reader.h"

/* ---- insert.c ---- */

/* Make the context that processes inherit; FATAL if there is no memory. */
extern void tde_wal_insert_init(void);

/* ---- epoch_cache.c ---- */

/* Shared memory is made anew: no epoch is in it. */
extern void tde_wal_epoch_cache_init(void);

/*
 * The file of epochs has changed.  "record" is the epoch that was stored, of
 * whose id and timeline there is no other; len 0 if there is.
 */
extern void tde_wal_epochs_changed(const uint8 *record, size_t len);

/*
 * Look for an epoch that is in the file; its record, which is decoded but for
 * the key, is copied to buf.  "problem" as for TdeWalKeySource.find.
 */
extern TdeWalKeyStatus tde_wal_epoch_look_up(const TdeWalEpochQuery *query,
											 TdeWalEpoch *epoch,
											 uint8 buf[TDE_WAL_EPOCH_MAX_LEN],
											 size_t *len,
											 char *problem,
											 size_t problem_size);

/* ---- rebuild_epochs.c ---- */

/*
 * Take epochs that are missing in the file from pg_wal, and replace a file that
 * is damaged; false if nothing was found.  The caller holds tde_store->lock.
 */
extern bool tde_wal_epochs_rebuild(void);

/* ---- epochs.c ---- */

/* Have xlogreader.c look for keys in the server's file of epochs. */
extern void tde_wal_epochs_init(void);

/*
 * Add an epoch to the file, durably, unless it is there.  FATAL or PANIC as
 * any error is in the startup process.
 */
extern void tde_wal_epoch_store(const uint8 *record, size_t len);

/*
 * The file's content, palloc'd, and its length; NULL with what is wrong with
 * it, palloc'd, or with NULL if there is no such file.
 */
extern uint8 *tde_wal_epochs_read(size_t *len, char **problem);

/*
 * Unwrap an epoch's key with the scope key in memory, which authenticates the
 * record.  Other than FOUND comes with the reason in "problem".
 */
extern TdeWalKeyStatus tde_wal_epoch_authenticate(const uint8 *record,
												  size_t len,
												  TdeWalEpoch *epoch,
												  char *problem,
												  size_t problem_size);

/* Is there an epoch with that id in the file? */
extern bool tde_wal_epoch_id_is_used(uint32 id);

/* ---- clear_pages.c ---- */

/* for TdeWalKeySource */
extern int	tde_wal_check_clear_page(XLogReaderState *state,
									 XLogRecPtr pageptr, int readLen);

/*
 * Is a page in an encrypted epoch, as far as the file of epochs tells?  NULL with
 * *encrypted, or what is wrong with the file.
 */
extern char *tde_wal_ask_epochs(TimeLineID tli, XLogRecPtr pageptr,
								bool *encrypted);

/*
 * Recovery has met a page that it cannot use, and went on waiting for a better
 * one: does WAL that ends at "end" go on with that?
 */
static inline bool
tde_wal_goes_on(XLogRecPtr end)
{
	return tde_wal_unread_page != InvalidXLogRecPtr &&
		tde_wal_unread_page + XLOG_BLCKSZ >= end;
}

/* ---- begin_epoch.c ---- */

/* Will this server encrypt WAL when it writes some? */
extern bool tde_wal_will_encrypt(void);

/*
 * The record of an epoch was replayed.  After a crash the start that wrote it may
 * have died before it told the archiver of the segments that it ended.
 */
extern void tde_wal_epoch_replayed(const TdeWalEpoch *epoch);

/* ---- promotion.c ---- */

/* Why WAL cannot be written; all but the code is translated. */
typedef struct TdeWalObstacle
{
	int			sqlerrcode;
	char		what[MAXPGPATH + 256];	/* a phrase */
	char		detail[MAXPGPATH + 256];	/* or empty */
	const char *hint;			/* or NULL */
} TdeWalObstacle;

/*
 * The server's scope, and the key of its newest generation; NULL and what is
 * wrong, if there is none to encrypt WAL with.
 */
extern TdeScope *tde_wal_server_scope(uint8 *scope_key,
									  TdeWalObstacle *obstacle);

/* FATAL */
extern void tde_wal_report_obstacle(const TdeWalObstacle *obstacle);

/*
 * FATAL if this server may not write WAL as its settings say, after WAL that is
 * encrypted or not.
 */
extern void tde_wal_check_writing(bool after_encrypted);

/* ---- scrub.c; all for the startup process, and raise ERROR ---- */

/*
 * Zero what is in clear from the page on at which an encrypted epoch is to begin:
 * in all segments, or, where WAL before it is encrypted and this was done once,
 * in those that say by their first page that it was not.
 */
extern void tde_wal_scrub_for_epoch(XLogRecPtr page, TimeLineID tli,
									bool after_clear);

/*
 * The record of an epoch was replayed, after WAL in clear or not: do the same
 * on a standby.
 */
extern void tde_wal_scrub_replayed(const TdeWalEpoch *epoch, bool after_clear);

/*
 * Zero what is in clear behind the end of WAL in the last segment of a timeline
 * that is left.
 */
extern void tde_wal_scrub_old_timeline(XLogRecPtr end, TimeLineID tli);

/* Segments after that of "start" are encrypted; invalid: they are not. */
extern void tde_wal_encrypted_since(XLogRecPtr start, TimeLineID tli);

/*
 * A recorder for tests proves that no key stream is used twice; see
 * recorder.c.
 */
#ifdef USE_INJECTION_POINTS
extern void tde_wal_record_use(XLogRecPtr lsn, const char *plain, int len);
#else
#define tde_wal_record_use(lsn, plain, len) ((void) 0)
#endif

#endif							/* TDE_WAL_INTERNAL_H */
