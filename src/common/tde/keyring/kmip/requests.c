/*-------------------------------------------------------------------------
 *
 * requests.c
 *	  Encoding of KMIP requests.
 *
 * KMIP 1.x hands attributes over as pairs of a name in words and a value, in
 * a Template-Attribute or on their own; 2.x as items with tags of their own
 * within one structure Attributes.  Everything else that we use is the same in
 * all versions.  The order of items is the specification's and matters to
 * servers.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/requests.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "messages.h"

const TdeKmipVersion tde_kmip_versions[] = {
	{2, 1}, {2, 0}, {1, 4}, {1, 3}, {1, 2}, {1, 1}, {1, 0},
};
const int	tde_kmip_nversions = lengthof(tde_kmip_versions);

static void
put_version(TdeTtlvWriter *w, TdeKmipVersion version)
{
	tde_ttlv_begin(w, KMIP_TAG_PROTOCOL_VERSION);
	tde_ttlv_put_integer(w, KMIP_TAG_PROTOCOL_VERSION_MAJOR, version.major);
	tde_ttlv_put_integer(w, KMIP_TAG_PROTOCOL_VERSION_MINOR, version.minor);
	tde_ttlv_end(w);
}

/* ---- attributes ---- */

/*
 * Begin an attribute.  Returns the tag that its value has in this version;
 * words is its name in 1.x, tag its tag in 2.x.
 */
static uint32
begin_attribute(TdeTtlvWriter *w, TdeKmipVersion version, const char *words,
				uint32 tag)
{
	if (version.major >= 2)
		return tag;
	tde_ttlv_begin(w, KMIP_TAG_ATTRIBUTE);
	tde_ttlv_put_text(w, KMIP_TAG_ATTRIBUTE_NAME, words);
	return KMIP_TAG_ATTRIBUTE_VALUE;
}

static void
end_attribute(TdeTtlvWriter *w, TdeKmipVersion version)
{
	if (version.major < 2)
		tde_ttlv_end(w);
}

static void
put_name(TdeTtlvWriter *w, TdeKmipVersion version, const char *name)
{
	tde_ttlv_begin(w, begin_attribute(w, version, "Name", KMIP_TAG_NAME));
	tde_ttlv_put_text(w, KMIP_TAG_NAME_VALUE, name);
	tde_ttlv_put_enum(w, KMIP_TAG_NAME_TYPE, KMIP_NAME_UNINTERPRETED_TEXT);
	tde_ttlv_end(w);
	end_attribute(w, version);
}

static void
put_enum_attribute(TdeTtlvWriter *w, TdeKmipVersion version,
				   const char *words, uint32 tag, uint32 value)
{
	tde_ttlv_put_enum(w, begin_attribute(w, version, words, tag), value);
	end_attribute(w, version);
}

static void
put_integer_attribute(TdeTtlvWriter *w, TdeKmipVersion version,
					  const char *words, uint32 tag, int32 value)
{
	tde_ttlv_put_integer(w, begin_attribute(w, version, words, tag), value);
	end_attribute(w, version);
}

/* ---- payloads ---- */

/* What a new key is; from here on Create and Register are alike. */
static void
put_new_key_attributes(TdeTtlvWriter *w, TdeKmipVersion version,
					   const char *name, int keylen)
{
	tde_ttlv_begin(w, version.major >= 2 ? KMIP_TAG_ATTRIBUTES :
				   KMIP_TAG_TEMPLATE_ATTRIBUTE);
	put_enum_attribute(w, version, "Cryptographic Algorithm",
					   KMIP_TAG_CRYPTOGRAPHIC_ALGORITHM, KMIP_ALGORITHM_AES);
	put_integer_attribute(w, version, "Cryptographic Length",
						  KMIP_TAG_CRYPTOGRAPHIC_LENGTH, keylen * 8);
	put_integer_attribute(w, version, "Cryptographic Usage Mask",
						  KMIP_TAG_CRYPTOGRAPHIC_USAGE_MASK,
						  KMIP_USAGE_ENCRYPT_DECRYPT);
	put_name(w, version, name);
	tde_ttlv_end(w);
}

static void
put_symmetric_key(TdeTtlvWriter *w, const TdePrincipalKey *key)
{
	tde_ttlv_begin(w, KMIP_TAG_SYMMETRIC_KEY);
	tde_ttlv_begin(w, KMIP_TAG_KEY_BLOCK);
	tde_ttlv_put_enum(w, KMIP_TAG_KEY_FORMAT_TYPE, KMIP_FORMAT_RAW);
	tde_ttlv_begin(w, KMIP_TAG_KEY_VALUE);
	tde_ttlv_put_bytes(w, KMIP_TAG_KEY_MATERIAL, key->key, key->len);
	tde_ttlv_end(w);
	tde_ttlv_put_enum(w, KMIP_TAG_CRYPTOGRAPHIC_ALGORITHM, KMIP_ALGORITHM_AES);
	tde_ttlv_put_integer(w, KMIP_TAG_CRYPTOGRAPHIC_LENGTH, key->len * 8);
	tde_ttlv_end(w);
	tde_ttlv_end(w);
}

static void
put_locate(TdeTtlvWriter *w, TdeKmipVersion version, const char *name)
{
	/* more than one, so that we learn of a second key of that name */
	tde_ttlv_put_integer(w, KMIP_TAG_MAXIMUM_ITEMS, TDE_KMIP_MAX_LOCATED);
	if (version.major >= 2)
		tde_ttlv_begin(w, KMIP_TAG_ATTRIBUTES);
	put_enum_attribute(w, version, "Object Type", KMIP_TAG_OBJECT_TYPE,
					   KMIP_OBJECT_SYMMETRIC_KEY);
	put_name(w, version, name);
	if (version.major >= 2)
		tde_ttlv_end(w);
}

static void
put_revoke(TdeTtlvWriter *w, const TdeKmipRequest *request)
{
	tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER, request->id);
	tde_ttlv_begin(w, KMIP_TAG_REVOCATION_REASON);
	tde_ttlv_put_enum(w, KMIP_TAG_REVOCATION_REASON_CODE, request->why);
	tde_ttlv_end(w);

	/* required with this reason, forbidden with the other */
	if (request->why == TDE_KMIP_KEY_COMPROMISE)
		tde_ttlv_put_date_time(w, KMIP_TAG_COMPROMISE_OCCURRENCE_DATE,
							   request->when);
}

static void
put_payload(TdeTtlvWriter *w, const TdeKmipRequest *request)
{
	TdeKmipVersion version = request->version;

	switch (request->operation)
	{
		case KMIP_DISCOVER_VERSIONS:
			for (int i = 0; i < tde_kmip_nversions; i++)
			{
				if (tde_kmip_compare_versions(tde_kmip_versions[i],
											  request->max_version) <= 0)
					put_version(w, tde_kmip_versions[i]);
			}
			break;
		case KMIP_QUERY:
			tde_ttlv_put_enum(w, KMIP_TAG_QUERY_FUNCTION,
							  KMIP_QUERY_OPERATIONS);
			break;
		case KMIP_CREATE:
			tde_ttlv_put_enum(w, KMIP_TAG_OBJECT_TYPE,
							  KMIP_OBJECT_SYMMETRIC_KEY);
			put_new_key_attributes(w, version, request->name, request->keylen);
			break;
		case KMIP_REGISTER:
			tde_ttlv_put_enum(w, KMIP_TAG_OBJECT_TYPE,
							  KMIP_OBJECT_SYMMETRIC_KEY);
			put_new_key_attributes(w, version, request->name,
								   request->key->len);
			put_symmetric_key(w, request->key);
			break;
		case KMIP_LOCATE:
			put_locate(w, version, request->name);
			break;
		case KMIP_GET:
			tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER, request->id);
			tde_ttlv_put_enum(w, KMIP_TAG_KEY_FORMAT_TYPE, KMIP_FORMAT_RAW);
			break;
		case KMIP_GET_ATTRIBUTES:
			tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER, request->id);

			/*
			 * 2.x has a reference to an attribute instead of its name, but
			 * servers do not agree on whether it is an enumeration or a
			 * structure.  Without one we get all attributes.
			 */
			if (version.major < 2)
				tde_ttlv_put_text(w, KMIP_TAG_ATTRIBUTE_NAME, "State");
			break;
		case KMIP_ACTIVATE:
		case KMIP_DESTROY:
			tde_ttlv_put_text(w, KMIP_TAG_UNIQUE_IDENTIFIER, request->id);
			break;
		case KMIP_REVOKE:
			put_revoke(w, request);
			break;
	}
}

size_t
tde_kmip_encode(const TdeKmipRequest *request, uint8 *buf, size_t size)
{
	TdeTtlvWriter w;
	uint8		batch_id[4];

	for (int i = 0; i < sizeof(batch_id); i++)
		batch_id[i] = (uint8) (request->batch_id >> (24 - 8 * i));

	tde_ttlv_writer_init(&w, buf, size);
	tde_ttlv_begin(&w, KMIP_TAG_REQUEST_MESSAGE);
	tde_ttlv_begin(&w, KMIP_TAG_REQUEST_HEADER);
	put_version(&w, request->version);
	tde_ttlv_put_integer(&w, KMIP_TAG_MAXIMUM_RESPONSE_SIZE,
						 TDE_KMIP_MAX_RESPONSE);
	tde_ttlv_put_integer(&w, KMIP_TAG_BATCH_COUNT, 1);
	tde_ttlv_end(&w);
	tde_ttlv_begin(&w, KMIP_TAG_BATCH_ITEM);
	tde_ttlv_put_enum(&w, KMIP_TAG_OPERATION, request->operation);
	tde_ttlv_put_bytes(&w, KMIP_TAG_UNIQUE_BATCH_ITEM_ID,
					   batch_id, sizeof(batch_id));
	tde_ttlv_begin(&w, KMIP_TAG_REQUEST_PAYLOAD);
	put_payload(&w, request);
	tde_ttlv_end(&w);
	tde_ttlv_end(&w);
	tde_ttlv_end(&w);
	return w.failed ? 0 : w.len;
}
