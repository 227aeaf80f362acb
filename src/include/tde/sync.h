/*-------------------------------------------------------------------------
 *
 * sync.h
 *	  The checkpointer's handler for key files (see storage/sync.h).
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/sync.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SYNC_H
#define TDE_SYNC_H

#include "storage/sync.h"

extern int	tde_sync_key_file(const FileTag *ftag, char *path);

#endif							/* TDE_SYNC_H */
