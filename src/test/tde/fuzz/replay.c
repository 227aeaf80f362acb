/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  Runs files through a fuzz target, without a fuzzer.
 *
 *	  fuzz_replay TARGET FILE...
 *
 * So the corpus is a test of every build, with whatever sanitizers it has.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/replay.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "fuzz.h"

#define MAX_INPUT	(16 * 1024 * 1024)

typedef struct Target
{
	const char *name;
	FuzzTarget *function;
} Target;

static const Target targets[] = {
	{"key_record", fuzz_key_record},
	{"scope", fuzz_scope},
	{"wal", fuzz_wal},
	{"providers", fuzz_providers},
	{"keyring_file", fuzz_keyring_file},
	{"keyring_options", fuzz_keyring_options},
	{"ttlv", fuzz_ttlv},
	{"kmip", fuzz_kmip},
	{"vault_json", fuzz_vault_json},
};

static void
replay(FuzzTarget * function, const char *path)
{
	FILE	   *file = fopen(path, "rb");
	uint8	   *buf = malloc(MAX_INPUT);
	uint8	   *exact;
	size_t		len;

	FUZZ_REQUIRE(file != NULL && buf != NULL);
	len = fread(buf, 1, MAX_INPUT, file);
	FUZZ_REQUIRE(feof(file) && !ferror(file));
	fclose(file);

	/* not a byte more, so that a sanitizer sees reads beyond the end */
	exact = malloc(len > 0 ? len : 1);
	FUZZ_REQUIRE(exact != NULL);
	memcpy(exact, buf, len);
	free(buf);
	function(exact, len);
	free(exact);
}

int
main(int argc, char **argv)
{
	for (int i = 0; argc > 2 && i < lengthof(targets); i++)
	{
		if (strcmp(argv[1], targets[i].name) != 0)
			continue;
		for (int arg = 2; arg < argc; arg++)
			replay(targets[i].function, argv[arg]);
		printf("%d files\n", argc - 2);
		return 0;
	}
	fprintf(stderr, "usage: fuzz_replay TARGET FILE...\n");
	return 2;
}
