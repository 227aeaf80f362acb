/*-------------------------------------------------------------------------
 *
 * merge_epochs.c
 *	  pg_rewind merges the source's file of WAL epochs into the target's, so that
 *	  what the target wrote on its own branch can be read still.
 *
 * What can be wrong with either file is found before pg_rewind changes
 * anything: a target that was changed half-way is lost.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/merge_epochs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/logging.h"
#include "tde/fe_key_store.h"

static uint8 *merged = NULL;
static size_t merged_len = 0;

pg_noreturn static void
give_up(const char *hint)
{
	pg_log_error_detail("The file has the keys of encrypted WAL. The target was not changed.");
	pg_log_error_hint("%s", hint);
	exit(1);
}

void
tde_fe_wal_merge_epochs(const char *pgdata, const char *other,
						const size_t *other_len)
{
	char		path[MAXPGPATH * 2];
	const char *reason;
	char	   *problem;
	uint8	   *file;
	size_t		len = 0;

	if (tde_wal_epochs_open((const uint8 *) other, *other_len, &reason) < 0)
	{
		pg_log_error("could not use file \"%s\" of the source: %s",
					 TDE_WAL_EPOCHS_PATH, _(reason));
		give_up(_("Restart the source server, which rebuilds the file from its WAL, or stop it and run pg_tde_rebuild_epochs there."));
	}

	snprintf(path, sizeof(path), "%s/%s", pgdata, TDE_WAL_EPOCHS_PATH);
	file = tde_fe_read_file(path, &len, &problem);
	if (problem)
		pg_fatal("%s", problem);
	if (file && tde_wal_epochs_open(file, len, &reason) < 0)
	{
		pg_log_error("could not use file \"%s\": %s", path, _(reason));
		give_up(_("Run pg_tde_rebuild_epochs on the target."));
	}

	merged = pg_malloc(len + *other_len + TDE_WAL_EPOCHS_OVERHEAD);
	merged_len = tde_wal_epochs_merge(file, len, (const uint8 *) other,
									  *other_len, merged);
	pg_free(file);
}

void
tde_fe_wal_write_epochs(const char *pgdata, bool dry_run)
{
	char		path[MAXPGPATH * 2];

	Assert(merged != NULL);
	snprintf(path, sizeof(path), "%s/%s", pgdata, TDE_WAL_EPOCHS_PATH);
	if (!dry_run)
		tde_fe_write_file(path, merged, merged_len);
}
