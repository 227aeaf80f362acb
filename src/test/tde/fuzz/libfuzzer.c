/*-------------------------------------------------------------------------
 *
 * libfuzzer.c
 *	  Makes a libFuzzer program of the target that TARGET names.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/libfuzzer.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "fuzz.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	TARGET(data, size);
	return 0;
}
