/*-------------------------------------------------------------------------
 *
 * vault_options.h
 *	  Options of the provider vault-v2.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/vault_options.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_VAULT_OPTIONS_H
#define TDE_KEYRING_VAULT_OPTIONS_H

#include "tde/keyring.h"

#define VAULT_OPTION_LEN	(TDE_MAX_PROVIDER_OPTIONS + 1)

typedef struct Vault
{
	char		url[VAULT_OPTION_LEN];	/* without a slash at the end */
	char		mount[VAULT_OPTION_LEN];	/* without slashes at its ends */
	char		token_path[VAULT_OPTION_LEN];
	char		ca_path[VAULT_OPTION_LEN];	/* or empty */
	char		namespace[VAULT_OPTION_LEN];	/* or empty */
	char		crl_path[VAULT_OPTION_LEN]; /* or empty */
} Vault;

/* The options of a provider; what is missing is empty. */
extern void vault_get_options(const TdeProvider *provider, Vault *vault);

/* Do they make sense?  The check_options of the provider type. */
extern TdeKeyringStatus vault_check_options(const TdeProvider *provider,
											TdeKeyringError *error);

/* Is there nothing but printable ASCII, and no space? */
extern bool vault_is_printable(const char *text);

/*
 * Is this a path that stays below where it is put, as each of its parts is
 * the name of something?
 */
extern bool vault_is_plain_path(const char *path);

#endif							/* TDE_KEYRING_VAULT_OPTIONS_H */
