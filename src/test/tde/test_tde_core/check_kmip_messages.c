/*-------------------------------------------------------------------------
 *
 * check_kmip_messages.c
 *	  KMIP messages: our vectors, and answers that must be refused.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_kmip_messages.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/cipher.h"
#include "../../../common/tde/keyring/kmip/messages.h"

#include "checks.h"
#include "ttlv_text.h"

#define KEY_16 "000102030405060708090a0b0c0d0e0f"

/* ---- vectors ---- */

static bool
answer_is_right(Vectors *v, const TdeKmipAnswer *answer)
{
	char		best[32] = "";
	uint8		key[64];
	size_t		keylen = vectors_bytes(v, "got_key", key, sizeof(key));

	if (answer->best.major > 0)
		snprintf(best, sizeof(best), "%d.%d", answer->best.major,
				 answer->best.minor);
	for (int i = 0; i < TDE_KMIP_MAX_LOCATED; i++)
	{
		const char *id = vectors_nth(v, "got_located", i);

		if (strcmp(answer->located[i], id ? id : "") != 0)
			return false;
	}
	return strcmp(best, vectors_get(v, "got_best")) == 0 &&
		answer->operations == vectors_uint(v, "got_operations") &&
		strcmp(answer->id, vectors_get(v, "got_id")) == 0 &&
		answer->nlocated == vectors_uint(v, "got_nlocated") &&
		answer->key.len == keylen &&
		memcmp(answer->key.key, key, keylen) == 0 &&
		answer->state == vectors_uint(v, "got_state");
}

static void
check_vectors(Checks *checks)
{
	Vectors		v;
	int			n = 0;

	vectors_open(&v, checks, "kmip.txt");
	while (vectors_next(&v))
	{
		uint8		message[TDE_KMIP_MAX_REQUEST];
		uint8		expected[TDE_KMIP_MAX_REQUEST];
		size_t		len;
		size_t		expected_len;
		TdePrincipalKey key;
		TdeKmipRequest request = {0};
		TdeKmipAnswer answer;
		TdeKeyringError error;
		bool		small = true;
		bool		cut = true;
		const char *title = vectors_get(&v, "title");

		request.operation = vectors_uint(&v, "operation");
		request.version.major = (int) vectors_uint(&v, "major");
		request.version.minor = (int) vectors_uint(&v, "minor");
		request.batch_id = 7;
		request.id = vectors_get(&v, "asked_id");
		request.name = vectors_get(&v, "name");
		request.keylen = 32;
		request.key = &key;
		request.why = vectors_uint(&v, "why");
		request.when = (int64) vectors_uint(&v, "when");
		request.max_version = tde_kmip_versions[0];
		key.len = (int) vectors_bytes(&v, "key", key.key, sizeof(key.key));

		len = tde_kmip_encode(&request, message, sizeof(message));
		expected_len = vectors_bytes(&v, "request", expected,
									 sizeof(expected));
		check(checks, len > 0 && len == expected_len &&
			  memcmp(message, expected, len) == 0, "kmip: %d.%d: request %s",
			  request.version.major, request.version.minor, title);
		for (size_t size = 0; size < len; size++)
			small = small && tde_kmip_encode(&request, message, size) == 0;

		len = vectors_bytes(&v, "response", message, sizeof(message));
		check(checks, tde_kmip_decode(&request, message, len, &answer,
									  &error) == TDE_KEYRING_OK &&
			  answer_is_right(&v, &answer), "kmip: %d.%d: answer to %s",
			  request.version.major, request.version.minor, title);
		for (size_t part = 0; part < len; part++)
		{
			uint8	   *exact = palloc(part + 1);

			memcpy(exact, message, part);
			cut = cut && tde_kmip_decode(&request, exact, part, &answer,
										 &error) == TDE_KEYRING_BAD_DATA;
			pfree(exact);
		}
		check(checks, small && cut, "kmip: %d.%d: %s in each shorter buffer",
			  request.version.major, request.version.minor, title);
		n++;
	}
	check(checks, n > 50, "kmip: all vectors were seen");
	vectors_close(&v);
}

/* ---- answers, each made from a good one ---- */

#define ANSWER(operation, payload) \
	"7B{7A{69{6A:i1 6B:i4} 92:d1767225600 D:i1} " \
	"F{5C:e" operation " 93:x00000007 7F:e0 7C{" payload "}}}"

static const struct
{
	TdeKmipOperation operation;
	const char *text;
}			good[] = {
	{KMIP_GET, ANSWER("10", "57:e2 94:t'id-1' 8F{40{42:e1 45{43:x" KEY_16 " 8{A:t'Name'}} 28:e3 2A:i128}}")},
	{KMIP_GET_ATTRIBUTES, ANSWER("11", "94:t'id-1' 8{A:t'Object Type' B:e2} 8{A:t'State' 9:i0 B:e2}")},
	{KMIP_LOCATE, ANSWER("8", "94:t'id-1'")},
	{KMIP_REGISTER, ANSWER("3", "94:t'id-1'")},
	{KMIP_ACTIVATE, ANSWER("18", "94:t'id-1'")},
	{KMIP_QUERY, ANSWER("24", "5C:e8 5C:e10")},
	{KMIP_DISCOVER_VERSIONS, ANSWER("30", "69{6A:i2 6B:i1} 69{6A:i1 6B:i4}")},
};

static const char *
good_answer(TdeKmipOperation operation)
{
	for (int i = 0; i < lengthof(good); i++)
	{
		if (good[i].operation == operation)
			return good[i].text;
	}
	return NULL;
}

/*
 * "from" is replaced by "to" in the good answer to an operation.  What the
 * message then contains, or NULL if it is still good.
 */
typedef struct Change
{
	TdeKmipOperation operation;
	const char *from;
	const char *to;
	TdeKeyringStatus status;
	const char *message;
}			Change;

#define BAD		TDE_KEYRING_BAD_DATA
#define FAILURE	"7F:e1 7E:e"

static const Change changes[] = {
	/* the message */
	{KMIP_GET, "7B{", "7B{", TDE_KEYRING_OK, NULL},
	{KMIP_GET, "7B{", "78{", BAD, "it is not a response message"},
	{KMIP_GET, "7B{7A{", "7B{77{", BAD, "it has no Response Header"},
	{KMIP_GET, "7B{", "7B{7A{} ", BAD, "it has more than one Response Header"},
	{KMIP_GET, "69{6A:i1 6B:i4} ", "", BAD, "it has no Protocol Version"},
	{KMIP_GET, "69{6A:i1 6B:i4}", "69:i1", BAD, "Protocol Version has a wrong type"},
	{KMIP_GET, "6B:i4", "", BAD, "it has no Protocol Version Minor"},
	{KMIP_GET, "6B:i4", "6B:e4", BAD, "Protocol Version Minor has a wrong type"},
	{KMIP_GET, "6A:i1 ", "6A:i1 6A:i1 ", BAD, "it has more than one Protocol Version Major"},
	{KMIP_GET, "6B:i4", "6B:i3", BAD, "it is in another version of the protocol"},
	{KMIP_GET, "6A:i1", "6A:i2", BAD, "it is in another version of the protocol"},
	{KMIP_GET, " D:i1", "", BAD, "it has no Batch Count"},
	{KMIP_GET, "D:i1", "D:i0", BAD, "its batch count is not 1"},
	{KMIP_GET, "D:i1", "D:i2", BAD, "its batch count is not 1"},
	{KMIP_GET, "D:i1", "D:i-1", BAD, "its batch count is not 1"},
	{KMIP_GET, "F{", "F{} F{", BAD, "it has more than one Batch Item"},
	{KMIP_GET, "F{", "E{", BAD, "it has no Batch Item"},
	{KMIP_GET, "92:d1767225600 ", "", TDE_KEYRING_OK, NULL},
	{KMIP_GET, "92:d1767225600 ", "92:d1767225600 540001:t'x' 999{} ", TDE_KEYRING_OK, NULL},

	/* whose answer it is */
	{KMIP_GET, "5C:e10", "5C:e11", BAD, "it is the answer to another operation"},
	{KMIP_GET, "5C:e10 ", "", BAD, "it has no Operation"},
	{KMIP_GET, "5C:e10 ", "5C:e10 5C:e10 ", BAD, "it has more than one Operation"},
	{KMIP_GET, "93:x00000007 ", "", BAD, "it has no Unique Batch Item ID"},
	{KMIP_GET, "93:x00000007", "93:x00000008", BAD, "it is the answer to another request"},
	{KMIP_GET, "93:x00000007", "93:x0000000700", BAD, "it is the answer to another request"},
	{KMIP_GET, "93:x00000007", "93:x07", BAD, "it is the answer to another request"},
	{KMIP_GET, "93:x00000007", "93:x", BAD, "it is the answer to another request"},
	{KMIP_GET, "93:x00000007", "93:t'7'", BAD, "Unique Batch Item ID has a wrong type"},

	/* the result */
	{KMIP_GET, "7F:e0 ", "", BAD, "it has no Result Status"},
	{KMIP_GET, "7F:e0", "7F:e2", BAD, "the operation is pending"},
	{KMIP_GET, "7F:e0", "7F:e3", BAD, "the operation was undone"},
	{KMIP_GET, "7F:e0", "7F:e4", BAD, "its result status is unknown"},
	{KMIP_GET, "7C{", "7D{", BAD, "it has no Response Payload"},
	{KMIP_GET, "7C{", "7C{} 7C{", BAD, "it has more than one Response Payload"},
	{KMIP_GET, "7F:e0", "7F:e1", BAD, "it has no Result Reason"},
	{KMIP_GET, "7F:e0", FAILURE "1", TDE_KEYRING_NOT_FOUND, "KMIP server refused operation Get: item not found"},
	{KMIP_GET, "7F:e0", FAILURE "55", TDE_KEYRING_NOT_FOUND, "object not found"},
	{KMIP_GET, "7F:e0", FAILURE "54", TDE_KEYRING_DESTROYED, "object was destroyed"},
	{KMIP_GET, "7F:e0", FAILURE "12", TDE_KEYRING_DENIED, "permission denied"},
	{KMIP_GET, "7F:e0", FAILURE "57", TDE_KEYRING_DENIED, "not authorized"},
	{KMIP_GET, "7F:e0", FAILURE "67", TDE_KEYRING_DENIED, "state of the key does not allow it"},
	{KMIP_GET, "7F:e0", FAILURE "22", TDE_KEYRING_DENIED, "sensitive"},
	{KMIP_GET, "7F:e0", FAILURE "256", TDE_KEYRING_FAILED, "general failure"},
	{KMIP_GET, "7F:e0", FAILURE "39", TDE_KEYRING_FAILED, "unknown reason 0x00000027"},
	{KMIP_GET, "7F:e0", FAILURE "4294967295", TDE_KEYRING_FAILED, "unknown reason 0xFFFFFFFF"},
	{KMIP_REGISTER, "7F:e0", FAILURE "53", TDE_KEYRING_EXISTS, "name is not unique"},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:t'not \"you\"'", TDE_KEYRING_DENIED, "permission denied: \"not ?you?\""},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:t'a\tb'", TDE_KEYRING_DENIED, "\"a?b\""},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:t'~200'", TDE_KEYRING_DENIED, "aaaaaaa\""},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:t'~201'", TDE_KEYRING_DENIED, "aaaaaaa...\""},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:t''", TDE_KEYRING_DENIED, "permission denied"},
	{KMIP_GET, "7F:e0", FAILURE "12 7D:x00", BAD, "Result Message has a wrong type"},
	{KMIP_GET, "7F:e0", FAILURE "12 7E:e12", BAD, "more than one Result Reason"},
	{KMIP_GET, "5C:e10 93:x00000007 7F:e0", FAILURE "3", TDE_KEYRING_DENIED, "authentication not successful"},
	{KMIP_GET, "5C:e10 93:x00000007 7F:e0", "5C:e11 " FAILURE "3", BAD, "it is the answer to another operation"},
	{KMIP_GET, "5C:e10 93:x00000007 7F:e0", "93:x00000008 " FAILURE "3", BAD, "it is the answer to another request"},

	/* Get */
	{KMIP_GET, "94:t'id-1'", "94:t'id-2'", BAD, "it is about another object"},
	{KMIP_GET, "94:t'id-1'", "94:t'id-11'", BAD, "it is about another object"},
	{KMIP_GET, "94:t'id-1'", "94:t''", BAD, "it is about another object"},
	{KMIP_GET, "94:t'id-1' ", "", BAD, "it has no Unique Identifier"},
	{KMIP_GET, "94:t'id-1' ", "94:t'id-1' 94:t'id-1' ", BAD, "it has more than one Unique Identifier"},
	{KMIP_GET, "57:e2", "57:e3", BAD, "the object is not a symmetric key"},
	{KMIP_GET, "57:e2", "", BAD, "it has no Object Type"},
	{KMIP_GET, "57:e2", "57:e2 57:e2", BAD, "it has more than one Object Type"},
	{KMIP_GET, "8F{", "85{", BAD, "it has no Symmetric Key"},
	{KMIP_GET, "8F{", "8F{} 8F{", BAD, "it has more than one Symmetric Key"},
	{KMIP_GET, "40{", "41{", BAD, "it has no Key Block"},
	{KMIP_GET, "40{", "40{} 40{", BAD, "it has more than one Key Block"},
	{KMIP_GET, "42:e1", "42:e7", BAD, "the key is not in raw format"},
	{KMIP_GET, "42:e1", "", BAD, "it has no Key Format Type"},
	{KMIP_GET, "42:e1", "42:e1 41:e2", BAD, "the key is compressed"},
	{KMIP_GET, "2A:i128", "2A:i128 46{9E:e1}", BAD, "the key is wrapped"},
	{KMIP_GET, "2A:i128", "2A:i128 46:x00", BAD, "the key is wrapped"},
	{KMIP_GET, "45{43:x" KEY_16 " 8{A:t'Name'}}", "45:x" KEY_16, BAD, "Key Value has a wrong type"},
	{KMIP_GET, "45{43", "45{} 45{43", BAD, "it has more than one Key Value"},
	{KMIP_GET, "43:x" KEY_16, "43{3F:x" KEY_16 "}", BAD, "Key Material has a wrong type"},
	{KMIP_GET, "43:x" KEY_16, "", BAD, "it has no Key Material"},
	{KMIP_GET, "43:x" KEY_16, "43:x" KEY_16 " 43:x" KEY_16, BAD, "it has more than one Key Material"},
	{KMIP_GET, "43:x" KEY_16, "43:x", BAD, "the key has a length that AES does not have"},
	{KMIP_GET, "x" KEY_16, "x000102030405060708090a0b0c0d0e", BAD, "the key has a length that AES does not have"},
	{KMIP_GET, "x" KEY_16, "x" KEY_16 "10", BAD, "the key has a length that AES does not have"},
	{KMIP_GET, "x" KEY_16, "x" KEY_16 KEY_16 "20", BAD, "the key has a length that AES does not have"},
	{KMIP_GET, "x" KEY_16, "x" KEY_16 KEY_16, BAD, "the key does not have the length that is stated"},
	{KMIP_GET, "2A:i128", "2A:i256", BAD, "the key does not have the length that is stated"},
	{KMIP_GET, "2A:i128", "2A:i-128", BAD, "the key does not have the length that is stated"},
	{KMIP_GET, " 2A:i128", "", BAD, "it has no Cryptographic Length"},
	{KMIP_GET, "28:e3", "28:e2", BAD, "the key is not an AES key"},
	{KMIP_GET, "28:e3 ", "", BAD, "it has no Cryptographic Algorithm"},
	{KMIP_GET, "28:e3", "28:e3 28:e3", BAD, "it has more than one Cryptographic Algorithm"},

	/* Get Attributes */
	{KMIP_GET_ATTRIBUTES, "B:e2", "B:e2", TDE_KEYRING_OK, NULL},
	{KMIP_GET_ATTRIBUTES, "9:i0 B:e2", "9:i0 B:e7", BAD, "the state of the key is unknown"},
	{KMIP_GET_ATTRIBUTES, "9:i0 B:e2", "9:i0 B:i2", BAD, "Attribute Value has a wrong type"},
	{KMIP_GET_ATTRIBUTES, "9:i0 B:e2", "9:i0", BAD, "it has no Attribute Value"},
	{KMIP_GET_ATTRIBUTES, "t'State'", "t'Stat'", BAD, "it has no state"},
	{KMIP_GET_ATTRIBUTES, "8{A:t'State'", "8{A:t'State' B:e1} 8{A:t'State'", BAD, "it has more than one state"},
	{KMIP_GET_ATTRIBUTES, "8{A:t'Object Type'", "8{", BAD, "it has no Attribute Name"},
	{KMIP_GET_ATTRIBUTES, "8{A:t'Object Type' B:e2}", "8:i1", BAD, "an attribute has a wrong type"},
	{KMIP_GET_ATTRIBUTES, "id-1", "id-2", BAD, "it is about another object"},

	/* Locate */
	{KMIP_LOCATE, "94:t'id-1'", "", TDE_KEYRING_OK, NULL},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i1 94:t'id-1'", TDE_KEYRING_OK, NULL},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i2 94:t'id-1'", TDE_KEYRING_OK, NULL},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i0 94:t'id-1'", BAD, "Located Items is not the number"},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i-1 94:t'id-1'", BAD, "Located Items is not the number"},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i1", BAD, "Located Items is not the number"},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i0", TDE_KEYRING_OK, NULL},
	{KMIP_LOCATE, "94:t'id-1'", "D5:i1 D5:i1 94:t'id-1'", BAD, "it has more than one Located Items"},
	{KMIP_LOCATE, "94:t'id-1'", "D5:e1 94:t'id-1'", BAD, "Located Items has a wrong type"},
	{KMIP_LOCATE, "94:t'id-1'", "94:t''", BAD, "a unique identifier is empty"},
	{KMIP_LOCATE, "94:t'id-1'", "94:t'~255'", TDE_KEYRING_OK, NULL},
	{KMIP_LOCATE, "94:t'id-1'", "94:t'~256'", BAD, "a unique identifier is too long"},
	{KMIP_LOCATE, "94:t'id-1'", "94:t'~20000'", BAD, "a unique identifier is too long"},
	{KMIP_LOCATE, "94:t'id-1'", "94:i1", BAD, "a unique identifier has a wrong type"},

	/* the rest */
	{KMIP_REGISTER, "94:t'id-1'", "94:t''", BAD, "a unique identifier is empty"},
	{KMIP_REGISTER, "94:t'id-1'", "94:t'~256'", BAD, "a unique identifier is too long"},
	{KMIP_REGISTER, "94:t'id-1'", "", BAD, "it has no Unique Identifier"},
	{KMIP_REGISTER, "94:t'id-1'", "94:t'id-2'", TDE_KEYRING_OK, NULL},
	{KMIP_ACTIVATE, "id-1", "id-2", BAD, "it is about another object"},
	{KMIP_QUERY, "5C:e8", "5C:e4294967295", TDE_KEYRING_OK, NULL},
	{KMIP_QUERY, "5C:e8", "5C:i8", BAD, "an operation has a wrong type"},
	{KMIP_DISCOVER_VERSIONS, "69{6A:i2 6B:i1}", "69:i1", BAD, "a version has a wrong type"},
	{KMIP_DISCOVER_VERSIONS, "69{6A:i2 6B:i1}", "69{6A:i2}", BAD, "it has no Protocol Version Minor"},
	{KMIP_DISCOVER_VERSIONS, "69{6A:i2 6B:i1} ", "", TDE_KEYRING_OK, NULL},
	{KMIP_DISCOVER_VERSIONS, "6A:i2", "6A:i-2147483648", TDE_KEYRING_OK, NULL},
	{KMIP_DISCOVER_VERSIONS, "6A:i2", "6A:i2147483647", TDE_KEYRING_OK, NULL},
};

/* Is all of an answer zero, but what says why? */
static bool
is_wiped(TdeKmipAnswer answer)
{
	memset(&answer.version, 0, sizeof(answer.version));
	answer.reason = 0;
	for (int i = 0; i < sizeof(answer); i++)
	{
		if (((const uint8 *) &answer)[i] != 0)
			return false;
	}
	return true;
}

static TdeKeyringStatus
decode_text(TdeKmipOperation operation, const char *text,
			TdeKmipAnswer *answer, TdeKeyringError *error)
{
	static const TdePrincipalKey key = {.len = 16};
	TdeKmipRequest request = {.operation = operation,.version = {1, 4}};
	uint8	   *buf = palloc(TDE_KMIP_MAX_RESPONSE);
	size_t		len = ttlv_from_text(text, buf, TDE_KMIP_MAX_RESPONSE);
	TdeKeyringStatus status;

	request.batch_id = 7;
	request.id = "id-1";
	request.key = &key;
	request.max_version = tde_kmip_versions[0];
	memset(answer, 0x5A, sizeof(*answer));
	memset(error, 0, sizeof(*error));
	status = tde_kmip_decode(&request, buf, len, answer, error);
	pfree(buf);
	return len > 0 ? status : TDE_KEYRING_CANCELLED;
}

static void
check_changes(Checks *checks)
{
	for (int i = 0; i < lengthof(changes); i++)
	{
		const		Change *c = &changes[i];
		char	   *text = text_replace(good_answer(c->operation),
										c->from, c->to);
		TdeKmipAnswer answer;
		TdeKeyringError error;
		TdeKeyringStatus status;

		if (!check(checks, text !=NULL, "kmip: %s: \"%s\" can be changed",
				   tde_kmip_operation_name(c->operation), c->from))
			continue;
		status = decode_text(c->operation, text, &answer, &error);
		check(checks, status == c->status &&
			  (c->message == NULL ? error.message[0] == '\0' :
			   error.status == status && is_wiped(answer) &&
			   strstr(error.message, c->message) != NULL),
			  "kmip: %s: \"%s\" instead of \"%s\": %s",
			  tde_kmip_operation_name(c->operation), c->to, c->from,
			  c->message ? c->message : "good");
		pfree(text);
	}
}

/* ---- what the table cannot say ---- */

static void
check_locate_many(Checks *checks)
{
	static const int counts[] = {1, 2, 4, 5, 16, 100};

	for (int i = 0; i < lengthof(counts); i++)
	{
		char	   *ids = palloc0(counts[i] * 16 + 1);
		char	   *text;
		TdeKmipAnswer answer;
		TdeKeyringError error;

		for (int id = 0; id < counts[i]; id++)
			snprintf(ids + strlen(ids), 16, "94:t'%d' ", id);
		text = text_replace(good_answer(KMIP_LOCATE), "94:t'id-1'", ids);

		check(checks, decode_text(KMIP_LOCATE, text, &answer,
								  &error) == TDE_KEYRING_OK &&
			  answer.nlocated == counts[i] &&
			  strcmp(answer.located[0], "0") == 0 &&
			  strcmp(answer.located[3], counts[i] > 3 ? "3" : "") == 0,
			  "kmip: Locate: %d keys", counts[i]);
		pfree(text);
		pfree(ids);
	}
}

/* A server may tell that there are more keys than it lists. */
static void
check_located_items(Checks *checks)
{
	char	   *text = text_replace(good_answer(KMIP_LOCATE), "94:t'id-1'",
									"D5:i9 94:t'id-1'");
	TdeKmipAnswer answer;
	TdeKeyringError error;

	check(checks, decode_text(KMIP_LOCATE, text, &answer,
							  &error) == TDE_KEYRING_OK &&
		  answer.nlocated == 9 && strcmp(answer.located[0], "id-1") == 0 &&
		  answer.located[1][0] == '\0', "kmip: Locate: 1 of 9 keys");
	pfree(text);
}

static void
check_thousands(Checks *checks)
{
	char	   *items = palloc0(3 * 5000);
	char	   *text;
	TdeKmipAnswer answer;
	TdeKeyringError error;

	for (int i = 0; i < 3000; i++)
		strcpy(items + 4 * i, "1{} ");
	text = text_replace(good_answer(KMIP_GET), "57:e2", items);

	check(checks, decode_text(KMIP_GET, text, &answer,
							  &error) == TDE_KEYRING_BAD_DATA &&
		  strstr(error.message, "there are too many items") != NULL,
		  "kmip: thousands of empty children");
	pfree(text);
	pfree(items);
}

/* What a server says about Register may quote the key: it is not shown. */
static void
check_no_key_shown(Checks *checks)
{
	char	   *text = text_replace(good_answer(KMIP_REGISTER), "7F:e0",
									FAILURE "7 7D:t'bad field " KEY_16 "'");
	TdeKmipAnswer answer;
	TdeKeyringError error;

	check(checks, decode_text(KMIP_REGISTER, text, &answer,
							  &error) == TDE_KEYRING_FAILED &&
		  strcmp(error.message,
				 "KMIP server refused operation Register: invalid field") == 0,
		  "kmip: Register: what the server says is left out");
	pfree(text);
}

static void
check_response_len(Checks *checks)
{
	static const struct
	{
		const char *title;
		uint8		header[8];
		size_t		len;		/* 0: refused */
	}			headers[] = {
		{"length 0", {0x42, 0, 0x7B, 1, 0, 0, 0, 0}, 8},
		{"the longest", {0x42, 0, 0x7B, 1, 0, 0, 0x7F, 0xF8}, 32768},
		{"one more", {0x42, 0, 0x7B, 1, 0, 0, 0x7F, 0xF9}, 0},
		{"7FFFFFFF", {0x42, 0, 0x7B, 1, 0x7F, 0xFF, 0xFF, 0xFF}, 0},
		{"80000000", {0x42, 0, 0x7B, 1, 0x80, 0, 0, 0}, 0},
		{"FFFFFFFF", {0x42, 0, 0x7B, 1, 0xFF, 0xFF, 0xFF, 0xFF}, 0},
		{"a request", {0x42, 0, 0x78, 1, 0, 0, 0, 8}, 0},
		{"a text", {0x42, 0, 0x7B, 7, 0, 0, 0, 8}, 0},
		{"HTTP", {'H', 'T', 'T', 'P', '/', '1', '.', '1'}, 0},
	};

	for (int i = 0; i < lengthof(headers); i++)
	{
		TdeKeyringError error;
		size_t		len;
		TdeKeyringStatus status;

		status = tde_kmip_response_len(headers[i].header, &len, &error);
		check(checks, len == headers[i].len &&
			  status == (len > 0 ? TDE_KEYRING_OK : TDE_KEYRING_BAD_DATA),
			  "kmip: header of a response: %s", headers[i].title);
	}
}

static void
check_printable(Checks *checks)
{
	char		out[16];

	tde_kmip_printable("fifteen letters", 15, out, sizeof(out));
	check(checks, strcmp(out, "fifteen letters") == 0,
		  "kmip: text that just fits");
	tde_kmip_printable("sixteen letters!", 16, out, sizeof(out));
	check(checks, strcmp(out, "sixteen lett...") == 0,
		  "kmip: text that is cut");
	tde_kmip_printable("elf Zeichen\xc3\xa4\xc3\xb6\xc3\xbc", 17, out,
					   sizeof(out));
	check(checks, strcmp(out, "elf Zeichen...") == 0,
		  "kmip: text that is cut within a character");
}

void
check_kmip_messages(Checks *checks)
{
	check_vectors(checks);
	check_changes(checks);
	check_locate_many(checks);
	check_located_items(checks);
	check_thousands(checks);
	check_no_key_shown(checks);
	check_response_len(checks);
	check_printable(checks);
}
