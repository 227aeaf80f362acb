/*-------------------------------------------------------------------------
 *
 * unavailable.c
 *	  The table in shared memory of the scopes that are in trouble: those whose
 *	  keys the server does not have, with the reason, and the databases that
 *	  were given up in recovery.
 *
 * A scope becomes unavailable only while the server starts or replays, and
 * available again when its principal key can be had.  Normally the table is
 * empty, which readers see from a counter.
 *
 * It outlives a reinitialisation of shared memory after a crash of a backend,
 * so that the server does not wait again for a key that it did without.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope/unavailable.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "scope_internal.h"
#include "tde/keyring.h"

typedef struct Note
{
	TdeScopeKind kind;
	Oid			dbOid;
	bool		unavailable;
	uint64		given_up;		/* keys made up to then are; 0: none is */
} Note;

/* More single relations than anybody names one by one. */
#define MAX_RELATIONS	256

typedef struct UnavailableShared
{
	LWLock		lock;
	pg_atomic_uint32 n;			/* notes that there are */
	pg_atomic_uint32 ngiven_up; /* of them, of databases given up */
	pg_atomic_uint32 nrelations;
	TdeGivenUpRelation relations[MAX_RELATIONS];
	Note		notes[TDE_MAX_SCOPES];
	char		reasons[TDE_MAX_SCOPES][TDE_REASON_LEN];	/* of the notes */
} UnavailableShared;

static UnavailableShared *shared = NULL;

void
TdeUnavailableShmemInit(int tranche)
{
	if (shared == NULL)
	{
		shared = tde_map_shared(sizeof(UnavailableShared), false);
		pg_atomic_init_u32(&shared->n, 0);
		pg_atomic_init_u32(&shared->ngiven_up, 0);
		pg_atomic_init_u32(&shared->nrelations, 0);
	}
	LWLockInitialize(&shared->lock, tranche);
}

/*
 * Is any scope unavailable, or any database given up?  Cheap.
 */
bool
tde_any_trouble(void)
{
	return pg_atomic_read_u32(&shared->n) > 0;
}

/*
 * The note of a scope, or NULL; with "create", a new one, if there is room,
 * which there is for all scopes that the server can have.  Caller holds the
 * lock.
 */
static Note *
find_note(TdeScopeKind kind, Oid dbOid, bool create)
{
	uint32		n = pg_atomic_read_u32(&shared->n);
	Note	   *note;

	for (uint32 i = 0; i < n; i++)
	{
		note = &shared->notes[i];
		if (note->kind == kind && note->dbOid == dbOid)
			return note;
	}
	if (!create || n >= TDE_MAX_SCOPES)
		return NULL;
	note = &shared->notes[n];
	memset(note, 0, sizeof(*note));
	note->kind = kind;
	note->dbOid = dbOid;
	pg_atomic_write_u32(&shared->n, n + 1);
	return note;
}

static char *
reason_of(const Note *note)
{
	return shared->reasons[note - shared->notes];
}

static void
drop_note_if_void(Note *note)
{
	uint32		last = pg_atomic_read_u32(&shared->n) - 1;

	if (note->unavailable || note->given_up != 0)
		return;
	if (note != &shared->notes[last])
	{
		*note = shared->notes[last];
		strlcpy(reason_of(note), shared->reasons[last], TDE_REASON_LEN);
	}
	pg_atomic_write_u32(&shared->n, last);
}

/*
 * The keys of a scope cannot be had.  The reason is a phrase for messages; it
 * is shown in databases of any encoding.
 */
void
tde_scope_note_unavailable(TdeScopeKind kind, Oid dbOid, const char *reason)
{
	Note	   *note;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	note = find_note(kind, dbOid, true);
	if (note)
	{
		strlcpy(reason_of(note), reason, TDE_REASON_LEN);
		tde_keyring_make_printable(reason_of(note));
		note->unavailable = true;
	}
	LWLockRelease(&shared->lock);
}

void
tde_scope_note_available(TdeScopeKind kind, Oid dbOid)
{
	Note	   *note;

	if (!tde_any_trouble())
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	note = find_note(kind, dbOid, false);
	if (note)
	{
		note->unavailable = false;
		drop_note_if_void(note);
	}
	LWLockRelease(&shared->lock);
}

/*
 * Are the keys of a scope unavailable?  The reason goes into a buffer of
 * TDE_REASON_LEN bytes, if one is given.
 */
bool
tde_scope_is_unavailable(TdeScopeKind kind, Oid dbOid, char *reason)
{
	Note	   *note;
	bool		result;

	if (!tde_any_trouble())
		return false;
	LWLockAcquire(&shared->lock, LW_SHARED);
	note = find_note(kind, dbOid, false);
	result = note && note->unavailable;
	if (result && reason)
		strlcpy(reason, reason_of(note), TDE_REASON_LEN);
	LWLockRelease(&shared->lock);
	return result;
}

/*
 * The scopes that are unavailable now; palloc'd.
 */
TdeScopeName *
tde_list_unavailable(int *n)
{
	TdeScopeName *result;
	int			max;

	*n = 0;
	max = pg_atomic_read_u32(&shared->n);
	result = palloc(sizeof(TdeScopeName) * Max(max, 1));

	LWLockAcquire(&shared->lock, LW_SHARED);
	max = Min(max, pg_atomic_read_u32(&shared->n));
	for (int i = 0; i < max; i++)
	{
		if (!shared->notes[i].unavailable)
			continue;
		result[*n].kind = shared->notes[i].kind;
		result[*n].dbOid = shared->notes[i].dbOid;
		(*n)++;
	}
	LWLockRelease(&shared->lock);
	return result;
}

/*
 * A database was given up: what is under keys made until then is lost.  See
 * given_up.c.
 */
void
tde_note_given_up(Oid dbOid, uint64 until)
{
	Note	   *note;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	note = find_note(TDE_SCOPE_DATABASE, dbOid, true);
	if (note)
	{
		if (note->given_up == 0)
			pg_atomic_fetch_add_u32(&shared->ngiven_up, 1);
		note->given_up = until;
	}
	LWLockRelease(&shared->lock);
	if (note == NULL)
		elog(ERROR, "no room to note that database %u was given up", dbOid);
}

/*
 * Until when keys of a database were made that are given up; 0: none is.
 * Cheap where no database is.
 */
uint64
tde_given_up(Oid dbOid)
{
	Note	   *note;
	uint64		until;

	if (pg_atomic_read_u32(&shared->ngiven_up) == 0)
		return 0;
	LWLockAcquire(&shared->lock, LW_SHARED);
	note = find_note(TDE_SCOPE_DATABASE, dbOid, false);
	until = note ? note->given_up : 0;
	LWLockRelease(&shared->lock);
	return until;
}

/*
 * The place of a single relation that was given up, or the number of them.
 * Caller holds the lock.
 */
static uint32
find_relation(const RelFileLocator *locator)
{
	uint32		n = pg_atomic_read_u32(&shared->nrelations);

	for (uint32 i = 0; i < n; i++)
		if (RelFileLocatorEquals(shared->relations[i].locator, *locator))
			return i;
	return n;
}

void
tde_note_relation_given_up(const TdeGivenUpRelation *relation)
{
	uint32		i;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	i = find_relation(&relation->locator);
	if (i < MAX_RELATIONS)
	{
		shared->relations[i] = *relation;
		if (i == pg_atomic_read_u32(&shared->nrelations))
			pg_atomic_write_u32(&shared->nrelations, i + 1);
	}
	LWLockRelease(&shared->lock);
	if (i >= MAX_RELATIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many single relations were given up"),
				 errdetail("There can be %d.", MAX_RELATIONS)));
}

/*
 * Until when a key of the relation's number is given up, if it was given up
 * alone; else 0.  Cheap where none was.
 */
uint64
tde_relation_given_up(const RelFileLocator *locator)
{
	uint64		until = 0;
	uint32		i;

	if (pg_atomic_read_u32(&shared->nrelations) == 0)
		return 0;
	LWLockAcquire(&shared->lock, LW_SHARED);
	i = find_relation(locator);
	if (i < pg_atomic_read_u32(&shared->nrelations))
		until = shared->relations[i].until;
	LWLockRelease(&shared->lock);
	return until;
}

static void
forget_relations(Oid dbOid)
{
	uint32		n = pg_atomic_read_u32(&shared->nrelations);
	uint32		kept = 0;

	if (n == 0)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	n = pg_atomic_read_u32(&shared->nrelations);
	for (uint32 i = 0; i < n; i++)
		if (shared->relations[i].locator.dbOid != dbOid)
			shared->relations[kept++] = shared->relations[i];
	pg_atomic_write_u32(&shared->nrelations, kept);
	LWLockRelease(&shared->lock);
}

/*
 * A database is gone.
 */
void
tde_forget_trouble(Oid dbOid)
{
	Note	   *note;

	forget_relations(dbOid);
	if (!tde_any_trouble())
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	note = find_note(TDE_SCOPE_DATABASE, dbOid, false);
	if (note)
	{
		if (note->given_up != 0)
			pg_atomic_fetch_sub_u32(&shared->ngiven_up, 1);
		note->unavailable = false;
		note->given_up = 0;
		drop_note_if_void(note);
	}
	LWLockRelease(&shared->lock);
}
