/*-------------------------------------------------------------------------
 *
 * epoch_table.c
 *	  Epochs of WAL in memory, as they stand in their file: wrapped.
 *
 * A process that reads WAL asks for an epoch each time it comes to another one,
 * and there may be many thousands.  So they are found by their id: a hash
 * table of the bytes' places.  Only the epoch that is found is decoded.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/epoch_table.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"

typedef struct EpochPlace
{
	uint32		id;
	int			next;			/* with the same hash value; -1: none */
	size_t		offset;			/* of its bytes */
	size_t		len;
} EpochPlace;

struct TdeEpochTable
{
	int			n;
	int			max;			/* a power of two */
	EpochPlace *places;
	int		   *heads;			/* max of them, by hash value; -1: none */
	uint8	   *bytes;
	size_t		len;
	size_t		size;
};

/* Ids are random numbers. */
#define HASH(table, id)		((id) & ((table)->max - 1))

#define FIRST_MAX		64
#define FIRST_SIZE		16384

/* The one that was added last comes first. */
static void
put_in_chain(TdeEpochTable *table, int i)
{
	int		   *head = &table->heads[HASH(table, table->places[i].id)];

	table->places[i].next = *head;
	*head = i;
}

/* Make the chains anew, of which there are as many as there can be places. */
static void
make_chains(TdeEpochTable *table)
{
	for (int i = 0; i < table->max; i++)
		table->heads[i] = -1;
	for (int i = 0; i < table->n; i++)
		put_in_chain(table, i);
}

TdeEpochTable *
tde_epoch_table_create(void)
{
	TdeEpochTable *table = palloc0(sizeof(TdeEpochTable));

	table->max = FIRST_MAX;
	table->places = palloc(sizeof(EpochPlace) * table->max);
	table->heads = palloc(sizeof(int) * table->max);
	table->size = FIRST_SIZE;
	table->bytes = palloc(table->size);
	make_chains(table);
	return table;
}

void
tde_epoch_table_free(TdeEpochTable *table)
{
	if (table == NULL)
		return;
	pfree(table->bytes);
	pfree(table->heads);
	pfree(table->places);
	pfree(table);
}

static void
make_room(TdeEpochTable *table, size_t len)
{
	while (table->size - table->len < len)
	{
		table->size *= 2;
		table->bytes = repalloc(table->bytes, table->size);
	}
	if (table->n < table->max)
		return;
	table->max *= 2;
	table->places = repalloc(table->places, sizeof(EpochPlace) * table->max);
	table->heads = repalloc(table->heads, sizeof(int) * table->max);
	make_chains(table);
}

bool
tde_epoch_table_add(TdeEpochTable *table, const uint8 *record, size_t len)
{
	uint32		id = tde_wal_epoch_id(record);
	EpochPlace *place;

	for (int i = table->heads[HASH(table, id)]; i >= 0;
		 i = table->places[i].next)
	{
		place = &table->places[i];
		if (place->len == len &&
			memcmp(table->bytes + place->offset, record, len) == 0)
			return false;
	}

	make_room(table, len);
	place = &table->places[table->n];
	place->id = id;
	place->offset = table->len;
	place->len = len;
	memcpy(table->bytes + table->len, record, len);
	table->len += len;
	put_in_chain(table, table->n++);
	return true;
}

void
tde_epoch_table_add_file(TdeEpochTable *table, const uint8 *file, size_t len)
{
	size_t		position = 0;
	size_t		epoch_len;
	const uint8 *p;

	while ((p = tde_wal_epochs_next(file, len, &position, &epoch_len)) != NULL)
		(void) tde_epoch_table_add(table, p, epoch_len);
}

uint8 *
tde_epoch_table_file(const TdeEpochTable *table, size_t *len)
{
	uint8	   *file = palloc(table->len + TDE_WAL_EPOCHS_OVERHEAD);

	memcpy(file + TDE_WAL_EPOCHS_HEADER, table->bytes, table->len);
	*len = tde_wal_epochs_finish(file, table->len, table->n);
	return file;
}

TdeWalKeyStatus
tde_epoch_table_find(const TdeEpochTable *table, const char *path,
					 const TdeWalEpochQuery *query, TdeWalEpoch *epoch,
					 const uint8 **record, size_t *record_len,
					 char *problem, size_t problem_size)
{
	int			found = 0;
	int			i = table ? table->heads[HASH(table, query->id)] : -1;

	for (; i >= 0; i = table->places[i].next)
	{
		const EpochPlace *place = &table->places[i];
		const char *reason;
		TdeWalEpoch one;

		if (place->id != query->id ||
			tde_wal_epoch_decode(table->bytes + place->offset, place->len,
								 &one, &reason) < 0 ||
			!tde_wal_epoch_matches(&one, query))
			continue;

		/* wrapped anew it is the same one; what was known first counts */
		if (found == 0 || one.start != epoch->start)
			found++;
		*epoch = one;
		*record = table->bytes + place->offset;
		*record_len = place->len;
	}
	if (found == 1)
		return TDE_WAL_KEY_FOUND;
	snprintf(problem, problem_size,
			 found == 0 ? _("it is not in file \"%s\"") :
			 _("there are several with this ID in file \"%s\""), path);
	return found == 0 ? TDE_WAL_KEY_UNKNOWN : TDE_WAL_KEY_UNUSABLE;
}
