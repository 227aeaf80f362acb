/*-------------------------------------------------------------------------
 *
 * xlog.h
 *	  WAL records of the key store.
 *
 * They carry wrapped keys only.  The content is in the formats of the files
 * (doc/key-format.md), which do not depend on the machine.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/xlog.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_XLOG_H
#define TDE_XLOG_H

#include "access/xlogreader.h"
#include "lib/stringinfo.h"
#include "tde/key_record.h"

/*
 * Our resource manager has an ID of the range of custom ones, though it is
 * part of the server.  Programs and servers that do not know the ID treat a
 * record of that range as valid: stock pg_waldump and pg_verifybackup read on,
 * and stock recovery stops with the error that the resource manager is not
 * registered.  The next built-in ID is an invalid record to them, which in
 * crash recovery is the end of WAL; what was committed later would be lost
 * without a word.
 */
#define RM_TDE_ID				222
#define TDE_RMGR_NAME			"TDE"

/* what rmgr.c and pg_waldump have in their tables at RM_TDE_ID */
#define TDE_RMGR_DATA \
	{.rm_name = TDE_RMGR_NAME, .rm_redo = tde_redo, \
	 .rm_desc = tde_desc, .rm_identify = tde_identify}
#define TDE_RMGR_DESC_DATA \
	{TDE_RMGR_NAME, tde_desc, tde_identify}

#define XLOG_TDE_KEYS			0x00	/* internal keys were made */
#define XLOG_TDE_SCOPES			0x10	/* scopes were made or changed */
#define XLOG_TDE_PROVIDERS		0x20	/* a list of providers was changed */
#define XLOG_TDE_DATABASE_DROP	0x30	/* a database is gone for good */

#define XLOG_TDE_WAL_EPOCH		0x40	/* an epoch of WAL begins (wal_epoch.h);
										 * zeros follow, to the page's end */

typedef struct xl_tde_keys
{
	uint32		nkeys;
	/* nkeys key records of TDE_KEY_RECORD_LEN bytes follow */
} xl_tde_keys;

#define SizeOfTdeKeys	sizeof(xl_tde_keys)

typedef struct xl_tde_scopes
{
	uint32		nscopes;
	/* nscopes times: a uint32 length and an encoded scope */
} xl_tde_scopes;

#define SizeOfTdeScopes	sizeof(xl_tde_scopes)

/* XLOG_TDE_PROVIDERS is an encoded list of providers and nothing else. */

typedef struct xl_tde_database_drop
{
	Oid			dbOid;
	TdeId		id;				/* of the scope that was dropped with it */
} xl_tde_database_drop;

extern void tde_redo(XLogReaderState *record);
extern void tde_desc(StringInfo buf, XLogReaderState *record);
extern const char *tde_identify(uint8 info);

#endif							/* TDE_XLOG_H */
