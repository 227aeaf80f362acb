/*-------------------------------------------------------------------------
 *
 * check_formats.c
 *	  Key records, scope files and provider files: our vectors, and what is
 *	  found out about damaged, shortened and forged ones.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_formats.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/key_record.h"
#include "tde/provider.h"
#include "tde/scope.h"

#include "checks.h"

#define MAX_FILE		8192
#define MAX_ENTRIES		8

/* A decoder of any of the formats, reduced to "is this acceptable?" */
typedef bool (*Decoder) (const uint8 *buf, size_t len, const char **reason);

/*
 * What every decoder must do with every file: refuse each flipped bit (the
 * checksum sees it) and each other length, and say why.
 */
static void
check_decoder(Checks *checks, const char *what, Decoder decode,
			  const uint8 *file, size_t len)
{
	uint8		buf[MAX_FILE + 16];
	const char *reason;
	bool		bits = true;
	bool		lengths = true;

	for (size_t bit = 0; bit < len * 8; bit++)
	{
		memcpy(buf, file, len);
		buf[bit / 8] ^= 1 << bit % 8;
		reason = NULL;
		bits = bits && !decode(buf, len, &reason) && reason != NULL;
	}
	check(checks, bits, "%s: each flipped bit is refused", what);

	memset(buf, 0, sizeof(buf));
	memcpy(buf, file, len);
	for (size_t n = 0; n < len + 16; n++)
	{
		uint8	   *exact = palloc(n + 1);	/* so that a sanitizer sees */

		memcpy(exact, buf, n);
		reason = NULL;
		lengths = lengths && (n == len ? decode(exact, n, &reason) :
							  (!decode(exact, n, &reason) && reason != NULL));
		pfree(exact);
	}
	check(checks, lengths, "%s: each other length is refused", what);

	decode(buf, 0, &reason);
	check(checks, strcmp(reason, "file is truncated") == 0,
		  "%s: reason of an empty file", what);
	decode(buf, len - 1, &reason);
	check(checks, strcmp(reason, "file is truncated") == 0,
		  "%s: reason of a truncated file", what);
	decode(buf, len + 1, &reason);
	check(checks, strcmp(reason, "file is longer than it says") == 0,
		  "%s: reason of a file with more behind it", what);
	buf[0] ^= 1;
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "magic number is wrong") == 0,
		  "%s: reason of a wrong magic number", what);
	buf[0] ^= 1;
	buf[4]++;
	fix_crc(buf, len);
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "format version is not supported") == 0,
		  "%s: reason of another version", what);
	buf[4]--;
	fix_crc(buf, len);
	buf[len - 5] ^= 1;
	decode(buf, len, &reason);
	check(checks, strcmp(reason, "checksum does not match") == 0,
		  "%s: reason of damage", what);
}

/* ---- key records ---- */

static bool
decode_key_record(const uint8 *buf, size_t len, const char **reason)
{
	TdeKey		key;

	return tde_key_record_decode(buf, len, &key, reason) == 0;
}

static bool
same_key(const TdeKey *a, const TdeKey *b, bool with_key)
{
	return RelFileLocatorEquals(a->locator, b->locator) &&
		TdeIdEquals(&a->id, &b->id) &&
		TdeIdEquals(&a->generation, &b->generation) &&
		a->cipher == b->cipher && a->state == b->state &&
		a->created == b->created &&
		(!with_key || memcmp(a->key, b->key, TDE_MAX_KEY_LEN) == 0);
}

/* Only IV, wrapped key, tag (116 to 207) and checksum may differ. */
static bool
same_but_wrapping(const uint8 *a, const uint8 *b)
{
	return memcmp(a, b, 116) == 0 && memcmp(a + 116, b + 116, 12) != 0 &&
		memcmp(a + 208, b + 208, TDE_KEY_RECORD_LEN - 208 - 4) == 0;
}

static bool
check_key_vector(Vectors *v, TdeKey *key, uint8 *scope_key, uint8 *record)
{
	TdeKey		back;
	uint8		again[TDE_KEY_RECORD_LEN];
	const char *reason;

	memset(key, 0, sizeof(*key));
	key->locator.spcOid = vectors_uint(v, "spc");
	key->locator.dbOid = vectors_uint(v, "db");
	key->locator.relNumber = vectors_uint(v, "rel");
	key->cipher = vectors_cipher(v);
	key->state = TDE_KEY_ACTIVE;
	key->created = vectors_uint(v, "created");
	if (vectors_bytes(v, "id", key->id.b, TDE_ID_LEN) != TDE_ID_LEN ||
		vectors_bytes(v, "generation", key->generation.b,
					  TDE_ID_LEN) != TDE_ID_LEN ||
		vectors_bytes(v, "key", key->key,
					  TDE_MAX_KEY_LEN) != tde_cipher_key_len(key->cipher) ||
		vectors_bytes(v, "scope_key", scope_key,
					  TDE_WRAP_KEY_LEN) != TDE_WRAP_KEY_LEN ||
		vectors_bytes(v, "record", record,
					  TDE_KEY_RECORD_LEN) != TDE_KEY_RECORD_LEN)
		return false;

	return tde_key_record_decode(record, TDE_KEY_RECORD_LEN,
								 &back, &reason) == 0 &&
		same_key(&back, key, false) &&
		tde_key_record_unwrap(record, TDE_KEY_RECORD_LEN, scope_key,
							  &back, &reason) == 0 &&
		same_key(&back, key, true) &&
		tde_key_record_encode(key, scope_key, again) == 0 &&
		same_but_wrapping(record, again) &&
		tde_key_record_unwrap(again, TDE_KEY_RECORD_LEN, scope_key,
							  &back, &reason) == 0 &&
		same_key(&back, key, true);
}

/* Does the record unwrap, its checksum having been made right? */
static bool
forged_unwraps(uint8 *record, const uint8 *scope_key)
{
	TdeKey		key;
	uint8		zeros[TDE_MAX_KEY_LEN] = {0};
	const char *reason = NULL;

	fix_crc(record, TDE_KEY_RECORD_LEN);
	memset(&key, 0x5a, sizeof(key));
	if (tde_key_record_unwrap(record, TDE_KEY_RECORD_LEN, scope_key,
							  &key, &reason) == 0)
		return true;

	/* if not, no key and a reason */
	return reason == NULL || memcmp(key.key, zeros, sizeof(zeros)) != 0;
}

static void
check_key_values(Checks *checks, const TdeKey *good, const uint8 *scope_key)
{
	uint8		buf[TDE_KEY_RECORD_LEN];
	uint8		zeros[TDE_KEY_RECORD_LEN] = {0};
	TdeKey		key;
	int			half = tde_cipher_key_len(good->cipher) / 2;

#define REFUSED(change, name) \
	key = *good; \
	change; \
	check(checks, tde_key_record_encode(&key, scope_key, buf) < 0 && \
		  memcmp(buf, zeros, sizeof(buf)) == 0, \
		  "key record: not encoded: %s", name)

	REFUSED(key.cipher = TDE_CIPHER_LAST + 1, "cipher");
	REFUSED(key.state = 0, "state");
	REFUSED(key.locator.relNumber = InvalidRelFileNumber, "relation");
	REFUSED(key.locator.spcOid = InvalidOid, "tablespace");
	REFUSED(memset(&key.id, 0, sizeof(TdeId)), "id");
	REFUSED(memset(&key.generation, 0, sizeof(TdeId)), "generation");
	REFUSED(memcpy(key.key, key.key + half, half), "equal key halves");
#undef REFUSED
}

void
check_key_records(Checks *checks)
{
	Vectors		v;
	TdeKey		key;
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	uint8		record[TDE_KEY_RECORD_LEN] = {0};
	uint8		previous[TDE_KEY_RECORD_LEN] = {0};
	uint8		buf[TDE_KEY_RECORD_LEN];
	bool		found = true;

	vectors_open(&v, checks, "key_record.txt");
	while (vectors_next(&v))
	{
		memcpy(previous, record, sizeof(record));
		check(checks, check_key_vector(&v, &key, scope_key, record),
			  "key record: vector %s", vectors_get(&v, "cipher"));
	}
	vectors_close(&v);

	check_decoder(checks, "key record", decode_key_record,
				  record, sizeof(record));

	/* a forger can make the checksum right */
	for (int bit = 0; bit < (TDE_KEY_RECORD_LEN - 4) * 8; bit++)
	{
		memcpy(buf, record, sizeof(buf));
		buf[bit / 8] ^= 1 << bit % 8;
		found = found && !forged_unwraps(buf, scope_key);
	}
	check(checks, found, "key record: each forged bit is found");

	memcpy(buf, record, sizeof(buf));
	memcpy(buf + 16, previous + 16, 12);
	check(checks, memcmp(buf, record, sizeof(buf)) != 0 &&
		  !forged_unwraps(buf, scope_key),
		  "key record: another relation's locator");
	memcpy(buf, record, sizeof(buf));
	memcpy(buf + 116, previous + 116, 92);
	check(checks, !forged_unwraps(buf, scope_key),
		  "key record: another relation's wrapped key");
	memcpy(buf, record, sizeof(buf));
	check(checks, forged_unwraps(buf, scope_key),
		  "key record: but itself it unwraps");
	scope_key[31] ^= 0x80;
	check(checks, !forged_unwraps(buf, scope_key),
		  "key record: wrong scope key");
	scope_key[31] ^= 0x80;

	check_key_values(checks, &key, scope_key);
}

/* ---- scope files ---- */

static bool
decode_scope(const uint8 *buf, size_t len, const char **reason)
{
	TdeScope	scope;
	TdeScopeGeneration generations[MAX_ENTRIES];
	uint8		again[MAX_FILE];
	int			n = tde_scope_count(buf, len, reason);

	if (tde_scope_decode(buf, len, &scope, generations,
						 MAX_ENTRIES, reason) < 0)
		return false;

	/* there is one way to write a scope */
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
	uint8		key[TDE_WRAP_KEY_LEN];
	uint8		other[TDE_WRAP_KEY_LEN];
	uint8		wrapped[TDE_WRAP_KEY_LEN];
	const char *reason = NULL;
	int			n;

	*len = vectors_bytes(v, "file", file, MAX_FILE);
	*principal_len = vectors_bytes(v, "principal", principal, 64);
	vectors_bytes(v, "id", id, TDE_ID_LEN);

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

static void
check_scope_values(Checks *checks, TdeScope *good)
{
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	uint8		buf[MAX_FILE];

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
#undef REFUSED
	check(checks, tde_scope_wrap(good, buf, 15) < 0 &&
		  tde_scope_unwrap(good, buf, 0) < 0, "scope: short principal key");
}

void
check_scopes(Checks *checks)
{
	Vectors		v;
	uint8		file[MAX_FILE];
	uint8		buf[MAX_FILE];
	uint8		principal[64];
	int			principal_len;
	size_t		len;
	TdeScope	scope;
	TdeScopeGeneration g[MAX_ENTRIES];
	const char *reason;
	bool		found = true;
	size_t		first;

	vectors_open(&v, checks, "scope.txt");
	while (vectors_next(&v))
		check(checks, check_scope_vector(&v, buf, &len, principal, &principal_len),
			  "scope: vector of kind %s, key %s", vectors_get(&v, "kind"),
			  vectors_get(&v, "key_name"));

	vectors_close(&v);

	/* on with the one that has three generations */
	vectors_open(&v, checks, "scope.txt");
	while (vectors_next(&v) && vectors_nth(&v, "key", 2) == NULL)
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

/* ---- provider files ---- */

static bool
decode_providers(const uint8 *buf, size_t len, const char **reason)
{
	TdeProviderList list;
	TdeProvider providers[MAX_ENTRIES];
	uint8		again[MAX_FILE];
	int			n = tde_providers_count(buf, len, reason);

	if (tde_providers_decode(buf, len, &list, providers,
							 MAX_ENTRIES, reason) < 0)
		return false;
	return n == list.nproviders &&
		tde_providers_encode(&list, again) == len &&
		memcmp(buf, again, len) == 0;
}

static bool
check_providers_vector(Vectors *v, uint8 *file, size_t *len)
{
	TdeProviderList list;
	TdeProvider p[MAX_ENTRIES];
	const char *reason;

	*len = vectors_bytes(v, "file", file, MAX_FILE);
	if (!decode_providers(file, *len, &reason) ||
		tde_providers_decode(file, *len, &list, p, MAX_ENTRIES, &reason) < 0 ||
		list.dbOid != vectors_uint(v, "db") ||
		list.change != vectors_uint(v, "change") ||
		list.last_id != strtoll(vectors_get(v, "last_id"), NULL, 10) ||
		vectors_nth(v, "provider", list.nproviders) != NULL ||
		tde_providers_encoded_size(list.nproviders) < *len)
		return false;
	for (int i = 0; i < list.nproviders; i++)
	{
		if (p[i].id != strtoll(vectors_nth(v, "provider", i), NULL, 10) ||
			strcmp(p[i].type, vectors_nth(v, "type", i)) != 0 ||
			strcmp(p[i].name, vectors_nth(v, "name", i)) != 0 ||
			strcmp(p[i].options, vectors_nth(v, "options", i)) != 0)
			return false;
	}
	return true;
}

void
check_providers(Checks *checks)
{
	Vectors		v;
	uint8		file[MAX_FILE];
	uint8		buf[MAX_FILE];
	size_t		len = 0;
	TdeProviderList list;
	TdeProvider p[MAX_ENTRIES];
	const char *reason;
	bool		canonical = true;

	vectors_open(&v, checks, "providers.txt");
	while (vectors_next(&v))
	{
		check(checks, check_providers_vector(&v, file, &len),
			  "providers: vector of database %s, last id %s",
			  vectors_get(&v, "db"), vectors_get(&v, "last_id"));
		if (strcmp(vectors_get(&v, "db"), "5") == 0)
			check_decoder(checks, "providers", decode_providers, file, len);
	}
	vectors_close(&v);

	/* with the checksum made right: refused, or read as what it says */
	for (size_t bit = 0; bit < (len - 4) * 8; bit++)
	{
		memcpy(buf, file, len);
		buf[bit / 8] ^= 1 << bit % 8;
		fix_crc(buf, len);
		if (tde_providers_decode(buf, len, &list, p, MAX_ENTRIES, &reason) == 0)
			canonical = canonical && decode_providers(buf, len, &reason);
	}
	check(checks, canonical, "providers: each forged bit is refused or read");
	check(checks, tde_providers_decode(file, len, &list, p, 1, &reason) < 0,
		  "providers: more than there is room for");

#define REFUSED(change, name) \
	tde_providers_decode(file, len, &list, p, MAX_ENTRIES, &reason); \
	change; \
	check(checks, tde_providers_encode(&list, buf) == 0, \
		  "providers: not encoded: %s", name)

	REFUSED(list.nproviders = TDE_MAX_PROVIDERS + 1, "too many");
	REFUSED(p[0].id = 3, "an id of the other sign");
	REFUSED(p[1].id = p[0].id, "the same id twice");
	REFUSED(list.last_id = -4, "an id beyond the last one");
	REFUSED(p[0].name[0] = '\0', "no name");
	REFUSED(p[1].type[0] = '\0', "no type");
#undef REFUSED
}
