/*-------------------------------------------------------------------------
 *
 * check_kmip_client.c
 *	  A KMIP client and its connection: agreeing on a version, lost
 *	  connections, answers out of step, nothing left in memory.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_kmip_client.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/cipher.h"
#include "../../../common/tde/keyring/kmip/exchange.h"

#include "checks.h"
#include "kmip_server.h"

static const TdeKmipVersion any_version = {0, 0};

/* ---- versions ---- */

static const struct
{
	const char *title;
	TdeKmipVersion max;			/* of the client */
	TdeKmipVersion lowest;		/* of the server */
	TdeKmipVersion highest;
	bool		no_discover;	/* it does not know the operation */
	TdeKmipVersion agreed;		/* {0, 0}: none */
}			versions[] = {
	{"server knows all", {0, 0}, {1, 0}, {2, 1}, false, {2, 1}},
	{"server knows 2.0", {0, 0}, {1, 0}, {2, 0}, false, {2, 0}},
	{"server knows 1.4", {0, 0}, {1, 0}, {1, 4}, false, {1, 4}},
	{"server knows only 1.4 and above", {0, 0}, {1, 4}, {2, 1}, false, {2, 1}},
	{"server ends at 1.3", {0, 0}, {1, 0}, {1, 3}, false, {1, 3}},
	{"server ends at 1.1", {0, 0}, {1, 0}, {1, 1}, false, {1, 1}},
	{"server knows only 1.0", {0, 0}, {1, 0}, {1, 0}, true, {1, 0}},
	{"server cannot list versions", {0, 0}, {1, 0}, {2, 1}, true, {1, 4}},
	{"client ends at 1.4", {1, 4}, {1, 0}, {2, 1}, false, {1, 4}},
	{"client ends at 2.0", {2, 0}, {1, 0}, {2, 1}, false, {2, 0}},
	{"client ends at 1.2", {1, 2}, {1, 0}, {2, 1}, false, {1, 2}},
	{"client ends at 1.0", {1, 0}, {1, 0}, {2, 1}, false, {1, 0}},
	{"server knows only 2.x", {0, 0}, {2, 0}, {2, 1}, false, {0, 0}},
	{"nothing in common", {1, 2}, {1, 3}, {1, 4}, false, {0, 0}},
};

static void
check_versions(Checks *checks, KmipServer *server)
{
	for (int i = 0; i < lengthof(versions); i++)
	{
		TdeKmipClient *client;
		TdeKmipVersion agreed = {0, 0};
		TdeKeyringError error;
		TdeKeyringStatus status;

		server_init(server);
		server->lowest = versions[i].lowest;
		server->highest = versions[i].highest;
		if (versions[i].no_discover)
			server->unsupported = UINT64CONST(1) << KMIP_DISCOVER_VERSIONS;
		client = tde_kmip_client_create(&server->stream, versions[i].max,
										&error);
		status = tde_kmip_negotiate(client, &agreed, &error);
		check(checks, (status == TDE_KEYRING_OK) ==
			  (versions[i].agreed.major > 0) &&
			  tde_kmip_compare_versions(agreed, versions[i].agreed) == 0,
			  "kmip: versions: %s", versions[i].title);

		/* it is agreed on once, and the rest goes in that version */
		if (status == TDE_KEYRING_OK)
		{
			int			asked = server->asked[KMIP_DISCOVER_VERSIONS];

			status = tde_kmip_check(client, &error);
			check(checks, status == TDE_KEYRING_OK &&
				  server->asked[KMIP_DISCOVER_VERSIONS] == asked &&
				  tde_kmip_compare_versions(server->last_version,
											agreed) == 0,
				  "kmip: versions: %s: used", versions[i].title);
		}
		tde_kmip_client_free(client);
	}
}

/* Answers to Discover Versions. */
#define SAID(version, batch_item) "7B{7A{69{" version "} D:i1} F{" batch_item "}}"

static const struct
{
	const char *answer;
	TdeKeyringStatus status;
	const char *message;
}			first_answers[] = {

	{SAID("6A:i1 6B:i0", "7F:e1 7E:e3 7D:t'no certificate'"), TDE_KEYRING_DENIED,
	"authentication not successful: \"no certificate\""},
	{SAID("6A:i9 6B:i9", "7F:e1 7E:e4"), TDE_KEYRING_FAILED, "invalid message"},
	{SAID("6A:i1 6B:i4", "7F:e1 7E:e4"), TDE_KEYRING_FAILED, "invalid message"},
	{SAID("6A:i0 6B:i9", "7F:e1 7E:e4"), TDE_KEYRING_FAILED, "invalid message"},
	{SAID("6A:i1 6B:i4", "5C:e30 93:x@ 7F:e0 7C{}"), TDE_KEYRING_FAILED, "speaks no version of the protocol from 1.0 to 2.1"},
	{SAID("6A:i1 6B:i4", "5C:e30 93:x@ 7F:e0 7C{69{6A:i3 6B:i0}}"), TDE_KEYRING_FAILED, "speaks no version"},
	{SAID("6A:i1 6B:i3", "5C:e30 93:x@ 7F:e0 7C{69{6A:i1 6B:i3}}"), TDE_KEYRING_BAD_DATA, "in another version"},
	{SAID("6A:i1 6B:i4", "5C:e30 93:x@ 7F:e0"), TDE_KEYRING_BAD_DATA, "no Response Payload"},
	{SAID("6A:i1 6B:i4", "5C:e30 93:x@ 7F:e2"), TDE_KEYRING_BAD_DATA, "pending"},
	{"7B{}", TDE_KEYRING_BAD_DATA, "no Response Header"},
	{"78{}", TDE_KEYRING_BAD_DATA, "not a KMIP response"},
	{"7B{1:t'~32760'}", TDE_KEYRING_UNREACHABLE, "connection was lost"},
};

static void
check_first_answers(Checks *checks, KmipServer *server)
{
	for (int i = 0; i < lengthof(first_answers); i++)
	{
		TdeKmipClient *client;
		TdeKeyringError error;
		TdeKeyringStatus status;

		server_init(server);
		server->fault_at = KMIP_DISCOVER_VERSIONS;
		server->fault_times = 1;
		server->fault = SAY;
		server->fault_answer = first_answers[i].answer;
		server->cannot_reopen = true;
		client = tde_kmip_client_create(&server->stream, any_version, &error);
		status = tde_kmip_check(client, &error);
		if (first_answers[i].status == TDE_KEYRING_UNREACHABLE)
			check(checks, status == TDE_KEYRING_UNREACHABLE,
				  "kmip: answer of which nothing came");
		else
			check(checks, status == first_answers[i].status &&
				  error.status == status &&
				  strstr(error.message, first_answers[i].message) != NULL,
				  "kmip: first answer %s: %s", first_answers[i].answer,
				  first_answers[i].message);
		tde_kmip_client_free(client);
	}
}

/* A version that a server names when it refuses ours is taken. */
static void
check_lower_version(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKmipVersion agreed;
	TdeKeyringError error;

	server_init(server);
	server->fault_at = KMIP_DISCOVER_VERSIONS;
	server->fault_times = 1;
	server->fault = SAY;
	server->fault_answer = SAID("6A:i1 6B:i0", "7F:e1 7E:e4");
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	check(checks, tde_kmip_negotiate(client, &agreed,
									 &error) == TDE_KEYRING_OK &&
		  agreed.major == 1 && agreed.minor == 0 &&
		  server->asked[KMIP_DISCOVER_VERSIONS] == 1,
		  "kmip: versions: refused in 1.0, so 1.0");
	tde_kmip_client_free(client);
}

static void
check_offered(Checks *checks, KmipServer *server)
{
	static const TdeKmipOperation operations[] = {
		KMIP_LOCATE, KMIP_GET, KMIP_GET_ATTRIBUTES, KMIP_REGISTER, KMIP_QUERY,
	};

	for (int i = 0; i < lengthof(operations); i++)
	{
		bool		needed = i < 3;
		TdeKmipClient *client;
		TdeKeyringError error;
		TdeKeyringStatus status;

		server_init(server);
		server->unsupported = UINT64CONST(1) << operations[i];
		client = tde_kmip_client_create(&server->stream, any_version, &error);
		status = tde_kmip_check(client, &error);
		check(checks, needed ? status == TDE_KEYRING_FAILED &&
			  strstr(error.message, "does not offer operation") != NULL :
			  status == TDE_KEYRING_OK, "kmip: server without %s",
			  tde_kmip_operation_name(operations[i]));
		tde_kmip_client_free(client);
	}
}

/* ---- connections ---- */

static void
check_connections(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;
	TdePrincipalKey key;
	TdeKeyringStatus status;

	/* each request of a fetch is lost, or its answer, or half of that */
	for (int fault = LOSE_REQUEST; fault <= CUT_ANSWER; fault++)
	{
		for (int n = 0; n < 4; n++)
		{
			server_init(server);
			server_add(server, "k", 2, 0x33);
			server->fault_at = -1;
			server->fault_after = n;
			server->fault_times = 1;
			server->fault = fault;
			client = tde_kmip_client_create(&server->stream, any_version,
											&error);
			status = tde_kmip_fetch(client, "k", &key, NULL, &error);
			check(checks, status == TDE_KEYRING_OK && key.len == 32 &&
				  key.key[31] == 0x33 && server->reopened == 1,
				  "kmip: connection lost at request %d, way %d", n, fault);
			check(checks, server->asked[KMIP_DISCOVER_VERSIONS] == 2,
				  "kmip: version agreed on again after request %d, way %d",
				  n, fault);
			tde_kmip_client_free(client);
		}
	}

	/* lost twice for one request: no third time */
	server_init(server);
	server_add(server, "k", 2, 0x33);
	server->fault_at = KMIP_GET;
	server->fault_times = 10;
	server->fault = LOSE_ANSWER;
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE &&
		  server->reopened == 1 && server->asked[KMIP_GET] == 2,
		  "kmip: connection lost twice");

	/* the next call opens it again */
	server->fault_times = 0;
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_OK && server->reopened == 2,
		  "kmip: next call after that");

	/* a connection that cannot be opened again */
	server->down = true;
	server->cannot_reopen = true;
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE &&
		  strcmp(error.message, "server is gone") == 0 &&
		  server->reopened == 3, "kmip: connection that does not come back");
	server->stream.reopen = NULL;
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE &&
		  strcmp(error.message, "connection to KMIP server was lost") == 0,
		  "kmip: connection without a second chance");

	/* one that the caller made */
	server->down = false;
	tde_kmip_client_reset(client);
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_OK, "kmip: connection made anew");
	tde_kmip_client_free(client);

	/* after an invalid answer the connection is not trusted */
	server_init(server);
	server_add(server, "k", 2, 0x33);
	server->fault_at = KMIP_GET;
	server->fault_times = 1;
	server->fault = SAY;
	server->fault_answer = "7B{7A{}}";
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_BAD_DATA && server->reopened == 0,
		  "kmip: invalid answer is not asked for again");
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_OK && server->reopened == 1,
		  "kmip: connection is made anew after an invalid answer");
	tde_kmip_client_free(client);
}

static void
check_cancel(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;
	TdePrincipalKey key;

	server_init(server);
	server_add(server, "k", 2, 0x33);
	server->fault_at = KMIP_LOCATE;
	server->fault_times = 1;
	server->fault = CANCEL;
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	check(checks, tde_kmip_fetch(client, "k", &key, NULL,
								 &error) == TDE_KEYRING_CANCELLED &&
		  server->reopened == 0 && server->asked[KMIP_LOCATE] == 1,
		  "kmip: cancelled");
	tde_kmip_client_free(client);
}

/* ---- memory ---- */

/* Is any 8 bytes of a key in there? */
static bool
contains(const void *memory, size_t size, const TdePrincipalKey *key)
{
	for (size_t i = 0; i + 8 <= size; i++)
	{
		for (int k = 0; k + 8 <= key->len; k += 8)
		{
			if (memcmp((const uint8 *) memory + i, key->key + k, 8) == 0)
				return true;
		}
	}
	return false;
}

static void
check_memory(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;
	TdePrincipalKey key;
	const TdePrincipalKey *kept = &server->keys[0].key;

	server_init(server);
	server_add(server, "k", 2, 0x33);
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	check(checks, tde_kmip_fetch(client, "k", &key, NULL,
								 &error) == TDE_KEYRING_OK &&
		  contains(&key, sizeof(key), kept) &&
		  !contains(client, sizeof(*client), kept),
		  "kmip: no key is left after a fetch");
	tde_kmip_client_free(client);

	/* nor after it was sent to the server */
	server_init(server);
	server->fault_at = KMIP_REGISTER;
	server->fault_times = 1;
	server->fault = LOSE_ANSWER;
	server->cannot_reopen = true;
	client = tde_kmip_client_create(&server->stream, any_version, &error);
	check(checks, tde_kmip_create_key(client, "k", 32, &key,
									  &error) == TDE_KEYRING_UNREACHABLE &&
		  server_nkeys(server) == 1 &&
		  !contains(client, sizeof(*client), kept),
		  "kmip: no key is left after registering one");
	tde_kmip_client_free(client);

	/* in the middle of an answer, and in one that is invalid at its end */
	for (int way = 0; way < 2; way++)
	{
		server_init(server);
		server_add(server, "k", 2, 0x33);
		server->fault_at = KMIP_GET;
		server->fault_times = 1;
		server->fault = way == 0 ? CUT_ANSWER : SAY;
		server->fault_answer =
			"7B{7A{69{6A:i2 6B:i1} D:i1} F{5C:e10 93:x@ 7F:e0 "
			"7C{57:e2 94:t'id-1' 8F{40{42:e1 45{43:x"
			"3333333333333333333333333333333333333333333333333333333333333333"
			"} 28:e3 2A:i256}} 94:t'id-1'}}}";
		server->cannot_reopen = true;
		client = tde_kmip_client_create(&server->stream, any_version, &error);
		check(checks, tde_kmip_fetch(client, "k", &key, NULL,
									 &error) != TDE_KEYRING_OK &&
			  server->asked[KMIP_GET] == 1 &&
			  !contains(client, sizeof(*client), kept) &&
			  !contains(&error, sizeof(error), kept),
			  "kmip: no key is left after a failure, way %d", way);
		tde_kmip_client_free(client);
	}
}

void
check_kmip_client(Checks *checks)
{
	KmipServer *server = palloc(sizeof(KmipServer));

	check_versions(checks, server);
	check_first_answers(checks, server);
	check_lower_version(checks, server);
	check_offered(checks, server);
	check_connections(checks, server);
	check_cancel(checks, server);
	check_memory(checks, server);
	pfree(server);
}
