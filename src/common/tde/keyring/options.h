/*-------------------------------------------------------------------------
 *
 * options.h
 *	  Checking a provider's options against those that its type takes.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/options.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_OPTIONS_H
#define TDE_KEYRING_OPTIONS_H

#include "tde/keyring.h"

/*
 * Are provider->options a JSON object whose members all stand in the list
 * "known" (which ends in a NULL name), each at most once and of its kind, and
 * are the required ones there?
 */
extern TdeKeyringStatus tde_keyring_check_names(const TdeProvider *provider,
												const TdeKeyringOption *known,
												TdeKeyringError *error);

#endif							/* TDE_KEYRING_OPTIONS_H */
