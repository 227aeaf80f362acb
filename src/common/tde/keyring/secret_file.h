/*-------------------------------------------------------------------------
 *
 * secret_file.h
 *	  Reading a small file that holds a secret, such as an access token.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/secret_file.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_SECRET_FILE_H
#define TDE_KEYRING_SECRET_FILE_H

#include "tde/keyring.h"

/* A file's content and a terminating zero byte, in tde_secure_alloc memory. */
typedef struct TdeSecret
{
	char	   *data;
	size_t		len;			/* without the zero byte */
	size_t		size;			/* of the memory */
} TdeSecret;

/*
 * Read a file of at most max bytes.  "what" names it in messages ("token
 * file").  The secret is to be freed in any case; after a failure it is
 * empty.
 *
 * The file must be a regular file, and closed to others as PostgreSQL demands
 * it of a private key: u=rw (0600) or less if it belongs to the process's
 * user, u=rw,g=r (0640) or less if it belongs to root.
 */
extern TdeKeyringStatus tde_secret_read(const char *path, const char *what,
										size_t max, TdeSecret *secret,
										TdeKeyringError *error);
extern void tde_secret_free(TdeSecret *secret);

#endif							/* TDE_KEYRING_SECRET_FILE_H */
