/*-------------------------------------------------------------------------
 *
 * fuzz_key_record.c
 *	  Fuzz target: the decoder of key records.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_key_record.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "tde/key_record.h"

#include "fuzz.h"

static void
decode(const uint8 *data, size_t size)
{
	static const uint8 scope_key[TDE_WRAP_KEY_LEN] = {1};
	static const uint8 zeros[TDE_MAX_KEY_LEN];
	TdeKey		key;
	TdeKey		again;
	uint8		buf[TDE_KEY_RECORD_LEN];
	const char *reason = NULL;

	if (tde_key_record_decode(data, size, &key, &reason) < 0)
	{
		FUZZ_REQUIRE(reason != NULL);
		return;
	}

	/* nobody can make a record for a key that he does not know */
	FUZZ_REQUIRE(tde_key_record_unwrap(data, size, scope_key,
									   &again, &reason) < 0);
	FUZZ_REQUIRE(reason != NULL);
	FUZZ_REQUIRE(memcmp(again.key, zeros, sizeof(zeros)) == 0);

	/* what was read can be written, all but the wrapping being the same */
	FUZZ_REQUIRE(tde_generate_key(key.cipher, key.key) == 0);
	FUZZ_REQUIRE(tde_key_record_encode(&key, scope_key, buf) == 0);
	FUZZ_REQUIRE(memcmp(buf, data, 116) == 0);
	FUZZ_REQUIRE(memcmp(buf + 208, data + 208, 252 - 208) == 0);
}

void
fuzz_key_record(const uint8 *data, size_t size)
{
	uint8	   *plausible = fuzz_make_plausible(data, size, 6, 2);

	decode(data, size);
	decode(plausible, size);
	free(plausible);
}
