/*-------------------------------------------------------------------------
 *
 * responses.c
 *	  Checking and taking apart KMIP responses.
 *
 * A response is accepted only if it is the answer to the request: one batch
 * item, with the request's operation, batch item id and version, and about
 * the object that was asked about.  An item that may come once is refused when
 * it comes twice.  Items that we do not know are skipped, wherever they are.
 *
 * A failure may lack what says whose answer it is: servers that cannot read or
 * do not accept a request answer in whatever version, without operation and
 * id.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/responses.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "responses.h"
#include "tde/cipher.h"

/* ---- failures ---- */

/* The answer breaks the protocol, or is not ours.  "why" is a constant. */
TdeKeyringStatus
kmip_fail_bad(KmipDecoding *d, const char *why)
{
	return tde_keyring_fail(d->error, TDE_KEYRING_BAD_DATA, NULL,
							_("KMIP server sent an invalid answer to operation %s: %s"),
							tde_kmip_operation_name(d->request->operation),
							_(why));
}

/* The server says that it failed. */
static TdeKeyringStatus
fail_refused(KmipDecoding *d, const TdeTtlvItem *message)
{
	uint32		reason = d->answer->reason;
	const char *name = tde_kmip_reason_name(reason);
	const char *operation = tde_kmip_operation_name(d->request->operation);
	char		number[64];
	char		words[TDE_KMIP_MAX_REASON + 1];

	if (name == NULL)
	{
		snprintf(number, sizeof(number), _("unknown reason 0x%08X"), reason);
		name = number;
	}

	/*
	 * A server may quote the request that it did not like; ours to register a
	 * key holds the key.
	 */
	if (message->value == NULL || message->len == 0 ||
		d->request->operation == KMIP_REGISTER)
		return tde_keyring_fail(d->error, tde_kmip_reason_status(reason), NULL,
								_("KMIP server refused operation %s: %s"),
								operation, name);

	tde_kmip_printable((const char *) message->value, message->len,
					   words, sizeof(words));
	return tde_keyring_fail(d->error, tde_kmip_reason_status(reason), NULL,
							_("KMIP server refused operation %s: %s: \"%s\""),
							operation, name, words);
}

/* ---- items ---- */

/*
 * The one item of that tag; absent is an error if it is required.  "what" is
 * its name in the specification.
 */
TdeKeyringStatus
kmip_get_item(KmipDecoding *d, const TdeTtlvItem *parent, uint32 tag,
			  TdeTtlvType type, bool required, const char *what,
			  TdeTtlvItem *item)
{
	const char *format = NULL;

	switch (tde_ttlv_find(parent, tag, type, item))
	{
		case TDE_TTLV_FOUND:
			return TDE_KEYRING_OK;
		case TDE_TTLV_ABSENT:
			if (!required)
				return TDE_KEYRING_OK;
			format = _("KMIP server sent an invalid answer to operation %s: it has no %s");
			break;
		case TDE_TTLV_REPEATED:
			format = _("KMIP server sent an invalid answer to operation %s: it has more than one %s");
			break;
		case TDE_TTLV_WRONG_TYPE:
			format = _("KMIP server sent an invalid answer to operation %s: %s has a wrong type");
			break;
	}
	return tde_keyring_fail(d->error, TDE_KEYRING_BAD_DATA, NULL, format,
							tde_kmip_operation_name(d->request->operation),
							what);
}

/* As above for a required enumeration, with its value. */
TdeKeyringStatus
kmip_get_enum(KmipDecoding *d, const TdeTtlvItem *parent, uint32 tag,
			  const char *what, uint32 *value)
{
	TdeTtlvItem item;
	TdeKeyringStatus status;

	status = kmip_get_item(d, parent, tag, TDE_TTLV_ENUMERATION, true, what,
						   &item);
	*value = status == TDE_KEYRING_OK ? tde_ttlv_enum(&item) : 0;
	return status;
}

/* As above for a required integer. */
TdeKeyringStatus
kmip_get_integer(KmipDecoding *d, const TdeTtlvItem *parent, uint32 tag,
				 const char *what, int32 *value)
{
	TdeTtlvItem item;
	TdeKeyringStatus status;

	status = kmip_get_item(d, parent, tag, TDE_TTLV_INTEGER, true, what,
						   &item);
	*value = status == TDE_KEYRING_OK ? tde_ttlv_integer(&item) : 0;
	return status;
}

TdeKeyringStatus
kmip_get_version(KmipDecoding *d, const TdeTtlvItem *item,
				 TdeKmipVersion *version)
{
	TdeKeyringStatus status;

	status = kmip_get_integer(d, item, KMIP_TAG_PROTOCOL_VERSION_MAJOR,
							  "Protocol Version Major", &version->major);
	if (status == TDE_KEYRING_OK)
		status = kmip_get_integer(d, item, KMIP_TAG_PROTOCOL_VERSION_MINOR,
								  "Protocol Version Minor", &version->minor);
	return status;
}

/* ---- the message around it ---- */

/* Header, and the batch item, of which there must be one. */
static TdeKeyringStatus
open_message(KmipDecoding *d, const TdeTtlvItem *root, TdeTtlvItem *batch_item)
{
	TdeTtlvItem header;
	TdeTtlvItem version;
	int32		count;
	TdeKeyringStatus status;

	if (root->tag != KMIP_TAG_RESPONSE_MESSAGE ||
		root->type !=TDE_TTLV_STRUCTURE)
		return kmip_fail_bad(d, gettext_noop("it is not a response message"));
	if ((status = kmip_get_item(d, root, KMIP_TAG_RESPONSE_HEADER,
								TDE_TTLV_STRUCTURE, true, "Response Header",
								&header)) != TDE_KEYRING_OK ||
		(status = kmip_get_item(d, &header, KMIP_TAG_PROTOCOL_VERSION,
								TDE_TTLV_STRUCTURE, true, "Protocol Version",
								&version)) != TDE_KEYRING_OK ||
		(status = kmip_get_version(d, &version,
								   &d->answer->version)) != TDE_KEYRING_OK ||
		(status = kmip_get_integer(d, &header, KMIP_TAG_BATCH_COUNT,
								   "Batch Count", &count)) != TDE_KEYRING_OK)
		return status;
	if (count != 1)
		return kmip_fail_bad(d, gettext_noop("its batch count is not 1"));
	return kmip_get_item(d, root, KMIP_TAG_BATCH_ITEM, TDE_TTLV_STRUCTURE,
						 true, "Batch Item", batch_item);
}

/* Is it the answer to our request?  What is not there does not disagree. */
static TdeKeyringStatus
check_batch_item(KmipDecoding *d, const TdeTtlvItem *batch_item, bool required)
{
	TdeTtlvItem item;
	TdeKeyringStatus status;

	status = kmip_get_item(d, batch_item, KMIP_TAG_OPERATION,
						   TDE_TTLV_ENUMERATION, required, "Operation", &item);
	if (status != TDE_KEYRING_OK)
		return status;
	if (item.value != NULL && tde_ttlv_enum(&item) != d->request->operation)
		return kmip_fail_bad(d, gettext_noop("it is the answer to another operation"));

	status = kmip_get_item(d, batch_item, KMIP_TAG_UNIQUE_BATCH_ITEM_ID,
						   TDE_TTLV_BYTES, required, "Unique Batch Item ID",
						   &item);
	if (status != TDE_KEYRING_OK)
		return status;
	if (item.value != NULL)
	{
		uint32		id = 0;

		for (int i = 0; i < 4 && i < item.len; i++)
			id = id << 8 | item.value[i];
		if (item.len != 4 || id != d->request->batch_id)
			return kmip_fail_bad(d, gettext_noop("it is the answer to another request"));
	}
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
decode_failure(KmipDecoding *d, const TdeTtlvItem *batch_item)
{
	TdeTtlvItem message;
	TdeKeyringStatus status;

	if ((status = check_batch_item(d, batch_item, false)) != TDE_KEYRING_OK ||
		(status = kmip_get_item(d, batch_item, KMIP_TAG_RESULT_MESSAGE,
								TDE_TTLV_TEXT, false, "Result Message",
								&message)) != TDE_KEYRING_OK ||
		(status = kmip_get_enum(d, batch_item, KMIP_TAG_RESULT_REASON,
								"Result Reason",
								&d->answer->reason)) != TDE_KEYRING_OK)
		return status;
	return fail_refused(d, &message);
}

static TdeKeyringStatus
decode_message(KmipDecoding *d, const TdeTtlvItem *root)
{
	TdeTtlvItem batch_item;
	uint32		result;
	TdeKeyringStatus status;

	if ((status = open_message(d, root, &batch_item)) != TDE_KEYRING_OK ||
		(status = kmip_get_enum(d, &batch_item, KMIP_TAG_RESULT_STATUS,
								"Result Status", &result)) != TDE_KEYRING_OK)
		return status;
	switch (result)
	{
		case KMIP_RESULT_SUCCESS:
			break;
		case KMIP_RESULT_FAILED:
			return decode_failure(d, &batch_item);
		case KMIP_RESULT_PENDING:
			return kmip_fail_bad(d, gettext_noop("the operation is pending, which was not asked for"));
		case KMIP_RESULT_UNDONE:
			return kmip_fail_bad(d, gettext_noop("the operation was undone, which was not asked for"));
		default:
			return kmip_fail_bad(d, gettext_noop("its result status is unknown"));
	}

	if (tde_kmip_compare_versions(d->answer->version,
								  d->request->version) != 0)
		return kmip_fail_bad(d, gettext_noop("it is in another version of the protocol"));
	if ((status = check_batch_item(d, &batch_item, true)) != TDE_KEYRING_OK ||
		(status = kmip_get_item(d, &batch_item, KMIP_TAG_RESPONSE_PAYLOAD,
								TDE_TTLV_STRUCTURE, true, "Response Payload",
								&d->payload)) != TDE_KEYRING_OK)
		return status;
	return kmip_decode_payload(d);
}

TdeKeyringStatus
tde_kmip_decode(const TdeKmipRequest *request, const uint8 *buf, size_t len,
				TdeKmipAnswer *answer, TdeKeyringError *error)
{
	KmipDecoding d = {.request = request,.answer = answer,.error = error};
	TdeTtlvItem root;
	const char *reason;
	TdeKeyringStatus status;

	memset(answer, 0, sizeof(*answer));
	if (tde_ttlv_check(buf, len, &root, &reason))
		status = decode_message(&d, &root);
	else
		status = kmip_fail_bad(&d, reason);

	if (status != TDE_KEYRING_OK)
	{
		TdeKmipVersion version = answer->version;
		uint32		result_reason = answer->reason;

		tde_wipe(answer, sizeof(*answer));
		answer->version = version;
		answer->reason = result_reason;
	}
	return status;
}

TdeKeyringStatus
tde_kmip_response_len(const uint8 *header, size_t *len, TdeKeyringError *error)
{
	uint32		tag = (uint32) header[0] << 16 | header[1] << 8 | header[2];
	uint32		value_len = (uint32) header[4] << 24 | header[5] << 16 |
		header[6] << 8 | header[7];

	*len = 0;
	if (tag != KMIP_TAG_RESPONSE_MESSAGE || header[3] != TDE_TTLV_STRUCTURE)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Check that the host and port of the key provider are those of a KMIP server."),
								_("server sent what is not a KMIP response"));
	if (value_len > TDE_KMIP_MAX_RESPONSE - TDE_TTLV_HEADER_LEN)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("KMIP server sent a response of %u bytes, more than the %d that are allowed"),
								value_len,
								TDE_KMIP_MAX_RESPONSE - TDE_TTLV_HEADER_LEN);
	*len = TDE_TTLV_HEADER_LEN + (size_t) value_len;
	return TDE_KEYRING_OK;
}
