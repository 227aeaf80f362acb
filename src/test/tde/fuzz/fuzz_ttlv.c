/*-------------------------------------------------------------------------
 *
 * fuzz_ttlv.c
 *	  Fuzz target: TTLV, the encoding of KMIP.
 *
 * What is accepted is the same bytes when it is written again: the decoder
 * lets no second way to say a thing pass.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_ttlv.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "../../../common/tde/keyring/kmip/ttlv.h"

#include "fuzz.h"

/* Returns how many items were written. */
static int
write_item(TdeTtlvWriter *w, const TdeTtlvItem *item)
{
	TdeTtlvItem child = {0};
	int			n = 1;

	if (item->type != TDE_TTLV_STRUCTURE)
	{
		tde_ttlv_put_raw(w, item->tag, item->type, item->value, item->len);
		return n;
	}
	tde_ttlv_begin(w, item->tag);
	while (tde_ttlv_next(item, &child))
	{
		TdeTtlvItem found;
		TdeTtlvFound how = tde_ttlv_find(item, child.tag, child.type, &found);

		/* what is there is found, though perhaps not as the only one */
		FUZZ_REQUIRE(how != TDE_TTLV_ABSENT);
		FUZZ_REQUIRE((how == TDE_TTLV_FOUND) == (found.value != NULL));
		n += write_item(w, &child);
	}
	tde_ttlv_end(w);
	return n;
}

void
fuzz_ttlv(const uint8 *data, size_t size)
{
	TdeTtlvItem root;
	const char *reason = NULL;

	if (tde_ttlv_check(data, size, &root, &reason))
	{
		TdeTtlvWriter w;
		uint8	   *again = malloc(size);

		FUZZ_REQUIRE(again != NULL);
		tde_ttlv_writer_init(&w, again, size);
		FUZZ_REQUIRE(write_item(&w, &root) <= TDE_TTLV_MAX_ITEMS);
		FUZZ_REQUIRE(!w.failed && w.len == size);
		FUZZ_REQUIRE(memcmp(again, data, size) == 0);
		free(again);
	}
	else
		FUZZ_REQUIRE(reason != NULL);
}
