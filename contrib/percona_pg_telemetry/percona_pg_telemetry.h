/*-------------------------------------------------------------------------
 *
 * percona_pg_telemetry.h
 *	  What the files of the library share.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/percona_pg_telemetry/percona_pg_telemetry.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PERCONA_PG_TELEMETRY_H
#define PERCONA_PG_TELEMETRY_H

#include "lib/stringinfo.h"

#define TELEMETRY_LIBRARY	"percona_pg_telemetry"

/* settings */
extern char *telemetry_path;
extern int	telemetry_files_to_keep;

/*
 * facts.c: append the report, one JSON object, to a string.  Must be called
 * outside a transaction by the library's worker, which waits for other
 * workers of its own meanwhile.
 */
extern void telemetry_report(StringInfo json);

/*
 * extensions.c: append a JSON array with the extensions of a database to a
 * string; "null" if they could not be found out.  As above.
 */
extern void telemetry_extensions(StringInfo json, Oid database);

/*
 * files.c: can reports be written?  If not, the log says why, once.
 */
extern bool telemetry_directory_is_ready(void);

/*
 * files.c: write a report, and remove the oldest ones beyond files_to_keep.
 * What goes wrong is logged and does no harm; the result is false then.
 */
extern bool telemetry_write(const StringInfoData *json);

#endif							/* PERCONA_PG_TELEMETRY_H */
