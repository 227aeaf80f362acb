/*-------------------------------------------------------------------------
 *
 * file_replace.c
 *	  Replacing a keyring file: one writer at a time, all or nothing.
 *
 * A keyring file is never changed in place.  A writer makes the new content
 * in a file beside it, FILE.tmp, syncs it, renames it over the old one, and
 * syncs the directory.  So a reader needs no lock: it has the old content
 * open or the new one.
 *
 * FILE.tmp is the writers' lock as well: whoever made it, holds a flock(2)
 * lock on it, and still finds it under that name, may rename it.  One that
 * nobody holds a lock on was left by a writer who was killed, and is removed
 * by the next.  Nothing else is left behind.  (A lock on the directory would
 * be simpler, but whoever may read a directory, /tmp for example, could hold
 * it for ever, and NFS has no such lock; a lock on the keyring file itself
 * does not exist before its first key.)
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/file_replace.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_replace.h"
#include "portability/instr_time.h"

#define DEFAULT_TIMEOUT_MS	10000
#define LOCK_POLL_US		5000

void
keyring_get_directory(char *path)
{
	get_parent_directory(path);
	if (path[0] == '\0')
		strcpy(path, ".");
}

TdeKeyringStatus
keyring_errno_status(void)
{
	switch (errno)
	{
		case EACCES:
		case EPERM:
			return TDE_KEYRING_DENIED;
		case ENOENT:
		case ENOTDIR:
		case ESTALE:
			return TDE_KEYRING_UNREACHABLE;
		default:
			return TDE_KEYRING_FAILED;
	}
}

/*
 * The file that a writer replaces: the target of the path where that is a
 * symbolic link.  A link to nothing is refused: more likely than not
 * something is not mounted that should be there.
 */
static TdeKeyringStatus
resolve_path(const char *path, char *target, TdeKeyringError *error)
{
	struct stat st;
	char	   *real = realpath(path, NULL);

	if (real == NULL && (errno != ENOENT || lstat(path, &st) == 0))
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not resolve path of keyring file \"%s\": %m"),
								path);
	strlcpy(target, real ? real : path, PATH_MAX);
	free(real);
	return TDE_KEYRING_OK;
}

/* Is it still this file that has the name? */
static bool
has_name(int fd, const char *path)
{
	struct stat a,
				b;

	return fstat(fd, &a) == 0 && lstat(path, &b) == 0 &&
		a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/*
 * One attempt to make the new file and lock it.  Returns its descriptor, or
 * -1 with errno: EWOULDBLOCK if another writer holds it, 0 if it came or went
 * while we looked, so that the next attempt may succeed at once.
 */
static int
try_new_file(const char *path)
{
	bool		fresh = true;
	int			save_errno = 0;
	int			fd;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
	if (fd < 0 && errno == EEXIST)
	{
		fresh = false;
		fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (fd < 0 && errno == ENOENT)
			errno = 0;
	}
	if (fd < 0)
		return -1;

	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
	{
		save_errno = errno;
		/* where there are no locks */
		if (fresh && errno != EWOULDBLOCK && errno != EINTR)
			unlink(path);
	}
	else if (has_name(fd, path))
	{
		/*
		 * Only a file that we made ourselves is good to write to: who knows
		 * who has the other one open.  Nobody alive is at work in it, but for
		 * one who has just made it and not locked it yet; he will notice.
		 */
		if (fresh)
			return fd;
		if (unlink(path) != 0)
			save_errno = errno;
	}
	close(fd);
	errno = save_errno;
	return -1;
}

/*
 * Make the new file, and with it get the right to replace the keyring file.
 * Waits for other writers.
 */
static TdeKeyringStatus
lock_new_file(const char *path, const TdeKeyringCall *call, int *fd,
			  TdeKeyringError *error)
{
	int			timeout = DEFAULT_TIMEOUT_MS;
	instr_time	start;
	instr_time	now;

	if (call && call->timeout_ms > 0)
		timeout = call->timeout_ms;
	INSTR_TIME_SET_CURRENT(start);

	while ((*fd = try_new_file(path)) < 0)
	{
		if (errno == 0)
			continue;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return tde_keyring_fail(error, keyring_errno_status(), NULL,
									_("could not create file \"%s\": %m"),
									path);
		if (call && call->cancelled && call->cancelled(call->arg))
			return tde_keyring_fail(error, TDE_KEYRING_CANCELLED, NULL,
									_("canceled while waiting for a lock on file \"%s\""),
									path);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		if (INSTR_TIME_GET_MILLISEC(now) >= timeout)
			return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
									_("Another process is writing the keyring file and has not finished."),
									_("timed out waiting for a lock on file \"%s\""),
									path);
		pg_usleep(LOCK_POLL_US);
	}
	return TDE_KEYRING_OK;
}

/* Write the content to the new file, and to disk. */
static TdeKeyringStatus
write_new_file(const KeyringReplace *replace, const char *data, size_t len,
			   TdeKeyringError *error)
{
	const char *path = replace->newpath;
	int			fd = replace->fd;
	size_t		done = 0;

	/* a umask may have taken bits away */
	if (fchmod(fd, S_IRUSR | S_IWUSR) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not set permissions of file \"%s\": %m"),
								path);
	while (done < len)
	{
		ssize_t		n = write(fd, data + done, len - done);

		if (n > 0)
			done += n;
		else if (n == 0 || errno != EINTR)
		{
			/* if write did not say why, assume that the disk is full */
			if (n == 0)
				errno = ENOSPC;
			return tde_keyring_fail(error, keyring_errno_status(), NULL,
									_("could not write to file \"%s\": %m"),
									path);
		}
	}
	if (fsync(fd) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not fsync file \"%s\": %m"), path);
	return TDE_KEYRING_OK;
}

/* Give the new file the name of the keyring file, durably. */
static TdeKeyringStatus
rename_new_file(KeyringReplace *replace, TdeKeyringError *error)
{
	TdeKeyringStatus status = TDE_KEYRING_OK;
	char		directory[PATH_MAX];
	int			dirfd;

	strlcpy(directory, replace->path, sizeof(directory));
	keyring_get_directory(directory);

	/* opened before there is something to sync, lest it fail too late */
	dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not open directory \"%s\": %m"),
								directory);
	if (!has_name(replace->fd, replace->newpath))
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("file \"%s\" was removed while it was written"),
								  replace->newpath);
	else if (rename(replace->newpath, replace->path) != 0)
		status = tde_keyring_fail(error, keyring_errno_status(), NULL,
								  _("could not rename file \"%s\" to \"%s\": %m"),
								  replace->newpath, replace->path);
	/* EINVAL: a file system that does not sync directories */
	else if (fsync(dirfd) != 0 && errno != EINVAL)
		status = tde_keyring_fail(error, keyring_errno_status(), NULL,
								  _("could not fsync directory \"%s\": %m"),
								  directory);
	close(dirfd);
	return status;
}

TdeKeyringStatus
keyring_replace_begin(const char *path, const TdeKeyringCall *call,
					  KeyringReplace *replace, TdeKeyringError *error)
{
	TdeKeyringStatus status;

	status = resolve_path(path, replace->path, error);
	if (status != TDE_KEYRING_OK)
		return status;
	snprintf(replace->newpath, sizeof(replace->newpath),
			 "%s" KEYRING_NEW_SUFFIX, replace->path);
	return lock_new_file(replace->newpath, call, &replace->fd, error);
}

TdeKeyringStatus
keyring_replace_commit(KeyringReplace *replace, const char *data, size_t len,
					   TdeKeyringError *error)
{
	TdeKeyringStatus status;

	status = write_new_file(replace, data, len, error);
	if (status == TDE_KEYRING_OK)
		status = rename_new_file(replace, error);
	return status;
}

void
keyring_replace_end(KeyringReplace *replace)
{
	/* unless it has become the keyring file, or is another writer's now */
	if (has_name(replace->fd, replace->newpath))
		unlink(replace->newpath);
	close(replace->fd);			/* and let go of the lock */
}
