/*-------------------------------------------------------------------------
 *
 * check_ttlv.c
 *	  TTLV, the encoding of KMIP: the specification's examples, and what must
 *	  be refused.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/check_ttlv.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "tde/cipher.h"
#include "../../../common/tde/keyring/kmip/ttlv.h"

#include "checks.h"

static const struct
{
	const char *name;
	TdeTtlvType type;
}			types[] = {
	{"Structure", TDE_TTLV_STRUCTURE},
	{"Integer", TDE_TTLV_INTEGER},
	{"Long Integer", TDE_TTLV_LONG},
	{"Big Integer", TDE_TTLV_BIG_INTEGER},
	{"Enumeration", TDE_TTLV_ENUMERATION},
	{"Boolean", TDE_TTLV_BOOLEAN},
	{"Text String", TDE_TTLV_TEXT},
	{"Byte String", TDE_TTLV_BYTES},
	{"Date-Time", TDE_TTLV_DATE_TIME},
	{"Interval", TDE_TTLV_INTERVAL},
};

/* Write again what was read. */
static void
write_item(TdeTtlvWriter *w, const TdeTtlvItem *item)
{
	TdeTtlvItem child = {0};

	if (item->type !=TDE_TTLV_STRUCTURE)
	{
		tde_ttlv_put_raw(w, item->tag, item->type, item->value, item->len);
		return;
	}
	tde_ttlv_begin(w, item->tag);
	while (tde_ttlv_next(item, &child))
		write_item(w, &child);
	tde_ttlv_end(w);
}

/* Does the item say what the vector says, and is it written from that? */
static bool
value_is_right(Vectors *v, const TdeTtlvItem *item, TdeTtlvWriter *w)
{
	const char *value = vectors_get(v, "value");
	long long	number = strtoll(value, NULL, 10);
	uint8		bytes[64];
	size_t		len;

	switch (item->type)
	{
		case TDE_TTLV_INTEGER:
			tde_ttlv_put_integer(w, item->tag, (int32) number);
			return tde_ttlv_integer(item) == number;
		case TDE_TTLV_ENUMERATION:
			tde_ttlv_put_enum(w, item->tag, (uint32) number);
			return tde_ttlv_enum(item) == number;
		case TDE_TTLV_DATE_TIME:
			tde_ttlv_put_date_time(w, item->tag, number);
			return tde_ttlv_long(item) == number;
		case TDE_TTLV_TEXT:
			tde_ttlv_put_text(w, item->tag, value);
			return tde_ttlv_text_is(item, value);
		case TDE_TTLV_BYTES:
			len = vectors_bytes(v, "value", bytes, sizeof(bytes));
			tde_ttlv_put_bytes(w, item->tag, bytes, len);
			return len == item->len && memcmp(bytes, item->value, len) == 0;
		case TDE_TTLV_LONG:
			write_item(w, item);
			return tde_ttlv_long(item) == number;
		default:
			write_item(w, item);
			return true;
	}
}

static void
check_vectors(Checks *checks)
{
	Vectors		v;
	int			n = 0;

	vectors_open(&v, checks, "ttlv.txt");
	while (vectors_next(&v))
	{
		uint8		bytes[128];
		uint8		again[128];
		size_t		len = vectors_bytes(&v, "bytes", bytes, sizeof(bytes));
		TdeTtlvItem item;
		TdeTtlvWriter w;
		const char *reason;
		bool		ok;

		tde_ttlv_writer_init(&w, again, sizeof(again));
		ok = tde_ttlv_check(bytes, len, &item, &reason) &&
			n < lengthof(types) && value_is_right(&v, &item, &w);
		for (int i = 0; i < lengthof(types); i++)
		{
			if (strcmp(types[i].name, vectors_get(&v, "type")) == 0)
				ok = ok && item.type == types[i].type;
		}
		check(checks, ok, "ttlv: %s is read", vectors_get(&v, "type"));
		check(checks, !w.failed && w.len == len &&
			  memcmp(bytes, again, len) == 0,
			  "ttlv: %s is written", vectors_get(&v, "type"));
		n++;
	}
	check(checks, n == lengthof(types), "ttlv: all types have an example");
	vectors_close(&v);
}

/* ---- what must be refused ---- */

static const struct
{
	const char *name;
	const char *hex;
	const char *reason;			/* NULL: accepted */
}			messages[] = {
	{"nothing", "", "an item is cut off"},
	{"7 bytes", "42002002000000", "an item is cut off"},
	{"no value", "4200200200000004", "an item is longer than what contains it"},
	{"no padding", "420020020000000400000008", "an item is longer than what contains it"},
	{"half the padding", "4200200200000004000000080000", "an item is longer than what contains it"},
	{"two items", "4200200200000004000000080000000042002002000000040000000800000000", "there is something behind the end"},
	{"a byte behind", "4200200200000004000000080000000000", "there is something behind the end"},
	{"padding not zero", "42002002000000040000000800000001", "padding is not zero"},
	{"padding of text not zero", "420020070000000161000000000000ff", "padding is not zero"},
	{"type 0", "42002000000000040000000800000000", "an item has an unknown type"},
	{"type 0C", "4200200c000000040000000800000000", "an item has an unknown type"},
	{"type FF", "420020ff000000040000000800000000", "an item has an unknown type"},
	{"any tag", "ffffff02000000040000000800000000", NULL},
	{"Integer of 3", "42002002000000030000080000000000", "an item has a length that its type does not have"},
	{"Integer of 8", "42002002000000080000000800000000", "an item has a length that its type does not have"},
	{"Long Integer of 4", "42002003000000040000000800000000", "an item has a length that its type does not have"},
	{"Big Integer of 0", "4200200400000000", "an item has a length that its type does not have"},
	{"Big Integer of 4", "42002004000000040000000800000000", "an item has a length that its type does not have"},
	{"Enumeration of 0", "4200200500000000", "an item has a length that its type does not have"},
	{"Boolean of 4", "42002006000000040000000100000000", "an item has a length that its type does not have"},
	{"Boolean 2", "42002006000000080000000000000002", "a Boolean is neither true nor false"},
	{"Boolean 2^63", "42002006000000088000000000000000", "a Boolean is neither true nor false"},
	{"Date-Time of 16", "420020090000001000000000000000010000000000000001", "an item has a length that its type does not have"},
	{"Interval of 8", "4200200a000000080000000000000001", "an item has a length that its type does not have"},
	{"extended Date-Time", "4200200b000000080000000000000001", NULL},
	{"extended Date-Time of 4", "4200200b000000040000000100000000", "an item has a length that its type does not have"},
	{"text with NUL inside", "42002007000000036100620000000000", "a text is not valid UTF-8"},
	{"text that is NUL", "42002007000000010000000000000000", "a text is not valid UTF-8"},
	{"text in Latin 1", "4200200700000003fc62630000000000", "a text is not valid UTF-8"},
	{"text that ends in a character", "420020070000000261c3000000000000", "a text is not valid UTF-8"},
	{"text with a surrogate", "4200200700000003eda0800000000000", "a text is not valid UTF-8"},
	{"text with an overlong slash", "4200200700000002c0af000000000000", "a text is not valid UTF-8"},
	{"empty text", "4200200700000000", NULL},
	{"empty bytes", "4200200800000000", NULL},
	{"empty structure", "4200200100000000", NULL},
	{"structure of 4", "420020010000000400000000", "an item has a length that its type does not have"},
	{"structure without content", "4200200100000008", "an item is longer than what contains it"},
	{"structure of half an item", "42002001000000084200040500000004", "an item is longer than what contains it"},
	{"child longer than its parent", "420020010000001042000407000000096161616161616161", "an item is longer than what contains it"},
	{"child that ends in its uncle", "420020010000002042000401000000084200050100000008420006020000000400000001", "an item is longer than what contains it"},
	{"length 7FFFFFFF", "420020077fffffff6161616161616161", "an item is longer than what contains it"},
	{"length 80000000", "42002007800000006161616161616161", "an item is longer than what contains it"},
	{"length FFFFFFFF", "42002007ffffffff6161616161616161", "an item is longer than what contains it"},
	{"bytes of length FFFFFFFF", "42002008ffffffff6161616161616161", "an item is longer than what contains it"},
	{"structure of length FFFFFFF8", "42002001fffffff86161616161616161", "an item is longer than what contains it"},
};

static size_t
from_hex(const char *hex, uint8 *buf)
{
	size_t		len = strlen(hex) / 2;

	for (size_t i = 0; i < len; i++)
	{
		char		digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		buf[i] = (uint8) strtol(digits, NULL, 16);
	}
	return len;
}

/* In memory of just this size, so that a sanitizer sees. */
static bool
accepts(const uint8 *bytes, size_t len, const char **reason)
{
	uint8	   *exact = palloc(len + 1);
	TdeTtlvItem root;
	bool		ok;

	memcpy(exact + 1, bytes, len);
	*reason = NULL;
	ok = tde_ttlv_check(exact + 1, len, &root, reason);
	pfree(exact);
	return ok;
}

/* A structure with depth structures in it, one in the other. */
static size_t
nest(uint8 *buf, int depth)
{
	for (int i = 0; i <= depth; i++)
	{
		const uint8 header[] = {0x42, 0, 0x20, TDE_TTLV_STRUCTURE};
		uint32		len = 8 * (depth - i);

		memcpy(buf + 8 * i, header, 4);
		for (int b = 0; b < 4; b++)
			buf[8 * i + 4 + b] = (uint8) (len >> (24 - 8 * b));
	}
	return 8 * (depth + 1);
}

/* A structure with so many empty structures in it. */
static size_t
fill(uint8 *buf, int n)
{
	for (int i = 0; i <= n; i++)
		nest(buf + 8 * i, 0);
	buf[5] = (uint8) (8 * n >> 16);
	buf[6] = (uint8) (8 * n >> 8);
	buf[7] = (uint8) (8 * n);
	return 8 * (n + 1);
}

static void
check_refusals(Checks *checks)
{
	size_t		size = 8 * (TDE_TTLV_MAX_ITEMS + 10);
	uint8	   *buf = palloc(size);
	const char *reason;
	size_t		len;

	for (int i = 0; i < lengthof(messages); i++)
	{
		bool		ok;

		len = from_hex(messages[i].hex, buf);
		ok = accepts(buf, len, &reason);
		check(checks, messages[i].reason == NULL ? ok :
			  !ok && strcmp(reason, messages[i].reason) == 0,
			  "ttlv: %s: %s", messages[i].name,
			  messages[i].reason ? messages[i].reason : "accepted");
	}

	len = nest(buf, TDE_TTLV_MAX_DEPTH - 1);
	check(checks, accepts(buf, len, &reason), "ttlv: %d structures nested",
		  TDE_TTLV_MAX_DEPTH);
	len = nest(buf, TDE_TTLV_MAX_DEPTH);
	check(checks, !accepts(buf, len, &reason) &&
		  strcmp(reason, "structures are nested too deeply") == 0,
		  "ttlv: one more");
	len = fill(buf, TDE_TTLV_MAX_ITEMS - 1);
	check(checks, accepts(buf, len, &reason), "ttlv: %d items",
		  TDE_TTLV_MAX_ITEMS);
	len = fill(buf, TDE_TTLV_MAX_ITEMS);
	check(checks, !accepts(buf, len, &reason) &&
		  strcmp(reason, "there are too many items") == 0,
		  "ttlv: one more item");
	pfree(buf);
}

/* ---- finding and writing ---- */

static void
check_find(Checks *checks)
{
	uint8		buf[128];
	TdeTtlvWriter w;
	TdeTtlvItem root;
	TdeTtlvItem item;
	const char *reason;

	tde_ttlv_writer_init(&w, buf, sizeof(buf));
	tde_ttlv_begin(&w, 0x420001);
	tde_ttlv_put_text(&w, 0x420002, "one");
	tde_ttlv_put_enum(&w, 0x420003, 4);
	tde_ttlv_put_integer(&w, 0x420004, -1);
	tde_ttlv_put_enum(&w, 0x420003, 4);
	tde_ttlv_end(&w);
	check(checks, !w.failed && tde_ttlv_check(buf, w.len, &root, &reason),
		  "ttlv: what is written is read");
	check(checks, tde_ttlv_find(&root, 0x420002, TDE_TTLV_TEXT,
								&item) == TDE_TTLV_FOUND &&
		  tde_ttlv_text_is(&item, "one") && !tde_ttlv_text_is(&item, "on") &&
		  !tde_ttlv_text_is(&item, "once"), "ttlv: found");
	check(checks, tde_ttlv_find(&root, 0x420004, TDE_TTLV_INTEGER,
								&item) == TDE_TTLV_FOUND &&
		  tde_ttlv_integer(&item) == -1, "ttlv: a negative number");
	check(checks, tde_ttlv_find(&root, 0x420002, TDE_TTLV_BYTES,
								&item) == TDE_TTLV_WRONG_TYPE &&
		  item.value == NULL, "ttlv: of another type");
	check(checks, tde_ttlv_find(&root, 0x420003, TDE_TTLV_ENUMERATION,
								&item) == TDE_TTLV_REPEATED &&
		  item.value == NULL, "ttlv: twice");
	check(checks, tde_ttlv_find(&root, 0x420005, TDE_TTLV_ENUMERATION,
								&item) == TDE_TTLV_ABSENT &&
		  item.value == NULL, "ttlv: not there");
}

static void
check_writer(Checks *checks)
{
	uint8		buf[64];
	TdeTtlvWriter w;
	bool		kept = true;

	/* each size that is too small */
	for (size_t size = 0; size < 40; size++)
	{
		memset(buf, 0x5A, sizeof(buf));
		tde_ttlv_writer_init(&w, buf, size);
		tde_ttlv_begin(&w, 0x420001);
		tde_ttlv_put_text(&w, 0x420002, "nine char");
		tde_ttlv_put_bytes(&w, 0x420003, "", 0);
		tde_ttlv_end(&w);
		kept = kept && w.failed;
		for (size_t i = size; i < sizeof(buf); i++)
			kept = kept && buf[i] == 0x5A;
	}
	check(checks, kept, "ttlv: buffers too small are left in peace");

	tde_ttlv_writer_init(&w, buf, sizeof(buf));
	tde_ttlv_put_text(&w, 0x420002, "\xfc");
	check(checks, w.failed, "ttlv: a text that is none is not written");
}

void
check_ttlv(Checks *checks)
{
	check_vectors(checks);
	check_refusals(checks);
	check_find(checks);
	check_writer(checks);
}
