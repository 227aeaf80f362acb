/*-------------------------------------------------------------------------
 *
 * checks.h
 *	  Checks of the crypto core and the formats, as they run in the program
 *	  tde_core_checks and, the same code, in a backend.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/checks.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_CHECKS_H
#define TDE_CHECKS_H

/* ---- reporting ---- */

typedef struct Checks
{
	/* called with the result of each check */
	void		(*report) (struct Checks *checks, bool ok, const char *name);
	void	   *arg;			/* of its own */
	const char *vector_dir;

	/*
	 * Allocations that OpenSSL has made so far, or NULL if we cannot tell.
	 */
	const int  *allocations;

	/* Has tde_secure_heap_init() succeeded in this process? */
	bool		secure_heap;
} Checks;

/* Report one check, named printf-like; returns ok. */
extern bool check(Checks *checks, bool ok, const char *fmt,...) pg_attribute_printf(3, 4);

/* ---- groups of checks ---- */

extern void check_primitives(Checks *checks);
extern void check_secure_memory(Checks *checks);
extern void check_pages(Checks *checks);
extern void check_key_records(Checks *checks);
extern void check_scopes(Checks *checks);
extern void check_providers(Checks *checks);
extern void check_ttlv(Checks *checks);
extern void check_kmip_messages(Checks *checks);
extern void check_kmip_client(Checks *checks);
extern void check_kmip_keys(Checks *checks);
extern void check_wal(Checks *checks);

extern void check_all(Checks *checks);

/* ---- files of vectors ---- */

/*
 * A file consists of cases, separated by empty lines; a case of lines
 * "name = value"; "#" begins a comment.
 */
typedef struct Vectors
{
	char	   *text;			/* the whole file, cut into lines */
	char	   *end;
	char	   *next;			/* the next case */
	char	   *current;		/* first line of the current one */
	char	   *current_end;
} Vectors;

/* A file that cannot be read is a failed check and has no cases. */
extern void vectors_open(Vectors *v, Checks *checks, const char *filename);
extern bool vectors_next(Vectors *v);
extern void vectors_close(Vectors *v);

/*
 * The nth value of that name in the current case (0 is the first); NULL if
 * there is none.
 */
extern const char *vectors_nth(Vectors *v, const char *name, int n);
extern const char *vectors_get(Vectors *v, const char *name);	/* or "" */
extern uint64 vectors_uint(Vectors *v, const char *name);	/* decimal */

/* Hexadecimal value; returns its length, or 0 if it is longer than size. */
extern size_t vectors_bytes(Vectors *v, const char *name,
							uint8 *buf, size_t size);
extern size_t vectors_nth_bytes(Vectors *v, const char *name, int n,
								uint8 *buf, size_t size);

/* The cipher of that name. */
extern TdeCipher vectors_cipher(Vectors *v);

/* ---- helpers ---- */

/* Deterministic bytes, the same as generate.py's pattern(). */
extern void fill_pattern(uint8 *buf, size_t len, uint32 seed);

/* Is this the SHA-256 of the data? */
extern bool sha256_is(const void *data, size_t len, const uint8 *expected);

/* Make the checksum at the end of a record right again. */
extern void fix_crc(uint8 *buf, size_t len);

/*
 * Does this process's own memory contain the bytes, in a place that a core
 * dump would include?  The bytes themselves must lie elsewhere.  Nothing is
 * found where it is not known how to look.
 */
extern bool core_dump_contains(const uint8 *bytes, size_t len);
extern bool core_dump_is_known(void);

/* Longest file in the vectors. */
#define MAX_VECTOR		8192

/* A decoder of any of the formats, reduced to "is this acceptable?" */
typedef bool (*Decoder) (const uint8 *buf, size_t len, const char **reason);

/*
 * What every decoder must do with every file: refuse each flipped bit (the
 * checksum sees it) and each other length, and say why.
 */
extern void check_decoder(Checks *checks, const char *what, Decoder decode,
						  const uint8 *file, size_t len);

#endif							/* TDE_CHECKS_H */
