/*-------------------------------------------------------------------------
 *
 * storage_faults.c
 *	  A library to preload that takes storage away from a server.
 *
 * Tests only.  Calls on files fail with an errno where a rule says so.  The
 * rules are in the file that COFFER_STORAGE_FAULTS names, which the library
 * maps when its process starts: a test changes them under servers that run,
 * and where there is none a call costs the reading of one integer.
 *
 * The file begins with a FaultFile.  Whoever changes it makes the counter
 * odd, writes the rules and makes it even again.  A line is a rule:
 *
 *		ERRNO PERCENT CALLS PREFIX
 *
 * for example "EIO 50 read,write /data/base/".  CALLS is "*" or a list of the
 * names in call_names.  PREFIX is the beginning of an absolute path, or with a
 * "$" behind it all of one.  It is compared with the path as the call has it
 * and with the one that symbolic links lead to; its own directory is also taken
 * as links lead there.  What has a descriptor is known by /proc/self/fd.
 *
 * The server's own calls come here, the C library's among its own functions do
 * not; so this also has fopen() and opendir().
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/torture/storage_faults.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* the names with and without 64 are two functions here */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

#define FAULT_FILE_SIZE 16384
#define MAX_RULES		32

typedef struct FaultFile
{
	volatile uint32_t counter;
	char		rules[FAULT_FILE_SIZE - sizeof(uint32_t)];
} FaultFile;

typedef enum Call
{
	CALL_OPEN,					/* also fopen() */
	CALL_CREATE,				/* open() with O_CREAT, mkdir() */
	CALL_STAT,					/* also access(); not with a descriptor */
	CALL_READ,
	CALL_WRITE,					/* also allocation and truncation */
	CALL_FSYNC,
	CALL_UNLINK,				/* also rmdir() */
	CALL_RENAME,				/* of either name */
	CALL_OPENDIR,
} Call;

static const char *const call_names[] = {
	"open", "create", "stat", "read", "write", "fsync", "unlink", "rename",
	"opendir"
};

typedef struct Rule
{
	int			error;
	int			percent;
	uint32_t	calls;			/* a bit a Call */
	char		given[PATH_MAX];
	char		real[PATH_MAX];
} Rule;

static const FaultFile *fault_file = NULL;

/* The rules as this process last read them. */
static uint32_t seen = 0;
static uint32_t calls_in_rules = 0;
static int	nrules = 0;
static Rule rules[MAX_RULES];

/* The C library's function of the same name */
#define REAL(name) \
	static __typeof__(&name) real; \
	if (real == NULL) \
		real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

__attribute__((constructor))
static void
map_fault_file(void)
{
	const char *path = getenv("COFFER_STORAGE_FAULTS");
	void	   *map;
	int			fd;

	REAL(open);
	if (path == NULL || (fd = real(path, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	map = mmap(NULL, FAULT_FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		fault_file = map;
	close(fd);
}

static int
error_by_name(const char *name)
{
	static const struct
	{
		const char *name;
		int			error;
	}			errors[] = {
		{"EACCES", EACCES}, {"EIO", EIO}, {"ENOSPC", ENOSPC},
		{"ENOENT", ENOENT}, {"EMFILE", EMFILE}, {"ENOTDIR", ENOTDIR},
		{"EROFS", EROFS}, {"ESTALE", ESTALE}, {"ENOTCONN", ENOTCONN},
	};

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strcmp(name, errors[i].name) == 0)
			return errors[i].error;
	fprintf(stderr, "storage_faults: unknown error \"%s\"\n", name);
	abort();
}

static uint32_t
calls_by_names(char *names)
{
	uint32_t	calls = 0;
	char	   *save;

	if (strcmp(names, "*") == 0)
		return ~(uint32_t) 0;
	for (char *name = strtok_r(names, ",", &save); name != NULL;
		 name = strtok_r(NULL, ",", &save))
	{
		size_t		i = 0;

		while (i < sizeof(call_names) / sizeof(call_names[0]) &&
			   strcmp(name, call_names[i]) != 0)
			i++;
		if (i == sizeof(call_names) / sizeof(call_names[0]))
		{
			fprintf(stderr, "storage_faults: unknown call \"%s\"\n", name);
			abort();
		}
		calls |= UINT32_C(1) << i;
	}
	return calls;
}

/*
 * Where the links in the directory of an absolute path lead; the last
 * component stays.  False where the directory is not there.
 */
static bool
resolve(const char *path, char *out)
{
	char		dir[PATH_MAX];
	char		real[PATH_MAX];
	const char *base = strrchr(path, '/');

	if (base == NULL || strlen(path) >= sizeof(dir))
		return false;
	memcpy(dir, path, base - path);
	dir[base - path] = '\0';
	if (realpath(base == path ? "/" : dir, real) == NULL)
		return false;
	return snprintf(out, PATH_MAX, "%s%s", real, base) < PATH_MAX;
}

static void
read_rules(void)
{
	static char text[sizeof(fault_file->rules)];
	uint32_t	counter;
	char	   *save;

	do
	{
		counter = fault_file->counter;
		__sync_synchronize();
		memcpy(text, fault_file->rules, sizeof(text));
		__sync_synchronize();
	} while (counter % 2 != 0 || counter != fault_file->counter);
	text[sizeof(text) - 1] = '\0';

	nrules = 0;
	calls_in_rules = 0;
	for (char *line = strtok_r(text, "\n", &save);
		 line != NULL && nrules < MAX_RULES;
		 line = strtok_r(NULL, "\n", &save))
	{
		Rule	   *rule = &rules[nrules];
		char		error[32];
		char		calls[256];
		int			at;

		if (sscanf(line, "%31s %d %255s %n", error, &rule->percent, calls,
				   &at) != 3 || strlen(line + at) >= PATH_MAX)
		{
			fprintf(stderr, "storage_faults: not a rule: %s\n", line);
			abort();
		}
		rule->error = error_by_name(error);
		rule->calls = calls_by_names(calls);
		strcpy(rule->given, line + at);
		if (!resolve(rule->given, rule->real))
			strcpy(rule->real, rule->given);
		calls_in_rules |= rule->calls;
		nrules++;
	}
	seen = counter;
}

static bool
begins_with(const char *path, const char *prefix)
{
	size_t		len = strlen(prefix);

	if (len > 0 && prefix[len - 1] == '$')
		return strlen(path) == len - 1 && strncmp(path, prefix, len - 1) == 0;
	return strncmp(path, prefix, len) == 0;
}

/*
 * Is chance of the opinion that a call fails?
 */
static bool
strikes(int percent)
{
	static uint32_t state = 0;

	if (percent >= 100)
		return true;
	if (state == 0)
		state = (uint32_t) getpid() * UINT32_C(2654435761) + 1;
	state = state * UINT32_C(1664525) + UINT32_C(1013904223);
	return (int) ((state >> 16) % 100) < percent;
}

static int
fault_of_path(Call call, const char *path)
{
	char		real[PATH_MAX];
	bool		resolved = resolve(path, real);

	for (int i = 0; i < nrules; i++)
	{
		const Rule *rule = &rules[i];

		if ((rule->calls & (UINT32_C(1) << call)) == 0)
			continue;
		if ((begins_with(path, rule->given) ||
			 begins_with(path, rule->real) ||
			 (resolved && begins_with(real, rule->real))) &&
			strikes(rule->percent))
			return rule->error;
	}
	return 0;
}

/*
 * Is there a rule for such calls?  Nearly always there is none.
 */
static bool
has_rules(Call call)
{
	if (fault_file == NULL)
		return false;
	if (fault_file->counter != seen)
	{
		int			save_errno = errno;

		read_rules();
		errno = save_errno;
	}
	return (calls_in_rules & (UINT32_C(1) << call)) != 0;
}

/*
 * Does this call fail?  Then errno says why.
 */
static bool
fails_at(Call call, int dirfd, const char *path)
{
	char		full[PATH_MAX * 2];
	int			save_errno = errno;
	int			error;

	if (path == NULL || !has_rules(call))
		return false;
	if (path[0] == '/')
		error = fault_of_path(call, path);
	else
	{
		char		link[64];
		ssize_t		len;

		if (dirfd == AT_FDCWD)
			strcpy(link, "/proc/self/cwd");
		else
			snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
		len = readlink(link, full, PATH_MAX);
		if (len <= 0 || len + strlen(path) + 2 > sizeof(full))
			error = 0;
		else
		{
			full[len] = '/';
			strcpy(full + len + 1, path);
			error = fault_of_path(call, full);
		}
	}
	errno = error != 0 ? error : save_errno;
	return error != 0;
}

static bool
fails(Call call, const char *path)
{
	return fails_at(call, AT_FDCWD, path);
}

static bool
fd_fails(Call call, int fd)
{
	char		link[64];
	char		path[PATH_MAX];
	int			save_errno = errno;
	ssize_t		len;
	int			error = 0;

	if (!has_rules(call))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len > 0)
	{
		path[len] = '\0';
		if (path[0] == '/')
			error = fault_of_path(call, path);
	}
	errno = error != 0 ? error : save_errno;
	return error != 0;
}

/* ---- the calls ---- */

#define OPEN_LIKE(name, params, args, dirfd) \
EXPORT int \
name params \
{ \
	mode_t		mode = 0; \
	REAL(name); \
	if ((flags & O_CREAT) != 0) \
	{ \
		va_list		ap; \
		va_start(ap, flags); \
		mode = va_arg(ap, mode_t); \
		va_end(ap); \
	} \
	if (fails_at((flags & O_CREAT) != 0 ? CALL_CREATE : CALL_OPEN, \
				 dirfd, path) || \
		((flags & O_CREAT) != 0 && fails_at(CALL_OPEN, dirfd, path))) \
		return -1; \
	return real args; \
}

OPEN_LIKE(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN_LIKE(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN_LIKE(openat, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode), dirfd)
OPEN_LIKE(openat64, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode), dirfd)

/* A function that fails with "failure" under a condition */
#define CALL_LIKE(type, name, params, args, condition, failure) \
EXPORT type \
name params \
{ \
	REAL(name); \
	if (condition) \
		return failure; \
	return real args; \
}

CALL_LIKE(int, creat, (const char *path, mode_t mode), (path, mode),
		  fails(CALL_CREATE, path), -1)
CALL_LIKE(int, creat64, (const char *path, mode_t mode), (path, mode),
		  fails(CALL_CREATE, path), -1)
CALL_LIKE(int, mkdir, (const char *path, mode_t mode), (path, mode),
		  fails(CALL_CREATE, path), -1)
CALL_LIKE(FILE *, fopen, (const char *path, const char *mode), (path, mode),
		  fails(CALL_OPEN, path), NULL)
CALL_LIKE(FILE *, fopen64, (const char *path, const char *mode), (path, mode),
		  fails(CALL_OPEN, path), NULL)
CALL_LIKE(DIR *, opendir, (const char *path), (path),
		  fails(CALL_OPENDIR, path), NULL)

CALL_LIKE(int, stat, (const char *path, struct stat *st), (path, st),
		  fails(CALL_STAT, path), -1)
CALL_LIKE(int, stat64, (const char *path, struct stat64 *st), (path, st),
		  fails(CALL_STAT, path), -1)
CALL_LIKE(int, lstat, (const char *path, struct stat *st), (path, st),
		  fails(CALL_STAT, path), -1)
CALL_LIKE(int, lstat64, (const char *path, struct stat64 *st), (path, st),
		  fails(CALL_STAT, path), -1)
CALL_LIKE(int, fstatat, (int dirfd, const char *path, struct stat *st, int flags),
		  (dirfd, path, st, flags), fails_at(CALL_STAT, dirfd, path), -1)
CALL_LIKE(int, fstatat64, (int dirfd, const char *path, struct stat64 *st, int flags),
		  (dirfd, path, st, flags), fails_at(CALL_STAT, dirfd, path), -1)
CALL_LIKE(int, statx, (int dirfd, const char *path, int flags, unsigned int mask, struct statx *st),
		  (dirfd, path, flags, mask, st), fails_at(CALL_STAT, dirfd, path), -1)
CALL_LIKE(int, access, (const char *path, int mode), (path, mode),
		  fails(CALL_STAT, path), -1)
CALL_LIKE(int, faccessat, (int dirfd, const char *path, int mode, int flags),
		  (dirfd, path, mode, flags), fails_at(CALL_STAT, dirfd, path), -1)

CALL_LIKE(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n),
		  fd_fails(CALL_READ, fd), -1)
CALL_LIKE(ssize_t, pread, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at),
		  fd_fails(CALL_READ, fd), -1)
CALL_LIKE(ssize_t, pread64, (int fd, void *buf, size_t n, off64_t at), (fd, buf, n, at),
		  fd_fails(CALL_READ, fd), -1)
CALL_LIKE(ssize_t, preadv, (int fd, const struct iovec *iov, int n, off_t at),
		  (fd, iov, n, at), fd_fails(CALL_READ, fd), -1)
CALL_LIKE(ssize_t, preadv64, (int fd, const struct iovec *iov, int n, off64_t at),
		  (fd, iov, n, at), fd_fails(CALL_READ, fd), -1)

CALL_LIKE(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n),
		  fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(ssize_t, pwrite, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at),
		  fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(ssize_t, pwrite64, (int fd, const void *buf, size_t n, off64_t at), (fd, buf, n, at),
		  fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(ssize_t, pwritev, (int fd, const struct iovec *iov, int n, off_t at),
		  (fd, iov, n, at), fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(ssize_t, pwritev64, (int fd, const struct iovec *iov, int n, off64_t at),
		  (fd, iov, n, at), fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(int, ftruncate, (int fd, off_t len), (fd, len),
		  fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(int, ftruncate64, (int fd, off64_t len), (fd, len),
		  fd_fails(CALL_WRITE, fd), -1)
CALL_LIKE(int, truncate, (const char *path, off_t len), (path, len),
		  fails(CALL_WRITE, path), -1)
CALL_LIKE(int, truncate64, (const char *path, off64_t len), (path, len),
		  fails(CALL_WRITE, path), -1)
/* these two return the error */
CALL_LIKE(int, posix_fallocate, (int fd, off_t at, off_t len), (fd, at, len),
		  fd_fails(CALL_WRITE, fd), errno)
CALL_LIKE(int, posix_fallocate64, (int fd, off64_t at, off64_t len), (fd, at, len),
		  fd_fails(CALL_WRITE, fd), errno)
CALL_LIKE(ssize_t, copy_file_range,
		  (int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned int flags),
		  (in, in_at, out, out_at, len, flags),
		  fd_fails(CALL_READ, in) || fd_fails(CALL_WRITE, out), -1)

CALL_LIKE(int, fsync, (int fd), (fd), fd_fails(CALL_FSYNC, fd), -1)
CALL_LIKE(int, fdatasync, (int fd), (fd), fd_fails(CALL_FSYNC, fd), -1)

CALL_LIKE(int, unlink, (const char *path), (path),
		  fails(CALL_UNLINK, path), -1)
CALL_LIKE(int, unlinkat, (int dirfd, const char *path, int flags), (dirfd, path, flags),
		  fails_at(CALL_UNLINK, dirfd, path), -1)
CALL_LIKE(int, rmdir, (const char *path), (path),
		  fails(CALL_UNLINK, path), -1)
CALL_LIKE(int, rename, (const char *from, const char *to), (from, to),
		  fails(CALL_RENAME, from) || fails(CALL_RENAME, to), -1)
CALL_LIKE(int, renameat, (int fromfd, const char *from, int tofd, const char *to),
		  (fromfd, from, tofd, to),
		  fails_at(CALL_RENAME, fromfd, from) || fails_at(CALL_RENAME, tofd, to), -1)
