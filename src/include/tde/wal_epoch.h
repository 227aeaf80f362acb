/*-------------------------------------------------------------------------
 *
 * wal_epoch.h
 *	  The record of a WAL epoch: one run of writing WAL and its key.
 *
 * Pure encoding and decoding; specified in doc/wal-format.md.  The same bytes
 * are the content of the WAL record that begins an epoch and stand, one
 * epoch after the other, in pg_tde/global/wal_epochs.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/wal_epoch.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_WAL_EPOCH_H
#define TDE_WAL_EPOCH_H

#include "access/xlogdefs.h"
#include "tde/scope.h"
#include "tde/wal_page.h"

typedef struct TdeWalEpoch
{
	uint32		id;				/* 0: what follows is in clear */
	TimeLineID	tli;
	TimeLineID	prev_tli;		/* of the WAL before */
	XLogRecPtr	start;			/* of the epoch's first page */
	XLogRecPtr	prev_end;		/* where the WAL before ends */
	uint64		system_identifier;
	uint64		created;		/* microseconds since 1970, for information */
	TdeId		generation;		/* scope key generation that wraps the key */

	/*
	 * The server's scope with just that generation, in its encoded form
	 * (scope.h), as it was when the epoch began: what is needed to get at
	 * the key where the cluster's own scope file is lost.  Points into the
	 * buffer that was decoded.
	 */
	const uint8 *scope;
	size_t		scope_len;

	uint8		key[TDE_WAL_KEY_LEN];	/* in clear, after unwrapping */
} TdeWalEpoch;

/*
 * Has it a key, and so a tag?  One that is in clear uses the key for nothing
 * else; one from before version 2 of the record has none.
 */
static inline bool
tde_wal_epoch_is_tagged(const TdeWalEpoch *epoch)
{
	return epoch->scope_len > 0;
}

/* Longest encoded epoch. */
#define TDE_WAL_EPOCH_MAX_LEN	2048

/*
 * Wrap epoch->key under the scope key and encode the epoch into buf, which
 * has room for TDE_WAL_EPOCH_MAX_LEN bytes.  Returns the length, or 0 with
 * tde_cipher_error().  Only an epoch in clear may be without a key and scope.
 */
extern size_t tde_wal_epoch_encode(const TdeWalEpoch *epoch,
								   const uint8 *scope_key, uint8 *buf);

/*
 * Decode all but the key.  -1 with *reason, as in key_record.h.
 */
extern int	tde_wal_epoch_decode(const uint8 *buf, size_t len,
								 TdeWalEpoch *epoch, const char **reason);

/* The id of one that could be decoded, or that tde_wal_epochs_next() gave. */
extern uint32 tde_wal_epoch_id(const uint8 *buf);

/*
 * The length that an encoded epoch states, if that many bytes are there; else
 * len.  (In WAL its record is longer: it is filled up to the page's end.)
 */
extern size_t tde_wal_epoch_length(const uint8 *buf, size_t len);

/*
 * Having decoded it, unwrap the key under the scope key of its generation; that
 * authenticates the record.  -1 with *reason.
 */
extern int	tde_wal_epoch_unwrap(const uint8 *buf, size_t len,
								 const uint8 *scope_key, TdeWalEpoch *epoch,
								 const char **reason);

/*
 * The file of all epochs: a header, the encoded epochs, a checksum.  The
 * header and the checksum take this much.
 */
#define TDE_WAL_EPOCHS_HEADER	16
#define TDE_WAL_EPOCHS_OVERHEAD	(TDE_WAL_EPOCHS_HEADER + 4)

/*
 * Make a file of what stands in buf from offset TDE_WAL_EPOCHS_HEADER on: n
 * encoded epochs of len bytes in all.  There must be room for four bytes after
 * them.  Returns the length of the file.
 */
extern size_t tde_wal_epochs_finish(uint8 *buf, size_t len, uint32 n);

/*
 * Read such a file.  tde_wal_epochs_open checks the file and returns the
 * number of epochs, or -1 with *reason; tde_wal_epochs_next gives them one
 * after the other: *epoch_len bytes at the returned address, NULL at the end.
 * Set *position to 0 before the first.
 */
extern int	tde_wal_epochs_open(const uint8 *buf, size_t len,
								const char **reason);
extern const uint8 *tde_wal_epochs_next(const uint8 *buf, size_t len,
										size_t *position, size_t *epoch_len);

/*
 * Make a file of the epochs of two, each of which tde_wal_epochs_open has
 * accepted or is NULL: those of a, then those of b that are not, byte for byte,
 * among a's.  buf has room for a_len + b_len + TDE_WAL_EPOCHS_OVERHEAD bytes.
 * Returns the length of the file.
 */
extern size_t tde_wal_epochs_merge(const uint8 *a, size_t a_len,
								   const uint8 *b, size_t b_len, uint8 *buf);

/*
 * The epoch that a page of WAL is in.  Where the reader met the epoch's record,
 * "start" says where the epoch began; else it is InvalidXLogRecPtr, and any
 * epoch of the page's timeline that began before it will do.
 */
typedef struct TdeWalEpochQuery
{
	uint32		id;				/* in the page's header, not 0 */
	TimeLineID	tli;			/* likewise */
	XLogRecPtr	pageaddr;
	XLogRecPtr	start;
} TdeWalEpochQuery;

extern bool tde_wal_epoch_matches(const TdeWalEpoch *epoch,
								  const TdeWalEpochQuery *query);

#endif							/* TDE_WAL_EPOCH_H */
