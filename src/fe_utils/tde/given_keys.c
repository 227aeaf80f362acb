/*-------------------------------------------------------------------------
 *
 * given_keys.c
 *	  Keys of WAL that the server has given to the program.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/fe_utils/tde/given_keys.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/logging.h"
#include "tde/fe_wal_archive.h"
#include "tde/given_key.h"

typedef struct GivenKeys
{
	struct GivenKeys *next;
	TdeGivenKey *key;			/* secure memory */
} GivenKeys;

static GivenKeys *given_keys = NULL;

/*
 * Read a key; false at the end.
 */
static bool
read_key(TdeGivenKey *key)
{
	size_t		n = 0;

	while (n < sizeof(TdeGivenKey))
	{
		ssize_t		r = read(STDIN_FILENO, (char *) key + n,
							 sizeof(TdeGivenKey) - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			pg_fatal("could not read keys: %m");
		if (r == 0 && n > 0)
			pg_fatal("could not read keys: unexpected end");
		if (r == 0)
			return false;
		n += r;
	}
	return true;
}

void
tde_fe_read_given_keys(void)
{
	int			fd;

	for (;;)
	{
		GivenKeys  *given = pg_malloc(sizeof(GivenKeys));
		bool		locked;

		given->key = tde_secure_alloc(sizeof(TdeGivenKey), false, &locked);
		if (given->key == NULL)
			pg_fatal("out of memory");
		if (!read_key(given->key))
			break;
		given->next = given_keys;
		given_keys = given;
	}

	/* what is run later does not get the pipe */
	fd = open("/dev/null", O_RDONLY, 0);
	if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
		pg_fatal("could not open file \"%s\": %m", "/dev/null");
	if (fd != STDIN_FILENO)
		close(fd);
}

bool
tde_fe_find_given_key(const TdeWalEpochQuery *query, TdeWalEpoch *epoch)
{
	for (const GivenKeys *given = given_keys; given; given = given->next)
	{
		memset(epoch, 0, sizeof(TdeWalEpoch));
		epoch->id = given->key->id;
		epoch->tli = given->key->tli;
		epoch->start = given->key->start;
		if (!tde_wal_epoch_matches(epoch, query))
			continue;
		tde_copy_key(epoch->key, given->key->key, TDE_WAL_KEY_LEN);
		return true;
	}
	return false;
}
