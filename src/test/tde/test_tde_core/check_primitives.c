/*-------------------------------------------------------------------------
 *
 * check_primitives.c
 *	  Ciphers, key wrap, key derivation and random keys against published
 *	  vectors and against their own rules.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_primitives.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "../../../common/tde/cipher_internal.h"
#include "tde/cipher.h"

#include "checks.h"

#define MAX_LEN		1024

/* XTS and CBC, which the core has only inside of pages: OpenSSL's own. */
static bool
check_block_mode(Vectors *v, TdeEvp evp128, TdeEvp evp256, int key128)
{
	uint8		key[64];
	uint8		iv[16];
	uint8		plain[MAX_LEN];
	uint8		cipher[MAX_LEN];
	uint8		out[MAX_LEN + 16];
	size_t		key_len = vectors_bytes(v, "key", key, sizeof(key));
	size_t		len = vectors_bytes(v, "plain", plain, MAX_LEN);
	bool		ok = true;

	if (vectors_bytes(v, "iv", iv, sizeof(iv)) != 16 || len == 0 ||
		vectors_bytes(v, "cipher", cipher, MAX_LEN) != len)
		return false;
	for (int encrypt = 0; encrypt <= 1; encrypt++)
	{
		EVP_CIPHER_CTX *ctx = tde_evp_context(key_len == key128 ? evp128 : evp256,
											  encrypt);
		int			n;

		ok = ok && ctx != NULL &&
			EVP_CIPHER_CTX_get_key_length(ctx) == key_len &&
			EVP_CipherInit_ex2(ctx, NULL, key, iv, -1, NULL) == 1 &&
			EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
			EVP_CipherUpdate(ctx, out, &n, encrypt ? plain : cipher, len) == 1 &&
			n == len && memcmp(out, encrypt ? cipher : plain, len) == 0;
		EVP_CIPHER_CTX_free(ctx);
	}
	return ok;
}

static bool
check_ctr_vector(Vectors *v)
{
	uint8		key[32];
	uint8		iv[16];
	uint8		plain[MAX_LEN];
	uint8		cipher[MAX_LEN];
	uint8		out[MAX_LEN];
	size_t		key_len = vectors_bytes(v, "key", key, sizeof(key));
	size_t		len = vectors_bytes(v, "plain", plain, MAX_LEN);
	TdeCtr	   *ctx = tde_ctr_create();
	bool		ok;

	ok = ctx != NULL && len > 0 &&
		vectors_bytes(v, "iv", iv, sizeof(iv)) == 16 &&
		vectors_bytes(v, "cipher", cipher, MAX_LEN) == len &&
		tde_ctr_set_key(ctx, key, key_len) == 0 &&
		tde_ctr_crypt(ctx, iv, plain, out, len) == 0 &&
		memcmp(out, cipher, len) == 0 &&
		tde_ctr_crypt(ctx, iv, out, out, len) == 0 &&
		memcmp(out, plain, len) == 0;
	tde_ctr_free(ctx);
	return ok;
}

static bool
check_gcm_vector(Vectors *v)
{
	uint8		key[TDE_WRAP_KEY_LEN];
	uint8		iv[TDE_WRAP_IV_LEN];
	uint8		tag[TDE_WRAP_TAG_LEN];
	uint8		aad[MAX_LEN];
	uint8		plain[MAX_LEN];
	uint8		cipher[MAX_LEN];
	uint8		out[MAX_LEN];
	uint8		zeros[MAX_LEN] = {0};
	size_t		aadlen = vectors_bytes(v, "aad", aad, MAX_LEN);
	size_t		len = vectors_bytes(v, "cipher", cipher, MAX_LEN);

	if (vectors_bytes(v, "key", key, sizeof(key)) != sizeof(key) ||
		vectors_bytes(v, "iv", iv, sizeof(iv)) != sizeof(iv) ||
		vectors_bytes(v, "tag", tag, sizeof(tag)) != sizeof(tag))
		return false;
	memset(out, 0x5a, MAX_LEN);
	if (vectors_nth(v, "fails", 0))
		return tde_unwrap(key, iv, aad, aadlen, cipher, len, out, tag) < 0 &&
			memcmp(out, zeros, len) == 0;
	return vectors_bytes(v, "plain", plain, MAX_LEN) == len &&
		tde_unwrap(key, iv, aad, aadlen, cipher, len, out, tag) == 0 &&
		memcmp(out, plain, len) == 0;
}

static bool
check_hkdf_vector(Vectors *v)
{
	uint8		key[128];
	uint8		salt[128];
	uint8		info[129] = {0};
	uint8		expected[64];
	uint8		out[64];
	size_t		key_len = vectors_bytes(v, "key", key, sizeof(key));
	size_t		salt_len = vectors_bytes(v, "salt", salt, sizeof(salt));
	size_t		len = vectors_bytes(v, "out", expected, sizeof(expected));

	vectors_bytes(v, "info", info, sizeof(info) - 1);
	return key_len > 0 && len > 0 &&
		tde_hkdf(key, key_len, salt, salt_len, (char *) info, out, len) == 0 &&
		memcmp(out, expected, len) == 0;
}

static void
check_published(Checks *checks)
{
	Vectors		v;

	vectors_open(&v, checks, "primitives.txt");
	while (vectors_next(&v))
	{
		const char *test = vectors_get(&v, "test");
		bool		ok = false;

		if (strcmp(test, "xts") == 0)
			ok = check_block_mode(&v, TDE_EVP_AES_128_XTS,
								  TDE_EVP_AES_256_XTS, 32);
		else if (strcmp(test, "cbc") == 0)
			ok = check_block_mode(&v, TDE_EVP_AES_128_CBC,
								  TDE_EVP_AES_256_CBC, 16);
		else if (strcmp(test, "ctr") == 0)
			ok = check_ctr_vector(&v);
		else if (strcmp(test, "gcm") == 0)
			ok = check_gcm_vector(&v);
		else if (strcmp(test, "hkdf") == 0)
			ok = check_hkdf_vector(&v);
		check(checks, ok, "%s: %s", test, vectors_get(&v, "source"));
	}
	vectors_close(&v);
}

/* Add to a counter block, a big-endian number. */
static void
add_to_counter(uint8 *counter, int n)
{
	for (int i = 15; i >= 0 && n > 0; i--)
	{
		n += counter[i];
		counter[i] = n & 0xFF;
		n >>= 8;
	}
}

/*
 * Pieces of up to 1 kB go another way than long ones: both must give the same
 * bytes, whatever the length, and also where the counter overflows.
 */
static void
check_ctr(Checks *checks)
{
	uint8		key[32];
	uint8		counter[16];
	uint8		plain[4096];
	uint8		whole[4096];
	uint8		pieces[4096];
	TdeCtr	   *ctx = tde_ctr_create();
	bool		lengths = true;

	fill_pattern(key, sizeof(key), 1);
	fill_pattern(plain, sizeof(plain), 2);
	check(checks, tde_ctr_crypt(ctx, counter, plain, whole, 16) < 0,
		  "ctr: without a key");
	check(checks, tde_ctr_set_key(ctx, key, 24) < 0, "ctr: 24 bytes of key");

	for (int key_len = 16; key_len <= 32; key_len += 16)
	{
		bool		same = tde_ctr_set_key(ctx, key, key_len) == 0;

		for (int carry = 0; carry <= 16; carry++)
		{
			/* the lowest "carry" bytes overflow within the pieces */
			fill_pattern(counter, sizeof(counter), 3);
			memset(counter + 16 - carry, 0xFF, carry);
			same = same &&
				tde_ctr_crypt(ctx, counter, plain, whole, sizeof(whole)) == 0;
			for (int done = 0; done < sizeof(plain); done += 512)
			{
				same = same &&
					tde_ctr_crypt(ctx, counter, plain + done,
								  pieces + done, 512) == 0;
				add_to_counter(counter, 512 / 16);
			}
			same = same && memcmp(whole, pieces, sizeof(whole)) == 0;
		}
		check(checks, same, "ctr: short and long pieces agree, %d-bit key",
			  key_len * 8);
	}

	fill_pattern(counter, sizeof(counter), 4);
	lengths = tde_ctr_crypt(ctx, counter, plain, whole, sizeof(whole)) == 0;
	for (int len = 0; len <= 1100; len++)
	{
		memset(pieces, 0, sizeof(pieces));
		lengths = lengths &&
			tde_ctr_crypt(ctx, counter, plain, pieces, len) == 0 &&
			memcmp(whole, pieces, len) == 0 && pieces[len] == 0;
	}
	check(checks, lengths, "ctr: each length from 0 to 1100");

	if (checks->allocations)
	{
		int			before = *checks->allocations;

		for (int i = 0; i < 100; i++)
		{
			tde_ctr_set_key(ctx, key, i % 2 ? 16 : 32);
			tde_ctr_crypt(ctx, counter, plain, whole, 100);
			tde_ctr_crypt(ctx, counter, plain, whole, 2000);
		}
		check(checks, *checks->allocations == before, "ctr: allocates nothing");
	}
	tde_ctr_free(ctx);
}

static void
check_wrap(Checks *checks)
{
	uint8		kek[TDE_WRAP_KEY_LEN];
	uint8		aad[40];
	uint8		plain[64];
	uint8		out[64];
	uint8		back[64];
	uint8		zeros[64] = {0};
	uint8		iv[64][TDE_WRAP_IV_LEN];
	uint8		tag[TDE_WRAP_TAG_LEN];
	bool		fresh = true;
	bool		works = true;
	bool		detected = true;

	fill_pattern(kek, sizeof(kek), 1);
	fill_pattern(aad, sizeof(aad), 2);
	fill_pattern(plain, sizeof(plain), 3);

	for (int i = 0; i < lengthof(iv); i++)
	{
		works = works &&
			tde_wrap(kek, aad, sizeof(aad), plain, sizeof(plain),
					 iv[i], out, tag) == 0 &&
			memcmp(out, plain, sizeof(plain)) != 0 &&
			tde_unwrap(kek, iv[i], aad, sizeof(aad), out, sizeof(out),
					   back, tag) == 0 &&
			memcmp(back, plain, sizeof(plain)) == 0;
		for (int j = 0; j < i; j++)
			fresh = fresh && memcmp(iv[i], iv[j], TDE_WRAP_IV_LEN) != 0;
	}
	check(checks, works, "wrap: and unwrap");
	check(checks, fresh, "wrap: a new IV each time");

	/* any bit of anything */
	for (int part = 0; part < 5; part++)
	{
		uint8	   *parts[] = {kek, iv[lengthof(iv) - 1], aad, out, tag};
		size_t		lens[] = {sizeof(kek), TDE_WRAP_IV_LEN, sizeof(aad),
		sizeof(out), sizeof(tag)};

		for (int bit = 0; bit < lens[part] * 8; bit++)
		{
			parts[part][bit / 8] ^= 1 << bit % 8;
			memset(back, 0x5a, sizeof(back));
			detected = detected &&
				tde_unwrap(kek, iv[lengthof(iv) - 1], aad, sizeof(aad),
						   out, sizeof(out), back, tag) < 0 &&
				memcmp(back, zeros, sizeof(back)) == 0;
			parts[part][bit / 8] ^= 1 << bit % 8;
		}
	}
	check(checks, detected, "wrap: a flipped bit is found and nothing returned");

	memcpy(out, plain, sizeof(plain));
	check(checks, tde_wrap(kek, aad, sizeof(aad), out, sizeof(out),
						   iv[0], out, tag) == 0 &&
		  tde_unwrap(kek, iv[0], aad, sizeof(aad), out, sizeof(out),
					 out, tag) == 0 &&
		  memcmp(out, plain, sizeof(plain)) == 0,
		  "wrap: in place");
}

static void
check_names_and_keys(Checks *checks)
{
	uint8		key[TDE_MAX_KEY_LEN + 1];
	uint8		other[TDE_MAX_KEY_LEN];

	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		int			len = tde_cipher_key_len(i);
		bool		is_256 = strstr(tde_cipher_name(i), "256") != NULL;

		memset(key, 0, sizeof(key));
		check(checks, len == (is_256 ? 64 : 32) &&
			  tde_generate_key(i, key) == 0 &&
			  tde_generate_key(i, other) == 0 &&
			  memcmp(key, other, len) != 0 &&
			  memcmp(key, key + len / 2, len / 2) != 0 &&
			  key[len] == 0,
			  "random key: %s", tde_cipher_name(i));
	}
	check(checks, tde_cipher_name(TDE_CIPHER_INVALID) == NULL &&
		  tde_cipher_name(TDE_CIPHER_LAST + 1) == NULL &&
		  tde_cipher_key_len(TDE_CIPHER_LAST + 1) == 0 &&
		  tde_generate_key(TDE_CIPHER_LAST + 1, key) < 0,
		  "unknown cipher");
	check(checks, tde_random(key, (size_t) 1 << 40) < 0,
		  "random: an absurd length is refused");
}

void
check_primitives(Checks *checks)
{
	check_published(checks);
	check_ctr(checks);
	check_wrap(checks);
	check_names_and_keys(checks);
}
