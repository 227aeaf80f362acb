/*-------------------------------------------------------------------------
 *
 * key_wrap.c
 *	  AES-256-GCM (SP 800-38D) as key wrap.
 *
 * The IV is drawn by OpenSSL, inside its provider, and handed to the caller:
 * so FIPS 140-3 (IG C.H, scenario 2) wants it, and so nobody can use one
 * twice.  Random IVs of 96 bits allow 2^32 wrappings under one key.
 *
 * Allocates inside OpenSSL, in the secure heap; not for critical sections.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/key_wrap.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "cipher_internal.h"
#include "tde/cipher.h"

int
tde_wrap(const uint8 *kek, const uint8 *aad, size_t aadlen,
		 const uint8 *in, size_t len, uint8 *iv, uint8 *out, uint8 *tag)
{
	EVP_CIPHER_CTX *ctx = tde_evp_context(TDE_EVP_AES_256_GCM, true);
	int			n;
	bool		ok;

	if (ctx == NULL)
		return -1;
	tde_secure_heap_begin();
	ok = EVP_EncryptInit_ex2(ctx, NULL, kek, NULL, NULL) == 1 &&
		EVP_EncryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1 &&
		EVP_CIPHER_CTX_get_updated_iv(ctx, iv, TDE_WRAP_IV_LEN) == 1 &&
		EVP_EncryptUpdate(ctx, out, &n, in, (int) len) == 1 &&
		EVP_EncryptFinal_ex(ctx, out + len, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG,
							TDE_WRAP_TAG_LEN, tag) == 1;
	EVP_CIPHER_CTX_free(ctx);
	tde_secure_heap_end();
	if (!ok)
	{
		tde_wipe(out, len);
		return tde_fail(gettext_noop("could not wrap a key"));
	}
	return 0;
}

int
tde_unwrap(const uint8 *kek, const uint8 *iv, const uint8 *aad, size_t aadlen,
		   const uint8 *in, size_t len, uint8 *out, const uint8 *tag)
{
	EVP_CIPHER_CTX *ctx = tde_evp_context(TDE_EVP_AES_256_GCM, false);
	int			n;
	bool		ok;

	if (ctx == NULL)
		return -1;
	tde_secure_heap_begin();
	ok = EVP_DecryptInit_ex2(ctx, NULL, kek, iv, NULL) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TDE_WRAP_TAG_LEN,
							unconstify(uint8 *, tag)) == 1 &&
		EVP_DecryptUpdate(ctx, NULL, &n, aad, (int) aadlen) == 1 &&
		EVP_DecryptUpdate(ctx, out, &n, in, (int) len) == 1 &&
		EVP_DecryptFinal_ex(ctx, out + len, &n) == 1;
	EVP_CIPHER_CTX_free(ctx);
	tde_secure_heap_end();
	if (!ok)
	{
		tde_wipe(out, len);
		return tde_fail(gettext_noop("key does not unwrap what it is asked to"));
	}
	return 0;
}
