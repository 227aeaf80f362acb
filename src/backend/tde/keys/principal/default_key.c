/*-------------------------------------------------------------------------
 *
 * default_key.c
 *	  What stands under the default principal key, and goes where it goes.
 *
 * Who rotates the default key wants to be rid of the old one.  So all that is
 * under it moves in the one record of the rotation: the databases that follow
 * the default key, and the server and the databases for which the same key was
 * set by name.  The user is told what moved and what did not.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/principal/default_key.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "principal_internal.h"

/*
 * The databases that follow the default key, and those whose own key is "same",
 * if that is given.  Counts those of which nobody can tell, if "unknown" is.
 */
static List *
read_databases(const TdePrincipalRef *same, int *unknown)
{
	List	   *result = NIL;
	int			n;
	Oid		   *databases = tde_list_databases(&n);

	for (int i = 0; i < n; i++)
	{
		char		reason[256];
		TdeScope   *scope = tde_scope_read(TDE_SCOPE_DATABASE, databases[i],
										   reason, sizeof(reason));

		/* a damaged one stays as it is, and is reported where it is used */
		if (scope == NULL)
		{
			if (unknown && (reason[0] != '\0' ||
							tde_database_has_keys(databases[i])))
				(*unknown)++;
		}
		else if (!scope->retired &&
				 (scope->follows_default ||
				  (same && scope->principal.provider_id < 0 &&
				   tde_same_principal(&scope->principal, same))))
			result = lappend(result, scope);
		else
			tde_scope_free(scope);
		CHECK_FOR_INTERRUPTS();
	}
	return result;
}

/*
 * The databases that follow the default key.
 */
List *
tde_read_followers(void)
{
	return read_databases(NULL, NULL);
}

/*
 * The default key is to be set: find what goes along.  "from" is the default
 * key that there is, or NULL.  Caller holds store_lock, up to the end of the
 * move.
 */
void
tde_default_begin_move(TdeDefaultMove *move, const TdePrincipalRef *from,
					   const TdePrincipalRef *to)
{
	TdeScope   *server = tde_scope_read_for_change(TDE_SCOPE_SERVER,
												   InvalidOid);

	move->moves = from && !tde_same_principal(from, to);
	if (move->moves)
		move->from = *from;
	move->scopes = read_databases(move->moves ? from : NULL, &move->unknown);

	/* Who sets a default key wants it wherever there is no other. */
	if (server == NULL || server->retired)
	{
		move->sets_server = true;
		move->server = server;
	}
	else if (move->moves && tde_same_principal(&server->principal, from))
		move->scopes = lappend(move->scopes, server);
	else
		tde_scope_free(server);

	if (move->moves)
	{
		TdeUsedPrincipal use = {.is_default = true};

		foreach_ptr(TdeScope, scope, move->scopes)
		{
			if (scope->kind == TDE_SCOPE_SERVER)
				use.is_server = true;
			else
				use.ndatabases++;
		}
		move->moved = tde_describe_use(&use);
	}
}

/*
 * All is done: see what is under the old key now.
 */
void
tde_default_end_move(TdeDefaultMove *move)
{
	if (!move->moves)
		return;
	foreach_ptr(TdeUsedPrincipal, key, tde_used_principals())
	{
		if (!OidIsValid(key->provider_db) &&
			tde_same_principal(&key->ref, &move->from))
			move->left = tde_describe_use(key);
	}
}

/*
 * Tell the user.  No lock is held any more.
 */
void
tde_default_report_move(const TdeDefaultMove *move, const TdePrincipalRef *to)
{
	if (move->sets_server)
		ereport(NOTICE,
				(errmsg("principal key \"%s\" of key provider \"%s\" is the server key, too",
						to->key_name, to->provider_name),
				 errdetail("No server key was set.")));
	if (!move->moves)
		return;
	ereport(NOTICE,
			(errmsg("moved from principal key \"%s\" of key provider \"%s\" to \"%s\" of \"%s\": %s",
					move->from.key_name, move->from.provider_name,
					to->key_name, to->provider_name, move->moved),
			 move->left ?
			 errdetail("Still under \"%s\": %s.",
					   move->from.key_name, move->left) :
			 move->unknown > 0 ?
			 errdetail_plural("Of %d database nobody can tell whether it is under \"%s\", because its key file cannot be used.",
							  "Of %d databases nobody can tell whether they are under \"%s\", because their key files cannot be used.",
							  move->unknown, move->unknown,
							  move->from.key_name) :
			 errdetail("Nothing in this server is under \"%s\" any more.",
					   move->from.key_name),
			 errhint("Backups that began before, and standbys that have not replayed this, still need \"%s\".",
					 move->from.key_name)));
}

/*
 * What stands under the default key moves as a whole: what of it could not be
 * opened is tried again first.
 */
void
tde_default_retry(void)
{
	TdeScope   *scope;

	if (!tde_any_trouble())
		return;
	scope = tde_scope_read_for_change(TDE_SCOPE_DEFAULT, InvalidOid);
	if (scope && !scope->retired)
		tde_retry_unavailable(InvalidOid, &scope->principal);
	if (scope)
		tde_scope_free(scope);
}
