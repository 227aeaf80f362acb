/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *	  Fuzz targets: functions that must return, whatever bytes they get.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FUZZ_H
#define TDE_FUZZ_H

typedef void FuzzTarget(const uint8 *data, size_t size);

extern FuzzTarget fuzz_key_record;
extern FuzzTarget fuzz_scope;
extern FuzzTarget fuzz_wal;
extern FuzzTarget fuzz_providers;
extern FuzzTarget fuzz_keyring_file;
extern FuzzTarget fuzz_keyring_options;
extern FuzzTarget fuzz_ttlv;
extern FuzzTarget fuzz_kmip;
extern FuzzTarget fuzz_vault_json;

/* A rule of the formats: broken, it ends the program. */
#define FUZZ_REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/*
 * Almost no input has the right length and checksum, so each is tried as it
 * is and with both made right: a copy to be freed.  length_offset is where
 * the format states its length, in length_size bytes.
 */
extern uint8 *fuzz_make_plausible(const uint8 *data, size_t size,
								  size_t length_offset, int length_size);

#endif							/* TDE_FUZZ_H */
