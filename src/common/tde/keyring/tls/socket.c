/*-------------------------------------------------------------------------
 *
 * socket.c
 *	  Sockets, and OpenSSL's view of them.
 *
 * OpenSSL's own socket BIO would raise SIGPIPE, which not every program
 * ignores; ours does not.  It also looks at the deadline with each read, so
 * that a server that sends and sends what yields no data (keys to change,
 * tickets) cannot keep OpenSSL in a loop of its own.
 *
 * A server that refuses our certificate in TLS 1.3 says so after the
 * handshake and closes the connection, perhaps while we send.  So a failure
 * to send is kept and not reported: reading, which comes next, finds the
 * server's alert, or fails too.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/socket.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "tls_internal.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL	0		/* then there is SO_NOSIGPIPE */
#endif

static void
set_reason(TlsFailure *failure)
{
	failure->stage = TLS_STAGE_CONNECT;
	failure->why = TLS_ERROR;
	strlcpy(failure->reason, strerror(errno), sizeof(failure->reason));
}

/* Not to be inherited, not to block, without delay. */
static bool
set_up(int fd)
{
	int			on = 1;

	if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || !pg_set_noblock(fd))
		return false;
#ifdef SO_NOSIGPIPE
	(void) setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return true;
}

int
tls_socket_connect(const struct addrinfo *address, const TlsDeadline *deadline,
				   TlsFailure *failure)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	int			fd;

	fd = socket(address->ai_family, SOCK_STREAM, 0);
	if (fd < 0)
	{
		set_reason(failure);
		return -1;
	}
	if (!set_up(fd))
		error = errno;
	else if (connect(fd, address->ai_addr, address->ai_addrlen) != 0 &&
			 errno != EINPROGRESS && errno != EINTR)
		error = errno;
	else
	{
		failure->why = tls_wait(fd, POLLOUT, deadline);
		if (failure->why == TLS_READY)
		{
			if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
				error = errno;
		}
		else if (failure->why == TLS_ERROR)
			error = errno;
		else
		{
			failure->stage = TLS_STAGE_CONNECT;
			strlcpy(failure->reason, _("timeout expired"),
					sizeof(failure->reason));
			close(fd);
			return -1;
		}
	}
	if (error != 0)
	{
		close(fd);
		errno = error;
		set_reason(failure);
		return -1;
	}
	return fd;
}

/* ---- the BIO ---- */

static bool
try_again(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

static int
bio_read(BIO *bio, char *buf, int len)
{
	TlsSession *session = BIO_get_data(bio);
	ssize_t		n;

	BIO_clear_retry_flags(bio);
	if (tls_check(&session->deadline) != TLS_READY)
		return -1;
	n = recv(session->fd, buf, len, 0);
	if (n < 0 && try_again(errno))
		BIO_set_retry_read(bio);
	else if (n < 0)
		session->recv_errno = errno;
	else if (n == 0)
		session->eof = true;
	return n;
}

static int
bio_write(BIO *bio, const char *buf, int len)
{
	TlsSession *session = BIO_get_data(bio);
	ssize_t		n;

	BIO_clear_retry_flags(bio);
	if (session->send_errno != 0)
		return len;				/* see above */
	n = send(session->fd, buf, len, MSG_NOSIGNAL);
	if (n < 0 && try_again(errno))
		BIO_set_retry_write(bio);
	else if (n < 0)
	{
		session->send_errno = errno;
		return len;
	}
	return n;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	TlsSession *session = BIO_get_data(bio);

	switch (cmd)
	{
		case BIO_CTRL_EOF:
			return session->eof;
		case BIO_CTRL_FLUSH:
			return 1;
		default:
			return 0;
	}
}

BIO *
tls_socket_bio(TlsSession *session)
{
	static BIO_METHOD *method = NULL;
	BIO		   *bio;

	if (method == NULL)
	{
		int			type = BIO_get_new_index();

		if (type < 0)
			return NULL;
		method = BIO_meth_new(type | BIO_TYPE_SOURCE_SINK, "coffer socket");
		if (method == NULL)
			return NULL;
		BIO_meth_set_read(method, bio_read);
		BIO_meth_set_write(method, bio_write);
		BIO_meth_set_ctrl(method, bio_ctrl);
	}
	bio = BIO_new(method);
	if (bio)
	{
		BIO_set_data(bio, session);
		BIO_set_init(bio, 1);
	}
	return bio;
}
