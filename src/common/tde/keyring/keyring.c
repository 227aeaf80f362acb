/*-------------------------------------------------------------------------
 *
 * keyring.c
 *	  The provider types that there are, and dispatch to them.
 *
 * What holds for every provider is checked here, so that a provider's own
 * functions need not: options have the right names and kinds, the name of a
 * key and its length are within their limits, a key that is handed out has
 * one of the lengths of AES, and a failure leaves no key behind.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/keyring.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <stdarg.h>

#include "options.h"
#include "tde/cipher.h"
#include "tde/keyring.h"

/* To add a provider type: write its file, and add it here. */
static const TdeKeyringType *const keyring_types[] = {
	&tde_keyring_file,
	&tde_keyring_kmip,
	&tde_keyring_vault,
};

static const char *keyring_directory = NULL;

const TdeKeyringType *
tde_keyring_type(const char *name)
{
	for (int i = 0; i < lengthof(keyring_types); i++)
	{
		if (strcmp(keyring_types[i]->name, name) == 0)
			return keyring_types[i];
	}
	return NULL;
}

const char *
tde_keyring_type_names(void)
{
	static char names[lengthof(keyring_types) * (TDE_MAX_PROVIDER_TYPE + 2)];

	names[0] = '\0';
	for (int i = 0; i < lengthof(keyring_types); i++)
	{
		if (i > 0)
			strlcat(names, ", ", sizeof(names));
		strlcat(names, keyring_types[i]->name, sizeof(names));
	}
	return names;
}

void
tde_keyring_set_directory(const char *path)
{
	keyring_directory = path;
}

const char *
tde_keyring_directory(void)
{
	return keyring_directory;
}

/*
 * Describe a failure and return its status.  hint may be NULL.  errno is that
 * of the caller, so that fmt may contain %m.  What does not fit is cut off.
 */
TdeKeyringStatus
tde_keyring_fail(TdeKeyringError *error, TdeKeyringStatus status,
				 const char *hint, const char *fmt,...)
{
	va_list		args;

	/* pg_vsnprintf saves errno on entry, before it can change */
	va_start(args, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, args);
	va_end(args);
	strlcpy(error->hint, hint ? hint : "", sizeof(error->hint));
	error->detail[0] = '\0';
	error->status = status;
	return status;
}

/*
 * Make text of a server fit to be shown: whatever is not printable ASCII
 * becomes a question mark, white space a single space.  In place.
 */
void
tde_keyring_make_printable(char *text)
{
	char	   *to = text;

	for (const char *from = text; *from != '\0'; from++)
	{
		if (isspace((unsigned char) *from))
		{
			if (to > text && to[-1] != ' ')
				*to++ = ' ';
		}
		else
			*to++ = *from > ' ' && *from < 0x7f ? *from : '?';
	}
	if (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
}

/*
 * Say more about a failure that tde_keyring_fail() has described; returns its
 * status.
 */
TdeKeyringStatus
tde_keyring_detail(TdeKeyringError *error, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(error->detail, sizeof(error->detail), fmt, args);
	va_end(args);
	return error->status;
}

static TdeKeyringStatus
succeed(TdeKeyringError *error)
{
	error->status = TDE_KEYRING_OK;
	error->message[0] = '\0';
	error->hint[0] = '\0';
	error->detail[0] = '\0';
	return TDE_KEYRING_OK;
}

/* What every call begins with: find the type, check the options. */
static TdeKeyringStatus
begin_call(const TdeProvider *provider, const TdeKeyringType **type,
		   TdeKeyringError *error)
{
	TdeKeyringStatus status;

	*type = tde_keyring_type(provider->type);
	if (*type == NULL)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
								_("unrecognized key provider type \"%s\""),
								provider->type);
	status = tde_keyring_check_names(provider, (*type)->options, error);
	if (status == TDE_KEYRING_OK && (*type)->check_options != NULL)
		status = (*type)->check_options(provider, error);
	return status;
}

static TdeKeyringStatus
check_key_name(const char *name, TdeKeyringError *error)
{
	if (name[0] == '\0')
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("name of a principal key is empty"));
	if (strlen(name) > TDE_MAX_KEY_NAME)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("name of a principal key is longer than %d bytes"),
								TDE_MAX_KEY_NAME);
	return TDE_KEYRING_OK;
}

static bool
key_length_is_valid(int len)
{
	return len == 16 || len == 24 || len == 32;
}

/* What every call that yields a key ends with. */
static TdeKeyringStatus
finish_key(const TdeProvider *provider, const char *name,
		   TdeKeyringStatus status, TdePrincipalKey *key,
		   TdeKeyringError *error)
{
	if (status == TDE_KEYRING_OK && !key_length_is_valid(key->len))
		status = tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								  _("key \"%s\" of key provider \"%s\" has an unexpected length of %d bytes"),
								  name, provider->name, key->len);
	if (status == TDE_KEYRING_OK)
		return succeed(error);
	tde_wipe(key, sizeof(*key));
	return status;
}

TdeKeyringStatus
tde_keyring_check_options(const TdeProvider *provider, TdeKeyringError *error)
{
	const TdeKeyringType *type;
	TdeKeyringStatus status;

	status = begin_call(provider, &type, error);
	return status == TDE_KEYRING_OK ? succeed(error) : status;
}

TdeKeyringStatus
tde_keyring_validate(const TdeProvider *provider, const TdeKeyringCall *call,
					 TdeKeyringError *error)
{
	const TdeKeyringType *type;
	TdeKeyringStatus status;

	status = begin_call(provider, &type, error);
	if (status == TDE_KEYRING_OK)
		status = type->validate(provider, call, error);
	return status == TDE_KEYRING_OK ? succeed(error) : status;
}

TdeKeyringStatus
tde_keyring_fetch(const TdeProvider *provider, const char *name,
				  const TdeKeyringCall *call, TdePrincipalKey *key,
				  TdeKeyringError *error)
{
	const TdeKeyringType *type;
	TdeKeyringStatus status;

	memset(key, 0, sizeof(*key));
	status = begin_call(provider, &type, error);
	if (status == TDE_KEYRING_OK)
		status = check_key_name(name, error);
	if (status == TDE_KEYRING_OK)
		status = type->fetch(provider, name, call, key, error);
	return finish_key(provider, name, status, key, error);
}

TdeKeyringStatus
tde_keyring_create(const TdeProvider *provider, const char *name, int keylen,
				   const TdeKeyringCall *call, TdePrincipalKey *key,
				   TdeKeyringError *error)
{
	const TdeKeyringType *type;
	TdeKeyringStatus status;

	memset(key, 0, sizeof(*key));
	status = begin_call(provider, &type, error);
	if (status == TDE_KEYRING_OK)
		status = check_key_name(name, error);
	if (status == TDE_KEYRING_OK && !key_length_is_valid(keylen))
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("invalid length of a principal key: %d bytes"),
								  keylen);
	if (status == TDE_KEYRING_OK)
		status = type->create(provider, name, keylen, call, key, error);
	return finish_key(provider, name, status, key, error);
}

TdeKeyringStatus
tde_keyring_state(const TdeProvider *provider, const char *name,
				  const TdeKeyringCall *call, TdePrincipalState *state,
				  TdeKeyringError *error)
{
	const TdeKeyringType *type;
	TdeKeyringStatus status;

	status = begin_call(provider, &type, error);
	if (status == TDE_KEYRING_OK)
		status = check_key_name(name, error);
	if (status == TDE_KEYRING_OK && type->state == NULL)
	{
		TdePrincipalKey key;

		*state = TDE_PRINCIPAL_ACTIVE;
		status = type->fetch(provider, name, call, &key, error);
		tde_wipe(&key, sizeof(key));
	}
	else if (status == TDE_KEYRING_OK)
		status = type->state(provider, name, call, state, error);
	if (status == TDE_KEYRING_NOT_FOUND || status == TDE_KEYRING_DESTROYED)
	{
		*state = status == TDE_KEYRING_DESTROYED ? TDE_PRINCIPAL_DESTROYED :
			TDE_PRINCIPAL_MISSING;
		status = TDE_KEYRING_OK;
	}
	return status == TDE_KEYRING_OK ? succeed(error) : status;
}

const char *
tde_principal_state_name(TdePrincipalState state)
{
	switch (state)
	{
		case TDE_PRINCIPAL_ACTIVE:
			return _("active");
		case TDE_PRINCIPAL_PRE_ACTIVE:
			return _("not active yet");
		case TDE_PRINCIPAL_DEACTIVATED:
			return _("revoked");
		case TDE_PRINCIPAL_COMPROMISED:
			return _("revoked as compromised");
		case TDE_PRINCIPAL_DESTROYED:
			return _("destroyed");
		case TDE_PRINCIPAL_MISSING:
			return _("missing");
	}
	return "?";
}
