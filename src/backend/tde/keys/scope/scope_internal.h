/*-------------------------------------------------------------------------
 *
 * scope_internal.h
 *	  Scope keys: made, read, opened, written (scopes.c), and the tables in
 *	  shared memory of those that are open (tables.c).
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/scope/scope_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SCOPE_INTERNAL_H
#define TDE_SCOPE_INTERNAL_H

#include "../provider/provider_internal.h"

#define TDE_MAX_SCOPES			8192

/* ---- tables of scopes and their keys (tables.c) ---- */

extern void TdeScopeShmemInit(int tranche);
extern int	tde_max_generations(void);
extern int	tde_generation_count(void);
extern int	tde_scope_count_present(void);
extern bool tde_generation_key(const TdeId *id, uint8 *key);
extern void tde_generation_remember(const TdeId *id, const uint8 *key);
extern void tde_generations_forget(const TdeScope *scope);
extern void tde_generations_walk(TdeKeyCallback callback, void *arg);
extern bool tde_find_current_generation(Oid dbOid, bool retired_too,
										TdeId *id);
extern bool tde_scope_is_present(Oid dbOid);
extern void tde_scopes_check_room(TdeScope **scopes, int nscopes);
extern void tde_scope_publish(const TdeScope *scope);
extern void tde_scope_unpublish(TdeScopeKind kind, Oid dbOid);

/* ---- scopes in trouble (unavailable.c, given_up.c) ---- */

/* What is said of why a scope is unavailable, at most. */
#define TDE_REASON_LEN			1024

typedef struct TdeScopeName
{
	TdeScopeKind kind;
	Oid			dbOid;
} TdeScopeName;

extern void TdeUnavailableShmemInit(int tranche);
extern bool tde_any_trouble(void);
extern void tde_scope_note_unavailable(TdeScopeKind kind, Oid dbOid,
									   const char *reason);
extern void tde_scope_note_available(TdeScopeKind kind, Oid dbOid);
extern bool tde_scope_is_unavailable(TdeScopeKind kind, Oid dbOid,
									 char *reason);
extern TdeScopeName *tde_list_unavailable(int *n);
extern void tde_note_given_up(Oid dbOid, uint64 until);
extern uint64 tde_given_up(Oid dbOid);

/* A single relation that was given up. */
typedef struct TdeGivenUpRelation
{
	RelFileLocator locator;
	uint32		unused;
	uint64		until;			/* as of a database */
} TdeGivenUpRelation;

extern void tde_note_relation_given_up(const TdeGivenUpRelation *relation);
extern uint64 tde_relation_given_up(const RelFileLocator *locator);
extern void tde_forget_trouble(Oid dbOid);
extern bool tde_load_given_up(Oid dbOid);
extern void tde_give_up(Oid dbOid);
extern void tde_give_up_relation(const RelFileLocator *locator,
								 const char *reason);
extern void tde_end_given_up(Oid dbOid);

/* ---- scopes (scopes.c) ---- */

extern TdeScope *tde_scope_new(TdeScopeKind kind, Oid dbOid);
extern void tde_scope_add_generation(TdeScope *scope);
extern TdeScope *tde_scope_read(TdeScopeKind kind, Oid dbOid,
								char *reason, size_t reason_size);
extern bool tde_scope_is_lost(TdeScopeKind kind, Oid dbOid, char *reason,
							  size_t size);
extern TdeScope *tde_scope_try_read(TdeScopeKind kind, Oid dbOid,
									char *reason, size_t reason_size);
pg_noreturn extern void tde_database_keys_unavailable(Oid dbOid);
extern void tde_scope_fill_keys(TdeScope *scope);
extern bool tde_scope_is_resident(const TdeScope *scope);
extern bool tde_scope_make_resident(TdeScope *scope, int elevel,
									TdeAsking *asking);
extern bool tde_scope_is_over(const TdeScope *scope);
extern void tde_scope_install(const TdeScope *scope);
extern void tde_scopes_log_and_store(TdeScope **scopes, int nscopes);

#endif							/* TDE_SCOPE_INTERNAL_H */
