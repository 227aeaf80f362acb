/*-------------------------------------------------------------------------
 *
 * principal_internal.h
 *	  Principal keys of scopes: set, rotated, deleted; in use or not; and the
 *	  providers that they are in, as far as these depend on that.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/principal_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PRINCIPAL_INTERNAL_H
#define TDE_PRINCIPAL_INTERNAL_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

#include "../scope/scope_internal.h"

/* ---- setting (set.c) ---- */

extern TdeScope *tde_scope_read_for_change(TdeScopeKind kind, Oid dbOid);
extern TdeScope *tde_scope_next_version(TdeScope *scope, TdeScopeKind kind,
										Oid dbOid, const TdePrincipalRef *ref,
										const TdePrincipalKey *key,
										bool follows_default);
extern TdeScope *tde_read_default_scope(Oid dbOid);
extern void tde_scope_principal(TdeScope *scope, TdePrincipalKey *key);
extern TdeScope *tde_lock_with_principal(TdeScope *(*read) (Oid dbOid),
										 Oid dbOid, TdePrincipalKey *key);
extern void tde_scope_follow_default(Oid dbOid);

/* ---- what stands under the default key (default_key.c) ---- */

/* What goes along when the default key is set. */
typedef struct TdeDefaultMove
{
	bool		moves;			/* from one principal key to another */
	TdePrincipalRef from;		/* if so */
	List	   *scopes;			/* of TdeScope */
	bool		sets_server;	/* the server had no key and gets this one: */
	TdeScope   *server;			/* retired, or NULL */
	char	   *moved;			/* what they are, for the user */
	char	   *left;			/* what is under the old key still, or NULL */
	int			unknown;		/* key files that cannot be read */
} TdeDefaultMove;

extern List *tde_read_followers(void);
extern void tde_default_begin_move(TdeDefaultMove *move,
								   const TdePrincipalRef *from,
								   const TdePrincipalRef *to);
extern void tde_default_end_move(TdeDefaultMove *move);
extern void tde_default_report_move(const TdeDefaultMove *move,
									const TdePrincipalRef *to);
extern void tde_default_retry(void);

/* ---- the key for what is new (current.c) ---- */

extern void tde_ensure_scope(Oid dbOid);
extern void tde_current_generation(Oid dbOid, TdeId *id, uint8 *key);

/* ---- scopes that were unavailable (retry.c) ---- */

extern void tde_retry_unavailable(Oid dbOid, const TdePrincipalRef *ref);

/* ---- what is under a scope (need.c) ---- */

extern bool tde_find_encrypted_wal(XLogRecPtr from, char *segment);
extern bool tde_scope_is_needed_to_start(const TdeScope *scope,
										 XLogRecPtr redo);

/* ---- use (use.c) ---- */

/* A principal key in use, and what for. */
typedef struct TdeUsedPrincipal
{
	Oid			provider_db;
	TdePrincipalRef ref;
	bool		is_default;
	bool		is_server;
	int			ndatabases;
} TdeUsedPrincipal;

extern bool tde_same_principal(const TdePrincipalRef *a,
							   const TdePrincipalRef *b);
extern List *tde_used_principals(void);
extern char *tde_describe_use(const TdeUsedPrincipal *key);
extern void tde_principals_forget_unused(void);
extern void tde_require_active(Oid provider_db, const TdeProvider *provider,
							   const char *key_name, TdePrincipalKey *key);
extern void tde_refuse_second_key(Oid provider_db,
								  const TdeProvider *provider,
								  const TdePrincipalRef *ref,
								  TdePrincipalKey *key);

/* ---- who uses a provider (provider_use.c) ---- */

extern List *tde_read_provider_users(Oid dbOid, const TdeProvider *provider,
									 int unknown);
extern void tde_free_provider_users(List *users);
extern bool tde_provider_key_in_use(Oid dbOid, const TdeProvider *provider,
									const char *key_name);

#endif							/* TDE_PRINCIPAL_INTERNAL_H */
