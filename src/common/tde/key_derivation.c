/*-------------------------------------------------------------------------
 *
 * key_derivation.c
 *	  HKDF-SHA-256 (RFC 5869), by which a principal key gives the keys that
 *	  wrap scope keys.
 *
 * Allocates inside OpenSSL, which copies the key: in the secure heap.  Not for
 * critical sections.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/key_derivation.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <openssl/core_names.h>
#include <openssl/kdf.h>

#include "cipher_internal.h"
#include "tde/cipher.h"

int
tde_hkdf(const uint8 *key, size_t keylen, const uint8 *salt, size_t saltlen,
		 const char *info, uint8 *out, size_t outlen)
{
	static EVP_KDF *hkdf = NULL;
	EVP_KDF_CTX *ctx;
	OSSL_PARAM	params[5];
	OSSL_PARAM *p = params;
	int			ok;

	if (hkdf == NULL)
		hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	if (hkdf == NULL)
		return tde_fail(gettext_noop("OpenSSL does not provide HKDF"));

	tde_secure_heap_begin();
	ctx = EVP_KDF_CTX_new(hkdf);
	if (ctx == NULL)
	{
		tde_secure_heap_end();
		return tde_fail(gettext_noop("could not create an OpenSSL key derivation context"));
	}

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
											"SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
											 unconstify(uint8 *, key),
											 keylen);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT,
											 unconstify(uint8 *, salt),
											 saltlen);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO,
											 unconstify(char *, info),
											 strlen(info));
	*p = OSSL_PARAM_construct_end();

	ok = EVP_KDF_derive(ctx, out, outlen, params);
	EVP_KDF_CTX_free(ctx);
	tde_secure_heap_end();
	if (ok != 1)
	{
		tde_wipe(out, outlen);
		return tde_fail(gettext_noop("could not derive a key"));
	}
	return 0;
}
