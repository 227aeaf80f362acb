/*-------------------------------------------------------------------------
 *
 * provider.h
 *	  The list of key providers of one database, or the global one: the
 *	  content of a file provider_config.
 *
 * Pure encoding and decoding; specified in doc/key-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/provider.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_PROVIDER_H
#define TDE_PROVIDER_H

#include "tde/scope.h"

#define TDE_MAX_PROVIDERS		1024	/* a list */

typedef struct TdeProvider
{
	int32		id;				/* > 0 of a database, < 0 global; never reused
								 * within a list */
	TdeId		uuid;			/* means this one and no other, whatever became
								 * of the list; zeros: not drawn yet, from
								 * before version 2 */
	char		type[TDE_MAX_PROVIDER_TYPE + 1];	/* "file", ... */
	char		name[TDE_MAX_PROVIDER_NAME + 1];
	char		options[TDE_MAX_PROVIDER_OPTIONS + 1];	/* a JSON object */
} TdeProvider;

typedef struct TdeProviderList
{
	Oid			dbOid;			/* InvalidOid: global */
	TdeId		id;				/* another database of this OID has another */
	uint64		change;			/* counts changes; redo keeps the higher */
	int32		last_id;		/* last id handed out, 0 at first */
	int			nproviders;
	TdeProvider *providers;
} TdeProviderList;

extern size_t tde_providers_encoded_size(int nproviders);
extern size_t tde_providers_encode(const TdeProviderList *list, uint8 *buf);
extern int	tde_providers_count(const uint8 *buf, size_t len,
								const char **reason);
extern int	tde_providers_decode(const uint8 *buf, size_t len,
								 TdeProviderList *list, TdeProvider *providers,
								 int max_providers, const char **reason);

/*
 * Draw the UUIDs that are missing.  To be called before a list is encoded,
 * which refuses it otherwise.
 */
extern int	tde_providers_draw_uuids(TdeProviderList *list);

/*
 * Is a principal key in this provider of the list that it belongs to?
 */
extern bool tde_provider_is_named(const TdeProvider *provider,
								  const TdePrincipalRef *ref);

/*
 * Are two providers of the same list, by number and UUID, the same?
 */
extern bool tde_same_provider(int32 id_a, const TdeId *uuid_a,
							  int32 id_b, const TdeId *uuid_b);

/*
 * Put into a reference what a list says of its provider.
 */
extern void tde_provider_embed(TdePrincipalRef *ref,
							   const TdeProviderList *list,
							   const TdeProvider *provider);

/*
 * The provider to ask for a principal key.
 *
 * That is what the list says of it, since there type and options are changed.
 * Where there is no list (NULL), or it does not know the provider, it is what
 * the reference itself says.  Where the list is older than the reference (in a
 * base backup that copied it before) it is both: the caller asks one after the
 * other, until one returns the key.  Returns how many there are.
 */
#define TDE_MAX_CANDIDATES		2

extern int	tde_provider_candidates(const TdePrincipalRef *ref,
									const TdeProviderList *list,
									TdeProvider found[TDE_MAX_CANDIDATES]);

#endif							/* TDE_PROVIDER_H */
