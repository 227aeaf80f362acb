/*-------------------------------------------------------------------------
 *
 * keys.c
 *	  Keys of a KMIP server by their names: find, fetch, create.
 *
 * Names are not unique on a KMIP server.  Since a name is all that we keep of
 * a key, two keys of one name are an error, for whoever reads and for whoever
 * creates.  To create one,
 *
 *	  1. Locate says that the name is free,
 *	  2. Register gives the server a key drawn by us, Pre-Active at first,
 *	  3. Locate must find that key and no other,
 *	  4. Get must return the same bytes,
 *	  5. Activate makes it a key to be used.
 *
 * Of two nodes that do it at once, at least the one whose second step comes
 * last sees the other's key in its third, and withdraws its own; when both
 * do, the name is free again.  A key is withdrawn only if the server says that
 * it is Pre-Active, and a Pre-Active key is not handed out by fetching, so
 * nothing can have been encrypted with it.  Where the step that failed may
 * have made it Active, or the server makes keys Active at once, it stays, and
 * the error says so.
 *
 * We draw the key, rather than let the server make it (Create), because then
 * an answer that is lost does no harm: a key found under the name is ours if
 * it has our bytes.  A server that takes no keys from outside makes the key.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/keys.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <time.h>

#include "exchange.h"
#include "tde/cipher.h"

/* How much of a unique identifier a message shows. */
#define SHOWN_ID	64

typedef char KeyId[TDE_KMIP_MAX_ID + 1];

/* ---- single operations ---- */

static TdeKeyringStatus
ask_about(TdeKmipClient *client, TdeKmipOperation operation, const char *id,
		  TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = operation,.id = id};

	return tde_kmip_ask(client, &request, error);
}

/* The keys of a name are then in client->answer. */
static TdeKeyringStatus
locate(TdeKmipClient *client, const char *name, TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_LOCATE,.name = name};

	return tde_kmip_ask(client, &request, error);
}

static TdeKeyringStatus
get_key(TdeKmipClient *client, const char *id, TdePrincipalKey *key,
		TdeKeyringError *error)
{
	TdeKeyringStatus status = ask_about(client, KMIP_GET, id, error);

	if (status == TDE_KEYRING_OK)
		*key = client->answer.key;
	tde_wipe(&client->answer.key, sizeof(client->answer.key));
	return status;
}

static TdeKeyringStatus
get_state(TdeKmipClient *client, const char *id, TdePrincipalState *state,
		  TdeKeyringError *error)
{
	TdeKeyringStatus status;

	status = ask_about(client, KMIP_GET_ATTRIBUTES, id, error);
	if (status == TDE_KEYRING_OK)
		*state = client->answer.state;
	return status;
}

static TdeKeyringStatus
revoke(TdeKmipClient *client, const char *id, TdeKmipRevocation why,
	   TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_REVOKE,.id = id,.why = why};

	request.when = (int64) time(NULL);
	return tde_kmip_ask(client, &request, error);
}

/*
 * Make a key Active.  Some servers create keys in that state; and if the
 * answer was lost, or made no sense, the state says whether it was done.
 */
static TdeKeyringStatus
activate(TdeKmipClient *client, const char *id, TdeKeyringError *error)
{
	TdeKeyringStatus status;

	for (int attempt = 0;; attempt++)
	{
		TdePrincipalState state;

		status = get_state(client, id, &state, error);
		if (status != TDE_KEYRING_OK || state == TDE_PRINCIPAL_ACTIVE)
			return status;
		status = ask_about(client, KMIP_ACTIVATE, id, error);
		if ((status != TDE_KEYRING_UNREACHABLE &&
			 status != TDE_KEYRING_BAD_DATA) || attempt > 0 ||
			client->stream->reopen == NULL)
			return status;
	}
}

/* ---- finding ---- */

static TdeKeyringStatus
fail_several(TdeKmipClient *client, const char *name, TdeKeyringError *error)
{
	const TdeKmipAnswer *answer = &client->answer;
	char		ids[TDE_KMIP_MAX_LOCATED * (SHOWN_ID + 5)] = "";

	for (int i = 0; i < answer->nlocated && i < TDE_KMIP_MAX_LOCATED; i++)
	{
		char		id[SHOWN_ID + 1];

		/* there may be more than the server sent */
		if (answer->located[i][0] == '\0')
			break;
		tde_kmip_printable(answer->located[i], strlen(answer->located[i]),
						   id, sizeof(id));
		snprintf(ids + strlen(ids), sizeof(ids) - strlen(ids),
				 "%s\"%s\"", i > 0 ? ", " : "", id);
	}
	return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
							_("Find out which of the keys is in use, and rename or destroy the others on the KMIP server."),
							_("KMIP server has %d keys with the name \"%s\", with the unique identifiers %s"),
							answer->nlocated, name, ids);
}

/* The unique identifier of the one key of that name. */
static TdeKeyringStatus
find_key(TdeKmipClient *client, const char *name, char *id,
		 TdeKeyringError *error)
{
	TdeKeyringStatus status = locate(client, name, error);

	if (status != TDE_KEYRING_OK)
		return status;
	if (client->answer.nlocated == 0)
		return tde_keyring_fail(error, TDE_KEYRING_NOT_FOUND,
								_("The KMIP server shows keys only to clients that have access to them."),
								_("KMIP server has no key with the name \"%s\""),
								name);
	if (client->answer.nlocated > 1)
		return fail_several(client, name, error);
	strcpy(id, client->answer.located[0]);
	return TDE_KEYRING_OK;
}

TdeKeyringStatus
tde_kmip_fetch(TdeKmipClient *client, const char *name, TdePrincipalKey *key,
			   TdePrincipalState *state, TdeKeyringError *error)
{
	KeyId		id;
	TdePrincipalState found;
	TdeKeyringStatus status;

	if ((status = find_key(client, name, id, error)) != TDE_KEYRING_OK ||
		(status = get_state(client, id, &found, error)) != TDE_KEYRING_OK)
		return status;
	if (found == TDE_PRINCIPAL_PRE_ACTIVE)
		return tde_keyring_fail(error, TDE_KEYRING_DENIED,
								_("Activate the key on the KMIP server, unless it is being created right now."),
								_("key \"%s\" on the KMIP server is not active yet"),
								name);
	if (found == TDE_PRINCIPAL_DESTROYED)
		return tde_keyring_fail(error, TDE_KEYRING_DESTROYED, NULL,
								_("key \"%s\" on the KMIP server was destroyed"),
								name);
	status = get_key(client, id, key, error);
	if (status == TDE_KEYRING_OK && state != NULL)
		*state = found;
	return status;
}

TdeKeyringStatus
tde_kmip_key_state(TdeKmipClient *client, const char *name,
				   TdePrincipalState *state, TdeKeyringError *error)
{
	KeyId		id;
	TdeKeyringStatus status = find_key(client, name, id, error);

	return status == TDE_KEYRING_OK ?
		get_state(client, id, state, error) : status;
}

/* ---- creating ---- */

static TdeKeyringStatus
fail_taken_meanwhile(const char *name, TdeKeyringError *error)
{
	return tde_keyring_fail(error, TDE_KEYRING_EXISTS,
							_("If no key has that name now, try again."),
							_("another key with the name \"%s\" was created on the KMIP server at the same time"),
							name);
}

/*
 * Destroy a key of ours that nobody can have come to use, and say in the hint
 * of *error, which describes why, if that cannot be done.
 */
static void
withdraw(TdeKmipClient *client, const char *id, TdeKeyringError *error)
{
	TdeKeyringError again;
	TdePrincipalState state;
	TdeKeyringStatus status = get_state(client, id, &state, &again);
	char		shown[SHOWN_ID + 1];

	if (status == TDE_KEYRING_OK && state == TDE_PRINCIPAL_PRE_ACTIVE)
		status = ask_about(client, KMIP_DESTROY, id, &again);
	else if (status == TDE_KEYRING_OK)
		status = TDE_KEYRING_FAILED;
	if (status == TDE_KEYRING_OK || status == TDE_KEYRING_NOT_FOUND ||
		status == TDE_KEYRING_DESTROYED)
		return;

	tde_kmip_printable(id, strlen(id), shown, sizeof(shown));
	snprintf(error->hint, sizeof(error->hint),
			 _("The key with the unique identifier \"%s\" is left on the KMIP server: destroy it, unless it is in use."),
			 shown);
}

/*
 * After Register without an answer: which of the keys that have the name now
 * is ours?  *id is empty if there are none.
 */
static TdeKeyringStatus
find_registered(TdeKmipClient *client, const char *name,
				const TdePrincipalKey *key, char *id, TdeKeyringError *error)
{
	KeyId		found[TDE_KMIP_MAX_LOCATED];
	TdeKeyringStatus status;

	id[0] = '\0';
	status = locate(client, name, error);
	if (status != TDE_KEYRING_OK)
		return status;
	memcpy(found, client->answer.located, sizeof(found));
	for (int i = 0; i < TDE_KMIP_MAX_LOCATED && found[i][0] != '\0'; i++)
	{
		TdePrincipalKey other = {0};
		bool		same;

		status = get_key(client, found[i], &other, error);
		same = status == TDE_KEYRING_OK && other.len == key->len &&
			memcmp(other.key, key->key, key->len) == 0;

		tde_wipe(&other, sizeof(other));
		if (same)
		{
			strcpy(id, found[i]);
			break;
		}

		/* a key that we may not see is not ours */
		if (status == TDE_KEYRING_UNREACHABLE ||
			status == TDE_KEYRING_CANCELLED)
			return status;
	}
	if (id[0] == '\0' && found[0][0] != '\0')
		return fail_taken_meanwhile(name, error);
	return TDE_KEYRING_OK;
}

/* Register a key; if the connection is lost over it, find out and repeat. */
static TdeKeyringStatus
register_key(TdeKmipClient *client, const char *name,
			 const TdePrincipalKey *key, char *id, TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_REGISTER,.name = name};
	TdeKeyringStatus status;

	request.key = key;
	status = tde_kmip_ask(client, &request, error);
	if (status == TDE_KEYRING_UNREACHABLE && client->stream->reopen != NULL)
	{
		status = find_registered(client, name, key, id, error);
		if (status != TDE_KEYRING_OK || id[0] != '\0')
			return status;
		status = tde_kmip_ask(client, &request, error);
	}
	if (status == TDE_KEYRING_OK)
		strcpy(id, client->answer.id);
	return status;
}

/* Let the server make a key. */
static TdeKeyringStatus
create_on_server(TdeKmipClient *client, const char *name, int keylen,
				 char *id, TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_CREATE,.name = name};
	TdeKeyringStatus status;

	request.keylen = keylen;
	status = tde_kmip_ask(client, &request, error);
	if (status == TDE_KEYRING_OK)
		strcpy(id, client->answer.id);
	return status;
}

/*
 * Steps 3 to 5 for the key that the server has now.  "key" is what it must be;
 * if drawn is false, all of it but its length is yet to be learned.
 */
static TdeKeyringStatus
accept_key(TdeKmipClient *client, const char *name, const char *id,
		   bool drawn, TdePrincipalKey *key, TdeKeyringError *error)
{
	TdePrincipalKey returned = {0};
	bool		same;
	TdeKeyringStatus status;

	status = locate(client, name, error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (client->answer.nlocated == 0)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("KMIP server does not find the key \"%s\" that it has just created"),
								name);
	if (client->answer.nlocated > 1 ||
		strcmp(client->answer.located[0], id) != 0)
		return fail_taken_meanwhile(name, error);

	status = get_key(client, id, &returned, error);
	if (status != TDE_KEYRING_OK)
		return status;
	same = returned.len == key->len &&
		(!drawn || memcmp(returned.key, key->key, key->len) == 0);
	if (same)
		*key = returned;
	tde_wipe(&returned, sizeof(returned));
	if (!same)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("KMIP server returns another key than was created under the name \"%s\""),
								name);
	return activate(client, id, error);
}

TdeKeyringStatus
tde_kmip_create_key(TdeKmipClient *client, const char *name, int keylen,
					TdePrincipalKey *key, TdeKeyringError *error)
{
	KeyId		id;
	bool		drawn = true;
	bool		known;			/* what became of the key on the server */
	TdeKeyringStatus status;

	memset(key, 0, sizeof(*key));
	status = locate(client, name, error);
	if (status == TDE_KEYRING_OK && client->answer.nlocated > 0)
		status = tde_keyring_fail(error, TDE_KEYRING_EXISTS, NULL,
								  _("KMIP server already has a key with the name \"%s\""),
								  name);
	if (status != TDE_KEYRING_OK)
		return status;

	key->len = keylen;
	if (tde_random(key->key, keylen) < 0)
	{
		tde_wipe(key, sizeof(*key));
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL, "%s",
								_(tde_cipher_error()));
	}
	status = register_key(client, name, key, id, error);
	if (status == TDE_KEYRING_FAILED &&
		client->answer.reason == KMIP_OPERATION_NOT_SUPPORTED)
	{
		drawn = false;
		status = create_on_server(client, name, keylen, id, error);
	}
	if (status == TDE_KEYRING_OK)
	{
		status = accept_key(client, name, id, drawn, key, error);
		known = status != TDE_KEYRING_UNREACHABLE &&
			status != TDE_KEYRING_CANCELLED;
		if (status != TDE_KEYRING_OK && known)
			withdraw(client, id, error);
	}
	else
		known = status != TDE_KEYRING_UNREACHABLE &&
			status != TDE_KEYRING_CANCELLED && status != TDE_KEYRING_BAD_DATA;

	if (!known)
		strlcpy(error->hint,
				_("The key may have been created: look for its name on the KMIP server, and destroy the key, before you try again."),
				sizeof(error->hint));
	if (status != TDE_KEYRING_OK)
		tde_wipe(key, sizeof(*key));
	return status;
}

/* ---- for tests and tools ---- */

TdeKeyringStatus
tde_kmip_activate(TdeKmipClient *client, const char *name,
				  TdeKeyringError *error)
{
	KeyId		id;
	TdeKeyringStatus status = find_key(client, name, id, error);

	return status == TDE_KEYRING_OK ? activate(client, id, error) : status;
}

TdeKeyringStatus
tde_kmip_revoke(TdeKmipClient *client, const char *name,
				TdeKmipRevocation why, TdeKeyringError *error)
{
	KeyId		id;
	TdeKeyringStatus status = find_key(client, name, id, error);

	return status == TDE_KEYRING_OK ? revoke(client, id, why, error) : status;
}

TdeKeyringStatus
tde_kmip_destroy(TdeKmipClient *client, const char *name,
				 TdeKeyringError *error)
{
	KeyId		id;
	TdeKeyringStatus status = find_key(client, name, id, error);

	return status == TDE_KEYRING_OK ?
		ask_about(client, KMIP_DESTROY, id, error) : status;
}
