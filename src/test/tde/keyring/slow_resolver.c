/*-------------------------------------------------------------------------
 *
 * slow_resolver.c
 *	  A resolver that takes its time over one name.
 *
 * This getaddrinfo() is in the test program, and so comes before that of the
 * C library.  It passes on all but the name "slow.invalid", for which it
 * needs two seconds to find nothing.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/slow_resolver.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

int
getaddrinfo(const char *name, const char *service,
			const struct addrinfo *hints, struct addrinfo **addresses)
{
	int			(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);

	if (strcmp(name, "slow.invalid") == 0 &&
		(hints->ai_flags & AI_NUMERICHOST) == 0)
	{
		sleep(2);
		return EAI_NONAME;
	}
	*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	return real(name, service, hints, addresses);
}
