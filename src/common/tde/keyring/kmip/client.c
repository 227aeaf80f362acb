/*-------------------------------------------------------------------------
 *
 * client.c
 *	  A client's connection to a KMIP server: requests and answers, agreeing
 *	  on a version, and what to do when the connection is lost.
 *
 * Negotiation begins in version 1.4, not in the highest that we know: a server
 * must answer in the version of the request, and what servers do with one that
 * they do not know differs, while all of them know Discover Versions in 1.4 or
 * answer in a lower version.
 *
 * Requests are not pipelined and not batched.  A key is asked for when a
 * server starts or a database is first used; a round trip more does not
 * matter, and what can go wrong stays simple.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/client.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "exchange.h"
#include "tde/cipher.h"

static const TdeKmipVersion version_1_0 = {1, 0};
static const TdeKmipVersion version_1_4 = {1, 4};

TdeKmipClient *
tde_kmip_client_create(TdeKmipStream *stream, TdeKmipVersion max_version,
					   TdeKeyringError *error)
{
	TdeKmipClient *client;
	bool		locked;

	client = tde_secure_alloc(sizeof(*client), false, &locked);
	if (client == NULL)
	{
		tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
						 _("could not allocate memory for keys: %m"));
		return NULL;
	}
	client->stream = stream;
	client->max_version = max_version.major > 0 ? max_version :
		tde_kmip_versions[0];
	return client;
}

void
tde_kmip_client_free(TdeKmipClient *client)
{
	tde_secure_free(client, sizeof(*client));
}

void
tde_kmip_client_reset(TdeKmipClient *client)
{
	client->broken = false;
	client->version.major = client->version.minor = 0;
}

/*
 * One request and its answer, in request->version.  Whatever happens, neither
 * message is left in memory.
 */
static TdeKeyringStatus
exchange(TdeKmipClient *client, TdeKmipRequest *request,
		 TdeKeyringError *error)
{
	TdeKmipStream *stream = client->stream;
	TdeKeyringStatus status;
	size_t		len;

	tde_wipe(&client->answer, sizeof(client->answer));
	request->batch_id = ++client->last_batch_id;
	len = tde_kmip_encode(request, client->request, sizeof(client->request));
	if (len == 0)
	{
		tde_wipe(client->request, sizeof(client->request));
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("name of a key cannot be sent to a KMIP server: it is not valid UTF-8"));
	}

	client->broken = true;		/* unless we come to the end */
	status = stream->send(stream, client->request, len, error);
	tde_wipe(client->request, len);
	if (status != TDE_KEYRING_OK)
		return status;

	status = stream->receive(stream, client->response,
							 TDE_TTLV_HEADER_LEN, error);
	if (status == TDE_KEYRING_OK)
		status = tde_kmip_response_len(client->response, &len, error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (len > TDE_TTLV_HEADER_LEN)
		status = stream->receive(stream,
								 client->response + TDE_TTLV_HEADER_LEN,
								 len - TDE_TTLV_HEADER_LEN, error);
	if (status == TDE_KEYRING_OK)
	{
		status = tde_kmip_decode(request, client->response, len,
								 &client->answer, error);
		client->broken = (status == TDE_KEYRING_BAD_DATA);
	}
	tde_wipe(client->response, len);
	return status;
}

/* ---- version ---- */

static bool
is_our_version(TdeKmipVersion version)
{
	for (int i = 0; i < tde_kmip_nversions; i++)
	{
		if (tde_kmip_compare_versions(version, tde_kmip_versions[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Agree on the highest common version.  A server that does not know the
 * version of our question says so in a lower one, in which we ask again;
 * version 1.0 has no such question.
 */
static TdeKeyringStatus
negotiate(TdeKmipClient *client, TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_DISCOVER_VERSIONS};
	TdeKmipAnswer *answer = &client->answer;

	request.max_version = client->max_version;
	request.version = client->max_version;
	if (tde_kmip_compare_versions(request.version, version_1_4) > 0)
		request.version = version_1_4;

	while (tde_kmip_compare_versions(request.version, version_1_0) > 0)
	{
		TdeKeyringStatus status = exchange(client, &request, error);
		int			c;

		if (status == TDE_KEYRING_OK && answer->best.major == 0)
			return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
									_("KMIP server speaks no version of the protocol from 1.0 to %d.%d"),
									client->max_version.major,
									client->max_version.minor);
		if (status == TDE_KEYRING_OK)
		{
			client->version = answer->best;
			return TDE_KEYRING_OK;
		}

		if (status != TDE_KEYRING_FAILED ||
			(answer->reason != KMIP_INVALID_MESSAGE &&
			 answer->reason != KMIP_OPERATION_NOT_SUPPORTED &&
			 answer->reason != KMIP_UNSUPPORTED_PROTOCOL_VERSION) ||
			!is_our_version(answer->version))
			return status;

		/* it knows the version, but not this operation */
		c = tde_kmip_compare_versions(answer->version, request.version);
		if (c == 0 && answer->reason == KMIP_OPERATION_NOT_SUPPORTED)
			break;
		if (c >= 0)
			return status;
		request.version = answer->version;
	}
	client->version = request.version;
	return TDE_KEYRING_OK;
}

/* ---- lost connections ---- */

/* May it be sent again when we do not know whether it was carried out? */
static bool
only_reads(TdeKmipOperation operation)
{
	switch (operation)
	{
		case KMIP_LOCATE:
		case KMIP_GET:
		case KMIP_GET_ATTRIBUTES:
		case KMIP_QUERY:
		case KMIP_DISCOVER_VERSIONS:
			return true;
		case KMIP_CREATE:
		case KMIP_REGISTER:
		case KMIP_ACTIVATE:
		case KMIP_REVOKE:
		case KMIP_DESTROY:
			break;
	}
	return false;
}

static TdeKeyringStatus
reopen(TdeKmipClient *client, TdeKeyringError *error)
{
	TdeKeyringStatus status;

	if (client->stream->reopen == NULL)
		return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
								_("connection to KMIP server was lost"));
	status = client->stream->reopen(client->stream, error);
	if (status == TDE_KEYRING_OK)
		tde_kmip_client_reset(client);
	return status;
}

/* As tde_kmip_ask; without a request, only agree on a version. */
static TdeKeyringStatus
ask(TdeKmipClient *client, TdeKmipRequest *request, TdeKeyringError *error)
{
	bool		reopened = false;

	for (;;)
	{
		TdeKeyringStatus status = TDE_KEYRING_OK;
		bool		sent = false;

		if (client->broken)
		{
			reopened = true;
			status = reopen(client, error);
			if (status != TDE_KEYRING_OK)
				return status;
		}
		if (client->version.major == 0)
			status = negotiate(client, error);
		if (status == TDE_KEYRING_OK && request != NULL)
		{
			sent = true;
			request->version = client->version;
			status = exchange(client, request, error);
		}
		if (status != TDE_KEYRING_UNREACHABLE ||
			reopened || client->stream->reopen == NULL ||
			(sent && !only_reads(request->operation)))
			return status;
	}
}

TdeKeyringStatus
tde_kmip_ask(TdeKmipClient *client, TdeKmipRequest *request,
			 TdeKeyringError *error)
{
	return ask(client, request, error);
}

TdeKeyringStatus
tde_kmip_negotiate(TdeKmipClient *client, TdeKmipVersion *version,
				   TdeKeyringError *error)
{
	TdeKeyringStatus status = ask(client, NULL, error);

	if (status == TDE_KEYRING_OK && version != NULL)
		*version = client->version;
	return status;
}

TdeKeyringStatus
tde_kmip_check(TdeKmipClient *client, TdeKeyringError *error)
{
	static const TdeKmipOperation needed[] = {
		KMIP_LOCATE, KMIP_GET, KMIP_GET_ATTRIBUTES,
	};
	TdeKmipRequest request = {.operation = KMIP_QUERY};
	TdeKeyringStatus status;
	uint64		offered;

	status = tde_kmip_ask(client, &request, error);
	offered = client->answer.operations;

	/* a server need not tell */
	if (status == TDE_KEYRING_FAILED &&
		client->answer.reason == KMIP_OPERATION_NOT_SUPPORTED)
		return TDE_KEYRING_OK;
	if (status != TDE_KEYRING_OK || offered == 0)
		return status;
	for (int i = 0; i < lengthof(needed); i++)
	{
		if ((offered & UINT64CONST(1) << needed[i]) == 0)
			return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
									_("KMIP server does not offer operation %s"),
									tde_kmip_operation_name(needed[i]));
	}
	return TDE_KEYRING_OK;
}
