/*-------------------------------------------------------------------------
 *
 * http.c
 *	  One request to an HTTP server that need not be trusted.
 *
 * libcurl does it, driven through its multi interface, so that we can look
 * up in between.  The server decides nothing but the answer: how much of
 * it we take, how long we wait and where we go next is ours to say.
 *
 * A request is a connection of its own.  Requests are rare, and a connection
 * that is kept can be stale, and keeps buffers that held a secret.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/http.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "http.h"
#include "tde/cipher.h"

#ifdef USE_LIBCURL

#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "curl_library.h"
#include "portability/instr_time.h"

/* How long we let libcurl wait before we look whether to give up. */
#define POLL_MS			100

/* What libcurl keeps of an answer at a time; it may hold a key. */
#define CURL_BUFFER		4096

/* SSL_OP_CLEANSE_PLAINTEXT of OpenSSL 3: wipe what was decrypted. */
#define OPENSSL3_CLEANSE_PLAINTEXT	((uint64_t) 1 << 1)

typedef struct Transfer
{
	const TdeCurl *curl;
	CURL	   *easy;
	CURLM	   *multi;
	struct curl_slist *headers;
	TdeHttpAnswer *answer;
	size_t		header_bytes;
	bool		too_large;
	bool		in_multi;
	char		reason[CURL_ERROR_SIZE];	/* libcurl's own words */
} Transfer;

/* ---- callbacks of libcurl ---- */

static size_t
take_body(char *data, size_t one, size_t len, void *arg)
{
	Transfer   *transfer = arg;
	TdeHttpAnswer *answer = transfer->answer;

	if (len > TDE_HTTP_MAX_ANSWER - answer->len)
	{
		transfer->too_large = true;
		return 0;
	}
	memcpy(answer->body + answer->len, data, len);
	answer->len += len;
	return len;
}

static size_t
count_header(char *data, size_t one, size_t len, void *arg)
{
	Transfer   *transfer = arg;

	transfer->header_bytes += len;
	if (transfer->header_bytes > TDE_HTTP_MAX_ANSWER)
	{
		transfer->too_large = true;
		return 0;
	}
	return len;
}

static CURLcode
set_up_tls(CURL *easy, void *ctx, void *arg)
{
	Transfer   *transfer = arg;

	transfer->curl->ssl_set_options(ctx, OPENSSL3_CLEANSE_PLAINTEXT);
	return CURLE_OK;
}

/* ---- setting up ---- */

static bool
is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static CURLcode
set_options(Transfer *t, const TdeHttpRequest *request, int timeout_ms)
{
	CURLcode	rc = CURLE_OK;

#define SET(option, value) \
	do { \
		if (rc == CURLE_OK) \
			rc = t->curl->easy_setopt(t->easy, option, value); \
	} while (0)

	SET(CURLOPT_ERRORBUFFER, t->reason);
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_HTTPHEADER, t->headers);
	if (request->body)
	{
		/* it is not copied here */
		SET(CURLOPT_POSTFIELDSIZE, (long) strlen(request->body));
		SET(CURLOPT_POSTFIELDS, request->body);
	}

	/* where we may go: to this server, and nowhere else */
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);

	/* whom we believe that it is this server */
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	if (request->ca_path)
	{
		bool		directory = is_directory(request->ca_path);

		/* these, and not the system's beside them */
		SET(CURLOPT_CAINFO, directory ? NULL : request->ca_path);
		SET(CURLOPT_CAPATH, directory ? request->ca_path : NULL);
	}
	if (request->crl_path)
		SET(CURLOPT_CRLFILE, request->crl_path);
	if (t->curl->ssl_set_options != NULL && rc == CURLE_OK)
	{
		/* a comfort; not every libcurl has it */
		(void) t->curl->easy_setopt(t->easy, CURLOPT_SSL_CTX_FUNCTION,
									set_up_tls);
		(void) t->curl->easy_setopt(t->easy, CURLOPT_SSL_CTX_DATA, t);
	}

	/* how much and how long */
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, count_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_BUFFERSIZE, (long) CURL_BUFFER);
	SET(CURLOPT_TIMEOUT_MS, (long) timeout_ms);
	SET(CURLOPT_FORBID_REUSE, 1L);

	/* signals are the process's affair */
	SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* do not wait for a name server that does not answer */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
#undef SET
	return rc;
}

/* ---- waiting ---- */

/*
 * While libcurl works, signals are blocked: a thread that it starts to resolve
 * a name inherits that, and must not run the process's handlers.  A SIGPIPE of
 * its own making is taken back.
 */
typedef struct SignalState
{
	sigset_t	mask;
	bool		sigpipe_pending;
} SignalState;

static bool
sigpipe_is_pending(void)
{
	sigset_t	pending;

	return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

static void
block_signals(SignalState *state)
{
	sigset_t	all;

	sigfillset(&all);
	state->sigpipe_pending = sigpipe_is_pending();
	pthread_sigmask(SIG_SETMASK, &all, &state->mask);
}

static void
restore_signals(SignalState *state)
{
	sigset_t	sigpipe;
	int			sig;

	if (!state->sigpipe_pending && sigpipe_is_pending())
	{
		sigemptyset(&sigpipe);
		sigaddset(&sigpipe, SIGPIPE);
		(void) sigwait(&sigpipe, &sig);
	}
	pthread_sigmask(SIG_SETMASK, &state->mask, NULL);
}

static void
end_transfer(Transfer *t)
{
	SignalState signals;

	block_signals(&signals);
	if (t->in_multi)
		(void) t->curl->multi_remove_handle(t->multi, t->easy);
	if (t->easy)
		t->curl->easy_cleanup(t->easy);
	if (t->multi)
		(void) t->curl->multi_cleanup(t->multi);
	t->curl->slist_free_all(t->headers);
	restore_signals(&signals);
}

static TdeKeyringStatus
fail_timeout(const TdeHttpRequest *request, int timeout_ms,
			 TdeKeyringError *error)
{
	return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
							_("Check that the server is up and not overloaded, and that no firewall is in between."),
							_("server \"%s\" did not answer within %d ms"),
							request->server, timeout_ms);
}

/* What libcurl's verdict on a transfer means to the caller. */
static TdeKeyringStatus
fail_transfer(Transfer *t, const TdeHttpRequest *request,
			  CURLcode code, int timeout_ms, TdeKeyringError *error)
{
	const char *reason = t->reason[0] ? t->reason : t->curl->easy_strerror(code);

	/* names in a certificate can be in it */
	tde_keyring_make_printable(t->reason);

	if (t->too_large)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Check that the URL is that of the key server."),
								_("answer of server \"%s\" is larger than %d bytes"),
								request->server, TDE_HTTP_MAX_ANSWER);
	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("Check that the CA certificate is the one that signed the server's certificate, that it has not expired, and that it names the host in the URL."),
									_("SSL/TLS certificate verification failed for server \"%s\": %s"),
									request->server, reason);
		case CURLE_SSL_CACERT_BADFILE:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("The file must hold one or more certificates in PEM format, and be readable for the server."),
									_("could not load CA certificates from \"%s\": %s"),
									request->ca_path ? request->ca_path : "",
									reason);
		case CURLE_SSL_CRL_BADFILE:
			return tde_keyring_fail(error, TDE_KEYRING_FAILED,
									_("The file must hold one or more CRLs in PEM format, and be readable for the server."),
									_("could not load CRL file \"%s\": %s"),
									request->crl_path ? request->crl_path : "",
									reason);
		case CURLE_OPERATION_TIMEDOUT:
			return fail_timeout(request, timeout_ms, error);
		case CURLE_URL_MALFORMAT:
			return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
									_("invalid URL \"%s\": %s"),
									request->server, reason);
		case CURLE_OUT_OF_MEMORY:
			/* some versions say so of a line that is too long for them */
			return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
									_("memory ran out, or server \"%s\" sent too long a header line"),
									request->server);
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_SSL_CONNECT_ERROR:
			return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
									_("could not connect to server \"%s\": %s"),
									request->server, reason);
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
		case CURLE_GOT_NOTHING:
		case CURLE_PARTIAL_FILE:
			return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE, NULL,
									_("connection to server \"%s\" was lost: %s"),
									request->server, reason);
		default:
			return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
									_("could not understand server \"%s\": %s"),
									request->server, reason);
	}
}

/* Drive the transfer until it ends, time is up or the caller gives up. */
static TdeKeyringStatus
run(Transfer *t, const TdeHttpRequest *request, const TdeKeyringCall *call,
	int timeout_ms, TdeKeyringError *error)
{
	instr_time	start;
	CURLMcode	rc;
	CURLMsg    *msg;
	long		status;

	INSTR_TIME_SET_CURRENT(start);
	rc = t->curl->multi_add_handle(t->multi, t->easy);
	t->in_multi = (rc == CURLM_OK);
	while (rc == CURLM_OK)
	{
		SignalState signals;
		instr_time	now;
		int			running;
		int			left;
		int			nfds;

		block_signals(&signals);
		rc = t->curl->multi_perform(t->multi, &running);
		restore_signals(&signals);
		if (rc != CURLM_OK || running == 0)
			break;

		if (call && call->cancelled && call->cancelled(call->arg))
			return tde_keyring_fail(error, TDE_KEYRING_CANCELLED, NULL,
									_("request to server \"%s\" was canceled"),
									request->server);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = timeout_ms - (int) Min(INSTR_TIME_GET_MILLISEC(now), timeout_ms);
		if (left <= 0)
			return fail_timeout(request, timeout_ms, error);

		rc = t->curl->multi_wait(t->multi, NULL, 0, Min(left, POLL_MS), &nfds);
		if (rc == CURLM_OK && nfds == 0)
			pg_usleep(1000);	/* it does not wait where there is no socket */
	}
	if (rc != CURLM_OK)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("could not send a request to server \"%s\": %s"),
								request->server,
								t->curl->multi_strerror(rc));

	do
	{
		int			queued;

		msg = t->curl->multi_info_read(t->multi, &queued);
	} while (msg && msg->msg != CURLMSG_DONE);
	if (msg == NULL || msg->data.result != CURLE_OK)
		return fail_transfer(t, request,
							 msg ? msg->data.result : CURLE_GOT_NOTHING,
							 timeout_ms, error);

	if (t->curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE,
							  &status) != CURLE_OK)
		status = 0;
	t->answer->status = (int) status;
	t->answer->body[t->answer->len] = '\0';
	return TDE_KEYRING_OK;
}

/* The list of headers, in libcurl's memory. */
static bool
add_headers(Transfer *t, const char *const *headers)
{
	for (; *headers; headers++)
	{
		struct curl_slist *list = t->curl->slist_append(t->headers, *headers);

		if (list == NULL)
			return false;
		t->headers = list;
	}
	return true;
}

TdeKeyringStatus
tde_http_request(const TdeHttpRequest *request, const TdeKeyringCall *call,
				 int default_timeout_ms, TdeHttpAnswer *answer,
				 TdeKeyringError *error)
{
	int			timeout_ms = call && call->timeout_ms > 0 ?
		call->timeout_ms : default_timeout_ms;
	Transfer	transfer = {.answer = answer};
	TdeKeyringStatus status;
	const char *reason;
	bool		locked;
	CURLcode	rc = CURLE_OUT_OF_MEMORY;

	memset(answer, 0, sizeof(*answer));
	transfer.curl = tde_curl_load(&reason);
	if (transfer.curl == NULL)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED,
								_("Install the package that contains libcurl (libcurl4 on Debian)."),
								_("could not load libcurl, which is needed to talk to \"%s\": %s"),
								request->server, reason);

	answer->body = tde_secure_alloc(TDE_HTTP_MAX_ANSWER + 1, false, &locked);
	transfer.easy = transfer.curl->easy_init();
	transfer.multi = transfer.curl->multi_init();
	if (answer->body && transfer.easy && transfer.multi &&
		add_headers(&transfer, request->headers))
		rc = set_options(&transfer, request, timeout_ms);

	if (rc == CURLE_OK)
		status = run(&transfer, request, call, timeout_ms, error);
	else
		status = fail_transfer(&transfer, request, rc, timeout_ms, error);
	end_transfer(&transfer);
	if (status != TDE_KEYRING_OK)
		tde_http_free(answer);
	return status;
}

#else							/* !USE_LIBCURL */

TdeKeyringStatus
tde_http_request(const TdeHttpRequest *request, const TdeKeyringCall *call,
				 int default_timeout_ms, TdeHttpAnswer *answer,
				 TdeKeyringError *error)
{
	memset(answer, 0, sizeof(*answer));
	return tde_keyring_fail(error, TDE_KEYRING_FAILED,
							_("Use a server that was built with libcurl."),
							_("this build cannot talk to \"%s\": it has no libcurl"),
							request->server);
}

#endif							/* USE_LIBCURL */

void
tde_http_free(TdeHttpAnswer *answer)
{
	tde_secure_free(answer->body, TDE_HTTP_MAX_ANSWER + 1);
	memset(answer, 0, sizeof(*answer));
}
