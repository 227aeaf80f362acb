/*-------------------------------------------------------------------------
 *
 * current.c
 *	  The scope key for keys that are made now.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/current.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "principal_internal.h"

/*
 * A key is about to be made in a database: one without a scope of its own gets
 * one under the default principal key.  To be called without locks, since that
 * may ask a provider.
 */
void
tde_ensure_scope(Oid dbOid)
{
	TdeId		id;

	if (!tde_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"pg_tde\" must be preloaded to create encrypted relations"),
				 errhint("Add \"pg_tde\" to \"shared_preload_libraries\" and restart the server.")));

	if (!tde_find_current_generation(dbOid, false, &id))
		tde_scope_follow_default(dbOid);
}

/*
 * The scope key for keys made now in a database, which has one.
 */
void
tde_current_generation(Oid dbOid, TdeId *id, uint8 *key)
{
	if (!tde_find_current_generation(dbOid, RecoveryInProgress(), id))
		elog(ERROR, "database %u has no scope key", dbOid);
	if (!tde_generation_key(id, key))
		tde_database_keys_unavailable(dbOid);
}
