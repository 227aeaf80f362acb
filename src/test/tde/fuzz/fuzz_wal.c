/*-------------------------------------------------------------------------
 *
 * fuzz_wal.c
 *	  Fuzz target: the decoders of epochs, and the reader of encrypted WAL
 *	  pages.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_wal.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "tde/wal_archive.h"
#include "tde/wal_epoch.h"

#include "fuzz.h"

static const uint8 key[TDE_WRAP_KEY_LEN] = {1};

static void
decode(const uint8 *data, size_t size)
{
	TdeWalEpoch epoch;
	const char *reason = NULL;

	if (tde_wal_epoch_decode(data, size, &epoch, &reason) < 0)
		FUZZ_REQUIRE(reason != NULL);
	else if (tde_wal_epoch_is_tagged(&epoch))
		FUZZ_REQUIRE(tde_wal_epoch_unwrap(data, size, key, &epoch,
										  &reason) < 0);
	else
	{
		uint8		again[TDE_WAL_EPOCH_MAX_LEN];

		FUZZ_REQUIRE(tde_wal_epoch_encode(&epoch, key, again) == size);
		FUZZ_REQUIRE(memcmp(again, data, size) == 0);
	}

	reason = NULL;
	if (tde_wal_epochs_open(data, size, &reason) < 0)
		FUZZ_REQUIRE(reason != NULL);
}

/* To an archive in clear, back, and there again: the same. */
static void
archive_page(TdeCtr *ctx, const uint8 *data, size_t size)
{
	uint8	   *page = malloc(size);
	uint8	   *again = malloc(size);
	const uint8 *epoch;
	size_t		len;

	FUZZ_REQUIRE(page != NULL && again != NULL);
	memcpy(page, data, size);
	FUZZ_REQUIRE(tde_wal_page_archive(ctx, page, size) == 0);
	memcpy(again, page, size);
	FUZZ_REQUIRE(tde_wal_page_restore(ctx, again, size) == 0);
	FUZZ_REQUIRE(tde_wal_page_archive(ctx, again, size) == 0);
	FUZZ_REQUIRE(memcmp(page, again, size) == 0);

	epoch = tde_wal_page_find_epoch(data, size, &len);
	if (epoch)
		decode(epoch, len);
	free(again);
	free(page);
}

/* The page is what was read of one: its last byte is the last that exists. */
static void
read_page(const uint8 *data, size_t size)
{
	TdeCtr	   *ctx = tde_ctr_create();
	uint8	   *page = malloc(size + 1);

	FUZZ_REQUIRE(ctx != NULL && page != NULL);
	FUZZ_REQUIRE(tde_ctr_set_key(ctx, key, TDE_WAL_KEY_LEN) == 0);
	memcpy(page, data, size);
	FUZZ_REQUIRE(tde_wal_page_decrypt(ctx, 0, page, 0, size) == 0);
	free(page);
	size -= size % TDE_WAL_WORD;
	if (size > 40)
		archive_page(ctx, data, size);
	tde_ctr_free(ctx);
}

void
fuzz_wal(const uint8 *data, size_t size)
{
	uint8	   *plausible = fuzz_make_plausible(data, size, 8, 4);

	decode(data, size);
	decode(plausible, size);
	free(plausible);
	read_page(data, size);
}
