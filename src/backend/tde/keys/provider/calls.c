/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  Every call of the server to a key provider passes here: it is timed,
 *	  counted and written to the server log (audit.c), for whoever must know
 *	  later who used which principal key.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/calls.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "provider_internal.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "tde/settings.h"
#include "utils/wait_event.h"

const char *
TdeProviderOperationName(TdeProviderOperation operation)
{
	switch (operation)
	{
		case TDE_PROVIDER_VALIDATE:
			return "validate";
		case TDE_PROVIDER_FETCH:
			return "fetch";
		case TDE_PROVIDER_CREATE:
			return "create";
		case TDE_PROVIDER_CHECK:
			return "check";
	}
	return "unknown";
}

static const char *
outcome_name(TdeKeyringStatus status)
{
	switch (status)
	{
		case TDE_KEYRING_OK:
			return "success";
		case TDE_KEYRING_NOT_FOUND:
			return "not_found";
		case TDE_KEYRING_DESTROYED:
			return "destroyed";
		case TDE_KEYRING_EXISTS:
			return "exists";
		case TDE_KEYRING_DENIED:
			return "denied";
		case TDE_KEYRING_UNREACHABLE:
			return "unreachable";
		case TDE_KEYRING_BAD_OPTIONS:
			return "bad_options";
		case TDE_KEYRING_BAD_DATA:
			return "bad_data";
		case TDE_KEYRING_CANCELLED:
			return "cancelled";
		case TDE_KEYRING_FAILED:
			break;
	}
	return "failed";
}

/* ---- the log line ---- */

bool		tde_retries_forever = false;

static void
log_call(TdeProviderOperation operation, const TdeProvider *provider,
		 const char *key_name, TdeKeyringStatus status, int64 elapsed)
{
	static TdeKeyringStatus last_status = TDE_KEYRING_OK;
	StringInfoData line;

	/*
	 * A start that waits for a provider asks every second, and the worker that
	 * brings keys back every few seconds; they say so in their own way: here the
	 * first failure and the success are enough.
	 */
	if (AmStartupProcess() || tde_retries_forever)
	{
		if (status != TDE_KEYRING_OK && status == last_status)
			return;
		last_status = status;
	}

	initStringInfo(&line);
	appendStringInfo(&line, "principal key access: operation=%s",
					 TdeProviderOperationName(operation));
	if (key_name)
		tde_audit_value(&line, "key", key_name);
	tde_audit_value(&line, "provider", provider->name);
	appendStringInfo(&line, " provider_id=%d type=%s outcome=%s time=%.3f",
					 provider->id, provider->type, outcome_name(status),
					 elapsed / 1000.0);
	tde_audit_actor(&line);
	tde_audit_write(&line);
}

/* ---- interrupts ---- */

/* What an interrupt raised during a call, to be raised again after it. */
static ErrorData *interrupt_error = NULL;

/*
 * For TdeKeyringCall: is the call to end?
 *
 * No error may leave the keyring's code, which has connections to close and
 * secrets to wipe.  What ends a statement or a session is seen by its flag,
 * and the caller checks for interrupts when the call has ended.  Whatever else
 * is pending is dealt with here.  Others wait for some of it (barriers), and
 * replay for the end of who is in its way, of which only an error tells.
 */
bool
tde_call_cancelled(void *arg)
{
	MemoryContext context = CurrentMemoryContext;

	if (interrupt_error != NULL)
		return true;
	if (!InterruptPending)
		return false;
	if (QueryCancelPending || ProcDiePending || TransactionTimeoutPending ||
		ClientConnectionLost)
		return true;
	if (!INTERRUPTS_CAN_BE_PROCESSED())
		return false;

	PG_TRY();
	{
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		interrupt_error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return interrupt_error != NULL;
}

/* ---- the calls ---- */

/*
 * What a call begins and ends with.  While it lasts pg_stat_activity shows
 * that the process waits for a key provider.
 */
static void
begin_call(instr_time *start)
{
	static uint32 wait_event = 0;

	/* others would wait for the provider too */
	Assert(!LWLockHeldByMe(&tde_store->lock));

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("TdeKeyProvider");
	pgstat_report_wait_start(wait_event);
	interrupt_error = NULL;
	INSTR_TIME_SET_CURRENT(*start);
}

static void
end_call(TdeProviderOperation operation, Oid dbOid,
		 const TdeProvider *provider, const char *key_name, instr_time start,
		 const TdeKeyringError *error)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, start);
	pgstat_report_wait_end();

	tde_count_provider_call(dbOid, provider->id, operation,
							INSTR_TIME_GET_MICROSEC(elapsed), error);
	if (tde_log_key_access)
		log_call(operation, provider, key_name, error->status,
				 INSTR_TIME_GET_MICROSEC(elapsed));
	if (interrupt_error != NULL)
	{
		ErrorData  *raised = interrupt_error;

		interrupt_error = NULL;
		ReThrowError(raised);
	}
}

/*
 * The functions of tde/keyring.h, for a provider of the list of dbOid.  One
 * that is not in the list yet has the id 0, and is not counted.  They raise
 * what an interrupt raises; a key that is returned is not to be on the stack.
 */
TdeKeyringStatus
tde_provider_validate(Oid dbOid, const TdeProvider *provider,
					  const TdeKeyringCall *call, TdeKeyringError *error)
{
	instr_time	start;

	begin_call(&start);
	(void) tde_keyring_validate(provider, call, error);
	end_call(TDE_PROVIDER_VALIDATE, dbOid, provider, NULL, start, error);
	return error->status;
}

TdeKeyringStatus
tde_provider_fetch(Oid dbOid, const TdeProvider *provider,
				   const char *key_name, const TdeKeyringCall *call,
				   TdePrincipalKey *key, TdeKeyringError *error)
{
	instr_time	start;

	begin_call(&start);
	(void) tde_keyring_fetch(provider, key_name, call, key, error);
	end_call(TDE_PROVIDER_FETCH, dbOid, provider, key_name, start, error);
	return error->status;
}

TdeKeyringStatus
tde_provider_state(Oid dbOid, const TdeProvider *provider,
				   const char *key_name, const TdeKeyringCall *call,
				   TdePrincipalState *state, TdeKeyringError *error)
{
	instr_time	start;

	begin_call(&start);
	(void) tde_keyring_state(provider, key_name, call, state, error);
	end_call(TDE_PROVIDER_CHECK, dbOid, provider, key_name, start, error);
	return error->status;
}

TdeKeyringStatus
tde_provider_create(Oid dbOid, const TdeProvider *provider,
					const char *key_name, int keylen,
					const TdeKeyringCall *call,
					TdePrincipalKey *key, TdeKeyringError *error)
{
	instr_time	start;

	begin_call(&start);
	(void) tde_keyring_create(provider, key_name, keylen, call, key, error);
	end_call(TDE_PROVIDER_CREATE, dbOid, provider, key_name, start, error);
	return error->status;
}

/*
 * For ereport(): detail and hint of a failure of a provider.  Where the reason
 * is a list, of servers that were tried, it begins on a line of its own.
 */
int
tde_errdetail_provider(const TdeKeyringError *error)
{
	const char *format = "%s";

	if (error->detail[0])
		format = strchr(error->detail, '\n') ? "%s:\n%s" : "%s: %s";
	errdetail_internal(format, error->message, error->detail);
	if (error->hint[0])
		errhint("%s", error->hint);
	return 0;
}
