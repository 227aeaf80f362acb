/*-------------------------------------------------------------------------
 *
 * fuzz_scope.c
 *	  Fuzz target: the decoder of scope files.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_scope.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "tde/scope.h"

#include "fuzz.h"

static void
decode(const uint8 *data, size_t size)
{
	static const uint8 principal[16] = {1};
	TdeScope	scope;
	TdeScopeGeneration *generations;
	uint8	   *again;
	const char *reason = NULL;
	int			n = tde_scope_count(data, size, &reason);

	if (n < 0)
	{
		FUZZ_REQUIRE(reason != NULL);
		return;
	}
	FUZZ_REQUIRE(n <= TDE_SCOPE_MAX_GENERATIONS);
	generations = malloc(n * sizeof(TdeScopeGeneration) + 1);
	FUZZ_REQUIRE(generations != NULL);

	/* one too few is refused */
	FUZZ_REQUIRE(tde_scope_decode(data, size, &scope, generations, n - 1,
								  &reason) < 0);

	reason = NULL;
	if (tde_scope_decode(data, size, &scope, generations, n, &reason) == 0)
	{
		again = malloc(tde_scope_encoded_size(n));
		FUZZ_REQUIRE(again != NULL);
		if (data[4] == 1)		/* not written any more */
			FUZZ_REQUIRE(tde_scope_encode(&scope, again) > size);
		else
		{
			FUZZ_REQUIRE(tde_scope_encode(&scope, again) == size);
			FUZZ_REQUIRE(memcmp(again, data, size) == 0);
		}
		free(again);
		FUZZ_REQUIRE(tde_scope_unwrap(&scope, principal,
									  sizeof(principal)) < 0);
	}
	else
		FUZZ_REQUIRE(reason != NULL);
	free(generations);
}

void
fuzz_scope(const uint8 *data, size_t size)
{
	uint8	   *plausible = fuzz_make_plausible(data, size, 8, 4);

	decode(data, size);
	decode(plausible, size);
	free(plausible);
}
