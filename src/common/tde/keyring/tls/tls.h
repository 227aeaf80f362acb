/*-------------------------------------------------------------------------
 *
 * tls.h
 *	  TLS connections to a key management server, for KMIP.
 *
 * A connection belongs to one call of a provider: everything that happens on
 * it, resolving names and connecting again included, ends at the deadline
 * that was set when it was made, or within a second after the call's callback
 * says so.
 *
 * Functions return TDE_KEYRING_OK, or describe a failure in *error:
 *
 *	  UNREACHABLE	no server answered, the connection broke, or time ran out
 *	  DENIED		the server refused our certificate; a file of ours may not
 *					be read
 *	  BAD_DATA		a file of ours is unsafe or is not what it should be
 *	  CANCELLED		the callback asked to stop
 *	  FAILED		anything else; the server's certificate is not right
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/tls.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_TLS_H
#define TDE_TLS_H

#include "tde/keyring.h"

typedef struct TdeTlsParams
{
	const char *hosts;			/* "a.example,b.example:5697,[::1]" */
	int			port;			/* of those that name none */
	const char *cert_path;		/* our certificate (chain), PEM */
	const char *key_path;		/* its private key, PEM */
	const char *ca_path;		/* whom to trust, the server's CAs or its very
								 * certificate, PEM; NULL: the system's CAs */
	const char *server_name;	/* what the server's certificate is made for;
								 * NULL: the host in "hosts" */
	const char *crl_path;		/* CRLs, a PEM file or a hashed directory; or
								 * NULL */
	const char *passphrase_path;	/* a file with the private key's passphrase,
									 * or NULL */
	const TdeKeyringCall *call; /* may be NULL */
	int			default_timeout_ms; /* where the call sets none */
} TdeTlsParams;

typedef struct TdeTls TdeTls;

/* Is that a list of hosts, each with a port or none?  No I/O. */
extern TdeKeyringStatus tde_tls_check_hosts(const char *hosts,
											TdeKeyringError *error);

/*
 * Connect: to the first server of the list that lets us.  The strings must
 * stay valid until tde_tls_close().
 */
extern TdeKeyringStatus tde_tls_open(const TdeTlsParams *params, TdeTls **tls,
									 TdeKeyringError *error);

/* Connect again, to the next server of the list if there are several. */
extern TdeKeyringStatus tde_tls_reopen(TdeTls *tls, TdeKeyringError *error);

/* Send or receive len bytes, all of them. */
extern TdeKeyringStatus tde_tls_send(TdeTls *tls, const void *buf, size_t len,
									 TdeKeyringError *error);
extern TdeKeyringStatus tde_tls_receive(TdeTls *tls, void *buf, size_t len,
										TdeKeyringError *error);

extern void tde_tls_close(TdeTls *tls); /* NULL is fine */

#endif							/* TDE_TLS_H */
