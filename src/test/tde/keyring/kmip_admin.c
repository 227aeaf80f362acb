/*-------------------------------------------------------------------------
 *
 * kmip_admin.c
 *	  What an administrator of a KMIP server does to a key, for tests.
 *
 *	  kmip_admin OPTIONS activate|revoke|compromise|destroy|register NAME
 *	  kmip_admin OPTIONS version
 *
 * OPTIONS are those of a key provider of type kmip.  "register" adds a
 * Pre-Active key of 32 bytes, whether the name is free or not.  "version" tells
 * which version of the protocol is agreed on.  Prints OK, or what failed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/kmip_admin.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/logging.h"
#include "tde/cipher.h"
#include "../../../common/tde/keyring/kmip/exchange.h"
#include "../../../common/tde/keyring/tls/tls.h"

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

static const char *
get_option(const TdeProvider *provider, const char *name)
{
	char	   *value = pg_malloc(TDE_MAX_PROVIDER_OPTIONS + 1);

	if (!tde_keyring_option(provider, name, value,
							TDE_MAX_PROVIDER_OPTIONS + 1))
		value[0] = '\0';
	return value;
}

static TdeKeyringStatus
register_key(TdeKmipClient *client, const char *name, TdeKeyringError *error)
{
	TdeKmipRequest request = {.operation = KMIP_REGISTER,.name = name};
	TdePrincipalKey key = {.len = 32};

	if (tde_random(key.key, key.len) < 0)
		pg_fatal("could not draw a key");
	request.key = &key;
	return tde_kmip_ask(client, &request, error);
}

static TdeKeyringStatus
carry_out(TdeKmipClient *client, const char *command, const char *name,
		  TdeKeyringError *error)
{
	TdeKmipVersion version;
	TdeKeyringStatus status;

	if (strcmp(command, "activate") == 0)
		return tde_kmip_activate(client, name, error);
	if (strcmp(command, "revoke") == 0)
		return tde_kmip_revoke(client, name, TDE_KMIP_CESSATION_OF_OPERATION,
							   error);
	if (strcmp(command, "compromise") == 0)
		return tde_kmip_revoke(client, name, TDE_KMIP_KEY_COMPROMISE, error);
	if (strcmp(command, "destroy") == 0)
		return tde_kmip_destroy(client, name, error);
	if (strcmp(command, "register") == 0)
		return register_key(client, name, error);
	if (strcmp(command, "version") == 0)
	{
		status = tde_kmip_negotiate(client, &version, error);
		if (status == TDE_KEYRING_OK)
			printf("%d.%d\n", version.major, version.minor);
		return status;
	}
	pg_fatal("unknown command \"%s\"", command);
}

int
main(int argc, char **argv)
{
	TdeProvider provider = {.id = 1,.name = "p",.type = "kmip"};
	TdeTlsParams params = {.default_timeout_ms = 30000};
	TdeKmipStream stream = {stream_send, stream_receive};
	TdeKmipVersion version = {0, 0};
	TdeKeyringError error;
	TdeKeyringStatus status;
	TdeKmipClient *client;
	TdeTls	   *tls;

	pg_logging_init(argv[0]);
	if (argc < 3 || argc > 4)
		pg_fatal("wrong number of arguments");
	strlcpy(provider.options, argv[1], sizeof(provider.options));
	if (tde_keyring_check_options(&provider, &error) != TDE_KEYRING_OK ||
		!tde_keyring_option_int(&provider, "port", 1, 65535, &params.port))
		pg_fatal("%s", error.message);
	params.hosts = get_option(&provider, "host");
	params.cert_path = get_option(&provider, "certPath");
	params.key_path = get_option(&provider, "keyPath");
	params.ca_path = get_option(&provider, "caPath");
	(void) sscanf(get_option(&provider, "kmipVersion"), "%d.%d",
				  &version.major, &version.minor);

	status = tde_tls_open(&params, &tls, &error);
	if (status != TDE_KEYRING_OK)
		pg_fatal("%s", error.message);
	stream.arg = tls;
	client = tde_kmip_client_create(&stream, version, &error);
	if (client == NULL)
		pg_fatal("%s", error.message);
	status = carry_out(client, argv[2], argc > 3 ? argv[3] : "", &error);
	printf("%s\n", status == TDE_KEYRING_OK ? "OK" : error.message);
	tde_kmip_client_free(client);
	tde_tls_close(tls);
	return status != TDE_KEYRING_OK;
}
