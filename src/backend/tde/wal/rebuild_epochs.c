/*-------------------------------------------------------------------------
 *
 * rebuild_epochs.c
 *	  The file of epochs is lost, damaged, or an old one: make it again of what
 *	  pg_wal has, and of what is left of it.
 *
 * Only what is proven is taken: an epoch of this database system that the
 * server's scope key unwraps, and so authenticates.  What is in a file that is
 * whole stays.  A damaged one is kept under another name.
 *
 * This is done where something is missing, once in a process: it reads all WAL
 * that there is.  If nothing is found nothing is changed, and whoever needs the
 * epoch says that it is missing.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/rebuild_epochs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "../keys/store/store_internal.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/fd.h"
#include "wal_internal.h"

typedef struct Rebuilding
{
	TdeEpochTable *table;
	int			found;
} Rebuilding;

/* TdeEpochCallback */
static void
take_if_proven(const uint8 *record, size_t len, const TdeWalEpoch *found,
			   void *arg)
{
	Rebuilding *state = arg;
	TdeWalEpochQuery query = {
		found->id, found->tli, found->start, found->start
	};
	TdeWalEpoch epoch;
	const uint8 *known;
	size_t		known_len;
	char		problem[MAXPGPATH];

	if (found->system_identifier != GetSystemIdentifier() ||
		tde_epoch_table_find(state->table, TDE_WAL_EPOCHS_PATH, &query, &epoch,
							 &known, &known_len, problem,
							 sizeof(problem)) != TDE_WAL_KEY_UNKNOWN ||
		tde_wal_epoch_authenticate(record, len, &epoch, problem,
								   sizeof(problem)) != TDE_WAL_KEY_FOUND)
		return;
	tde_wipe(epoch.key, sizeof(epoch.key));
	if (tde_epoch_table_add(state->table, record, len))
		state->found++;
}

static void
scan_wal(Rebuilding *state)
{
	TdeStoreProblem problem;
	int			n;
	char	  **names = tde_store_list_segments(XLOGDIR, &n, &problem);

	if (names == NULL)
	{
		tde_store_report(LOG, &problem);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		char		path[MAXPGPATH];

		snprintf(path, sizeof(path), XLOGDIR "/%s", names[i]);
		if (!tde_store_scan_segment(path, names[i], take_if_proven, state,
									&problem))
			tde_store_report(LOG, &problem);
	}
}

/*
 * A name for the damaged file that no file has.
 */
static void
name_aside(char path[MAXPGPATH])
{
	struct stat st;

	snprintf(path, MAXPGPATH, "%s.damaged", TDE_WAL_EPOCHS_PATH);
	for (int i = 1; lstat(path, &st) == 0; i++)
		snprintf(path, MAXPGPATH, "%s.damaged.%d", TDE_WAL_EPOCHS_PATH, i);
	if (errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
}

bool
tde_wal_epochs_rebuild(void)
{
	static bool done = false;
	Rebuilding	state = {0};
	TdeStoreProblem problem;
	const char *reason;
	char		aside[MAXPGPATH];
	size_t		len;
	uint8	   *data;
	uint8	   *file;
	bool		damaged = false;
	int			left = 0;

	Assert(LWLockHeldByMeInMode(&tde_store->lock, LW_EXCLUSIVE));
	if (done)
		return false;
	done = true;

	/* That it cannot be read proves neither damage nor loss. */
	data = tde_store_read_file(TDE_WAL_EPOCHS_PATH, &len, &problem);
	if (data == NULL && !problem.missing)
		return false;

	state.table = tde_epoch_table_create();
	if (data != NULL && tde_wal_epochs_open(data, len, &reason) >= 0)
		tde_epoch_table_add_file(state.table, data, len);
	else if (data != NULL)
	{
		damaged = true;
		tde_store_scan_remains(data, len, take_if_proven, &state);
		left = state.found;
	}
	scan_wal(&state);

	if (state.found > 0)
	{
		file = tde_epoch_table_file(state.table, &len);
		tde_make_directory(InvalidOid);
		tde_write_temp_file(TDE_WAL_EPOCHS_PATH, file, len, true);
		if (damaged)
		{
			name_aside(aside);
			(void) durable_rename(TDE_WAL_EPOCHS_PATH, aside, ERROR);
		}
		tde_rename_temp_file(TDE_WAL_EPOCHS_PATH, ERROR);
		tde_wal_epochs_changed(NULL, 0);
		pfree(file);

		ereport(LOG,
				(errmsg("rebuilt file \"%s\", which has the keys of WAL",
						TDE_WAL_EPOCHS_PATH),
				 damaged ?
				 errdetail("%d keys were found in the damaged file, which is now \"%s\", and %d in directory \"%s\".",
						   left, aside, state.found - left, XLOGDIR) :
				 data == NULL ?
				 errdetail("The file did not exist. %d keys were found in directory \"%s\".",
						   state.found, XLOGDIR) :
				 errdetail("%d keys that it did not have were found in directory \"%s\".",
						   state.found, XLOGDIR),
				 errhint("Keys of older WAL can be taken from an archive with %s.",
						 "pg_tde_rebuild_epochs")));
	}
	tde_epoch_table_free(state.table);
	if (data != NULL)
		pfree(data);
	return state.found > 0;
}
