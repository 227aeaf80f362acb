/*-------------------------------------------------------------------------
 *
 * session.c
 *	  One TLS connection to one address: handshake with verification, data,
 *	  and the reasons of failures.
 *
 * The server's certificate must lead to one of the CAs (RFC 5280) and be made
 * for the host that was asked for (RFC 6125), a name or an IP address; the
 * address that a name was resolved to does not matter.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/session.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <unistd.h>

#include "tls_internal.h"

static bool
is_address(const char *name)
{
	struct in6_addr addr;

	return inet_pton(AF_INET, name, &addr) == 1 ||
		inet_pton(AF_INET6, name, &addr) == 1;
}

/* Alerts that speak of our certificate (RFC 8446, section 6.2). */
static bool
is_refusal(int alert)
{
	switch (alert)
	{
		case SSL_AD_BAD_CERTIFICATE:
		case SSL_AD_UNSUPPORTED_CERTIFICATE:
		case SSL_AD_CERTIFICATE_REVOKED:
		case SSL_AD_CERTIFICATE_EXPIRED:
		case SSL_AD_CERTIFICATE_UNKNOWN:
		case SSL_AD_UNKNOWN_CA:
		case SSL_AD_ACCESS_DENIED:
		case SSL_AD_CERTIFICATE_REQUIRED:
			return true;
		default:
			return false;
	}
}

/*
 * Why OpenSSL failed, after SSL_get_error() said "err".
 */
static void
set_failure(TlsSession *session, int err, TlsFailure *failure)
{
	unsigned long code = ERR_peek_error();
	long		verified = SSL_get_verify_result(session->ssl);
	char	   *reason = failure->reason;
	size_t		size = sizeof(failure->reason);

	failure->stage = TLS_STAGE_HANDSHAKE;
	failure->why = tls_check(&session->deadline);
	if (failure->why != TLS_READY)
	{
		strlcpy(reason, _("timeout expired"), size);
		ERR_clear_error();
		return;
	}
	failure->why = TLS_ERROR;

	if (err == SSL_ERROR_SSL && ERR_GET_LIB(code) == ERR_LIB_SSL &&
		ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
	{
		failure->stage = TLS_STAGE_VERIFY;
		snprintf(reason, size, "%s: %s", ERR_reason_error_string(code),
				 X509_verify_cert_error_string(verified));
	}
	else if (session->recv_errno != 0)
		strlcpy(reason, strerror(session->recv_errno), size);
	else if (session->eof && session->send_errno != 0)
		strlcpy(reason, strerror(session->send_errno), size);
	else if (session->eof || err == SSL_ERROR_ZERO_RETURN)
		strlcpy(reason, _("server closed the connection"), size);
	else if (err == SSL_ERROR_SSL && ERR_reason_error_string(code))
	{
		if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
			is_refusal(ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET))
			failure->stage = TLS_STAGE_REFUSED;
		snprintf(reason, size, _("TLS error: %s"),
				 ERR_reason_error_string(code));
	}
	else
		strlcpy(reason, _("TLS error"), size);
	ERR_clear_error();
}

/*
 * After OpenSSL returned "rc" without success: wait if that is all it needs,
 * and return true; else describe the failure.
 */
static bool
wait_or_fail(TlsSession *session, int rc, TlsFailure *failure)
{
	int			err = SSL_get_error(session->ssl, rc);
	short		events;

	if (err == SSL_ERROR_WANT_READ)
		events = POLLIN;
	else if (err == SSL_ERROR_WANT_WRITE)
		events = POLLOUT;
	else
	{
		set_failure(session, err, failure);
		return false;
	}
	failure->why = tls_wait(session->fd, events, &session->deadline);
	if (failure->why == TLS_READY)
		return true;
	failure->stage = TLS_STAGE_HANDSHAKE;
	strlcpy(failure->reason, failure->why == TLS_ERROR ? strerror(errno) :
			_("timeout expired"), sizeof(failure->reason));
	return false;
}

/* The name or address that the certificate must be made for. */
static bool
set_host(SSL *ssl, const TlsHost *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	const char *name = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	if (name == NULL)
		name = host->name;
	if (is_address(name))
		return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
	X509_VERIFY_PARAM_set_hostflags(param,
									X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
		SSL_set_tlsext_host_name(ssl, name) == 1;
}

static bool
make_ssl(TlsSession *session, SSL_CTX *ctx, const TlsHost *host)
{
	BIO		   *bio;

	session->ssl = SSL_new(ctx);
	if (session->ssl == NULL || !set_host(session->ssl, host))
		return false;
	bio = tls_socket_bio(session);
	if (bio == NULL)
		return false;
	SSL_set_bio(session->ssl, bio, bio);
	return true;
}

bool
tls_session_open(TlsSession *session, SSL_CTX *ctx, const TlsHost *host,
				 const struct addrinfo *address, const TlsDeadline *deadline,
				 TlsFailure *failure)
{
	int			rc;

	memset(session, 0, sizeof(*session));
	session->deadline = *deadline;
	session->fd = tls_socket_connect(address, deadline, failure);
	if (session->fd < 0)
		return false;

	ERR_clear_error();
	if (!make_ssl(session, ctx, host))
	{
		failure->stage = TLS_STAGE_HANDSHAKE;
		failure->why = TLS_ERROR;
		strlcpy(failure->reason, _("could not set up TLS"),
				sizeof(failure->reason));
		ERR_clear_error();
		tls_session_close(session, false);
		return false;
	}
	for (;;)
	{
		ERR_clear_error();
		rc = SSL_connect(session->ssl);
		if (rc == 1)
			return true;
		if (!wait_or_fail(session, rc, failure))
		{
			tls_session_close(session, false);
			return false;
		}
	}
}

bool
tls_session_send(TlsSession *session, const void *buf, size_t len,
				 TlsFailure *failure)
{
	size_t		done;

	/* SSL_write takes all of it, or nothing yet */
	for (;;)
	{
		int			rc;

		ERR_clear_error();
		rc = SSL_write_ex(session->ssl, buf, len, &done);
		if (rc == 1)
			return true;
		if (!wait_or_fail(session, rc, failure))
			return false;
	}
}

bool
tls_session_receive(TlsSession *session, void *buf, size_t len,
					TlsFailure *failure)
{
	size_t		done = 0;

	while (done < len)
	{
		size_t		n;
		int			rc;

		ERR_clear_error();
		rc = SSL_read_ex(session->ssl, (char *) buf + done, len - done, &n);
		if (rc == 1)
			done += n;
		else if (!wait_or_fail(session, rc, failure))
			return false;
	}
	return true;
}

void
tls_session_close(TlsSession *session, bool orderly)
{
	if (session->ssl)
	{
		if (orderly)
			(void) SSL_shutdown(session->ssl);
		SSL_free(session->ssl);
		ERR_clear_error();
	}
	if (session->fd >= 0)
		close(session->fd);
	session->ssl = NULL;
	session->fd = -1;
}
