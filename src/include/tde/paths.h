/*-------------------------------------------------------------------------
 *
 * paths.h
 *	  Where the key store lies in a data directory, for programs.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/paths.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PATHS_H
#define TDE_PATHS_H

#define TDE_DIR				"pg_tde"

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
 * Is a path a file of the key store that belongs to a database, or to the
 * server, as a whole: a scope or a list of providers?  Then "owner" (of
 * MAXPGPATH bytes) is a directory that is there as long as the owner is, unless
 * it is a database in another tablespace.
 */
static inline bool
tde_path_of_scope(const char *path, char *owner)
{
	const char *dir;
	size_t		len;

	if (!tde_path_is_key_store(path) || path[strlen(TDE_DIR)] == '\0')
		return false;
	dir = path + strlen(TDE_DIR) + 1;
	len = strcspn(dir, "/");
	if (dir[len] == '\0' || (dir[len + 1] >= '0' && dir[len + 1] <= '9'))
		return false;
	if (strncmp(dir, "global/", strlen("global/")) == 0)
		strlcpy(owner, "global", MAXPGPATH);
	else
		snprintf(owner, MAXPGPATH, "base/%.*s", (int) len, dir);
	return true;
}

#endif							/* TDE_PATHS_H */
