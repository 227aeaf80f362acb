/*-------------------------------------------------------------------------
 *
 * encrypt_wal.c
 *	  The option -E/--encrypt-wal of pg_basebackup.
 *
 * WAL comes from the server as it stands in its files, so it is encrypted, or
 * not, before pg_basebackup sees it.  The option, which others need, makes sure
 * that it is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/encrypt_wal.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/logging.h"
#include "tde/fe_encrypt_wal.h"

static bool wanted = false;

void
tde_fe_encrypt_wal_option(const char *cipher)
{
	wanted = true;
	if (cipher && strncmp(cipher, "aes_128", strlen("aes_128")) != 0)
		pg_log_warning("cipher \"%s\" is ignored: the server encrypts WAL, by AES with 128 bits",
					   cipher);
}

void
tde_fe_encrypt_wal_check(PGconn *conn)
{
	PGresult   *res;

	if (!wanted)
		return;
	res = PQexec(conn, "SHOW pg_tde.wal_is_encrypted");
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		pg_fatal("could not find out whether the server encrypts WAL: %s",
				 PQerrorMessage(conn));
	if (PQntuples(res) != 1 || strcmp(PQgetvalue(res, 0, 0), "on") != 0)
	{
		pg_log_error("the server does not encrypt WAL");
		pg_log_error_detail("What it writes or, on a standby, replays is in clear.");
		pg_log_error_hint("Set \"pg_tde.wal_encrypt\" to on where WAL is written, on the server or a standby's primary, and restart it; or take the backup without -E, with WAL in clear.");
		exit(1);
	}
	PQclear(res);
}
