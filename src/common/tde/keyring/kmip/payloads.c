/*-------------------------------------------------------------------------
 *
 * payloads.c
 *	  What the answer to each operation says.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/payloads.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "responses.h"

/* Copy a unique identifier. */
static TdeKeyringStatus
copy_id(KmipDecoding *d, const TdeTtlvItem *item, char *id)
{
	if (item->len == 0)
		return kmip_fail_bad(d, gettext_noop("a unique identifier is empty"));
	if (item->len > TDE_KMIP_MAX_ID)
		return kmip_fail_bad(d, gettext_noop("a unique identifier is too long"));
	memcpy(id, item->value, item->len);
	id[item->len] = '\0';
	return TDE_KEYRING_OK;
}

/* The answer must be about the object that was asked about. */
static TdeKeyringStatus
check_id(KmipDecoding *d)
{
	TdeTtlvItem item;
	TdeKeyringStatus status;

	status = kmip_get_item(d, &d->payload, KMIP_TAG_UNIQUE_IDENTIFIER,
						   TDE_TTLV_TEXT, true, "Unique Identifier", &item);
	if (status == TDE_KEYRING_OK && !tde_ttlv_text_is(&item, d->request->id))
		status = kmip_fail_bad(d, gettext_noop("it is about another object"));
	return status;
}

/* ---- payloads ---- */

static TdeKeyringStatus
decode_discover_versions(KmipDecoding *d)
{
	TdeTtlvItem child = {0};

	while (tde_ttlv_next(&d->payload, &child))
	{
		TdeKmipVersion version;
		TdeKeyringStatus status;

		if (child.tag != KMIP_TAG_PROTOCOL_VERSION)
			continue;
		if (child.type !=TDE_TTLV_STRUCTURE)
			return kmip_fail_bad(d, gettext_noop("a version has a wrong type"));
		status = kmip_get_version(d, &child, &version);
		if (status != TDE_KEYRING_OK)
			return status;

		/* versions that we did not offer are none of ours */
		for (int i = 0; i < tde_kmip_nversions; i++)
		{
			if (tde_kmip_compare_versions(version,
										  tde_kmip_versions[i]) == 0 &&
				tde_kmip_compare_versions(version,
										  d->request->max_version) <= 0 &&
				tde_kmip_compare_versions(version, d->answer->best) > 0)
				d->answer->best = version;
		}
	}
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
decode_query(KmipDecoding *d)
{
	TdeTtlvItem child = {0};

	while (tde_ttlv_next(&d->payload, &child))
	{
		if (child.tag != KMIP_TAG_OPERATION)
			continue;
		if (child.type !=TDE_TTLV_ENUMERATION)
			return kmip_fail_bad(d, gettext_noop("an operation has a wrong type"));
		if (tde_ttlv_enum(&child) < 64)
			d->answer->operations |= UINT64CONST(1) << tde_ttlv_enum(&child);
	}
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
decode_locate(KmipDecoding *d)
{
	TdeTtlvItem child = {0};
	TdeTtlvItem total;
	TdeKeyringStatus status;

	while (tde_ttlv_next(&d->payload, &child))
	{
		char		id[TDE_KMIP_MAX_ID + 1];
		int			n = d->answer->nlocated;

		if (child.tag != KMIP_TAG_UNIQUE_IDENTIFIER)
			continue;
		if (child.type !=TDE_TTLV_TEXT)
			return kmip_fail_bad(d, gettext_noop("a unique identifier has a wrong type"));
		status = copy_id(d, &child, id);
		if (status != TDE_KEYRING_OK)
			return status;
		if (n < TDE_KMIP_MAX_LOCATED)
			strcpy(d->answer->located[n], id);
		d->answer->nlocated++;
	}

	/*
	 * The number of all that there are, of which a server may have sent only
	 * the first few, though not none.
	 */
	status = kmip_get_item(d, &d->payload, KMIP_TAG_LOCATED_ITEMS,
						   TDE_TTLV_INTEGER, false, "Located Items", &total);
	if (status != TDE_KEYRING_OK || total.value == NULL)
		return status;
	if (tde_ttlv_integer(&total) < d->answer->nlocated ||
		(tde_ttlv_integer(&total) > 0 && d->answer->nlocated == 0))
		return kmip_fail_bad(d, gettext_noop("Located Items is not the number of unique identifiers"));
	d->answer->nlocated = tde_ttlv_integer(&total);
	return TDE_KEYRING_OK;
}

/* The bytes of a key, and what the key block says about them. */
static TdeKeyringStatus
decode_key_block(KmipDecoding *d, const TdeTtlvItem *block)
{
	TdePrincipalKey *key = &d->answer->key;
	TdeTtlvItem value;
	TdeTtlvItem material;
	TdeTtlvItem item;
	uint32		format;
	uint32		algorithm;
	int32		bits;
	TdeKeyringStatus status;

	if (tde_ttlv_find(block, KMIP_TAG_KEY_WRAPPING_DATA, TDE_TTLV_STRUCTURE,
					  &item) != TDE_TTLV_ABSENT)
		return kmip_fail_bad(d, gettext_noop("the key is wrapped"));
	if (tde_ttlv_find(block, KMIP_TAG_KEY_COMPRESSION_TYPE,
					  TDE_TTLV_ENUMERATION, &item) != TDE_TTLV_ABSENT)
		return kmip_fail_bad(d, gettext_noop("the key is compressed"));
	if ((status = kmip_get_enum(d, block, KMIP_TAG_KEY_FORMAT_TYPE,
								"Key Format Type",
								&format)) != TDE_KEYRING_OK ||
		(status = kmip_get_enum(d, block, KMIP_TAG_CRYPTOGRAPHIC_ALGORITHM,
								"Cryptographic Algorithm",
								&algorithm)) != TDE_KEYRING_OK ||
		(status = kmip_get_integer(d, block, KMIP_TAG_CRYPTOGRAPHIC_LENGTH,
								   "Cryptographic Length",
								   &bits)) != TDE_KEYRING_OK ||
		(status = kmip_get_item(d, block, KMIP_TAG_KEY_VALUE,
								TDE_TTLV_STRUCTURE, true, "Key Value",
								&value)) != TDE_KEYRING_OK)
		return status;
	if (format != KMIP_FORMAT_RAW)
		return kmip_fail_bad(d, gettext_noop("the key is not in raw format"));
	if (algorithm != KMIP_ALGORITHM_AES)
		return kmip_fail_bad(d, gettext_noop("the key is not an AES key"));

	status = kmip_get_item(d, &value, KMIP_TAG_KEY_MATERIAL, TDE_TTLV_BYTES,
						   true, "Key Material", &material);
	if (status != TDE_KEYRING_OK)
		return status;
	if (material.len != 16 && material.len != 24 && material.len != 32)
		return kmip_fail_bad(d, gettext_noop("the key has a length that AES does not have"));
	if (bits != material.len * 8)
		return kmip_fail_bad(d, gettext_noop("the key does not have the length that is stated"));
	memcpy(key->key, material.value, material.len);
	key->len = material.len;
	return TDE_KEYRING_OK;
}

static TdeKeyringStatus
decode_get(KmipDecoding *d)
{
	TdeTtlvItem key;
	TdeTtlvItem block;
	uint32 type;
	TdeKeyringStatus status;

	if ((status = check_id(d)) != TDE_KEYRING_OK ||
		(status = kmip_get_enum(d, &d->payload, KMIP_TAG_OBJECT_TYPE,
								"Object Type", &type)) != TDE_KEYRING_OK)
		return status;
	if (type !=KMIP_OBJECT_SYMMETRIC_KEY)
		return kmip_fail_bad(d, gettext_noop("the object is not a symmetric key"));
	if ((status = kmip_get_item(d, &d->payload, KMIP_TAG_SYMMETRIC_KEY,
								TDE_TTLV_STRUCTURE, true, "Symmetric Key",
								&key)) != TDE_KEYRING_OK ||
		(status = kmip_get_item(d, &key, KMIP_TAG_KEY_BLOCK,
								TDE_TTLV_STRUCTURE, true, "Key Block",
								&block)) != TDE_KEYRING_OK)
		return status;
	return decode_key_block(d, &block);
}

static TdeKeyringStatus
set_state(KmipDecoding *d, uint32 state)
{
	switch (state)
	{
		case 1:
			d->answer->state = TDE_PRINCIPAL_PRE_ACTIVE;
			break;
		case 2:
			d->answer->state = TDE_PRINCIPAL_ACTIVE;
			break;
		case 3:
			d->answer->state = TDE_PRINCIPAL_DEACTIVATED;
			break;
		case 4:
			d->answer->state = TDE_PRINCIPAL_COMPROMISED;
			break;
		case 5:
		case 6:					/* destroyed, having been compromised */
			d->answer->state = TDE_PRINCIPAL_DESTROYED;
			break;
		default:
			return kmip_fail_bad(d, gettext_noop("the state of the key is unknown"));
	}
	return TDE_KEYRING_OK;
}

/* 1.x: an Attribute with the name "State" among any others. */
static TdeKeyringStatus
decode_state_1(KmipDecoding *d)
{
	TdeTtlvItem child = {0};
	bool		found = false;

	while (tde_ttlv_next(&d->payload, &child))
	{
		TdeTtlvItem name;
		uint32		state;
		TdeKeyringStatus status;

		if (child.tag != KMIP_TAG_ATTRIBUTE)
			continue;
		if (child.type !=TDE_TTLV_STRUCTURE)
			return kmip_fail_bad(d, gettext_noop("an attribute has a wrong type"));
		status = kmip_get_item(d, &child, KMIP_TAG_ATTRIBUTE_NAME,
							   TDE_TTLV_TEXT, true, "Attribute Name", &name);
		if (status != TDE_KEYRING_OK)
			return status;
		if (!tde_ttlv_text_is(&name, "State"))
			continue;
		if (found)
			return kmip_fail_bad(d, gettext_noop("it has more than one state"));
		found = true;
		status = kmip_get_enum(d, &child, KMIP_TAG_ATTRIBUTE_VALUE,
							   "Attribute Value", &state);
		if (status == TDE_KEYRING_OK)
			status = set_state(d, state);
		if (status != TDE_KEYRING_OK)
			return status;
	}
	return found ? TDE_KEYRING_OK :
		kmip_fail_bad(d, gettext_noop("it has no state"));
}

/* 2.x: an item of its own among the Attributes. */
static TdeKeyringStatus
decode_state_2(KmipDecoding *d)
{
	TdeTtlvItem attributes;
	uint32		state;
	TdeKeyringStatus status;

	if ((status = kmip_get_item(d, &d->payload, KMIP_TAG_ATTRIBUTES,
								TDE_TTLV_STRUCTURE, true, "Attributes",
								&attributes)) != TDE_KEYRING_OK ||
		(status = kmip_get_enum(d, &attributes, KMIP_TAG_STATE, "State",
								&state)) != TDE_KEYRING_OK)
		return status;
	return set_state(d, state);
}

TdeKeyringStatus
kmip_decode_payload(KmipDecoding *d)
{
	TdeTtlvItem item;
	TdeKeyringStatus status;

	switch (d->request->operation)
	{
		case KMIP_DISCOVER_VERSIONS:
			return decode_discover_versions(d);
		case KMIP_QUERY:
			return decode_query(d);
		case KMIP_LOCATE:
			return decode_locate(d);
		case KMIP_CREATE:
		case KMIP_REGISTER:
			status = kmip_get_item(d, &d->payload, KMIP_TAG_UNIQUE_IDENTIFIER,
								   TDE_TTLV_TEXT, true, "Unique Identifier",
								   &item);
			if (status == TDE_KEYRING_OK)
				status = copy_id(d, &item, d->answer->id);
			return status;
		case KMIP_GET:
			return decode_get(d);
		case KMIP_GET_ATTRIBUTES:
			status = check_id(d);
			if (status == TDE_KEYRING_OK)
				status = d->request->version.major < 2 ?
					decode_state_1(d) : decode_state_2(d);
			return status;
		case KMIP_ACTIVATE:
		case KMIP_REVOKE:
		case KMIP_DESTROY:
			return check_id(d);
	}
	return kmip_fail_bad(d, gettext_noop("operation is unknown"));
}
