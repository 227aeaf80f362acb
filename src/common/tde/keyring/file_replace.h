/*-------------------------------------------------------------------------
 *
 * file_replace.h
 *	  Replacing a keyring file: one writer at a time, all or nothing.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/file_replace.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_FILE_REPLACE_H
#define TDE_KEYRING_FILE_REPLACE_H

#include <limits.h>

#include "tde/keyring.h"

#define KEYRING_NEW_SUFFIX		".tmp"

/* One writer's turn. */
typedef struct KeyringReplace
{
	char		path[PATH_MAX]; /* the file, symbolic links resolved */
	char		newpath[PATH_MAX + sizeof(KEYRING_NEW_SUFFIX)];
	int			fd;				/* of the new file, locked */
} KeyringReplace;

/*
 * Get the right to replace the file at path, which need not exist.  Waits for
 * other writers, at most as long as call says.  On success
 * keyring_replace_end must follow, and until then nobody else who keeps to
 * these rules changes the file.
 */
extern TdeKeyringStatus keyring_replace_begin(const char *path,
											  const TdeKeyringCall *call,
											  KeyringReplace *replace,
											  TdeKeyringError *error);

/*
 * Replace the content, durably.  After a failure the old content is there, or
 * (if only the directory could not be synced) the new one.
 */
extern TdeKeyringStatus keyring_replace_commit(KeyringReplace *replace,
											   const char *data, size_t len,
											   TdeKeyringError *error);

/* End the turn.  Without a commit nothing has changed. */
extern void keyring_replace_end(KeyringReplace *replace);

/* The status that errno amounts to. */
extern TdeKeyringStatus keyring_errno_status(void);

/* Cut a file's path down to its directory. */
extern void keyring_get_directory(char *path);

#endif							/* TDE_KEYRING_FILE_REPLACE_H */
