/*-------------------------------------------------------------------------
 *
 * responses.h
 *	  What responses.c and payloads.c share: the message and what is in it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/responses.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KMIP_RESPONSES_H
#define TDE_KMIP_RESPONSES_H

#include "messages.h"

/* A response being taken apart. */
typedef struct KmipDecoding
{
	const TdeKmipRequest *request;
	TdeKmipAnswer *answer;
	TdeKeyringError *error;
	TdeTtlvItem payload;
} KmipDecoding;

/* The answer breaks the protocol, or is not ours.  "why" is a constant. */
extern TdeKeyringStatus kmip_fail_bad(KmipDecoding *d, const char *why);

/*
 * The one item of that tag; absent is an error if it is required, else
 * item->value is NULL.  "what" is its name in the specification.
 */
extern TdeKeyringStatus kmip_get_item(KmipDecoding *d,
									  const TdeTtlvItem *parent,
									  uint32 tag, TdeTtlvType type,
									  bool required, const char *what,
									  TdeTtlvItem *item);

/* As above for a required enumeration or integer, with its value. */
extern TdeKeyringStatus kmip_get_enum(KmipDecoding *d,
									  const TdeTtlvItem *parent,
									  uint32 tag, const char *what,
									  uint32 *value);
extern TdeKeyringStatus kmip_get_integer(KmipDecoding *d,
										 const TdeTtlvItem *parent,
										 uint32 tag, const char *what,
										 int32 *value);

/* The version that a structure Protocol Version contains. */
extern TdeKeyringStatus kmip_get_version(KmipDecoding *d,
										 const TdeTtlvItem *item,
										 TdeKmipVersion *version);

/* Fill d->answer from d->payload. */
extern TdeKeyringStatus kmip_decode_payload(KmipDecoding *d);

#endif							/* TDE_KMIP_RESPONSES_H */
