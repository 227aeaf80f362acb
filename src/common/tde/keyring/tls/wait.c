/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  Waiting that ends at a deadline, or when the caller is told to stop.
 *
 * A signal that tells a backend to stop interrupts poll(2), so that the
 * callback is asked at once.  One that arrives just before poll() is noticed
 * at the end of a slice.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/wait.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <poll.h>

#include "portability/instr_time.h"
#include "tls_internal.h"

#define SLICE_MS	200

int64
tls_now(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

TlsWait
tls_check(const TlsDeadline *deadline)
{
	const TdeKeyringCall *call = deadline->call;

	if (call && call->cancelled && call->cancelled(call->arg))
		return TLS_CANCELLED;
	return tls_now() < deadline->end ? TLS_READY : TLS_TIMEOUT;
}

TlsWait
tls_wait(int fd, short events, const TlsDeadline *deadline)
{
	for (;;)
	{
		struct pollfd pfd = {.fd = fd,.events = events};
		TlsWait		result = tls_check(deadline);
		int			n;

		if (result != TLS_READY)
			return result;
		n = poll(&pfd, 1, (int) Min(SLICE_MS,
									Max(1, deadline->end - tls_now())));
		if (n > 0)
			return TLS_READY;
		if (n < 0 && errno != EINTR)
			return TLS_ERROR;
	}
}

TlsDeadline
tls_share(const TlsDeadline *whole, int n)
{
	TlsDeadline part = *whole;
	int64		now = tls_now();

	if (whole->end > now)
		part.end = now + (whole->end - now) / n;
	return part;
}
