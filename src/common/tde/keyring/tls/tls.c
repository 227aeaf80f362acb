/*-------------------------------------------------------------------------
 *
 * tls.c
 *	  A connection to whichever of a KMS's servers answers.
 *
 * Servers are tried in the order of the list, and the addresses of each in
 * the order of the resolver, until one completes the handshake; after a lost
 * connection, from the next one on.  A server that stays silent must not use
 * up the time of those that follow: each attempt gets an equal share of what
 * is left.
 *
 * Why nobody answered is reported as a whole: the failure that came furthest
 * gives the message, and if there were several, the detail lists them all.
 *
 * Connections are not kept between calls.  Calls are rare, and a connection
 * that was idle for hours is more trouble than the few milliseconds that
 * another handshake takes.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/tls.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "tls_internal.h"

struct TdeTls
{
	const TdeTlsParams *params;
	SSL_CTX    *ctx;
	TlsDeadline deadline;		/* of all */
	TlsSession	session;
	TlsHost		host;			/* that of session */
	int			nhosts;
	int			next;			/* the host to begin with */
};

/* What attempts to connect came to. */
typedef struct Attempts
{
	int			n;
	TlsFailure	worst;			/* the one that came furthest */
	TlsHost		host;			/* its host */
	char		all[sizeof(((TdeKeyringError *) 0)->detail)];
} Attempts;

/* "host:port" as a user would write it. */
static const char *
host_text(const TlsHost *host, char *buf, size_t size)
{
	snprintf(buf, size, strchr(host->name, ':') ? "[%s]:%s" : "%s:%s",
			 host->name, host->port);
	return buf;
}

static void
note_failure(Attempts *attempts, const TlsHost *host,
			 const struct addrinfo *address, const TlsFailure *failure)
{
	char		text[300];
	char		ip[64] = "";
	char		line[700];

	if (attempts->n++ == 0 || failure->stage >= attempts->worst.stage)
	{
		attempts->worst = *failure;
		attempts->host = *host;
	}
	if (address)
		(void) getnameinfo(address->ai_addr, address->ai_addrlen,
						   ip, sizeof(ip), NULL, 0, NI_NUMERICHOST);
	snprintf(line, sizeof(line), ip[0] ? "%s%s (%s): %s" : "%s%s%s: %s",
			 attempts->n > 1 ? "\n" : "",
			 host_text(host, text, sizeof(text)), ip, failure->reason);
	strlcat(attempts->all, line, sizeof(attempts->all));
}

/* Turn the failure to connect into an error. */
static TdeKeyringStatus
fail_connect(const Attempts *attempts, TdeKeyringError *error)
{
	const TlsFailure *worst = &attempts->worst;
	const char *detail = attempts->n > 1 ? attempts->all : worst->reason;
	char		text[300];

	host_text(&attempts->host, text, sizeof(text));
	if (worst->why == TLS_CANCELLED)
		return tde_keyring_fail(error, TDE_KEYRING_CANCELLED, NULL,
								_("canceled while connecting to KMIP server \"%s\""),
								text);
	if (worst->stage == TLS_STAGE_VERIFY)
		tde_keyring_fail(error, TDE_KEYRING_FAILED,
						 _("Check the CA certificate file of the key provider, the validity of the server's certificate, and that it was made for this host."),
						 _("SSL/TLS certificate verification failed for KMIP server \"%s\""),
						 text);
	else if (worst->stage == TLS_STAGE_REFUSED)
		tde_keyring_fail(error, TDE_KEYRING_DENIED,
						 _("Check that the client certificate is valid and comes from a CA that the server trusts."),
						 _("KMIP server \"%s\" refused the client certificate"),
						 text);
	else
		tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
						 _("Check that the server runs, and accepts KMIP over TLS 1.2 or later at this host and port."),
						 _("could not connect to KMIP server \"%s\""), text);
	return tde_keyring_detail(error, "%s", detail);
}

static TdeKeyringStatus
fail_late(const char *host, TdeKeyringError *error)
{
	return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
							_("Check that the server works, and speaks KMIP at this port."),
							_("KMIP server \"%s\" did not answer in time"),
							host);
}

/* The same of a connection that was open. */
static TdeKeyringStatus
fail_session(TdeTls *tls, const TlsFailure *failure, TdeKeyringError *error)
{
	char		text[300];

	host_text(&tls->host, text, sizeof(text));
	tls_session_close(&tls->session, false);
	if (failure->why == TLS_CANCELLED)
		return tde_keyring_fail(error, TDE_KEYRING_CANCELLED, NULL,
								_("canceled while waiting for KMIP server \"%s\""),
								text);
	if (failure->stage == TLS_STAGE_REFUSED)
		tde_keyring_fail(error, TDE_KEYRING_DENIED,
						 _("Check that the client certificate is valid and comes from a CA that the server trusts."),
						 _("KMIP server \"%s\" refused the client certificate"),
						 text);
	else if (failure->why == TLS_TIMEOUT)
		return fail_late(text, error);
	else
		tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
						 _("Check the server's log; it may not accept the client certificate."),
						 _("lost connection to KMIP server \"%s\""), text);
	return tde_keyring_detail(error, "%s", failure->reason);
}

/*
 * Try the addresses of a host, all before the deadline.  True if there is a
 * connection.
 */
static bool
try_host(TdeTls *tls, const TlsHost *host, const TlsDeadline *deadline,
		 Attempts *attempts)
{
	struct addrinfo *addresses = NULL;
	TlsFailure	failure;
	bool		connected = false;
	int			left = 0;

	failure.stage = TLS_STAGE_RESOLVE;
	failure.why = tls_resolve(host, deadline, &addresses, failure.reason,
							  sizeof(failure.reason));
	if (failure.why != TLS_READY)
	{
		note_failure(attempts, host, NULL, &failure);
		return false;
	}
	for (struct addrinfo *a = addresses; a; a = a->ai_next)
		left++;
	for (struct addrinfo *a = addresses; a && !connected; a = a->ai_next)
	{
		TlsDeadline share = tls_share(deadline, left--);

		connected = tls_session_open(&tls->session, tls->ctx, host, a, &share,
									 &failure);
		if (!connected)
		{
			note_failure(attempts, host, a, &failure);
			if (failure.why == TLS_CANCELLED)
				break;
		}
	}
	freeaddrinfo(addresses);
	if (connected)
	{
		/* what talks now may take the host's time */
		tls->session.deadline = *deadline;
		tls->host = *host;
	}
	return connected;
}

/* Connect, beginning with host number tls->next. */
static TdeKeyringStatus
connect_any(TdeTls *tls, TdeKeyringError *error)
{
	Attempts	attempts = {0};

	for (int left = tls->nhosts; left > 0; left--)
	{
		TlsDeadline share = tls_share(&tls->deadline, left);
		TlsHost		host;

		(void) tls_host(tls->params->hosts, tls->next, tls->params->port,
						&host);
		tls->next = (tls->next + 1) % tls->nhosts;
		if (try_host(tls, &host, &share, &attempts))
			return TDE_KEYRING_OK;
		if (attempts.worst.why == TLS_CANCELLED)
			break;
	}
	return fail_connect(&attempts, error);
}

TdeKeyringStatus
tde_tls_open(const TdeTlsParams *params, TdeTls **result,
			 TdeKeyringError *error)
{
	const TdeKeyringCall *call = params->call;
	int			timeout = params->default_timeout_ms;
	TdeKeyringStatus status;
	TdeTls	   *tls;
	TlsHost		host;

	*result = NULL;
	if (call && call->timeout_ms > 0)
		timeout = call->timeout_ms;
	status = tde_tls_check_hosts(params->hosts, error);
	if (status != TDE_KEYRING_OK)
		return status;

	tls = calloc(1, sizeof(TdeTls));
	if (tls == NULL)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("out of memory"));
	tls->params = params;
	tls->session.fd = -1;
	tls->deadline.end = tls_now() + timeout;
	tls->deadline.call = call;
	while (tls_host(params->hosts, tls->nhosts, params->port, &host) != 0)
		tls->nhosts++;

	status = tls_context(params, &tls->ctx, error);
	if (status == TDE_KEYRING_OK)
		status = connect_any(tls, error);
	if (status == TDE_KEYRING_OK)
		*result = tls;
	else
		tde_tls_close(tls);
	return status;
}

TdeKeyringStatus
tde_tls_reopen(TdeTls *tls, TdeKeyringError *error)
{
	char		text[300];

	tls_session_close(&tls->session, true);
	if (tls_check(&tls->deadline) == TLS_TIMEOUT)
		return fail_late(host_text(&tls->host, text, sizeof(text)), error);
	return connect_any(tls, error);
}

/* After a failure the connection is closed until tde_tls_reopen(). */
static TdeKeyringStatus
check_open(TdeTls *tls, TdeKeyringError *error)
{
	if (tls->session.fd >= 0)
		return TDE_KEYRING_OK;
	return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
							_("no connection to the KMIP server"));
}

TdeKeyringStatus
tde_tls_send(TdeTls *tls, const void *buf, size_t len, TdeKeyringError *error)
{
	TdeKeyringStatus status = check_open(tls, error);
	TlsFailure	failure;

	if (status != TDE_KEYRING_OK || len == 0 ||
		tls_session_send(&tls->session, buf, len, &failure))
		return status;
	return fail_session(tls, &failure, error);
}

TdeKeyringStatus
tde_tls_receive(TdeTls *tls, void *buf, size_t len, TdeKeyringError *error)
{
	TdeKeyringStatus status = check_open(tls, error);
	TlsFailure	failure;

	if (status != TDE_KEYRING_OK || len == 0 ||
		tls_session_receive(&tls->session, buf, len, &failure))
		return status;
	return fail_session(tls, &failure, error);
}

void
tde_tls_close(TdeTls *tls)
{
	if (tls == NULL)
		return;
	tls_session_close(&tls->session, true);
	SSL_CTX_free(tls->ctx);
	free(tls);
}
