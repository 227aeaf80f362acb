/*-------------------------------------------------------------------------
 *
 * given_key.h
 *	  A key of WAL as the server gives it to pg_tde_archive_decrypt: structs of
 *	  this kind, one after the other, through a pipe.
 *
 * Both ends are of one installation, so the layout is the compiler's.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/given_key.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_GIVEN_KEY_H
#define TDE_GIVEN_KEY_H

#include "access/xlogdefs.h"
#include "tde/wal_page.h"

/* See TdeWalEpoch. */
typedef struct TdeGivenKey
{
	uint32		id;
	TimeLineID	tli;
	XLogRecPtr	start;
	uint8		key[TDE_WAL_KEY_LEN];
} TdeGivenKey;

#endif							/* TDE_GIVEN_KEY_H */
