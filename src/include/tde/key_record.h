/*-------------------------------------------------------------------------
 *
 * key_record.h
 *	  The record that keeps one relation's internal key: the content of a file
 *	  pg_tde/<database>/<relfilenumber>.key, and of the WAL record that
 *	  creates it.
 *
 * Pure encoding and decoding; specified in doc/key-format.md.  The internal
 * key is wrapped by AES-256-GCM under a scope key; all else in the record is
 * authenticated with it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/key_record.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEY_RECORD_H
#define TDE_KEY_RECORD_H

#include "storage/relfilelocator.h"
#include "tde/cipher.h"

typedef struct TdeId
{
	uint8		b[TDE_ID_LEN];
} TdeId;

#define TdeIdEquals(x, y)	(memcmp((x)->b, (y)->b, TDE_ID_LEN) == 0)

static inline bool
TdeIdIsZero(const TdeId *id)
{
	static const TdeId zero = {{0}};

	return TdeIdEquals(id, &zero);
}

/* State of a record.  Stored: never renumber. */
typedef enum TdeKeyState
{
	TDE_KEY_ACTIVE = 1,			/* one key, all pages are under it */
	/* later: a second key beside it, for conversion of a table online */
} TdeKeyState;

/* A record in its decoded form; the key itself is in clear here. */
typedef struct TdeKey
{
	RelFileLocator locator;
	TdeId		id;				/* names this key and no other */
	TdeId		generation;		/* scope key generation that wraps it */
	TdeCipher	cipher;
	TdeKeyState state;
	uint64		created;		/* microseconds since 1970, for information */
	uint8		key[TDE_MAX_KEY_LEN];
} TdeKey;

/* Encoded length: fixed for this version of the format. */
#define TDE_KEY_RECORD_LEN		256

/*
 * Wrap key->key under the scope key and encode the record into buf,
 * TDE_KEY_RECORD_LEN bytes.  Draws the IV from the random generator.
 */
extern int	tde_key_record_encode(const TdeKey *key, const uint8 *scope_key,
								  uint8 *buf);

/*
 * Decode all but the key.  Verifies magic, version, length, CRC and the range
 * of each field; returns -1 with *reason set to a constant, translatable
 * phrase ("file is truncated", "checksum does not match", ...) otherwise.
 */
extern int	tde_key_record_decode(const uint8 *buf, size_t len, TdeKey *key,
								  const char **reason);

/*
 * Having decoded it, unwrap the key under the scope key of its generation.
 */
extern int	tde_key_record_unwrap(const uint8 *buf, size_t len,
								  const uint8 *scope_key, TdeKey *key,
								  const char **reason);

#endif							/* TDE_KEY_RECORD_H */
