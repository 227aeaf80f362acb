/*-------------------------------------------------------------------------
 *
 * paths.h
 *	  Where the key store lies in a data directory.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/paths.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PATHS_H
#define TDE_PATHS_H

#include "storage/relfilelocator.h"
#include "tde/scope.h"

#define TDE_DIR				"pg_tde"
#define TDE_GLOBAL_DIR		"pg_tde/global"
#define TDE_PROVIDER_FILE	"provider_config"
#define TDE_DATABASE_FILE	"database_key.key"
#define TDE_REGISTRY_FILE	"relations"
#define TDE_SERVER_FILE		"server_key.key"
#define TDE_DEFAULT_FILE	"default_key.key"
#define TDE_WAL_EPOCHS_FILE	"wal_epochs"
#define TDE_WAL_EPOCHS_PATH	TDE_GLOBAL_DIR "/" TDE_WAL_EPOCHS_FILE
#define TDE_TEMP_SUFFIX		".tmp"

/*
 * Paths relative to the data directory, into buffers of MAXPGPATH bytes.
 * dbOid is InvalidOid for the directory, and the providers, of the server.
 */
extern void tde_database_dir(Oid dbOid, char *path);
extern void tde_key_path(const RelFileLocator *locator, char *path);
extern void tde_scope_path(TdeScopeKind kind, Oid dbOid, char *path);
extern void tde_provider_path(Oid dbOid, char *path);
extern void tde_registry_path(Oid dbOid, char *path);

/*
 * The inverse of tde_key_path for a file name found in a database's
 * directory; false if it is no name of a key file.
 */
extern bool tde_parse_key_file_name(const char *name, Oid dbOid,
									RelFileLocator *locator);

/* The database whose directory has that name; InvalidOid if none has. */
extern Oid	tde_parse_database_dir(const char *name);

/*
 * Is a path, relative to the data directory, the key store or in it?
 */
static inline bool
tde_path_is_key_store(const char *path)
{
	return strncmp(path, TDE_DIR, strlen(TDE_DIR)) == 0 &&
		(path[strlen(TDE_DIR)] == '/' || path[strlen(TDE_DIR)] == '\0');
}

/*
 * For pg_rewind: is a path a file of the key store that means nothing where
 * its owner, a database or the server, exists without another file?  Owner
 * (a directory that is there as long as the owner is, unless it is a database
 * in another tablespace) and that file are returned in buffers of MAXPGPATH
 * bytes.  A scope or a list of providers means nothing where it does not
 * exist itself; a key of a relation where its database has no scope: there,
 * none was ever made.
 */
static inline bool
tde_path_depends(const char *path, char *owner, char *other)
{
	const char *dir;
	size_t		len;

	if (!tde_path_is_key_store(path) || path[strlen(TDE_DIR)] == '\0' ||
		strcmp(path, TDE_WAL_EPOCHS_PATH) == 0)
		return false;
	dir = path + strlen(TDE_DIR) + 1;
	len = strcspn(dir, "/");
	if (dir[len] == '\0')
		return false;
	if (dir[len + 1] >= '0' && dir[len + 1] <= '9')
		snprintf(other, MAXPGPATH, "%s/%.*s/%s", TDE_DIR, (int) len, dir,
				 TDE_DATABASE_FILE);
	else
		strlcpy(other, path, MAXPGPATH);
	if (strncmp(dir, "global/", strlen("global/")) == 0)
		strlcpy(owner, "global", MAXPGPATH);
	else
		snprintf(owner, MAXPGPATH, "base/%.*s", (int) len, dir);
	return true;
}

#endif							/* TDE_PATHS_H */
