/*-------------------------------------------------------------------------
 *
 * handlers.c
 *	  The handler of access method tde_heap, and the functions of the
 *	  extension's event triggers.
 *
 * tde_heap is heap: tuples, visibility, WAL and vacuum are the same, and the
 * storage manager encrypts below them.  So the handler returns heap's own
 * table of functions, and code that asks whether a table is a heap by
 * comparing that pointer gets the right answer.  The server knows from
 * pg_class.relam which of the two it is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * contrib/pg_tde/handlers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "commands/event_trigger.h"
#include "fmgr.h"

PG_FUNCTION_INFO_V1(pg_tdeam_handler);
PG_FUNCTION_INFO_V1(pg_tde_ddl_command_start_capture);
PG_FUNCTION_INFO_V1(pg_tde_ddl_command_end_capture);

Datum
pg_tdeam_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(GetHeapamTableAmRoutine());
}

/*
 * Event triggers at the start and the end of each DDL command, for those who
 * expect to find them.  They have nothing to do: which storage is encrypted
 * (create.c in the server), and which tables pg_tde.enforce_encryption refuses
 * (enforce.c), is decided where storage and tables are made, with or without
 * event triggers.
 */
static Datum
check_event_trigger(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called by an event trigger")));

	PG_RETURN_NULL();
}

Datum
pg_tde_ddl_command_start_capture(PG_FUNCTION_ARGS)
{
	return check_event_trigger(fcinfo);
}

Datum
pg_tde_ddl_command_end_capture(PG_FUNCTION_ARGS)
{
	return check_event_trigger(fcinfo);
}
