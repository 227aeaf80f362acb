/*-------------------------------------------------------------------------
 *
 * page_io.c
 *	  Encryption of pages that are written, decryption of pages that were
 *	  read, and what is said about pages that are wrong.
 *
 * Ciphertext and the mark of an encrypted page exist in files and in the
 * private buffer below, never in a shared or local buffer.  The checksum on
 * disk is that of the encrypted page.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/page_io.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "storage/checksum.h"
#include "storage/proc.h"
#include "storage_internal.h"
#include "tde/smgr.h"
#include "utils/memutils.h"

/* Where pages are encrypted; a page of it is touched when first used. */
static PGIOAlignedBlock encrypted_pages[TDE_WRITE_PAGES];

/* Written in place of a page that was found to be all zeros. */
static const PGIOAlignedBlock zero_page;

#ifdef USE_INJECTION_POINTS
bool		tde_write_bad_checksums = false;
#endif

/*
 * The page in memory has something that no page should have there.
 */
static void
refuse_page(SMgrRelation reln, ForkNumber forknum, BlockNumber blocknum,
			const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid page for block %u of encrypted relation \"%s\"",
					blocknum, relpath(reln->smgr_rlocator, forknum).str),
			 errdetail_internal("%s", detail),
			 errhint("The page is damaged in memory, or an extension writes pages without a standard page header, which cannot be encrypted.")));
}

/*
 * Encrypt one page into dst.  Returns what is to be written.
 */
static const void *
encrypt_page(const TdeRelationKey *key, SMgrRelation reln, ForkNumber forknum,
			 BlockNumber blocknum, const void *page, void *dst)
{
	TdePageCipher *cipher;

	if (PageIsNew((const PageData *) page))
	{
		if (tde_page_is_zero(page))
			return zero_page.data;
		refuse_page(reln, forknum, blocknum,
					_("The page is not empty, but its header is."));
	}
	if (tde_page_is_marked(page))
		refuse_page(reln, forknum, blocknum,
					_("The page is encrypted already."));
	if (PageGetPageLayoutVersion((const PageData *) page) !=
		PG_PAGE_LAYOUT_VERSION ||
		PageGetPageSize((const PageData *) page) != BLCKSZ)
		refuse_page(reln, forknum, blocknum,
					_("The page header has an unknown layout version or page size."));

	cipher = TdeGetPageCipher(key);
	if (cipher == NULL ||
		tde_page_encrypt(cipher, page, dst, blocknum, forknum) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not encrypt block %u of relation \"%s\": %s",
						blocknum, relpath(reln->smgr_rlocator, forknum).str,
						_(tde_cipher_error()))));

	if (DataChecksumsEnabled())
		((PageHeader) dst)->pd_checksum = pg_checksum_page(dst, blocknum);

#ifdef USE_INJECTION_POINTS
	if (tde_write_bad_checksums)
		((PageHeader) dst)->pd_checksum++;
#endif

	return dst;
}

/*
 * See storage_internal.h.
 */
int
TdeEncryptPages(const TdeRelationKey *key, SMgrRelation reln,
				ForkNumber forknum, BlockNumber blocknum,
				const void **pages, BlockNumber npages, const void **out)
{
	int			n = Min(npages, TDE_WRITE_PAGES);

	for (int i = 0; i < n; i++)
		out[i] = encrypt_page(key, reln, forknum, blocknum + i, pages[i],
							  encrypted_pages[i].data);

	return n;
}

/*
 * See storage_internal.h.
 */
TdePageStatus
TdeDecryptPage(const TdeRelationKey *key, void *page, BlockNumber blocknum,
			   ForkNumber forknum)
{
	TdePageCipher *cipher;

	if (PageIsNew(page))
		return TDE_PAGE_OK;

	if (!tde_page_is_marked(page))
		return key == NULL ? TDE_PAGE_OK : TDE_PAGE_NOT_ENCRYPTED;

	if (key == NULL)
		return TDE_PAGE_NO_KEY;

	cipher = TdeGetPageCipher(key);
	if (cipher == NULL ||
		tde_page_decrypt(cipher, page, blocknum, forknum) < 0)
		return TDE_PAGE_CIPHER_FAILED;

	return TDE_PAGE_OK;
}

/*
 * See storage_internal.h.
 */
void
TdeReportPage(TdePageStatus status, const RelFileLocatorBackend *rlocator,
			  ForkNumber forknum, BlockNumber blocknum, const char *reason,
			  int elevel)
{
	RelPathStr	path = relpath(*rlocator, forknum);
	char	   *keyfile = NULL;

	/*
	 * In a critical section nothing may be allocated except in ErrorContext.
	 * The key of a temporary relation has no file.
	 */
	if (!RelFileLocatorBackendIsTemp(*rlocator))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(ErrorContext);

		keyfile = TdeKeyFilePath(&rlocator->locator);
		MemoryContextSwitchTo(oldcontext);
	}

	switch (status)
	{
		case TDE_PAGE_OK:
			break;

		case TDE_PAGE_NO_KEY:
			ereport(elevel,
					(errcode(ERRCODE_UNDEFINED_FILE),
					 errmsg("block %u of relation \"%s\" is encrypted, but the relation has no key",
							blocknum, path.str),
					 keyfile ? errdetail("The key is expected in file \"%s\".", keyfile) : 0,
					 errhint("Restore the directory \"pg_tde\" as it was when this data directory was in use, or was backed up.")));
			break;

		case TDE_PAGE_NOT_ENCRYPTED:
			ereport(elevel,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("block %u of encrypted relation \"%s\" is not encrypted",
							blocknum, path.str),
					 keyfile ? errdetail("The relation has its key in file \"%s\".", keyfile) : 0,
					 errhint("The block is damaged, or comes from another relation or from a server that did not have the key. Restore the relation from a backup.")));
			break;

		case TDE_PAGE_CIPHER_FAILED:
			ereport(elevel,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 reason ?
					 errmsg("could not decrypt block %u of relation \"%s\": %s",
							blocknum, path.str, reason) :
					 errmsg("could not decrypt block %u of relation \"%s\"",
							blocknum, path.str),
					 keyfile ? errdetail("The relation has its key in file \"%s\".", keyfile) : 0,
					 reason ? 0 : errhint("See server log for the reason.")));
			break;
	}

	if (keyfile)
		pfree(keyfile);
}
