/*-------------------------------------------------------------------------
 *
 * ttlv_text.c
 *	  TTLV messages written as text.
 *
 * The encoder here is not the one under test, and does what it is told.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/ttlv_text.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "ttlv_text.h"

typedef struct Output
{
	uint8	   *buf;
	size_t		size;
	size_t		len;
	bool		failed;
}			Output;

static void
put(Output * out, uint8 byte)
{
	if (out->len == out->size)
		out->failed = true;
	else
		out->buf[out->len++] = byte;
}

static void
put_number(Output * out, uint64 value, int nbytes)
{
	while (nbytes-- > 0)
		put(out, (uint8) (value >> (8 * nbytes)));
}

static const char *
put_text(Output * out, const char *p)
{
	while (*p != '\'' && *p != '\0')
	{
		if (*p == '~')
		{
			char	   *end;
			long		n = strtol(p + 1, &end, 10);

			while (n-- > 0)
				put(out, 'a');
			p = end;
		}
		else
			put(out, (uint8) *p++);
	}
	return p + (*p == '\'');
}

static const char *
put_hex(Output * out, const char *p)
{
	while (isxdigit((unsigned char) p[0]) && isxdigit((unsigned char) p[1]))
	{
		char		digits[3] = {p[0], p[1], '\0'};

		put(out, (uint8) strtol(digits, NULL, 16));
		p += 2;
	}
	return p;
}

/* A value after its colon, the first letter of which is the type. */
static const char *
put_value(Output * out, uint8 *type, const char *p)
{
	char	   *end;

	switch (*p++)
	{
		case 'i':
			*type = 0x02;
			put_number(out, (uint64) strtoll(p, &end, 10), 4);
			return end;
		case 'e':
			*type = 0x05;
			put_number(out, (uint64) strtoll(p, &end, 10), 4);
			return end;
		case 'd':
			*type = 0x09;
			put_number(out, (uint64) strtoll(p, &end, 10), 8);
			return end;
		case 't':
			*type = 0x07;
			return put_text(out, p + (*p == '\''));
		case 'x':
			*type = 0x08;
			return put_hex(out, p);
	}
	out->failed = true;
	return p;
}

/* Items until a closing brace or the end. */
static const char *
put_items(Output * out, const char *p)
{
	while (!out->failed)
	{
		char	   *end;
		uint8 type = 0x01;
		uint64		tag;
		size_t		start;
		size_t		len;

		while (*p == ' ')
			p++;
		if (*p == '\0' || *p == '}')
			break;
		tag = strtoull(p, &end, 16);
		put_number(out, 0x420000 | tag, 3);
		put_number(out, 0, 5);	/* type and length come later */
		start = out->len;
		if (*end == '{')
		{
			p = put_items(out, end + 1);
			if (*p != '}')
				out->failed = true;
			else
				p++;
		}
		else if (*end == ':')
			p = put_value(out, &type, end + 1);
		else
			out->failed = true;
		if (out->failed)
			break;

		len = out->len - start;
		out->buf[start - 5] = type;

		for (int i = 0; i < 4; i++)
			out->buf[start - 4 + i] = (uint8) (len >> (24 - 8 * i));
		while ((out->len - start) % 8 != 0 && !out->failed)
			put(out, 0);
	}
	return p;
}

size_t
ttlv_from_text(const char *text, uint8 *buf, size_t size)
{
	Output		out = {.buf = buf,.size = size};
	const char *end = put_items(&out, text);

	return out.failed || *end != '\0' ? 0 : out.len;
}

char	   *
text_replace(const char *text, const char *from, const char *to)
{
	const char *p = strstr(text, from);

	if (p == NULL)
		return NULL;
	return psprintf("%.*s%s%s", (int) (p - text), text, to, p + strlen(from));
}
