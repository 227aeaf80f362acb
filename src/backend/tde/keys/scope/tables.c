/*-------------------------------------------------------------------------
 *
 * tables.c
 *	  The tables in shared memory of scopes and of their generations' keys.
 *
 * All generations of all scopes are unwrapped when the server starts, and
 * each new one when it is made or replayed, so that using a relation never
 * needs a provider.  A scope that was replaced is published when its file is.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope/tables.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "scope_internal.h"
#include "utils/builtins.h"

/*
 * Scopes and the keys of their generations: open-addressed tables.  The keys
 * outlive a reinitialisation of shared memory after a crash, so that it does
 * not need the providers.  An entry of theirs counts while it is marked
 * valid, which is done last and undone first, so a process that dies in the
 * middle leaves no half-made one.
 *
 * The table of generations is the one that grows with time, by one entry for
 * each database at each rotation.  It is made at the start of the server, for
 * twice the generations that there are then.
 */
#define MIN_GENERATIONS		32768

typedef struct ScopeSlot
{
	bool		used;
	TdeScopeKind kind;
	Oid			dbOid;
	bool		present;		/* false: dropped, or the file is damaged */
	bool		retired;
	bool		follows_default;
	TdeId		id;
	uint64		change;
	TdeId		current;		/* generation for new keys */
} ScopeSlot;

typedef enum GenerationState
{
	GENERATION_EMPTY = 0,	/* never used: a search ends here */
	GENERATION_VALID,
	GENERATION_FORGOTTEN,	/* may be used again */
} GenerationState;

typedef struct GenerationSlot
{
	pg_atomic_uint32 state;		/* a GenerationState */
	TdeId		id;
	uint8		key[TDE_WRAP_KEY_LEN];
} GenerationSlot;

typedef struct ScopeShared
{
	LWLock		lock;			/* held for moments only */
	ScopeSlot	scopes[TDE_MAX_SCOPES];
	int			nscopes;		/* present ones */
	int			ngenerations;	/* valid ones */
	int			generation_slots;	/* of which 3/4 may be used */
	GenerationSlot generations[FLEXIBLE_ARRAY_MEMBER];
} ScopeShared;

static ScopeShared *scope_shared = NULL;

/*
 * How many generations to make room for: for twice those that there are, at a
 * load of 3/4.  They are not counted one by one: the size of a file tells how
 * many it can have.
 */
static int
choose_generation_slots(void)
{
	int			ndatabases;
	Oid		   *databases = tde_list_databases(&ndatabases);
	uint64		n = 0;

	for (int i = 0; i < ndatabases; i++)
	{
		char		path[MAXPGPATH];
		struct stat st;

		tde_scope_path(TDE_SCOPE_DATABASE, databases[i], path);
		if (stat(path, &st) == 0)
			n += st.st_size / TDE_SCOPE_GENERATION_LEN;
	}
	pfree(databases);

	n = Min(n, PG_INT32_MAX / 8);
	return Max(MIN_GENERATIONS, pg_nextpower2_32(n * 8 / 3 + 1));
}

/*
 * After a crash the counter may be wrong; wipe what was on its way in or out.
 */
static void
recount_generations(void)
{
	scope_shared->ngenerations = 0;
	for (int i = 0; i < scope_shared->generation_slots; i++)
	{
		GenerationSlot *slot = &scope_shared->generations[i];

		switch (pg_atomic_read_u32(&slot->state))
		{
			case GENERATION_VALID:
				scope_shared->ngenerations++;
				break;
			case GENERATION_FORGOTTEN:
				tde_wipe(slot->key, sizeof(slot->key));
				break;
		}
	}
}

/*
 * Make the tables the first time.  Later, after a crash, the keys stay, and the
 * startup process reads the scopes from their files again.
 */
void
TdeScopeShmemInit(int tranche)
{
	if (scope_shared == NULL)
	{
		int			slots = choose_generation_slots();

		scope_shared = tde_map_shared(offsetof(ScopeShared, generations) +
									  sizeof(GenerationSlot) * slots, true);
		scope_shared->generation_slots = slots;
		for (int i = 0; i < slots; i++)
			pg_atomic_init_u32(&scope_shared->generations[i].state,
							   GENERATION_EMPTY);
	}
	LWLockInitialize(&scope_shared->lock, tranche);
	memset(scope_shared->scopes, 0, sizeof(scope_shared->scopes));
	scope_shared->nscopes = 0;
	recount_generations();
}

int
tde_scope_count_present(void)
{
	int			n;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	n = scope_shared->nscopes;
	LWLockRelease(&scope_shared->lock);
	return n;
}

int
tde_generation_count(void)
{
	int			n;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	n = scope_shared->ngenerations;
	LWLockRelease(&scope_shared->lock);
	return n;
}

/*
 * Find the slot of a scope, or, with "create", one for it: that of a scope
 * that is not present any more, or an unused one.  Caller holds the lock,
 * exclusively to create.
 */
static ScopeSlot *
scope_slot(TdeScopeKind kind, Oid dbOid, bool create)
{
	uint32		i = murmurhash32(dbOid ^ (uint32) kind << 28);
	ScopeSlot *free_slot = NULL;

	if (kind != TDE_SCOPE_DATABASE)
		dbOid = InvalidOid;
	for (int n = 0; n < TDE_MAX_SCOPES; n++, i++)
	{
		ScopeSlot *slot = &scope_shared->scopes[i % TDE_MAX_SCOPES];

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
 * caller fills.  Caller holds the lock.
 */
static GenerationSlot *
generation_slot(const TdeId *id, bool create)
{
	GenerationSlot *free_slot = NULL;
	uint32		i;

	memcpy(&i, id->b, sizeof(i));	/* ids are random */
	for (int n = 0; n < scope_shared->generation_slots; n++, i++)
	{
		GenerationSlot *slot;
		GenerationState state;

		slot = &scope_shared->generations[i % scope_shared->generation_slots];
		state = pg_atomic_read_u32(&slot->state);
		if (state == GENERATION_VALID && TdeIdEquals(&slot->id, id))
			return slot;
		if (state != GENERATION_VALID && free_slot == NULL)
			free_slot = slot;
		if (state == GENERATION_EMPTY)
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
	GenerationSlot *slot;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	slot = generation_slot(id, false);
	if (slot)
		tde_copy_key(key, slot->key, TDE_WRAP_KEY_LEN);
	LWLockRelease(&scope_shared->lock);
	return slot != NULL;
}

/*
 * How many generations the table takes.
 */
int
tde_max_generations(void)
{
	return scope_shared->generation_slots / 4 * 3;
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
	GenerationSlot *slot;

	LWLockAcquire(&scope_shared->lock, LW_EXCLUSIVE);
	slot = generation_slot(id, false);
	if (slot == NULL &&
		scope_shared->ngenerations < tde_max_generations())
	{
		slot = generation_slot(id, true);
		slot->id = *id;
		tde_copy_key(slot->key, key, TDE_WRAP_KEY_LEN);
		pg_write_barrier();
		pg_atomic_write_u32(&slot->state, GENERATION_VALID);
		scope_shared->ngenerations++;
	}
	LWLockRelease(&scope_shared->lock);

	if (slot == NULL)
		too_many_generations();
}

static void
check_room_for_generations(TdeScope **scopes, int nscopes)
{
	int			n;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	n = scope_shared->ngenerations;
	for (int i = 0; i < nscopes; i++)
		for (int j = 0; j < scopes[i]->ngenerations; j++)
			if (generation_slot(&scopes[i]->generations[j].id, false) == NULL)
				n++;
	LWLockRelease(&scope_shared->lock);

	if (n > tde_max_generations())
		too_many_generations();
}

/*
 * The scope is gone: wipe its keys.
 */
void
tde_generations_forget(const TdeScope *scope)
{
	LWLockAcquire(&scope_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < scope->ngenerations; i++)
	{
		GenerationSlot *slot;

		slot = generation_slot(&scope->generations[i].id, false);
		if (slot == NULL)
			continue;
		pg_atomic_write_u32(&slot->state, GENERATION_FORGOTTEN);
		pg_write_barrier();
		tde_wipe(slot->key, sizeof(slot->key));
		scope_shared->ngenerations--;
	}
	LWLockRelease(&scope_shared->lock);
}

static void
check_room_for_scope(TdeScopeKind kind, Oid dbOid)
{
	ScopeSlot *slot;
	bool		room;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	slot = scope_slot(kind, dbOid, false);
	room = (slot && slot->present) ||
		scope_shared->nscopes < TDE_MAX_SCOPES * 3 / 4;
	LWLockRelease(&scope_shared->lock);
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
	ScopeSlot *slot;

	LWLockAcquire(&scope_shared->lock, LW_EXCLUSIVE);
	slot = scope_slot(scope->kind, scope->dbOid, true);
	if (slot)
	{
		if (!slot->present)
			scope_shared->nscopes++;
		slot->present = true;
		slot->retired = scope->retired;
		slot->follows_default = scope->follows_default;
		slot->id = scope->id;
		slot->change = scope->change;
		slot->current = scope->generations[scope->ngenerations - 1].id;
	}
	LWLockRelease(&scope_shared->lock);
	if (tde_any_trouble() && (scope->retired || tde_scope_is_resident(scope)))
		tde_scope_note_available(scope->kind, scope->dbOid);
	if (slot == NULL)
		elog(ERROR, "no room for the scope of database %u", scope->dbOid);
	pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);
}

void
tde_scope_unpublish(TdeScopeKind kind, Oid dbOid)
{
	ScopeSlot *slot;

	LWLockAcquire(&scope_shared->lock, LW_EXCLUSIVE);
	slot = scope_slot(kind, dbOid, false);
	if (slot && slot->present)
	{
		slot->present = false;
		scope_shared->nscopes--;
	}
	LWLockRelease(&scope_shared->lock);
	if (kind == TDE_SCOPE_DATABASE)
		tde_forget_trouble(dbOid);
}

/*
 * Call back for each resident scope key, with its id in hexadecimal.  For
 * tests, which look where else these bytes are.
 */
void
tde_generations_walk(TdeKeyCallback callback, void *arg)
{
	for (int i = 0; i < scope_shared->generation_slots; i++)
	{
		GenerationSlot *slot = &scope_shared->generations[i];
		char		name[TDE_ID_LEN * 2 + 1];

		if (pg_atomic_read_u32(&slot->state) != GENERATION_VALID)
			continue;
		hex_encode((const char *) slot->id.b, TDE_ID_LEN, name);
		name[TDE_ID_LEN * 2] = '\0';
		callback(name, slot->key, TDE_WRAP_KEY_LEN, arg);
	}
}

/*
 * Has a database a scope with a generation for new keys?  "retired_too" is for
 * replay.
 */
bool
tde_find_current_generation(Oid dbOid, bool retired_too, TdeId *id)
{
	ScopeSlot *slot;
	bool		found;

	LWLockAcquire(&scope_shared->lock, LW_SHARED);
	slot = scope_slot(TDE_SCOPE_DATABASE, dbOid, false);
	found = slot && slot->present && (retired_too || !slot->retired);
	if (found)
		*id = slot->current;
	LWLockRelease(&scope_shared->lock);
	return found;
}

bool
tde_scope_is_present(Oid dbOid)
{
	TdeId		id;

	return tde_find_current_generation(dbOid, true, &id);
}

