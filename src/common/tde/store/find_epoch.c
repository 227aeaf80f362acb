/*-------------------------------------------------------------------------
 *
 * find_epoch.c
 *	  Reading the file of WAL epochs, and looking one up.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/find_epoch.c
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

TdeWalKeyStatus
tde_store_find_epoch(const uint8 *file, size_t len, const char *path,
					 const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
					 const uint8 **record, size_t *record_len,
					 char *problem, size_t problem_size)
{
	const char *reason;
	int			n = 0;

	if (file)
		n = tde_wal_epochs_find(file, len, query, record, record_len);
	switch (n)
	{
		case 0:
			snprintf(problem, problem_size, _("it is not in file \"%s\""),
					 path);
			return TDE_WAL_KEY_UNKNOWN;
		case 1:
			break;
		default:
			snprintf(problem, problem_size,
					 _("there are several with this ID in file \"%s\""), path);
			return TDE_WAL_KEY_UNUSABLE;
	}

	/* it can be decoded, or it would not have been found */
	(void) tde_wal_epoch_decode(*record, *record_len, epoch, &reason);
	return TDE_WAL_KEY_FOUND;
}
