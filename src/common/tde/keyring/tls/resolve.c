/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  Addresses of a host name, before a deadline.
 *
 * getaddrinfo() takes as long as the resolver's configuration lets it, and
 * cannot be interrupted: signals do not end it.  So a name (not an address,
 * which needs no resolver) is looked up by a thread that does nothing else;
 * libcurl does the same.  If it is late we go on without it: it frees what is
 * left and ends when getaddrinfo() returns.  It runs with all signals
 * blocked, so that the process's handlers run in the thread they were written
 * for, and calls nothing of PostgreSQL.
 *
 * (A child process would do as well, but is not for a server's processes to
 * make; getaddrinfo_a() is a thread too, in the GNU C library only, and gives
 * no way to abandon a request without leaking it.)
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/resolve.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tls_internal.h"

/* Enough for a resolver and its plug-ins; little where memory is locked. */
#define STACK_SIZE	(512 * 1024)

typedef struct Lookup
{
	TlsHost		host;
	int			done[2];		/* pipe; the thread closes its end when done */
	pthread_mutex_t mutex;
	bool		abandoned;		/* by the one who asked; under mutex */
	bool		finished;		/* by the thread; under mutex */
	int			rc;				/* of getaddrinfo() */
	struct addrinfo *addresses;
} Lookup;

static int
look_up(const TlsHost *host, int flags, struct addrinfo **addresses)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = flags | AI_NUMERICSERV,
	};

	*addresses = NULL;
	return getaddrinfo(host->name, host->port, &hints, addresses);
}

static void
free_lookup(Lookup *lookup)
{
	if (lookup->addresses)
		freeaddrinfo(lookup->addresses);
	pthread_mutex_destroy(&lookup->mutex);
	free(lookup);
}

/* The thread. */
static void *
resolver(void *arg)
{
	Lookup	   *lookup = arg;
	int			fd = lookup->done[1];
	bool		abandoned;

	lookup->rc = look_up(&lookup->host, 0, &lookup->addresses);

	pthread_mutex_lock(&lookup->mutex);
	lookup->finished = true;
	abandoned = lookup->abandoned;
	pthread_mutex_unlock(&lookup->mutex);
	if (abandoned)
		free_lookup(lookup);
	close(fd);					/* wakes the other side */
	return NULL;
}

/* Start the thread; returns 0 or an errno. */
static int
start_resolver(Lookup *lookup)
{
	pthread_attr_t attr;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	save;
	int			rc;

	rc = pthread_attr_init(&attr);
	if (rc != 0)
		return rc;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &save);
	rc = pthread_create(&thread, &attr, resolver, lookup);
	pthread_sigmask(SIG_SETMASK, &save, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

/* What getaddrinfo() returned. */
static TlsWait
take_result(int rc, struct addrinfo *found, struct addrinfo **addresses,
			char *reason, size_t size)
{
	if (rc == 0 && found != NULL)
	{
		*addresses = found;
		return TLS_READY;
	}
	snprintf(reason, size, _("could not resolve host name: %s"),
			 rc == 0 ? gai_strerror(EAI_NONAME) : gai_strerror(rc));
	return TLS_ERROR;
}

TlsWait
tls_resolve(const TlsHost *host, const TlsDeadline *deadline,
			struct addrinfo **addresses, char *reason, size_t size)
{
	Lookup	   *lookup;
	struct addrinfo *found;
	TlsWait		result;
	bool		finished;
	int			fd;
	int			rc;

	if (look_up(host, AI_NUMERICHOST, &found) == 0)
		return take_result(0, found, addresses, reason, size);

	lookup = calloc(1, sizeof(Lookup));
	if (lookup == NULL)
	{
		strlcpy(reason, _("out of memory"), size);
		return TLS_ERROR;
	}
	lookup->host = *host;
	pthread_mutex_init(&lookup->mutex, NULL);
	if (pipe(lookup->done) != 0)
	{
		snprintf(reason, size, _("could not create pipe: %m"));
		free_lookup(lookup);
		return TLS_ERROR;
	}
	fd = lookup->done[0];
	(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	(void) fcntl(lookup->done[1], F_SETFD, FD_CLOEXEC);
	rc = start_resolver(lookup);
	if (rc != 0)
	{
		errno = rc;
		snprintf(reason, size, _("could not create thread: %m"));
		close(fd);
		close(lookup->done[1]);
		free_lookup(lookup);
		return TLS_ERROR;
	}

	result = tls_wait(fd, POLLIN, deadline);
	close(fd);
	pthread_mutex_lock(&lookup->mutex);
	finished = lookup->finished;
	lookup->abandoned = !finished;
	pthread_mutex_unlock(&lookup->mutex);
	if (!finished)
	{
		if (result == TLS_TIMEOUT)
			strlcpy(reason, _("could not resolve host name: timeout expired"),
					size);
		else
			strlcpy(reason, _("could not resolve host name"), size);
		return result == TLS_READY ? TLS_ERROR : result;
	}

	result = take_result(lookup->rc, lookup->addresses, addresses, reason,
						 size);
	if (result == TLS_READY)
		lookup->addresses = NULL;
	free_lookup(lookup);
	return result;
}
