/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Is a data file encrypted?
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/probe.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "store_reading.h"
#include "tde/page.h"

TdeDataFileMark
tde_store_data_file_mark(const char *path)
{
	union
	{
		PageHeaderData header;
		uint8		bytes[SizeOfPageHeaderData];
	}			page;
	int			n = tde_store_read_small(path, page.bytes,
										 sizeof(page.bytes));

	if (n < 0)
		return errno == ENOENT ? TDE_MARK_NO_FILE : TDE_MARK_UNKNOWN;
	if (n < sizeof(page.bytes) || page.header.pd_pagesize_version == 0)
		return TDE_MARK_NO_PAGE;
	if (page.header.pd_pagesize_version == (BLCKSZ | TDE_PAGE_LAYOUT_VERSION))
		return TDE_MARK_ENCRYPTED;
	return TDE_MARK_PLAIN;
}
