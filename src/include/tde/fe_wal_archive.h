/*-------------------------------------------------------------------------
 *
 * fe_wal_archive.h
 *	  What pg_tde_archive_decrypt and pg_tde_restore_encrypt share.
 *
 * All of it ends the program with a message on failure.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/fe_wal_archive.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FE_WAL_ARCHIVE_H
#define TDE_FE_WAL_ARCHIVE_H

#include "tde/fe_key_store.h"

/* ---- command line (archive_options.c) ---- */

typedef struct TdeArchiveOptions
{
	const char *pgdata;			/* or NULL */
	const char *temp_directory;
	const char *name;			/* of the file in the archive, %f */
	const char *path;			/* of the server's file, %p */
	const char *command;		/* or NULL */
	bool		keys_on_stdin;	/* the server gives them */
} TdeArchiveOptions;

/* default_wait is for tde_fe_set_key_wait(). */
extern void tde_fe_parse_archive_options(int argc, char **argv,
										 bool needs_command,
										 int default_wait,
										 TdeArchiveOptions *options);

/*
 * The part of --help that they share; what is in the temporary directory, and
 * how long do they wait?
 */
extern void tde_fe_print_archive_options(const char *temp_use,
										 const char *default_wait);

/* ---- copying WAL (copy_wal.c) ---- */

/* What happens to the pages of a file. */
typedef enum TdeWalCopyMode
{
	TDE_WAL_COPY_AS_IS,
	TDE_WAL_COPY_DECRYPT,		/* encrypted pages are decrypted */
	TDE_WAL_COPY_ENCRYPT,		/* those that were decrypted are encrypted */
} TdeWalCopyMode;

typedef struct TdeWalCopy TdeWalCopy;

/*
 * The keys are those of the data directory "pgdata", if given, or that which
 * has "file" in its directory of WAL, or the current directory, or PGDATA: the
 * first of them that is a data directory, which is returned.  To be called
 * before anything makes OpenSSL allocate memory.
 */
extern const char *tde_fe_wal_copy_init(const char *pgdata, const char *file);

/* Is it the name of a segment, maybe of a partial one? */
extern bool tde_fe_is_wal_segment(const char *name);

/*
 * Open a file to be copied.  "shown" is how messages call it.
 */
extern TdeWalCopy *tde_fe_wal_copy_open(const char *name, const char *path,
										const char *shown,
										TdeWalCopyMode mode);

/*
 * Get the keys of all pages that will be changed; false if there are none.
 * This may wait for a key provider.
 */
extern bool tde_fe_wal_copy_prepare(TdeWalCopy *copy);

/* Write the copy to a file descriptor, and close the original. */
extern void tde_fe_wal_copy_write(TdeWalCopy *copy, int fd, const char *path);

/* ---- keys that the server gives (given_keys.c) ---- */

/* Read them from standard input, to the end, and put /dev/null in its place. */
extern void tde_fe_read_given_keys(void);

/* Is the key of a page's epoch among them? */
extern bool tde_fe_find_given_key(const TdeWalEpochQuery *query,
								  TdeWalEpoch *epoch);

/* ---- a private directory in memory, and commands (private_dir.c) ---- */

/*
 * Make the program's private directory in "parent", which must be in memory.
 * Signals that end the program wait from now on, and the directory is removed
 * when the program ends.
 */
extern const char *tde_fe_make_private_dir(const char *parent);

/* Is there room for so many bytes on the file system of a directory? */
extern bool tde_fe_has_room(const char *dir, uint64 size);

/* Remove it before that.  The signals that waited end the program. */
extern void tde_fe_remove_private_dir(void);

/*
 * The same for a while in which the program is not to be ended.
 */
extern void tde_fe_hold_signals(void);
extern void tde_fe_release_signals(void);

/*
 * A command with %f and %p replaced by a name and a path; palloc'd.
 * "parameter" is how messages call it.
 */
extern char *tde_fe_expand_command(const char *command, const char *parameter,
								   const char *name, const char *path);

/*
 * Run a command by the shell and wait for it while signals are held; returns
 * its exit code, as a shell states it.  A signal that should end the program
 * is passed on to the command, and then ends the program.
 */
extern int	tde_fe_run_command(const char *command);

/* Let the shell and the command take the place of the program. */
pg_noreturn extern void tde_fe_become_command(const char *command);

#endif							/* TDE_FE_WAL_ARCHIVE_H */
