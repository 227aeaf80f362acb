/*-------------------------------------------------------------------------
 *
 * use.c
 *	  Which principal keys are in use, and may one be used for something new?
 *
 * What is under a key already must stay readable for as long as the provider
 * returns the key.  To put more under it is another matter, which is decided
 * here when a key is set.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/use.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "principal_internal.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tde/keyring.h"

/* ---- which principal keys are in use ---- */

/* Of two keys of providers of the same list. */
bool
tde_same_principal(const TdePrincipalRef *a, const TdePrincipalRef *b)
{
	return tde_same_provider(a->provider_id, &a->provider_uuid,
							 b->provider_id, &b->provider_uuid) &&
		strcmp(a->key_name, b->key_name) == 0;
}

static void
note_scope(List **keys, TdeScopeKind kind, Oid dbOid)
{
	char		reason[256];
	TdeScope   *scope = tde_scope_read(kind, dbOid, reason, sizeof(reason));
	Oid			provider_db;
	TdeUsedPrincipal *key = NULL;

	/* A damaged file is reported where it is used. */
	if (scope == NULL)
		return;
	if (scope->retired)
	{
		tde_scope_free(scope);
		return;
	}
	provider_db = scope->principal.provider_id > 0 ? dbOid : InvalidOid;

	foreach_ptr(TdeUsedPrincipal, k, *keys)
	{
		if (k->provider_db == provider_db &&
			tde_same_principal(&k->ref, &scope->principal))
		{
			key = k;
			break;
		}
	}
	if (key == NULL)
	{
		key = palloc0(sizeof(TdeUsedPrincipal));
		key->provider_db = provider_db;
		key->ref = scope->principal;
		*keys = lappend(*keys, key);
	}
	if (kind == TDE_SCOPE_DEFAULT)
		key->is_default = true;
	else if (kind == TDE_SCOPE_SERVER)
		key->is_server = true;
	else
		key->ndatabases++;
	tde_scope_free(scope);
}

/*
 * The principal keys that scopes are under now; a List of TdeUsedPrincipal.
 * One that was deleted is none of them, although replay may still need what
 * is under it: to have it out of the world is what it was deleted for.
 */
List *
tde_used_principals(void)
{
	List	   *keys = NIL;
	int			n;
	Oid		   *databases = tde_list_databases(&n);

	note_scope(&keys, TDE_SCOPE_DEFAULT, InvalidOid);
	note_scope(&keys, TDE_SCOPE_SERVER, InvalidOid);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		note_scope(&keys, TDE_SCOPE_DATABASE, databases[i]);
	}
	return keys;
}

/*
 * What a key is used for, "default key, server key, 3 databases"; palloc'd.
 */
char *
tde_describe_use(const TdeUsedPrincipal *key)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (key->is_default)
		appendStringInfoString(&buf, _("default key"));
	if (key->is_server)
		appendStringInfo(&buf, "%s%s", buf.len ? ", " : "", _("server key"));
	if (key->ndatabases)
	{
		appendStringInfoString(&buf, buf.len ? ", " : "");
		appendStringInfo(&buf, ngettext("%d database", "%d databases",
										key->ndatabases), key->ndatabases);
	}
	return buf.data;
}

static bool
is_used(Oid dbOid, const TdePrincipalRef *ref, void *used)
{
	foreach_ptr(TdeUsedPrincipal, u, (List *) used)
	{
		if (u->provider_db == dbOid && tde_same_principal(&u->ref, ref))
			return true;
	}
	return false;
}

/*
 * Scopes were put under another principal key, or none: wipe those that no
 * scope is under any more.  Caller holds the lock of the store.
 */
void
tde_principals_forget_unused(void)
{
	List	   *used = tde_used_principals();

	tde_principals_forget_unless(is_used, used);
	list_free_deep(used);
}

/* ---- may this one be used? ---- */

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
