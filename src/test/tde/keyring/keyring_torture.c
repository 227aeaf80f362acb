/*-------------------------------------------------------------------------
 *
 * keyring_torture.c
 *	  What must not break the file provider: damage, death, failing system
 *	  calls, full disks; and what must not be left in memory.
 *
 * Death and failing calls are brought about with ptrace(2), at each system
 * call that creating a key makes, so that the code under test is the code that
 * runs in production, with no hooks in it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/keyring_torture.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/logging.h"
#include "tde/cipher.h"
#include "test_keyring.h"

#define MAX_FILE	65536

/* exit status of a command that cannot be done here; its output says why */
#define SKIPPED		77

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN	true
#else
#define UNDER_ASAN	false
#endif

/* What a traced child found out, in memory shared with it. */
typedef struct Outcome
{
	TdeKeyringStatus status;
	TdePrincipalKey key;
	TdeKeyringError error;
} Outcome;

static char path[MAXPGPATH];
static char original[MAX_FILE];
static size_t original_len;
static TdePrincipalKey original_key;

static void
write_file(const char *data, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, len) != len || close(fd) != 0)
		pg_fatal("could not write \"%s\": %m", path);
}

/* Remember the keyring file as it is, and the key "name" in it. */
static void
remember(const TdeProvider *provider, const char *name)
{
	TdeKeyringError error;
	int			fd;
	ssize_t		n;

	if (!tde_keyring_option(provider, "path", path, sizeof(path)))
		pg_fatal("no option \"path\"");
	original_len = 0;
	if (name[0] == '\0')
		return;
	fd = open(path, O_RDONLY);
	if (fd < 0 || (n = read(fd, original, sizeof(original))) < 0 ||
		n == sizeof(original))
		pg_fatal("could not read \"%s\": %m", path);
	close(fd);
	original_len = n;
	if (tde_keyring_fetch(provider, name, NULL, &original_key,
						  &error) != TDE_KEYRING_OK)
		pg_fatal("could not fetch: %s", error.message);
}

static void
restore(void)
{
	if (original_len > 0)
		write_file(original, original_len);
	else if (unlink(path) != 0 && errno != ENOENT)
		pg_fatal("could not remove \"%s\": %m", path);
}

/* Is everything there that was there before? */
static bool
is_intact(const TdeProvider *provider, const char *name)
{
	TdePrincipalKey key;
	TdeKeyringError error;

	if (tde_keyring_validate(provider, NULL, &error) != TDE_KEYRING_OK)
		return false;
	if (name[0] == '\0')
		return true;
	return tde_keyring_fetch(provider, name, NULL, &key,
							 &error) == TDE_KEYRING_OK &&
		memcmp(&key, &original_key, sizeof(key)) == 0;
}

/* Mode of a new file that was left behind, or 0 if there is none. */
static int
has_litter(void)
{
	char		tmp[MAXPGPATH + 4];
	struct stat st;

	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	return lstat(tmp, &st) == 0 ? st.st_mode : 0;
}

/* ---- damage ---- */

/* Damaged content must be called that. */
static int
expect_damage(const TdeProvider *provider, const char *name,
			  const char *data, size_t len, const char *what, size_t where)
{
	TdePrincipalKey key;
	TdeKeyringError error;
	TdeKeyringStatus status;

	write_file(data, len);
	status = tde_keyring_fetch(provider, name, NULL, &key, &error);
	if (status == TDE_KEYRING_BAD_DATA &&
		tde_keyring_validate(provider, NULL, &error) == TDE_KEYRING_BAD_DATA &&
		tde_keyring_create(provider, "new", 16, NULL, &key,
						   &error) == TDE_KEYRING_BAD_DATA)
		return 0;
	printf("%s at %zu: %s\n", what, where, status_name(status));
	return 1;
}

int
torture_damage(const TdeProvider *provider, const char *name)
{
	char		data[MAX_FILE];
	int			bad = 0;
	int			cases = 0;

	remember(provider, name);
	for (size_t len = 0; len < original_len; len++, cases++)
		bad += expect_damage(provider, name, original, len, "cut", len);
	for (size_t i = 0; i < original_len; i++)
	{
		for (int bit = 0; bit < 8; bit++, cases++)
		{
			memcpy(data, original, original_len);
			data[i] ^= 1 << bit;
			bad += expect_damage(provider, name, data, original_len, "flip", i);
		}
		memcpy(data, original, i);
		memcpy(data + i, original + i + 1, original_len - i - 1);
		/* where two equal bytes stand together, either may go */
		bad += expect_damage(provider, name, data, original_len - 1,
							 "byte removed", i);
		memcpy(data + i + 1, original + i, original_len - i);
		data[i] = '0';
		bad += expect_damage(provider, name, data, original_len + 1,
							 "byte inserted", i);
		cases += 2;
	}
	/* whole lines swapped, doubled, and missing */
	for (char *line = original; line < original + original_len;)
	{
		char	   *next = strchr(line, '\n') + 1;
		size_t		before = line - original;
		size_t		after = original + original_len - next;
		size_t		len = next - line;

		memcpy(data, original, before);
		memcpy(data + before, next, after);
		bad += expect_damage(provider, name, data, before + after,
							 "line removed", before);
		memcpy(data, original, before + len);
		memcpy(data + before + len, line, len + after);
		bad += expect_damage(provider, name, data, original_len + len,
							 "line doubled", before);
		cases += 2;
		if (after > 0)
		{
			char	   *next2 = strchr(next, '\n') + 1;

			memcpy(data + before, next, next2 - next);
			memcpy(data + before + (next2 - next), line, len);
			memcpy(data + (next2 - original), next2,
				   original + original_len - next2);
			bad += expect_damage(provider, name, data, original_len,
								 "lines swapped", before);
			cases++;
		}
		line = next;
	}
	restore();
	if (!is_intact(provider, name))
		pg_fatal("original is not intact");
	printf("%d damaged files, %d not recognized\n", cases, bad);
	return bad != 0;
}

/* ---- death and failing system calls ---- */

/* In a traced child: create the key "new". */
static void
child_main(const TdeProvider *provider, Outcome *outcome)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		_exit(3);
	raise(SIGSTOP);
	outcome->status = tde_keyring_create(provider, "new", 32, NULL,
										 &outcome->key, &outcome->error);
	_exit(0);
}

static pid_t
start_child(const TdeProvider *provider, Outcome *outcome)
{
	pid_t		pid;
	int			wstatus;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		pg_fatal("could not fork: %m");
	if (pid == 0)
		child_main(provider, outcome);
	if (waitpid(pid, &wstatus, 0) != pid)
		pg_fatal("could not wait: %m");
	if (!WIFSTOPPED(wstatus) ||
		ptrace(PTRACE_SETOPTIONS, pid, NULL,
			   (void *) (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) != 0)
	{
		printf("ptrace is not allowed\n");
		exit(SKIPPED);
	}
	return pid;
}

/* To the next entry or exit of a system call; false if the child is gone. */
static bool
next_stop(pid_t pid)
{
	int			wstatus;
	int			sig = 0;

	for (;;)
	{
		if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *) (intptr_t) sig) != 0 ||
			waitpid(pid, &wstatus, 0) != pid)
			pg_fatal("could not trace: %m");
		if (WIFSIGNALED(wstatus))
			pg_fatal("child died of signal %d", WTERMSIG(wstatus));
		if (WIFEXITED(wstatus))
			return false;
		if (WSTOPSIG(wstatus) == (SIGTRAP | 0x80))
			return true;
		sig = WSTOPSIG(wstatus);
	}
}

static Outcome *
make_outcome(void)
{
	Outcome    *outcome = mmap(NULL, sizeof(Outcome), PROT_READ | PROT_WRITE,
							   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (outcome == MAP_FAILED)
		pg_fatal("out of memory");
	return outcome;
}

/* The file after a writer's life: old keys there, further writers served. */
static int
check_after(const TdeProvider *provider, const char *name, int step)
{
	TdePrincipalKey key;
	TdePrincipalKey again;
	TdeKeyringError error;
	TdeKeyringStatus status;

	if (!is_intact(provider, name))
	{
		printf("step %d: an old key is lost\n", step);
		return 1;
	}
	status = tde_keyring_create(provider, "after", 16, NULL, &key, &error);
	if (status != TDE_KEYRING_OK ||
		tde_keyring_fetch(provider, "after", NULL, &again,
						  &error) != TDE_KEYRING_OK ||
		memcmp(&key, &again, sizeof(key)) != 0 || has_litter())
	{
		printf("step %d: next writer: %s: %s\n", step, status_name(status),
			   error.message);
		return 1;
	}
	return 0;
}

int
torture_kill(const TdeProvider *provider, const char *name)
{
	Outcome    *outcome = make_outcome();
	int			steps = 0;
	int			made = 0;
	int			littered = 0;
	int			bad = 0;
	bool		done = false;

	umask(0);
	remember(provider, name);
	while (!done)
	{
		TdePrincipalKey key;
		TdeKeyringError error;
		pid_t		pid;

		restore();
		pid = start_child(provider, outcome);
		steps++;
		for (int i = 0; i < steps && !done; i++)
			done = !next_stop(pid);
		if (!done)
		{
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		if (has_litter())
		{
			littered++;
			if (has_litter() & 077)
			{
				printf("step %d: new file is open to others\n", steps);
				bad++;
			}
		}
		made += tde_keyring_fetch(provider, "new", NULL, &key,
								  &error) == TDE_KEYRING_OK;
		bad += check_after(provider, name, steps);
	}
	restore();
	printf("%d kills, %d after the key was there, %d left a file, %d bad\n",
		   steps - 1, made - 1, littered, bad);
	/* there must have been deaths of each sort, or nothing was tested */
	return bad != 0 || made < 3 || littered < 3 || steps - made < 3;
}

#if defined(__x86_64__)
/*
 * Does a writer sync the new file before it renames it, and the directory
 * after?  No test that kills processes would miss it.
 */
static bool
is_durable(const TdeProvider *provider, Outcome *outcome)
{
	static const long wanted[] = {SYS_write, SYS_fsync, SYS_rename, SYS_fsync};
	struct user_regs_struct regs;
	pid_t		pid = start_child(provider, outcome);
	int			n = 0;

	while (next_stop(pid))
	{
		ptrace(PTRACE_GETREGS, pid, NULL, &regs);
		if (n < lengthof(wanted) && regs.orig_rax == wanted[n])
			n++;
		else if (regs.orig_rax == SYS_write || regs.orig_rax == SYS_rename)
			n = 0;				/* in another order */
		if (!next_stop(pid))
			break;
	}
	if (n != lengthof(wanted))
		printf("not durable\n");
	return n == lengthof(wanted);
}
#endif

int
torture_fail(const TdeProvider *provider, const char *name)
{
#if !defined(__x86_64__)
	printf("not written for this architecture\n");
	return SKIPPED;
#else
	static const int errnos[] = {EIO, ENOSPC, EACCES, ENOMEM};
	Outcome    *outcome = make_outcome();
	int			calls = 0;
	int			failed = 0;
	int			bad = 0;

	if (UNDER_ASAN)
	{
		printf("the address sanitizer does not bear failing system calls\n");
		return SKIPPED;
	}
	remember(provider, name);
	bad += !is_durable(provider, outcome);
	for (int e = 0; e < lengthof(errnos); e++)
	{
		bool		done = false;

		for (int step = 1; !done; step++)
		{
			struct user_regs_struct regs;
			TdePrincipalKey key;
			TdeKeyringError error;
			TdeKeyringStatus status;
			long		nr = -1;
			pid_t		pid;

			restore();
			memset(outcome, 0, sizeof(*outcome));
			pid = start_child(provider, outcome);
			for (int i = 1; i <= step && !done; i++)
			{
				/* entry of the call; its exit, unless it is the one to fail */
				done = !next_stop(pid) ||
					ptrace(PTRACE_GETREGS, pid, NULL, &regs) != 0;
				if (!done && regs.orig_rax == SYS_exit_group)
				{
					next_stop(pid);
					done = true;
				}
				if (!done && i < step)
					done = !next_stop(pid);
			}
			if (!done)
			{
				/* let it do nothing, and say that it failed */
				nr = regs.orig_rax;
				regs.orig_rax = -1;
				ptrace(PTRACE_SETREGS, pid, NULL, &regs);
				next_stop(pid);
				ptrace(PTRACE_GETREGS, pid, NULL, &regs);
				regs.rax = -errnos[e];
				ptrace(PTRACE_SETREGS, pid, NULL, &regs);
				while (next_stop(pid))
					;
				calls++;
				failed += outcome->status != TDE_KEYRING_OK;
			}

			/* what it said must be so */
			status = tde_keyring_fetch(provider, "new", NULL, &key, &error);
			if (outcome->status == TDE_KEYRING_OK &&
				(status != TDE_KEYRING_OK ||
				 memcmp(&key, &outcome->key, sizeof(key)) != 0))
			{
				printf("call %d (%ld) failing with %d: key is not there\n",
					   step, nr, errnos[e]);
				bad++;
			}
			if (outcome->status != TDE_KEYRING_OK && outcome->key.len != 0)
			{
				printf("call %d (%ld) failing with %d: key is not wiped\n",
					   step, nr, errnos[e]);
				bad++;
			}
			if (has_litter() && nr != SYS_unlink)
			{
				printf("call %d (%ld) failing with %d: file is left\n",
					   step, nr, errnos[e]);
				bad++;
			}
			bad += check_after(provider, name, step);
		}
	}
	restore();
	printf("%d failing calls, %d failed the call, %d bad\n",
		   calls, failed, bad);
	return bad != 0 || failed < 10 || failed == calls;
#endif
}

/* A disk that is full after any number of bytes. */
int
torture_full(const TdeProvider *provider, const char *name)
{
	int			bad = 0;
	int			limits = 0;
	TdeKeyringStatus status = TDE_KEYRING_FAILED;

	remember(provider, name);
	for (int limit = 0; status != TDE_KEYRING_OK; limit++)
	{
		struct rlimit old;
		struct rlimit new;
		TdePrincipalKey key;
		TdeKeyringError error;

		getrlimit(RLIMIT_FSIZE, &old);
		new = old;
		new.rlim_cur = limit;
		setrlimit(RLIMIT_FSIZE, &new);
		status = tde_keyring_create(provider, "new", 32, NULL, &key, &error);
		setrlimit(RLIMIT_FSIZE, &old);
		limits++;
		if (has_litter() || !is_intact(provider, name) ||
			tde_keyring_fetch(provider, "new", NULL, &key, &error) !=
			(status == TDE_KEYRING_OK ? TDE_KEYRING_OK : TDE_KEYRING_NOT_FOUND))
		{
			printf("limit %d: %s\n", limit, status_name(status));
			bad++;
		}
	}
	restore();
	printf("%d limits, %d bad\n", limits, bad);
	return bad != 0 || limits < original_len;
}
