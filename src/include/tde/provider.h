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

#define TDE_MAX_PROVIDER_TYPE	31
#define TDE_MAX_PROVIDERS		1024	/* a list */

typedef struct TdeProvider
{
	int32		id;				/* > 0 of a database, < 0 global; never reused
								 * within a list */
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

#endif							/* TDE_PROVIDER_H */
