/*-------------------------------------------------------------------------
 *
 * private_dir.c
 *	  A private directory in memory for files in clear, and the commands that
 *	  use them.
 *
 * The directory must not outlive the program.  It is removed at exit; signals
 * are held back while it exists, and dealt with where the program waits for a
 * command.  What a program that was killed has left, the next one removes: a
 * directory that nobody has locked has no owner.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/private_dir.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include "common/logging.h"
#include "common/percentrepl.h"
#include "tde/fe_wal_archive.h"

#define PREFIX			"pg_tde_wal."

static char *private_dir = NULL;

/* The signals that are held, and the mask before. */
static sigset_t held;
static sigset_t mask_before;
static bool holding = false;

/* ---- signals ---- */

void
tde_fe_hold_signals(void)
{
	static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

	if (holding)
		return;
	sigemptyset(&held);
	for (int i = 0; i < lengthof(ending); i++)
	{
		struct sigaction action;

		if (sigaction(ending[i], NULL, &action) == 0 &&
			action.sa_handler != SIG_IGN)
			sigaddset(&held, ending[i]);
	}

	/* this one for the end of a command; we may have inherited it ignored */
	signal(SIGCHLD, SIG_DFL);
	sigaddset(&held, SIGCHLD);
	sigprocmask(SIG_BLOCK, &held, &mask_before);
	holding = true;
}

void
tde_fe_release_signals(void)
{
	if (holding)
		sigprocmask(SIG_SETMASK, &mask_before, NULL);
	holding = false;
}

/* ---- the directory ---- */

static bool
is_in_memory(const char *path)
{
#ifdef __linux__
	struct statfs fs;

	if (statfs(path, &fs) != 0)
		pg_fatal("could not stat file system of directory \"%s\": %m", path);
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
#else
	return false;
#endif
}

/*
 * Get the lock of a directory, which lasts as long as the program; false if
 * another program has it (and we do not wait), or the directory is gone.
 */
static bool
lock_dir(const char *path, bool wait)
{
	struct stat at_path;
	struct stat locked;
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) == 0 &&
		fstat(fd, &locked) == 0 && stat(path, &at_path) == 0 &&
		at_path.st_ino == locked.st_ino)
		return true;
	close(fd);
	return false;
}

static void
remove_leftovers(const char *parent)
{
	DIR		   *dir = opendir(parent);
	struct dirent *de;

	if (dir == NULL)
		return;
	while ((de = readdir(dir)) != NULL)
	{
		char	   *path;
		struct stat st;

		if (strncmp(de->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		path = psprintf("%s/%s", parent, de->d_name);
		if (lstat(path, &st) == 0 && st.st_uid == geteuid() &&
			lock_dir(path, false))
		{
			pg_log_warning("removing directory \"%s\", which a program that was killed has left",
						   path);
			(void) rmtree(path, true);
		}
		pfree(path);
	}
	closedir(dir);
}

static void
remove_dir(void)
{
	if (private_dir)
		(void) rmtree(private_dir, true);
	private_dir = NULL;
}

const char *
tde_fe_make_private_dir(const char *parent)
{
	if (!is_in_memory(parent))
	{
		pg_log_error("directory \"%s\" is not in memory", parent);
		pg_log_error_detail("WAL in clear may be written only to a file system of type tmpfs or ramfs.");
		pg_log_error_hint("Name one with --temp-directory.");
		exit(1);
	}
	remove_leftovers(parent);

	tde_fe_hold_signals();
	atexit(remove_dir);
	for (;;)
	{
		struct stat st;

		private_dir = psprintf("%s/%sXXXXXX", parent, PREFIX);
		if (mkdtemp(private_dir) == NULL)
		{
			pg_log_error("could not create directory \"%s\": %m", private_dir);
			private_dir = NULL;
			exit(1);
		}
		if (lock_dir(private_dir, true))
			return private_dir;

		/* another program may have taken it for a leftover */
		if (stat(private_dir, &st) == 0)
			pg_fatal("could not lock directory \"%s\": %m", private_dir);
	}
}

bool
tde_fe_has_room(const char *dir, uint64 size)
{
	struct statvfs fs;

	if (statvfs(dir, &fs) != 0)
		pg_fatal("could not stat file system of directory \"%s\": %m", dir);

	/* a tmpfs without a limit has no blocks */
	return fs.f_blocks == 0 || (uint64) fs.f_bavail * fs.f_frsize >= size;
}

void
tde_fe_remove_private_dir(void)
{
	remove_dir();
	tde_fe_release_signals();
}

/* ---- commands ---- */

char *
tde_fe_expand_command(const char *command, const char *parameter,
					  const char *name, const char *path)
{
	return replace_percent_placeholders(command, parameter, "fp", name, path);
}

void
tde_fe_become_command(const char *command)
{
	execl("/bin/sh", "sh", "-c", command, (char *) NULL);
	pg_fatal("could not execute command \"%s\": %m", command);
}

int
tde_fe_run_command(const char *command)
{
	int			stopped_by = 0;
	int			status;
	pid_t		pid;
	pid_t		ended;

	Assert(holding);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		pg_fatal("could not create process: %m");
	if (pid == 0)
	{
		sigprocmask(SIG_SETMASK, &mask_before, NULL);
		execl("/bin/sh", "sh", "-c", command, (char *) NULL);
		_exit(127);
	}

	while ((ended = waitpid(pid, &status, WNOHANG)) == 0)
	{
		int			sig;

		if (sigwait(&held, &sig) == 0 && sig != SIGCHLD)
		{
			stopped_by = sig;
			kill(pid, sig);
		}
	}
	if (ended < 0)
		pg_fatal("could not wait for process: %m");

	if (stopped_by != 0)
	{
		remove_dir();
		raise(stopped_by);
		tde_fe_release_signals();
	}
	return wait_result_to_exit_code(status);
}
