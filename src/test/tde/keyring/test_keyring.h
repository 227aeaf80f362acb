/*-------------------------------------------------------------------------
 *
 * test_keyring.h
 *	  Commands of the keyring's test program.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/test_keyring.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TEST_KEYRING_H
#define TEST_KEYRING_H

#include "tde/keyring.h"

extern const char *status_name(TdeKeyringStatus status);

/*
 * Each expects a keyring file with the key "name" at the provider's path (but
 * torture_kill and torture_fail, with an empty name, none), prints a line of
 * what it counted, and returns 0 if all was well.
 */
extern int	torture_damage(const TdeProvider *provider, const char *name);
extern int	torture_kill(const TdeProvider *provider, const char *name);
extern int	torture_fail(const TdeProvider *provider, const char *name);
extern int	torture_full(const TdeProvider *provider, const char *name);
extern int	torture_residue(const TdeProvider *provider, const char *name,
							const char *token_file);

/* The interface for writers of providers: typed options. */
extern int	torture_options(void);

#endif							/* TEST_KEYRING_H */
