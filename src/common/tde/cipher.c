/*-------------------------------------------------------------------------
 *
 * cipher.c
 *	  Names and key lengths of ciphers, random keys, and the access of the
 *	  crypto core to OpenSSL's algorithms.
 *
 * Algorithms are fetched from whatever provider OpenSSL is configured with,
 * so that a configuration that demands FIPS gets FIPS or an error, and only
 * once per process, since a fetch takes locks and costs more than encrypting
 * a page.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/cipher.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "cipher_internal.h"
#include "tde/cipher.h"

typedef struct CipherInfo
{
	const char *name;
	int			key_len;
} CipherInfo;

static const CipherInfo ciphers[] = {
	[TDE_AES_128_XTS] = {"aes_128_xts", 32},
	[TDE_AES_256_XTS] = {"aes_256_xts", 64},
	[TDE_AES_128_CBC] = {"aes_128_cbc", 32},
	[TDE_AES_256_CBC] = {"aes_256_cbc", 64},
};

StaticAssertDecl(lengthof(ciphers) == TDE_CIPHER_LAST + 1,
				 "every cipher needs its name");

static const char *const tde_evp_names[] = {
	[TDE_EVP_AES_128_XTS] = "AES-128-XTS",
	[TDE_EVP_AES_256_XTS] = "AES-256-XTS",
	[TDE_EVP_AES_128_CBC] = "AES-128-CBC",
	[TDE_EVP_AES_256_CBC] = "AES-256-CBC",
	[TDE_EVP_AES_128_ECB] = "AES-128-ECB",
	[TDE_EVP_AES_256_ECB] = "AES-256-ECB",
	[TDE_EVP_AES_128_CTR] = "AES-128-CTR",
	[TDE_EVP_AES_256_CTR] = "AES-256-CTR",
	[TDE_EVP_AES_256_GCM] = "AES-256-GCM",
};

StaticAssertDecl(lengthof(tde_evp_names) == TDE_EVP_COUNT,
				 "every algorithm needs its name");

static const char *last_error = gettext_noop("no error");

const char *
tde_cipher_name(TdeCipher cipher)
{
	return TdeCipherIsValid(cipher) ? ciphers[cipher].name : NULL;
}

int
tde_cipher_key_len(TdeCipher cipher)
{
	return TdeCipherIsValid(cipher) ? ciphers[cipher].key_len : 0;
}

const char *
tde_cipher_error(void)
{
	return last_error;
}

int
tde_fail(const char *reason)
{
	last_error = reason;
	ERR_clear_error();
	return -1;
}

const EVP_CIPHER *
tde_evp(TdeEvp which)
{
	static EVP_CIPHER *fetched[TDE_EVP_COUNT];

	if (fetched[which] == NULL)
	{
		fetched[which] = EVP_CIPHER_fetch(NULL, tde_evp_names[which], NULL);
		if (fetched[which] == NULL)
			tde_fail(gettext_noop("OpenSSL does not provide the cipher"));
	}
	return fetched[which];
}

EVP_CIPHER_CTX *
tde_evp_context(TdeEvp which, bool encrypt)
{
	const EVP_CIPHER *algorithm = tde_evp(which);
	EVP_CIPHER_CTX *ctx;
	bool		ok;

	if (algorithm == NULL)
		return NULL;
	tde_secure_heap_begin();
	ctx = EVP_CIPHER_CTX_new();
	ok = ctx != NULL &&
		EVP_CipherInit_ex2(ctx, algorithm, NULL, NULL, encrypt, NULL) == 1;
	tde_secure_heap_end();
	if (!ok)
	{
		EVP_CIPHER_CTX_free(ctx);
		tde_fail(gettext_noop("could not create an OpenSSL cipher context"));
		return NULL;
	}
	return ctx;
}

void
tde_evp_forget_key(EVP_CIPHER_CTX *ctx)
{
	/* XTS wants halves that differ */
	static const uint8 no_secret[TDE_MAX_KEY_LEN] = {1};

	/*
	 * Of the same length, so it takes all of the room.  If OpenSSL refuses
	 * (a FIPS module does that when a self-test of its own has failed), the
	 * context is emptied and never works again.
	 */
	if (EVP_CipherInit_ex2(ctx, NULL, no_secret, NULL, -1, NULL) != 1)
	{
		EVP_CIPHER_CTX_reset(ctx);
		ERR_clear_error();
	}
}

int
tde_random(void *buf, size_t len)
{
	if (len > INT_MAX || RAND_priv_bytes(buf, (int) len) != 1)
		return tde_fail(gettext_noop("could not generate random bytes"));
	return 0;
}

int
tde_generate_key(TdeCipher cipher, uint8 *key)
{
	int			half = tde_cipher_key_len(cipher) / 2;

	if (half == 0)
		return tde_fail(gettext_noop("cipher is unknown"));
	do
	{
		if (tde_random(key, half * 2) < 0)
			return -1;
	} while (CRYPTO_memcmp(key, key + half, half) == 0);
	return 0;
}
