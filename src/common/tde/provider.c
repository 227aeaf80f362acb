/*-------------------------------------------------------------------------
 *
 * provider.c
 *	  The list of key providers, specified in doc/key-format.md, and which of
 *	  them has a principal key.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/provider.c
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
#include "tde/provider.h"

#define MAGIC			"CFPV"
#define VERSION			2

#define HEADER_LEN		48
#define ENTRY_LEN		24		/* without its strings */
#define ENTRY_LEN_V1	8		/* without a UUID */

size_t
tde_providers_encoded_size(int nproviders)
{
	return HEADER_LEN + (size_t) nproviders *
		(ENTRY_LEN + TDE_MAX_PROVIDER_TYPE + TDE_MAX_PROVIDER_NAME +
		 TDE_MAX_PROVIDER_OPTIONS) + TDE_CRC_LEN;
}

/*
 * What is wrong with the values of a list; NULL if nothing is.  Ids count
 * away from zero, upwards in a database's list, downwards in the global one.
 */
static const char *
check_values(const TdeProviderList *list, int version)
{
	int64		sign = OidIsValid(list->dbOid) ? 1 : -1;
	int64		previous = 0;

	if (list->nproviders < 0 || list->nproviders > TDE_MAX_PROVIDERS)
		return gettext_noop("number of providers is out of range");
	for (int i = 0; i < list->nproviders; i++)
	{
		const TdeProvider *p = &list->providers[i];
		int64		id = sign * p->id;

		if (id <= previous)
			return gettext_noop("provider numbers are not in order");
		if (p->type[0] == '\0' || p->name[0] == '\0')
			return gettext_noop("name or type of a provider is empty");
		if (version > 1 && TdeIdIsZero(&p->uuid))
			return gettext_noop("UUID of a provider is missing");
		previous = id;
	}
	if (sign * list->last_id < previous)
		return gettext_noop("provider numbers are not in order");
	return NULL;
}

size_t
tde_providers_encode(const TdeProviderList *list, uint8 *buf)
{
	TdeWriter	w = {buf};
	size_t		len = HEADER_LEN + TDE_CRC_LEN;
	const char *wrong = check_values(list, VERSION);

	if (wrong != NULL)
	{
		tde_fail(wrong);
		return 0;
	}
	for (int i = 0; i < list->nproviders; i++)
	{
		const TdeProvider *p = &list->providers[i];

		len += ENTRY_LEN + strlen(p->type) + strlen(p->name) +
			strlen(p->options);
	}

	tde_put_bytes(&w, MAGIC, TDE_MAGIC_LEN);
	tde_put_uint(&w, VERSION, 2);
	tde_put_uint(&w, 0, 2);		/* flags */
	tde_put_uint(&w, len, 4);
	tde_put_uint(&w, list->dbOid, 4);
	tde_put_uint(&w, list->change, 8);
	tde_put_uint(&w, (uint32) list->last_id, 4);
	tde_put_uint(&w, list->nproviders, 4);
	tde_put_bytes(&w, list->id.b, TDE_ID_LEN);
	Assert(w.p == buf + HEADER_LEN);

	for (int i = 0; i < list->nproviders; i++)
	{
		const TdeProvider *p = &list->providers[i];

		tde_put_uint(&w, (uint32) p->id, 4);
		tde_put_uint(&w, strlen(p->type), 1);
		tde_put_uint(&w, strlen(p->name), 1);
		tde_put_uint(&w, strlen(p->options), 2);
		tde_put_bytes(&w, p->uuid.b, TDE_ID_LEN);
		tde_put_bytes(&w, p->type, strlen(p->type));
		tde_put_bytes(&w, p->name, strlen(p->name));
		tde_put_bytes(&w, p->options, strlen(p->options));
	}
	tde_put_uint(&w, tde_format_crc(buf, len), TDE_CRC_LEN);
	Assert(w.p == buf + len);
	return len;
}

/*
 * Decode all but the providers; their number goes to list->nproviders, and
 * the reader stands at the first.  Returns the version, or -1.
 */
static int
decode_header(TdeReader *r, const uint8 *buf, size_t len,
			  TdeProviderList *list, const char **reason)
{
	uint32		flags;
	uint32		nproviders;
	int			version;

	memset(list, 0, sizeof(TdeProviderList));
	version = tde_format_begin(r, buf, len, MAGIC, VERSION, reason);
	if (version == 0)
		return -1;
	flags = tde_get_uint(r, 2);
	if (!tde_format_check(r, buf, len, tde_get_uint(r, 4), reason))
		return -1;
	if (flags != 0)
	{
		*reason = gettext_noop("file uses an unknown feature");
		return -1;
	}
	list->dbOid = tde_get_uint(r, 4);
	list->change = tde_get_uint(r, 8);
	list->last_id = (int32) tde_get_uint(r, 4);
	nproviders = tde_get_uint(r, 4);
	tde_get_bytes(r, list->id.b, TDE_ID_LEN);
	if (r->failed || nproviders > TDE_MAX_PROVIDERS ||
		nproviders * (version == 1 ? ENTRY_LEN_V1 : ENTRY_LEN) >
		(size_t) (r->end - r->p))
	{
		*reason = gettext_noop("number of providers does not fit the length");
		return -1;
	}
	list->nproviders = (int) nproviders;
	return version;
}

int
tde_providers_count(const uint8 *buf, size_t len, const char **reason)
{
	TdeReader	r;
	TdeProviderList list;

	if (decode_header(&r, buf, len, &list, reason) < 0)
		return -1;
	return list.nproviders;
}

int
tde_providers_decode(const uint8 *buf, size_t len, TdeProviderList *list,
					 TdeProvider *providers, int max_providers,
					 const char **reason)
{
	TdeReader	r;
	int			version = decode_header(&r, buf, len, list, reason);

	if (version < 0)
		return -1;
	if (list->nproviders > max_providers)
	{
		*reason = gettext_noop("number of providers is out of range");
		return -1;
	}
	list->providers = providers;
	for (int i = 0; i < list->nproviders; i++)
	{
		TdeProvider *p = &providers[i];
		size_t		type_len;
		size_t		name_len;
		size_t		options_len;

		memset(p, 0, sizeof(*p));
		p->id = (int32) tde_get_uint(&r, 4);
		type_len = tde_get_uint(&r, 1);
		name_len = tde_get_uint(&r, 1);
		options_len = tde_get_uint(&r, 2);
		if (version > 1)
			tde_get_bytes(&r, p->uuid.b, TDE_ID_LEN);
		tde_get_string(&r, p->type, type_len, sizeof(p->type));
		tde_get_string(&r, p->name, name_len, sizeof(p->name));
		tde_get_string(&r, p->options, options_len, sizeof(p->options));
	}
	if (r.failed || r.p != r.end)
	{
		*reason = gettext_noop("entry of a provider is damaged");
		return -1;
	}
	*reason = check_values(list, version);
	return *reason == NULL ? 0 : -1;
}

int
tde_providers_draw_uuids(TdeProviderList *list)
{
	for (int i = 0; i < list->nproviders; i++)
	{
		TdeId	   *uuid = &list->providers[i].uuid;

		if (TdeIdIsZero(uuid) && tde_random(uuid->b, TDE_ID_LEN) != 0)
			return -1;
	}
	return 0;
}

/* ---- whose key is it? ---- */

/*
 * By the UUID.  Where one of two has none yet, being of version 1, the number
 * within the list must do.
 */
bool
tde_same_provider(int32 id_a, const TdeId *uuid_a,
				  int32 id_b, const TdeId *uuid_b)
{
	if (TdeIdIsZero(uuid_a) || TdeIdIsZero(uuid_b))
		return id_a == id_b;
	return TdeIdEquals(uuid_a, uuid_b);
}

bool
tde_provider_is_named(const TdeProvider *provider, const TdePrincipalRef *ref)
{
	return tde_same_provider(provider->id, &provider->uuid,
							 ref->provider_id, &ref->provider_uuid);
}

void
tde_provider_embed(TdePrincipalRef *ref, const TdeProviderList *list,
				   const TdeProvider *provider)
{
	ref->provider_change = list->change;
	ref->provider_id = provider->id;
	ref->provider_uuid = provider->uuid;
	strlcpy(ref->provider_type, provider->type, sizeof(ref->provider_type));
	strlcpy(ref->provider_name, provider->name, sizeof(ref->provider_name));
	strlcpy(ref->provider_options, provider->options,
			sizeof(ref->provider_options));
}

int
tde_provider_candidates(const TdePrincipalRef *ref,
						const TdeProviderList *list,
						TdeProvider found[TDE_MAX_CANDIDATES])
{
	TdeProvider *embedded;
	int			n = 0;

	for (int i = 0; n == 0 && list != NULL && i < list->nproviders; i++)
		if (tde_provider_is_named(&list->providers[i], ref))
			found[n++] = list->providers[i];

	if (ref->provider_type[0] == '\0' ||
		(n > 0 && list->change >= ref->provider_change))
		return n;

	embedded = &found[n++];
	memset(embedded, 0, sizeof(*embedded));
	embedded->id = ref->provider_id;
	embedded->uuid = ref->provider_uuid;
	strlcpy(embedded->type, ref->provider_type, sizeof(embedded->type));
	strlcpy(embedded->name, ref->provider_name, sizeof(embedded->name));
	strlcpy(embedded->options, ref->provider_options,
			sizeof(embedded->options));
	return n;
}
