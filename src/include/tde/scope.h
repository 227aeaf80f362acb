/*-------------------------------------------------------------------------
 *
 * scope.h
 *	  The record that keeps the scope keys of one database or of the server:
 *	  which principal key wraps them, and the wrapped keys.
 *
 * Pure encoding and decoding; specified in doc/key-format.md.  One file a
 * scope:
 *
 *	  pg_tde/<database>/database_key.key	a database
 *	  pg_tde/global/server_key.key			the server (WAL)
 *	  pg_tde/global/default_key.key			the default principal key; its one
 *											scope key wraps nothing and serves
 *											to verify the principal key
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/scope.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SCOPE_H
#define TDE_SCOPE_H

#include "tde/cipher.h"
#include "tde/key_record.h"

typedef enum TdeScopeKind
{
	TDE_SCOPE_DATABASE = 1,
	TDE_SCOPE_SERVER = 2,
	TDE_SCOPE_DEFAULT = 3,
} TdeScopeKind;

/* "database", "server", "default" */
extern const char *TdeScopeKindName(TdeScopeKind kind);

/* Limits of the user interface, in bytes without terminator. */
#define TDE_MAX_PROVIDER_TYPE	31
#define TDE_MAX_PROVIDER_NAME	126
#define TDE_MAX_PROVIDER_OPTIONS 1023
#define TDE_MAX_KEY_NAME		255

/*
 * A principal key is named by its provider and its name there.  provider_id
 * is positive for a provider of the scope's database and negative for a
 * global one.
 *
 * The list of providers may have come to another state than the scope: in a
 * base backup, which copies files one after the other, and after pg_rewind.
 * So the provider has a UUID, which means the same provider everywhere, and
 * its type and options stand here as they were when the scope was written.
 * See tde_provider_candidates().
 */
typedef struct TdePrincipalRef
{
	int32		provider_id;
	TdeId		provider_uuid;	/* zeros: not known, from before version 2 */
	char		provider_type[TDE_MAX_PROVIDER_TYPE + 1];	/* "": not known */
	char		provider_name[TDE_MAX_PROVIDER_NAME + 1];
	char		provider_options[TDE_MAX_PROVIDER_OPTIONS + 1];
	uint64		provider_change;	/* change number of the list that this is
									 * from */
	char		key_name[TDE_MAX_KEY_NAME + 1];
	uint64		created;		/* when the key was set for the scope, in
								 * microseconds since 1970 */
} TdePrincipalRef;

typedef struct TdeScopeGeneration
{
	TdeId		id;
	uint32		number;			/* 1, 2, ...; the highest is current */
	uint64		created;
	uint8		key[TDE_WRAP_KEY_LEN];	/* in clear after unwrapping */
	uint8		iv[TDE_WRAP_IV_LEN];
	uint8		wrapped[TDE_WRAP_KEY_LEN];
	uint8		tag[TDE_WRAP_TAG_LEN];
} TdeScopeGeneration;

#define TDE_SCOPE_MAX_GENERATIONS	4096
#define TDE_SCOPE_GENERATION_LEN	88	/* bytes, encoded */

typedef struct TdeScope
{
	TdeScopeKind kind;
	Oid			dbOid;			/* InvalidOid but for a database */
	TdeId		id;				/* of this scope, kept through rotations */
	uint64		change;			/* counts changes; redo keeps the higher */
	bool		follows_default;	/* principal key is the default key */
	bool		retired;		/* no principal key is set any more; the
								 * generations stay for what was under them */
	TdePrincipalRef principal;
	int			ngenerations;
	TdeScopeGeneration *generations;	/* sorted by number */
} TdeScope;

/* Upper bound of the encoded size with n generations. */
extern size_t tde_scope_encoded_size(int ngenerations);

/*
 * Wrap every generation's key under the key derived from the principal key
 * (tde_hkdf with info "coffer scope key wrap v1" and the scope's id as salt),
 * filling iv, wrapped and tag.
 */
extern int	tde_scope_wrap(TdeScope *scope, const uint8 *principal,
						   int principal_len);

/*
 * Unwrap every generation.  Returns -1 if the principal key is not the one
 * that wrapped them; all keys are then wiped.
 */
extern int	tde_scope_unwrap(TdeScope *scope, const uint8 *principal,
							 int principal_len);

/*
 * Encode; returns the length, at most tde_scope_encoded_size(ngenerations).
 */
extern size_t tde_scope_encode(const TdeScope *scope, uint8 *buf);

/*
 * Decode.  "generations" has room for max_generations and becomes
 * scope->generations.  First call tde_scope_count to learn how many there
 * are.  Both return -1 with *reason on damage, as in key_record.h.
 */
extern int	tde_scope_count(const uint8 *buf, size_t len, const char **reason);
extern int	tde_scope_decode(const uint8 *buf, size_t len, TdeScope *scope,
							 TdeScopeGeneration *generations,
							 int max_generations, const char **reason);

#endif							/* TDE_SCOPE_H */
