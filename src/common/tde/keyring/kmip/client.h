/*-------------------------------------------------------------------------
 *
 * client.h
 *	  A client of KMIP, the Key Management Interoperability Protocol of OASIS
 *	  (versions 1.0 to 2.1), over a stream that somebody else opens.
 *
 * A stream is a connection to a KMIP server, by TLS in real life and a script
 * in tests.  A client belongs to one stream and is used by one caller at a
 * time.  It keeps no key between two calls.
 *
 * Functions that return a TdeKeyringStatus describe a failure in *error.  The
 * statuses that a server's answer leads to:
 *
 *	  NOT_FOUND		no such key, or one that was destroyed
 *	  EXISTS		create: the name is taken, or was taken at the same time
 *	  DENIED		the server refuses us, or refuses this key to anybody
 *	  BAD_DATA		the answer breaks the protocol, is not the one we asked
 *					for or holds no AES key; or several keys have the name
 *	  FAILED		the server reports some other failure
 *
 * and what the stream returned, when it failed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/client.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KMIP_CLIENT_H
#define TDE_KMIP_CLIENT_H

#include "tde/keyring.h"

/*
 * A connection, given by whoever makes it.  It has one deadline for all that
 * happens on it, connecting again included, and asks the call's callback
 * while it waits.  Each function returns TDE_KEYRING_OK only if it did all of
 * its work; else TDE_KEYRING_UNREACHABLE if the connection broke, was closed
 * by the other side or time ran out, TDE_KEYRING_CANCELLED, or what describes
 * the failure best.
 */
typedef struct TdeKmipStream
{
	/* Send len bytes, all of them. */
	TdeKeyringStatus (*send) (struct TdeKmipStream *stream,
							  const void *buf, size_t len,
							  TdeKeyringError *error);

	/* Receive len bytes, no fewer and no more.  End of file is a failure. */
	TdeKeyringStatus (*receive) (struct TdeKmipStream *stream,
								 void *buf, size_t len,
								 TdeKeyringError *error);

	/*
	 * Close the connection and make a new one, to the same KMS (any of its
	 * addresses).  Called after a connection was lost, when it is safe to ask
	 * again; at most once per request.  NULL: there is no second chance.
	 */
	TdeKeyringStatus (*reopen) (struct TdeKmipStream *stream,
								TdeKeyringError *error);

	void	   *arg;			/* of the stream's own */
} TdeKmipStream;

/* A protocol version; 2.1 is {2, 1}. */
typedef struct TdeKmipVersion
{
	int			major;
	int			minor;
} TdeKmipVersion;

/* Why a key is revoked: makes it Deactivated, or Compromised. */
typedef enum TdeKmipRevocation
{
	TDE_KMIP_KEY_COMPROMISE = 2,
	TDE_KMIP_CESSATION_OF_OPERATION = 6,
} TdeKmipRevocation;

typedef struct TdeKmipClient TdeKmipClient;

/*
 * A client on an open stream; NULL if there is no memory, with *error set.
 * Nothing is sent yet.  max_version is the highest version to use, {0, 0} for
 * the highest that we know.  The stream must outlive the client, which never
 * closes it.
 */
extern TdeKmipClient *tde_kmip_client_create(TdeKmipStream *stream,
											 TdeKmipVersion max_version,
											 TdeKeyringError *error);
extern void tde_kmip_client_free(TdeKmipClient *client);	/* NULL is fine */

/*
 * Tell the client that its stream is a new connection, so that the version is
 * agreed on anew.  Not needed after the stream's own reopen().
 */
extern void tde_kmip_client_reset(TdeKmipClient *client);

/*
 * Agree on a version with the server.  All functions below do it themselves
 * when it has not been done.  The version agreed on goes to *version unless
 * that is NULL.
 */
extern TdeKeyringStatus tde_kmip_negotiate(TdeKmipClient *client,
										   TdeKmipVersion *version,
										   TdeKeyringError *error);

/*
 * Does the server answer, and offer what we need?  Changes nothing there.
 */
extern TdeKeyringStatus tde_kmip_check(TdeKmipClient *client,
									   TdeKeyringError *error);

/*
 * Fetch the one key of that name.  Keys that are Active, Deactivated or
 * Compromised are taken as far as the server gives them out; one that is
 * Pre-Active is not (keys.c says why).  The state goes to *state unless that
 * is NULL.
 */
extern TdeKeyringStatus tde_kmip_fetch(TdeKmipClient *client,
									   const char *name,
									   TdePrincipalKey *key,
									   TdePrincipalState *state,
									   TdeKeyringError *error);

/*
 * Make a new AES key of keylen bytes under a name that is free, and leave it
 * Active.
 */
extern TdeKeyringStatus tde_kmip_create_key(TdeKmipClient *client,
											const char *name, int keylen,
											TdePrincipalKey *key,
											TdeKeyringError *error);

/*
 * The state of the one key of that name.  A destroyed key that the server
 * still knows is TDE_PRINCIPAL_DESTROYED and the status OK, or the status
 * DESTROYED; one that it has forgotten is NOT_FOUND.
 */
extern TdeKeyringStatus tde_kmip_key_state(TdeKmipClient *client,
										   const char *name,
										   TdePrincipalState *state,
										   TdeKeyringError *error);

/* For tests and tools: what a KMS administrator does to a key. */
extern TdeKeyringStatus tde_kmip_activate(TdeKmipClient *client,
										  const char *name,
										  TdeKeyringError *error);
extern TdeKeyringStatus tde_kmip_revoke(TdeKmipClient *client,
										const char *name,
										TdeKmipRevocation why,
										TdeKeyringError *error);
extern TdeKeyringStatus tde_kmip_destroy(TdeKmipClient *client,
										 const char *name,
										 TdeKeyringError *error);

#endif							/* TDE_KMIP_CLIENT_H */
