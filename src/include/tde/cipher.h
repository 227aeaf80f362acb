/*-------------------------------------------------------------------------
 *
 * cipher.h
 *	  Ciphers, key derivation, key wrapping and secure memory of Coffer.
 *
 * Everything here stands on OpenSSL's EVP interface and works in the backend
 * and in frontend programs alike.  After set-up nothing in this layer
 * allocates, logs, raises or does I/O, so that it may be called in a critical
 * section.  A function that can fail returns -1; the reason is then given by
 * tde_cipher_error() as a constant string that never contains key material.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/cipher.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_CIPHER_H
#define TDE_CIPHER_H

/*
 * The ciphers a relation can be encrypted with.  The values are stored in key
 * records: never renumber, only append.
 */
typedef enum TdeCipher
{
	TDE_CIPHER_INVALID = 0,
	TDE_AES_128_XTS = 1,
	TDE_AES_256_XTS = 2,
	TDE_AES_128_CBC = 3,
	TDE_AES_256_CBC = 4,
} TdeCipher;

#define TDE_CIPHER_LAST			TDE_AES_256_CBC
#define TdeCipherIsValid(c)		((c) >= TDE_AES_128_XTS && (c) <= TDE_CIPHER_LAST)
#define TdeCipherIsCBC(c)		((c) == TDE_AES_128_CBC || (c) == TDE_AES_256_CBC)

/*
 * An internal key is two AES keys, k1 for the data and k2 for the tweak or
 * IV, one after the other: 32 bytes for the 128-bit ciphers, 64 for the
 * 256-bit ones.
 */
#define TDE_MAX_KEY_LEN			64

#define TDE_WRAP_KEY_LEN		32	/* AES-256-GCM key that wraps another key */
#define TDE_WRAP_IV_LEN			12
#define TDE_WRAP_TAG_LEN		16
#define TDE_ID_LEN				16	/* random ids of keys and generations */

/* Name of a cipher as pg_tde.cipher spells it, NULL for an unknown one. */
extern const char *tde_cipher_name(TdeCipher cipher);

/* Bytes of key material that a cipher takes (k1 and k2 together). */
extern int	tde_cipher_key_len(TdeCipher cipher);

/* Reason of the last failure in this process: a constant, translatable string. */
extern const char *tde_cipher_error(void);

/*
 * Fill buf with len bytes from OpenSSL's private random generator.
 */
extern int	tde_random(void *buf, size_t len);

/*
 * A fresh internal key for a cipher.  The halves are never equal (SP 800-38E
 * and FIPS 140-3 IG C.I demand it of XTS; the others get the same rule).
 */
extern int	tde_generate_key(TdeCipher cipher, uint8 *key);

/*
 * HKDF-SHA-256 (RFC 5869).  "info" separates the uses of one key; outlen is
 * at most 64.
 */
extern int	tde_hkdf(const uint8 *key, size_t keylen,
					 const uint8 *salt, size_t saltlen,
					 const char *info, uint8 *out, size_t outlen);

/*
 * AES-256-GCM (SP 800-38D) as key wrap.  tde_wrap draws a random IV of
 * TDE_WRAP_IV_LEN bytes itself and returns it.  The ciphertext has the length
 * of the plaintext; in and out may be the same.  tde_unwrap returns -1, with
 * out wiped, if anything (key, IV, aad, ciphertext, tag) does not belong
 * together.  Neither may be called in a critical section.
 */
extern int	tde_wrap(const uint8 *kek, const uint8 *aad, size_t aadlen,
					 const uint8 *in, size_t len,
					 uint8 *iv, uint8 *out, uint8 *tag);
extern int	tde_unwrap(const uint8 *kek, const uint8 *iv,
					   const uint8 *aad, size_t aadlen,
					   const uint8 *in, size_t len, uint8 *out,
					   const uint8 *tag);

/*
 * AES-CTR (SP 800-38A) over a buffer, counter block given whole; for WAL and
 * temporary files.  The context holds one key.  in and out are the same or do
 * not overlap.  tde_ctr_crypt_from leaves out the first "skip" bytes, at most
 * 15, of the key stream.
 */
typedef struct TdeCtr TdeCtr;
extern TdeCtr *tde_ctr_create(void);
extern int	tde_ctr_set_key(TdeCtr *ctx, const uint8 *key, int keylen);
extern int	tde_ctr_crypt(TdeCtr *ctx, const uint8 *counter,
						  const void *in, void *out, size_t len);
extern int	tde_ctr_crypt_from(TdeCtr *ctx, const uint8 *counter, size_t skip,
							   const void *in, void *out, size_t len);
extern void tde_ctr_forget_key(TdeCtr *ctx);
extern void tde_ctr_free(TdeCtr *ctx);

/*
 * Wipe memory in a way that the compiler does not remove.
 */
extern void tde_wipe(void *buf, size_t len);

/*
 * Copy a key.  Byte by byte: memcpy() leaves it in large registers, which few
 * use after that, and which are saved on the stack with each signal.
 */
extern void tde_copy_key(void *dst, const void *src, size_t len);

/*
 * Wipe what calls that have returned have left on the stack.
 */
extern void tde_wipe_stack(void);

/*
 * Memory for keys.  The mapping is anonymous, zeroed, shared between the
 * processes forked from the one that makes it when "shared" is true, and left
 * out of core dumps (MADV_DONTDUMP).  It is locked in memory if the kernel
 * lets us; *locked says whether it did.  Returns NULL, with errno set, if
 * there is no memory.
 */
extern void *tde_secure_alloc(size_t size, bool shared, bool *locked);
extern void tde_secure_free(void *ptr, size_t size);

/*
 * A lock on memory is not inherited.  To be called by a child process before
 * it uses a key, from where it goes on to do its work: locks all such memory
 * that it has from its parent, and the part of the stack that it will use.
 * tde_secure_detach() is for a child that needs no keys: it gives back what
 * is shared, and locks the rest, which OpenSSL may use to the end.
 */
extern void tde_secure_relock(void);
extern void tde_secure_detach(void);

/*
 * How many bytes of such memory does this process have, and is all of it
 * locked, and the stack?
 */
extern size_t tde_secure_size(bool *locked);

/*
 * Let OpenSSL keep what it knows of our keys in such memory, too.  To be
 * called first thing in main(): returns false if OpenSSL has allocated
 * something already.  Cipher contexts are then in ordinary memory, and so in
 * core dumps.
 */
extern bool tde_secure_heap_init(void);

/*
 * Known-answer test of all primitives and constructions with a few vectors,
 * run once before the first key is used.  Returns NULL if all is well or the
 * name of the vector that failed.
 */
extern const char *tde_cipher_self_test(void);

#endif							/* TDE_CIPHER_H */
