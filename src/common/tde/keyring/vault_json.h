/*-------------------------------------------------------------------------
 *
 * vault_json.h
 *	  What a Vault server is told and answers.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/vault_json.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_VAULT_JSON_H
#define TDE_KEYRING_VAULT_JSON_H

#include "tde/keyring.h"

/* Room for the content of a request that makes a key. */
#define VAULT_CREATE_LEN	256

/* How deep an answer may be nested. */
#define VAULT_MAX_NESTING	32

/* What we look for in an answer; the rest is passed over. */
typedef struct VaultAnswer
{
	bool		has_data;		/* is there an object "data"? */

	/* a secret: data.data, data.metadata */
	bool		has_key;		/* data.data.key is a string */
	bool		key_is_valid;	/* it is base64 and not too long */
	TdePrincipalKey key;
	bool		deleted;		/* data.metadata.deletion_time is not empty */
	bool		destroyed;		/* data.metadata.destroyed is true */

	/* the version of a secret that was written: data.version, or 0 */
	int			version;

	/* a secrets engine: data.type, data.options.version; else empty */
	char		engine[16];
	char		engine_version[16];

	/* errors[0], in printable ASCII, cut off where it is long */
	char		error[256];
} VaultAnswer;

/*
 * Parse an answer of len bytes, and a zero byte; the text may be changed.
 * False if it is not JSON, or not fit for us; nothing is found then.  The
 * caller wipes the answer in any case.
 */
extern bool vault_parse(char *text, size_t len, VaultAnswer *answer);

/*
 * Write the content of a request that makes a key: a secret {"key": base64},
 * and only where none is.  Returns false, with buf wiped, if that fails.
 */
extern bool vault_format_create(const TdePrincipalKey *key,
								char buf[VAULT_CREATE_LEN]);

#endif							/* TDE_KEYRING_VAULT_JSON_H */
