/*-------------------------------------------------------------------------
 *
 * pg_tde.h
 *	  What the files of the extension share: checks that the SQL functions
 *	  begin with, and how they take their arguments.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/pg_tde.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_TDE_H
#define PG_TDE_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "tde/scope.h"

/*
 * Error unless the user is a superuser.  For functions where the privilege to
 * execute them is not enough.
 */
extern void pg_tde_require_superuser(FunctionCallInfo fcinfo);

/*
 * Error in recovery, where the function would change what a standby only
 * receives, and in a transaction that is read only.
 */
extern void pg_tde_require_writable(FunctionCallInfo fcinfo);

/*
 * Text arguments, as palloc'd strings.  "what" names the argument in errors:
 * NULL, an empty string and one of more than max_bytes bytes are refused.
 */
extern char *pg_tde_text_arg(FunctionCallInfo fcinfo, int argno,
							 const char *what, int max_bytes);

extern char *pg_tde_provider_name_arg(FunctionCallInfo fcinfo, int argno);
extern char *pg_tde_key_name_arg(FunctionCallInfo fcinfo, int argno);

/*
 * A function that changes keys or providers, of these a database's or
 * (InvalidOid) the global ones.  An error in it is written to the log of
 * accesses.
 */
typedef void (*PgTdeChange) (FunctionCallInfo fcinfo, TdeScopeKind kind,
							 Oid provider_db);

extern Datum pg_tde_audited(FunctionCallInfo fcinfo, const char *operation,
							PgTdeChange change, TdeScopeKind kind,
							Oid provider_db);

/* Microseconds since 1970, as our files count, to a timestamp. */
extern TimestampTz pg_tde_unix_time(uint64 micros);

extern PGDLLEXPORT void pg_tde_key_state_main(Datum main_arg);
extern PGDLLEXPORT void pg_tde_key_retry_main(Datum main_arg);

#endif							/* PG_TDE_H */
