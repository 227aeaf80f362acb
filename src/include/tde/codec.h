/*-------------------------------------------------------------------------
 *
 * codec.h
 *	  Reading and writing the little-endian integers and byte strings of which
 *	  Coffer's formats consist.
 *
 * A reader never goes beyond its end: what is not there reads as zero and
 * sets "failed", which the caller looks at once, after the last field.  A
 * writer trusts its caller to have given it enough room.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/codec.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_CODEC_H
#define TDE_CODEC_H

typedef struct TdeReader
{
	const uint8 *p;
	const uint8 *end;
	bool		failed;
} TdeReader;

typedef struct TdeWriter
{
	uint8	   *p;
} TdeWriter;

static inline void
tde_reader_init(TdeReader *r, const uint8 *buf, size_t len)
{
	r->p = buf;
	r->end = buf + len;
	r->failed = false;
}

static inline void
tde_get_bytes(TdeReader *r, void *out, size_t len)
{
	if ((size_t) (r->end - r->p) < len)
	{
		r->failed = true;
		r->p = r->end;
		memset(out, 0, len);
		return;
	}
	memcpy(out, r->p, len);
	r->p += len;
}

/* An unsigned integer of 1 to 8 bytes. */
static inline uint64
tde_get_uint(TdeReader *r, int len)
{
	uint8		b[8] = {0};
	uint64		value = 0;

	tde_get_bytes(r, b, len);
	for (int i = len - 1; i >= 0; i--)
		value = (value << 8) | b[i];
	return value;
}

/* Bytes that this version of a format does not use: they must be zero. */
static inline void
tde_get_reserved(TdeReader *r, size_t len)
{
	while (len-- > 0)
	{
		if (tde_get_uint(r, 1) != 0)
			r->failed = true;
	}
}

/*
 * A string of len bytes, given a terminator.  It must fit into size bytes
 * with it and must not contain one.
 */
static inline void
tde_get_string(TdeReader *r, char *out, size_t len, size_t size)
{
	out[0] = '\0';
	if (len >= size)
	{
		r->failed = true;
		return;
	}
	tde_get_bytes(r, out, len);
	out[len] = '\0';
	if (strlen(out) != len)
		r->failed = true;
}

static inline void
tde_put_bytes(TdeWriter *w, const void *in, size_t len)
{
	memcpy(w->p, in, len);
	w->p += len;
}

static inline void
tde_put_uint(TdeWriter *w, uint64 value, int len)
{
	for (int i = 0; i < len; i++)
	{
		*w->p++ = (uint8) value;
		value >>= 8;
	}
}

static inline void
tde_put_reserved(TdeWriter *w, size_t len)
{
	memset(w->p, 0, len);
	w->p += len;
}

#endif							/* TDE_CODEC_H */
