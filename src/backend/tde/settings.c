/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Settings of Coffer, and the locking of memory that one of them asks for.
 *
 * The settings are made together with the server's own, before any
 * configuration file or command line is read.  So they are there in every
 * process and for "postgres --describe-config", whether or not a library is
 * preloaded.  A name under "pg_tde." that is not one of them is refused
 * from the beginning: a server that does not know pg_tde.wal_encrypt, or
 * whose configuration misspells it, must not start as if nothing had been
 * asked of it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/settings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "miscadmin.h"
#include "tde/cipher.h"
#include "tde/settings.h"
#include "utils/guc.h"

int			tde_cipher = TDE_AES_128_XTS;
bool		tde_enforce_encryption = false;
bool		tde_inherit_global_providers = true;
bool		tde_wal_encrypt = false;
bool		tde_accept_clear_wal = false;
bool		tde_enforce_wal_encryption = false;
bool		tde_lock_memory = false;
int			tde_key_wait_timeout = 30;
int			tde_key_state_poll_interval = 0;
char	   *tde_archive_command = NULL;
char	   *tde_archive_temp_directory = NULL;
int			tde_key_state_action = TDE_KEY_STATE_LOG;

bool		tde_log_key_access = true;
static int	cipher_name = TDE_AES_128_XTS;
static char *give_up_databases = NULL;
static bool wal_is_encrypted = false;
bool		(*tde_ask_wal_is_encrypted) (void) = NULL;

/*
 * The names of pg_tde 2.2, for the ciphers that take the place of its own, have
 * values of their own, so that what is shown is what was given.
 */
#define OTHER_NAME		0x100	/* no bit of a TdeCipher */

static const struct config_enum_entry cipher_options[] = {
	{"aes_128_xts", TDE_AES_128_XTS, false},
	{"aes_256_xts", TDE_AES_256_XTS, false},
	{"aes_128_cbc", TDE_AES_128_CBC, false},
	{"aes_256_cbc", TDE_AES_256_CBC, false},
	{"aes_128", TDE_AES_128_XTS | OTHER_NAME, true},
	{"aes_256", TDE_AES_256_XTS | OTHER_NAME, true},
	{NULL, 0, false}
};

static void
assign_cipher(int newval, void *extra)
{
	tde_cipher = newval & ~OTHER_NAME;
}

static const struct config_enum_entry key_state_actions[] = {
	{"log", TDE_KEY_STATE_LOG, false},
	{"shutdown", TDE_KEY_STATE_SHUTDOWN, false},
	{NULL, 0, false}
};

static bool
parse_number(const char **p, uint32 *number)
{
	unsigned long value;
	char	   *end;

	errno = 0;
	value = strtoul(*p, &end, 10);
	if (**p < '0' || **p > '9' || errno != 0 || value > PG_UINT32_MAX)
		return false;
	*number = (uint32) value;
	*p = end;
	return true;
}

/*
 * What a list names next, separated by commas: a database by its OID, or a
 * relation of it, as OID/FILENUMBER; moves *list behind it.  False at its end;
 * InvalidOid if it is no such list.
 */
static bool
next_given_up(const char **list, Oid *dbOid, RelFileNumber *relNumber)
{
	const char *p = *list + strspn(*list, " \t");
	uint32		db;

	*dbOid = InvalidOid;
	*relNumber = InvalidRelFileNumber;
	if (*p == '\0')
		return false;
	if (!parse_number(&p, &db))
		return true;
	if (*p == '/')
	{
		p++;
		if (!parse_number(&p, relNumber) || !RelFileNumberIsValid(*relNumber))
			return true;
	}
	p += strspn(p, " \t");
	if (*p == ',')
		p++;
	else if (*p != '\0')
		return true;
	*dbOid = db;
	*list = p;
	return true;
}

/*
 * Recovery has no catalogs, in which it could look names up.
 */
static bool
check_give_up_databases(char **newval, void **extra, GucSource source)
{
	const char *list = *newval;
	Oid			dbOid;
	RelFileNumber relNumber;

	while (next_given_up(&list, &dbOid, &relNumber))
	{
		if (!OidIsValid(dbOid))
		{
			GUC_check_errdetail("It must be a list of OIDs of databases, or of OID/FILENUMBER for single relations, separated by commas.");
			return false;
		}
	}
	return true;
}

/*
 * With InvalidRelFileNumber: the database as a whole.
 */
static bool
gives_up(Oid dbOid, RelFileNumber relNumber)
{
	const char *list = give_up_databases;
	Oid			db;
	RelFileNumber rel;

	while (next_given_up(&list, &db, &rel) && OidIsValid(db))
		if (db == dbOid && rel == relNumber)
			return true;
	return false;
}

bool
TdeGivesUpDatabase(Oid dbOid)
{
	return gives_up(dbOid, InvalidRelFileNumber);
}

bool
TdeGivesUpRelation(Oid dbOid, RelFileNumber relNumber)
{
	return gives_up(dbOid, relNumber);
}

static const char *
show_wal_is_encrypted(void)
{
	return tde_ask_wal_is_encrypted && tde_ask_wal_is_encrypted() ? "on" : "off";
}

/*
 * Make the settings.  To be called once a process, when the table of settings
 * has been filled with the server's own and no value has been assigned yet.
 */
void
TdeDefineSettings(void)
{
	bool		preloading = process_shared_preload_libraries_in_progress;

	/*
	 * Settings that only a restart can change may be made while libraries are
	 * preloaded and not later.  We are before that, when it is just as safe.
	 */
	process_shared_preload_libraries_in_progress = true;

	DefineCustomEnumVariable("pg_tde.cipher",
							 "Sets the cipher of relations that are encrypted from now on.",
							 "Relations that are encrypted already keep their cipher until they are rewritten.",
							 &cipher_name,
							 TDE_AES_128_XTS,
							 cipher_options,
							 PGC_SUSET,
							 0,
							 NULL, assign_cipher, NULL);

	DefineCustomIntVariable("pg_tde.key_wait_timeout",
							"Sets how long a start of the server that replays WAL waits for a key provider that does not answer.",
							"0 does not wait, -1 waits without limit. A standby that serves queries always waits.",
							&tde_key_wait_timeout,
							30,
							-1, INT_MAX / 1000,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomStringVariable("pg_tde.archive_command",
							   "Sets the shell command that archives a WAL segment in clear.",
							   "It is used if \"archive_library\" is \"pg_tde\".",
							   &tde_archive_command,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("pg_tde.archive_temp_directory",
							   "Sets the directory in memory where WAL in clear is put for \"pg_tde.archive_command\".",
							   NULL,
							   &tde_archive_temp_directory,
							   "/dev/shm",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("pg_tde.give_up_databases",
							   "Sets the databases whose encrypted relations recovery may give up.",
							   "A list of OIDs, or of OID/FILENUMBER for single relations. Where WAL must be replayed and their keys cannot be had, these encrypted relations are lost.",
							   &give_up_databases,
							   "",
							   PGC_POSTMASTER,
							   0,
							   check_give_up_databases, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.log_key_access",
							 "Logs each access to a principal key and each call to a key provider.",
							 NULL,
							 &tde_log_key_access,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("pg_tde.key_state_poll_interval",
							"Sets how often key providers are asked whether the principal keys in use may still be used.",
							"0 does not ask.",
							&tde_key_state_poll_interval,
							0,
							0, 24 * 60 * 60,
							PGC_POSTMASTER,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomEnumVariable("pg_tde.key_state_action",
							 "Sets what follows when a key provider reports a principal key in use as revoked or destroyed.",
							 NULL,
							 &tde_key_state_action,
							 TDE_KEY_STATE_LOG,
							 key_state_actions,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.enforce_encryption",
							 "Refuses to create tables that are not encrypted.",
							 "Tables that are not encrypted already can be used, and rewritten, as before.",
							 &tde_enforce_encryption,
							 false,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.inherit_global_providers",
							 "Allows databases to begin to use principal keys of global key providers, and the default key.",
							 "A database that uses such a key already keeps it.",
							 &tde_inherit_global_providers,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.wal_encrypt",
							 "Encrypts the write-ahead log.",
							 "A server key must be set.",
							 &tde_wal_encrypt,
							 false,
							 PGC_POSTMASTER,
							 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.enforce_wal_encryption",
							 "Refuses to write WAL in clear after encrypted WAL.",
							 "A start without pg_tde.wal_encrypt fails then, and a standby is not promoted.",
							 &tde_enforce_wal_encryption,
							 false,
							 PGC_POSTMASTER,
							 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("pg_tde.accept_clear_wal",
							 "Recovery accepts WAL in clear where encrypted WAL is expected.",
							 "Only for an archive that pg_tde_archive_decrypt has made and that nobody else can write to.",
							 &tde_accept_clear_wal,
							 false,
							 PGC_POSTMASTER,
							 0,
							 NULL, NULL, NULL);

	/* for programs, which have a replication connection and no functions */
	DefineCustomBoolVariable("pg_tde.wal_is_encrypted",
							 "Shows whether the WAL that is written, or replayed, is encrypted.",
							 NULL,
							 &wal_is_encrypted,
							 false,
							 PGC_INTERNAL,
							 GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, show_wal_is_encrypted);

	DefineCustomBoolVariable("lock_memory",
							 "Locks the memory of all server processes so that it is never swapped out.",
							 "Keys are kept in locked memory in any case, as far as the operating system allows it.",
							 &tde_lock_memory,
							 false,
							 PGC_POSTMASTER,
							 0,
							 NULL, NULL, NULL);

	process_shared_preload_libraries_in_progress = preloading;

	MarkGUCPrefixReserved("pg_tde");
}

/*
 * How much memory must mlockall() be allowed to lock for this process, in kB?
 * It counts all address space, touched or not.  0 if that cannot be told.
 */
static uint64
address_space_kb(void)
{
	unsigned long pages = 0;
	FILE	   *file = fopen("/proc/self/statm", "r");

	if (file == NULL)
		return 0;
	if (fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (uint64) pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/*
 * If lock_memory is on, lock all memory that this process has and will get.
 * Locks are not inherited by child processes, so each calls this for itself:
 * the postmaster, before it starts any, so that a server that may not lock
 * its memory does not start; then each process as it begins.
 *
 * Pages are locked as they come to be used (MCL_ONFAULT, where there is
 * such a thing): a page that was never touched holds no secret, and
 * touching all of shared memory anew in each process would make connecting
 * slow.
 */
void
TdeLockMemory(void)
{
#ifdef MCL_ONFAULT
	int			flags = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
#else
	int			flags = MCL_CURRENT | MCL_FUTURE;
#endif
	struct rlimit limit;

	if (!tde_lock_memory)
		return;

	if (mlockall(flags) == 0)
		return;

	if (errno == ENOMEM || errno == EPERM || errno == EAGAIN)
	{
		int			save_errno = errno;
		uint64		needed = address_space_kb();
		bool		known = (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
							 limit.rlim_cur != RLIM_INFINITY && needed > 0);

		errno = save_errno;
		ereport(FATAL,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not lock memory: %m"),
				 known ?
				 errdetail("\"lock_memory\" is on, and this process needs to lock at least %llu kB; it may lock at most %llu kB.",
						   (unsigned long long) needed,
						   (unsigned long long) limit.rlim_cur / 1024) : 0,
				 errhint("Allow the server to lock memory without limit (\"ulimit -l unlimited\", or LimitMEMLOCK=infinity in its systemd unit), or turn \"lock_memory\" off.")));
	}

	ereport(FATAL,
			(errcode(ERRCODE_SYSTEM_ERROR),
			 errmsg("could not lock memory: %m"),
			 errhint("Turn \"lock_memory\" off where the operating system cannot lock memory.")));
}
