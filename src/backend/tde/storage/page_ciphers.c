/*-------------------------------------------------------------------------
 *
 * page_ciphers.c
 *	  The cipher contexts of a process, one for each of the keys it used last.
 *
 * A page is encrypted and decrypted with a context that holds its relation's
 * key, so that only the tweak has to be set for each page.  A statement
 * touches few relations at a time (a table, its TOAST table, some indexes),
 * so a small set with the least recently used one replaced is enough; a key
 * that is not in it costs one key schedule.
 *
 * All contexts are made by the postmaster, without a key, and inherited by
 * its children.  So no process ever allocates when it needs one, which may be
 * in a critical section: the completion of an asynchronous read, in a process
 * that has not touched an encrypted relation before.
 *
 * A key that is replaced is overwritten by the new one's schedule.  And no
 * process keeps the schedule of a key that was removed: after a removal all
 * forget all of theirs (TdeForgetObsoleteKeys), and so does a process after
 * the end of a temporary relation.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/page_ciphers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage_internal.h"
#include "tde/smgr.h"

#define NUM_PAGE_CIPHERS	8

typedef struct CachedCipher
{
	TdePageCipher *cipher;
	bool		has_key;
	TdeId		id;				/* of the key it has */
	uint64		last_use;
} CachedCipher;

static CachedCipher ciphers[NUM_PAGE_CIPHERS];
static CachedCipher *recent = &ciphers[0];
static uint64 uses = 0;

/*
 * Make the contexts.  Called where shared memory is initialised, also after a
 * crash of a backend, when they are there already.
 */
void
TdePageCiphersInit(void)
{
	for (int i = 0; i < NUM_PAGE_CIPHERS; i++)
	{
		if (ciphers[i].cipher == NULL)
			ciphers[i].cipher = tde_page_cipher_create();
		if (ciphers[i].cipher == NULL)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not create a cipher context: %s",
							_(tde_cipher_error()))));
	}
}

/*
 * A context that holds the key.
 */
TdePageCipher *
TdeGetPageCipher(const TdeRelationKey *key)
{
	CachedCipher *victim = &ciphers[0];

	if (likely(recent->has_key && TdeIdEquals(&recent->id, &key->id)))
		return recent->cipher;

	for (int i = 0; i < NUM_PAGE_CIPHERS; i++)
	{
		CachedCipher *c = &ciphers[i];

		if (c->has_key && TdeIdEquals(&c->id, &key->id))
		{
			victim = c;
			break;
		}
		if (c->last_use < victim->last_use)
			victim = c;
	}

	victim->last_use = ++uses;
	recent = victim;

	if (!victim->has_key || !TdeIdEquals(&victim->id, &key->id))
	{
		/* has_key stays false if this fails half-way */
		victim->has_key = false;
		if (tde_page_cipher_set_key(victim->cipher, key->cipher,
									key->key) < 0)
			return NULL;
		victim->id = key->id;
		victim->has_key = true;
	}

	return victim->cipher;
}

void
TdeForgetPageCiphers(void)
{
	for (int i = 0; i < NUM_PAGE_CIPHERS; i++)
	{
		if (ciphers[i].has_key)
			tde_page_cipher_forget_key(ciphers[i].cipher);
		ciphers[i].has_key = false;
	}
}
