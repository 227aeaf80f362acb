/*-------------------------------------------------------------------------
 *
 * ttlv_text.h
 *	  TTLV messages written as text, for the checks of the KMIP client.
 *
 *	  TAG{...}		structure			TAG:i5		integer (decimal)
 *	  TAG:e5		enumeration			TAG:d5		date-time
 *	  TAG:t'abc'	text				TAG:x0102	bytes (hexadecimal)
 *
 * TAG is hexadecimal, without the 42 that all tags begin with.  Items
 * are separated by blanks.  In a text, "~300" stands for 300 letters.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/ttlv_text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TTLV_TEXT_H
#define TTLV_TEXT_H

/* Returns the length, 0 if the text is wrong or what it says does not fit. */
extern size_t ttlv_from_text(const char *text, uint8 *buf, size_t size);

/*
 * The text with the first "from" in it replaced, allocated with palloc; NULL
 * if there is none.
 */
extern char *text_replace(const char *text, const char *from, const char *to);

#endif							/* TTLV_TEXT_H */
