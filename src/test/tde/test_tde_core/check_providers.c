/*-------------------------------------------------------------------------
 *
 * check_providers.c
 *	  Provider files: our vectors, damage, forgery.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_providers.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/provider.h"

#include "checks.h"

#define MAX_ENTRIES		8		/* generations or providers in a vector */

static bool
decode_providers(const uint8 *buf, size_t len, const char **reason)
{
	TdeProviderList list;
	TdeProvider providers[MAX_ENTRIES];
	uint8		again[MAX_VECTOR];
	int			n = tde_providers_count(buf, len, reason);

	if (tde_providers_decode(buf, len, &list, providers,
							 MAX_ENTRIES, reason) < 0)
		return false;

	/* version 1 is not written any more: it has no UUIDs */
	if (buf[4] == 1 && n > 0)
		return n == list.nproviders && tde_providers_encode(&list, again) == 0 &&
			tde_providers_draw_uuids(&list) == 0 &&
			tde_providers_encode(&list, again) == len + 16 * n;
	if (buf[4] == 1)
		return tde_providers_encode(&list, again) == len;
	return n == list.nproviders &&
		tde_providers_encode(&list, again) == len &&
		memcmp(buf, again, len) == 0;
}

static bool
check_providers_vector(Vectors *v, uint8 *file, size_t *len)
{
	TdeProviderList list;
	TdeProvider p[MAX_ENTRIES];
	uint8		id[TDE_ID_LEN];
	const char *reason;
	int			version;

	*len = vectors_bytes(v, "file", file, MAX_VECTOR);
	if (!decode_providers(file, *len, &reason) ||
		tde_providers_decode(file, *len, &list, p, MAX_ENTRIES, &reason) < 0 ||
		list.dbOid != vectors_uint(v, "db") ||
		vectors_bytes(v, "id", id, sizeof(id)) != sizeof(id) ||
		memcmp(list.id.b, id, sizeof(id)) != 0 ||
		list.change != vectors_uint(v, "change") ||
		list.last_id != strtoll(vectors_get(v, "last_id"), NULL, 10) ||
		vectors_nth(v, "provider", list.nproviders) != NULL ||
		tde_providers_encoded_size(list.nproviders) < *len)
		return false;
	version = vectors_uint(v, "version");
	for (int i = 0; i < list.nproviders; i++)
	{
		if (file[4] != version ||
			TdeIdIsZero(&p[i].uuid) != (version == 1) ||
			vectors_nth_bytes(v, "uuid", i, id, sizeof(id)) != sizeof(id) ||
			memcmp(p[i].uuid.b, id, sizeof(id)) != 0 ||
			p[i].id != strtoll(vectors_nth(v, "provider", i), NULL, 10) ||
			strcmp(p[i].type, vectors_nth(v, "type", i)) != 0 ||
			strcmp(p[i].name, vectors_nth(v, "name", i)) != 0 ||
			strcmp(p[i].options, vectors_nth(v, "options", i)) != 0)
			return false;
	}
	return true;
}

static bool
equal(const TdeProvider *a, const TdeProvider *b)
{
	return a->id == b->id && TdeIdEquals(&a->uuid, &b->uuid) &&
		strcmp(a->type, b->type) == 0 && strcmp(a->name, b->name) == 0 &&
		strcmp(a->options, b->options) == 0;
}

/*
 * Which provider has a principal key?
 */
static void
check_candidates(Checks *checks)
{
	TdeProvider p[] = {
		{.id = -1, .uuid = {{1}}, .type = "file", .name = "a", .options = "1"},
		{.id = -2, .uuid = {{2}}, .type = "file", .name = "b", .options = "2"},
		{.id = -3, .type = "file", .name = "c", .options = "3"},
	};
	TdeProviderList list = {.change = 5, .nproviders = 3, .providers = p};
	TdeProvider found[TDE_MAX_CANDIDATES];
	TdePrincipalRef ref = {.created = 7};
	TdeProvider other = p[1];

	tde_provider_embed(&ref, &list, &p[1]);
	check(checks, ref.created == 7 &&
		  tde_provider_candidates(&ref, &list, found) == 1 &&
		  equal(&found[0], &p[1]),
		  "providers: the list and the reference say the same");
	check(checks, tde_provider_candidates(&ref, NULL, found) == 1 &&
		  equal(&found[0], &p[1]),
		  "providers: what the reference says, without a list");

	strcpy(p[1].options, "changed");
	check(checks, tde_provider_candidates(&ref, &list, found) == 1 &&
		  equal(&found[0], &p[1]),
		  "providers: what the list says is what counts");
	list.change = 4;
	check(checks, tde_provider_candidates(&ref, &list, found) == 2 &&
		  equal(&found[0], &p[1]) &&
		  equal(&found[1], &other),
		  "providers: an older list, and what the reference says");

	p[1].uuid.b[15] = 1;
	check(checks, tde_provider_candidates(&ref, &list, found) == 1 &&
		  equal(&found[0], &other),
		  "providers: the number was given to another one");

	memset(&ref, 0, sizeof(ref));
	ref.provider_id = -2;
	check(checks, tde_provider_candidates(&ref, &list, found) == 1 &&
		  equal(&found[0], &p[1]) &&
		  tde_provider_candidates(&ref, NULL, found) == 0,
		  "providers: by number, where there is no more");
	tde_provider_embed(&ref, &list, &p[2]);
	ref.provider_uuid.b[0] = 9;
	check(checks, tde_provider_candidates(&ref, &list, found) == 1 &&
		  equal(&found[0], &p[2]),
		  "providers: by number, where the list has no more");
}

void
check_providers(Checks *checks)
{
	Vectors		v;
	uint8		file[MAX_VECTOR];
	uint8		buf[MAX_VECTOR];
	size_t		len = 0;
	TdeProviderList list;
	TdeProvider p[MAX_ENTRIES];
	const char *reason;
	bool		canonical = true;

	vectors_open(&v, checks, "providers.txt");
	while (vectors_next(&v))
	{
		check(checks, check_providers_vector(&v, file, &len),
			  "providers: vector of version %s, database %s, last id %s",
			  vectors_get(&v, "version"), vectors_get(&v, "db"), vectors_get(&v, "last_id"));
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

	/* the first entry: type, name, options of 31, 126 and 1023 bytes at 72 */
	memcpy(buf, file, len);
	buf[53]++;					/* name */
	buf[54]--;					/* options */
	fix_crc(buf, len);
	check(checks, tde_providers_decode(buf, len, &list, p, MAX_ENTRIES,
									   &reason) < 0,
		  "providers: name too long by one");
	memcpy(buf, file, len);
	buf[72 + 31 + 125] = '\0';
	fix_crc(buf, len);
	check(checks, tde_providers_decode(buf, len, &list, p, MAX_ENTRIES,
									   &reason) < 0,
		  "providers: terminator within a name");
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
	REFUSED(memset(&p[1].uuid, 0, sizeof(p[1].uuid)), "no UUID");
#undef REFUSED
	check_candidates(checks);
}
