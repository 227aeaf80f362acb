/*-------------------------------------------------------------------------
 *
 * exchange.h
 *	  Requests and their answers on a client's connection; for keys.c.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/exchange.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KMIP_EXCHANGE_H
#define TDE_KMIP_EXCHANGE_H

#include "messages.h"

/* All of it is in secure memory: messages and answers contain keys. */
struct TdeKmipClient
{
	TdeKmipStream *stream;
	TdeKmipVersion max_version;
	TdeKmipVersion version;		/* agreed on; {0, 0}: not yet */
	uint32		last_batch_id;

	/*
	 * The connection was lost, or is out of step because a message was cut
	 * off or invalid: no use but to be opened again.
	 */
	bool		broken;

	TdeKmipAnswer answer;		/* to the last request */
	uint8		request[TDE_KMIP_MAX_REQUEST];
	uint8		response[TDE_KMIP_MAX_RESPONSE];
};

/*
 * Send a request, of which version and batch_id are filled in here, and get
 * client->answer.  A lost connection is opened again, once, if the stream can
 * and the request has not gone out or only reads; so UNREACHABLE from one that
 * changes something leaves open whether it was carried out.
 */
extern TdeKeyringStatus tde_kmip_ask(TdeKmipClient *client,
									 TdeKmipRequest *request,
									 TdeKeyringError *error);

#endif							/* TDE_KMIP_EXCHANGE_H */
