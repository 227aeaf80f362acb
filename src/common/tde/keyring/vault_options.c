/*-------------------------------------------------------------------------
 *
 * vault_options.c
 *	  Options of the provider vault-v2.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/vault_options.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "vault_options.h"

void
vault_get_options(const TdeProvider *provider, Vault *vault)
{
	size_t		start;
	size_t		len;

#define GET(name, member) \
	if (!tde_keyring_option(provider, name, vault->member, VAULT_OPTION_LEN)) \
		vault->member[0] = '\0'
	GET("url", url);
	GET("mountPath", mount);
	GET("tokenPath", token_path);
	GET("caPath", ca_path);
	GET("namespace", namespace);
	GET("crlPath", crl_path);
#undef GET

	/* but for those of a URL that is nothing else */
	len = strlen(vault->url);
	while (len > strlen("https://") && vault->url[len - 1] == '/')
		vault->url[--len] = '\0';
	start = strspn(vault->mount, "/");
	memmove(vault->mount, vault->mount + start,
			strlen(vault->mount + start) + 1);
	len = strlen(vault->mount);
	while (len > 0 && vault->mount[len - 1] == '/')
		vault->mount[--len] = '\0';
}

/*
 * Is the host of this URL this machine?  A name other than "localhost" may
 * resolve to anything.
 */
static bool
is_loopback(const char *url)
{
	const char *host = strstr(url, "://") + 3;
	size_t		len;
	char		copy[64];
	struct in_addr addr;

	if (host[0] == '[')
	{
		len = strcspn(++host, "]/");
		if (host[len] != ']' || strcspn(host + len + 1, ":/") != 0)
			return false;
	}
	else
		len = strcspn(host, ":/");
	if (len >= sizeof(copy))
		return false;
	memcpy(copy, host, len);
	copy[len] = '\0';
	return pg_strcasecmp(copy, "localhost") == 0 ||
		strcmp(copy, "::1") == 0 ||
		(inet_pton(AF_INET, copy, &addr) == 1 &&
		 (ntohl(addr.s_addr) >> 24) == 127);
}

bool
vault_is_printable(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text >= 0x7f)
			return false;
	return true;
}

bool
vault_is_plain_path(const char *path)
{
	for (;;)
	{
		size_t		len = strcspn(path, "/");

		if (len == 0 || (len == 1 && path[0] == '.') ||
			(len == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (path[len] == '\0')
			return true;
		path += len + 1;
	}
}

static TdeKeyringStatus
check_url(const TdeProvider *provider, const char *url, TdeKeyringError *error)
{
	bool		https = strncmp(url, "https://", 8) == 0;
	const char *authority;

	if (!https && strncmp(url, "http://", 7) != 0)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("An example: \"https://vault.example.com:8200\"."),
								_("option \"url\" of key provider \"%s\" does not begin with \"https://\""),
								provider->name);
	authority = strstr(url, "://") + 3;
	if (strcspn(authority, "/:") == 0 || !vault_is_printable(url) ||
		strpbrk(url, "@?#\\\"") != NULL)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("An example: \"https://vault.example.com:8200\"."),
								_("option \"url\" of key provider \"%s\" is not a scheme, host, port and path"),
								provider->name);
	if (!https && !is_loopback(url))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Use \"https://\". Without it the token and all keys can be read on the network; only \"localhost\" and loopback addresses may be used so."),
								_("option \"url\" of key provider \"%s\" begins with \"http://\", but its host is not this machine"),
								provider->name);
	return TDE_KEYRING_OK;
}

TdeKeyringStatus
vault_check_options(const TdeProvider *provider, TdeKeyringError *error)
{
	TdeKeyringStatus status;
	Vault		vault;

	vault_get_options(provider, &vault);
	status = check_url(provider, vault.url, error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (!vault_is_plain_path(vault.mount))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Give the path at which the secrets engine is mounted, for instance \"secret\"."),
								_("option \"mountPath\" of key provider \"%s\" is not a path"),
								provider->name);
	if (!is_absolute_path(vault.token_path))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Give the absolute path of a file that contains the token."),
								_("option \"tokenPath\" of key provider \"%s\" is not an absolute path"),
								provider->name);
	if (vault.ca_path[0] != '\0' && !is_absolute_path(vault.ca_path))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Give the absolute path of a file, or directory, of CA certificates."),
								_("option \"caPath\" of key provider \"%s\" is not an absolute path"),
								provider->name);
	if (vault.crl_path[0] != '\0' && !is_absolute_path(vault.crl_path))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Give the absolute path of a file of CRLs."),
								_("option \"crlPath\" of key provider \"%s\" is not an absolute path"),
								provider->name);
	if (!vault_is_printable(vault.namespace))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
								_("option \"namespace\" of key provider \"%s\" contains a space or a character that cannot be printed"),
								provider->name);
	return TDE_KEYRING_OK;
}
