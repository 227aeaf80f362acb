/*-------------------------------------------------------------------------
 *
 * hosts.c
 *	  A list of servers: names or addresses, separated by commas, each with a
 *	  port of its own or not.
 *
 *	  kms.example.com
 *	  a.example,b.example:5697
 *	  192.0.2.1:5697,[2001:db8::1]:5697,2001:db8::2
 *
 * An IPv6 address with a port stands in brackets, as in a URL.  Whatever has
 * more than one colon and no bracket is an address without a port.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/hosts.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "tls_internal.h"

/* A port of len digits, or -1. */
static int
parse_port(const char *s, size_t len)
{
	int			port = 0;

	if (len == 0 || len > 5)
		return -1;
	for (size_t i = 0; i < len; i++)
	{
		if (!isdigit((unsigned char) s[i]))
			return -1;
		port = 10 * port + (s[i] - '0');
	}
	return port >= 1 && port <= 65535 ? port : -1;
}

/* One server, of len bytes. */
static bool
parse_host(const char *s, size_t len, int default_port, TlsHost *host)
{
	const char *end = s + len;
	const char *name = s;
	const char *colon;
	size_t		namelen = len;
	int			port = default_port;

	if (len > 0 && *s == '[')
	{
		const char *bracket = memchr(s, ']', len);

		if (bracket == NULL)
			return false;
		name++;
		namelen = bracket - name;
		colon = bracket + 1;
		if (colon == end)
			colon = NULL;
		else if (*colon != ':')
			return false;
	}
	else
	{
		colon = memchr(s, ':', len);
		if (colon && memchr(colon + 1, ':', end - colon - 1))
			colon = NULL;		/* an IPv6 address */
		if (colon)
			namelen = colon - s;
	}
	if (colon)
		port = parse_port(colon + 1, end - colon - 1);

	if (port < 0 || namelen == 0 || namelen >= sizeof(host->name))
		return false;
	for (size_t i = 0; i < namelen; i++)
	{
		unsigned char c = name[i];

		if (c <= ' ' || c == 0x7f || strchr("[]/,", c))
			return false;
	}
	memcpy(host->name, name, namelen);
	host->name[namelen] = '\0';
	snprintf(host->port, sizeof(host->port), "%d", port);
	return true;
}

int
tls_host(const char *list, int n, int default_port, TlsHost *host)
{
	const char *s = list;
	size_t		len;

	for (int i = 0;; i++)
	{
		len = strcspn(s, ",");
		if (i == n)
			break;
		s += len;
		if (*s == '\0')
			return 0;
		s++;
	}
	/* "a, b" is what people write */
	while (len > 0 && *s == ' ')
	{
		s++;
		len--;
	}
	while (len > 0 && s[len - 1] == ' ')
		len--;
	return parse_host(s, len, default_port, host) ? 1 : -1;
}

TdeKeyringStatus
tde_tls_check_hosts(const char *hosts, TdeKeyringError *error)
{
	TlsHost		host;
	int			found;

	for (int i = 0; (found = tls_host(hosts, i, 1, &host)) != 0; i++)
	{
		if (found < 0)
			return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
									_("Write names or addresses, separated by commas, each with \":\" and a port or without."),
									_("\"%s\" is not a valid list of hosts"),
									hosts);
	}
	return TDE_KEYRING_OK;
}
