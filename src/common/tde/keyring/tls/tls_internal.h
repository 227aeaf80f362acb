/*-------------------------------------------------------------------------
 *
 * tls_internal.h
 *	  What the files of this directory know of each other.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/tls_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_TLS_INTERNAL_H
#define TDE_TLS_INTERNAL_H

#include <netdb.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "tls.h"

/* ---- wait.c: deadlines ---- */

typedef enum TlsWait
{
	TLS_READY,
	TLS_TIMEOUT,				/* the deadline has passed */
	TLS_CANCELLED,				/* the callback asked to stop */
	TLS_ERROR,					/* see errno */
} TlsWait;

typedef struct TlsDeadline
{
	int64		end;			/* in terms of tls_now() */
	const TdeKeyringCall *call; /* whose callback to ask; may be NULL */
} TlsDeadline;

/* Milliseconds of a clock that nobody sets. */
extern int64 tls_now(void);

/* TLS_READY while there is time left and nobody asks to stop. */
extern TlsWait tls_check(const TlsDeadline *deadline);

/* Wait until a descriptor is ready for poll(2)'s events. */
extern TlsWait tls_wait(int fd, short events, const TlsDeadline *deadline);

/* The first of n equal parts of what is left of a deadline. */
extern TlsDeadline tls_share(const TlsDeadline *whole, int n);

/* ---- hosts.c: the list of servers ---- */

typedef struct TlsHost
{
	char		name[256];		/* without brackets */
	char		port[8];
} TlsHost;

/*
 * Copy server number n (from 0) of a list to *host.  Returns 1, or 0 if the
 * list has fewer, or -1 if what stands there is not valid.
 */
extern int	tls_host(const char *list, int n, int default_port, TlsHost *host);

/* ---- resolve.c: addresses of a name ---- */

/*
 * The addresses of a host in *addresses (for freeaddrinfo()), or a reason
 * why there are none.
 */
extern TlsWait tls_resolve(const TlsHost *host, const TlsDeadline *deadline,
						   struct addrinfo **addresses,
						   char *reason, size_t size);

/* ---- context.c: what we bring along ---- */

extern TdeKeyringStatus tls_context(const TdeTlsParams *params, SSL_CTX **ctx,
									TdeKeyringError *error);

/* ---- session.c: one connection ---- */

/* How far an attempt came before it failed. */
typedef enum TlsStage
{
	TLS_STAGE_RESOLVE,
	TLS_STAGE_CONNECT,
	TLS_STAGE_HANDSHAKE,
	TLS_STAGE_REFUSED,			/* the server does not want our certificate */
	TLS_STAGE_VERIFY,			/* we do not trust the server's */
} TlsStage;

typedef struct TlsFailure
{
	TlsStage	stage;
	TlsWait		why;			/* TLS_TIMEOUT, TLS_CANCELLED or TLS_ERROR */
	char		reason[256];	/* "Connection refused" */
} TlsFailure;

typedef struct TlsSession
{
	int			fd;				/* -1: none */
	SSL		   *ssl;
	TlsDeadline deadline;
	int			send_errno;		/* first failure to send */
	int			recv_errno;
	bool		eof;
} TlsSession;

/* Connect to an address and shake hands; on failure nothing is left open. */
extern bool tls_session_open(TlsSession *session, SSL_CTX *ctx,
							 const TlsHost *host,
							 const struct addrinfo *address,
							 const TlsDeadline *deadline,
							 TlsFailure *failure);
extern bool tls_session_send(TlsSession *session, const void *buf, size_t len,
							 TlsFailure *failure);
extern bool tls_session_receive(TlsSession *session, void *buf, size_t len,
								TlsFailure *failure);

/* orderly: tell the server, if that is possible without waiting */
extern void tls_session_close(TlsSession *session, bool orderly);

/* ---- socket.c: what TLS stands on ---- */

/* A socket connected to an address, or -1 and a reason. */
extern int	tls_socket_connect(const struct addrinfo *address,
							   const TlsDeadline *deadline,
							   TlsFailure *failure);

/* OpenSSL's view of a session's socket; NULL if there is no memory. */
extern BIO *tls_socket_bio(TlsSession *session);

#endif							/* TDE_TLS_INTERNAL_H */
