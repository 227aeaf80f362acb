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

/* ---- insert.c ---- */

/* Make the context that processes inherit; FATAL if there is no memory. */
extern void tde_wal_insert_init(void);

/* ---- epochs.c ---- */

/* Have xlogreader.c look for keys in the server's file of epochs. */
extern void tde_wal_epochs_init(void);

/*
 * Add an epoch to the file, durably, unless it is there.  FATAL or PANIC as
 * any error is in the startup process.
 */
extern void tde_wal_epoch_store(const uint8 *record, size_t len);

/* Is there an epoch with that id in the file? */
extern bool tde_wal_epoch_id_is_used(uint32 id);

/*
 * Where recovery met a page for which it had no key, and went on waiting for
 * one; InvalidXLogRecPtr if it did not.
 */
extern XLogRecPtr tde_wal_unread_page;

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
