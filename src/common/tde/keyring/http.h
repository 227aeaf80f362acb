/*-------------------------------------------------------------------------
 *
 * http.h
 *	  One request to an HTTP server that need not be trusted.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/http.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_HTTP_H
#define TDE_KEYRING_HTTP_H

#include "tde/keyring.h"

/* The most that a server may send, headers and content each. */
#define TDE_HTTP_MAX_ANSWER		65536

typedef struct TdeHttpRequest
{
	const char *server;			/* the provider's url, for messages */
	const char *url;			/* http:// or https:// */
	const char *const *headers; /* "Name: value"; ends in NULL */
	const char *body;			/* POST this; NULL: GET */
	const char *ca_path;		/* certificates to trust, file or directory;
								 * NULL: those that the system trusts */
	const char *crl_path;		/* file of CRLs, or NULL */
} TdeHttpRequest;

typedef struct TdeHttpAnswer
{
	int			status;			/* 200, ... */
	char	   *body;			/* zero-terminated, in tde_secure_alloc memory */
	size_t		len;			/* without the zero */
} TdeHttpAnswer;

/*
 * Send a request and wait for the whole answer, at most as long as the call
 * says (else default_timeout_ms), cancellable within a tenth of a second.
 * Whatever status the server answers is success here.  The answer is to be
 * freed in any case; after a failure it is empty.
 *
 * Redirects are answers like others, never followed; proxies that the
 * environment names are not used; a server's certificate must be for the
 * host in the URL and lead to a trusted one; TLS is 1.2 or later.
 */
extern TdeKeyringStatus tde_http_request(const TdeHttpRequest *request,
										 const TdeKeyringCall *call,
										 int default_timeout_ms,
										 TdeHttpAnswer *answer,
										 TdeKeyringError *error);
extern void tde_http_free(TdeHttpAnswer *answer);

#endif							/* TDE_KEYRING_HTTP_H */
