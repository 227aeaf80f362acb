/*-------------------------------------------------------------------------
 *
 * test_keyring.c
 *	  A program that uses the keyring as servers and programs do, for the TAP
 *	  tests in this directory.
 *
 * One call and its result:
 *
 *	  test_keyring [-D DIR] [-T TYPE] [-t MS] [-c] [-C MS] OPTIONS check
 *	  test_keyring ... OPTIONS validate
 *	  test_keyring ... OPTIONS fetch NAME
 *	  test_keyring ... OPTIONS create NAME [LENGTH]
 *	  test_keyring ... OPTIONS many PREFIX COUNT
 *
 * prints "OK" and the key in hex, or the status, the message, the hint and,
 * if there is one, the detail, one a line.  -c cancels the call at once when
 * it asks, -C after that time; -e has signals interrupt its system calls.
 *
 * For the rest see keyring_torture.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/test_keyring.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <signal.h>
#include <sys/time.h>

#include "common/logging.h"
#include "getopt_long.h"
#include "portability/instr_time.h"
#include "test_keyring.h"

static const char *const status_names[] = {
	"OK", "NOT_FOUND", "DESTROYED", "EXISTS", "DENIED", "UNREACHABLE",
	"BAD_OPTIONS", "BAD_DATA", "CANCELLED", "FAILED",
};

const char *
status_name(TdeKeyringStatus status)
{
	Assert(status < lengthof(status_names));
	return status_names[status];
}

static bool
cancel_at_once(void *arg)
{
	return true;
}

static bool
cancel_later(void *arg)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MILLISEC(now) >= *(double *) arg;
}

static void
interrupted(int signo)
{
}

/* From now on, system calls are interrupted every few milliseconds. */
static void
interrupt_often(void)
{
	struct sigaction action = {.sa_handler = interrupted};	/* no restart */
	struct itimerval often = {{0, 3000}, {0, 3000}};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static int
report(TdeKeyringStatus status, const TdeKeyringError *error,
	   const TdePrincipalKey *key)
{
	if (error->status != status)
		pg_fatal("status %d returned, %d in error", status, error->status);
	printf("%s\n", status_name(status));
	if (status != TDE_KEYRING_OK)
	{
		printf("%s\n%s\n", error->message, error->hint);
		if (error->detail[0])
			printf("%s\n", error->detail);
	}
	if (key)
	{
		if (status != TDE_KEYRING_OK)
		{
			for (int i = 0; i < sizeof(*key); i++)
				if (((const uint8 *) key)[i] != 0)
					pg_fatal("key is not wiped after a failure");
		}
		for (int i = 0; i < key->len; i++)
			printf("%02x", key->key[i]);
		if (status == TDE_KEYRING_OK)
			printf("\n");
	}
	return status == TDE_KEYRING_OK ? 0 : 1;
}

static int
create_many(const TdeProvider *provider, const TdeKeyringCall *call,
			const char *prefix, int count)
{
	for (int i = 1; i <= count; i++)
	{
		char		name[64];
		TdePrincipalKey key;
		TdeKeyringError error;
		TdeKeyringStatus status;

		snprintf(name, sizeof(name), "%s-%d", prefix, i);
		status = tde_keyring_create(provider, name, 32, call, &key, &error);
		if (status != TDE_KEYRING_OK)
			return report(status, &error, &key);
		printf("%s ", name);
		for (int b = 0; b < key.len; b++)
			printf("%02x", key.key[b]);
		printf("\n");
		fflush(stdout);			/* we may be killed next */
	}
	return 0;
}

int
main(int argc, char **argv)
{
	TdeProvider provider = {.id = 1,.name = "p",.type = "file"};
	TdeKeyringCall call = {0};
	TdePrincipalKey key;
	TdeKeyringError error;
	TdeKeyringStatus status;
	const char *command;
	const char *arg;
	instr_time	now;
	double		cancel_at;
	int			number;
	int			c;

	pg_logging_init(argv[0]);
	signal(SIGXFSZ, SIG_IGN);	/* as servers do */
	signal(SIGPIPE, SIG_DFL);	/* as programs do, whoever starts them */

	while ((c = getopt(argc, argv, "D:T:t:cC:e")) != -1)
	{
		switch (c)
		{
			case 'D':
				tde_keyring_set_directory(optarg);
				break;
			case 'T':
				strlcpy(provider.type, optarg, sizeof(provider.type));
				break;
			case 't':
				call.timeout_ms = atoi(optarg);
				break;
			case 'e':
				interrupt_often();
				break;
			case 'c':
				call.cancelled = cancel_at_once;
				break;
			case 'C':
				INSTR_TIME_SET_CURRENT(now);
				cancel_at = INSTR_TIME_GET_MILLISEC(now) + atoi(optarg);
				call.cancelled = cancel_later;
				call.arg = &cancel_at;
				break;
			default:
				exit(2);
		}
	}
	if (argc - optind < 2 || argc - optind > 4)
		pg_fatal("wrong number of arguments");
	if (strlcpy(provider.options, argv[optind],
				sizeof(provider.options)) >= sizeof(provider.options))
		pg_fatal("options are too long");
	command = argv[optind + 1];
	arg = argc - optind > 2 ? argv[optind + 2] : "";
	number = argc - optind > 3 ? atoi(argv[optind + 3]) : 32;

	if (strcmp(command, "check") == 0)
	{
		status = tde_keyring_check_options(&provider, &error);
		return report(status, &error, NULL);
	}
	if (strcmp(command, "validate") == 0)
	{
		status = tde_keyring_validate(&provider, &call, &error);
		return report(status, &error, NULL);
	}
	if (strcmp(command, "fetch") == 0)
	{
		status = tde_keyring_fetch(&provider, arg, &call, &key, &error);
		return report(status, &error, &key);
	}
	if (strcmp(command, "create") == 0)
	{
		status = tde_keyring_create(&provider, arg, number, &call, &key,
									&error);
		return report(status, &error, &key);
	}
	if (strcmp(command, "many") == 0)
		return create_many(&provider, &call, arg, number);
	if (strcmp(command, "options") == 0)
		return torture_options();
	if (strcmp(command, "damage") == 0)
		return torture_damage(&provider, arg);
	if (strcmp(command, "kill") == 0)
		return torture_kill(&provider, arg);
	if (strcmp(command, "fail") == 0)
		return torture_fail(&provider, arg);
	if (strcmp(command, "full") == 0)
		return torture_full(&provider, arg);
	if (strcmp(command, "residue") == 0)
		return torture_residue(&provider, arg,
							   argc - optind > 3 ? argv[optind + 3] : "");
	pg_fatal("unknown command \"%s\"", command);
}
