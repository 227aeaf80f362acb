/*-------------------------------------------------------------------------
 *
 * check_wal.c
 *	  Encryption of WAL: our vectors, pieces of a page, what was never
 *	  written, archives in clear; epochs: vectors, damage, forgery.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_wal.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "common/sha2.h"
#include "tde/wal_archive.h"
#include "tde/wal_epoch.h"

#include "checks.h"

/* vectors are of pages of this size, whatever XLOG_BLCKSZ is */
#define PAGE			8192

/* Clear the parts of a page that the vector names. */
static void
put_zeros(Vectors *v, uint8 *page)
{
	const char *zeros;

	for (int n = 0; (zeros = vectors_nth(v, "zeros", n)) != NULL; n++)
	{
		char	   *end;
		size_t		offset = strtoul(zeros, &end, 10);

		memset(page + offset, 0, strtoul(end, NULL, 10));
	}
}

/*
 * Put into a page what is not encrypted: the holes and the marker.
 */
static void
put_in_clear(Vectors *v, uint64 pageaddr, uint8 *page)
{
	put_zeros(v, page);
	if (vectors_nth(v, "marker", 0) != NULL)
	{
		size_t		offset = vectors_uint(v, "marker");

		tde_wal_make_marker(pageaddr + offset, page + offset);
	}
}

static bool
check_page_vector(Vectors *v, TdeCtr *ctx)
{
	uint8		page[PAGE];
	uint8		key[TDE_WAL_KEY_LEN];
	uint8		head[40];
	uint8		sha256[PG_SHA256_DIGEST_LENGTH];
	uint8		read[PG_SHA256_DIGEST_LENGTH];
	uint64		pageaddr = strtou64(vectors_get(v, "pageaddr"), NULL, 16);
	size_t		from = vectors_uint(v, "from");
	size_t		to = vectors_uint(v, "to");

	if (vectors_bytes(v, "key", key, sizeof(key)) != sizeof(key) ||
		vectors_bytes(v, "head", head, sizeof(head)) != sizeof(head) ||
		vectors_bytes(v, "sha256", sha256, sizeof(sha256)) != sizeof(sha256) ||
		vectors_bytes(v, "read", read, sizeof(read)) != sizeof(read) ||
		to > sizeof(page) || tde_ctr_set_key(ctx, key, sizeof(key)) < 0)
		return false;

	fill_pattern(page, to, vectors_uint(v, "seed"));
	if (tde_wal_crypt(ctx, pageaddr + from, page + from, page + from,
					  to - from) < 0)
		return false;
	put_in_clear(v, pageaddr, page);
	return memcmp(page + from, head, sizeof(head)) == 0 &&
		sha256_is(page + from, to - from, sha256) &&
		tde_wal_page_decrypt(ctx, pageaddr, page, from, to) == 0 &&
		sha256_is(page + from, to - from, read);
}

static bool
check_archive_vector(Vectors *v, TdeCtr *ctx)
{
	union
	{
		uint8		b[PAGE];
		uint64		align;
	}			page;
	uint8		key[TDE_WAL_KEY_LEN];
	uint8		archived[PG_SHA256_DIGEST_LENGTH];
	uint8		restored[PG_SHA256_DIGEST_LENGTH];
	const char *at;

	if (vectors_bytes(v, "key", key, sizeof(key)) != sizeof(key) ||
		vectors_bytes(v, "archived", archived, sizeof(archived)) == 0 ||
		vectors_bytes(v, "restored", restored, sizeof(restored)) == 0 ||
		tde_ctr_set_key(ctx, key, sizeof(key)) < 0)
		return false;

	fill_pattern(page.b, PAGE, vectors_uint(v, "seed"));
	if (vectors_bytes(v, "header", page.b, 40) < 24)
		return false;
	put_zeros(v, page.b);
	for (int n = 0; (at = vectors_nth(v, "at", n)) != NULL; n++)
		vectors_nth_bytes(v, "word", n, page.b + atoi(at), TDE_WAL_WORD);

	return sha256_is(page.b, PAGE, archived) &&
		tde_wal_page_restore(ctx, page.b, PAGE) == 0 &&
		sha256_is(page.b, PAGE, restored) &&
		tde_wal_page_archive(ctx, page.b, PAGE) == 0 &&
		sha256_is(page.b, PAGE, archived);
}

/* Put a number there. */
static void
put_uint32(uint8 *at, uint32 value)
{
	memcpy(at, &value, sizeof(value));
}

/*
 * Make a page of valid WAL, in clear: records of many lengths, much of them
 * zeros, the first maybe from the page before, the last maybe going on; random
 * has something for each word.  Returns where it ends.
 */
static size_t
make_page(uint32 shape, const uint8 *random, uint8 *page)
{
	size_t		from = shape & 1 ? 40 : 24;
	uint64		pageaddr = (uint64) shape * 0x10004000;
	size_t		records = random[0] % 40;
	uint32		rest = shape % 3 == 0 ? random[1] * random[2] % 9000 : 0;
	size_t		at = from;

	fill_pattern(page, PAGE, shape);
	for (size_t i = from; i < PAGE; i += TDE_WAL_WORD)
	{
		if (random[i / TDE_WAL_WORD] < random[3])
			memset(page + i, 0, TDE_WAL_WORD);
	}
	memset(page, 0, 24);
	put_uint32(page, 0xD118 | (uint32) ((shape & 1 ? 2 : 0) | (rest ? 1 : 0)) << 16);
	memcpy(page + 8, &pageaddr, sizeof(pageaddr));
	put_uint32(page + 16, rest);
	tde_wal_page_set_key_id(page, shape + 1);

	at += (rest + 7) / 8 * 8;
	while (records-- > 0 && at < PAGE)
	{
		uint32		len = 24 + random[at / 8] * (records + 1) % 3000;

		put_uint32(page + at, len);
		at += (len + 7) / 8 * 8;
	}
	at = Min(at, PAGE);
	memset(page + at, 0, PAGE - at);
	return at;
}

/*
 * Pages of valid WAL, with and without a marker behind it, become in the archive
 * what a reader makes of them, and then what they were.  So do pages with
 * damage, but for what was not written, which reads the same.
 */
#define SHAPES			3000

static void
check_archives(Checks *checks, TdeCtr *ctx)
{
	bool		same = true;
	bool		reads = true;
	bool		damaged = true;
	int			tails = 0;

	for (uint32 shape = 0; shape < SHAPES; shape++)
	{
		union
		{
			uint8		b[PAGE];
			uint64		align;
		}			page;
		uint8		random[PAGE / TDE_WAL_WORD];
		uint8		disk[PAGE];
		uint8		read[PAGE];
		size_t		end;
		size_t		from = shape & 1 ? 40 : 24;
		uint64		pageaddr;

		fill_pattern(random, sizeof(random), shape * 7919);
		end = make_page(shape, random, page.b);
		memcpy(&pageaddr, page.b + 8, sizeof(pageaddr));
		memcpy(disk, page.b, PAGE);
		tails += end < PAGE;
		same = same && tde_wal_crypt(ctx, pageaddr + from, disk + from,
									 disk + from, end - from) == 0;
		if ((shape & 2) && end < PAGE)
		{
			tde_wal_make_marker(pageaddr + end, disk + end);
			tde_wal_make_marker(pageaddr + end, page.b + end);
		}
		memcpy(read, page.b, PAGE);

		memcpy(page.b, disk, PAGE);
		same = same && tde_wal_page_archive(ctx, page.b, PAGE) == 0 &&
			tde_wal_page_key_id(page.b) == (TDE_WAL_DECRYPTED | (shape + 1));
		tde_wal_page_set_key_id(page.b, shape + 1);
		reads = reads && memcmp(page.b, read, PAGE) == 0;
		tde_wal_page_set_key_id(page.b, TDE_WAL_DECRYPTED | (shape + 1));
		same = same && tde_wal_page_restore(ctx, page.b, PAGE) == 0 &&
			memcmp(page.b, disk, PAGE) == 0;

		/* holes in what was written, and something behind it */
		for (size_t i = from; i + 16 <= end; i += 8 * random[i / 8] + 8)
			memset(disk + i, 0, 16);
		if ((shape & 6) == 4 && end + 64 < PAGE)
			fill_pattern(disk + end + 40, 16, shape);
		memcpy(page.b, disk, PAGE);
		damaged = damaged &&
			tde_wal_page_decrypt(ctx, pageaddr, disk, from, PAGE) == 0 &&
			tde_wal_page_archive(ctx, page.b, PAGE) == 0 &&
			memcmp(page.b + 24, disk + 24, PAGE - 24) == 0 &&
			tde_wal_page_restore(ctx, page.b, PAGE) == 0 &&
			tde_wal_page_decrypt(ctx, pageaddr, page.b, from, PAGE) == 0 &&
			memcmp(page.b, disk, PAGE) == 0;
	}
	check(checks, tails > SHAPES / 10 && tails < SHAPES * 9 / 10,
		  "WAL: full pages and others");
	check(checks, reads, "WAL: a page of an archive in clear is what is read");
	check(checks, same, "WAL: encrypted again it is the same");
	check(checks, damaged, "WAL: a page with damage reads the same");
}

/*
 * A page that is encrypted in pieces, whatever their lengths, is the page
 * that is encrypted at once; in place or not.
 */
static void
check_pieces(Checks *checks, TdeCtr *ctx)
{
	static const size_t sizes[] = {1, 7, 8, 15, 16, 17, 24, 200, 1000, 1008,
	1009, 1015, 1023, 1024, 1025, 2000, 5000};
	uint8		plain[PAGE];
	uint8		whole[PAGE];
	uint8		pieces[PAGE];
	uint64		lsn = 0x123456789ABC0018;
	bool		same = true;

	fill_pattern(plain, sizeof(plain), 5);
	if (!check(checks, tde_ctr_set_key(ctx, plain, TDE_WAL_KEY_LEN) == 0 &&
			   tde_wal_crypt(ctx, lsn, plain, whole, sizeof(whole)) == 0,
			   "WAL: a page is encrypted"))
		return;
	for (int i = 0; i < lengthof(sizes); i++)
	{
		/* pieces of this size, after one that shifts them by 0 to 16 bytes */
		for (size_t first = 0; first <= 16; first++)
		{
			size_t		len = first;

			memcpy(pieces, plain, sizeof(pieces));
			for (size_t at = 0; at < sizeof(pieces); at += len, len = sizes[i])
			{
				len = Min(len, sizeof(pieces) - at);
				if (tde_wal_crypt(ctx, lsn + at,
								  (first & 1 ? pieces : plain) + at,
								  pieces + at, len) < 0)
					same = false;
			}
			if (memcmp(pieces, whole, sizeof(whole)) != 0)
				same = false;
		}
	}
	check(checks, same, "WAL: pieces of any size make the same page");
}

/*
 * Zeros in the ciphertext.  One zero word among others was written, though
 * hardly ever; two were not, and neither was the last one.
 */
static void
check_zeros(Checks *checks, TdeCtr *ctx)
{
	uint8		page[PAGE] = {0};
	uint8		stream[PAGE] = {0};
	uint64		pageaddr = 0x40000;
	size_t		end = 24 + 5 * TDE_WAL_WORD;
	bool		ok;

	ok = tde_wal_crypt(ctx, pageaddr, stream, stream, sizeof(stream)) == 0;

	/* written, zero, written, zero, zero */
	memset(page + 24, 1, 8);
	memset(page + 40, 1, 8);
	ok = ok && tde_wal_page_decrypt(ctx, pageaddr, page, 24, end) == 0;
	check(checks, ok && memcmp(page + 32, stream + 32, 8) == 0,
		  "WAL: a zero word among others is decrypted");
	check(checks, ok && memcmp(page + 48, (uint8[16]) {0}, 16) == 0,
		  "WAL: two zero words are not");

	memset(page, 0, sizeof(page));
	memset(page + 24, 1, 8);
	ok = tde_wal_page_decrypt(ctx, pageaddr, page, 24, 40) == 0;
	check(checks, ok && memcmp(page + 32, (uint8[8]) {0}, 8) == 0,
		  "WAL: nor the last one");

	/* a marker of another position is written WAL */
	tde_wal_make_marker(pageaddr + 4096 + 24, page + 24);
	ok = !tde_wal_is_marker(pageaddr + 24, page + 24) &&
		tde_wal_page_decrypt(ctx, pageaddr, page, 24, 32) == 0;
	check(checks, ok &&
		  !tde_wal_is_marker(pageaddr + 4096 + 24, page + 24),
		  "WAL: a marker of another position is decrypted");
}

static bool
decode_epoch(const uint8 *buf, size_t len, const char **reason)
{
	TdeWalEpoch epoch;

	return tde_wal_epoch_decode(buf, len, &epoch, reason) == 0;
}

static bool
decode_epochs(const uint8 *buf, size_t len, const char **reason)
{
	return tde_wal_epochs_open(buf, len, reason) >= 0;
}

static bool
same_epoch(const TdeWalEpoch *a, const TdeWalEpoch *b)
{
	return a->id == b->id && a->tli == b->tli && a->prev_tli == b->prev_tli &&
		a->start == b->start && a->prev_end == b->prev_end &&
		a->system_identifier == b->system_identifier &&
		a->created == b->created && TdeIdEquals(&a->generation, &b->generation) &&
		memcmp(a->key, b->key, TDE_WAL_KEY_LEN) == 0;
}

static bool
check_epoch_vector(Vectors *v, TdeWalEpoch *epoch, uint8 *scope_key,
				   uint8 *record, size_t *len)
{
	TdeWalEpoch back;
	uint8		again[TDE_WAL_EPOCH_MAX_LEN];
	const char *reason = NULL;
	bool		tagged;

	memset(epoch, 0, sizeof(*epoch));
	epoch->id = vectors_uint(v, "id");
	epoch->tli = vectors_uint(v, "tli");
	epoch->prev_tli = vectors_uint(v, "prev_tli");
	epoch->start = vectors_uint(v, "start");
	epoch->prev_end = vectors_uint(v, "prev_end");
	epoch->system_identifier = vectors_uint(v, "system");
	epoch->created = vectors_uint(v, "created");
	*len = vectors_bytes(v, "record", record, TDE_WAL_EPOCH_MAX_LEN);
	if (vectors_bytes(v, "generation", epoch->generation.b,
					  TDE_ID_LEN) != TDE_ID_LEN ||
		vectors_bytes(v, "key", epoch->key,
					  TDE_WAL_KEY_LEN) != TDE_WAL_KEY_LEN ||
		vectors_bytes(v, "scope_key", scope_key,
					  TDE_WRAP_KEY_LEN) != TDE_WRAP_KEY_LEN ||
		tde_wal_epoch_decode(record, *len, &back, &reason) < 0)
		return false;

	/* what is not tagged cannot be authenticated */
	tagged = tde_wal_epoch_is_tagged(&back);
	if ((tde_wal_epoch_unwrap(record, *len, scope_key, &back, &reason) == 0) !=
		tagged || !same_epoch(&back, epoch))
		return false;

	/* encoded again: a new IV, and all else the same */
	epoch->scope = back.scope;
	epoch->scope_len = back.scope_len;
	if (tde_wal_epoch_encode(epoch, scope_key, again) != *len ||
		memcmp(again, record, 72) != 0 ||
		memcmp(again + 116, record + 116, *len - 116 - 4) != 0 ||
		(tagged && memcmp(again + 72, record + 72, 44) == 0))
		return false;
	memset(&back, 0, sizeof(back));
	return (tde_wal_epoch_unwrap(again, *len, scope_key, &back, &reason) == 0) ==
		tagged && same_epoch(&back, epoch);
}

/*
 * With the checksum made right, a changed byte is still found, but where it
 * changes nothing but the copy of the scope.
 */
static bool
forged_epoch_is_found(const TdeWalEpoch *good, const uint8 *scope_key,
					  const uint8 *record, size_t len)
{
	uint8		zeros[TDE_WAL_KEY_LEN] = {0};

	for (size_t i = 0; i < len - 4; i++)
	{
		uint8		buf[TDE_WAL_EPOCH_MAX_LEN];
		TdeWalEpoch epoch;
		const char *reason = NULL;

		memcpy(buf, record, len);
		buf[i] ^= 1;
		fix_crc(buf, len);
		if (tde_wal_epoch_unwrap(buf, len, scope_key, &epoch, &reason) < 0)
		{
			if (reason == NULL || memcmp(epoch.key, zeros, sizeof(zeros)) != 0)
				return false;
		}
		else if (i < 120 || !same_epoch(&epoch, good))
			return false;
	}
	return true;
}

static void
check_epoch_values(Checks *checks, const TdeWalEpoch *good,
				   const uint8 *scope_key)
{
	TdeWalEpoch epoch;
	uint8		buf[TDE_WAL_EPOCH_MAX_LEN];

#define REFUSED(change, name) \
	epoch = *good; \
	change; \
	check(checks, tde_wal_epoch_encode(&epoch, scope_key, buf) == 0, \
		  "epoch: not encoded: %s", name)

	REFUSED(epoch.tli = 0, "no timeline");
	REFUSED(epoch.prev_tli = epoch.tli + 1, "timeline before is a later one");
	REFUSED(epoch.start += 8, "start inside a page");
	REFUSED(epoch.prev_end = epoch.start, "no WAL between");
	REFUSED(epoch.scope_len = 0, "key without a scope");
	REFUSED(epoch.generation.b[0] ^= 1, "another generation's scope");
#undef REFUSED
}

/*
 * Merge a file of epochs with one that has the last of its epochs and another.
 */
static void
check_merge(Checks *checks, const uint8 *file, size_t len)
{
	uint8		other[MAX_VECTOR];
	uint8	   *epochs = other + TDE_WAL_EPOCHS_OVERHEAD - 4;
	uint8		merged[MAX_VECTOR * 2];
	uint8		again[MAX_VECTOR * 3];
	size_t		position = 0;
	size_t		epoch_len;
	size_t		other_len = 0;
	size_t		merged_len;
	const uint8 *p;
	const uint8 *last = NULL;
	size_t		last_len = 0;
	const char *reason;

	while ((p = tde_wal_epochs_next(file, len, &position, &epoch_len)) != NULL)
	{
		last = p;
		last_len = epoch_len;
	}
	check(checks, tde_wal_epochs_merge(file, len, NULL, 0, merged) == len &&
		  memcmp(merged, file, len) == 0 &&
		  tde_wal_epochs_merge(NULL, 0, file, len, merged) == len &&
		  memcmp(merged, file, len) == 0,
		  "epochs: merged with nothing");
	if (last == NULL)
		return;

	memcpy(epochs, last, last_len);
	memcpy(epochs + last_len, last, last_len);
	epochs[last_len + 48] ^= 1; /* time of creation */
	fix_crc(epochs + last_len, last_len);
	other_len = tde_wal_epochs_finish(other, last_len * 2, 2);

	merged_len = tde_wal_epochs_merge(file, len, other, other_len, merged);
	check(checks, merged_len == len + last_len &&
		  tde_wal_epochs_open(merged, merged_len, &reason) ==
		  tde_wal_epochs_open(file, len, &reason) + 1 &&
		  memcmp(merged + len - 4, epochs + last_len, last_len) == 0,
		  "epochs: what is in both is once in the merged file");
	check(checks,
		  tde_wal_epochs_merge(merged, merged_len, file, len,
							   again) == merged_len &&
		  memcmp(again, merged, merged_len) == 0,
		  "epochs: merged again, nothing changes");
}

void
check_wal(Checks *checks)
{
	Vectors		v;
	TdeCtr	   *ctx = tde_ctr_create();
	int			n = 0;

	if (!check(checks, ctx != NULL, "WAL: a context is made"))
		return;
	check_pieces(checks, ctx);
	check_zeros(checks, ctx);
	check_archives(checks, ctx);

	vectors_open(&v, checks, "wal.txt");
	while (vectors_next(&v))
	{
		const char *test = vectors_get(&v, "test");
		uint8		scope_key[TDE_WRAP_KEY_LEN];
		uint8		record[MAX_VECTOR];
		TdeWalEpoch epoch;
		size_t		len;
		const char *reason = NULL;

		n++;
		if (strcmp(test, "wal_page") == 0)
			check(checks, check_page_vector(&v, ctx),
				  "WAL: vector %d: %s", n, vectors_get(&v, "name"));
		else if (strcmp(test, "wal_archive") == 0)
			check(checks, check_archive_vector(&v, ctx),
				  "WAL: vector %d: archive: %s", n, vectors_get(&v, "name"));
		else if (strcmp(test, "wal_epoch") == 0)
		{
			if (!check(checks, check_epoch_vector(&v, &epoch, scope_key,
												  record, &len),
					   "epoch: vector %d", n))
				continue;
			check_decoder(checks, "epoch", decode_epoch, record, len);
			if (!tde_wal_epoch_is_tagged(&epoch))
				continue;		/* nothing to authenticate it with */
			check(checks, forged_epoch_is_found(&epoch, scope_key, record, len),
				  "epoch: vector %d: a forged byte is found", n);
			check_epoch_values(checks, &epoch, scope_key);
		}
		else
		{
			len = vectors_bytes(&v, "file", record, sizeof(record));
			check(checks, tde_wal_epochs_open(record, len, &reason) ==
				  vectors_uint(&v, "n"), "epochs: vector %d", n);
			check_decoder(checks, "epochs", decode_epochs, record, len);
			check_merge(checks, record, len);
		}
	}
	vectors_close(&v);
	tde_ctr_free(ctx);
}
