/*-------------------------------------------------------------------------
 *
 * scope.c
 *	  The record of a scope's keys; specified in doc/key-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/scope.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "cipher_internal.h"
#include "format_internal.h"
#include "tde/scope.h"

#define MAGIC				"CFSC"
#define VERSION				2
#define WRAP_INFO			"coffer scope key wrap v1"

#define MIN_PRINCIPAL_LEN	16

#define FLAG_FOLLOWS_DEFAULT	0x01
#define FLAG_RETIRED			0x02
#define KNOWN_FLAGS				(FLAG_FOLLOWS_DEFAULT | FLAG_RETIRED)

#define HEADER_LEN			88
#define GENERATION_LEN		TDE_SCOPE_GENERATION_LEN
#define AAD_LEN				52

size_t
tde_scope_encoded_size(int ngenerations)
{
	return HEADER_LEN + TDE_MAX_PROVIDER_NAME + TDE_MAX_KEY_NAME +
		TDE_MAX_PROVIDER_TYPE + TDE_MAX_PROVIDER_OPTIONS +
		(size_t) ngenerations * GENERATION_LEN + TDE_CRC_LEN;
}

/*
 * The key that wraps the scope's keys.  The scope's id as salt gives each
 * scope its own, so that a principal key may serve many of them.
 */
static int
derive_wrap_key(const TdeScope *scope, const uint8 *principal,
				int principal_len, uint8 *kek)
{
	if (principal_len < MIN_PRINCIPAL_LEN)
		return tde_fail(gettext_noop("principal key is too short"));
	return tde_hkdf(principal, principal_len, scope->id.b, TDE_ID_LEN,
					WRAP_INFO, kek, TDE_WRAP_KEY_LEN);
}

/* What a wrapping authenticates: whose key it is, and which. */
static void
make_aad(const TdeScope *scope, const TdeScopeGeneration *generation,
		 uint8 *aad)
{
	TdeWriter	w = {aad};

	tde_put_uint(&w, scope->kind, 1);
	tde_put_reserved(&w, 3);
	tde_put_uint(&w, scope->dbOid, 4);
	tde_put_bytes(&w, scope->id.b, TDE_ID_LEN);
	tde_put_bytes(&w, generation->id.b, TDE_ID_LEN);
	tde_put_uint(&w, generation->number, 4);
	tde_put_uint(&w, generation->created, 8);
	Assert(w.p == aad + AAD_LEN);
}

int
tde_scope_wrap(TdeScope *scope, const uint8 *principal, int principal_len)
{
	uint8		kek[TDE_WRAP_KEY_LEN];
	uint8		aad[AAD_LEN];
	int			result;

	result = derive_wrap_key(scope, principal, principal_len, kek);
	for (int i = 0; i < scope->ngenerations && result == 0; i++)
	{
		TdeScopeGeneration *g = &scope->generations[i];

		make_aad(scope, g, aad);
		result = tde_wrap(kek, aad, AAD_LEN, g->key, TDE_WRAP_KEY_LEN,
						  g->iv, g->wrapped, g->tag);
	}
	tde_wipe(kek, sizeof(kek));
	return result;
}

int
tde_scope_unwrap(TdeScope *scope, const uint8 *principal, int principal_len)
{
	uint8		kek[TDE_WRAP_KEY_LEN];
	uint8		aad[AAD_LEN];
	int			result;

	result = derive_wrap_key(scope, principal, principal_len, kek);
	for (int i = 0; i < scope->ngenerations && result == 0; i++)
	{
		TdeScopeGeneration *g = &scope->generations[i];

		make_aad(scope, g, aad);
		result = tde_unwrap(kek, g->iv, aad, AAD_LEN, g->wrapped,
							TDE_WRAP_KEY_LEN, g->key, g->tag);
	}
	tde_wipe(kek, sizeof(kek));
	if (result < 0)
	{
		for (int i = 0; i < scope->ngenerations; i++)
			tde_wipe(scope->generations[i].key, TDE_WRAP_KEY_LEN);
	}
	return result;
}

/* What is wrong with the values of a scope; NULL if nothing is. */
static const char *
check_values(const TdeScope *scope)
{
	uint32		number = 0;

	if (scope->kind < TDE_SCOPE_DATABASE || scope->kind > TDE_SCOPE_DEFAULT)
		return gettext_noop("kind of scope is unknown");
	if ((scope->kind == TDE_SCOPE_DATABASE) != OidIsValid(scope->dbOid))
		return gettext_noop("database of the scope is invalid");
	if (scope->principal.provider_id == 0 ||
		scope->principal.provider_name[0] == '\0' ||
		scope->principal.key_name[0] == '\0')
		return gettext_noop("name of the principal key is incomplete");
	if (scope->principal.provider_type[0] == '\0' &&
		(scope->principal.provider_options[0] != '\0' ||
		 scope->principal.provider_change != 0 ||
		 !TdeIdIsZero(&scope->principal.provider_uuid)))
		return gettext_noop("type of the key provider is missing");
	if (scope->ngenerations < 1 ||
		scope->ngenerations > TDE_SCOPE_MAX_GENERATIONS)
		return gettext_noop("number of key generations is out of range");
	for (int i = 0; i < scope->ngenerations; i++)
	{
		if (scope->generations[i].number <= number)
			return gettext_noop("key generations are not in order");
		number = scope->generations[i].number;
	}
	return NULL;
}

size_t
tde_scope_encode(const TdeScope *scope, uint8 *buf)
{
	TdeWriter	w = {buf};
	const TdePrincipalRef *principal = &scope->principal;
	size_t		provider_len = strlen(principal->provider_name);
	size_t		name_len = strlen(principal->key_name);
	size_t		type_len = strlen(principal->provider_type);
	size_t		options_len = strlen(principal->provider_options);
	uint8		flags = 0;
	size_t		len;

	if (check_values(scope) != NULL)
	{
		tde_fail(check_values(scope));
		return 0;
	}
	if (scope->follows_default)
		flags |= FLAG_FOLLOWS_DEFAULT;
	if (scope->retired)
		flags |= FLAG_RETIRED;
	len = HEADER_LEN + provider_len + name_len + type_len + options_len +
		(size_t) scope->ngenerations * GENERATION_LEN + TDE_CRC_LEN;

	tde_put_bytes(&w, MAGIC, TDE_MAGIC_LEN);
	tde_put_uint(&w, VERSION, 2);
	tde_put_uint(&w, scope->kind, 1);
	tde_put_uint(&w, flags, 1);
	tde_put_uint(&w, len, 4);
	tde_put_uint(&w, scope->dbOid, 4);
	tde_put_bytes(&w, scope->id.b, TDE_ID_LEN);
	tde_put_uint(&w, scope->change, 8);
	tde_put_uint(&w, principal->created, 8);
	tde_put_uint(&w, (uint32) principal->provider_id, 4);
	tde_put_uint(&w, provider_len, 2);
	tde_put_uint(&w, name_len, 2);
	tde_put_uint(&w, scope->ngenerations, 4);
	tde_put_uint(&w, options_len, 2);
	tde_put_uint(&w, type_len, 1);
	tde_put_reserved(&w, 1);
	tde_put_bytes(&w, principal->provider_uuid.b, TDE_ID_LEN);
	tde_put_uint(&w, principal->provider_change, 8);
	Assert(w.p == buf + HEADER_LEN);
	tde_put_bytes(&w, principal->provider_name, provider_len);
	tde_put_bytes(&w, principal->key_name, name_len);
	tde_put_bytes(&w, principal->provider_type, type_len);
	tde_put_bytes(&w, principal->provider_options, options_len);

	for (int i = 0; i < scope->ngenerations; i++)
	{
		const TdeScopeGeneration *g = &scope->generations[i];

		tde_put_bytes(&w, g->id.b, TDE_ID_LEN);
		tde_put_uint(&w, g->number, 4);
		tde_put_uint(&w, g->created, 8);
		tde_put_bytes(&w, g->iv, TDE_WRAP_IV_LEN);
		tde_put_bytes(&w, g->wrapped, TDE_WRAP_KEY_LEN);
		tde_put_bytes(&w, g->tag, TDE_WRAP_TAG_LEN);
	}
	tde_put_uint(&w, tde_format_crc(buf, len), TDE_CRC_LEN);
	Assert(w.p == buf + len);
	return len;
}

/*
 * Decode all but the generations; their number goes to scope->ngenerations,
 * and the reader stands at the first.
 */
static int
decode_header(TdeReader *r, const uint8 *buf, size_t len, TdeScope *scope,
			  const char **reason)
{
	uint8		flags;
	size_t		stated;
	size_t		provider_len;
	size_t		name_len;
	size_t		type_len = 0;
	size_t		options_len = 0;
	uint32		ngenerations;
	int			version;

	memset(scope, 0, sizeof(TdeScope));
	version = tde_format_begin(r, buf, len, MAGIC, VERSION, reason);
	if (version == 0)
		return -1;
	scope->kind = tde_get_uint(r, 1);
	flags = tde_get_uint(r, 1);
	stated = tde_get_uint(r, 4);
	if (!tde_format_check(r, buf, len, stated, reason))
		return -1;

	scope->follows_default = (flags & FLAG_FOLLOWS_DEFAULT) != 0;
	scope->retired = (flags & FLAG_RETIRED) != 0;
	scope->dbOid = tde_get_uint(r, 4);
	tde_get_bytes(r, scope->id.b, TDE_ID_LEN);
	scope->change = tde_get_uint(r, 8);
	scope->principal.created = tde_get_uint(r, 8);
	scope->principal.provider_id = (int32) tde_get_uint(r, 4);
	provider_len = tde_get_uint(r, 2);
	name_len = tde_get_uint(r, 2);
	ngenerations = tde_get_uint(r, 4);
	if (version == 1)
		tde_get_reserved(r, 4);
	else
	{
		options_len = tde_get_uint(r, 2);
		type_len = tde_get_uint(r, 1);
		tde_get_reserved(r, 1);
		tde_get_bytes(r, scope->principal.provider_uuid.b, TDE_ID_LEN);
		scope->principal.provider_change = tde_get_uint(r, 8);
	}
	tde_get_string(r, scope->principal.provider_name, provider_len,
				   sizeof(scope->principal.provider_name));
	tde_get_string(r, scope->principal.key_name, name_len,
				   sizeof(scope->principal.key_name));
	tde_get_string(r, scope->principal.provider_type, type_len,
				   sizeof(scope->principal.provider_type));
	tde_get_string(r, scope->principal.provider_options, options_len,
				   sizeof(scope->principal.provider_options));

	if (r->failed || (flags & ~KNOWN_FLAGS) != 0)
	{
		*reason = gettext_noop("file uses an unknown feature");
		return -1;
	}
	if (ngenerations > TDE_SCOPE_MAX_GENERATIONS ||
		(size_t) (r->end - r->p) != ngenerations * GENERATION_LEN)
	{
		*reason = gettext_noop("number of key generations does not fit the length");
		return -1;
	}
	scope->ngenerations = (int) ngenerations;
	return 0;
}

int
tde_scope_count(const uint8 *buf, size_t len, const char **reason)
{
	TdeReader	r;
	TdeScope	scope;

	if (decode_header(&r, buf, len, &scope, reason) < 0)
		return -1;
	return scope.ngenerations;
}

int
tde_scope_decode(const uint8 *buf, size_t len, TdeScope *scope,
				 TdeScopeGeneration *generations, int max_generations,
				 const char **reason)
{
	TdeReader	r;

	if (decode_header(&r, buf, len, scope, reason) < 0)
		return -1;
	if (scope->ngenerations > max_generations)
	{
		*reason = gettext_noop("number of key generations is out of range");
		return -1;
	}
	scope->generations = generations;
	for (int i = 0; i < scope->ngenerations; i++)
	{
		TdeScopeGeneration *g = &generations[i];

		memset(g, 0, sizeof(*g));
		tde_get_bytes(&r, g->id.b, TDE_ID_LEN);
		g->number = tde_get_uint(&r, 4);
		g->created = tde_get_uint(&r, 8);
		tde_get_bytes(&r, g->iv, TDE_WRAP_IV_LEN);
		tde_get_bytes(&r, g->wrapped, TDE_WRAP_KEY_LEN);
		tde_get_bytes(&r, g->tag, TDE_WRAP_TAG_LEN);
	}
	Assert(!r.failed && r.p == r.end);
	*reason = check_values(scope);
	return *reason == NULL ? 0 : -1;
}

const char *
TdeScopeKindName(TdeScopeKind kind)
{
	switch (kind)
	{
		case TDE_SCOPE_DATABASE:
			return "database";
		case TDE_SCOPE_SERVER:
			return "server";
		case TDE_SCOPE_DEFAULT:
			return "default";
	}
	return "unknown";
}
