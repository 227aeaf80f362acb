/*-------------------------------------------------------------------------
 *
 * read_epochs.c
 *	  Reading the file of WAL epochs.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/read_epochs.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"

uint8 *
tde_store_read_epochs(const char *path, size_t *len, int *n,
					  TdeStoreProblem *problem)
{
	const char *reason;
	uint8	   *data = tde_store_read_file(path, len, problem);

	*n = 0;
	if (data == NULL)
		return NULL;
	*n = tde_wal_epochs_open(data, *len, &reason);
	if (*n >= 0)
		return data;
	*n = 0;
	tde_store_damaged(problem, path, reason);
	pfree(data);
	return NULL;
}
