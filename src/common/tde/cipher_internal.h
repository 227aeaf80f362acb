/*-------------------------------------------------------------------------
 *
 * cipher_internal.h
 *	  What the files of the crypto core share among themselves.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/cipher_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_CIPHER_INTERNAL_H
#define TDE_CIPHER_INTERNAL_H

#include <openssl/evp.h>

/* The algorithms of OpenSSL in use; tde_evp_names in cipher.c follows. */
typedef enum TdeEvp
{
	TDE_EVP_AES_128_XTS,
	TDE_EVP_AES_256_XTS,
	TDE_EVP_AES_128_CBC,
	TDE_EVP_AES_256_CBC,
	TDE_EVP_AES_128_ECB,
	TDE_EVP_AES_256_ECB,
	TDE_EVP_AES_128_CTR,
	TDE_EVP_AES_256_CTR,
	TDE_EVP_AES_256_GCM,
} TdeEvp;

#define TDE_EVP_COUNT	(TDE_EVP_AES_256_GCM + 1)

/* The algorithm, fetched once per process; NULL if the library has it not. */
extern const EVP_CIPHER *tde_evp(TdeEvp which);

/*
 * A context that has its algorithm and direction and waits for a key.  A key
 * or an IV given to it later allocates nothing.
 */
extern EVP_CIPHER_CTX *tde_evp_context(TdeEvp which, bool encrypt);

/*
 * Overwrite the schedule of a context's key by that of a key that is no
 * secret.  The context can be given a key again.
 */
extern void tde_evp_forget_key(EVP_CIPHER_CTX *ctx);

/*
 * Between these two, what OpenSSL allocates lies in secure memory
 * (secure_heap.c).  Whatever gives OpenSSL a key that it may copy stands
 * between them.  Pairs may be nested.
 */
extern void tde_secure_heap_begin(void);
extern void tde_secure_heap_end(void);

/*
 * Note the reason of a failure, a constant string marked with gettext_noop,
 * and clear OpenSSL's own error queue, which nobody would look at.  Returns
 * -1, for the caller to return.
 */
extern int	tde_fail(const char *reason);

#endif							/* TDE_CIPHER_INTERNAL_H */
