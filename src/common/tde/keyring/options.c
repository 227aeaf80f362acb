/*-------------------------------------------------------------------------
 *
 * options.c
 *	  Options of a key provider: a JSON object of strings and numbers.
 *
 * Options are kept as the user wrote them and parsed, with PostgreSQL's
 * parser, each time one is asked for; they are short and rarely used.  The
 * same options are read with and without a database at hand (a backend, the
 * startup process, a program), so nothing in them may depend on a database's
 * encoding: bytes are taken as they are, and Unicode escapes beyond ASCII,
 * whose bytes would depend on it, are refused.
 *
 * The parser allocates with palloc, which raises an error in the server and
 * exits in a program when memory is out.  That is harmless as long as options
 * are read before there is a key, a descriptor or a lock to lose.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/options.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "common/jsonapi.h"
#include "common/string.h"
#include "mb/pg_wchar.h"
#include "options.h"

#define MAX_OPTIONS		32		/* of one provider; no type takes more */

typedef struct Option
{
	char	   *name;
	char	   *value;			/* strings without quotes and escapes; NULL if
								 * it is null, which is as good as not given */
	bool		number;			/* JSON number; else a string */
} Option;

typedef struct OptionList
{
	const TdeProvider *provider;
	TdeKeyringError *error;		/* filled by the action that failed */
	int			noptions;
	Option		options[MAX_OPTIONS];
} OptionList;

/* The option of that name, which may be null; or NULL. */
static const Option *
find_name(const OptionList *list, const char *name)
{
	for (int i = 0; i < list->noptions; i++)
	{
		if (strcmp(list->options[i].name, name) == 0)
			return &list->options[i];
	}
	return NULL;
}

/* The option of that name that has a value, or NULL. */
static const Option *
find_option(const OptionList *list, const char *name)
{
	const Option *option = find_name(list, name);

	return option && option->value ? option : NULL;
}

/*
 * Actions of the parser.  The outermost object is the only structure that may
 * be there, so "is there an option yet" tells where in the text we are.
 */
static JsonParseErrorType
not_an_object(OptionList *list)
{
	tde_keyring_fail(list->error, TDE_KEYRING_BAD_OPTIONS, NULL,
					 _("options of key provider \"%s\" are not a JSON object"),
					 list->provider->name);
	return JSON_SEM_ACTION_FAILED;
}

/* The value of the option that was read last has a kind that none may have. */
static JsonParseErrorType
bad_value(OptionList *list)
{
	tde_keyring_fail(list->error, TDE_KEYRING_BAD_OPTIONS, NULL,
					 _("option \"%s\" of key provider \"%s\" must be a string or a number"),
					 list->options[list->noptions - 1].name,
					 list->provider->name);
	return JSON_SEM_ACTION_FAILED;
}

static JsonParseErrorType
object_start(void *state)
{
	OptionList *list = state;

	return list->noptions == 0 ? JSON_SUCCESS : bad_value(list);
}

static JsonParseErrorType
array_start(void *state)
{
	OptionList *list = state;

	return list->noptions == 0 ? not_an_object(list) : bad_value(list);
}

static JsonParseErrorType
field_start(void *state, char *name, bool isnull)
{
	OptionList *list = state;

	if (find_name(list, name))
	{
		tde_keyring_fail(list->error, TDE_KEYRING_BAD_OPTIONS, NULL,
						 _("option \"%s\" of key provider \"%s\" is given twice"),
						 name, list->provider->name);
		return JSON_SEM_ACTION_FAILED;
	}
	if (list->noptions == MAX_OPTIONS)
	{
		tde_keyring_fail(list->error, TDE_KEYRING_BAD_OPTIONS, NULL,
						 _("key provider \"%s\" has more than %d options"),
						 list->provider->name, MAX_OPTIONS);
		return JSON_SEM_ACTION_FAILED;
	}
	list->options[list->noptions++].name = pstrdup(name);
	return JSON_SUCCESS;
}

static JsonParseErrorType
scalar(void *state, char *token, JsonTokenType type)
{
	OptionList *list = state;
	Option	   *option;

	if (list->noptions == 0)
		return not_an_object(list);
	if (type != JSON_TOKEN_STRING && type != JSON_TOKEN_NUMBER &&
		type != JSON_TOKEN_NULL)
		return bad_value(list);
	option = &list->options[list->noptions - 1];
	if (type == JSON_TOKEN_NULL)
		return JSON_SUCCESS;
	option->value = pstrdup(token);
	option->number = (type == JSON_TOKEN_NUMBER);
	return JSON_SUCCESS;
}

/* Is there an escape \uXXXX for a character beyond ASCII? */
static bool
has_unicode_escape(const char *json)
{
	for (const char *p = json; *p != '\0'; p++)
	{
		if (*p != '\\')
			continue;
		p++;
		if (*p == '\0')
			break;
		if (*p == 'u' && (p[1] != '0' || p[2] != '0' || p[3] > '7'))
			return true;
	}
	return false;
}

static void
free_options(OptionList *list)
{
	for (int i = 0; i < list->noptions; i++)
	{
		pfree(list->options[i].name);
		if (list->options[i].value)
			pfree(list->options[i].value);
	}
}

/* Parse into list, which the caller frees on success only. */
static TdeKeyringStatus
parse_options(const TdeProvider *provider, OptionList *list,
			  TdeKeyringError *error)
{
	JsonSemAction actions = {0};
	JsonLexContext lex = {0};
	JsonParseErrorType result;

	memset(list, 0, sizeof(*list));
	list->provider = provider;
	list->error = error;

	if (has_unicode_escape(provider->options))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS,
								_("Write the character itself."),
								_("options of key provider \"%s\" have a Unicode escape above 007F"),
								provider->name);

	actions.semstate = list;
	actions.object_start = object_start;
	actions.array_start = array_start;
	actions.object_field_start = field_start;
	actions.scalar = scalar;

	makeJsonLexContextCstringLen(&lex, provider->options,
								 strlen(provider->options), PG_UTF8, true);
	setJsonLexContextOwnsTokens(&lex, true);
	result = pg_parse_json(&lex, &actions);
	if (result != JSON_SUCCESS)
	{
		if (result != JSON_SEM_ACTION_FAILED)
			tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
							 _("could not parse options of key provider \"%s\": %s"),
							 provider->name, json_errdetail(result, &lex));
		free_options(list);
	}
	freeJsonLexContext(&lex);
	return result == JSON_SUCCESS ? TDE_KEYRING_OK : TDE_KEYRING_BAD_OPTIONS;
}

/* Does an integer stand there, and nothing else? */
static bool
parse_int(const char *value, int *result)
{
	char	   *end;

	if (value[0] != '-' && !isdigit((unsigned char) value[0]))
		return false;
	errno = 0;
	*result = strtoint(value, &end, 10);
	return errno == 0 && *end == '\0';
}

/* One option against its type's description of it. */
static TdeKeyringStatus
check_kind(const TdeProvider *provider, const Option *option,
		   const TdeKeyringOption *known, TdeKeyringError *error)
{
	int			number;

	if (option->value == NULL)
		return TDE_KEYRING_OK;
	if (known->number && !parse_int(option->value, &number))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
								_("option \"%s\" of key provider \"%s\" must be an integer"),
								option->name, provider->name);
	if (!known->number && option->number)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
								_("option \"%s\" of key provider \"%s\" must be a string"),
								option->name, provider->name);
	if (known->required && option->value[0] == '\0')
		return tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
								_("option \"%s\" of key provider \"%s\" must not be empty"),
								option->name, provider->name);
	return TDE_KEYRING_OK;
}

TdeKeyringStatus
tde_keyring_check_names(const TdeProvider *provider,
						const TdeKeyringOption *known, TdeKeyringError *error)
{
	OptionList	list;
	TdeKeyringStatus status;

	status = parse_options(provider, &list, error);
	if (status != TDE_KEYRING_OK)
		return status;

	for (int i = 0; i < list.noptions && status == TDE_KEYRING_OK; i++)
	{
		const Option *option = &list.options[i];
		const TdeKeyringOption *k = known;

		while (k->name && strcmp(k->name, option->name) != 0)
			k++;
		if (k->name)
			status = check_kind(provider, option, k, error);
		else
			status = tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
									  _("unrecognized option \"%s\" of key provider \"%s\""),
									  option->name, provider->name);
	}
	for (const TdeKeyringOption *k = known;
		 k->name && status == TDE_KEYRING_OK; k++)
	{
		if (k->required && !find_option(&list, k->name))
			status = tde_keyring_fail(error, TDE_KEYRING_BAD_OPTIONS, NULL,
									  _("option \"%s\" of key provider \"%s\" is missing"),
									  k->name, provider->name);
	}

	free_options(&list);
	return status;
}

/* A copy of the value of an option; false if it is not there or too long. */
static bool
copy_option(const TdeProvider *provider, const char *name,
			char *buf, size_t size, bool *number)
{
	OptionList	list;
	TdeKeyringError error;
	const Option *option;
	bool		found;

	if (parse_options(provider, &list, &error) != TDE_KEYRING_OK)
		return false;
	option = find_option(&list, name);
	found = option && strlcpy(buf, option->value, size) < size;
	if (found)
		*number = option->number;
	free_options(&list);
	return found;
}

bool
tde_keyring_option(const TdeProvider *provider, const char *name,
				   char *buf, size_t size)
{
	bool		number;

	return copy_option(provider, name, buf, size, &number) && !number;
}

bool
tde_keyring_option_int(const TdeProvider *provider, const char *name,
					   int min, int max, int *value)
{
	char		buf[32];
	bool		number;
	int			result;

	if (!copy_option(provider, name, buf, sizeof(buf), &number) ||
		!parse_int(buf, &result) || result < min || result > max)
		return false;
	*value = result;
	return true;
}
