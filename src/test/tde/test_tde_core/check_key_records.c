/*-------------------------------------------------------------------------
 *
 * check_key_records.c
 *	  Key records: our vectors, damage, forgery.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_key_records.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/key_record.h"

#include "checks.h"

static bool
decode_key_record(const uint8 *buf, size_t len, const char **reason)
{
	TdeKey		key;

	return tde_key_record_decode(buf, len, &key, reason) == 0;
}

static bool
same_key(const TdeKey *a, const TdeKey *b, bool with_key)
{
	return RelFileLocatorEquals(a->locator, b->locator) &&
		TdeIdEquals(&a->id, &b->id) &&
		TdeIdEquals(&a->generation, &b->generation) &&
		a->cipher == b->cipher && a->state == b->state &&
		a->created == b->created &&
		(!with_key || memcmp(a->key, b->key, TDE_MAX_KEY_LEN) == 0);
}

/* Only IV, wrapped key, tag (116 to 207) and checksum may differ. */
static bool
same_but_wrapping(const uint8 *a, const uint8 *b)
{
	return memcmp(a, b, 116) == 0 && memcmp(a + 116, b + 116, 12) != 0 &&
		memcmp(a + 208, b + 208, TDE_KEY_RECORD_LEN - 208 - 4) == 0;
}

static bool
check_key_vector(Vectors *v, TdeKey *key, uint8 *scope_key, uint8 *record)
{
	TdeKey		back;
	uint8		again[TDE_KEY_RECORD_LEN];
	const char *reason;

	memset(key, 0, sizeof(*key));
	key->locator.spcOid = vectors_uint(v, "spc");
	key->locator.dbOid = vectors_uint(v, "db");
	key->locator.relNumber = vectors_uint(v, "rel");
	key->cipher = vectors_cipher(v);
	key->state = TDE_KEY_ACTIVE;
	key->created = vectors_uint(v, "created");
	if (vectors_bytes(v, "id", key->id.b, TDE_ID_LEN) != TDE_ID_LEN ||
		vectors_bytes(v, "generation", key->generation.b,
					  TDE_ID_LEN) != TDE_ID_LEN ||
		vectors_bytes(v, "key", key->key,
					  TDE_MAX_KEY_LEN) != tde_cipher_key_len(key->cipher) ||
		vectors_bytes(v, "scope_key", scope_key,
					  TDE_WRAP_KEY_LEN) != TDE_WRAP_KEY_LEN ||
		vectors_bytes(v, "record", record,
					  TDE_KEY_RECORD_LEN) != TDE_KEY_RECORD_LEN)
		return false;

	return tde_key_record_decode(record, TDE_KEY_RECORD_LEN,
								 &back, &reason) == 0 &&
		same_key(&back, key, false) &&
		tde_key_record_unwrap(record, TDE_KEY_RECORD_LEN, scope_key,
							  &back, &reason) == 0 &&
		same_key(&back, key, true) &&
		tde_key_record_encode(key, scope_key, again) == 0 &&
		same_but_wrapping(record, again) &&
		tde_key_record_unwrap(again, TDE_KEY_RECORD_LEN, scope_key,
							  &back, &reason) == 0 &&
		same_key(&back, key, true);
}

/* Does the record unwrap, its checksum having been made right? */
static bool
forged_unwraps(uint8 *record, const uint8 *scope_key)
{
	TdeKey		key;
	uint8		zeros[TDE_MAX_KEY_LEN] = {0};
	const char *reason = NULL;

	fix_crc(record, TDE_KEY_RECORD_LEN);
	memset(&key, 0x5a, sizeof(key));
	if (tde_key_record_unwrap(record, TDE_KEY_RECORD_LEN, scope_key,
							  &key, &reason) == 0)
		return true;

	/* if not, no key and a reason */
	return reason == NULL || memcmp(key.key, zeros, sizeof(zeros)) != 0;
}

/*
 * What this version does not know is refused, without a key: flags, state and
 * number of keys, a key length that is not the cipher's, reserved bytes.
 */
static bool
unknown_is_refused(const uint8 *record)
{
	static const int ranges[][2] = {{8, 16}, {28, 64}, {105, 116}, {208, 252}};
	uint8		buf[TDE_KEY_RECORD_LEN];
	const char *reason;
	bool		refused = true;

	for (int i = 0; i < lengthof(ranges); i++)
	{
		for (int bit = ranges[i][0] * 8; bit < ranges[i][1] * 8; bit++)
		{
			memcpy(buf, record, sizeof(buf));
			buf[bit / 8] ^= 1 << bit % 8;
			fix_crc(buf, sizeof(buf));
			refused = refused &&
				!decode_key_record(buf, sizeof(buf), &reason);
		}
	}
	return refused;
}

static void
check_key_values(Checks *checks, const TdeKey *good, const uint8 *scope_key)
{
	uint8		buf[TDE_KEY_RECORD_LEN];
	uint8		zeros[TDE_KEY_RECORD_LEN] = {0};
	TdeKey		key;
	int			half = tde_cipher_key_len(good->cipher) / 2;

#define REFUSED(change, name) \
	key = *good; \
	change; \
	check(checks, tde_key_record_encode(&key, scope_key, buf) < 0 && \
		  memcmp(buf, zeros, sizeof(buf)) == 0, \
		  "key record: not encoded: %s", name)

	REFUSED(key.cipher = TDE_CIPHER_LAST + 1, "cipher");
	REFUSED(key.state = 0, "state");
	REFUSED(key.locator.relNumber = InvalidRelFileNumber, "relation");
	REFUSED(key.locator.spcOid = InvalidOid, "tablespace");
	REFUSED(memset(&key.id, 0, sizeof(TdeId)), "id");
	REFUSED(memset(&key.generation, 0, sizeof(TdeId)), "generation");
	REFUSED(memcpy(key.key, key.key + half, half), "equal key halves");
#undef REFUSED
}

void
check_key_records(Checks *checks)
{
	Vectors		v;
	TdeKey		key;
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	uint8		record[TDE_KEY_RECORD_LEN] = {0};
	uint8		previous[TDE_KEY_RECORD_LEN] = {0};
	uint8		buf[TDE_KEY_RECORD_LEN];
	bool		found = true;

	vectors_open(&v, checks, "key_record.txt");
	while (vectors_next(&v))
	{
		memcpy(previous, record, sizeof(record));
		check(checks, check_key_vector(&v, &key, scope_key, record),
			  "key record: vector %s", vectors_get(&v, "cipher"));
	}
	vectors_close(&v);

	check_decoder(checks, "key record", decode_key_record,
				  record, sizeof(record));

	/* a forger can make the checksum right */
	for (int bit = 0; bit < (TDE_KEY_RECORD_LEN - 4) * 8; bit++)
	{
		memcpy(buf, record, sizeof(buf));
		buf[bit / 8] ^= 1 << bit % 8;
		found = found && !forged_unwraps(buf, scope_key);
	}
	check(checks, found, "key record: each forged bit is found");
	check(checks, unknown_is_refused(record),
		  "key record: what it does not know is refused");

	memcpy(buf, record, sizeof(buf));
	memcpy(buf + 16, previous + 16, 12);
	check(checks, memcmp(buf, record, sizeof(buf)) != 0 &&
		  !forged_unwraps(buf, scope_key),
		  "key record: another relation's locator");
	memcpy(buf, record, sizeof(buf));
	memcpy(buf + 116, previous + 116, 92);
	check(checks, !forged_unwraps(buf, scope_key),
		  "key record: another relation's wrapped key");
	memcpy(buf, record, sizeof(buf));
	check(checks, forged_unwraps(buf, scope_key),
		  "key record: but itself it unwraps");
	scope_key[31] ^= 0x80;
	check(checks, !forged_unwraps(buf, scope_key),
		  "key record: wrong scope key");
	scope_key[31] ^= 0x80;

	check_key_values(checks, &key, scope_key);
}
