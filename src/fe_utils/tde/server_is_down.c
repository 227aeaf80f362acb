/*-------------------------------------------------------------------------
 *
 * server_is_down.c
 *	  Programs that write into a data directory make sure that no server runs
 *	  there.  That does not keep one from starting.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/server_is_down.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <signal.h>

#include "common/logging.h"
#include "tde/fe_key_store.h"

/*
 * The process that postmaster.pid names, if it is there and alive; else 0.
 */
static long
running_server(void)
{
	FILE	   *file = fopen("postmaster.pid", "r");
	long		pid;

	if (file == NULL)
	{
		if (errno != ENOENT)
			pg_fatal("could not open file \"%s\": %m", "postmaster.pid");
		return 0;
	}
	if (fscanf(file, "%ld", &pid) != 1)
		pg_fatal("invalid data in lock file \"%s\"", "postmaster.pid");
	fclose(file);
	pid = labs(pid);			/* that of a standalone backend is negative */
	return kill((pid_t) pid, 0) == 0 || errno == EPERM ? pid : 0;
}

void
tde_fe_check_server_is_down(const char *hint)
{
	long		pid = running_server();

	if (pid == 0)
		return;
	pg_log_error("a server is running in this data directory (PID %ld)", pid);
	pg_log_error_hint("%s", hint);
	exit(1);
}
