/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Settings of Coffer.  They are defined in the server itself, not in the
 *	  extension's library, so that "postgres --describe-config" lists them and
 *	  recovery knows them.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/settings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SETTINGS_H
#define TDE_SETTINGS_H

#include "common/relpath.h"

extern PGDLLIMPORT int tde_cipher;	/* pg_tde.cipher, a TdeCipher */
extern PGDLLIMPORT bool tde_enforce_encryption; /* pg_tde.enforce_encryption */
extern PGDLLIMPORT bool tde_inherit_global_providers;	/* pg_tde.inherit_global_providers */
extern PGDLLIMPORT bool tde_wal_encrypt;	/* pg_tde.wal_encrypt */
extern PGDLLIMPORT bool tde_accept_clear_wal;	/* pg_tde.accept_clear_wal */
extern PGDLLIMPORT bool tde_enforce_wal_encryption;	/* pg_tde.enforce_wal_encryption */
extern PGDLLIMPORT bool tde_lock_memory;	/* lock_memory */
extern PGDLLIMPORT char *tde_archive_command;	/* pg_tde.archive_command */
extern PGDLLIMPORT char *tde_archive_temp_directory;
extern PGDLLIMPORT int tde_key_wait_timeout;	/* pg_tde.key_wait_timeout, s */
extern PGDLLIMPORT bool tde_log_key_access; /* pg_tde.log_key_access */
extern PGDLLIMPORT int tde_key_state_poll_interval; /* s; 0 is off */
extern PGDLLIMPORT int tde_key_state_action;	/* a TdeKeyStateAction */

/* What pg_tde.wal_is_encrypted shows; set where WAL is taken care of. */
extern bool (*tde_ask_wal_is_encrypted) (void);

/* pg_tde.key_state_action: when a principal key must not be used any more */
typedef enum TdeKeyStateAction
{
	TDE_KEY_STATE_LOG,
	TDE_KEY_STATE_SHUTDOWN,
} TdeKeyStateAction;

/*
 * Does pg_tde.give_up_databases name this database?
 */
extern bool TdeGivesUpDatabase(Oid dbOid);

/* Does it name this single relation? */
extern bool TdeGivesUpRelation(Oid dbOid, RelFileNumber relNumber);

/* Called once where the server's built-in settings are made. */
extern void TdeDefineSettings(void);

/*
 * Lock this process's memory if lock_memory is on; FATAL if that cannot be
 * done.  Called by the postmaster (or a standalone backend) before it starts
 * other processes, and by each process when it begins.
 */
extern void TdeLockMemory(void);

#endif							/* TDE_SETTINGS_H */
