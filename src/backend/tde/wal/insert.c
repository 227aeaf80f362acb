/*-------------------------------------------------------------------------
 *
 * insert.c
 *	  Encryption of WAL records on their way into the WAL buffers.
 *
 * A record is copied into its place by the backend that made it, in pieces:
 * headers, data, page images.  WAL buffers may be written out while it does
 * so, so nothing may be in them in clear, not for an instant.  Small pieces
 * are gathered in a private stage and encrypted from there, since a call of
 * the cipher costs more than such a piece; large ones are encrypted from
 * where they are.
 *
 * All this happens in critical sections: nothing here allocates, and a failure
 * of the cipher is a PANIC.  The context is made by the postmaster and
 * inherited; a process gives it the key when it first inserts.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/insert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "tde/wal.h"
#include "wal_internal.h"

/*
 * Up to this a piece's key stream comes from one call of AES-ECB (see ctr.c),
 * with room for a first block of which only a part is used.
 */
#define STAGE_SIZE		1008

/* Room for padding behind a stage that is full. */
static char stage[STAGE_SIZE + MAXIMUM_ALIGNOF];
static int	staged = 0;			/* bytes in it */
static char *stage_dst;			/* where they belong: in memory */
static XLogRecPtr stage_lsn;	/* and in WAL */

static TdeCtr *ctr = NULL;
static uint32 ctr_id = 0;		/* the epoch whose key it has */

void
tde_wal_insert_init(void)
{
	if (ctr == NULL)
		ctr = tde_ctr_create();
	if (ctr == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not create a cipher context: %s",
						_(tde_cipher_error()))));
}

static void
encrypt_to(char *dst, XLogRecPtr lsn, const char *src, int len)
{
	Assert(tde_wal_page_key_id(dst - lsn % XLOG_BLCKSZ) == tde_wal_writing->id);

	if (unlikely(ctr_id != tde_wal_writing->id))
	{
		if (tde_ctr_set_key(ctr, tde_wal_writing->key, TDE_WAL_KEY_LEN) < 0)
			elog(PANIC, "could not encrypt WAL: %s", tde_cipher_error());
		ctr_id = tde_wal_writing->id;
	}
	if (tde_wal_crypt(ctr, lsn, src, dst, len) < 0)
		elog(PANIC, "could not encrypt WAL: %s", tde_cipher_error());
	tde_wal_record_use(lsn, src, len);
}

void
tde_wal_copy_flush(void)
{
	if (staged > 0)
	{
		encrypt_to(stage_dst, stage_lsn, stage, staged);
		/* no plaintext stays here, where the next record may be long off */
		tde_wipe(stage, staged);
	}
	staged = 0;
}

void
tde_wal_copy(char *dst, XLogRecPtr lsn, const char *src, int len)
{
	if (staged + len > STAGE_SIZE)
		tde_wal_copy_flush();
	if (len > STAGE_SIZE)
	{
		encrypt_to(dst, lsn, src, len);
		/* for the padding */
		stage_dst = dst + len;
		stage_lsn = lsn + len;
		return;
	}
	if (staged == 0)
	{
		stage_dst = dst;
		stage_lsn = lsn;
	}
	memcpy(stage + staged, src, len);
	staged += len;
}

void
tde_wal_copy_end(void)
{
	while ((stage_lsn + staged) % MAXIMUM_ALIGNOF != 0)
		stage[staged++] = 0;
	tde_wal_copy_flush();
}
