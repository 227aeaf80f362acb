/*-------------------------------------------------------------------------
 *
 * ctr.c
 *	  AES-CTR (SP 800-38A), for WAL and temporary files.
 *
 * Both encrypt many short pieces, each with a counter of its own, and giving
 * OpenSSL's CTR mode a new counter costs more than encrypting 500 bytes.  So
 * short pieces take their key stream from ECB over the counter blocks, which
 * is the same thing by definition.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/ctr.c
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

#include "cipher_internal.h"
#include "port/pg_bswap.h"
#include "tde/cipher.h"

#define BLOCK			16
#define SHORT_PIECE		1024

/* Contexts of one key length. */
typedef struct CtrContexts
{
	EVP_CIPHER_CTX *ctr;
	EVP_CIPHER_CTX *ecb;
} CtrContexts;

struct TdeCtr
{
	CtrContexts aes128;
	CtrContexts aes256;
	CtrContexts *current;		/* NULL: no key set */
};

TdeCtr *
tde_ctr_create(void)
{
	TdeCtr	   *ctx = OPENSSL_zalloc(sizeof(TdeCtr));

	if (ctx == NULL)
	{
		tde_fail(gettext_noop("out of memory"));
		return NULL;
	}
	if ((ctx->aes128.ctr = tde_evp_context(TDE_EVP_AES_128_CTR, true)) == NULL ||
		(ctx->aes128.ecb = tde_evp_context(TDE_EVP_AES_128_ECB, true)) == NULL ||
		(ctx->aes256.ctr = tde_evp_context(TDE_EVP_AES_256_CTR, true)) == NULL ||
		(ctx->aes256.ecb = tde_evp_context(TDE_EVP_AES_256_ECB, true)) == NULL)
	{
		tde_ctr_free(ctx);
		return NULL;
	}
	return ctx;
}

void
tde_ctr_free(TdeCtr *ctx)
{
	if (ctx == NULL)
		return;
	EVP_CIPHER_CTX_free(ctx->aes128.ctr);
	EVP_CIPHER_CTX_free(ctx->aes128.ecb);
	EVP_CIPHER_CTX_free(ctx->aes256.ctr);
	EVP_CIPHER_CTX_free(ctx->aes256.ecb);
	OPENSSL_free(ctx);
}

void
tde_ctr_forget_key(TdeCtr *ctx)
{
	if (ctx->current == NULL)
		return;
	tde_evp_forget_key(ctx->current->ctr);
	tde_evp_forget_key(ctx->current->ecb);
	ctx->current = NULL;
}

int
tde_ctr_set_key(TdeCtr *ctx, const uint8 *key, int keylen)
{
	CtrContexts *c = NULL;

	if (keylen == 16)
		c = &ctx->aes128;
	else if (keylen == 32)
		c = &ctx->aes256;

	/* of the same length, the new key takes the old one's place */
	if (c != ctx->current)
		tde_ctr_forget_key(ctx);
	ctx->current = c;
	if (c == NULL)
		return tde_fail(gettext_noop("key has a wrong length"));
	if (EVP_EncryptInit_ex2(c->ctr, NULL, key, NULL, NULL) != 1 ||
		EVP_EncryptInit_ex2(c->ecb, NULL, key, NULL, NULL) != 1)
	{
		tde_ctr_forget_key(ctx);
		return tde_fail(gettext_noop("could not set a cipher's key"));
	}
	return 0;
}

/*
 * A counter block, a big-endian number of 128 bits, in halves of this machine:
 * adding to it in memory would make each block wait for the store before.
 */
typedef struct Counter
{
	uint64		high;
	uint64		low;
} Counter;

static inline Counter
load_counter(const uint8 *block)
{
	Counter		c;

	memcpy(&c, block, BLOCK);
	c.high = pg_ntoh64(c.high);
	c.low = pg_ntoh64(c.low);
	return c;
}

static inline void
store_counter(Counter c, uint8 *block)
{
	c.high = pg_hton64(c.high);
	c.low = pg_hton64(c.low);
	memcpy(block, &c, BLOCK);
}

static inline void
increment(Counter *c)
{
	if (++c->low == 0)
		c->high++;
}

/*
 * A piece that fits, with what of its first block is left out, into the
 * buffer of key stream.
 */
static int
crypt_short(CtrContexts *current, Counter counter, size_t skip,
			const uint8 *src, uint8 *dst, size_t len)
{
	uint8		stream[SHORT_PIECE];
	size_t		used = 0;
	size_t		i = 0;
	int			n;

	for (; used < skip + len; used += BLOCK)
	{
		store_counter(counter, stream + used);
		increment(&counter);
	}
	if (len > 0 &&
		EVP_EncryptUpdate(current->ecb, stream, &n, stream, (int) used) != 1)
		return tde_fail(gettext_noop("could not encrypt"));
	for (; i + sizeof(uint64) <= len; i += sizeof(uint64))
	{
		uint64		a;
		uint64		b;

		memcpy(&a, src + i, sizeof(a));
		memcpy(&b, stream + skip + i, sizeof(b));
		a ^= b;
		memcpy(dst + i, &a, sizeof(a));
	}
	for (; i < len; i++)
		dst[i] = src[i] ^ stream[skip + i];
	tde_wipe(stream, used);
	return 0;
}

int
tde_ctr_crypt_from(TdeCtr *ctx, const uint8 *counter, size_t skip,
				   const void *in, void *out, size_t len)
{
	const uint8 *src = in;
	uint8	   *dst = out;
	Counter		next = load_counter(counter);
	uint8		block[BLOCK];
	int			n;

	Assert(skip < BLOCK);
	if (ctx->current == NULL)
		return tde_fail(gettext_noop("no key is set"));
	if (skip + len <= SHORT_PIECE)
		return crypt_short(ctx->current, next, skip, src, dst, len);

	if (skip > 0)
	{
		size_t		head = BLOCK - skip;

		if (crypt_short(ctx->current, next, skip, src, dst, head) < 0)
			return -1;
		increment(&next);
		src += head;
		dst += head;
		len -= head;
	}
	store_counter(next, block);
	if (len > INT_MAX ||
		EVP_EncryptInit_ex2(ctx->current->ctr, NULL, NULL, block, NULL) != 1 ||
		EVP_EncryptUpdate(ctx->current->ctr, dst, &n, src, (int) len) != 1)
		return tde_fail(gettext_noop("could not encrypt"));
	return 0;
}

int
tde_ctr_crypt(TdeCtr *ctx, const uint8 *counter,
			  const void *in, void *out, size_t len)
{
	return tde_ctr_crypt_from(ctx, counter, 0, in, out, len);
}
