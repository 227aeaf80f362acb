/*-------------------------------------------------------------------------
 *
 * fuzz_keyring_options.c
 *	  Fuzz target: the options of key providers.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_keyring_options.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "../../../common/tde/keyring/options.h"

#include "fuzz.h"

static const TdeKeyringOption known[] = {
	{"host", false, true},
	{"port", true, true},
	{"caPath", false, false},
	{NULL}
};

void
fuzz_keyring_options(const uint8 *data, size_t size)
{
	TdeProvider provider = {.id = 1,.type = "file",.name = "p"};
	TdeKeyringError error;
	char		buf[TDE_MAX_PROVIDER_OPTIONS + 1];
	int			port;

	memcpy(provider.options, data, Min(size, TDE_MAX_PROVIDER_OPTIONS));
	if (tde_keyring_check_names(&provider, known, &error) == TDE_KEYRING_OK)
	{
		/* what was found right can be had */
		FUZZ_REQUIRE(tde_keyring_option(&provider, "host", buf, sizeof(buf)));
		FUZZ_REQUIRE(buf[0] != '\0');
		FUZZ_REQUIRE(tde_keyring_option_int(&provider, "port", PG_INT32_MIN,
											PG_INT32_MAX, &port));
	}
	else
	{
		FUZZ_REQUIRE(error.status == TDE_KEYRING_BAD_OPTIONS);
		FUZZ_REQUIRE(error.message[0] != '\0');
	}
}
