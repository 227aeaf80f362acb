/*-------------------------------------------------------------------------
 *
 * backup_target.c
 *	  A target of pg_tde_basebackup that holds a copy of the key store.
 *
 * Whoever comes from pg_tde 2 copies the server's key store into the target
 * first, since that one's program takes keys from there.  A backup of ours
 * brings the key store with it, as it is at that time, so the copy goes.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/backup_target.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <sys/stat.h>

#include "common/file_utils.h"
#include "common/logging.h"
#include "tde/fe_encrypt_wal.h"
#include "tde/paths.h"

/* Is there the directory of a key store in it, and nothing else? */
static bool
holds_key_store_only(const char *target, const char *store)
{
	DIR		   *dir = opendir(target);
	struct dirent *de;
	struct stat st;
	bool		only = dir != NULL;

	if (dir == NULL)
		return false;
	while (errno = 0, only && (de = readdir(dir)) != NULL)
		only = strcmp(de->d_name, ".") == 0 ||
			strcmp(de->d_name, "..") == 0 ||
			strcmp(de->d_name, TDE_DIR) == 0;
	only = only && errno == 0;
	closedir(dir);
	return only && lstat(store, &st) == 0 && S_ISDIR(st.st_mode);
}

void
tde_fe_take_backup_target(const char *program, const char *target)
{
	char		store[MAXPGPATH];

	if (target == NULL || strcmp(program, "pg_tde_basebackup") != 0)
		return;
	snprintf(store, sizeof(store), "%s/%s", target, TDE_DIR);
	if (!holds_key_store_only(target, store))
		return;
	pg_log_info("removing directory \"%s\": the backup brings the server's key store",
				store);
	if (!rmtree(store, true))
		pg_fatal("could not remove directory \"%s\"", store);
}
