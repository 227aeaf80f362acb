/*-------------------------------------------------------------------------
 *
 * audit.c
 *	  Lines in the server log for whoever must know later who used, or changed,
 *	  which principal key or key provider, and who tried.
 *
 * The line is made for programs to read: words of name=value, the same in
 * every language, and values in double quotes whatever they contain.  No option
 * of a provider is a secret; they name files that hold them.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/audit.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "provider_internal.h"
#include "tde/settings.h"
#include "utils/guc.h"

/* ---- a line ---- */

/*
 * A name=value word.  Names of keys, roles and programs are whatever somebody
 * chose: what could end the value, or the line, is written as \xNN.
 */
void
tde_audit_value(StringInfo line, const char *name, const char *value)
{
	appendStringInfo(line, " %s=\"", name);
	for (const char *c = value; *c != '\0'; c++)
	{
		if (*c == '"' || *c == '\\' || (unsigned char) *c < ' ' || *c == 0x7f)
			appendStringInfo(line, "\\x%02x", (unsigned char) *c);
		else
			appendStringInfoChar(line, *c);
	}
	appendStringInfoChar(line, '"');
}

/*
 * Who it was.  Callers hold no lock of the key store: to look the name of the
 * current role up may be to wait for a lock on its catalog.
 */
void
tde_audit_actor(StringInfo line)
{
	tde_audit_value(line, "process", GetBackendTypeDesc(MyBackendType));
	if (MyProcPort != NULL)
	{
		if (MyProcPort->user_name)
			tde_audit_value(line, "user", MyProcPort->user_name);
		if (IsTransactionState())
		{
			char	   *role = GetUserNameFromId(GetUserId(), true);

			if (role)
				tde_audit_value(line, "role", role);
		}
		if (MyProcPort->database_name)
			tde_audit_value(line, "database", MyProcPort->database_name);
		if (MyProcPort->remote_host)
			tde_audit_value(line, "client", MyProcPort->remote_host);
	}
	if (application_name && application_name[0] != '\0')
		tde_audit_value(line, "application", application_name);
}

/*
 * Write a line, whatever the session has made of log_min_messages: it is the
 * server's record, and only the server's configuration turns it off.  An
 * interrupt, which a message may be followed by, waits until that is back.
 */
void
tde_audit_write(StringInfo line)
{
	int			save_log_min_messages = log_min_messages;

	HOLD_INTERRUPTS();
	if (log_min_messages > ERROR)
		log_min_messages = ERROR;
	PG_TRY();
	{
		ereport(LOG_SERVER_ONLY,
				(errmsg_internal("%s", line->data),
				 errhidestmt(true),
				 errhidecontext(true)));
	}
	PG_FINALLY();
	{
		log_min_messages = save_log_min_messages;
	}
	PG_END_TRY();
	RESUME_INTERRUPTS();
	pfree(line->data);
}

/* ---- what has changed ---- */

/*
 * Write that a principal key was set for a scope, or taken from it.
 * "operation" is a word: "set", "rotate", "delete".
 */
void
tde_log_key_change(const char *operation, const TdeScope *scope)
{
	StringInfoData line;

	if (!tde_log_key_access)
		return;

	initStringInfo(&line);
	appendStringInfo(&line, "principal key access: operation=%s scope=%s",
					 operation, TdeScopeKindName(scope->kind));
	if (scope->kind == TDE_SCOPE_DATABASE)
		appendStringInfo(&line, " database_oid=%u", scope->dbOid);
	tde_audit_value(&line, "key", scope->principal.key_name);
	tde_audit_value(&line, "provider", scope->principal.provider_name);
	appendStringInfo(&line, " provider_id=%d outcome=success",
					 scope->principal.provider_id);
	tde_audit_actor(&line);
	tde_audit_write(&line);
}

/*
 * Write that a provider was added, changed or deleted: what it was before,
 * what it is now; NULL for what there is not.  For callers as of
 * tde_audit_actor().
 */
void
tde_log_provider_change(Oid dbOid, const TdeProvider *before,
						const TdeProvider *after)
{
	const TdeProvider *provider = after ? after : before;
	StringInfoData line;

	if (!tde_log_key_access)
		return;

	initStringInfo(&line);
	appendStringInfo(&line, "principal key access: operation=%s",
					 before == NULL ? "add_provider" :
					 after == NULL ? "delete_provider" : "change_provider");
	if (OidIsValid(dbOid))
		appendStringInfo(&line, " database_oid=%u", dbOid);
	tde_audit_value(&line, "provider", provider->name);
	appendStringInfo(&line, " provider_id=%d type=%s", provider->id,
					 provider->type);
	tde_audit_value(&line, "options", provider->options);
	if (before && after)
	{
		appendStringInfo(&line, " old_type=%s", before->type);
		tde_audit_value(&line, "old_options", before->options);
	}
	appendStringInfoString(&line, " outcome=success");
	tde_audit_actor(&line);
	tde_audit_write(&line);
}

/* ---- what was refused ---- */

static const char *
refusal_name(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return "denied";
		case ERRCODE_QUERY_CANCELED:
			return "cancelled";
	}
	return "failed";
}

/*
 * Call a function, and write a line if it raises an error.  Who it was is
 * found out before, when it is safe to look.
 *
 * If the statement can hold a secret, which somebody has given in place of the
 * path of its file, the server log does not repeat it with the error.
 */
void
TdeAudited(const char *operation, const char *function, bool hide_statement,
		   void (*body) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	StringInfoData actor;

	initStringInfo(&actor);
	tde_audit_actor(&actor);
	PG_TRY();
	{
		body(arg);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (tde_log_key_access)
		{
			StringInfoData line;

			initStringInfo(&line);
			appendStringInfo(&line, "principal key access: operation=%s",
							 operation);
			tde_audit_value(&line, "function", function);
			appendStringInfo(&line, " outcome=%s sqlstate=%s",
							 refusal_name(error->sqlerrcode),
							 unpack_sql_state(error->sqlerrcode));
			tde_audit_value(&line, "reason",
							error->message ? error->message : "");
			appendStringInfoString(&line, actor.data);
			tde_audit_write(&line);
		}
		if (hide_statement)
		{
			error->hide_stmt = true;
			error->hide_ctx = true;
		}
		ReThrowError(error);
	}
	PG_END_TRY();
	pfree(actor.data);
}
