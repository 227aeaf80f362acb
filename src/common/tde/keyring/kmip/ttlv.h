/*-------------------------------------------------------------------------
 *
 * ttlv.h
 *	  TTLV, the encoding of KMIP: tag, type, length, value.
 *
 * KMIP specification 1.4, section 9.1: an item is a tag of 3 bytes, a type of
 * 1, the length of its value in 4, and the value padded with zeros to a
 * multiple of 8 bytes; numbers are big-endian.  The value of a structure is a
 * sequence of items.
 *
 * Pure: no I/O, no allocation, no state but the caller's.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/kmip/ttlv.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_TTLV_H
#define TDE_TTLV_H

typedef enum TdeTtlvType
{
	TDE_TTLV_STRUCTURE = 0x01,
	TDE_TTLV_INTEGER = 0x02,
	TDE_TTLV_LONG = 0x03,
	TDE_TTLV_BIG_INTEGER = 0x04,
	TDE_TTLV_ENUMERATION = 0x05,
	TDE_TTLV_BOOLEAN = 0x06,
	TDE_TTLV_TEXT = 0x07,
	TDE_TTLV_BYTES = 0x08,
	TDE_TTLV_DATE_TIME = 0x09,
	TDE_TTLV_INTERVAL = 0x0A,
	TDE_TTLV_DATE_TIME_EXTENDED = 0x0B, /* 2.0: microseconds */
} TdeTtlvType;

#define TDE_TTLV_HEADER_LEN		8	/* tag, type, length */
#define TDE_TTLV_MAX_DEPTH		32	/* structures within each other */
#define TDE_TTLV_MAX_ITEMS		2000	/* in a message */

/* Bytes that a value of this length takes, padding included. */
#define TdeTtlvPadded(len)		(((size_t) (len) + 7) & ~(size_t) 7)

/* ---- writing ---- */

/*
 * Writes into the caller's buffer.  What does not fit, and a text that is not
 * one, sets "failed", which the caller looks at once, at the end; then the
 * buffer's content is of no use.
 */
typedef struct TdeTtlvWriter
{
	uint8	   *buf;
	size_t		size;
	size_t		len;			/* written so far */
	int			depth;
	size_t		open[TDE_TTLV_MAX_DEPTH];	/* where each begins */
	bool		failed;
} TdeTtlvWriter;

extern void tde_ttlv_writer_init(TdeTtlvWriter *w, uint8 *buf, size_t size);

/* Everything between the two is in the structure. */
extern void tde_ttlv_begin(TdeTtlvWriter *w, uint32 tag);
extern void tde_ttlv_end(TdeTtlvWriter *w);

extern void tde_ttlv_put_integer(TdeTtlvWriter *w, uint32 tag, int32 value);
extern void tde_ttlv_put_enum(TdeTtlvWriter *w, uint32 tag, uint32 value);
extern void tde_ttlv_put_date_time(TdeTtlvWriter *w, uint32 tag, int64 value);
extern void tde_ttlv_put_text(TdeTtlvWriter *w, uint32 tag, const char *value);
extern void tde_ttlv_put_bytes(TdeTtlvWriter *w, uint32 tag,
							   const void *value, size_t len);

/* An item of any type but structure, its value being encoded already. */
extern void tde_ttlv_put_raw(TdeTtlvWriter *w, uint32 tag, TdeTtlvType type,
							 const void *value, size_t len);

/* ---- reading ---- */

/* One item; value points into the message. */
typedef struct TdeTtlvItem
{
	uint32		tag;
	TdeTtlvType type;
	uint32		len;
	const uint8 *value;
} TdeTtlvItem;

/*
 * Check a message from end to end and return its outermost item.  The message
 * is accepted only if it is one item and nothing else, and each item in it has
 * a known type, a length that fits the type and the structure around it, zeros
 * as padding and, as text, valid UTF-8 without NUL.  If not, returns false and
 * sets *reason to a constant string that can be translated.
 *
 * All functions below are for items of a message that passed.
 */
extern bool tde_ttlv_check(const uint8 *buf, size_t len, TdeTtlvItem *root,
						   const char **reason);

/*
 * The items of a structure, one after the other.  *child is all zeros for the
 * first call.
 */
extern bool tde_ttlv_next(const TdeTtlvItem *parent, TdeTtlvItem *child);

typedef enum TdeTtlvFound
{
	TDE_TTLV_ABSENT,
	TDE_TTLV_FOUND,
	TDE_TTLV_REPEATED,
	TDE_TTLV_WRONG_TYPE,
} TdeTtlvFound;

/*
 * The item of that tag in a structure, which should have no more than one.
 * *item is all zeros unless it was found.
 */
extern TdeTtlvFound tde_ttlv_find(const TdeTtlvItem *parent, uint32 tag,
								  TdeTtlvType type, TdeTtlvItem *item);

/* Values, of an item that has the type. */
extern int32 tde_ttlv_integer(const TdeTtlvItem *item);
extern uint32 tde_ttlv_enum(const TdeTtlvItem *item);
extern int64 tde_ttlv_long(const TdeTtlvItem *item);	/* date-times, too */

/* Is the item's value this string? */
extern bool tde_ttlv_text_is(const TdeTtlvItem *item, const char *text);

#endif							/* TDE_TTLV_H */
