/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *	  What the fuzz targets share.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "port/pg_crc32c.h"

#include "fuzz.h"

uint8 *
fuzz_make_plausible(const uint8 *data, size_t size,
					size_t length_offset, int length_size)
{
	uint8	   *copy = malloc(size + 1);
	pg_crc32c	crc;

	FUZZ_REQUIRE(copy != NULL);
	memcpy(copy, data, size);
	if (size < length_offset + length_size + 4)
		return copy;
	for (int i = 0; i < length_size; i++)
		copy[length_offset + i] = (uint8) (size >> (8 * i));
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, copy, size - 4);
	FIN_CRC32C(crc);
	for (int i = 0; i < 4; i++)
		copy[size - 4 + i] = (uint8) (crc >> (8 * i));
	return copy;
}
