/*-------------------------------------------------------------------------
 *
 * vault_json.c
 *	  What a Vault server is told and answers: JSON.
 *
 * Pure; PostgreSQL's parser does the work.  It recurses, so nesting is
 * bounded here, and it allocates with palloc: where memory is out, that raises
 * an error in the server and ends a program.  Its copies of strings are wiped.
 *
 * The answers are those of the KV secrets engine, version 2, and of the
 * question which engine there is ("/sys/internal/ui/mounts/").  A value is
 * recognised by its path from the outermost object, so that one of the same
 * name elsewhere does not count.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/vault_json.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "common/base64.h"
#include "common/jsonapi.h"
#include "common/string.h"
#ifdef JSONAPI_USE_PQEXPBUFFER
#include "pqexpbuffer.h"
#else
#include "lib/stringinfo.h"
#endif
#include "mb/pg_wchar.h"
#include "tde/cipher.h"
#include "vault_json.h"

/* No path that we look for is longer; what is does not fit and does not match. */
#define MAX_PATH	64

typedef struct ParseState
{
	VaultAnswer *answer;
	int			level;			/* structures that we are in */

	/*
	 * Where we are: the names of the fields and "[]" for elements of arrays,
	 * each preceded by a slash.  path_len is up to which each level reaches.
	 */
	char		path[MAX_PATH];
	int			path_len[VAULT_MAX_NESTING + 1];
	bool		too_long[VAULT_MAX_NESTING + 1];
} ParseState;

/*
 * Name the place we are at within the present structure.
 */
static void
set_place(ParseState *state, const char *name)
{
	int			start = state->path_len[state->level - 1];
	size_t		len = strlen(name);

	state->too_long[state->level] = state->too_long[state->level - 1] ||
		start + 1 + len >= MAX_PATH;
	if (state->too_long[state->level])
		return;
	state->path[start] = '/';
	memcpy(state->path + start + 1, name, len + 1);
	state->path_len[state->level] = start + 1 + len;
}

/*
 * Are we at this place?  A slash inside a name cannot deceive: the level is
 * given, too, and each has one slash at least.
 */
static bool
at(const ParseState *state, int level, const char *path)
{
	return state->level == level && !state->too_long[level] &&
		strcmp(state->path, path) == 0;
}

static JsonParseErrorType
enter(ParseState *state)
{
	return ++state->level > VAULT_MAX_NESTING ?
		JSON_NESTING_TOO_DEEP : JSON_SUCCESS;
}

static JsonParseErrorType
object_start(void *arg)
{
	ParseState *state = arg;

	if (at(state, 1, "/data"))
		state->answer->has_data = true;
	return enter(state);
}

static JsonParseErrorType
array_start(void *arg)
{
	ParseState *state = arg;
	JsonParseErrorType result = enter(state);

	if (result == JSON_SUCCESS)
		set_place(state, "[]");
	return result;
}

static JsonParseErrorType
structure_end(void *arg)
{
	ParseState *state = arg;

	state->level--;
	if (!state->too_long[state->level])
		state->path[state->path_len[state->level]] = '\0';
	return JSON_SUCCESS;
}

static JsonParseErrorType
field_start(void *arg, char *name, bool isnull)
{
	set_place(arg, name);
	return JSON_SUCCESS;
}

/*
 * A key.  Twice the same name is ambiguous, and refused.
 */
static JsonParseErrorType
take_key(VaultAnswer *answer, const char *text)
{
	int			len;

	if (answer->has_key)
		return JSON_SEM_ACTION_FAILED;
	answer->has_key = true;
	len = pg_b64_decode(text, strlen(text), answer->key.key,
						sizeof(answer->key.key));
	answer->key_is_valid = len > 0;
	answer->key.len = Max(len, 0);
	return JSON_SUCCESS;
}

static int
parse_version(const char *token)
{
	char	   *end;
	int			version;

	errno = 0;
	version = strtoint(token, &end, 10);
	return errno == 0 && *end == '\0' ? version : 0;
}

static JsonParseErrorType
scalar(void *arg, char *token, JsonTokenType type)
{
	ParseState *state = arg;
	VaultAnswer *answer = state->answer;
	JsonParseErrorType result = JSON_SUCCESS;

	if (type == JSON_TOKEN_STRING)
	{
		if (at(state, 3, "/data/data/key"))
			result = take_key(answer, token);
		else if (at(state, 3, "/data/metadata/deletion_time"))
			answer->deleted = token[0] != '\0';
		else if (at(state, 2, "/data/type"))
			strlcpy(answer->engine, token, sizeof(answer->engine));
		else if (at(state, 3, "/data/options/version"))
			strlcpy(answer->engine_version, token,
					sizeof(answer->engine_version));
		else if (at(state, 2, "/errors/[]") && answer->error[0] == '\0')
		{
			strlcpy(answer->error, token, sizeof(answer->error));
			tde_keyring_make_printable(answer->error);
		}
		tde_wipe(token, strlen(token));
	}
	else if (type == JSON_TOKEN_TRUE)
	{
		if (at(state, 3, "/data/metadata/destroyed"))
			answer->destroyed = true;
	}
	else if (type == JSON_TOKEN_NUMBER)
	{
		if (at(state, 2, "/data/version"))
			answer->version = parse_version(token);
	}
	return result;
}

/*
 * Make a question mark of each escape that stands for a character beyond
 * ASCII, or for a zero byte.  What such a character would be in bytes depends
 * on the database; none belongs to what we look for; and some cannot be
 * translated, while they may stand in an answer for reasons that are not ours.
 */
static void
neutralize_escapes(char *text, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
	{
		if (text[i] != '\\')
			continue;
		i++;					/* whatever is escaped begins no escape */
		if (text[i] == 'u' && i + 4 < len &&
			strspn(text + i + 1, "0123456789abcdefABCDEF") >= 4 &&
			(text[i + 1] != '0' || text[i + 2] != '0' || text[i + 3] > '7' ||
			 (text[i + 3] == '0' && text[i + 4] == '0')))
			memcpy(text + i + 1, "003f", 4);
	}
}

bool
vault_parse(char *text, size_t len, VaultAnswer *answer)
{
	ParseState	state = {.answer = answer};
	JsonSemAction actions = {0};
	JsonLexContext lex = {0};
	JsonParseErrorType result;

	memset(answer, 0, sizeof(*answer));
	actions.semstate = &state;
	actions.object_start = object_start;
	actions.object_end = structure_end;
	actions.array_start = array_start;
	actions.array_end = structure_end;
	actions.object_field_start = field_start;
	actions.scalar = scalar;

	neutralize_escapes(text, len);
	makeJsonLexContextCstringLen(&lex, text, len, PG_UTF8, true);
	setJsonLexContextOwnsTokens(&lex, true);
	result = pg_parse_json(&lex, &actions);
	tde_wipe(lex.strval->data, lex.strval->maxlen);
	freeJsonLexContext(&lex);

	if (result != JSON_SUCCESS)
		tde_wipe(answer, sizeof(*answer));
	return result == JSON_SUCCESS;
}

bool
vault_format_create(const TdePrincipalKey *key, char buf[VAULT_CREATE_LEN])
{
	static const char before[] = "{\"options\":{\"cas\":0},\"data\":{\"key\":\"";
	static const char after[] = "\"}}";
	char	   *pos = buf + strlen(before);
	int			len;

	strcpy(buf, before);
	len = pg_b64_encode(key->key, key->len, pos,
						VAULT_CREATE_LEN - strlen(before) - sizeof(after));
	if (len < 0)
	{
		tde_wipe(buf, VAULT_CREATE_LEN);
		return false;
	}
	strcpy(pos + len, after);
	return true;
}
