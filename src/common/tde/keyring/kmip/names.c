/*-------------------------------------------------------------------------
 *
 * names.c
 *	  KMIP's numbers and servers' words, as error messages show them.
 *
 * The reasons are the Result Reason Enumeration of KMIP 2.1, which includes
 * those of the versions before it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/names.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "messages.h"

static const struct
{
	TdeKmipOperation operation;
	const char *name;
}			operations[] = {
	{KMIP_CREATE, "Create"},
	{KMIP_REGISTER, "Register"},
	{KMIP_LOCATE, "Locate"},
	{KMIP_GET, "Get"},
	{KMIP_GET_ATTRIBUTES, "Get Attributes"},
	{KMIP_ACTIVATE, "Activate"},
	{KMIP_REVOKE, "Revoke"},
	{KMIP_DESTROY, "Destroy"},
	{KMIP_QUERY, "Query"},
	{KMIP_DISCOVER_VERSIONS, "Discover Versions"},
};

static const struct
{
	uint32		reason;
	const char *name;
}			reasons[] = {
	{0x01, gettext_noop("item not found")},
	{0x02, gettext_noop("response too large")},
	{0x03, gettext_noop("authentication not successful")},
	{0x04, gettext_noop("invalid message")},
	{0x05, gettext_noop("operation not supported")},
	{0x06, gettext_noop("missing data")},
	{0x07, gettext_noop("invalid field")},
	{0x08, gettext_noop("feature not supported")},
	{0x09, gettext_noop("operation canceled by requester")},
	{0x0A, gettext_noop("cryptographic failure")},
	{0x0B, gettext_noop("illegal operation")},
	{0x0C, gettext_noop("permission denied")},
	{0x0D, gettext_noop("object archived")},
	{0x0E, gettext_noop("index out of bounds")},
	{0x0F, gettext_noop("application namespace not supported")},
	{0x10, gettext_noop("key format type not supported")},
	{0x11, gettext_noop("key compression type not supported")},
	{0x12, gettext_noop("encoding option error")},
	{0x13, gettext_noop("key value not present")},
	{0x14, gettext_noop("attestation required")},
	{0x15, gettext_noop("attestation failed")},
	{0x16, gettext_noop("key is sensitive and does not leave the server")},
	{0x17, gettext_noop("key is not extractable")},
	{0x18, gettext_noop("object already exists")},
	{0x19, gettext_noop("invalid ticket")},
	{0x1A, gettext_noop("usage limit exceeded")},
	{0x1B, gettext_noop("number out of range")},
	{0x1C, gettext_noop("invalid data type")},
	{0x1D, gettext_noop("read-only attribute")},
	{0x1E, gettext_noop("multi-valued attribute")},
	{0x1F, gettext_noop("unsupported attribute")},
	{0x20, gettext_noop("attribute instance not found")},
	{0x21, gettext_noop("attribute not found")},
	{0x22, gettext_noop("attribute is read-only")},
	{0x23, gettext_noop("attribute is single-valued")},
	{0x24, gettext_noop("bad cryptographic parameters")},
	{0x25, gettext_noop("bad password")},
	{0x26, gettext_noop("message could not be decoded")},
	{0x28, gettext_noop("illegal object type")},
	{0x29, gettext_noop("incompatible cryptographic usage mask")},
	{0x2A, gettext_noop("internal server error")},
	{0x2B, gettext_noop("invalid asynchronous correlation value")},
	{0x2C, gettext_noop("invalid attribute")},
	{0x2D, gettext_noop("invalid attribute value")},
	{0x2E, gettext_noop("invalid correlation value")},
	{0x2F, gettext_noop("invalid certificate signing request")},
	{0x30, gettext_noop("invalid object type")},
	{0x32, gettext_noop("key wrap type not supported")},
	{0x34, gettext_noop("missing initialization vector")},
	{0x35, gettext_noop("name is not unique")},
	{0x36, gettext_noop("object was destroyed")},
	{0x37, gettext_noop("object not found")},
	{0x39, gettext_noop("not authorized")},
	{0x3A, gettext_noop("server limit exceeded")},
	{0x3B, gettext_noop("unknown enumeration value")},
	{0x3C, gettext_noop("unknown message extension")},
	{0x3D, gettext_noop("unknown tag")},
	{0x3E, gettext_noop("unsupported cryptographic parameters")},
	{0x3F, gettext_noop("unsupported protocol version")},
	{0x40, gettext_noop("wrapping object archived")},
	{0x41, gettext_noop("wrapping object destroyed")},
	{0x42, gettext_noop("wrapping object not found")},
	{0x43, gettext_noop("state of the key does not allow it")},
	{0x44, gettext_noop("protection storage unavailable")},
	{0x45, gettext_noop("PKCS#11 message could not be decoded")},
	{0x46, gettext_noop("invalid PKCS#11 function")},
	{0x47, gettext_noop("invalid PKCS#11 interface")},
	{0x48, gettext_noop("private protection storage unavailable")},
	{0x49, gettext_noop("public protection storage unavailable")},
	{0x4A, gettext_noop("unknown object group")},
	{0x4B, gettext_noop("constraint violation")},
	{0x4C, gettext_noop("duplicate process request")},
	{0x100, gettext_noop("general failure")},
};

const char *
tde_kmip_operation_name(TdeKmipOperation operation)
{
	for (int i = 0; i < lengthof(operations); i++)
	{
		if (operations[i].operation == operation)
			return operations[i].name;
	}
	return "?";
}

const char *
tde_kmip_reason_name(uint32 reason)
{
	for (int i = 0; i < lengthof(reasons); i++)
	{
		if (reasons[i].reason == reason)
			return _(reasons[i].name);
	}
	return NULL;
}

TdeKeyringStatus
tde_kmip_reason_status(uint32 reason)
{
	switch (reason)
	{
		case KMIP_ITEM_NOT_FOUND:
		case KMIP_OBJECT_NOT_FOUND:
			return TDE_KEYRING_NOT_FOUND;
		case KMIP_OBJECT_DESTROYED:
			return TDE_KEYRING_DESTROYED;
		case KMIP_OBJECT_ALREADY_EXISTS:
		case KMIP_NON_UNIQUE_NAME:
			return TDE_KEYRING_EXISTS;
		case KMIP_AUTHENTICATION_NOT_SUCCESSFUL:
		case KMIP_PERMISSION_DENIED:
		case KMIP_NOT_AUTHORISED:
		case KMIP_SENSITIVE:
		case KMIP_NOT_EXTRACTABLE:
		case KMIP_WRONG_KEY_LIFECYCLE_STATE:
			return TDE_KEYRING_DENIED;
		default:
			return TDE_KEYRING_FAILED;
	}
}

void
tde_kmip_printable(const char *text, size_t len, char *out, size_t size)
{
	static const char dots[] = "...";
	size_t		n = len;

	Assert(size > sizeof(dots));
	if (len >= size)
	{
		/* back to where a character begins */
		n = size - sizeof(dots);
		while (n > 0 && ((unsigned char) text[n] & 0xC0) == 0x80)
			n--;
	}
	for (size_t i = 0; i < n; i++)
	{
		unsigned char c = (unsigned char) text[i];

		out[i] = c < ' ' || c == 0x7F || c == '"' ? '?' : text[i];
	}
	strcpy(out + n, n < len ? dots : "");
}
