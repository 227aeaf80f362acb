/*-------------------------------------------------------------------------
 *
 * kmip_server.c
 *	  A KMIP server in memory, for the checks of the KMIP client.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/kmip_server.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "kmip_server.h"
#include "ttlv_text.h"

/* A request, taken apart. */
typedef struct Asked
{
	TdeKmipVersion version;
	int			operation;
	TdeTtlvItem batch_id;
	TdeTtlvItem payload;
	char		name[64];
	ServerKey  *key;			/* that the request is about */
}			Asked;

/* ---- keys ---- */

ServerKey  *
server_add(KmipServer *server, const char *name, int state, uint8 byte)
{
	for (int i = 0; i < SERVER_MAX_KEYS; i++)
	{
		ServerKey  *k = &server->keys[i];

		if (k->state != 0)
			continue;
		snprintf(k->id, sizeof(k->id), "id-%d", ++server->nkeys_ever);
		strlcpy(k->name, name, sizeof(k->name));
		k->state = state;
		k->key.len = 32;
		memset(k->key.key, byte, k->key.len);
		return k;
	}
	return NULL;
}

int
server_nkeys(const KmipServer *server)
{
	int			n = 0;

	for (int i = 0; i < SERVER_MAX_KEYS; i++)
		n += server->keys[i].state != 0;
	return n;
}

/* ---- reading a request ---- */

static void
copy_text(const TdeTtlvItem *item, char *out, size_t size)
{
	snprintf(out, size, "%.*s", (int) item->len, (const char *) item->value);
}

/* The item of that tag, however deep. */
static bool
find_deep(const TdeTtlvItem *parent, uint32 tag, TdeTtlvItem *found)
{
	TdeTtlvItem child = {0};

	while (tde_ttlv_next(parent, &child))
	{
		if (child.tag == tag)
		{
			*found = child;
			return true;
		}
		if (child.type == TDE_TTLV_STRUCTURE && find_deep(&child, tag, found))
			return true;
	}
	return false;
}

static bool
read_request(KmipServer *server, const uint8 *buf, size_t len, Asked * asked)
{
	TdeTtlvItem root;
	TdeTtlvItem item;
	const char *reason;

	memset(asked, 0, sizeof(*asked));
	if (!tde_ttlv_check(buf, len, &root, &reason) ||
		root.tag != KMIP_TAG_REQUEST_MESSAGE)
		return false;
	if (find_deep(&root, KMIP_TAG_PROTOCOL_VERSION_MAJOR, &item))
		asked->version.major = tde_ttlv_integer(&item);
	if (find_deep(&root, KMIP_TAG_PROTOCOL_VERSION_MINOR, &item))
		asked->version.minor = tde_ttlv_integer(&item);
	if (!find_deep(&root, KMIP_TAG_OPERATION, &item))
		return false;
	asked->operation = (int) tde_ttlv_enum(&item);
	if (!find_deep(&root, KMIP_TAG_UNIQUE_BATCH_ITEM_ID, &asked->batch_id) ||
		!find_deep(&root, KMIP_TAG_REQUEST_PAYLOAD, &asked->payload))
		return false;
	if (find_deep(&asked->payload, KMIP_TAG_NAME_VALUE, &item))
		copy_text(&item, asked->name, sizeof(asked->name));
	if (find_deep(&asked->payload, KMIP_TAG_UNIQUE_IDENTIFIER, &item))
	{
		for (int i = 0; i < SERVER_MAX_KEYS; i++)
		{
			if (server->keys[i].state != 0 &&
				tde_ttlv_text_is(&item, server->keys[i].id))
				asked->key = &server->keys[i];
		}
	}
	return true;
}

/* ---- carrying it out ---- */

static void
put_version(TdeTtlvWriter *w, TdeKmipVersion version)
{
	tde_ttlv_begin(w, KMIP_TAG_PROTOCOL_VERSION);
	tde_ttlv_put_integer(w, KMIP_TAG_PROTOCOL_VERSION_MAJOR, version.major);
	tde_ttlv_put_integer(w, KMIP_TAG_PROTOCOL_VERSION_MINOR, version.minor);
	tde_ttlv_end(w);
}

static void
put_key(TdeTtlvWriter *w, const TdePrincipalKey *key)
{
	tde_ttlv_begin(w, KMIP_TAG_SYMMETRIC_KEY);
	tde_ttlv_begin(w, KMIP_TAG_KEY_BLOCK);
	tde_ttlv_put_enum(w, KMIP_TAG_KEY_FORMAT_TYPE, KMIP_FORMAT_RAW);
	tde_ttlv_begin(w, KMIP_TAG_KEY_VALUE);
	tde_ttlv_put_bytes(w, KMIP_TAG_KEY_MATERIAL, key->key, key->len);
	tde_ttlv_end(w);
	tde_ttlv_put_enum(w, KMIP_TAG_CRYPTOGRAPHIC_ALGORITHM, KMIP_ALGORITHM_AES);
	tde_ttlv_put_integer(w, KMIP_TAG_CRYPTOGRAPHIC_LENGTH, key->len * 8);
	tde_ttlv_end(w);
	tde_ttlv_end(w);
}

static void
put_state(TdeTtlvWriter *w, TdeKmipVersion version, int state)
{
	if (version.major >= 2)
	{
		tde_ttlv_begin(w, KMIP_TAG_ATTRIBUTES);
		tde_ttlv_put_enum(w, KMIP_TAG_STATE, state);
	}
	else
	{
		tde_ttlv_begin(w, KMIP_TAG_ATTRIBUTE);
		tde_ttlv_put_text(w, KMIP_TAG_ATTRIBUTE_NAME, "State");
		tde_ttlv_put_enum(w, KMIP_TAG_ATTRIBUTE_VALUE, state);
	}
	tde_ttlv_end(w);
}

static ServerKey *
new_key(KmipServer *server, const Asked * asked)
{
	TdeTtlvItem item;
	ServerKey  *k = server_add(server, asked->name,
							   server->active_at_once ? 2 : 1, 0x77);

	if (k != NULL &&
		find_deep(&asked->payload, KMIP_TAG_KEY_MATERIAL, &item))
	{
		k->key.len = item.len;
		memcpy(k->key.key, item.value, item.len);
	}
	return k;
}

/* Why not?  0 if the operation can be done. */
static uint32
objection(KmipServer *server, const Asked * asked)
{
	if (tde_kmip_compare_versions(asked->version, server->lowest) < 0 ||
		tde_kmip_compare_versions(asked->version, server->highest) > 0)
		return KMIP_INVALID_MESSAGE;
	if (server->unsupported & UINT64CONST(1) << asked->operation)
		return KMIP_OPERATION_NOT_SUPPORTED;
	switch (asked->operation)
	{
		case KMIP_GET:
		case KMIP_GET_ATTRIBUTES:
		case KMIP_REVOKE:
			return asked->key == NULL ? KMIP_OBJECT_NOT_FOUND : 0;
		case KMIP_ACTIVATE:
			return asked->key == NULL ? KMIP_OBJECT_NOT_FOUND :
				asked->key->state != 1 ? KMIP_WRONG_KEY_LIFECYCLE_STATE : 0;
		case KMIP_DESTROY:
			return asked->key == NULL ? KMIP_OBJECT_NOT_FOUND :
				asked->key->state == 2 ? KMIP_WRONG_KEY_LIFECYCLE_STATE : 0;
		default:
			return 0;
	}
}

static void
carry_out(KmipServer *server, const Asked * asked, TdeTtlvWriter *w)
{
	ServerKey  *k = asked->key;
	TdeTtlvItem item;

	switch (asked->operation)
	{
		case KMIP_DISCOVER_VERSIONS:
			for (int i = 0; i < tde_kmip_nversions; i++)
			{
				if (tde_kmip_compare_versions(tde_kmip_versions[i],
											  server->lowest) >= 0 &&
					tde_kmip_compare_versions(tde_kmip_versions[i],
											  server->highest) <= 0)
					put_version(w, tde_kmip_versions[i]);
			}
			return;
		case KMIP_QUERY:
			for (int i = 1; i < 0x20; i++)
			{
				if ((server->unsupported & UINT64CONST(1) << i) == 0)
					tde_ttlv_put_enum(w, KMIP_TAG_OPERATION, i);
			}
			return;
		case KMIP_LOCATE:
			for (int i = 0; i < SERVER_MAX_KEYS; i++)
			{
				if (server->keys[i].state != 0 &&
					strcmp(server->keys[i].name, asked->name) == 0)
					tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER,
									  server->keys[i].id);
			}
			return;
		case KMIP_CREATE:
		case KMIP_REGISTER:
			k = new_key(server, asked);
			break;
		case KMIP_GET:
			tde_ttlv_put_enum(w, KMIP_TAG_OBJECT_TYPE,
							  KMIP_OBJECT_SYMMETRIC_KEY);
			break;
		case KMIP_ACTIVATE:
			k->state = 2;
			break;
		case KMIP_REVOKE:
			find_deep(&asked->payload, KMIP_TAG_REVOCATION_REASON_CODE, &item);
			k->state = tde_ttlv_enum(&item) == TDE_KMIP_KEY_COMPROMISE ? 4 : 3;
			break;
		case KMIP_DESTROY:
			k->state = 0;
			break;
	}
	tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER, k->id);
	if (asked->operation == KMIP_GET)
		put_key(w, &k->key);
	if (asked->operation == KMIP_GET_ATTRIBUTES)
		put_state(w, asked->version, k->state);
}

static void
answer(KmipServer *server, const Asked * asked, uint32 refused)
{
	TdeTtlvWriter w;
	uint32		reason = refused ? refused : objection(server, asked);
	TdeKmipVersion version = asked->version;

	/* to a version above its own it answers in its highest one */
	if (reason == KMIP_INVALID_MESSAGE)
		version = server->highest;

	tde_ttlv_writer_init(&w, server->response, sizeof(server->response));
	tde_ttlv_begin(&w, KMIP_TAG_RESPONSE_MESSAGE);
	tde_ttlv_begin(&w, KMIP_TAG_RESPONSE_HEADER);
	put_version(&w, version);
	tde_ttlv_put_integer(&w, KMIP_TAG_BATCH_COUNT, 1);
	tde_ttlv_end(&w);
	tde_ttlv_begin(&w, KMIP_TAG_BATCH_ITEM);
	if (reason != KMIP_INVALID_MESSAGE)
	{
		tde_ttlv_put_enum(&w, KMIP_TAG_OPERATION, asked->operation);
		tde_ttlv_put_bytes(&w, KMIP_TAG_UNIQUE_BATCH_ITEM_ID,
						   asked->batch_id.value, asked->batch_id.len);
	}
	tde_ttlv_put_enum(&w, KMIP_TAG_RESULT_STATUS, reason ?
					  KMIP_RESULT_FAILED : KMIP_RESULT_SUCCESS);
	if (reason)
		tde_ttlv_put_enum(&w, KMIP_TAG_RESULT_REASON, reason);
	else
	{
		tde_ttlv_begin(&w, KMIP_TAG_RESPONSE_PAYLOAD);
		carry_out(server, asked, &w);
		tde_ttlv_end(&w);
	}
	tde_ttlv_end(&w);
	tde_ttlv_end(&w);
	server->response_len = w.failed ? 0 : w.len;
}

/* The answer that a test wrote. */
static void
answer_text(KmipServer *server, const Asked * asked)
{
	char		id[16];
	char	   *text;

	snprintf(id, sizeof(id), "%02x%02x%02x%02x", asked->batch_id.value[0],
			 asked->batch_id.value[1], asked->batch_id.value[2],
			 asked->batch_id.value[3]);
	text = text_replace(server->fault_answer, "@", id);

	server->response_len =
		ttlv_from_text(text ? text : server->fault_answer, server->response,
					   sizeof(server->response));
	if (text)
		pfree(text);
}

/* ---- the stream ---- */

static TdeKeyringStatus
lost(TdeKeyringError *error)
{
	return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
							"connection was lost");
}

static bool
fault_is_now(KmipServer *server, const Asked * asked)
{
	if (server->fault_times == 0 ||
		(server->fault_at != -1 && server->fault_at != asked->operation) ||
		server->fault_after-- > 0)
		return false;
	server->fault_after = 0;
	server->fault_times--;
	return true;
}

static TdeKeyringStatus
server_send(TdeKmipStream *stream, const void *buf, size_t len,
			TdeKeyringError *error)
{
	KmipServer *server = stream->arg;
	Asked		asked;
	ServerKey  *k;

	if (server->down)
		return lost(error);
	server->response_pos = 0;
	server->response_len = 0;
	if (!read_request(server, buf, len, &asked))
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								"request is not one");
	server->asked[asked.operation]++;
	server->last_version = asked.version;

	if (!fault_is_now(server, &asked))
	{
		answer(server, &asked, 0);
		return TDE_KEYRING_OK;
	}
	switch (server->fault)
	{
		case LOSE_REQUEST:
			server->down = true;
			break;
		case LOSE_ANSWER:
			answer(server, &asked, 0);
			server->response_len = 0;
			server->down = true;
			break;
		case CUT_ANSWER:
			answer(server, &asked, 0);
			server->response_len -= 4;
			server->down = true;
			break;
		case GARBLE_ANSWER:
			answer(server, &asked, 0);
			server->response[TDE_TTLV_HEADER_LEN] ^= 0xff;	/* the first tag */
			break;
		case CANCEL:
			return tde_keyring_fail(error, TDE_KEYRING_CANCELLED, NULL,
									"cancelled");
		case REFUSE:
			answer(server, &asked, server->fault_reason);
			break;
		case SAY:
			answer_text(server, &asked);
			break;
		case OTHER_NODE:
			server_add(server, asked.key ? asked.key->name : asked.name,
					   server->fault_reason, 0x99);
			answer(server, &asked, 0);
			break;
		case OVERTAKEN:
			server_add(server, asked.name, server->fault_reason, 0x99);
			server->down = true;
			break;
		case OTHER_KEY:
			k = asked.key;
			k->key.key[31] ^= 1;
			answer(server, &asked, 0);
			k->key.key[31] ^= 1;
			break;
	}
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
server_receive(TdeKmipStream *stream, void *buf, size_t len,
			   TdeKeyringError *error)
{
	KmipServer *server = stream->arg;

	if (server->response_len - server->response_pos < len)
		return lost(error);
	memcpy(buf, server->response + server->response_pos, len);
	server->response_pos += len;
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
server_reopen(TdeKmipStream *stream, TdeKeyringError *error)
{
	KmipServer *server = stream->arg;

	server->reopened++;
	if (server->cannot_reopen)
		return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
								"server is gone");
	server->down = false;
	server->response_len = server->response_pos = 0;
	return TDE_KEYRING_OK;
}

void
server_init(KmipServer *server)
{
	memset(server, 0, sizeof(*server));
	server->stream.send = server_send;
	server->stream.receive = server_receive;
	server->stream.reopen = server_reopen;
	server->stream.arg = server;
	server->lowest = tde_kmip_versions[tde_kmip_nversions - 1];
	server->highest = tde_kmip_versions[0];
}
