/*-------------------------------------------------------------------------
 *
 * vault.c
 *	  The provider vault-v2: principal keys in a KV secrets engine, version 2,
 *	  of a Vault or OpenBao server.
 *
 * A key "name" is the secret "name" below the engine's mount path, with one
 * field, "key", in base64 (doc/provider-vault.md).  Its newest version
 * counts.  It is made with "check-and-set" 0, so that a secret that is there
 * already, were it only a deleted version, is never overwritten.
 *
 * The token is read from its file for each call, since an agent may renew it
 * there, and goes to the server that the options name and to no other.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/vault.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "http.h"
#include "secret_file.h"
#include "tde/cipher.h"
#include "tde/keyring.h"
#include "vault_json.h"
#include "vault_options.h"

#define DEFAULT_TIMEOUT_MS	10000

#define MAX_TOKEN			8192

/* A path below the mount path, percent-encoded. */
#define PATH_LEN			(3 * (TDE_MAX_PROVIDER_OPTIONS + \
								  TDE_MAX_KEY_NAME) + 64)

/* An answer with what it is about, for messages. */
typedef struct Reply
{
	const Vault *vault;
	const char *path;			/* of the secret, or the mount path */
	int			status;
	bool		is_json;
	VaultAnswer answer;
} Reply;

/* ---- asking ---- */

/*
 * Read the token.  White space around it is an editor's, or an echo's.
 */
static TdeKeyringStatus
read_token(const Vault *vault, TdeSecret *secret, char **token,
		   TdeKeyringError *error)
{
	TdeKeyringStatus status;

	status = tde_secret_read(vault->token_path, _("token file"), MAX_TOKEN,
							 secret, error);
	if (status != TDE_KEYRING_OK)
		return status;
	while (secret->len > 0 &&
		   isspace((unsigned char) secret->data[secret->len - 1]))
		secret->data[--secret->len] = '\0';
	*token = secret->data + strspn(secret->data, " \t\r\n");

	/* a zero byte inside is not printable, either */
	if (**token == '\0' || !vault_is_printable(*token) ||
		strlen(*token) != secret->len - (*token - secret->data))
	{
		status = tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								  _("The file must contain a token and nothing else."),
								  _("token file \"%s\" does not contain a token"),
								  vault->token_path);
		tde_secret_free(secret);
	}
	return status;
}

/*
 * Append to a URL, percent-encoded (RFC 3986) but for its slashes.
 */
static void
append_encoded(char *buf, const char *path)
{
	static const char unreserved[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
	char	   *pos = buf + strlen(buf);

	for (; *path != '\0'; path++)
	{
		if (strchr(unreserved, *path))
			*pos++ = *path;
		else
			pos += sprintf(pos, "%%%02X", (unsigned char) *path);
	}
	*pos = '\0';
}

/*
 * Does a text, which may be cut off, give a secret away?
 */
static bool
mentions(const char *text, const char *secret)
{
	char		piece[17];
	bool		found = false;

	do
	{
		strlcpy(piece, secret, sizeof(piece));
		found = strstr(text, piece) != NULL;
	} while (!found && strlen(secret++) >= sizeof(piece));
	tde_wipe(piece, sizeof(piece));
	return found;
}

/*
 * Ask the server, and take its answer apart.  The token is known here only.
 */
static TdeKeyringStatus
ask(const Vault *vault, const char *url, const char *body,
	const TdeKeyringCall *call, Reply *reply, TdeKeyringError *error)
{
	TdeHttpRequest request = {.server = vault->url,.url = url,.body = body};
	TdeHttpAnswer http;
	TdeKeyringStatus status;
	TdeSecret	secret;
	char	   *token;
	char	   *token_header;
	size_t		token_header_size;
	char		namespace_header[VAULT_OPTION_LEN + 32];
	const char *headers[6] = {0};
	int			n = 0;
	bool		locked;

	status = read_token(vault, &secret, &token, error);
	if (status != TDE_KEYRING_OK)
		return status;
	token_header_size = strlen(token) + 32;
	token_header = tde_secure_alloc(token_header_size, false, &locked);
	if (token_header == NULL)
	{
		tde_secret_free(&secret);
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("out of memory"));
	}
	snprintf(token_header, token_header_size, "X-Vault-Token: %s", token);
	headers[n++] = token_header;
	headers[n++] = "X-Vault-Request: true"; /* agents may demand it */
	headers[n++] = "Content-Type: application/json";
	headers[n++] = "Accept: application/json";
	if (vault->namespace[0] != '\0')
	{
		snprintf(namespace_header, sizeof(namespace_header),
				 "X-Vault-Namespace: %s", vault->namespace);
		headers[n++] = namespace_header;
	}
	request.headers = headers;
	if (vault->ca_path[0] != '\0')
		request.ca_path = vault->ca_path;
	if (vault->crl_path[0] != '\0')
		request.crl_path = vault->crl_path;

	status = tde_http_request(&request, call, DEFAULT_TIMEOUT_MS, &http, error);
	tde_secure_free(token_header, token_header_size);
	if (status == TDE_KEYRING_OK)
	{
		reply->status = http.status;
		reply->is_json = vault_parse(http.body, http.len, &reply->answer);

		/* a server that says it all back does not get it into our log */
		if (mentions(reply->answer.error, token) ||
			(body && mentions(reply->answer.error, body)))
			reply->answer.error[0] = '\0';
		tde_http_free(&http);
	}
	tde_secret_free(&secret);
	return status;
}

/* ---- what an answer means ---- */

/*
 * The statuses that mean the same whatever was asked.
 */
static TdeKeyringStatus
fail_status(const Reply *reply, TdeKeyringError *error)
{
	const char *url = reply->vault->url;
	const char *path = reply->path;
	const char *said = reply->answer.error[0] ? reply->answer.error :
		_("no reason given");

	switch (reply->status)
	{
		case 301:
		case 302:
		case 303:
		case 307:
		case 308:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("Redirects are not followed, as the token would go along. Give the URL of the active server, or of a load balancer in front of it."),
									_("server \"%s\" redirects to another URL (status %d)"),
									url, reply->status);
		case 401:
		case 403:
			return tde_keyring_fail(error, TDE_KEYRING_DENIED,
									_("Check that the token has not expired, and that its policy allows \"create\" and \"read\" below \"data/\" of the secrets engine."),
									_("server \"%s\" denies access to \"%s\" with the token from file \"%s\": %s"),
									url, path, reply->vault->token_path, said);
		case 404:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("Check the options \"mountPath\" and \"namespace\"."),
									_("server \"%s\" does not know path \"%s\": %s"),
									url, path, said);
		case 503:
			return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
									_("Unseal the server, or wait until its maintenance ends."),
									_("server \"%s\" is sealed or down for maintenance: %s"),
									url, said);
		case 412:
		case 429:
		case 472:
		case 473:
		case 500:
		case 501:
		case 502:
		case 504:
			return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
									_("See the server's own log."),
									_("server \"%s\" cannot answer now (status %d): %s"),
									url, reply->status, said);
		default:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("Check that the URL is that of a Vault or OpenBao server, and see its log."),
									_("server \"%s\" answers status %d for \"%s\": %s"),
									url, reply->status, path, said);
	}
}

static TdeKeyringStatus
fail_answer(const Reply *reply, TdeKeyringError *error)
{
	return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
							_("Check that the URL is that of a Vault or OpenBao server."),
							reply->is_json ?
							_("answer of server \"%s\" for \"%s\" lacks what it should contain") :
							_("answer of server \"%s\" for \"%s\" is not valid JSON"),
							reply->vault->url, reply->path);
}

/* ---- keys ---- */

/*
 * The URL of a secret, and its path for messages.
 */
static TdeKeyringStatus
locate_key(const Vault *vault, const char *name, char *url, char *path,
		   TdeKeyringError *error)
{
	if (!vault_is_plain_path(name))
		return tde_keyring_fail(error, TDE_KEYRING_FAILED,
								_("The name must not begin or end with a slash, and no part of it between slashes may be empty, \".\" or \"..\"."),
								_("key name \"%s\" cannot be used with a Vault server"),
								name);
	snprintf(path, PATH_LEN, "%s/data/%s", vault->mount, name);
	snprintf(url, VAULT_OPTION_LEN + PATH_LEN, "%s/v1/", vault->url);
	append_encoded(url, path);
	return TDE_KEYRING_OK;
}

/* Why is there no key of this name? */
static TdeKeyringStatus
fail_missing(const Reply *reply, const char *name, TdeKeyringError *error)
{
	const char *url = reply->vault->url;

	if (reply->answer.destroyed)
		return tde_keyring_fail(error, TDE_KEYRING_DESTROYED,
								_("A destroyed version cannot be had back from the server; write the key again from a backup."),
								_("newest version of key \"%s\" is destroyed on server \"%s\" (\"%s\")"),
								name, url, reply->path);
	if (reply->answer.deleted)
		return tde_keyring_fail(error, TDE_KEYRING_DESTROYED,
								_("Get it back with \"vault kv undelete\"."),
								_("newest version of key \"%s\" is deleted on server \"%s\" (\"%s\")"),
								name, url, reply->path);
	/* the secrets engine answers without an error, the router with one */
	if (reply->answer.error[0] != '\0' || !reply->is_json)
		return fail_status(reply, error);
	return tde_keyring_fail(error, TDE_KEYRING_NOT_FOUND, NULL,
							_("key \"%s\" does not exist on server \"%s\" (\"%s\")"),
							name, url, reply->path);
}

static TdeKeyringStatus
take_key(const Reply *reply, const char *name, TdePrincipalKey *key,
		 TdeKeyringError *error)
{
	if (reply->status == 404)
		return fail_missing(reply, name, error);
	if (reply->status != 200)
		return fail_status(reply, error);
	if (!reply->is_json || !reply->answer.has_data)
		return fail_answer(reply, error);
	if (!reply->answer.has_key)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Only secrets that were made as principal keys can be used."),
								_("secret \"%s\" on server \"%s\" has no field \"key\" that is a string"),
								reply->path, reply->vault->url);
	if (!reply->answer.key_is_valid)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Only secrets that were made as principal keys can be used."),
								_("field \"key\" of secret \"%s\" on server \"%s\" is not a key in base64"),
								reply->path, reply->vault->url);
	*key = reply->answer.key;
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
vault_fetch(const TdeProvider *provider, const char *name,
			const TdeKeyringCall *call, TdePrincipalKey *key,
			TdeKeyringError *error)
{
	TdeKeyringStatus status;
	Vault		vault;
	Reply		reply = {.vault = &vault};
	char		url[VAULT_OPTION_LEN + PATH_LEN];
	char		path[PATH_LEN];

	vault_get_options(provider, &vault);
	status = locate_key(&vault, name, url, path, error);
	if (status != TDE_KEYRING_OK)
		return status;
	reply.path = path;
	status = ask(&vault, url, NULL, call, &reply, error);
	if (status == TDE_KEYRING_OK)
		status = take_key(&reply, name, key, error);
	tde_wipe(&reply, sizeof(reply));
	return status;
}

/*
 * Is there a secret, be it deleted, in the way of one to be made?  Its server
 * says so itself only to a token that may overwrite it; others are denied.
 */
static bool
secret_exists(const Reply *refusal, const char *url,
			  const TdeKeyringCall *call)
{
	Reply		reply = {.vault = refusal->vault,.path = refusal->path};
	TdeKeyringError error;
	bool		exists;

	if (refusal->status == 400)
		return strstr(refusal->answer.error,
					  "check-and-set parameter did not match") != NULL;
	if (refusal->status != 403)
		return false;
	exists = ask(refusal->vault, url, NULL, call, &reply,
				 &error) == TDE_KEYRING_OK && reply.answer.has_data &&
		(reply.status == 200 || reply.answer.deleted || reply.answer.destroyed);
	tde_wipe(&reply, sizeof(reply));
	return exists;
}

/*
 * Where a failure leaves it open whether the key was made, the message may
 * say "exists" the next time; the key is as good as if it had been told.
 */
static TdeKeyringStatus
check_created(const Reply *reply, const char *name, const char *url,
			  const TdeKeyringCall *call, TdeKeyringError *error)
{
	if (secret_exists(reply, url, call))
		return tde_keyring_fail(error, TDE_KEYRING_EXISTS,
								_("A key of which only deleted versions are left counts as well."),
								_("key \"%s\" already exists on server \"%s\" (\"%s\")"),
								name, reply->vault->url, reply->path);
	if (reply->status != 200)
		return fail_status(reply, error);
	if (!reply->is_json || reply->answer.version != 1)
		return fail_answer(reply, error);
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
vault_create(const TdeProvider *provider, const char *name, int keylen,
			 const TdeKeyringCall *call, TdePrincipalKey *key,
			 TdeKeyringError *error)
{
	TdeKeyringStatus status;
	Vault		vault;
	Reply		reply = {.vault = &vault};
	char		url[VAULT_OPTION_LEN + PATH_LEN];
	char		path[PATH_LEN];
	char		body[VAULT_CREATE_LEN];

	vault_get_options(provider, &vault);
	status = locate_key(&vault, name, url, path, error);
	if (status != TDE_KEYRING_OK)
		return status;
	reply.path = path;

	key->len = keylen;
	if (tde_random(key->key, keylen) != 0 || !vault_format_create(key, body))
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("could not generate a principal key"));
	status = ask(&vault, url, body, call, &reply, error);
	tde_wipe(body, sizeof(body));
	if (status == TDE_KEYRING_OK)
		status = check_created(&reply, name, url, call, error);
	tde_wipe(&reply, sizeof(reply));
	return status;
}

/*
 * Is there a secrets engine of the right kind at the mount path, and may we
 * use it?  Any token with a right below the path may ask.
 */
static TdeKeyringStatus
vault_validate(const TdeProvider *provider, const TdeKeyringCall *call,
			   TdeKeyringError *error)
{
	TdeKeyringStatus status;
	Vault		vault;
	Reply		reply = {.vault = &vault};
	char		url[VAULT_OPTION_LEN + PATH_LEN];

	vault_get_options(provider, &vault);
	reply.path = vault.mount;
	snprintf(url, sizeof(url), "%s/v1/sys/internal/ui/mounts/", vault.url);
	append_encoded(url, vault.mount);
	status = ask(&vault, url, NULL, call, &reply, error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (reply.status != 200)
		status = fail_status(&reply, error);
	else if (!reply.is_json || !reply.answer.has_data)
		status = fail_answer(&reply, error);
	else if (strcmp(reply.answer.engine, "kv") != 0 ||
			 strcmp(reply.answer.engine_version, "2") != 0)
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED,
								  _("Mount one with \"vault secrets enable -path=PATH -version=2 kv\"."),
								  _("there is no KV secrets engine of version 2 at \"%s\" on server \"%s\""),
								  vault.mount, vault.url);
	tde_wipe(&reply, sizeof(reply));
	return status;
}

/* ---- the provider type ---- */

static const TdeKeyringOption vault_options[] = {
	{"url", false, true},
	{"mountPath", false, true},
	{"tokenPath", false, true},
	{"caPath", false, false},
	{"namespace", false, false},
	{"crlPath", false, false},
	{NULL}
};

const TdeKeyringType tde_keyring_vault = {
	.name = "vault-v2",
	.options = vault_options,
	.check_options = vault_check_options,
	.validate = vault_validate,
	.fetch = vault_fetch,
	.create = vault_create,
};
