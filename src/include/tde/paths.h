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

#endif							/* TDE_PATHS_H */
