/*-------------------------------------------------------------------------
 *
 * fuzz_vault_json.c
 *	  Fuzz target: answers of a Vault server.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_vault_json.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "../../../common/tde/keyring/vault_json.h"

#include "fuzz.h"

static void
require_nothing_found(const VaultAnswer *answer)
{
	const uint8 *bytes = (const uint8 *) answer;

	for (size_t i = 0; i < sizeof(*answer); i++)
		FUZZ_REQUIRE(bytes[i] == 0);
}

void
fuzz_vault_json(const uint8 *data, size_t size)
{
	char	   *text = malloc(size + 1);
	VaultAnswer answer;

	FUZZ_REQUIRE(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';

	if (!vault_parse(text, size, &answer))
		require_nothing_found(&answer);
	FUZZ_REQUIRE(answer.key.len >= 0 && answer.key.len <= TDE_MAX_PRINCIPAL_LEN);
	FUZZ_REQUIRE(!answer.key_is_valid || (answer.has_key && answer.key.len > 0));
	FUZZ_REQUIRE(answer.has_data || !(answer.has_key || answer.deleted ||
									  answer.destroyed || answer.version));
	FUZZ_REQUIRE(strnlen(answer.error, sizeof(answer.error)) < sizeof(answer.error));
	for (const char *p = answer.error; *p != '\0'; p++)
		FUZZ_REQUIRE(*p >= ' ' && *p < 0x7f);

	/* the text is still there, but for escapes: the same comes out again */
	if (answer.key_is_valid)
	{
		VaultAnswer again;

		FUZZ_REQUIRE(vault_parse(text, size, &again));
		FUZZ_REQUIRE(memcmp(&again, &answer, sizeof(answer)) == 0);
	}
	free(text);
}
