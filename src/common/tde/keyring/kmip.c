/*-------------------------------------------------------------------------
 *
 * kmip.c
 *	  The provider kmip: principal keys in a key management server that
 *	  speaks KMIP.
 *
 * Here the client in kmip/ is put on a connection of tls/, for one call.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "kmip/client.h"
#include "kmip/messages.h"
#include "tls/tls.h"

#define DEFAULT_TIMEOUT_MS	10000

/* data directory, and a path as long as options can hold */
#define KMIP_PATH_LEN	(MAXPGPATH + TDE_MAX_PROVIDER_OPTIONS)

/* A call: what it needs of the options, and the connection. */
typedef struct KmipCall
{
	char		hosts[TDE_MAX_PROVIDER_OPTIONS + 1];
	char		cert[KMIP_PATH_LEN];
	char		key[KMIP_PATH_LEN];
	char		ca[KMIP_PATH_LEN];
	char		server_name[TDE_MAX_PROVIDER_OPTIONS + 1];
	char		crl[KMIP_PATH_LEN];
	char		passphrase[KMIP_PATH_LEN];
	TdeTlsParams params;
	TdeTls	   *tls;
	TdeKmipStream stream;
	TdeKmipClient *client;
} KmipCall;

/* ---- the client's stream ---- */

static TdeKeyringStatus
stream_send(TdeKmipStream *stream, const void *buf, size_t len,
			TdeKeyringError *error)
{
	return tde_tls_send(stream->arg, buf, len, error);
}

static TdeKeyringStatus
stream_receive(TdeKmipStream *stream, void *buf, size_t len,
			   TdeKeyringError *error)
{
	return tde_tls_receive(stream->arg, buf, len, error);
}

static TdeKeyringStatus
stream_reopen(TdeKmipStream *stream, TdeKeyringError *error)
{
	return tde_tls_reopen(stream->arg, error);
}

/* ---- options ---- */

/* An option that is a path, from the data directory on if it is relative. */
static void
get_path(const TdeProvider *provider, const char *name, char *path)
{
	char		option[TDE_MAX_PROVIDER_OPTIONS + 1];
	const char *directory = tde_keyring_directory();

	if (!tde_keyring_option(provider, name, option, sizeof(option)))
		option[0] = '\0';
	if (option[0] == '\0' || directory == NULL || is_absolute_path(option))
		strlcpy(path, option, KMIP_PATH_LEN);
	else
		snprintf(path, KMIP_PATH_LEN, "%s/%s", directory, option);
}

/*
 * The highest version of the protocol to use: the highest that both sides
 * know, unless the option names one.  false if we do not know that.
 */
static bool
get_version(const TdeProvider *provider, TdeKmipVersion *version)
{
	char		option[TDE_MAX_PROVIDER_OPTIONS + 1];

	version->major = version->minor = 0;
	if (!tde_keyring_option(provider, "kmipVersion", option, sizeof(option)) ||
		option[0] == '\0')
		return true;
	for (int i = 0; i < tde_kmip_nversions; i++)
	{
		char		name[16];

		*version = tde_kmip_versions[i];
		snprintf(name, sizeof(name), "%d.%d", version->major, version->minor);
		if (strcmp(option, name) == 0)
			return true;
	}
	return false;
}

static TdeKeyringStatus
kmip_check_options(const TdeProvider *provider, TdeKeyringError *error)
{
	char		hosts[TDE_MAX_PROVIDER_OPTIONS + 1];
	int			port;
	TdeKmipVersion version;

	if (!tde_keyring_option_int(provider, "port", 1, 65535, &port))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("KMIP servers usually listen on port 5696."),
								_("option \"%s\" of key provider \"%s\" must be between %d and %d"),
								"port", provider->name, 1, 65535);
	if (!get_version(provider, &version))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("It is the highest version to use, from 1.0 to 2.1; without it, client and server agree on the highest that both know."),
								_("option \"%s\" of key provider \"%s\" is not a version of KMIP"),
								"kmipVersion", provider->name);
	if (!tde_keyring_option(provider, "host", hosts, sizeof(hosts)))
		hosts[0] = '\0';
	return tde_tls_check_hosts(hosts, error);
}

/* ---- calls ---- */

static void
end_call(KmipCall *kmip)
{
	tde_kmip_client_free(kmip->client);
	tde_tls_close(kmip->tls);
	free(kmip);
}

/* Connect.  On success the caller ends the call. */
static TdeKeyringStatus
begin_call(const TdeProvider *provider, const TdeKeyringCall *call,
		   KmipCall **result, TdeKeyringError *error)
{
	TdeKeyringStatus status;
	KmipCall   *kmip = calloc(1, sizeof(KmipCall));
	TdeTlsParams *params;
	TdeKmipVersion version;

	if (kmip == NULL)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("out of memory"));
	params = &kmip->params;
	(void) tde_keyring_option(provider, "host", kmip->hosts,
							  sizeof(kmip->hosts));
	(void) tde_keyring_option_int(provider, "port", 1, 65535, &params->port);
	get_path(provider, "certPath", kmip->cert);
	get_path(provider, "keyPath", kmip->key);
	get_path(provider, "caPath", kmip->ca);
	get_path(provider, "crlPath", kmip->crl);
	get_path(provider, "keyPassphrasePath", kmip->passphrase);
	if (tde_keyring_option(provider, "serverName", kmip->server_name,
						   sizeof(kmip->server_name)) &&
		kmip->server_name[0] != '\0')
		params->server_name = kmip->server_name;
	(void) get_version(provider, &version);
	params->hosts = kmip->hosts;
	params->cert_path = kmip->cert;
	params->key_path = kmip->key;
	params->ca_path = kmip->ca[0] ? kmip->ca : NULL;
	params->crl_path = kmip->crl[0] ? kmip->crl : NULL;
	params->passphrase_path = kmip->passphrase[0] ? kmip->passphrase : NULL;
	params->call = call;
	params->default_timeout_ms = DEFAULT_TIMEOUT_MS;

	status = tde_tls_open(params, &kmip->tls, error);
	if (status == TDE_KEYRING_OK)
	{
		kmip->stream.send = stream_send;
		kmip->stream.receive = stream_receive;
		kmip->stream.reopen = stream_reopen;
		kmip->stream.arg = kmip->tls;
		kmip->client = tde_kmip_client_create(&kmip->stream,
											  version, error);
		if (kmip->client == NULL)
			status = error->status;
	}
	if (status == TDE_KEYRING_OK)
		*result = kmip;
	else
		end_call(kmip);
	return status;
}

static TdeKeyringStatus
kmip_validate(const TdeProvider *provider, const TdeKeyringCall *call,
			  TdeKeyringError *error)
{
	KmipCall   *kmip;
	TdeKeyringStatus status = begin_call(provider, call, &kmip, error);

	if (status != TDE_KEYRING_OK)
		return status;
	status = tde_kmip_check(kmip->client, error);
	end_call(kmip);
	return status;
}

static TdeKeyringStatus
kmip_fetch(const TdeProvider *provider, const char *name,
		   const TdeKeyringCall *call, TdePrincipalKey *key,
		   TdeKeyringError *error)
{
	KmipCall   *kmip;
	TdeKeyringStatus status = begin_call(provider, call, &kmip, error);

	if (status != TDE_KEYRING_OK)
		return status;
	status = tde_kmip_fetch(kmip->client, name, key, NULL, error);
	end_call(kmip);
	return status;
}

static TdeKeyringStatus
kmip_create(const TdeProvider *provider, const char *name, int keylen,
			const TdeKeyringCall *call, TdePrincipalKey *key,
			TdeKeyringError *error)
{
	KmipCall   *kmip;
	TdeKeyringStatus status = begin_call(provider, call, &kmip, error);

	if (status != TDE_KEYRING_OK)
		return status;
	status = tde_kmip_create_key(kmip->client, name, keylen, key, error);
	end_call(kmip);
	return status;
}

static TdeKeyringStatus
kmip_state(const TdeProvider *provider, const char *name,
		   const TdeKeyringCall *call, TdePrincipalState *state,
		   TdeKeyringError *error)
{
	KmipCall   *kmip;
	TdeKeyringStatus status = begin_call(provider, call, &kmip, error);

	if (status != TDE_KEYRING_OK)
		return status;
	status = tde_kmip_key_state(kmip->client, name, state, error);
	end_call(kmip);
	return status;
}

/* ---- the provider type ---- */

static const TdeKeyringOption kmip_options[] = {
	{"host", false, true},
	{"port", true, true},
	{"certPath", false, true},
	{"keyPath", false, true},
	{"caPath", false, false},
	{"kmipVersion", false, false},
	{"serverName", false, false},
	{"crlPath", false, false},
	{"keyPassphrasePath", false, false},
	{NULL}
};

const TdeKeyringType tde_keyring_kmip = {
	.name = "kmip",
	.options = kmip_options,
	.check_options = kmip_check_options,
	.validate = kmip_validate,
	.fetch = kmip_fetch,
	.create = kmip_create,
	.state = kmip_state,
};
