/*-------------------------------------------------------------------------
 *
 * wal_archive.c
 *	  WAL pages for an archive in clear, and back; specified in
 *	  doc/wal-format.md.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/wal_archive.c
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
#include "tde/wal_archive.h"
#include "tde/wal_epoch.h"
#include "tde/xlog.h"

/* Where the first record of a page begins; maybe behind the page. */
static uint64
first_record(const uint8 *page)
{
	const XLogPageHeaderData *hdr = (const XLogPageHeaderData *) page;
	uint64		at = XLogPageHeaderSize(hdr);

	if (hdr->xlp_info & XLP_FIRST_IS_CONTRECORD)
		at += MAXALIGN64(hdr->xlp_rem_len);
	return at;
}

/*
 * Where the record at "at" ends, with its padding, maybe behind the page; 0 if
 * none begins there.
 */
static uint64
record_end(const uint8 *page, size_t size, uint64 at)
{
	uint32		len;

	if (at + TDE_WAL_WORD > size)
		return 0;
	memcpy(&len, page + at, sizeof(len));
	return len < SizeOfXLogRecord ? 0 : at + MAXALIGN64(len);
}

/*
 * Where what was written of a page in clear ends: where its last record does,
 * or, if the page is not valid to its end, with the last word that is not zero.
 */
static size_t
written_end(const uint8 *page, size_t size)
{
	uint64		pageaddr = ((const XLogPageHeaderData *) page)->xlp_pageaddr;
	uint64		end = first_record(page);
	uint64		next = end;
	size_t		last = size;

	while (next != 0)
	{
		end = next;
		if (end + TDE_WAL_WORD <= size &&
			tde_wal_is_marker(pageaddr + end, page + end))
			return end;
		next = record_end(page, size, end);
	}
	while (last > end && page[last - 1] == 0)
		last--;
	end = Max(end, TYPEALIGN64(TDE_WAL_WORD, last));
	return Min(end, size);
}

int
tde_wal_page_archive(TdeCtr *ctx, uint8 *page, size_t size)
{
	XLogPageHeader hdr = (XLogPageHeader) page;

	if (tde_wal_page_decrypt(ctx, hdr->xlp_pageaddr, page,
							 XLogPageHeaderSize(hdr), size) < 0)
		return -1;
	tde_wal_page_set_key_id(page,
							tde_wal_page_key_id(page) | TDE_WAL_DECRYPTED);
	return 0;
}

int
tde_wal_page_restore(TdeCtr *ctx, uint8 *page, size_t size)
{
	XLogPageHeader hdr = (XLogPageHeader) page;
	size_t		from = XLogPageHeaderSize(hdr);

	if (tde_wal_crypt(ctx, hdr->xlp_pageaddr + from, page + from, page + from,
					  written_end(page, size) - from) < 0)
		return -1;
	tde_wal_page_set_key_id(page,
							tde_wal_page_key_id(page) & ~TDE_WAL_DECRYPTED);
	return 0;
}

const uint8 *
tde_wal_page_find_epoch(const uint8 *page, size_t size, size_t *len)
{
	uint64		at = first_record(page);
	uint64		end;

	for (; (end = record_end(page, size, at)) != 0; at = end)
	{
		const uint8 *data = page + at + SizeOfXLogRecord;
		XLogRecord	record;

		/* it consists of main data, and reaches the page's end */
		if (end != size ||
			end - at <= SizeOfXLogRecord + SizeOfXLogRecordDataHeaderLong)
			continue;
		memcpy(&record, page + at, SizeOfXLogRecord);
		if (record.xl_rmid != RM_TDE_ID ||
			(record.xl_info & ~XLR_INFO_MASK) != XLOG_TDE_WAL_EPOCH)
			continue;
		data += *data == XLR_BLOCK_ID_DATA_LONG ?
			SizeOfXLogRecordDataHeaderLong : SizeOfXLogRecordDataHeaderShort;
		*len = tde_wal_epoch_length(data, page + size - data);
		return data;
	}
	return NULL;
}
