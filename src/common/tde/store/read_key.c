/*-------------------------------------------------------------------------
 *
 * read_key.c
 *	  Reading the key file of a relation.  The server does so in the middle of
 *	  I/O, so nothing is allocated.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/read_key.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"

int
tde_store_read_key(const RelFileLocator *locator,
				   uint8 record[TDE_KEY_RECORD_LEN + 1],
				   TdeKey *key, const char **reason)
{
	char		path[MAXPGPATH];
	int			len;

	*reason = NULL;
	tde_key_path(locator, path);
	len = tde_store_read_small(path, record, TDE_KEY_RECORD_LEN + 1);
	if (len < 0)
		return errno == ENOENT ? 0 : -1;
	if (tde_key_record_decode(record, len, key, reason) != 0)
		return -1;
	if (!RelFileLocatorEquals(key->locator, *locator))
	{
		*reason = gettext_noop("it belongs to another relation");
		return -1;
	}
	return len;
}
