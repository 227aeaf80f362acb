/*-------------------------------------------------------------------------
 *
 * fe_encrypt_wal.h
 *	  The option -E/--encrypt-wal of pg_basebackup.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/fe_encrypt_wal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FE_ENCRYPT_WAL_H
#define TDE_FE_ENCRYPT_WAL_H

#include "libpq-fe.h"

/* The option was given, with this cipher or NULL. */
extern void tde_fe_encrypt_wal_option(const char *cipher);

/*
 * Ends the program with a message if the option was given, and the server
 * behind this replication connection does not encrypt its WAL.
 */
extern void tde_fe_encrypt_wal_check(PGconn *conn);

#endif							/* TDE_FE_ENCRYPT_WAL_H */
