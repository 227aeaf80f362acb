/*-------------------------------------------------------------------------
 *
 * check_kmip_keys.c
 *	  Keys of a KMIP server by name: states, duplicates, creating a key with
 *	  everything going wrong.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_kmip_keys.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/cipher.h"
#include "../../../common/tde/keyring/kmip/client.h"

#include "checks.h"
#include "kmip_server.h"

static const TdeKmipVersion any_version = {0, 0};

static TdeKmipClient *
connect_to(KmipServer *server, TdeKmipVersion max_version)
{
	TdeKeyringError error;

	return tde_kmip_client_create(&server->stream, max_version, &error);
}

static bool
is_zero(const TdePrincipalKey *key)
{
	for (int i = 0; i < sizeof(*key); i++)
	{
		if (((const uint8 *) key)[i] != 0)
			return false;
	}
	return true;
}

/* ---- fetching ---- */

static void
check_states(Checks *checks, KmipServer *server)
{
	static const struct
	{
		int			state;
		TdeKeyringStatus status;
		TdePrincipalState got;
		const char *message;
	}			states[] = {
		{1, TDE_KEYRING_DENIED, TDE_PRINCIPAL_PRE_ACTIVE, "is not active yet"},
		{2, TDE_KEYRING_OK, TDE_PRINCIPAL_ACTIVE, ""},
		{3, TDE_KEYRING_OK, TDE_PRINCIPAL_DEACTIVATED, ""},
		{4, TDE_KEYRING_OK, TDE_PRINCIPAL_COMPROMISED, ""},
		{5, TDE_KEYRING_DESTROYED, TDE_PRINCIPAL_DESTROYED, "was destroyed"},
		{6, TDE_KEYRING_DESTROYED, TDE_PRINCIPAL_DESTROYED, "was destroyed"},
		{7, TDE_KEYRING_BAD_DATA, 0, "state of the key is unknown"},
	};

	for (int v = 0; v < tde_kmip_nversions; v++)
	{
		for (int i = 0; i < lengthof(states); i++)
		{
			TdeKmipClient *client;
			TdeKeyringError error = {0};
			TdePrincipalKey key = {0};
			TdePrincipalState state = 0;
			TdeKeyringStatus status;

			server_init(server);
			server_add(server, "other", 2, 0x11);
			server_add(server, "k", states[i].state, 0x33);
			client = connect_to(server, tde_kmip_versions[v]);
			status = tde_kmip_fetch(client, "k", &key, &state, &error);
			check(checks, status == states[i].status &&
				  (status == TDE_KEYRING_OK ?
				   key.len == 32 && key.key[0] == 0x33 &&
				   state == states[i].got :
				   strstr(error.message, states[i].message) != NULL &&
				   is_zero(&key)),
				  "kmip: %d.%d: fetch of a key in state %d",
				  tde_kmip_versions[v].major, tde_kmip_versions[v].minor,
				  states[i].state);
			state = 0;
			status = tde_kmip_key_state(client, "k", &state, &error);
			check(checks, (status == TDE_KEYRING_OK) == (states[i].got != 0) &&
				  state == states[i].got, "kmip: %d.%d: state %d",
				  tde_kmip_versions[v].major, tde_kmip_versions[v].minor,
				  states[i].state);
			tde_kmip_client_free(client);
		}
	}
}

static void
check_names(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;
	TdePrincipalKey key = {0};
	TdePrincipalState state;
	TdeKeyringStatus status;

	server_init(server);
	client = connect_to(server, any_version);
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_NOT_FOUND &&
		  strcmp(error.message,
				 "KMIP server has no key with the name \"k\"") == 0 &&
		  error.hint[0] != '\0', "kmip: a key that is not there");
	check(checks, tde_kmip_key_state(client, "k", &state,
									 &error) == TDE_KEYRING_NOT_FOUND,
		  "kmip: state of a key that is not there");

	for (int i = 0; i < 6; i++)
		server_add(server, "k", i == 0 ? 2 : 1, 0x33);
	status = tde_kmip_fetch(client, "k", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_BAD_DATA &&
		  strcmp(error.message, "KMIP server has 6 keys with the name \"k\", "
				 "with the unique identifiers "
				 "\"id-1\", \"id-2\", \"id-3\", \"id-4\"") == 0 &&
		  error.hint[0] != '\0' && server->asked[KMIP_GET] == 0,
		  "kmip: a name that several keys have");
	status = tde_kmip_key_state(client, "k", &state, &error);
	check(checks, status == TDE_KEYRING_BAD_DATA,
		  "kmip: state of several keys");

	status = tde_kmip_fetch(client, "\xfc", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_FAILED &&
		  strstr(error.message, "not valid UTF-8") != NULL,
		  "kmip: a name that KMIP cannot have");
	status = tde_kmip_fetch(client, "x", &key, NULL, &error);
	check(checks, status == TDE_KEYRING_NOT_FOUND && server->reopened == 0,
		  "kmip: connection stays good after that");
	tde_kmip_client_free(client);
}

/* What a server answers to a fetch definitely is not asked for again. */
static void
check_refused(Checks *checks, KmipServer *server)
{
	static const struct
	{
		int			operation;
		uint32		reason;
		TdeKeyringStatus status;
	}			refusals[] = {
		{KMIP_LOCATE, KMIP_PERMISSION_DENIED, TDE_KEYRING_DENIED},
		{KMIP_GET_ATTRIBUTES, KMIP_OBJECT_NOT_FOUND, TDE_KEYRING_NOT_FOUND},
		{KMIP_GET, KMIP_ITEM_NOT_FOUND, TDE_KEYRING_NOT_FOUND},
		{KMIP_GET, KMIP_OBJECT_DESTROYED, TDE_KEYRING_DESTROYED},
		{KMIP_GET, KMIP_WRONG_KEY_LIFECYCLE_STATE, TDE_KEYRING_DENIED},
		{KMIP_GET, KMIP_SENSITIVE, TDE_KEYRING_DENIED},
		{KMIP_GET, 0x100, TDE_KEYRING_FAILED},
	};

	for (int i = 0; i < lengthof(refusals); i++)
	{
		TdeKmipClient *client;
		TdeKeyringError error;
		TdePrincipalKey key = {0};

		server_init(server);
		server_add(server, "k", 2, 0x33);
		server->fault_at = refusals[i].operation;
		server->fault_times = 1;
		server->fault = REFUSE;
		server->fault_reason = refusals[i].reason;
		client = connect_to(server, any_version);
		check(checks, tde_kmip_fetch(client, "k", &key, NULL,
									 &error) == refusals[i].status &&
			  server->asked[refusals[i].operation] == 1 &&
			  server->reopened == 0 && is_zero(&key),
			  "kmip: fetch refused at %s: %s",
			  tde_kmip_operation_name(refusals[i].operation),
			  tde_kmip_reason_name(refusals[i].reason));
		tde_kmip_client_free(client);
	}
}

/* ---- creating ---- */

static void
check_create(Checks *checks, KmipServer *server)
{
	for (int v = 0; v < tde_kmip_nversions; v++)
	{
		for (int way = 0; way < 3; way++)
		{
			TdeKmipClient *client;
			TdeKeyringError error;
			TdePrincipalKey key;
			TdePrincipalKey again;
			TdeKeyringStatus status;

			server_init(server);
			server->active_at_once = way == 1;
			if (way == 2)		/* the server makes the key */
				server->unsupported = UINT64CONST(1) << KMIP_REGISTER;
			client = connect_to(server, tde_kmip_versions[v]);
			status = tde_kmip_create_key(client, "k", 32, &key, &error);
			check(checks, status == TDE_KEYRING_OK && key.len == 32 &&
				  server_nkeys(server) == 1 && server->keys[0].state == 2 &&
				  memcmp(&key, &server->keys[0].key, sizeof(int) + 32) == 0 &&
				  server->asked[KMIP_ACTIVATE] == (way == 1 ? 0 : 1) &&
				  server->asked[KMIP_CREATE] == (way == 2 ? 1 : 0),
				  "kmip: %d.%d: key created, way %d",
				  tde_kmip_versions[v].major, tde_kmip_versions[v].minor, way);
			check(checks, tde_kmip_fetch(client, "k", &again, NULL,
										 &error) == TDE_KEYRING_OK &&
				  memcmp(again.key, key.key, 32) == 0,
				  "kmip: %d.%d: created key fetched, way %d",
				  tde_kmip_versions[v].major, tde_kmip_versions[v].minor, way);
			status = tde_kmip_create_key(client, "k", 32, &again, &error);
			check(checks, status == TDE_KEYRING_EXISTS &&
				  is_zero(&again) && server_nkeys(server) == 1,
				  "kmip: %d.%d: name is taken, way %d",
				  tde_kmip_versions[v].major, tde_kmip_versions[v].minor, way);
			tde_kmip_client_free(client);
		}
	}
}

/*
 * Something happens at the nth request of an operation while a key is
 * created.  "left" is how many keys of the name there are afterwards.
 */
typedef struct Trouble
{
	const char *title;
	TdeKmipOperation operation;
	int			after;			/* so many times nothing happens */
	int			fault;
	uint32		reason;
	TdeKeyringStatus status;
	int			left;
	const char *hint;			/* a piece of it, or NULL */
}			Trouble;

#define UNKNOWN	"may have been created"
#define LEFT	"The key with the unique identifier \"id-1\" is left"

static const Trouble troubles[] = {
	{"request Register lost", KMIP_REGISTER, 0, LOSE_REQUEST, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Register lost", KMIP_REGISTER, 0, LOSE_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Register cut", KMIP_REGISTER, 0, CUT_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"request Activate lost", KMIP_ACTIVATE, 0, LOSE_REQUEST, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Activate lost", KMIP_ACTIVATE, 0, LOSE_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Activate is senseless", KMIP_ACTIVATE, 0, GARBLE_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Locate lost", KMIP_LOCATE, 1, LOSE_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"answer to Get lost", KMIP_GET, 0, LOSE_ANSWER, 0, TDE_KEYRING_OK, 1, NULL},
	{"Register cancelled", KMIP_REGISTER, 0, CANCEL, 0, TDE_KEYRING_CANCELLED, 0, UNKNOWN},
	{"Activate cancelled", KMIP_ACTIVATE, 0, CANCEL, 0, TDE_KEYRING_CANCELLED, 1, UNKNOWN},
	{"answer to Register is senseless", KMIP_REGISTER, 0, GARBLE_ANSWER, 0, TDE_KEYRING_BAD_DATA, 1, UNKNOWN},
	{"Register refused", KMIP_REGISTER, 0, REFUSE, KMIP_PERMISSION_DENIED, TDE_KEYRING_DENIED, 0, NULL},
	{"name not unique", KMIP_REGISTER, 0, REFUSE, KMIP_NON_UNIQUE_NAME, TDE_KEYRING_EXISTS, 0, NULL},
	{"Activate refused", KMIP_ACTIVATE, 0, REFUSE, KMIP_PERMISSION_DENIED, TDE_KEYRING_DENIED, 0, NULL},
	{"Get refused", KMIP_GET, 0, REFUSE, KMIP_SENSITIVE, TDE_KEYRING_DENIED, 0, NULL},
	{"another key returned", KMIP_GET, 0, OTHER_KEY, 0, TDE_KEYRING_BAD_DATA, 0, NULL},
	{"another node before we look", KMIP_LOCATE, 0, OTHER_NODE, 2, TDE_KEYRING_EXISTS, 1, NULL},
	{"another node before Register", KMIP_REGISTER, 0, OTHER_NODE, 2, TDE_KEYRING_EXISTS, 1, "try again"},
	{"another node that is not done either", KMIP_REGISTER, 0, OTHER_NODE, 1, TDE_KEYRING_EXISTS, 1, "try again"},
	{"another node after Register", KMIP_LOCATE, 1, OTHER_NODE, 1, TDE_KEYRING_EXISTS, 1, "try again"},
	{"another node after we looked", KMIP_GET, 0, OTHER_NODE, 1, TDE_KEYRING_OK, 2, NULL},
};

static void
check_troubles(Checks *checks, KmipServer *server)
{
	for (int i = 0; i < lengthof(troubles); i++)
	{
		const		Trouble *t = &troubles[i];
		TdeKmipClient *client;
		TdeKeyringError error = {0};
		TdePrincipalKey key;
		TdeKeyringStatus status;
		ServerKey  *ours = NULL;

		server_init(server);
		server->fault_at = t->operation;
		server->fault_after = t->after;
		server->fault_times = 1;
		server->fault = t->fault;
		server->fault_reason = t->reason;
		client = connect_to(server, any_version);
		status = tde_kmip_create_key(client, "k", 32, &key, &error);
		check(checks, status == t->status && server_nkeys(server) == t->left &&
			  server->fault_times == 0 &&
			  (t->hint ? strstr(error.hint, t->hint) != NULL :
			   error.hint[0] == '\0'),
			  "kmip: creating a key: %s", t->title);

		/* what is created is Active, and what is not is wiped */
		for (int k = 0; k < SERVER_MAX_KEYS; k++)
		{
			if (server->keys[k].state != 0 &&
				memcmp(server->keys[k].key.key, key.key, 32) == 0)
				ours = &server->keys[k];
		}
		check(checks, status == TDE_KEYRING_OK ?
			  ours != NULL && ours->state == 2 : ours == NULL && is_zero(&key),
			  "kmip: creating a key: %s: outcome", t->title);
		tde_kmip_client_free(client);
	}
}

/* Register is lost, and meanwhile somebody else registers the name. */
static void
check_lost_race(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;
	TdePrincipalKey key;
	TdeKeyringStatus status;

	server_init(server);
	server->fault_at = KMIP_REGISTER;
	server->fault_times = 1;
	server->fault = LOSE_REQUEST;
	server->cannot_reopen = true;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE && is_zero(&key) &&
		  strstr(error.hint, UNKNOWN) != NULL,
		  "kmip: creating a key: connection does not come back");
	tde_kmip_client_free(client);

	server_init(server);
	server->fault_at = KMIP_REGISTER;
	server->fault_times = 2;
	server->fault = LOSE_REQUEST;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE && is_zero(&key) &&
		  server->asked[KMIP_REGISTER] == 2 && server_nkeys(server) == 0,
		  "kmip: creating a key: lost twice");
	tde_kmip_client_free(client);

	server_init(server);
	server->stream.reopen = NULL;
	server->fault_at = KMIP_REGISTER;
	server->fault_times = 1;
	server->fault = LOSE_ANSWER;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_UNREACHABLE && is_zero(&key) &&
		  server->asked[KMIP_REGISTER] == 1 &&
		  strstr(error.hint, UNKNOWN) != NULL,
		  "kmip: creating a key: no second chance");
	tde_kmip_client_free(client);

	/* lost, and then somebody else's key is there: it is not ours */
	server_init(server);
	server->fault_at = KMIP_REGISTER;
	server->fault_times = 1;
	server->fault = OVERTAKEN;
	server->fault_reason = 2;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_EXISTS && is_zero(&key) &&
		  server->asked[KMIP_REGISTER] == 1 &&
		  server->asked[KMIP_DESTROY] == 0 && server_nkeys(server) == 1 &&
		  server->keys[0].key.key[0] == 0x99,
		  "kmip: creating a key: lost and overtaken");
	tde_kmip_client_free(client);

	/* one that a server makes Active at once may be in use by now */
	server_init(server);
	server->active_at_once = true;
	server->fault_at = KMIP_GET;
	server->fault_times = 1;
	server->fault = OTHER_KEY;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_BAD_DATA && is_zero(&key) &&
		  server->asked[KMIP_REVOKE] == 0 &&
		  server->asked[KMIP_DESTROY] == 0 && server_nkeys(server) == 1 &&
		  strstr(error.hint, LEFT) != NULL,
		  "kmip: creating a key: active one is not withdrawn");
	tde_kmip_client_free(client);

	/* nor is one that has become Active, which we learn only in the end */
	server_init(server);
	server->fault_at = -1;
	server->fault_after = 6;	/* the seventh request is to activate it */
	server->fault_times = 2;
	server->fault = GARBLE_ANSWER;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_BAD_DATA && is_zero(&key) &&
		  server->asked[KMIP_ACTIVATE] == 1 &&
		  server->asked[KMIP_REVOKE] == 0 &&
		  server->asked[KMIP_DESTROY] == 0 &&
		  server->keys[0].state == 2 && strstr(error.hint, LEFT) != NULL,
		  "kmip: creating a key: one that may be active is not withdrawn");
	tde_kmip_client_free(client);

	/* and if it cannot be withdrawn, somebody is told */
	server_init(server);
	server->unsupported = UINT64CONST(1) << KMIP_DESTROY |
		UINT64CONST(1) << KMIP_ACTIVATE;
	client = connect_to(server, any_version);
	status = tde_kmip_create_key(client, "k", 32, &key, &error);
	check(checks, status == TDE_KEYRING_FAILED && is_zero(&key) &&
		  server_nkeys(server) == 1 && strstr(error.hint, LEFT) != NULL &&
		  strstr(error.message, "Activate") != NULL,
		  "kmip: creating a key: it cannot be withdrawn");
	tde_kmip_client_free(client);
}

/* ---- what an administrator does ---- */

static void
check_administration(Checks *checks, KmipServer *server)
{
	TdeKmipClient *client;
	TdeKeyringError error;

	server_init(server);
	server_add(server, "k", 1, 0x33);
	client = connect_to(server, any_version);
	check(checks, tde_kmip_activate(client, "k", &error) == TDE_KEYRING_OK &&
		  server->keys[0].state == 2, "kmip: activate");
	check(checks, tde_kmip_activate(client, "k", &error) == TDE_KEYRING_OK,
		  "kmip: activate again");
	check(checks, tde_kmip_destroy(client, "k",
								   &error) == TDE_KEYRING_DENIED &&
		  server->keys[0].state == 2, "kmip: destroy an active key");
	check(checks, tde_kmip_revoke(client, "k", TDE_KMIP_CESSATION_OF_OPERATION,
								  &error) == TDE_KEYRING_OK &&
		  server->keys[0].state == 3, "kmip: revoke");
	check(checks, tde_kmip_revoke(client, "k", TDE_KMIP_KEY_COMPROMISE,
								  &error) == TDE_KEYRING_OK &&
		  server->keys[0].state == 4, "kmip: revoke as compromised");
	check(checks, tde_kmip_destroy(client, "k", &error) == TDE_KEYRING_OK &&
		  server_nkeys(server) == 0, "kmip: destroy");
	check(checks, tde_kmip_destroy(client, "k",
								   &error) == TDE_KEYRING_NOT_FOUND,
		  "kmip: destroy again");
	tde_kmip_client_free(client);
}

void
check_kmip_keys(Checks *checks)
{
	KmipServer *server = palloc(sizeof(KmipServer));

	check_states(checks, server);
	check_names(checks, server);
	check_refused(checks, server);
	check_create(checks, server);
	check_troubles(checks, server);
	check_lost_race(checks, server);
	check_administration(checks, server);
	pfree(server);
}
