/*-------------------------------------------------------------------------
 *
 * page.c
 *	  Encryption of one relation page; specified in doc/page-format.md.
 *
 * This is the hot path: a page costs little more than OpenSSL's own work on
 * 8 kB, because a TdePageCipher keeps a context ready for each algorithm and
 * direction, and a page only gives it a new IV.  Nothing here allocates but
 * tde_page_cipher_create().
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/page.c
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
#include "tde/codec.h"
#include "tde/page.h"

#define BLOCK			16		/* of AES */
#define MASK_LEN		(TDE_PAGE_BODY_OFFSET - TDE_PAGE_HEADER_LEN)

/* Last meaningful byte of the tweak: what it is for. */
#define DOMAIN_BODY		0
#define DOMAIN_MASK		1

StaticAssertDecl(SizeOfPageHeaderData == TDE_PAGE_HEADER_LEN,
				 "the clear part of a page is its header");
StaticAssertDecl(TDE_PAGE_BODY_LEN % BLOCK == 0,
				 "the encrypted part of a page is whole AES blocks");
StaticAssertDecl(PG_PAGE_LAYOUT_VERSION != TDE_PAGE_LAYOUT_VERSION,
				 "encrypted pages need a layout version of their own");

/* Contexts for one cipher. */
typedef struct PageContexts
{
	EVP_CIPHER_CTX *body[2];	/* [0] decrypts, [1] encrypts */
	EVP_CIPHER_CTX *ecb;		/* under k2, for mask and CBC's IV */
	bool		keyed[2];		/* has body[i] the key? */
} PageContexts;

struct TdePageCipher
{
	TdeCipher	cipher;			/* TDE_CIPHER_INVALID: no key set, and no
								 * context has one */
	uint8		key[TDE_MAX_KEY_LEN];
	PageContexts contexts[TDE_CIPHER_LAST + 1];
};

typedef struct PageAlgorithms
{
	TdeEvp		body;
	TdeEvp		ecb;
} PageAlgorithms;

static const PageAlgorithms algorithms[] = {
	[TDE_AES_128_XTS] = {TDE_EVP_AES_128_XTS, TDE_EVP_AES_128_ECB},
	[TDE_AES_256_XTS] = {TDE_EVP_AES_256_XTS, TDE_EVP_AES_256_ECB},
	[TDE_AES_128_CBC] = {TDE_EVP_AES_128_CBC, TDE_EVP_AES_128_ECB},
	[TDE_AES_256_CBC] = {TDE_EVP_AES_256_CBC, TDE_EVP_AES_256_ECB},
};

TdePageCipher *
tde_page_cipher_create(void)
{
	TdePageCipher *ctx;

	tde_secure_heap_begin();
	ctx = OPENSSL_zalloc(sizeof(TdePageCipher));
	tde_secure_heap_end();
	if (ctx == NULL)
	{
		tde_fail(gettext_noop("out of memory"));
		return NULL;
	}
	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		PageContexts *c = &ctx->contexts[i];

		c->body[0] = tde_evp_context(algorithms[i].body, false);
		c->body[1] = tde_evp_context(algorithms[i].body, true);
		c->ecb = tde_evp_context(algorithms[i].ecb, true);
		if (c->body[0] == NULL || c->body[1] == NULL || c->ecb == NULL)
		{
			tde_page_cipher_free(ctx);
			return NULL;
		}
		/* decryption would otherwise hold the last block back */
		if (TdeCipherIsCBC(i))
			EVP_CIPHER_CTX_set_padding(c->body[0], 0);
	}
	return ctx;
}

void
tde_page_cipher_free(TdePageCipher *ctx)
{
	if (ctx == NULL)
		return;
	for (int i = 0; i < lengthof(ctx->contexts); i++)
	{
		EVP_CIPHER_CTX_free(ctx->contexts[i].body[0]);
		EVP_CIPHER_CTX_free(ctx->contexts[i].body[1]);
		EVP_CIPHER_CTX_free(ctx->contexts[i].ecb);
	}
	OPENSSL_clear_free(ctx, sizeof(TdePageCipher));
}

void
tde_page_cipher_forget_key(TdePageCipher *ctx)
{
	PageContexts *c = &ctx->contexts[ctx->cipher];

	if (ctx->cipher == TDE_CIPHER_INVALID)
		return;
	tde_evp_forget_key(c->ecb);
	for (int i = 0; i < lengthof(c->body); i++)
	{
		if (c->keyed[i])
			tde_evp_forget_key(c->body[i]);
		c->keyed[i] = false;
	}
	tde_wipe(ctx->key, sizeof(ctx->key));
	ctx->cipher = TDE_CIPHER_INVALID;
}

int
tde_page_cipher_set_key(TdePageCipher *ctx, TdeCipher cipher, const uint8 *key)
{
	int			len = tde_cipher_key_len(cipher);
	PageContexts *c;
	bool		ok;

	if (cipher != ctx->cipher)
		tde_page_cipher_forget_key(ctx);
	if (len == 0)
		return tde_fail(gettext_noop("cipher is unknown"));
	if (CRYPTO_memcmp(key, key + len / 2, len / 2) == 0)
	{
		tde_page_cipher_forget_key(ctx);
		return tde_fail(gettext_noop("halves of the key are equal"));
	}

	/*
	 * It takes the place of the last one wherever that is.  A direction that
	 * has none gets it with its first page: often only one is used.
	 */
	tde_copy_key(ctx->key, key, len);
	ctx->cipher = cipher;
	c = &ctx->contexts[cipher];
	ok = EVP_EncryptInit_ex2(c->ecb, NULL, key + len / 2, NULL, NULL) == 1;
	for (int i = 0; i < lengthof(c->body); i++)
	{
		if (c->keyed[i])
			ok = ok &&
				EVP_CipherInit_ex2(c->body[i], NULL, key, NULL, -1, NULL) == 1;
	}
	if (!ok)
	{
		tde_page_cipher_forget_key(ctx);
		return tde_fail(gettext_noop("could not set a cipher's key"));
	}
	return 0;
}

/*
 * The tweak of a page.  INIT and MAIN share a value, because the init fork of
 * an unlogged relation is copied over its main fork as it is.
 */
static inline void
make_tweak(uint8 *tweak, const PageHeaderData *header, BlockNumber blkno,
		   ForkNumber forknum, int domain)
{
	TdeWriter	w = {tweak};

	tde_put_uint(&w, PageXLogRecPtrGet(header->pd_lsn), 8);
	tde_put_uint(&w, blkno, 4);
	tde_put_uint(&w, forknum == INIT_FORKNUM ? MAIN_FORKNUM : forknum, 1);
	tde_put_uint(&w, domain, 1);
	tde_put_reserved(&w, 2);
}

/*
 * Encrypt or decrypt what follows the header, from src to dst.  Each byte of
 * src is read once, from front to back.
 */
static int
crypt_page(TdePageCipher *ctx, const PageHeaderData *header,
		   const uint8 *src, uint8 *dst, BlockNumber blkno,
		   ForkNumber forknum, bool encrypt)
{
	PageContexts *c = &ctx->contexts[ctx->cipher];
	EVP_CIPHER_CTX *body = c->body[encrypt];
	uint8		tweak[2][BLOCK];
	uint8		image[2][BLOCK];	/* AES under k2 of the tweaks */
	const uint8 *iv;
	uint64		masked;
	uint64		mask;
	int			n;

	if (ctx->cipher == TDE_CIPHER_INVALID)
		return tde_fail(gettext_noop("no key is set"));

	/* one call for both: it is the call that costs */
	make_tweak(tweak[DOMAIN_BODY], header, blkno, forknum, DOMAIN_BODY);
	make_tweak(tweak[DOMAIN_MASK], header, blkno, forknum, DOMAIN_MASK);
	if (EVP_EncryptUpdate(c->ecb, image[0], &n,
						  tweak[0], sizeof(tweak)) != 1)
		return tde_fail(gettext_noop("could not encrypt a page's tweak"));

	StaticAssertStmt(sizeof(mask) == MASK_LEN, "one word is masked");
	memcpy(&mask, image[DOMAIN_MASK], MASK_LEN);
	memcpy(&masked, src + TDE_PAGE_HEADER_LEN, MASK_LEN);
	masked ^= mask;
	memcpy(dst + TDE_PAGE_HEADER_LEN, &masked, MASK_LEN);

	/* XTS encrypts its tweak under k2 itself */
	iv = TdeCipherIsCBC(ctx->cipher) ? image[DOMAIN_BODY] : tweak[DOMAIN_BODY];
	if (EVP_CipherInit_ex2(body, NULL, c->keyed[encrypt] ? NULL : ctx->key,
						   iv, -1, NULL) != 1)
		return tde_fail(gettext_noop("could not set a cipher's key"));
	c->keyed[encrypt] = true;
	if (EVP_CipherUpdate(body, dst + TDE_PAGE_BODY_OFFSET, &n,
						 src + TDE_PAGE_BODY_OFFSET, TDE_PAGE_BODY_LEN) != 1 ||
		n != TDE_PAGE_BODY_LEN)
		return tde_fail(gettext_noop("could not encrypt or decrypt a page"));
	return 0;
}

int
tde_page_encrypt(TdePageCipher *ctx, const void *src, void *dst,
				 BlockNumber blkno, ForkNumber forknum)
{
	PageHeaderData header;

	/* the copy decides, should someone change src meanwhile */
	memcpy(&header, src, SizeOfPageHeaderData);
	if (header.pd_pagesize_version != (BLCKSZ | PG_PAGE_LAYOUT_VERSION))
	{
		if (dst != src)
			memset(dst, 0, BLCKSZ);
		return tde_fail(gettext_noop("page to be encrypted has an unexpected size or layout version"));
	}
	header.pd_pagesize_version = BLCKSZ | TDE_PAGE_LAYOUT_VERSION;
	memcpy(dst, &header, SizeOfPageHeaderData);
	if (crypt_page(ctx, &header, src, dst, blkno, forknum, true) < 0)
	{
		memset(dst, 0, BLCKSZ);
		return -1;
	}
	return 0;
}

int
tde_page_decrypt(TdePageCipher *ctx, void *page,
				 BlockNumber blkno, ForkNumber forknum)
{
	PageHeaderData header;

	memcpy(&header, page, SizeOfPageHeaderData);
	if (header.pd_pagesize_version != (BLCKSZ | TDE_PAGE_LAYOUT_VERSION))
		return tde_fail(gettext_noop("page to be decrypted is not encrypted"));
	header.pd_pagesize_version = BLCKSZ | PG_PAGE_LAYOUT_VERSION;
	memcpy(page, &header, SizeOfPageHeaderData);
	if (crypt_page(ctx, &header, page, page, blkno, forknum, false) < 0)
	{
		memset(page, 0, BLCKSZ);
		return -1;
	}
	return 0;
}

bool
tde_page_is_zero(const void *page)
{
	const char *p = page;

	if (!PageIsNew(page))
		return false;
	for (int i = 0; i < BLCKSZ; i += sizeof(uint64))
	{
		uint64		word;

		memcpy(&word, p + i, sizeof(word));
		if (word != 0)
			return false;
	}
	return true;
}
