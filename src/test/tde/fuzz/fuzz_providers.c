/*-------------------------------------------------------------------------
 *
 * fuzz_providers.c
 *	  Fuzz target: the decoder of provider files.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_providers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "tde/provider.h"

#include "fuzz.h"

static void
decode(const uint8 *data, size_t size)
{
	TdeProviderList list;
	TdeProvider *providers;
	uint8	   *again;
	const char *reason = NULL;
	int			n = tde_providers_count(data, size, &reason);

	if (n < 0)
	{
		FUZZ_REQUIRE(reason != NULL);
		return;
	}
	FUZZ_REQUIRE(n <= TDE_MAX_PROVIDERS);
	providers = malloc(n * sizeof(TdeProvider) + 1);
	FUZZ_REQUIRE(providers != NULL);

	/* one too few is refused */
	FUZZ_REQUIRE(tde_providers_decode(data, size, &list, providers, n - 1,
									  &reason) < 0);

	reason = NULL;
	if (tde_providers_decode(data, size, &list, providers, n, &reason) == 0)
	{
		again = malloc(tde_providers_encoded_size(n));
		FUZZ_REQUIRE(again != NULL);
		if (data[4] == 1)		/* not written any more */
		{
			FUZZ_REQUIRE(tde_providers_draw_uuids(&list) == 0);
			FUZZ_REQUIRE(tde_providers_encode(&list, again) ==
						 size + n * TDE_ID_LEN);
		}
		else
		{
			FUZZ_REQUIRE(tde_providers_encode(&list, again) == size);
			FUZZ_REQUIRE(memcmp(again, data, size) == 0);
		}
		free(again);
	}
	else
		FUZZ_REQUIRE(reason != NULL);
	free(providers);
}

void
fuzz_providers(const uint8 *data, size_t size)
{
	uint8	   *plausible = fuzz_make_plausible(data, size, 8, 4);

	decode(data, size);
	decode(plausible, size);
	free(plausible);
}
