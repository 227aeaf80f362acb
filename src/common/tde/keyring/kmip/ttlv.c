/*-------------------------------------------------------------------------
 *
 * ttlv.c
 *	  Writing and reading TTLV, the encoding of KMIP.
 *
 * A message is checked as a whole before anything in it is looked at, by
 * tde_ttlv_check().  So the functions that walk through it afterwards need no
 * bounds of their own, and nothing is taken from a message that is broken
 * somewhere else.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/ttlv.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "mb/pg_wchar.h"
#include "ttlv.h"

static uint32
get_uint32(const uint8 *p)
{
	return (uint32) p[0] << 24 | (uint32) p[1] << 16 |
		(uint32) p[2] << 8 | (uint32) p[3];
}

static void
put_uint32(uint8 *p, uint32 value)
{
	p[0] = (uint8) (value >> 24);
	p[1] = (uint8) (value >> 16);
	p[2] = (uint8) (value >> 8);
	p[3] = (uint8) value;
}

/* ---- writing ---- */

void
tde_ttlv_writer_init(TdeTtlvWriter *w, uint8 *buf, size_t size)
{
	memset(w, 0, sizeof(*w));
	w->buf = buf;
	w->size = size;
}

/*
 * Header and room for the value, padding zeroed; NULL if it does not fit.
 */
static uint8 *
put_item(TdeTtlvWriter *w, uint32 tag, TdeTtlvType type, size_t len)
{
	uint8	   *p = w->buf + w->len;
	size_t		room = w->size - w->len;

	if (w->failed || len > PG_INT32_MAX ||
		room < TDE_TTLV_HEADER_LEN + TdeTtlvPadded(len))
	{
		w->failed = true;
		return NULL;
	}
	put_uint32(p, tag << 8 | type);
	put_uint32(p + 4, (uint32) len);
	p += TDE_TTLV_HEADER_LEN;
	memset(p + len, 0, TdeTtlvPadded(len) - len);
	w->len += TDE_TTLV_HEADER_LEN + TdeTtlvPadded(len);
	return p;
}

void
tde_ttlv_begin(TdeTtlvWriter *w, uint32 tag)
{
	size_t		start = w->len;

	if (w->depth == TDE_TTLV_MAX_DEPTH)
		w->failed = true;
	if (put_item(w, tag, TDE_TTLV_STRUCTURE, 0) != NULL)
		w->open[w->depth++] = start;
}

void
tde_ttlv_end(TdeTtlvWriter *w)
{
	size_t		start;

	if (w->failed)
		return;
	Assert(w->depth > 0);
	start = w->open[--w->depth];
	put_uint32(w->buf + start + 4,
			   (uint32) (w->len - start - TDE_TTLV_HEADER_LEN));
}

void
tde_ttlv_put_raw(TdeTtlvWriter *w, uint32 tag, TdeTtlvType type,
				 const void *value, size_t len)
{
	uint8	   *p = put_item(w, tag, type, len);

	if (p != NULL && len > 0)
		memcpy(p, value, len);
}

void
tde_ttlv_put_integer(TdeTtlvWriter *w, uint32 tag, int32 value)
{
	uint8		b[4];

	put_uint32(b, (uint32) value);
	tde_ttlv_put_raw(w, tag, TDE_TTLV_INTEGER, b, sizeof(b));
}

void
tde_ttlv_put_enum(TdeTtlvWriter *w, uint32 tag, uint32 value)
{
	uint8		b[4];

	put_uint32(b, value);
	tde_ttlv_put_raw(w, tag, TDE_TTLV_ENUMERATION, b, sizeof(b));
}

void
tde_ttlv_put_date_time(TdeTtlvWriter *w, uint32 tag, int64 value)
{
	uint8		b[8];

	put_uint32(b, (uint32) ((uint64) value >> 32));
	put_uint32(b + 4, (uint32) value);
	tde_ttlv_put_raw(w, tag, TDE_TTLV_DATE_TIME, b, sizeof(b));
}

static bool
text_is_valid(const char *text, size_t len)
{
	/* stops at a NUL, too */
	return len <= PG_INT32_MAX &&
		pg_encoding_verifymbstr(PG_UTF8, text, (int) len) == (int) len;
}

void
tde_ttlv_put_text(TdeTtlvWriter *w, uint32 tag, const char *value)
{
	size_t		len = strlen(value);

	if (!text_is_valid(value, len))
		w->failed = true;
	tde_ttlv_put_raw(w, tag, TDE_TTLV_TEXT, value, len);
}

void
tde_ttlv_put_bytes(TdeTtlvWriter *w, uint32 tag, const void *value, size_t len)
{
	tde_ttlv_put_raw(w, tag, TDE_TTLV_BYTES, value, len);
}

/* ---- checking ---- */

static bool
all_zero(const uint8 *p, size_t len)
{
	while (len-- > 0)
	{
		if (*p++ != 0)
			return false;
	}
	return true;
}

/* The item at p, which has "room" bytes until its parent ends. */
static bool
check_item(const uint8 *p, size_t room, TdeTtlvItem *item, const char **reason)
{
	bool		length_ok;

	if (room < TDE_TTLV_HEADER_LEN)
	{
		*reason = gettext_noop("an item is cut off");
		return false;
	}
	item->tag = get_uint32(p) >> 8;
	item->type = p[3];
	item->len = get_uint32(p + 4);
	item->value = p + TDE_TTLV_HEADER_LEN;
	room -= TDE_TTLV_HEADER_LEN;

	switch (item->type)
	{
		case TDE_TTLV_STRUCTURE:
			length_ok = item->len % 8 == 0;
			break;
		case TDE_TTLV_INTEGER:
		case TDE_TTLV_ENUMERATION:
		case TDE_TTLV_INTERVAL:
			length_ok = item->len == 4;
			break;
		case TDE_TTLV_LONG:
		case TDE_TTLV_BOOLEAN:
		case TDE_TTLV_DATE_TIME:
		case TDE_TTLV_DATE_TIME_EXTENDED:
			length_ok = item->len == 8;
			break;
		case TDE_TTLV_BIG_INTEGER:
			length_ok = item->len > 0 && item->len % 8 == 0;
			break;
		case TDE_TTLV_TEXT:
		case TDE_TTLV_BYTES:
			length_ok = true;
			break;
		default:
			*reason = gettext_noop("an item has an unknown type");
			return false;
	}
	if (!length_ok)
	{
		*reason = gettext_noop("an item has a length that its type does not have");
		return false;
	}

	/* in this order, so that a huge length cannot overflow when padded */
	if (item->len > room || TdeTtlvPadded(item->len) > room)
	{
		*reason = gettext_noop("an item is longer than what contains it");
		return false;
	}
	if (!all_zero(item->value + item->len,
				  TdeTtlvPadded(item->len) - item->len))
	{
		*reason = gettext_noop("padding is not zero");
		return false;
	}
	if (item->type == TDE_TTLV_BOOLEAN &&
		(!all_zero(item->value, 7) || item->value[7] > 1))
	{
		*reason = gettext_noop("a Boolean is neither true nor false");
		return false;
	}
	if (item->type == TDE_TTLV_TEXT &&
		!text_is_valid((const char *) item->value, item->len))
	{
		*reason = gettext_noop("a text is not valid UTF-8");
		return false;
	}
	return true;
}

bool
tde_ttlv_check(const uint8 *buf, size_t len, TdeTtlvItem *root,
			   const char **reason)
{
	const uint8 *end[TDE_TTLV_MAX_DEPTH + 1];	/* of the open structures */
	const uint8 *p = buf;
	int			depth = 0;
	int			nitems = 0;

	end[0] = buf + len;
	do
	{
		TdeTtlvItem item;

		if (!check_item(p, end[depth] - p, &item, reason))
			return false;
		if (++nitems > TDE_TTLV_MAX_ITEMS)
		{
			*reason = gettext_noop("there are too many items");
			return false;
		}
		if (nitems == 1)
		{
			*root = item;
			if (TdeTtlvPadded(item.len) != len - TDE_TTLV_HEADER_LEN)
			{
				*reason = gettext_noop("there is something behind the end");
				return false;
			}
		}
		p = item.value;
		if (item.type == TDE_TTLV_STRUCTURE)
		{
			if (depth == TDE_TTLV_MAX_DEPTH)
			{
				*reason = gettext_noop("structures are nested too deeply");
				return false;
			}
			end[++depth] = item.value + item.len;
		}
		else
			p += TdeTtlvPadded(item.len);

		/* structures that end here */
		while (depth > 0 && p == end[depth])
			depth--;
	} while (depth > 0);

	return true;
}

/* ---- reading ---- */

bool
tde_ttlv_next(const TdeTtlvItem *parent, TdeTtlvItem *child)
{
	const uint8 *p = parent->value;

	Assert(parent->type == TDE_TTLV_STRUCTURE);
	if (child->value != NULL)
		p = child->value + TdeTtlvPadded(child->len);

	if (p >= parent->value + parent->len)
		return false;
	child->tag = get_uint32(p) >> 8;
	child->type = p[3];
	child->len = get_uint32(p + 4);
	child->value = p + TDE_TTLV_HEADER_LEN;
	return true;
}

TdeTtlvFound
tde_ttlv_find(const TdeTtlvItem *parent, uint32 tag, TdeTtlvType type,
			  TdeTtlvItem *item)
{
	TdeTtlvItem child = {0};
	TdeTtlvFound found = TDE_TTLV_ABSENT;

	memset(item, 0, sizeof(*item));
	while (tde_ttlv_next(parent, &child))
	{
		if (child.tag != tag)
			continue;
		if (found != TDE_TTLV_ABSENT)
			found = TDE_TTLV_REPEATED;
		else if (child.type !=type)
			found = TDE_TTLV_WRONG_TYPE;
		else
		{
			found = TDE_TTLV_FOUND;
			*item = child;
		}
	}
	if (found != TDE_TTLV_FOUND)
		memset(item, 0, sizeof(*item));
	return found;
}

int32
tde_ttlv_integer(const TdeTtlvItem *item)
{
	Assert(item->type == TDE_TTLV_INTEGER);
	return (int32) get_uint32(item->value);
}

uint32
tde_ttlv_enum(const TdeTtlvItem *item)
{
	Assert(item->type == TDE_TTLV_ENUMERATION);
	return get_uint32(item->value);
}

int64
tde_ttlv_long(const TdeTtlvItem *item)
{
	Assert(item->type == TDE_TTLV_LONG || item->type == TDE_TTLV_DATE_TIME);
	return (int64) ((uint64) get_uint32(item->value) << 32 |
					get_uint32(item->value + 4));
}

bool
tde_ttlv_text_is(const TdeTtlvItem *item, const char *text)
{
	return item->type == TDE_TTLV_TEXT && item->len == strlen(text) &&
		memcmp(item->value, text, item->len) == 0;
}
