/*-------------------------------------------------------------------------
 *
 * enforce.c
 *	  pg_tde.enforce_encryption: no new table without encryption.
 *
 * The rule is applied where a table comes into being, in
 * heap_create_with_catalog(), which every command and every extension that
 * makes a table passes through: CREATE TABLE and what is made inside CREATE
 * SCHEMA, CREATE TABLE AS, SELECT INTO, materialized views, partitions,
 * temporary tables; and ALTER TABLE ... SET ACCESS METHOD, which makes a new
 * table to put in place of the old one.  It needs no event trigger, so
 * event_triggers = off and single-user mode are no way around it.
 *
 * And where a table becomes a partition.  From then on rows that are inserted
 * into the partitioned table, or updated there, are written to it, although
 * whoever does that never named it: attaching a plain table is what CREATE
 * TABLE ... PARTITION OF would be, which is refused.  ALTER TABLE ... INHERIT
 * is not: no row goes to a child unless a command names the child.
 *
 * What exists is left alone: a rewrite that keeps the access method makes a
 * plain table's new file plain again, and its indexes and TOAST table may be
 * made and rebuilt.  Who encrypts a database bit by bit must be able to use
 * all of it meanwhile.
 *
 * Sequences have no access method by which they could be refused or asked
 * for.  While the rule is in force, those that no table owns are encrypted
 * (see create.c).
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/storage/enforce.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tde/settings.h"
#include "tde/storage.h"
#include "utils/lsyscache.h"

/* The table that a command of ours makes as a helper for another one. */
static struct
{
	LocalTransactionId lxid;
	SubTransactionId subid;
	Oid			amoid;
}			helper;

/*
 * initdb makes the tables of information_schema by ordinary commands, but
 * with OIDs that are never given out again, once the cluster has been started
 * as a server.  pg_upgrade makes tables like those of the old cluster, whose
 * files it then puts in their place.
 */
bool
TdeEncryptionIsEnforced(Oid relid)
{
	return tde_enforce_encryption && relid >= FirstNormalObjectId &&
		!IsBinaryUpgrade;
}

static bool
is_helper(char relpersistence, Oid amoid)
{
	bool		result = helper.subid != InvalidSubTransactionId &&
		helper.subid == GetCurrentSubTransactionId() &&
		helper.lxid == MyProc->vxid.lxid &&
		helper.amoid == amoid &&
		relpersistence == RELPERSISTENCE_TEMP;

	if (result)
		helper.subid = InvalidSubTransactionId;
	return result;
}

void
TdeAllowHelperTable(Oid amoid)
{
	helper.amoid = amoid;
	helper.lxid = MyProc->vxid.lxid;
	helper.subid = GetCurrentSubTransactionId();
}

/*
 * What can be done about a refusal depends on whether the database has the
 * extension.
 */
static int
hint_about_access_method(void)
{
	if (OidIsValid(get_table_am_oid(TDE_AM_NAME, true)))
		return errhint("Use access method \"%s\": name it in the command, or set \"default_table_access_method\" to it.",
					   TDE_AM_NAME);
	return errhint("Create the extension \"pg_tde\" in this database, and use its access method \"%s\".",
				   TDE_AM_NAME);
}

static bool
is_allowed(Oid relid, Oid amoid)
{
	/* a partitioned table may leave the choice to its partitions */
	return !OidIsValid(amoid) || !TdeEncryptionIsEnforced(relid) ||
		TdeAccessMethodEncrypts(amoid);
}

void
TdeCheckNewTable(Oid relid, const char *relname, char relkind,
				 char relpersistence, Oid amoid, Oid rewritten)
{
	/* TOAST tables and indexes follow their table */
	if (relkind != RELKIND_RELATION && relkind != RELKIND_MATVIEW &&
		relkind != RELKIND_PARTITIONED_TABLE)
		return;

	if (OidIsValid(rewritten))
	{
		TdeCheckAccessMethodChange(rewritten, amoid);
		return;
	}

	if (is_allowed(relid, amoid) || is_helper(relpersistence, amoid))
		return;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 relkind == RELKIND_MATVIEW ?
			 errmsg("cannot create materialized view \"%s\" with access method \"%s\"",
					relname, get_am_name(amoid)) :
			 errmsg("cannot create table \"%s\" with access method \"%s\"",
					relname, get_am_name(amoid)),
			 errdetail("The access method does not encrypt, and \"%s\" is on.",
					   "pg_tde.enforce_encryption"),
			 hint_about_access_method()));
}

void
TdeCheckAccessMethodChange(Oid relid, Oid amoid)
{
	if (is_allowed(relid, amoid) || get_rel_relam(relid) == amoid)
		return;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot change the access method of relation \"%s\" to \"%s\"",
					get_rel_name(relid), get_am_name(amoid)),
			 errdetail("The access method does not encrypt, and \"%s\" is on.",
					   "pg_tde.enforce_encryption"),
			 hint_about_access_method()));
}

void
TdeCheckAttachedTables(List *relids)
{
	foreach_oid(relid, relids)
	{
		Oid			amoid = get_rel_relam(relid);

		/* partitioned and foreign tables may have none, and hold no rows */
		if (is_allowed(relid, amoid))
			continue;

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot attach table \"%s\" with access method \"%s\" as a partition",
						get_rel_name(relid), get_am_name(amoid)),
				 errdetail("The access method does not encrypt, and \"%s\" is on.",
						   "pg_tde.enforce_encryption"),
				 errhint("Encrypt it first: ALTER TABLE ... SET ACCESS METHOD %s.",
						 TDE_AM_NAME)));
	}
}
