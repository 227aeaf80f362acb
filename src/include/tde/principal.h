/*-------------------------------------------------------------------------
 *
 * principal.h
 *	  Principal keys and their providers, for the SQL functions of the
 *	  extension.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/principal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PRINCIPAL_H
#define TDE_PRINCIPAL_H

#include "tde/provider.h"
#include "tde/scope.h"

/* Set by the extension's library when it is preloaded. */
extern PGDLLIMPORT bool tde_preloaded;

/* ---- providers, for the SQL functions ---- */

/*
 * All functions below raise errors with a message, detail and hint fit for
 * the user, are WAL-logged where they change something, and take effect at
 * once, whatever becomes of the transaction.  dbOid InvalidOid means the
 * global list.  They check no privileges.
 */
extern int32 TdeAddProvider(Oid dbOid, const char *type, const char *name,
							const char *options);
extern void TdeChangeProvider(Oid dbOid, const char *type, const char *name,
							  const char *options);
extern void TdeDeleteProvider(Oid dbOid, const char *name);

/* A palloc'd copy of the list, empty where there is none. */
extern TdeProviderList *TdeGetProviders(Oid dbOid);

/* ---- principal keys, for the SQL functions ---- */

/* Make a new key in a provider; uses it for nothing. */
extern void TdeCreatePrincipalKey(Oid provider_db, const char *provider,
								  const char *key_name);

/*
 * Make key_name of a provider (of the database's list, or of the global one
 * if provider_db is InvalidOid) the principal key of a scope: sets or
 * rotates.  dbOid counts for TDE_SCOPE_DATABASE only.  With TDE_SCOPE_DEFAULT,
 * all that is under the old default key moves, and a server that has no key of
 * its own gets this one; a NOTICE says so.
 */
extern void TdeSetPrincipalKey(TdeScopeKind kind, Oid dbOid,
							   Oid provider_db, const char *provider,
							   const char *key_name);

/*
 * Ask the provider for the principal key in use and compare.  A database that
 * follows the default key verifies that.
 */
extern void TdeVerifyPrincipalKey(TdeScopeKind kind, Oid dbOid);

/*
 * Remove a database's own principal key, the server's, or the default key; with
 * that the server's, too, where it is the same one and no WAL needs it.
 */
extern void TdeDeletePrincipalKey(TdeScopeKind kind, Oid dbOid);

/*
 * Call a function that changes keys or providers and, if it raises an error,
 * write so to the log of accesses: "operation" is a word.  hide_statement: the
 * statement can hold a secret and is not to be logged with the error.
 */
extern void TdeAudited(const char *operation, const char *function,
					   bool hide_statement, void (*body) (void *arg),
					   void *arg);

/*
 * What is set for a scope; false if nothing.  A database that follows the
 * default key reports that key; *follows_default says so.
 */
extern bool TdeGetPrincipalInfo(TdeScopeKind kind, Oid dbOid,
								TdePrincipalRef *ref, bool *follows_default);

#endif							/* TDE_PRINCIPAL_H */
