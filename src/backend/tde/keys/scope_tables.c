/*-------------------------------------------------------------------------
 *
 * scope_tables.c
 *	  The tables in shared memory of scopes and of their generations' keys.
 *
 * All generations of all scopes are unwrapped when the server starts, and
 * each new one when it is made or replayed, so that using a relation never
 * needs a provider.  A scope that was replaced is published when its file is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope_tables.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "key_store.h"

/*
 * Find the slot of a scope, or, with "create", one for it: that of a scope
 * that is not present any more, or an unused one.  Caller holds table_lock,
 * exclusively to create.
 */
static TdeScopeSlot *
scope_slot(TdeScopeKind kind, Oid dbOid, bool create)
{
	uint32		i = murmurhash32(dbOid ^ (uint32) kind << 28);
	TdeScopeSlot *free_slot = NULL;

	if (kind != TDE_SCOPE_DATABASE)
		dbOid = InvalidOid;
	for (int n = 0; n < TDE_MAX_SCOPES; n++, i++)
	{
		TdeScopeSlot *slot = &tde_shared->scopes[i % TDE_MAX_SCOPES];

		if (slot->used && slot->kind == kind && slot->dbOid == dbOid)
			return slot;
		if (!slot->present && free_slot == NULL)
			free_slot = slot;
		if (!slot->used)
			break;
	}
	if (!create || free_slot == NULL)
		return NULL;
	free_slot->used = true;
	free_slot->kind = kind;
	free_slot->dbOid = dbOid;
	return free_slot;
}

/*
 * The slot of a generation, or NULL; with "create", one for it, which the
 * caller fills.  Caller holds table_lock.
 */
static TdeGenerationSlot *
generation_slot(const TdeId *id, bool create)
{
	TdeGenerationSlot *free_slot = NULL;
	uint32		i;

	memcpy(&i, id->b, sizeof(i));	/* ids are random */
	for (int n = 0; n < tde_shared->generation_slots; n++, i++)
	{
		TdeGenerationSlot *slot;
		TdeGenerationState state;

		slot = &tde_shared->generations[i % tde_shared->generation_slots];
		state = pg_atomic_read_u32(&slot->state);
		if (state == TDE_GENERATION_VALID && TdeIdEquals(&slot->id, id))
			return slot;
		if (state != TDE_GENERATION_VALID && free_slot == NULL)
			free_slot = slot;
		if (state == TDE_GENERATION_EMPTY)
			break;
	}
	return create ? free_slot : NULL;
}

/*
 * The key of a generation, if it is resident.
 */
bool
tde_generation_key(const TdeId *id, uint8 *key)
{
	TdeGenerationSlot *slot;

	LWLockAcquire(&tde_shared->table_lock, LW_SHARED);
	slot = generation_slot(id, false);
	if (slot)
		memcpy(key, slot->key, TDE_WRAP_KEY_LEN);
	LWLockRelease(&tde_shared->table_lock);
	return slot != NULL;
}

/*
 * How many generations the table takes.
 */
int
tde_max_generations(void)
{
	return tde_shared->generation_slots / 4 * 3;
}

static void
too_many_generations(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("too many scope keys"),
			 errdetail("The server has room for %d, one for each database with encrypted relations and each rotation of its principal key.",
					   tde_max_generations()),
			 errhint("Restart the server: when it starts it makes room for twice the scope keys that there are.")));
}

/*
 * Make a generation's key resident.
 */
void
tde_generation_remember(const TdeId *id, const uint8 *key)
{
	TdeGenerationSlot *slot;

	LWLockAcquire(&tde_shared->table_lock, LW_EXCLUSIVE);
	slot = generation_slot(id, false);
	if (slot == NULL &&
		tde_shared->ngenerations < tde_max_generations())
	{
		slot = generation_slot(id, true);
		slot->id = *id;
		memcpy(slot->key, key, TDE_WRAP_KEY_LEN);
		pg_write_barrier();
		pg_atomic_write_u32(&slot->state, TDE_GENERATION_VALID);
		tde_shared->ngenerations++;
	}
	LWLockRelease(&tde_shared->table_lock);

	if (slot == NULL)
		too_many_generations();
}

static void
check_room_for_generations(TdeScope **scopes, int nscopes)
{
	int			n;

	LWLockAcquire(&tde_shared->table_lock, LW_SHARED);
	n = tde_shared->ngenerations;
	for (int i = 0; i < nscopes; i++)
		for (int j = 0; j < scopes[i]->ngenerations; j++)
			if (generation_slot(&scopes[i]->generations[j].id, false) == NULL)
				n++;
	LWLockRelease(&tde_shared->table_lock);

	if (n > tde_max_generations())
		too_many_generations();
}

/*
 * The scope is gone: wipe its keys.
 */
void
tde_generations_forget(const TdeScope *scope)
{
	LWLockAcquire(&tde_shared->table_lock, LW_EXCLUSIVE);
	for (int i = 0; i < scope->ngenerations; i++)
	{
		TdeGenerationSlot *slot;

		slot = generation_slot(&scope->generations[i].id, false);
		if (slot == NULL)
			continue;
		pg_atomic_write_u32(&slot->state, TDE_GENERATION_FORGOTTEN);
		pg_write_barrier();
		tde_wipe(slot->key, sizeof(slot->key));
		tde_shared->ngenerations--;
	}
	LWLockRelease(&tde_shared->table_lock);
}

/*
 * After a crash the counter may be wrong; wipe what was on its way in or out.
 */
void
tde_generations_recount(void)
{
	tde_shared->ngenerations = 0;
	for (int i = 0; i < tde_shared->generation_slots; i++)
	{
		TdeGenerationSlot *slot = &tde_shared->generations[i];

		switch (pg_atomic_read_u32(&slot->state))
		{
			case TDE_GENERATION_VALID:
				tde_shared->ngenerations++;
				break;
			case TDE_GENERATION_FORGOTTEN:
				tde_wipe(slot->key, sizeof(slot->key));
				break;
		}
	}
}

static void
check_room_for_scope(TdeScopeKind kind, Oid dbOid)
{
	TdeScopeSlot *slot;
	bool		room;

	LWLockAcquire(&tde_shared->table_lock, LW_SHARED);
	slot = scope_slot(kind, dbOid, false);
	room = (slot && slot->present) ||
		tde_shared->nscopes < TDE_MAX_SCOPES * 3 / 4;
	LWLockRelease(&tde_shared->table_lock);
	if (!room)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many databases with encryption keys"),
				 errdetail("The server can have at most %d.",
						   TDE_MAX_SCOPES * 3 / 4)));
}

/*
 * Raises an error if scopes, or their new generations, do not find room.
 * Caller holds store_lock, so that they still will when they are published and
 * remembered.
 */
void
tde_scopes_check_room(TdeScope **scopes, int nscopes)
{
	check_room_for_generations(scopes, nscopes);
	for (int i = 0; i < nscopes; i++)
		check_room_for_scope(scopes[i]->kind, scopes[i]->dbOid);
}

/*
 * Tell the other processes about a scope as it is on disk now.
 */
void
tde_scope_publish(const TdeScope *scope)
{
	TdeScopeSlot *slot;

	LWLockAcquire(&tde_shared->table_lock, LW_EXCLUSIVE);
	slot = scope_slot(scope->kind, scope->dbOid, true);
	if (slot)
	{
		if (!slot->present)
			tde_shared->nscopes++;
		slot->present = true;
		slot->retired = scope->retired;
		slot->follows_default = scope->follows_default;
		slot->id = scope->id;
		slot->change = scope->change;
		slot->current = scope->generations[scope->ngenerations - 1].id;
	}
	LWLockRelease(&tde_shared->table_lock);
	if (slot == NULL)
		elog(ERROR, "no room for the scope of database %u", scope->dbOid);
	pg_atomic_fetch_or_u32(&tde_shared->active, TDE_ACTIVE);
}

void
tde_scope_unpublish(TdeScopeKind kind, Oid dbOid)
{
	TdeScopeSlot *slot;

	LWLockAcquire(&tde_shared->table_lock, LW_EXCLUSIVE);
	slot = scope_slot(kind, dbOid, false);
	if (slot && slot->present)
	{
		slot->present = false;
		tde_shared->nscopes--;
	}
	LWLockRelease(&tde_shared->table_lock);
}

/*
 * Has a database a scope with a generation for new keys?
 */
static bool
find_current_generation(Oid dbOid, bool retired_too, TdeId *id)
{
	TdeScopeSlot *slot;
	bool		found;

	LWLockAcquire(&tde_shared->table_lock, LW_SHARED);
	slot = scope_slot(TDE_SCOPE_DATABASE, dbOid, false);
	found = slot && slot->present && (retired_too || !slot->retired);
	if (found)
		*id = slot->current;
	LWLockRelease(&tde_shared->table_lock);
	return found;
}

bool
tde_scope_is_present(Oid dbOid)
{
	TdeId		id;

	return find_current_generation(dbOid, true, &id);
}

/*
 * The scope key for keys made now in a database.  A database without one of
 * its own gets one under the default principal key.
 */
void
tde_current_generation(Oid dbOid, TdeId *id, uint8 *key)
{
	bool		in_recovery = RecoveryInProgress();

	if (!in_recovery && !tde_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"pg_tde\" must be preloaded to create encrypted relations"),
				 errhint("Add \"pg_tde\" to \"shared_preload_libraries\" and restart the server.")));

	if (!find_current_generation(dbOid, in_recovery, id))
	{
		tde_scope_follow_default(dbOid);
		if (!find_current_generation(dbOid, false, id))
			elog(ERROR, "database %u has no scope key", dbOid);
	}
	if (!tde_generation_key(id, key))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("scope key of database %u is not available", dbOid),
				 errhint("See the server log for what was wrong with it when the server started.")));
}
