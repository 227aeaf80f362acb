/*-------------------------------------------------------------------------
 *
 * check_pages.c
 *	  Encrypted pages: our vectors, what is refused, and the properties that
 *	  doc/page-format.md promises.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_pages.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "common/sha2.h"
#include "tde/page.h"

#include "checks.h"

#define LSN		UINT64CONST(0x123456789ABCDEF0)
#define BLOCK	42

static const char *const fork_names[] = {"main", "fsm", "vm", "init"};

/* Two pages, and what becomes of them. */
static PGAlignedBlock plain,
			plain2,
			page,
			page2;

static void
make_plain(PGAlignedBlock *p, uint64 lsn, uint32 seed)
{
	PageHeader	header = (PageHeader) p->data;

	PageXLogRecPtrSet(header->pd_lsn, lsn);
	header->pd_checksum = 0xABCD;
	header->pd_flags = PD_ALL_VISIBLE;
	header->pd_lower = 200;
	header->pd_upper = BLCKSZ - 200;
	header->pd_special = BLCKSZ;
	header->pd_pagesize_version = BLCKSZ | PG_PAGE_LAYOUT_VERSION;
	header->pd_prune_xid = 1234567;
	fill_pattern((uint8 *) p->data + TDE_PAGE_HEADER_LEN,
				 BLCKSZ - TDE_PAGE_HEADER_LEN, seed);
}

static TdePageCipher *
cipher_with_key(TdeCipher cipher, uint32 seed)
{
	TdePageCipher *ctx = tde_page_cipher_create();
	uint8		key[TDE_MAX_KEY_LEN];

	fill_pattern(key, sizeof(key), seed);
	if (ctx == NULL || tde_page_cipher_set_key(ctx, cipher, key) < 0)
		return NULL;
	return ctx;
}

static bool
check_vector(Vectors *v, TdePageCipher *ctx)
{
	TdeCipher	cipher = vectors_cipher(v);
	uint64		lsn = strtou64(vectors_get(v, "lsn"), NULL, 16);
	BlockNumber block = vectors_uint(v, "block");
	ForkNumber	fork = InvalidForkNumber;
	uint8		key[TDE_MAX_KEY_LEN];
	uint8		head[40];
	uint8		sha256[PG_SHA256_DIGEST_LENGTH];
	PageHeader	header = (PageHeader) page.data;

	for (int i = 0; i < lengthof(fork_names); i++)
	{
		if (strcmp(vectors_get(v, "fork"), fork_names[i]) == 0)
			fork = i;
	}
	make_plain(&plain, lsn, vectors_uint(v, "seed"));

	if (fork == InvalidForkNumber || cipher == TDE_CIPHER_INVALID ||
		vectors_bytes(v, "key", key, sizeof(key)) != tde_cipher_key_len(cipher) ||
		vectors_bytes(v, "head", head, sizeof(head)) != sizeof(head) ||
		vectors_bytes(v, "sha256", sha256, sizeof(sha256)) != sizeof(sha256) ||
		tde_page_cipher_set_key(ctx, cipher, key) < 0 ||
		tde_page_encrypt(ctx, plain.data, page.data, block, fork) < 0 ||
		memcmp(page.data + TDE_PAGE_HEADER_LEN, head, sizeof(head)) != 0 ||
		!sha256_is(page.data + TDE_PAGE_HEADER_LEN,
				   BLCKSZ - TDE_PAGE_HEADER_LEN, sha256))
		return false;

	/* the header is as it was, but for the mark */
	if (!tde_page_is_marked(page.data) || tde_page_is_marked(plain.data))
		return false;
	header->pd_pagesize_version = BLCKSZ | PG_PAGE_LAYOUT_VERSION;
	if (memcmp(page.data, plain.data, TDE_PAGE_HEADER_LEN) != 0)
		return false;
	header->pd_pagesize_version = BLCKSZ | TDE_PAGE_LAYOUT_VERSION;

	/* the same in place, and back */
	memcpy(page2.data, plain.data, BLCKSZ);
	return tde_page_encrypt(ctx, page2.data, page2.data, block, fork) == 0 &&
		memcmp(page.data, page2.data, BLCKSZ) == 0 &&
		tde_page_decrypt(ctx, page.data, block, fork) == 0 &&
		memcmp(page.data, plain.data, BLCKSZ) == 0;
}

static void
check_vectors(Checks *checks)
{
	TdePageCipher *ctx = tde_page_cipher_create();
	Vectors		v;
	int			tried = 0;

	vectors_open(&v, checks, "page.txt");
	while (vectors_next(&v))
	{
		/* the file has pages of every block size */
		if (vectors_uint(&v, "blcksz") != BLCKSZ)
			continue;
		tried++;
		check(checks, check_vector(&v, ctx), "page: vector %s, %s %s, lsn %s",
			  vectors_get(&v, "cipher"), vectors_get(&v, "fork"),
			  vectors_get(&v, "block"), vectors_get(&v, "lsn"));
	}
	check(checks, tried >= TDE_CIPHER_LAST, "page: vectors for this block size");
	vectors_close(&v);
	tde_page_cipher_free(ctx);
}

/* What must be refused, and what is left in the buffers then. */
static void
check_refusals(Checks *checks)
{
	TdePageCipher *ctx = tde_page_cipher_create();
	PageHeader	header = (PageHeader) plain.data;
	uint8		key[TDE_MAX_KEY_LEN];

	make_plain(&plain, LSN, 1);
	memset(page.data, 0x5a, BLCKSZ);
	check(checks, tde_page_encrypt(ctx, plain.data, page.data, BLOCK,
								   MAIN_FORKNUM) < 0 &&
		  tde_page_is_zero(page.data), "page: no key set");

	fill_pattern(key, sizeof(key), 1);
	check(checks, tde_page_cipher_set_key(ctx, TDE_CIPHER_INVALID, key) < 0 &&
		  tde_page_cipher_set_key(ctx, TDE_CIPHER_LAST + 1, key) < 0,
		  "page: unknown cipher");
	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		int			half = tde_cipher_key_len(i) / 2;

		fill_pattern(key, half, 1);
		fill_pattern(key + half, half, 2);
		tde_page_cipher_set_key(ctx, i, key);
		fill_pattern(key + half, half, 1);
		check(checks, tde_page_cipher_set_key(ctx, i, key) < 0 &&
			  tde_page_encrypt(ctx, plain.data, page.data, BLOCK,
							   MAIN_FORKNUM) < 0,
			  "page: equal key halves, and then no key, %s",
			  tde_cipher_name(i));
	}

	fill_pattern(key, sizeof(key), 1);
	tde_page_cipher_set_key(ctx, TDE_AES_128_XTS, key);
	memcpy(page.data, plain.data, BLCKSZ);
	check(checks, tde_page_decrypt(ctx, page.data, BLOCK, MAIN_FORKNUM) < 0 &&
		  memcmp(page.data, plain.data, BLCKSZ) == 0,
		  "page: decryption of an unmarked page, left alone");

	tde_page_encrypt(ctx, plain.data, page.data, BLOCK, MAIN_FORKNUM);
	memset(page2.data, 0x5a, BLCKSZ);
	check(checks, tde_page_encrypt(ctx, page.data, page2.data, BLOCK,
								   MAIN_FORKNUM) < 0 &&
		  tde_page_is_zero(page2.data), "page: double encryption");
	memcpy(page2.data, page.data, BLCKSZ);
	check(checks, tde_page_encrypt(ctx, page2.data, page2.data, BLOCK,
								   MAIN_FORKNUM) < 0 &&
		  memcmp(page.data, page2.data, BLCKSZ) == 0,
		  "page: double encryption in place, left alone");

	header->pd_pagesize_version = (BLCKSZ / 2) | PG_PAGE_LAYOUT_VERSION;
	check(checks, tde_page_encrypt(ctx, plain.data, page.data, BLOCK,
								   MAIN_FORKNUM) < 0 &&
		  tde_page_is_zero(page.data), "page: another page size");
	header->pd_pagesize_version = BLCKSZ | 3;
	check(checks, tde_page_encrypt(ctx, plain.data, page.data, BLOCK,
								   MAIN_FORKNUM) < 0, "page: version 3");
	header->pd_pagesize_version = (BLCKSZ / 2) | TDE_PAGE_LAYOUT_VERSION;
	memcpy(page.data, plain.data, BLCKSZ);
	check(checks, tde_page_decrypt(ctx, page.data, BLOCK, MAIN_FORKNUM) < 0 &&
		  memcmp(page.data, plain.data, BLCKSZ) == 0,
		  "page: marked, but of another page size");
	tde_page_cipher_free(ctx);
}

static void
check_zero(Checks *checks)
{
	bool		seen = true;

	memset(page.data, 0, BLCKSZ);
	check(checks, tde_page_is_zero(page.data), "page: all zero");
	for (int bit = 0; bit < BLCKSZ * 8; bit++)
	{
		page.data[bit / 8] ^= 1 << bit % 8;
		seen = seen && !tde_page_is_zero(page.data);
		page.data[bit / 8] ^= 1 << bit % 8;
	}
	check(checks, seen, "page: one bit is not zero");
}

/*
 * Each place has a keystream of its own: the same plaintext looks different,
 * in the mask and in every block, and a page does not decrypt elsewhere.
 */
static void
check_places(Checks *checks, TdeCipher cipher)
{
	static const struct
	{
		uint64		lsn;
		BlockNumber block;
		ForkNumber	fork;
	}			places[] = {
		{LSN, BLOCK, MAIN_FORKNUM},
		{LSN + 8, BLOCK, MAIN_FORKNUM},
		{LSN ^ UINT64CONST(1) << 63, BLOCK, MAIN_FORKNUM},
		{LSN, BLOCK + 1, MAIN_FORKNUM},
		{LSN, BLOCK ^ 1U << 31, MAIN_FORKNUM},
		{LSN, BLOCK, FSM_FORKNUM},
		{LSN, BLOCK, VISIBILITYMAP_FORKNUM},
	};
	static PGAlignedBlock pages[lengthof(places)];
	TdePageCipher *ctx = cipher_with_key(cipher, 1);
	TdePageCipher *other = cipher_with_key(cipher, 2);
	const char *name = tde_cipher_name(cipher);
	bool		differ = true;
	bool		elsewhere = true;

	for (int i = 0; i < lengthof(places); i++)
	{
		make_plain(&plain, places[i].lsn, 1);
		tde_page_encrypt(ctx, plain.data, pages[i].data, places[i].block,
						 places[i].fork);
		for (int j = 0; j < i; j++)
		{
			for (int at = 24; at < BLCKSZ; at += (at == 24 ? 8 : 16))
				differ = differ && memcmp(pages[i].data + at,
										  pages[j].data + at,
										  at == 24 ? 8 : 16) != 0;
		}
	}
	check(checks, differ, "page: differs from place to place, %s", name);

	for (int i = 1; i < lengthof(places); i++)
	{
		memcpy(page.data, pages[0].data, BLCKSZ);
		PageSetLSN(page.data, places[i].lsn);
		elsewhere = elsewhere &&
			tde_page_decrypt(ctx, page.data, places[i].block,
							 places[i].fork) == 0 &&
			memcmp(page.data + 24, plain.data + 24, 8) != 0 &&
			memcmp(page.data + 32, plain.data + 32, 16) != 0;
	}
	check(checks, elsewhere, "page: unreadable elsewhere, %s", name);

	memcpy(page.data, pages[0].data, BLCKSZ);
	check(checks, tde_page_decrypt(other, page.data, BLOCK, MAIN_FORKNUM) == 0 &&
		  memcmp(page.data + 24, plain.data + 24, 8) != 0 &&
		  memcmp(page.data + 32, plain.data + 32, 16) != 0,
		  "page: unreadable under another key, %s", name);

	make_plain(&plain, LSN, 1);
	memcpy(page.data, pages[0].data, BLCKSZ);
	check(checks, tde_page_decrypt(ctx, page.data, BLOCK, INIT_FORKNUM) == 0 &&
		  memcmp(page.data, plain.data, BLCKSZ) == 0,
		  "page: INIT reads what MAIN wrote, %s", name);
	tde_page_cipher_free(ctx);
	tde_page_cipher_free(other);
}

/*
 * Torn write.  Two versions of a page with the same LSN (a hint bit was set,
 * and more), cut at each sector.  XTS: what is read back is the plain
 * versions cut at the same place.  CBC: all but the 16 bytes after the cut.
 */
static void
check_torn(Checks *checks, TdeCipher cipher)
{
	TdePageCipher *ctx = cipher_with_key(cipher, 1);
	bool		exact = true;
	bool		one_block = true;

	make_plain(&plain, LSN, 1);
	for (int round = 0; round < 2; round++)
	{
		if (round == 0)
		{
			/* one bit early, as a hint bit is */
			memcpy(plain2.data, plain.data, BLCKSZ);
			plain2.data[100] ^= 1;
		}
		else
			make_plain(&plain2, LSN, 2);
		for (int cut = 512; cut < BLCKSZ; cut += 512)
		{
			tde_page_encrypt(ctx, plain.data, page.data, BLOCK, MAIN_FORKNUM);
			tde_page_encrypt(ctx, plain2.data, page2.data, BLOCK, MAIN_FORKNUM);
			memcpy(page2.data, page.data, cut);
			exact = tde_page_decrypt(ctx, page2.data, BLOCK, MAIN_FORKNUM) == 0 &&
				memcmp(page2.data, plain.data, cut) == 0 &&
				memcmp(page2.data + cut, plain2.data + cut, BLCKSZ - cut) == 0 &&
				exact;
			one_block = one_block &&
				memcmp(page2.data, plain.data, cut) == 0 &&
				memcmp(page2.data + cut, plain2.data + cut, 16) != 0 &&
				memcmp(page2.data + cut + 16, plain2.data + cut + 16,
					   BLCKSZ - cut - 16) == 0;
		}
	}
	if (TdeCipherIsCBC(cipher))
		check(checks, one_block,
			  "page: torn at each sector, 16 bytes lost, %s",
			  tde_cipher_name(cipher));
	else
		check(checks, exact, "page: torn at each sector, nothing lost, %s",
			  tde_cipher_name(cipher));
	tde_page_cipher_free(ctx);
}

/* How far does damage to one bit of ciphertext go? */
static void
check_damage(Checks *checks, TdeCipher cipher)
{
	TdePageCipher *ctx = cipher_with_key(cipher, 1);
	bool		contained = true;

	make_plain(&plain, LSN, 1);
	for (int at = TDE_PAGE_BODY_OFFSET; at < BLCKSZ; at += 8)
	{
		int			block = at & ~15;
		int			rest = block + (TdeCipherIsCBC(cipher) ? 32 : 16);

		tde_page_encrypt(ctx, plain.data, page.data, BLOCK, MAIN_FORKNUM);
		page.data[at] ^= 0x10;
		contained = contained &&
			tde_page_decrypt(ctx, page.data, BLOCK, MAIN_FORKNUM) == 0 &&
			memcmp(page.data, plain.data, block) == 0 &&
			memcmp(page.data + block, plain.data + block, 16) != 0 &&
			(rest >= BLCKSZ ||
			 memcmp(page.data + rest, plain.data + rest, BLCKSZ - rest) == 0);
	}
	check(checks, contained, "page: damage stays where it is, %s",
		  tde_cipher_name(cipher));
	tde_page_cipher_free(ctx);
}

/*
 * One context serves all ciphers and keys in turn, in either direction: it
 * must do what a fresh one does, and allocate nothing.
 */
static void
check_reuse(Checks *checks)
{
	TdePageCipher *ctx = tde_page_cipher_create();
	TdePageCipher *fresh[TDE_CIPHER_LAST + 1][3];
	uint8		random[3000];
	uint8		key[TDE_MAX_KEY_LEN];
	bool		same = true;
	int			allocated = 0;

	for (int c = TDE_AES_128_XTS; c <= TDE_CIPHER_LAST; c++)
	{
		for (int k = 0; k < 3; k++)
			fresh[c][k] = cipher_with_key(c, k);
	}
	fill_pattern(random, sizeof(random), 1);
	for (int i = 0; i < sizeof(random); i += 3)
	{
		TdeCipher	c = TDE_AES_128_XTS + random[i] % TDE_CIPHER_LAST;
		int			k = random[i + 1] % 3;
		int			before = checks->allocations ? *checks->allocations : 0;

		make_plain(&plain, LSN + i, i);
		fill_pattern(key, sizeof(key), k);
		same = same && tde_page_cipher_set_key(ctx, c, key) == 0;
		if (random[i + 2] & 1)
			same = same &&
				tde_page_encrypt(ctx, plain.data, page.data, i,
								 MAIN_FORKNUM) == 0 &&
				tde_page_decrypt(fresh[c][k], page.data, i, MAIN_FORKNUM) == 0;
		if (random[i + 2] & 2)
			same = same &&
				tde_page_encrypt(fresh[c][k], plain.data, page.data, i,
								 MAIN_FORKNUM) == 0 &&
				tde_page_decrypt(ctx, page.data, i, MAIN_FORKNUM) == 0;
		if (random[i + 2] & 3)
			same = same && memcmp(page.data, plain.data, BLCKSZ) == 0;
		if (checks->allocations)
			allocated += *checks->allocations - before;
	}
	check(checks, same, "page: one context for all ciphers and keys");
	if (checks->allocations)
		check(checks, allocated == 0, "page: keys and pages allocate nothing");
	for (int c = TDE_AES_128_XTS; c <= TDE_CIPHER_LAST; c++)
	{
		for (int k = 0; k < 3; k++)
			tde_page_cipher_free(fresh[c][k]);
	}
	tde_page_cipher_free(ctx);
	tde_page_cipher_free(NULL);
}

void
check_pages(Checks *checks)
{
	check_vectors(checks);
	check_refusals(checks);
	check_zero(checks);
	for (int i = TDE_AES_128_XTS; i <= TDE_CIPHER_LAST; i++)
	{
		check_places(checks, i);
		check_torn(checks, i);
		check_damage(checks, i);
	}
	check_reuse(checks);
}
