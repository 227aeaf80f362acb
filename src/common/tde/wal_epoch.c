/*-------------------------------------------------------------------------
 *
 * wal_epoch.c
 *	  The record of a WAL epoch, and the file of all of them; specified in
 *	  doc/wal-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/wal_epoch.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "cipher_internal.h"
#include "format_internal.h"
#include "tde/wal_epoch.h"

#define MAGIC			"CFWE"

/*
 * In version 1 the record of an epoch in clear has no key, and so no tag.
 * Those of encrypted epochs are still written with version 1.
 */
#define VERSION_CLEAR_TAGGED	2
#define VERSION			2

/* Offsets. */
#define OFFSET_LENGTH	8
#define OFFSET_ID		12
#define OFFSET_IV		72
#define OFFSET_WRAPPED	(OFFSET_IV + TDE_WRAP_IV_LEN)
#define OFFSET_TAG		(OFFSET_WRAPPED + TDE_WAL_KEY_LEN)
#define OFFSET_SCOPE_LEN (OFFSET_TAG + TDE_WRAP_TAG_LEN)
#define OFFSET_SCOPE	(OFFSET_SCOPE_LEN + 4)

/* All before the IV but the length, which goes with the scope. */
#define AAD_LEN			(OFFSET_IV - (OFFSET_ID - OFFSET_LENGTH))

#define STORE_MAGIC		"CFWS"
#define STORE_VERSION	1
#define STORE_HEADER	(TDE_WAL_EPOCHS_OVERHEAD - TDE_CRC_LEN)

static void
make_aad(const uint8 *buf, uint8 *aad)
{
	memcpy(aad, buf, OFFSET_LENGTH);
	memcpy(aad + OFFSET_LENGTH, buf + OFFSET_ID, OFFSET_IV - OFFSET_ID);
}

/* Is it the server's scope, with the one generation that the epoch names? */
static bool
scope_fits(const TdeWalEpoch *epoch)
{
	TdeScope	scope;
	TdeScopeGeneration generation;
	const char *reason;

	return tde_scope_count(epoch->scope, epoch->scope_len, &reason) == 1 &&
		tde_scope_decode(epoch->scope, epoch->scope_len, &scope,
						 &generation, 1, &reason) == 0 &&
		scope.kind == TDE_SCOPE_SERVER &&
		TdeIdEquals(&generation.id, &epoch->generation);
}

/* What is wrong with the values of an epoch; NULL if nothing is. */
static const char *
check_values(const TdeWalEpoch *epoch)
{
	static const TdeId zero;

	if (epoch->tli == 0 || epoch->prev_tli == 0 ||
		epoch->prev_tli > epoch->tli)
		return gettext_noop("timeline of the epoch is invalid");
	if (epoch->start % XLOG_BLCKSZ != 0 ||
		epoch->prev_end == InvalidXLogRecPtr ||
		epoch->prev_end >= epoch->start)
		return gettext_noop("position of the epoch is invalid");
	if (epoch->id == 0 && !tde_wal_epoch_is_tagged(epoch))
	{
		if (!TdeIdEquals(&epoch->generation, &zero))
			return gettext_noop("epoch in clear has a key");
	}
	else if (!scope_fits(epoch))
		return gettext_noop("epoch's key is not under the server's scope");
	return NULL;
}

size_t
tde_wal_epoch_encode(const TdeWalEpoch *epoch, const uint8 *scope_key,
					 uint8 *buf)
{
	TdeWriter	w = {buf};
	uint8		aad[AAD_LEN];
	bool		tagged = tde_wal_epoch_is_tagged(epoch);
	const char *wrong = check_values(epoch);
	size_t		len = OFFSET_SCOPE + epoch->scope_len + TDE_CRC_LEN;

	if (wrong == NULL && len > TDE_WAL_EPOCH_MAX_LEN)
		wrong = gettext_noop("scope is too long");
	if (wrong != NULL)
	{
		tde_fail(wrong);
		return 0;
	}

	tde_put_bytes(&w, MAGIC, TDE_MAGIC_LEN);
	tde_put_uint(&w, tagged && epoch->id == 0 ? VERSION_CLEAR_TAGGED : 1, 2);
	tde_put_uint(&w, 0, 2);		/* flags */
	tde_put_uint(&w, len, 4);
	tde_put_uint(&w, epoch->id, 4);
	tde_put_uint(&w, epoch->tli, 4);
	tde_put_uint(&w, epoch->prev_tli, 4);
	tde_put_uint(&w, epoch->start, 8);
	tde_put_uint(&w, epoch->prev_end, 8);
	tde_put_uint(&w, epoch->system_identifier, 8);
	tde_put_uint(&w, epoch->created, 8);
	tde_put_bytes(&w, epoch->generation.b, TDE_ID_LEN);
	Assert(w.p == buf + OFFSET_IV);

	if (!tagged)
		tde_put_reserved(&w, OFFSET_SCOPE_LEN - OFFSET_IV);
	else
	{
		make_aad(buf, aad);
		if (tde_wrap(scope_key, aad, AAD_LEN, epoch->key, TDE_WAL_KEY_LEN,
					 buf + OFFSET_IV, buf + OFFSET_WRAPPED,
					 buf + OFFSET_TAG) < 0)
			return 0;
		w.p = buf + OFFSET_SCOPE_LEN;
	}
	tde_put_uint(&w, epoch->scope_len, 4);
	if (epoch->scope_len > 0)
		tde_put_bytes(&w, epoch->scope, epoch->scope_len);
	tde_put_uint(&w, tde_format_crc(buf, len), TDE_CRC_LEN);
	Assert(w.p == buf + len);
	return len;
}

int
tde_wal_epoch_decode(const uint8 *buf, size_t len, TdeWalEpoch *epoch,
					 const char **reason)
{
	TdeReader	r;
	int			version;
	bool		known;
	bool		tagged;
	size_t		stated;

	memset(epoch, 0, sizeof(TdeWalEpoch));
	version = tde_format_begin(&r, buf, len, MAGIC, VERSION, reason);
	if (version == 0)
		return -1;
	known = tde_get_uint(&r, 2) == 0;
	stated = tde_get_uint(&r, 4);
	if (!tde_format_check(&r, buf, len, stated, reason))
		return -1;

	epoch->id = tde_get_uint(&r, 4);
	epoch->tli = tde_get_uint(&r, 4);
	epoch->prev_tli = tde_get_uint(&r, 4);
	epoch->start = tde_get_uint(&r, 8);
	epoch->prev_end = tde_get_uint(&r, 8);
	epoch->system_identifier = tde_get_uint(&r, 8);
	epoch->created = tde_get_uint(&r, 8);
	tde_get_bytes(&r, epoch->generation.b, TDE_ID_LEN);
	tagged = epoch->id != 0 || version >= VERSION_CLEAR_TAGGED;
	if (!tagged)
		tde_get_reserved(&r, OFFSET_SCOPE_LEN - OFFSET_IV);
	else if ((size_t) (r.end - r.p) >= OFFSET_SCOPE_LEN - OFFSET_IV)
		r.p = buf + OFFSET_SCOPE_LEN;
	else
		r.failed = true;
	epoch->scope_len = tde_get_uint(&r, 4);
	epoch->scope = r.p;

	if (r.failed || len > TDE_WAL_EPOCH_MAX_LEN ||
		(size_t) (r.end - r.p) != epoch->scope_len)
		*reason = gettext_noop("record has a wrong length");
	else if (!known)
		*reason = gettext_noop("record uses an unknown feature");
	else if (tagged != tde_wal_epoch_is_tagged(epoch))
		*reason = gettext_noop("record's scope does not fit its version");
	else
		*reason = check_values(epoch);
	return *reason == NULL ? 0 : -1;
}

uint32
tde_wal_epoch_id(const uint8 *buf)
{
	TdeReader	r;

	tde_reader_init(&r, buf + OFFSET_ID, sizeof(uint32));
	return tde_get_uint(&r, 4);
}

size_t
tde_wal_epoch_length(const uint8 *buf, size_t len)
{
	TdeReader	r;
	size_t		stated;

	if (len < OFFSET_ID)
		return len;
	tde_reader_init(&r, buf + OFFSET_LENGTH, OFFSET_ID - OFFSET_LENGTH);
	stated = tde_get_uint(&r, 4);
	return stated < len ? stated : len;
}

int
tde_wal_epoch_unwrap(const uint8 *buf, size_t len, const uint8 *scope_key,
					 TdeWalEpoch *epoch, const char **reason)
{
	uint8		aad[AAD_LEN];

	if (tde_wal_epoch_decode(buf, len, epoch, reason) < 0)
		return -1;
	if (!tde_wal_epoch_is_tagged(epoch))
	{
		*reason = gettext_noop("record has no tag");
		return -1;
	}
	make_aad(buf, aad);
	if (tde_unwrap(scope_key, buf + OFFSET_IV, aad, AAD_LEN,
				   buf + OFFSET_WRAPPED, TDE_WAL_KEY_LEN, epoch->key,
				   buf + OFFSET_TAG) < 0)
	{
		*reason = gettext_noop("scope key does not authenticate the record");
		return -1;
	}
	return 0;
}

size_t
tde_wal_epochs_finish(uint8 *buf, size_t len, uint32 n)
{
	TdeWriter	w = {buf};
	size_t		total = len + TDE_WAL_EPOCHS_OVERHEAD;

	tde_put_bytes(&w, STORE_MAGIC, TDE_MAGIC_LEN);
	tde_put_uint(&w, STORE_VERSION, 2);
	tde_put_uint(&w, 0, 2);		/* flags */
	tde_put_uint(&w, total, 4);
	tde_put_uint(&w, n, 4);
	Assert(w.p == buf + STORE_HEADER);
	w.p += len;
	tde_put_uint(&w, tde_format_crc(buf, total), TDE_CRC_LEN);
	return total;
}

int
tde_wal_epochs_open(const uint8 *buf, size_t len, const char **reason)
{
	TdeReader	r;
	bool		known;
	size_t		stated;
	uint32		n;
	uint32		found = 0;
	size_t		position = 0;
	const uint8 *p;
	size_t		epoch_len;
	TdeWalEpoch epoch;

	if (!tde_format_begin(&r, buf, len, STORE_MAGIC, STORE_VERSION, reason))
		return -1;
	known = tde_get_uint(&r, 2) == 0;
	stated = tde_get_uint(&r, 4);
	if (!tde_format_check(&r, buf, len, stated, reason))
		return -1;
	n = tde_get_uint(&r, 4);
	if (r.failed || !known)
	{
		*reason = gettext_noop("file uses an unknown feature");
		return -1;
	}
	while ((p = tde_wal_epochs_next(buf, len, &position, &epoch_len)) != NULL)
	{
		if (tde_wal_epoch_decode(p, epoch_len, &epoch, reason) < 0)
			return -1;
		found++;
	}
	if (found != n || position != len - TDE_CRC_LEN || n > PG_INT32_MAX)
	{
		*reason = gettext_noop("number of epochs does not fit the length");
		return -1;
	}
	return (int) n;
}

const uint8 *
tde_wal_epochs_next(const uint8 *buf, size_t len, size_t *position,
					size_t *epoch_len)
{
	size_t		end = len - TDE_CRC_LEN;
	const uint8 *p;
	TdeReader	r;

	if (*position == 0)
		*position = STORE_HEADER;
	if (end - *position < OFFSET_ID)
		return NULL;
	p = buf + *position;
	tde_reader_init(&r, p + OFFSET_LENGTH, OFFSET_ID - OFFSET_LENGTH);
	*epoch_len = tde_get_uint(&r, 4);
	if (*epoch_len < OFFSET_ID + sizeof(uint32) || *epoch_len > end - *position)
		return NULL;
	*position += *epoch_len;
	return p;
}

/* Is an encoded epoch in a file? */
static bool
contains(const uint8 *buf, size_t len, const uint8 *epoch, size_t epoch_len)
{
	size_t		position = 0;
	size_t		next_len;
	const uint8 *p;

	while ((p = tde_wal_epochs_next(buf, len, &position, &next_len)) != NULL)
	{
		if (next_len == epoch_len && memcmp(p, epoch, epoch_len) == 0)
			return true;
	}
	return false;
}

size_t
tde_wal_epochs_merge(const uint8 *a, size_t a_len,
					 const uint8 *b, size_t b_len, uint8 *buf)
{
	const uint8 *files[2] = {a, b};
	const size_t lens[2] = {a_len, b_len};
	uint8	   *to = buf + STORE_HEADER;
	uint32		n = 0;

	for (int i = 0; i < 2; i++)
	{
		size_t		position = 0;
		size_t		epoch_len;
		const uint8 *p;

		while (files[i] != NULL &&
			   (p = tde_wal_epochs_next(files[i], lens[i], &position,
										&epoch_len)) != NULL)
		{
			if (i == 1 && a != NULL && contains(a, a_len, p, epoch_len))
				continue;
			memcpy(to, p, epoch_len);
			to += epoch_len;
			n++;
		}
	}
	return tde_wal_epochs_finish(buf, to - buf - STORE_HEADER, n);
}

bool
tde_wal_epoch_matches(const TdeWalEpoch *epoch, const TdeWalEpochQuery *query)
{
	if (epoch->id != query->id || epoch->tli != query->tli)
		return false;
	if (query->start != InvalidXLogRecPtr)
		return epoch->start == query->start;
	return epoch->start <= query->pageaddr;
}
