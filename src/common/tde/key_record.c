/*-------------------------------------------------------------------------
 *
 * key_record.c
 *	  The record of one relation's internal key; specified in
 *	  doc/key-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/key_record.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <openssl/crypto.h>

#include "cipher_internal.h"
#include "format_internal.h"
#include "tde/key_record.h"

#define MAGIC			"CFKR"
#define VERSION			1

/* Offsets; what is not wrapped and no checksum is authenticated. */
#define OFFSET_IV		116
#define OFFSET_WRAPPED	(OFFSET_IV + TDE_WRAP_IV_LEN)
#define OFFSET_TAG		(OFFSET_WRAPPED + TDE_MAX_KEY_LEN)
#define OFFSET_REST		(OFFSET_TAG + TDE_WRAP_TAG_LEN)
#define OFFSET_CRC		(TDE_KEY_RECORD_LEN - TDE_CRC_LEN)

#define AAD_LEN			(OFFSET_IV + OFFSET_CRC - OFFSET_REST)

/* Lengths of unused space: in the header, in the key's entry, after it. */
#define RESERVED_HEADER	36
#define RESERVED_ENTRY	10
#define RESERVED_REST	(OFFSET_CRC - OFFSET_REST)

/* What the wrapping authenticates. */
static void
make_aad(const uint8 *buf, uint8 *aad)
{
	memcpy(aad, buf, OFFSET_IV);
	memcpy(aad + OFFSET_IV, buf + OFFSET_REST, OFFSET_CRC - OFFSET_REST);
}

static bool
id_is_zero(const TdeId *id)
{
	static const TdeId zero;

	return TdeIdEquals(id, &zero);
}

/* XTS must not be given such a key, so nothing is (see tde_generate_key). */
static bool
halves_are_equal(const TdeKey *key)
{
	int			half = tde_cipher_key_len(key->cipher) / 2;

	return CRYPTO_memcmp(key->key, key->key + half, half) == 0;
}

/* What is wrong with the values of a record; NULL if nothing is. */
static const char *
check_values(const TdeKey *key)
{
	if (key->state != TDE_KEY_ACTIVE)
		return gettext_noop("state of the key is unknown");
	if (!TdeCipherIsValid(key->cipher))
		return gettext_noop("cipher is unknown");
	if (!OidIsValid(key->locator.spcOid) ||
		!RelFileNumberIsValid(key->locator.relNumber))
		return gettext_noop("identity of the relation is invalid");
	if (id_is_zero(&key->id) || id_is_zero(&key->generation))
		return gettext_noop("identifier of a key is zero");
	return NULL;
}

int
tde_key_record_encode(const TdeKey *key, const uint8 *scope_key, uint8 *buf)
{
	TdeWriter	w = {buf};
	uint8		plain[TDE_MAX_KEY_LEN] = {0};
	uint8		aad[AAD_LEN];
	const char *wrong = check_values(key);
	int			result;

	if (wrong == NULL && halves_are_equal(key))
		wrong = gettext_noop("halves of the key are equal");
	if (wrong != NULL)
	{
		memset(buf, 0, TDE_KEY_RECORD_LEN);
		return tde_fail(wrong);
	}

	/* header */
	tde_put_bytes(&w, MAGIC, TDE_MAGIC_LEN);
	tde_put_uint(&w, VERSION, 2);
	tde_put_uint(&w, TDE_KEY_RECORD_LEN, 2);
	tde_put_uint(&w, 0, 4);		/* flags */
	tde_put_uint(&w, key->state, 1);
	tde_put_uint(&w, 1, 1);		/* number of keys */
	tde_put_uint(&w, 0, 2);
	tde_put_uint(&w, key->locator.spcOid, 4);
	tde_put_uint(&w, key->locator.dbOid, 4);
	tde_put_uint(&w, key->locator.relNumber, 4);
	tde_put_reserved(&w, RESERVED_HEADER);

	/* the key's entry */
	tde_put_bytes(&w, key->id.b, TDE_ID_LEN);
	tde_put_bytes(&w, key->generation.b, TDE_ID_LEN);
	tde_put_uint(&w, key->created, 8);
	tde_put_uint(&w, key->cipher, 1);
	tde_put_uint(&w, tde_cipher_key_len(key->cipher), 1);
	tde_put_reserved(&w, RESERVED_ENTRY);
	Assert(w.p == buf + OFFSET_IV);
	w.p = buf + OFFSET_REST;
	tde_put_reserved(&w, RESERVED_REST);

	tde_copy_key(plain, key->key, tde_cipher_key_len(key->cipher));
	make_aad(buf, aad);
	result = tde_wrap(scope_key, aad, AAD_LEN, plain, TDE_MAX_KEY_LEN,
					  buf + OFFSET_IV, buf + OFFSET_WRAPPED,
					  buf + OFFSET_TAG);
	tde_wipe(plain, sizeof(plain));
	if (result < 0)
	{
		memset(buf, 0, TDE_KEY_RECORD_LEN);
		return -1;
	}
	tde_put_uint(&w, tde_format_crc(buf, TDE_KEY_RECORD_LEN), TDE_CRC_LEN);
	return 0;
}

int
tde_key_record_decode(const uint8 *buf, size_t len, TdeKey *key,
					  const char **reason)
{
	TdeReader	r;
	bool		known;

	memset(key, 0, sizeof(TdeKey));
	if (!tde_format_begin(&r, buf, len, MAGIC, VERSION, reason) ||
		!tde_format_check(&r, buf, len, tde_get_uint(&r, 2), reason))
		return -1;
	if (len != TDE_KEY_RECORD_LEN)
	{
		*reason = gettext_noop("record has a wrong length");
		return -1;
	}

	/* this version knows no flags and one key */
	known = tde_get_uint(&r, 4) == 0;
	key->state = tde_get_uint(&r, 1);
	known &= tde_get_uint(&r, 1) == 1;
	tde_get_reserved(&r, 2);
	key->locator.spcOid = tde_get_uint(&r, 4);
	key->locator.dbOid = tde_get_uint(&r, 4);
	key->locator.relNumber = tde_get_uint(&r, 4);
	tde_get_reserved(&r, RESERVED_HEADER);

	tde_get_bytes(&r, key->id.b, TDE_ID_LEN);
	tde_get_bytes(&r, key->generation.b, TDE_ID_LEN);
	key->created = tde_get_uint(&r, 8);
	key->cipher = tde_get_uint(&r, 1);
	known &= tde_get_uint(&r, 1) == tde_cipher_key_len(key->cipher);
	tde_get_reserved(&r, RESERVED_ENTRY);
	r.p = buf + OFFSET_REST;
	tde_get_reserved(&r, RESERVED_REST);

	*reason = check_values(key);
	if (*reason == NULL && (!known || r.failed))
		*reason = gettext_noop("record uses an unknown feature");
	return *reason == NULL ? 0 : -1;
}

int
tde_key_record_unwrap(const uint8 *buf, size_t len, const uint8 *scope_key,
					  TdeKey *key, const char **reason)
{
	uint8		aad[AAD_LEN];

	if (tde_key_record_decode(buf, len, key, reason) < 0)
		return -1;
	make_aad(buf, aad);
	if (tde_unwrap(scope_key, buf + OFFSET_IV, aad, AAD_LEN,
				   buf + OFFSET_WRAPPED, TDE_MAX_KEY_LEN, key->key,
				   buf + OFFSET_TAG) < 0)
	{
		*reason = gettext_noop("scope key does not authenticate the record");
		return -1;
	}
	if (halves_are_equal(key))
	{
		tde_wipe(key->key, sizeof(key->key));
		*reason = gettext_noop("halves of the key are equal");
		return -1;
	}
	return 0;
}
