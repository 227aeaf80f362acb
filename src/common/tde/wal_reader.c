/*-------------------------------------------------------------------------
 *
 * wal_reader.c
 *	  Reading encrypted WAL: what xlogreader.c calls.
 *
 * A reader that has met the record of an epoch expects that epoch's pages
 * until it meets another one's.  A page of another epoch that is known is a
 * leftover of earlier WAL at the same position, and ends WAL as a wrong page
 * address does.  A page of an unknown epoch is never taken for the end of WAL:
 * see TdeWalKeySource.no_key.  Which pages in clear pass is for the source of
 * the keys to say; the server is careful in recovery.
 *
 * A reader that was sent to a position knows of no epoch, and takes the page's
 * word for it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/wal_reader.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "tde/wal_reader.h"
#include "tde/xlog.h"

/* xlogreader.c's buffer for messages */
#define MAX_MESSAGE		1000

const TdeWalKeySource *tde_wal_key_source = NULL;
XLogRecPtr	tde_wal_unread_page = InvalidXLogRecPtr;

/*
 * Cipher contexts with the keys of the epochs used last.  A process reads one
 * or two epochs at a time.
 */
typedef struct EpochCipher
{
	TdeCtr	   *ctr;
	uint32		id;				/* 0: no key */
	TimeLineID	tli;
	XLogRecPtr	start;
} EpochCipher;

#define NUM_CIPHERS		4

static EpochCipher ciphers[NUM_CIPHERS];
static int	next_victim = 0;

static EpochCipher *
cached_cipher(uint32 id, TimeLineID tli, XLogRecPtr start)
{
	for (int i = 0; i < NUM_CIPHERS; i++)
	{
		if (ciphers[i].id == id && ciphers[i].tli == tli &&
			ciphers[i].start == start)
			return &ciphers[i];
	}
	return NULL;
}

/*
 * Give an epoch's key to the context that was given one longest ago; NULL with
 * tde_cipher_error().
 */
static EpochCipher *
make_cipher(const TdeWalEpoch *epoch)
{
	EpochCipher *c = &ciphers[next_victim];

	next_victim = (next_victim + 1) % NUM_CIPHERS;
	c->id = 0;
	if (c->ctr == NULL)
		c->ctr = tde_ctr_create();
	if (c->ctr == NULL ||
		tde_ctr_set_key(c->ctr, epoch->key, TDE_WAL_KEY_LEN) < 0)
		return NULL;
	c->id = epoch->id;
	c->tli = epoch->tli;
	c->start = epoch->start;
	return c;
}

void
tde_wal_reader_forget_keys(void)
{
	for (int i = 0; i < NUM_CIPHERS; i++)
	{
		tde_ctr_free(ciphers[i].ctr);
		memset(&ciphers[i], 0, sizeof(ciphers[i]));
	}
}

void
tde_wal_reader_fail(XLogReaderState *state, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(state->errormsg_buf, MAX_MESSAGE, _(fmt), args);
	va_end(args);
	state->errormsg_deferred = true;
}

/*
 * The context for the page's epoch; NULL with *result if there is none.
 */
static EpochCipher *
cipher_for_page(XLogReaderState *state, XLogRecPtr pageptr, uint32 id,
				int *result)
{
	XLogPageHeader hdr = (XLogPageHeader) state->readBuf;
	bool		in_epoch = !XLogRecPtrIsInvalid(state->tde_epoch_start);
	bool		expected = in_epoch && id == state->tde_epoch_id;
	TdeWalEpochQuery query = {id, hdr->xlp_tli, pageptr, InvalidXLogRecPtr};
	TdeWalKeyStatus status = TDE_WAL_KEY_UNKNOWN;
	TdeWalEpoch epoch;
	EpochCipher *cipher;
	char		problem[MAX_MESSAGE / 2];

	if (expected)
	{
		cipher = cached_cipher(id, hdr->xlp_tli, state->tde_epoch_start);
		if (cipher)
			return cipher;
		query.start = state->tde_epoch_start;
	}

	strlcpy(problem, _("this program was not told where keys are"),
			sizeof(problem));
	if (tde_wal_key_source)
		status = tde_wal_key_source->find(&query, &epoch,
										  problem, sizeof(problem));
	if (status != TDE_WAL_KEY_FOUND && !state->nonblocking &&
		tde_wal_key_source && tde_wal_key_source->rebuild &&
		tde_wal_key_source->rebuild())
		status = tde_wal_key_source->find(&query, &epoch,
										  problem, sizeof(problem));

	*result = XLREAD_FAIL;
	if (status == TDE_WAL_KEY_FOUND)
	{
		if (in_epoch && !expected)
		{
			tde_wipe(epoch.key, sizeof(epoch.key));
			tde_wal_reader_fail(state, "unexpected key ID %08X (expected %08X) in WAL page at %X/%X",
				 id, state->tde_epoch_id, LSN_FORMAT_ARGS(pageptr));
			return NULL;
		}
		cipher = make_cipher(&epoch);
		tde_wipe(epoch.key, sizeof(epoch.key));
		if (cipher == NULL)
			tde_wal_reader_fail(state, "could not decrypt WAL page at %X/%X: %s",
				 LSN_FORMAT_ARGS(pageptr), _(tde_cipher_error()));
		else
		{
			state->tde_epoch_id = id;
			state->tde_epoch_start = epoch.start;
		}
		return cipher;
	}

	/* Replay may yet bring it. */
	if (state->nonblocking)
	{
		*result = XLREAD_WOULDBLOCK;
		return NULL;
	}

	tde_wal_reader_fail(state, "key %08X of WAL page at %X/%X of timeline %u is not available: %s",
		 id, LSN_FORMAT_ARGS(pageptr), hdr->xlp_tli, problem);
	if (tde_wal_key_source && tde_wal_key_source->no_key)
		tde_wal_key_source->no_key(pageptr, state->errormsg_buf);
	return NULL;
}

static int
read_page(XLogReaderState *state, XLogRecPtr pageptr, int readLen)
{
	uint8	   *page = (uint8 *) state->readBuf;
	uint32		id = tde_wal_page_key_id(page);
	int			result;
	EpochCipher *cipher;

	if (likely(id == 0) || (id & TDE_WAL_DECRYPTED))
	{
		if (tde_wal_key_source && tde_wal_key_source->check_clear_page)
			return tde_wal_key_source->check_clear_page(state, pageptr,
														readLen);
		return readLen;
	}

	cipher = cipher_for_page(state, pageptr, id, &result);
	if (cipher == NULL)
		return result;
	if (tde_wal_page_decrypt(cipher->ctr, pageptr, page,
							 XLogPageHeaderSize((XLogPageHeader) page),
							 readLen) < 0)
	{
		tde_wal_reader_fail(state, "could not decrypt WAL page at %X/%X: %s",
			 LSN_FORMAT_ARGS(pageptr), _(tde_cipher_error()));
		return XLREAD_FAIL;
	}
	return readLen;
}

int
tde_wal_read_page(XLogReaderState *state, XLogRecPtr pageptr, int readLen)
{
	int			result = read_page(state, pageptr, readLen);

	if (unlikely(pageptr == tde_wal_unread_page) && result == readLen)
		tde_wal_unread_page = InvalidXLogRecPtr;
	return result;
}

void
tde_wal_enter_epoch(XLogReaderState *state, const DecodedXLogRecord *record)
{
	const uint8 *data = (const uint8 *) record->main_data;
	size_t		len;
	TdeWalEpoch epoch;
	const char *reason;

	if (likely(record->header.xl_rmid != RM_TDE_ID) ||
		(record->header.xl_info & ~XLR_INFO_MASK) != XLOG_TDE_WAL_EPOCH)
		return;

	len = tde_wal_epoch_length(data, record->main_data_len);
	if (tde_wal_epoch_decode(data, len, &epoch, &reason) < 0)
		return;					/* whoever replays it complains */
	state->tde_epoch_id = epoch.id;
	state->tde_epoch_start = epoch.start;
	if (tde_wal_key_source && tde_wal_key_source->learn)
		tde_wal_key_source->learn(data, len);
}
