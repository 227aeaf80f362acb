/*-------------------------------------------------------------------------
 *
 * keyring.h
 *	  The interface between Coffer and the systems that keep principal keys.
 *
 * A provider type is a table of functions (TdeKeyringType).  They may do
 * network and file I/O and take long; they are never called from a path that
 * reads or writes pages or WAL, nor with a lock held that such a path takes.
 * They are called in the backend and in frontend programs, so they neither
 * raise nor log: a failure is described in a TdeKeyringError.  No key
 * material ever goes into it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/keyring.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_H
#define TDE_KEYRING_H

#include "tde/provider.h"

/* A principal key as the provider returns it. */
#define TDE_MAX_PRINCIPAL_LEN	64

typedef struct TdePrincipalKey
{
	int			len;			/* bytes: 16, 24 or 32 today */
	uint8		key[TDE_MAX_PRINCIPAL_LEN];
} TdePrincipalKey;

typedef enum TdeKeyringStatus
{
	TDE_KEYRING_OK = 0,
	TDE_KEYRING_NOT_FOUND,		/* provider works, shows us no such key */
	TDE_KEYRING_DESTROYED,		/* provider says that it had the key, which
								 * was destroyed or deleted */
	TDE_KEYRING_EXISTS,			/* create: the name is taken */
	TDE_KEYRING_DENIED,			/* provider refuses us */
	TDE_KEYRING_UNREACHABLE,	/* no answer; may work later */
	TDE_KEYRING_BAD_OPTIONS,	/* options are wrong or incomplete */
	TDE_KEYRING_BAD_DATA,		/* provider's data is damaged or unsafe */
	TDE_KEYRING_CANCELLED,		/* callback asked to stop */
	TDE_KEYRING_FAILED,			/* anything else */
} TdeKeyringStatus;

/*
 * What a provider says about a key that it has: may it be used?  A provider
 * can say so and still return the key.
 */
typedef enum TdePrincipalState
{
	TDE_PRINCIPAL_ACTIVE = 1,
	TDE_PRINCIPAL_PRE_ACTIVE,	/* not to be used yet */
	TDE_PRINCIPAL_DEACTIVATED,	/* revoked, or past its time */
	TDE_PRINCIPAL_COMPROMISED,	/* revoked, because others may know it */
	TDE_PRINCIPAL_DESTROYED,	/* its bytes are gone, or all of it */
	TDE_PRINCIPAL_MISSING,		/* the provider shows us no such key */
} TdePrincipalState;

typedef struct TdeKeyringError
{
	TdeKeyringStatus status;
	char		message[1536];	/* "could not open file ...: ...", what; room
								 * for a path as long as options can hold */
	char		hint[256];		/* what to do, or empty */
	char		detail[1024];	/* "Connection refused", why; or empty */
} TdeKeyringError;

/*
 * Asked now and then during a long wait; true means give up.  NULL never
 * stops.
 */
typedef struct TdeKeyringCall
{
	bool		(*cancelled) (void *arg);
	void	   *arg;
	int			timeout_ms;		/* for the whole call; 0: provider's default */
} TdeKeyringCall;

/*
 * One option that a type takes.  A string option is given as a JSON string, a
 * number option as a JSON number or as a string of digits.  One that is
 * required may not be an empty string.
 */
typedef struct TdeKeyringOption
{
	const char *name;
	bool		number;
	bool		required;
} TdeKeyringOption;

typedef struct TdeKeyringType
{
	const char *name;			/* "file", "kmip", "vault-v2" */

	/*
	 * All options it takes, in the order in which programs take them as
	 * arguments, the required ones first; ends in a NULL name.
	 */
	const TdeKeyringOption *options;

	/*
	 * Options are known to be those above, each once and of its kind, and the
	 * required ones to be there; is there more to say?  No I/O.  May be NULL.
	 */
	TdeKeyringStatus (*check_options) (const TdeProvider *provider,
									   TdeKeyringError *error);

	/*
	 * Is the provider reachable and usable?  Creates no key.  provider->id is 0
	 * while a provider is being added, and only then.
	 */
	TdeKeyringStatus (*validate) (const TdeProvider *provider,
								  const TdeKeyringCall *call,
								  TdeKeyringError *error);

	/* Fetch a key by name (1 to TDE_MAX_KEY_NAME bytes). */
	TdeKeyringStatus (*fetch) (const TdeProvider *provider, const char *name,
							   const TdeKeyringCall *call,
							   TdePrincipalKey *key, TdeKeyringError *error);

	/* Make a new key of keylen bytes under a name that is free. */
	TdeKeyringStatus (*create) (const TdeProvider *provider, const char *name,
								int keylen, const TdeKeyringCall *call,
								TdePrincipalKey *key, TdeKeyringError *error);

	/*
	 * The state of a key that is there, never TDE_PRINCIPAL_MISSING.  NULL for
	 * a type that knows no states: its keys are active as long as they can be
	 * fetched.
	 */
	TdeKeyringStatus (*state) (const TdeProvider *provider, const char *name,
							   const TdeKeyringCall *call,
							   TdePrincipalState *state,
							   TdeKeyringError *error);
} TdeKeyringType;

/* Look a type up by name; NULL if there is none. */
extern const TdeKeyringType *tde_keyring_type(const char *name);

/* The names of all types, separated by commas; for messages. */
extern const char *tde_keyring_type_names(void);

/*
 * Dispatch by provider->type.  Each checks the options first, so that a type's
 * functions need not.  A key is wiped on every failure.
 */
extern TdeKeyringStatus tde_keyring_check_options(const TdeProvider *provider,
												  TdeKeyringError *error);
extern TdeKeyringStatus tde_keyring_validate(const TdeProvider *provider,
											 const TdeKeyringCall *call,
											 TdeKeyringError *error);
extern TdeKeyringStatus tde_keyring_fetch(const TdeProvider *provider,
										  const char *name,
										  const TdeKeyringCall *call,
										  TdePrincipalKey *key,
										  TdeKeyringError *error);
extern TdeKeyringStatus tde_keyring_create(const TdeProvider *provider,
										   const char *name, int keylen,
										   const TdeKeyringCall *call,
										   TdePrincipalKey *key,
										   TdeKeyringError *error);


/*
 * The state of a key.  Destroyed is one of which the provider says so; one
 * that it does not show is missing, which may have other reasons: a lost right,
 * a server that was restored from a backup.  Both with status OK.
 */
extern TdeKeyringStatus tde_keyring_state(const TdeProvider *provider,
										  const char *name,
										  const TdeKeyringCall *call,
										  TdePrincipalState *state,
										  TdeKeyringError *error);

/* "active", "revoked as compromised" ...; translated. */
extern const char *tde_principal_state_name(TdePrincipalState state);

/*
 * The text option "name" of a provider, copied into buf; false if it is not
 * there, is not a string or does not fit.
 */
extern bool tde_keyring_option(const TdeProvider *provider, const char *name,
							   char *buf, size_t size);

/*
 * The number option "name"; false if it is not there or is not an integer
 * from min to max.
 */
extern bool tde_keyring_option_int(const TdeProvider *provider,
								   const char *name, int min, int max,
								   int *value);

/*
 * The directory that relative paths in options start from: the data
 * directory.  Needed in programs only; a server's working directory is that
 * already.  The string must stay valid.
 */
extern void tde_keyring_set_directory(const char *path);
extern const char *tde_keyring_directory(void); /* NULL: working directory */

/* For writers of providers. */
extern TdeKeyringStatus tde_keyring_fail(TdeKeyringError *error,
										 TdeKeyringStatus status,
										 const char *hint,
										 const char *fmt,...) pg_attribute_printf(4, 5);
extern TdeKeyringStatus tde_keyring_detail(TdeKeyringError *error,
										   const char *fmt,...) pg_attribute_printf(2, 3);

extern void tde_keyring_make_printable(char *text);

extern const TdeKeyringType tde_keyring_file;
extern const TdeKeyringType tde_keyring_kmip;
extern const TdeKeyringType tde_keyring_vault;

#endif							/* TDE_KEYRING_H */
