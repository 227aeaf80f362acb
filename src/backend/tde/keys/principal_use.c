/*-------------------------------------------------------------------------
 *
 * principal_use.c
 *	  May a principal key be used for something new?
 *
 * What is under a key already must stay readable for as long as the provider
 * returns the key.  To put more under it is another matter, which is decided
 * here when a key is set.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal_use.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "key_store.h"
#include "miscadmin.h"
#include "tde/keyring.h"

/*
 * Nothing new comes under a key that its provider has withdrawn, though what
 * is under it already stays readable.  Only some types know such states.
 * The key, just fetched, is wiped before an error.
 */
void
tde_require_active(Oid provider_db, const TdeProvider *provider,
				   const char *key_name, TdePrincipalKey *key)
{
	const TdeKeyringType *type = tde_keyring_type(provider->type);
	TdeKeyringCall call = {.cancelled = tde_call_cancelled};
	TdePrincipalState state;
	TdeKeyringError error;

	if (type == NULL || type->state == NULL)
		return;
	if (tde_provider_state(provider_db, provider, key_name, &call, &state,
						   &error) != TDE_KEYRING_OK)
	{
		tde_wipe(key, sizeof(*key));
		CHECK_FOR_INTERRUPTS();
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not ask key provider \"%s\" for the state of principal key \"%s\"",
						provider->name, key_name),
				 tde_errdetail_provider(&error)));
	}
	if (state == TDE_PRINCIPAL_DEACTIVATED || state == TDE_PRINCIPAL_COMPROMISED)
	{
		tde_wipe(key, sizeof(*key));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot use principal key \"%s\" of key provider \"%s\"",
						key_name, provider->name),
				 errdetail("The key provider reports the key as %s.",
						   tde_principal_state_name(state)),
				 errhint("Create another key.")));
	}
}

/*
 * A name stands for one key, which is all that scopes keep of it.  Has the
 * provider come to return another one than what is in use under that name?
 * Then the next start could not open both.  We see it as long as the key in
 * use is resident.  Caller holds store_lock; the key is wiped before an error.
 */
void
tde_refuse_second_key(Oid provider_db, const TdeProvider *provider,
					  const TdePrincipalRef *ref, TdePrincipalKey *key)
{
	TdePrincipalKey known;
	bool		same;

	if (!tde_principal_get(provider_db, ref, &known))
		return;
	same = known.len == key->len && memcmp(known.key, key->key, key->len) == 0;
	tde_wipe(&known, sizeof(known));
	if (same || !tde_provider_key_in_use(provider_db, provider, ref->key_name))
		return;
	tde_wipe(key, sizeof(*key));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("key provider \"%s\" returns another key under the name \"%s\" than is in use",
					provider->name, ref->key_name),
			 errhint("Restore the key at the provider, or set a key with another name.")));
}
