/*-------------------------------------------------------------------------
 *
 * fe_encrypt_wal.h
 *	  The option -E/--encrypt-wal of pg_basebackup, and a target that was
 *	  prepared as for pg_tde 2.
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

/*
 * If the program was called pg_tde_basebackup, and a directory holds a copy of
 * a key store and nothing else, empty it.  A target of NULL is none.
 */
extern void tde_fe_take_backup_target(const char *program,
									  const char *target);

#endif							/* TDE_FE_ENCRYPT_WAL_H */
