/*-------------------------------------------------------------------------
 *
 * archive.c
 *	  The library as an archive_library: archives WAL in clear with the keys
 *	  that the server has.
 *
 * pg_tde_archive_decrypt does the work, as it does in an archive_command, but
 * it is given the keys of the epochs that a segment is in through a pipe, so it
 * need not ask a key provider.  They are in locked memory at both ends; the
 * server's own key is not among them.  An epoch whose key the server has not
 * is left to the program.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/archive.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "archive/archive_module.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "tde/given_key.h"
#include "tde/settings.h"
#include "tde/wal_reader.h"
#include "utils/wait_event.h"

#define PROGRAM		"pg_tde_archive_decrypt"

static bool
is_configured(ArchiveModuleState *state)
{
	if (tde_archive_command[0] != '\0')
		return true;
	arch_module_check_errdetail("\"%s\" is not set.",
								"pg_tde.archive_command");
	return false;
}

/* ---- keys ---- */

/* Write the key of a page's epoch to the pipe, if the server has it. */
static void
send_key(FILE *pipe, const TdeWalEpochQuery *query)
{
	TdeWalEpoch epoch;
	TdeGivenKey given = {0};
	char		problem[1024];

	if (tde_wal_key_source->find(query, &epoch, problem,
								 sizeof(problem)) != TDE_WAL_KEY_FOUND)
		return;
	given.id = epoch.id;
	given.tli = epoch.tli;
	given.start = epoch.start;
	tde_copy_key(given.key, epoch.key, TDE_WAL_KEY_LEN);
	tde_wipe(epoch.key, sizeof(epoch.key));

	/* a program that has ended says so by its status */
	(void) fwrite(&given, sizeof(given), 1, pipe);
	tde_wipe(&given, sizeof(given));
}

/*
 * Write the keys of all epochs that a segment has pages of.  Such pages are
 * next to each other.
 */
static void
send_keys(FILE *pipe, const char *path)
{
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	TdeWalEpochQuery last = {0};

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	for (int offset = 0; offset < wal_segment_size; offset += XLOG_BLCKSZ)
	{
		XLogLongPageHeaderData header;
		uint32		id;

		if (pg_pread(fd, &header, SizeOfXLogShortPHD, offset) !=
			(ssize_t) SizeOfXLogShortPHD)
			break;
		id = tde_wal_page_key_id(&header);
		if (header.std.xlp_magic != XLOG_PAGE_MAGIC || id == 0 ||
			(id & TDE_WAL_DECRYPTED) ||
			(id == last.id && header.std.xlp_tli == last.tli))
			continue;
		last.id = id;
		last.tli = header.std.xlp_tli;
		last.pageaddr = header.std.xlp_pageaddr;
		send_key(pipe, &last);
	}
	CloseTransientFile(fd);
}

/* ---- the program ---- */

/* Append an argument, as the shell takes it. */
static void
append_argument(StringInfo command, const char *argument)
{
	appendStringInfoString(command, " '");
	for (const char *p = argument; *p; p++)
	{
		if (*p == '\'')
			appendStringInfoString(command, "'\\''");
		else
			appendStringInfoChar(command, *p);
	}
	appendStringInfoChar(command, '\'');
}

static bool
archive_file(ArchiveModuleState *state, const char *file, const char *path)
{
	StringInfoData command;
	char		program[MAXPGPATH];
	bool		is_segment = IsXLogFileName(file) || IsPartialXLogFileName(file);
	FILE	   *pipe;
	int			status;

	strlcpy(program, my_exec_path, sizeof(program));
	get_parent_directory(program);
	join_path_components(program, program, PROGRAM);

	/* the shell need not stay */
	initStringInfo(&command);
	appendStringInfoString(&command, "exec");
	append_argument(&command, program);
	append_argument(&command, "--keys-on-stdin");
	append_argument(&command, "-T");
	append_argument(&command, tde_archive_temp_directory);
	append_argument(&command, "--");
	append_argument(&command, file);
	append_argument(&command, path);
	append_argument(&command, tde_archive_command);

	fflush(NULL);
	pipe = OpenPipeStream(command.data, PG_BINARY_W);
	if (pipe == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not execute command \"%s\": %m", command.data)));

	/* keys go right into the pipe */
	setvbuf(pipe, NULL, _IONBF, 0);
	pgstat_report_wait_start(WAIT_EVENT_ARCHIVE_COMMAND);
	if (is_segment)
		send_keys(pipe, path);
	status = ClosePipeStream(pipe);
	pgstat_report_wait_end();

	/* as for an archive_command, a signal ends the archiver as well */
	if (status != 0)
		ereport(wait_result_is_any_signal(status, true) ? FATAL : LOG,
				(errmsg("could not archive file \"%s\": %s",
						file, wait_result_to_str(status)),
				 errdetail("The command was: %s", tde_archive_command)));
	else
		elog(DEBUG1, "archived write-ahead log file \"%s\"", file);
	pfree(command.data);
	return status == 0;
}

const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
	static const ArchiveModuleCallbacks callbacks = {
		.check_configured_cb = is_configured,
		.archive_file_cb = archive_file,
	};

	return &callbacks;
}
