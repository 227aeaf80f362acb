/*-------------------------------------------------------------------------
 *
 * temp_keys.c
 *	  Keys of the temporary relations of a process, which has them alone.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/temp_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relation_internal.h"
#include "utils/hsearch.h"

/*
 * Keys of temporary relations: an index by locator, and the keys themselves
 * in chunks of locked memory with a list of free places.
 */
#define TEMP_KEYS_A_CHUNK	128

typedef union TempKey
{
	TdeRelationKey key;
	union TempKey *next_free;
} TempKey;

typedef struct TempKeyRef
{
	RelFileLocator locator;
	TempKey    *key;			/* NULL: it must have one, and has none */
} TempKeyRef;

static HTAB *temp_keys = NULL;
static TempKey *free_temp_keys = NULL;

/*
 * The key of a temporary relation; NULL if it is plain, or if it must have one
 * and has none (*lost).
 */
const TdeRelationKey *
tde_temp_key_find(const RelFileLocator *locator, bool *lost)
{
	TempKeyRef *ref = NULL;

	if (temp_keys != NULL)
		ref = hash_search(temp_keys, locator, HASH_FIND, NULL);
	*lost = ref != NULL && ref->key == NULL;
	return ref != NULL && ref->key != NULL ? &ref->key->key : NULL;
}

static TempKeyRef *
enter_ref(const RelFileLocator *locator)
{
	TempKeyRef *ref;
	bool		found;

	if (temp_keys == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(RelFileLocator),
			.entrysize = sizeof(TempKeyRef),
		};

		temp_keys = hash_create("keys of temporary relations", 16, &ctl,
								HASH_ELEM | HASH_BLOBS);
	}
	ref = hash_search(temp_keys, locator, HASH_ENTER, &found);
	if (!found)
		ref->key = NULL;
	return ref;
}

/*
 * The catalogs say that a temporary relation of this process is encrypted.
 */
void
tde_temp_key_expect(const RelFileLocator *locator)
{
	(void) enter_ref(locator);
}

/*
 * A key for a temporary relation of this process.
 */
void
tde_temp_key_create(const RelFileLocator *locator, const TdeRelationKey *key)
{
	TempKeyRef *ref;

	if (free_temp_keys == NULL)
	{
		bool		locked;
		TempKey    *chunk;

		chunk = tde_secure_alloc(sizeof(TempKey) * TEMP_KEYS_A_CHUNK, false,
								 &locked);
		if (chunk == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not map memory for encryption keys: %m")));
		TdeNoteUnlockedMemory();
		for (int i = 0; i < TEMP_KEYS_A_CHUNK; i++)
		{
			chunk[i].next_free = free_temp_keys;
			free_temp_keys = &chunk[i];
		}
	}

	ref = enter_ref(locator);
	if (ref->key == NULL)
	{
		ref->key = free_temp_keys;
		free_temp_keys = free_temp_keys->next_free;
	}
	tde_copy_relation_key(&ref->key->key, key);
}

void
tde_temp_key_drop(const RelFileLocator *locator)
{
	TempKeyRef *ref;
	TempKey    *key;

	if (temp_keys == NULL)
		return;
	ref = hash_search(temp_keys, locator, HASH_FIND, NULL);
	if (ref == NULL)
		return;
	key = ref->key;
	hash_search(temp_keys, locator, HASH_REMOVE, NULL);
	if (key == NULL)
		return;
	tde_wipe(key, sizeof(*key));
	key->next_free = free_temp_keys;
	free_temp_keys = key;
}
