/*-------------------------------------------------------------------------
 *
 * check_scopes.c
 *	  Scope files: our vectors, damage, forgery, rotation.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_scopes.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/scope.h"

#include "checks.h"

#define MAX_ENTRIES		8		/* generations or providers in a vector */

static bool
decode_scope(const uint8 *buf, size_t len, const char **reason)
{
	TdeScope	scope;
	TdeScopeGeneration generations[MAX_ENTRIES];
	uint8		again[MAX_VECTOR];
	int			n = tde_scope_count(buf, len, reason);

	if (tde_scope_decode(buf, len, &scope, generations,
						 MAX_ENTRIES, reason) < 0)
		return false;

	/* there is one way to write a scope, and version 1 is not it any more */
	if (buf[4] == 1)
		return n == scope.ngenerations && tde_scope_encode(&scope, again) > len;
	return n == scope.ngenerations &&
		tde_scope_encode(&scope, again) == len && memcmp(buf, again, len) == 0;
}

static bool
keys_are_zero(const TdeScope *scope)
{
	uint8		zeros[TDE_WRAP_KEY_LEN] = {0};

	for (int i = 0; i < scope->ngenerations; i++)
	{
		if (memcmp(scope->generations[i].key, zeros, sizeof(zeros)) != 0)
			return false;
	}
	return true;
}

static bool
check_scope_vector(Vectors *v, uint8 *file, size_t *len,
				   uint8 *principal, int *principal_len)
{
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	uint8		id[TDE_ID_LEN];
	uint8		uuid[TDE_ID_LEN];
	uint8		key[TDE_WRAP_KEY_LEN];
	uint8		other[TDE_WRAP_KEY_LEN];
	uint8		wrapped[TDE_WRAP_KEY_LEN];
	const char *reason = NULL;
	int			n;

	*len = vectors_bytes(v, "file", file, MAX_VECTOR);
	*principal_len = vectors_bytes(v, "principal", principal, 64);
	vectors_bytes(v, "id", id, TDE_ID_LEN);
	vectors_bytes(v, "uuid", uuid, TDE_ID_LEN);

	if (!decode_scope(file, *len, &reason) ||
		tde_scope_decode(file, *len, &scope, g, MAX_ENTRIES, &reason) < 0 ||
		scope.kind != vectors_uint(v, "kind") ||
		scope.follows_default != vectors_uint(v, "follows_default") ||
		scope.retired != vectors_uint(v, "retired") ||
		scope.dbOid != vectors_uint(v, "db") ||
		memcmp(scope.id.b, id, TDE_ID_LEN) != 0 ||
		scope.change != vectors_uint(v, "change") ||
		scope.principal.created != vectors_uint(v, "created") ||
		scope.principal.provider_id != atoi(vectors_get(v, "provider_id")) ||
		strcmp(scope.principal.provider_name,
			   vectors_get(v, "provider_name")) != 0 ||
		strcmp(scope.principal.key_name, vectors_get(v, "key_name")) != 0 ||
		memcmp(scope.principal.provider_uuid.b, uuid, TDE_ID_LEN) != 0 ||
		strcmp(scope.principal.provider_type, vectors_get(v, "type")) != 0 ||
		strcmp(scope.principal.provider_options,
			   vectors_get(v, "options")) != 0 ||
		scope.principal.provider_change != vectors_uint(v, "list_change") ||
		file[4] != vectors_uint(v, "version") ||
		vectors_nth(v, "key", scope.ngenerations) != NULL ||
		!keys_are_zero(&scope) ||
		tde_scope_encoded_size(scope.ngenerations) < *len ||
		tde_scope_unwrap(&scope, principal, *principal_len) < 0)
		return false;

	for (n = 0; n < scope.ngenerations; n++)
	{
		if (vectors_nth_bytes(v, "generation", n, id, TDE_ID_LEN) != TDE_ID_LEN ||
			vectors_nth_bytes(v, "key", n, key, sizeof(key)) != sizeof(key) ||
			memcmp(g[n].id.b, id, TDE_ID_LEN) != 0 ||
			memcmp(g[n].key, key, sizeof(key)) != 0 ||
			g[n].number != atoi(vectors_nth(v, "number", n)) ||
			g[n].created != strtou64(vectors_nth(v, "generation_created", n),
									 NULL, 10))
			return false;
	}

	/* rotation: the same keys under another principal key, and only there */
	fill_pattern(other, sizeof(other), 1);
	memcpy(wrapped, g[0].wrapped, sizeof(wrapped));
	if (tde_scope_wrap(&scope, other, sizeof(other)) < 0 ||
		memcmp(wrapped, g[0].wrapped, sizeof(wrapped)) == 0 ||
		tde_scope_unwrap(&scope, principal, *principal_len) == 0 ||
		!keys_are_zero(&scope) ||
		tde_scope_unwrap(&scope, other, sizeof(other)) < 0)
		return false;
	vectors_nth_bytes(v, "key", n - 1, key, sizeof(key));
	return memcmp(g[n - 1].key, key, sizeof(key)) == 0;
}

/*
 * A forger makes the checksum right.  If the keys still unwrap, he has only
 * changed what the wrapping leaves out on purpose.
 */
static bool
forged_scope_is_found(uint8 *buf, size_t len, const TdeScope *good,
					  const uint8 *principal, int principal_len)
{
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	const char *reason;

	fix_crc(buf, len);
	if (tde_scope_decode(buf, len, &scope, g, MAX_ENTRIES, &reason) < 0)
		return true;
	if (tde_scope_unwrap(&scope, principal, principal_len) < 0)
		return keys_are_zero(&scope);
	if (scope.kind != good->kind || scope.dbOid != good->dbOid ||
		!TdeIdEquals(&scope.id, &good->id) ||
		scope.ngenerations != good->ngenerations)
		return false;
	for (int i = 0; i < scope.ngenerations; i++)
	{
		if (!TdeIdEquals(&g[i].id, &good->generations[i].id) ||
			g[i].number != good->generations[i].number ||
			g[i].created != good->generations[i].created ||
			memcmp(g[i].key, good->generations[i].key, TDE_WRAP_KEY_LEN) != 0)
			return false;
	}
	return true;
}

/*
 * A file of 15 bytes whose checksum, at 11, begins within the length, at 8:
 * kind and flags are varied until it is right.
 */
static bool
short_scope_is_refused(const uint8 *file)
{
	uint8		buf[15];
	const char *reason = "";

	memcpy(buf, file, 8);
	memset(buf + 8, 0, sizeof(buf) - 8);
	buf[8] = sizeof(buf);
	for (int i = 0; i < 65536; i++)
	{
		buf[6] = i & 0xFF;
		buf[7] = i >> 8;
		fix_crc(buf, sizeof(buf));
		if (buf[11] == 0)
			return tde_scope_count(buf, sizeof(buf), &reason) < 0 &&
				strcmp(reason, "stated length is too small") == 0;
	}
	return false;
}

static void
check_scope_values(Checks *checks, TdeScope *good)
{
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	uint8		buf[MAX_VECTOR];

#define REFUSED(change, name) \
	scope = *good; \
	memcpy(g, good->generations, sizeof(g[0]) * good->ngenerations); \
	scope.generations = g; \
	change; \
	check(checks, tde_scope_encode(&scope, buf) == 0, \
		  "scope: not encoded: %s", name)

	REFUSED(scope.kind = 4, "kind");
	REFUSED(scope.dbOid = InvalidOid, "database scope without database");
	REFUSED(scope.kind = TDE_SCOPE_SERVER, "server scope with database");
	REFUSED(scope.ngenerations = 0, "no generation");
	REFUSED(scope.ngenerations = TDE_SCOPE_MAX_GENERATIONS + 1,
			"too many generations");
	REFUSED(g[1].number = g[0].number, "numbers not in order");
	REFUSED(g[0].number = 0, "number 0");
	REFUSED(scope.principal.provider_id = 0, "provider 0");
	REFUSED(scope.principal.key_name[0] = '\0', "no key name");
	REFUSED(memset(scope.principal.provider_type, 0, 1);
			scope.principal.provider_change = 0;
			memset(&scope.principal.provider_uuid, 0, TDE_ID_LEN);
			memset(scope.principal.provider_options, 'o', 1),
			"no provider type, but options");
	REFUSED(memset(scope.principal.provider_type, 0, 1);
			scope.principal.provider_change = 0;
			memset(scope.principal.provider_options, 0, 1);
			memset(&scope.principal.provider_uuid, 1, 1),
			"no provider type, but a UUID");
	REFUSED(memset(scope.principal.provider_type, 0, 1);
			scope.principal.provider_change = 1;
			memset(scope.principal.provider_options, 0, 1);
			memset(&scope.principal.provider_uuid, 0, TDE_ID_LEN),
			"no provider type, but a list");
#undef REFUSED
	check(checks, tde_scope_wrap(good, buf, 15) < 0 &&
		  tde_scope_unwrap(good, buf, 0) < 0, "scope: short principal key");
}

/*
 * Change the vector of a version that has three generations.
 */
static void
check_changed_scopes(Checks *checks, int version)
{
	Vectors		v;
	uint8		file[MAX_VECTOR];
	uint8		buf[MAX_VECTOR];
	uint8		principal[64];
	int			principal_len;
	size_t		len;
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	const char *reason;
	bool		found = true;
	size_t		first;

	vectors_open(&v, checks, "scope.txt");
	while (vectors_next(&v) && (vectors_nth(&v, "key", 2) == NULL ||
								vectors_uint(&v, "version") != version))
		;
	check_scope_vector(&v, file, &len, principal, &principal_len);
	vectors_close(&v);
	check_decoder(checks, "scope", decode_scope, file, len);

	tde_scope_decode(file, len, &scope, g, MAX_ENTRIES, &reason);
	tde_scope_unwrap(&scope, principal, principal_len);
	for (size_t bit = 0; bit < (len - 4) * 8; bit++)
	{
		memcpy(buf, file, len);
		buf[bit / 8] ^= 1 << bit % 8;
		found = found && forged_scope_is_found(buf, len, &scope, principal,
											   principal_len);
	}
	check(checks, found, "scope: each forged bit is found or harmless");

	memcpy(buf, file, len);
	buf[7] |= 4;
	fix_crc(buf, len);
	check(checks, tde_scope_count(buf, len, &reason) < 0,
		  "scope: unknown flag");
	check(checks, short_scope_is_refused(file),
		  "scope: shorter than its header, with the right checksum");

	/* generations are the last thing before the checksum, 88 bytes each */
	first = len - 4 - 3 * 88;
	memcpy(buf, file, len);
	memcpy(buf + first + 28, file + first + 88 + 28, 60);
	memcpy(buf + first + 88 + 28, file + first + 28, 60);
	fix_crc(buf, len);
	check(checks, tde_scope_decode(buf, len, &scope, g, MAX_ENTRIES,
								   &reason) == 0 &&
		  tde_scope_unwrap(&scope, principal, principal_len) < 0 &&
		  keys_are_zero(&scope),
		  "scope: keys of two generations exchanged");

	tde_scope_decode(file, len, &scope, g, MAX_ENTRIES, &reason);
	principal[0] ^= 1;
	check(checks, tde_scope_unwrap(&scope, principal, principal_len) < 0 &&
		  keys_are_zero(&scope), "scope: wrong principal key");
	principal[0] ^= 1;
	check(checks, tde_scope_decode(file, len, &scope, g, 2, &reason) < 0,
		  "scope: more generations than there is room for");
	tde_scope_decode(file, len, &scope, g, MAX_ENTRIES, &reason);
	check_scope_values(checks, &scope);
}

void
check_scopes(Checks *checks)
{
	Vectors		v;
	uint8		file[MAX_VECTOR];
	uint8		principal[64];
	int			principal_len;
	size_t		len;

	vectors_open(&v, checks, "scope.txt");
	while (vectors_next(&v))
		check(checks, check_scope_vector(&v, file, &len, principal,
										 &principal_len),
			  "scope: vector of version %s, kind %s, key %s",
			  vectors_get(&v, "version"), vectors_get(&v, "kind"),
			  vectors_get(&v, "key_name"));
	vectors_close(&v);

	check_changed_scopes(checks, 1);
	check_changed_scopes(checks, 2);
}
