/*-------------------------------------------------------------------------
 *
 * file_format.h
 *	  The content of a keyring file, specified in doc/keyring-file-format.md.
 *
 * Pure encoding and decoding: no I/O, no allocation, no logging.  Only the
 * file provider and its tests use it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/file_format.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_FILE_FORMAT_H
#define TDE_KEYRING_FILE_FORMAT_H

#include "tde/keyring.h"

/* "2026-01-31T23:59:59Z", with terminator */
#define KEYRING_TIME_LEN		21

typedef struct KeyringEntry
{
	char		name[TDE_MAX_KEY_NAME + 1];
	char		created[KEYRING_TIME_LEN];
	TdePrincipalKey key;		/* len 16, 24 or 32 */
} KeyringEntry;

/* What a file may grow to; about 100,000 keys with names of usual length. */
#define KEYRING_MAX_FILE_LEN	(16 * 1024 * 1024)

/* Upper bound of what keyring_file_append adds to a file. */
#define KEYRING_MAX_GROWTH		1200

typedef enum KeyringFind
{
	KEYRING_DAMAGED = -1,
	KEYRING_ABSENT = 0,
	KEYRING_FOUND = 1,
} KeyringFind;

/*
 * Verify the whole file and look for a key.  name may be NULL, to verify
 * only.  entry is wiped unless the key was found.  On KEYRING_DAMAGED *reason
 * is a constant, translated phrase, and *line the line that it is about: 1 if
 * this is no keyring file, or none of this version, 0 if it is about the
 * whole.
 */
extern KeyringFind keyring_file_find(const char *file, size_t len,
									 const char *name, KeyringEntry *entry,
									 const char **reason, int *line);

/*
 * Write to out, which has room for len + KEYRING_MAX_GROWTH bytes, a file
 * with the keys of "file", which keyring_file_find found to be in order, or
 * of none if len is 0, and the new one, unless that is NULL.  Returns its
 * length, or 0 if OpenSSL fails.
 */
extern size_t keyring_file_append(const char *file, size_t len,
								  const KeyringEntry *entry, char *out);

#endif							/* TDE_KEYRING_FILE_FORMAT_H */
