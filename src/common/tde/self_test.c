/*-------------------------------------------------------------------------
 *
 * self_test.c
 *	  Known-answer test of the crypto core, run before the first key is used.
 *
 * It is there for a library that computes something else than it should (a
 * miscompiled or replaced one, a provider without an algorithm): better no
 * start than pages that nobody can read again.  So it is short; the full set
 * of vectors is in src/test/tde/vectors.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/self_test.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/cipher.h"
#include "tde/key_record.h"
#include "tde/page.h"

/* SP 800-38A, F.5.1: CTR-AES128.Encrypt, blocks 1 and 2 */
static bool
test_ctr(void)
{
	static const uint8 key[] = {
		0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6,
		0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c,
	};
	static const uint8 plain[] = {
		0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96,
		0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a,
		0xae, 0x2d, 0x8a, 0x57, 0x1e, 0x03, 0xac, 0x9c,
		0x9e, 0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51,
	};
	static const uint8 expected[] = {
		0x87, 0x4d, 0x61, 0x91, 0xb6, 0x20, 0xe3, 0x26,
		0x1b, 0xef, 0x68, 0x64, 0x99, 0x0d, 0xb6, 0xce,
		0x98, 0x06, 0xf6, 0x6b, 0x79, 0x70, 0xfd, 0xff,
		0x86, 0x17, 0x18, 0x7b, 0xb9, 0xff, 0xfd, 0xff,
	};
	uint8		counter[16];
	uint8		out[sizeof(plain)];
	TdeCtr	   *ctx = tde_ctr_create();
	bool		ok;

	for (int i = 0; i < 16; i++)
		counter[i] = 0xf0 + i;
	ok = ctx != NULL &&
		tde_ctr_set_key(ctx, key, sizeof(key)) == 0 &&
		tde_ctr_crypt(ctx, counter, plain, out, sizeof(plain)) == 0 &&
		memcmp(out, expected, sizeof(plain)) == 0;
	tde_ctr_free(ctx);
	return ok;
}

/* RFC 5869, A.1, its first 32 bytes */
static bool
test_hkdf(void)
{
	static const uint8 expected[] = {
		0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a,
		0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36, 0x2f, 0x2a,
		0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c,
		0x5d, 0xb0, 0x2d, 0x56, 0xec, 0xc4, 0xc5, 0xbf,
	};
	uint8		key[22];
	uint8		salt[13];
	char		info[11] = {0};
	uint8		out[sizeof(expected)];

	memset(key, 0x0b, sizeof(key));
	for (int i = 0; i < sizeof(salt); i++)
		salt[i] = i;
	for (int i = 0; i < sizeof(info) - 1; i++)
		info[i] = (char) (0xf0 + i);
	return tde_hkdf(key, sizeof(key), salt, sizeof(salt), info,
					out, sizeof(out)) == 0 &&
		memcmp(out, expected, sizeof(out)) == 0;
}

/* McGrew and Viega, "The Galois/Counter Mode", test case 14 */
static bool
test_gcm(void)
{
	static const uint8 cipher[] = {
		0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e,
		0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18,
	};
	static const uint8 tag[] = {
		0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0,
		0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19,
	};
	static const uint8 zeros[TDE_WRAP_KEY_LEN];
	uint8		out[sizeof(cipher)];
	uint8		bad_tag[sizeof(tag)];

	if (tde_unwrap(zeros, zeros, NULL, 0, cipher, sizeof(cipher),
				   out, tag) < 0 ||
		memcmp(out, zeros, sizeof(out)) != 0)
		return false;
	memcpy(bad_tag, tag, sizeof(tag));
	bad_tag[0] ^= 1;
	return tde_unwrap(zeros, zeros, NULL, 0, cipher, sizeof(cipher),
					  out, bad_tag) < 0;
}

typedef struct PageVector
{
	TdeCipher	cipher;
	uint8		expected[24];
} PageVector;

static const PageVector pages[] = {
	{TDE_AES_128_XTS, {
			0x9a, 0xb7, 0xbc, 0xc0, 0xc6, 0x94, 0xa1, 0x3c,
			0xed, 0x02, 0x43, 0x18, 0x31, 0x5a, 0x5b, 0x40,
			0xce, 0x9a, 0xe0, 0x7f, 0xa0, 0x3f, 0xe5, 0xbe,
	}},
	{TDE_AES_256_XTS, {
			0x19, 0x24, 0x4f, 0x4c, 0x4f, 0x92, 0xd1, 0x79,
			0x8c, 0x29, 0xe3, 0x4c, 0x5c, 0x7d, 0x6a, 0x36,
			0x16, 0xfe, 0xf2, 0x26, 0x32, 0x41, 0xd5, 0xdc,
	}},
	{TDE_AES_128_CBC, {
			0x9a, 0xb7, 0xbc, 0xc0, 0xc6, 0x94, 0xa1, 0x3c,
			0x84, 0x0d, 0x89, 0xee, 0xb4, 0xb7, 0x0b, 0x05,
			0xd5, 0x07, 0xb9, 0xd0, 0x35, 0xac, 0x33, 0xfd,
	}},
	{TDE_AES_256_CBC, {
			0x19, 0x24, 0x4f, 0x4c, 0x4f, 0x92, 0xd1, 0x79,
			0xb4, 0x96, 0xe4, 0xc4, 0xdc, 0x4c, 0x90, 0xaf,
			0x24, 0x91, 0xa1, 0x0c, 0x38, 0x63, 0x80, 0xb1,
	}},
};

/*
 * A page under each cipher, and back.  The key is 0, 1, 2, ...; the expected
 * bytes follow the header and are those of the first page of each cipher in
 * vectors/page.txt, the same for every block size.
 */
static bool
test_page(const PageVector *vector)
{
	PGAlignedBlock plain;
	PGAlignedBlock page;
	PageHeader	header = (PageHeader) plain.data;
	uint8		key[TDE_MAX_KEY_LEN];
	uint32		x = 1;
	TdePageCipher *ctx = tde_page_cipher_create();
	bool		ok;

	for (int i = 0; i < TDE_MAX_KEY_LEN; i++)
		key[i] = i;
	memset(header, 0, TDE_PAGE_HEADER_LEN);
	PageXLogRecPtrSet(header->pd_lsn, UINT64CONST(0x123456789ABCDEF0));
	header->pd_pagesize_version = BLCKSZ | PG_PAGE_LAYOUT_VERSION;
	for (int i = TDE_PAGE_HEADER_LEN; i < BLCKSZ; i++)
	{
		x = x * 1664525 + 1013904223;
		plain.data[i] = (char) (x >> 24);
	}

	ok = ctx != NULL &&
		tde_page_cipher_set_key(ctx, vector->cipher, key) == 0 &&
		tde_page_encrypt(ctx, plain.data, page.data, 42, MAIN_FORKNUM) == 0 &&
		memcmp(page.data + TDE_PAGE_HEADER_LEN, vector->expected,
			   sizeof(vector->expected)) == 0 &&
		tde_page_decrypt(ctx, page.data, 42, MAIN_FORKNUM) == 0 &&
		memcmp(page.data, plain.data, BLCKSZ) == 0;
	tde_page_cipher_free(ctx);
	return ok;
}

/* A key record comes back, but not under another key or from another bit. */
static bool
test_key_record(void)
{
	TdeKey		key;
	TdeKey		back;
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	uint8		buf[TDE_KEY_RECORD_LEN];
	const char *reason;

	memset(&key, 0, sizeof(key));
	key.locator.spcOid = 1663;
	key.locator.dbOid = 5;
	key.locator.relNumber = 16384;
	key.state = TDE_KEY_ACTIVE;
	key.cipher = TDE_AES_256_XTS;
	key.created = 1;
	if (tde_random(key.id.b, TDE_ID_LEN) < 0 ||
		tde_random(key.generation.b, TDE_ID_LEN) < 0 ||
		tde_random(scope_key, sizeof(scope_key)) < 0 ||
		tde_generate_key(key.cipher, key.key) < 0 ||
		tde_key_record_encode(&key, scope_key, buf) < 0 ||
		tde_key_record_unwrap(buf, sizeof(buf), scope_key,
							  &back, &reason) < 0 ||
		memcmp(&key, &back, sizeof(key)) != 0)
		return false;

	scope_key[0] ^= 1;
	if (tde_key_record_unwrap(buf, sizeof(buf), scope_key,
							  &back, &reason) == 0)
		return false;
	scope_key[0] ^= 1;
	buf[sizeof(buf) / 2] ^= 1;
	return tde_key_record_unwrap(buf, sizeof(buf), scope_key,
								 &back, &reason) < 0;
}

const char *
tde_cipher_self_test(void)
{
	if (!test_ctr())
		return "AES-CTR";
	if (!test_hkdf())
		return "HKDF-SHA-256";
	if (!test_gcm())
		return "AES-256-GCM";
	for (int i = 0; i < lengthof(pages); i++)
	{
		if (!test_page(&pages[i]))
			return tde_cipher_name(pages[i].cipher);
	}
	if (!test_key_record())
		return "key record";
	return NULL;
}
