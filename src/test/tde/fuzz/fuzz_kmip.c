/*-------------------------------------------------------------------------
 *
 * fuzz_kmip.c
 *	  Fuzz target: answers of a KMIP server.
 *
 * The input is taken as the answer to each operation, in 1.4 and 2.1, and
 * then as all that a server says while a client works with it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/fuzz/fuzz_kmip.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "../../../common/tde/keyring/kmip/messages.h"

#include "fuzz.h"

static const TdeKmipOperation operations[] = {
	KMIP_CREATE, KMIP_REGISTER, KMIP_LOCATE, KMIP_GET, KMIP_GET_ATTRIBUTES,
	KMIP_ACTIVATE, KMIP_REVOKE, KMIP_DESTROY, KMIP_QUERY,
	KMIP_DISCOVER_VERSIONS,
};

static bool
is_zero(const void *memory, size_t size)
{
	for (size_t i = 0; i < size; i++)
	{
		if (((const uint8 *) memory)[i] != 0)
			return false;
	}
	return true;
}

/* What may be asked of every answer. */
static void
check_answer(const TdeKmipRequest *request, TdeKeyringStatus status,
			 TdeKmipAnswer answer, const TdeKeyringError *error)
{
	if (status != TDE_KEYRING_OK)
	{
		FUZZ_REQUIRE(error->status == status && error->message[0] != '\0');
		FUZZ_REQUIRE(status == TDE_KEYRING_BAD_DATA || answer.reason != 0 ||
					 status == TDE_KEYRING_FAILED);
		memset(&answer.version, 0, sizeof(answer.version));
		answer.reason = 0;
		FUZZ_REQUIRE(is_zero(&answer, sizeof(answer)));
		return;
	}
	FUZZ_REQUIRE(tde_kmip_compare_versions(answer.version,
										   request->version) == 0);
	FUZZ_REQUIRE(strnlen(answer.id, sizeof(answer.id)) < sizeof(answer.id));
	for (int i = 0; i < TDE_KMIP_MAX_LOCATED; i++)
	{
		size_t		len = strnlen(answer.located[i], TDE_KMIP_MAX_ID + 1);

		FUZZ_REQUIRE(len <= TDE_KMIP_MAX_ID);
		FUZZ_REQUIRE(i < answer.nlocated || len == 0);
	}
	switch (request->operation)
	{
		case KMIP_CREATE:
		case KMIP_REGISTER:
			FUZZ_REQUIRE(answer.id[0] != '\0');
			break;
		case KMIP_LOCATE:
			FUZZ_REQUIRE(answer.nlocated >= 0);
			FUZZ_REQUIRE(answer.nlocated == 0 || answer.located[0][0] != '\0');
			break;
		case KMIP_GET:
			FUZZ_REQUIRE(answer.key.len == 16 || answer.key.len == 24 ||
						 answer.key.len == 32);
			break;
		case KMIP_GET_ATTRIBUTES:
			FUZZ_REQUIRE(answer.state >= TDE_PRINCIPAL_ACTIVE &&
						 answer.state <= TDE_PRINCIPAL_DESTROYED);
			break;
		default:
			break;
	}
}

/* A request as the vectors' are, so that their answers are to it. */
static void
decode_as(TdeKmipOperation operation, TdeKmipVersion version,
		  const uint8 *data, size_t size)
{
	static const TdePrincipalKey key = {.len = 32};
	TdeKmipRequest request = {.operation = operation,.version = version};
	TdeKmipAnswer answer;
	TdeKeyringError error = {0};
	TdeKeyringStatus status;

	request.batch_id = 7;
	request.id = "6f3a1c52-8f0e-4c1b-9d57-2f4f0c1e7a90";
	request.key = &key;
	request.max_version = tde_kmip_versions[0];
	memset(&answer, 0x5A, sizeof(answer));
	status = tde_kmip_decode(&request, data, size, &answer, &error);
	check_answer(&request, status, answer, &error);
}

/* ---- a connection on which the input comes ---- */

typedef struct Input
{
	const uint8 *p;
	size_t		left;
} Input;

static TdeKeyringStatus
input_send(TdeKmipStream *stream, const void *buf, size_t len,
		   TdeKeyringError *error)
{
	FUZZ_REQUIRE(len > 0 && len <= TDE_KMIP_MAX_REQUEST);
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
input_receive(TdeKmipStream *stream, void *buf, size_t len,
			  TdeKeyringError *error)
{
	Input	   *input = stream->arg;

	FUZZ_REQUIRE(len > 0 && len <= TDE_KMIP_MAX_RESPONSE);
	if (len > input->left)
		return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
								"end of file");
	memcpy(buf, input->p, len);
	input->p += len;
	input->left -= len;
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
input_reopen(TdeKmipStream *stream, TdeKeyringError *error)
{
	Input	   *input = stream->arg;

	/* the rest of the input comes from there */
	if (input->left < TDE_TTLV_HEADER_LEN)
		return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL, "gone");
	return TDE_KEYRING_OK;
}

static void
talk(const uint8 *data, size_t size, bool create)
{
	Input		input = {data, size};
	TdeKmipStream stream = {input_send, input_receive, input_reopen, &input};
	TdeKmipVersion version = {0, 0};
	TdePrincipalKey key = {0};
	TdeKeyringError error = {0};
	TdeKmipClient *client;
	TdeKeyringStatus status;

	client = tde_kmip_client_create(&stream, version, &error);
	FUZZ_REQUIRE(client != NULL);
	if (create)
		status = tde_kmip_create_key(client, "key", 32, &key, &error);
	else
		status = tde_kmip_fetch(client, "key", &key, NULL, &error);
	FUZZ_REQUIRE(status == TDE_KEYRING_OK ? key.len > 0 :
				 is_zero(&key, sizeof(key)) && error.status == status);
	tde_kmip_client_free(client);
}

void
fuzz_kmip(const uint8 *data, size_t size)
{
	static const TdeKmipVersion versions[] = {{1, 4}, {2, 1}};
	size_t		len;
	TdeKeyringError error;

	if (size >= TDE_TTLV_HEADER_LEN &&
		tde_kmip_response_len(data, &len, &error) == TDE_KEYRING_OK)
		FUZZ_REQUIRE(len <= TDE_KMIP_MAX_RESPONSE);
	for (int v = 0; v < lengthof(versions); v++)
	{
		for (int i = 0; i < lengthof(operations); i++)
			decode_as(operations[i], versions[v], data, size);
	}
	talk(data, size, false);
	talk(data, size, true);
}
