/*-------------------------------------------------------------------------
 *
 * messages.h
 *	  Requests and responses of KMIP, one operation a message.
 *
 * A request is described by a TdeKmipRequest and encoded for one version of
 * the protocol; the answer is checked against the request and taken apart into
 * a TdeKmipAnswer.  Pure: no I/O and no allocation.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/messages.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KMIP_MESSAGES_H
#define TDE_KMIP_MESSAGES_H

#include "client.h"
#include "common/int.h"
#include "ttlv.h"

/*
 * The longest messages.  A request is bounded by the lengths of names and ids;
 * an answer is told to the server and checked before it is received.
 */
#define TDE_KMIP_MAX_REQUEST	4096
#define TDE_KMIP_MAX_RESPONSE	32768

#define TDE_KMIP_MAX_ID			255 /* bytes of a unique identifier */
#define TDE_KMIP_MAX_LOCATED	4	/* ids that we ask for and remember */
#define TDE_KMIP_MAX_REASON		200 /* bytes of a server's own words */

/* Tags, in the order of the specification (1.4, section 9.1.3.1). */
enum
{
	KMIP_TAG_ATTRIBUTE = 0x420008,
	KMIP_TAG_ATTRIBUTE_NAME = 0x42000A,
	KMIP_TAG_ATTRIBUTE_VALUE = 0x42000B,
	KMIP_TAG_BATCH_COUNT = 0x42000D,
	KMIP_TAG_BATCH_ITEM = 0x42000F,
	KMIP_TAG_COMPROMISE_OCCURRENCE_DATE = 0x420021,
	KMIP_TAG_CRYPTOGRAPHIC_ALGORITHM = 0x420028,
	KMIP_TAG_CRYPTOGRAPHIC_LENGTH = 0x42002A,
	KMIP_TAG_CRYPTOGRAPHIC_USAGE_MASK = 0x42002C,
	KMIP_TAG_KEY_BLOCK = 0x420040,
	KMIP_TAG_KEY_COMPRESSION_TYPE = 0x420041,
	KMIP_TAG_KEY_FORMAT_TYPE = 0x420042,
	KMIP_TAG_KEY_MATERIAL = 0x420043,
	KMIP_TAG_KEY_VALUE = 0x420045,
	KMIP_TAG_KEY_WRAPPING_DATA = 0x420046,
	KMIP_TAG_MAXIMUM_ITEMS = 0x42004F,
	KMIP_TAG_MAXIMUM_RESPONSE_SIZE = 0x420050,
	KMIP_TAG_NAME = 0x420053,
	KMIP_TAG_NAME_TYPE = 0x420054,
	KMIP_TAG_NAME_VALUE = 0x420055,
	KMIP_TAG_OBJECT_TYPE = 0x420057,
	KMIP_TAG_OPERATION = 0x42005C,
	KMIP_TAG_PROTOCOL_VERSION = 0x420069,
	KMIP_TAG_PROTOCOL_VERSION_MAJOR = 0x42006A,
	KMIP_TAG_PROTOCOL_VERSION_MINOR = 0x42006B,
	KMIP_TAG_QUERY_FUNCTION = 0x420074,
	KMIP_TAG_REQUEST_HEADER = 0x420077,
	KMIP_TAG_REQUEST_MESSAGE = 0x420078,
	KMIP_TAG_REQUEST_PAYLOAD = 0x420079,
	KMIP_TAG_RESPONSE_HEADER = 0x42007A,
	KMIP_TAG_RESPONSE_MESSAGE = 0x42007B,
	KMIP_TAG_RESPONSE_PAYLOAD = 0x42007C,
	KMIP_TAG_RESULT_MESSAGE = 0x42007D,
	KMIP_TAG_RESULT_REASON = 0x42007E,
	KMIP_TAG_RESULT_STATUS = 0x42007F,
	KMIP_TAG_REVOCATION_REASON = 0x420081,
	KMIP_TAG_REVOCATION_REASON_CODE = 0x420082,
	KMIP_TAG_STATE = 0x42008D,
	KMIP_TAG_SYMMETRIC_KEY = 0x42008F,
	KMIP_TAG_TEMPLATE_ATTRIBUTE = 0x420091,
	KMIP_TAG_UNIQUE_BATCH_ITEM_ID = 0x420093,
	KMIP_TAG_UNIQUE_IDENTIFIER = 0x420094,
	KMIP_TAG_LOCATED_ITEMS = 0x4200D5,
	KMIP_TAG_ATTRIBUTES = 0x420125,
};

/* The operations that we use. */
typedef enum TdeKmipOperation
{
	KMIP_CREATE = 0x01,
	KMIP_REGISTER = 0x03,
	KMIP_LOCATE = 0x08,
	KMIP_GET = 0x0A,
	KMIP_GET_ATTRIBUTES = 0x0B,
	KMIP_ACTIVATE = 0x12,
	KMIP_REVOKE = 0x13,
	KMIP_DESTROY = 0x14,
	KMIP_QUERY = 0x18,
	KMIP_DISCOVER_VERSIONS = 0x1E,
} TdeKmipOperation;

/* Other enumerations, as far as we use them. */
#define KMIP_OBJECT_SYMMETRIC_KEY		2
#define KMIP_ALGORITHM_AES				3
#define KMIP_FORMAT_RAW					1
#define KMIP_NAME_UNINTERPRETED_TEXT	1
#define KMIP_QUERY_OPERATIONS			1
#define KMIP_USAGE_ENCRYPT_DECRYPT		0x0C

#define KMIP_RESULT_SUCCESS				0
#define KMIP_RESULT_FAILED				1
#define KMIP_RESULT_PENDING				2
#define KMIP_RESULT_UNDONE				3

/* Reasons of a failure that decide what we do next. */
enum
{
	KMIP_ITEM_NOT_FOUND = 0x01,
	KMIP_AUTHENTICATION_NOT_SUCCESSFUL = 0x03,
	KMIP_INVALID_MESSAGE = 0x04,
	KMIP_OPERATION_NOT_SUPPORTED = 0x05,
	KMIP_PERMISSION_DENIED = 0x0C,
	KMIP_SENSITIVE = 0x16,
	KMIP_NOT_EXTRACTABLE = 0x17,
	KMIP_OBJECT_ALREADY_EXISTS = 0x18,
	KMIP_NON_UNIQUE_NAME = 0x35,
	KMIP_OBJECT_DESTROYED = 0x36,
	KMIP_OBJECT_NOT_FOUND = 0x37,
	KMIP_NOT_AUTHORISED = 0x39,
	KMIP_UNSUPPORTED_PROTOCOL_VERSION = 0x3F,
	KMIP_WRONG_KEY_LIFECYCLE_STATE = 0x43,
};

/* The versions that we speak, highest first. */
extern const TdeKmipVersion tde_kmip_versions[];
extern const int tde_kmip_nversions;

static inline int
tde_kmip_compare_versions(TdeKmipVersion a, TdeKmipVersion b)
{
	/* a server can send any numbers */
	return a.major != b.major ? pg_cmp_s32(a.major, b.major) :
		pg_cmp_s32(a.minor, b.minor);
}

typedef struct TdeKmipRequest
{
	TdeKmipOperation operation;
	TdeKmipVersion version;		/* of the message */
	uint32		batch_id;		/* any; the answer has it too */

	const char *id;				/* all that are about one key that exists */
	const char *name;			/* Create, Register, Locate */
	int			keylen;			/* Create: bytes */
	const TdePrincipalKey *key; /* Register */
	TdeKmipRevocation why;		/* Revoke */
	int64		when;			/* Revoke: compromised since (Unix time) */
	TdeKmipVersion max_version; /* DiscoverVersions: none above it */
} TdeKmipRequest;

/*
 * What a server answered.  Strings and key are copies; whoever has one of
 * these wipes it.
 */
typedef struct TdeKmipAnswer
{
	/* Failures: the version of the answer, and KMIP's reason, or 0. */
	TdeKmipVersion version;
	uint32		reason;

	char		id[TDE_KMIP_MAX_ID + 1];	/* Create, Register: of the key */

	/* Locate: how many keys there are, and the first of them */
	int			nlocated;
	char		located[TDE_KMIP_MAX_LOCATED][TDE_KMIP_MAX_ID + 1];

	TdePrincipalKey key;		/* Get */
	TdePrincipalState state;	/* GetAttributes */
	uint64		operations;		/* Query: bit 1 << n is operation n; 0: it
								 * lists none */
	TdeKmipVersion best;		/* DiscoverVersions: highest common version,
								 * {0, 0} if there is none */
} TdeKmipAnswer;

/*
 * Encode a request; returns its length, or 0 if it does not fit or a name or
 * id is not valid UTF-8.
 */
extern size_t tde_kmip_encode(const TdeKmipRequest *request,
							  uint8 *buf, size_t size);

/*
 * Take the answer to a request apart.  On anything but TDE_KEYRING_OK *error
 * says what is wrong, and all of *answer but version and reason is wiped.
 */
extern TdeKeyringStatus tde_kmip_decode(const TdeKmipRequest *request,
										const uint8 *buf, size_t len,
										TdeKmipAnswer *answer,
										TdeKeyringError *error);

/*
 * Length of a whole answer, from its first TDE_TTLV_HEADER_LEN bytes.
 */
extern TdeKeyringStatus tde_kmip_response_len(const uint8 *header, size_t *len,
											  TdeKeyringError *error);

/* ---- names.c: for messages ---- */

/* "Get", "DiscoverVersions" ... */
extern const char *tde_kmip_operation_name(TdeKmipOperation operation);

/* "permission denied" ..., translated; NULL if the reason is unknown. */
extern const char *tde_kmip_reason_name(uint32 reason);

/* The keyring's status for a failure with that reason. */
extern TdeKeyringStatus tde_kmip_reason_status(uint32 reason);

/*
 * Copy a server's text (valid UTF-8, len bytes) for a message: control
 * characters and quotes become question marks; cut off with "..." at a
 * character's end if it does not fit.
 */
extern void tde_kmip_printable(const char *text, size_t len,
							   char *out, size_t size);

#endif							/* TDE_KMIP_MESSAGES_H */
