/*-------------------------------------------------------------------------
 *
 * provider_internal.h
 *	  Lists of key providers, calls to them, and the principal keys that the
 *	  server has from them.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/provider_internal.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PROVIDER_INTERNAL_H
#define TDE_PROVIDER_INTERNAL_H

#include "../store/store_internal.h"
#include "tde/principal.h"

/* ---- lists (lists.c) ---- */

extern TdeProvider *tde_find_named_provider(TdeProviderList *list,
											const TdePrincipalRef *ref);
extern void tde_providers_install(const TdeProviderList *list,
								  const uint8 *data, size_t len);
extern void tde_providers_log_and_store(TdeProviderList *list);

/* ---- calls to providers (calls.c) ---- */

/* Of this process: it asks again and again, which is not logged each time. */
extern bool tde_retries_forever;

extern bool tde_call_cancelled(void *arg);
extern int	tde_errdetail_provider(const TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_validate(Oid dbOid,
											  const TdeProvider *provider,
											  const TdeKeyringCall *call,
											  TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_fetch(Oid dbOid,
										   const TdeProvider *provider,
										   const char *key_name,
										   const TdeKeyringCall *call,
										   TdePrincipalKey *key,
										   TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_state(Oid dbOid,
										   const TdeProvider *provider,
										   const char *key_name,
										   const TdeKeyringCall *call,
										   TdePrincipalState *state,
										   TdeKeyringError *error);
extern TdeKeyringStatus tde_provider_create(Oid dbOid,
											const TdeProvider *provider,
											const char *key_name, int keylen,
											const TdeKeyringCall *call,
											TdePrincipalKey *key,
											TdeKeyringError *error);

/* ---- the log of accesses and changes (audit.c) ---- */

extern void tde_audit_value(StringInfo line, const char *name,
							const char *value);
extern void tde_audit_actor(StringInfo line);
extern void tde_audit_write(StringInfo line);
extern void tde_log_key_change(const char *operation, const TdeScope *scope);
extern void tde_log_provider_change(Oid dbOid, const TdeProvider *before,
									const TdeProvider *after);

/* ---- resident principal keys (resident.c) ---- */

#define TDE_MAX_PRINCIPALS		2048

extern void TdeResidentShmemInit(int tranche);
extern bool tde_principal_get(Oid dbOid, const TdePrincipalRef *ref,
							  TdePrincipalKey *key);
extern void tde_principal_remember(Oid dbOid, const TdePrincipalRef *ref,
								   const TdePrincipalKey *key);
extern void tde_principals_forget(Oid dbOid);
extern void tde_principals_forget_unless(bool (*used) (Oid dbOid,
													   const TdePrincipalRef *ref,
													   void *arg),
										 void *arg);
extern void tde_principals_walk(TdeKeyCallback callback, void *arg);
extern int	tde_principal_count(void);

/* ---- asking for a principal key (fetch.c) ---- */

/*
 * Of somebody who asks for many principal keys and can do without some: a
 * provider that fails is not asked again, and what the startup process waits
 * counts for all together.  To begin with, all is zero.
 */
typedef struct TdeAsking
{
	bool		wait;			/* the startup process may wait, this time */
	bool		time_is_up;		/* it has waited long enough */
	struct TdeFailedProvider *failed;	/* palloc'd, goes with its context */
	const char *hint;			/* of the error, if one is raised; or NULL */
	char	   *problem;		/* out: what failed, palloc'd; a phrase */
} TdeAsking;

extern bool tde_principal_fetch(Oid dbOid, const TdePrincipalRef *ref,
								TdePrincipalKey *key, int elevel,
								TdeAsking *asking);
extern void tde_provider_wait_reset(void);

#endif							/* TDE_PROVIDER_INTERNAL_H */
