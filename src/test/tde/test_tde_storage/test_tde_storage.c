/*-------------------------------------------------------------------------
 *
 * test_tde_storage.c
 *	  Raw access to relation files, for tests of their encryption.
 *
 * The functions are described in the SQL file.  Those that change a file take
 * an AccessExclusiveLock on the relation, and keep it.
 *
 * If the server preloads it, a process that comes to the injection point that
 * the environment's COFFER_CRASH_AT names is killed: nobody could attach it in
 * time to one that is met while the server starts.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_storage/test_tde_storage.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/generic_xlog.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "common/relpath.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/checksum.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "tde/keys.h"
#include "utils/builtins.h"
#include "utils/injection_point.h"
#include "utils/rel.h"
#include "varatt.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(write_file);
PG_FUNCTION_INFO_V1(smgr_write);
PG_FUNCTION_INFO_V1(smgr_extend);
PG_FUNCTION_INFO_V1(smgr_read);
PG_FUNCTION_INFO_V1(checksum);
PG_FUNCTION_INFO_V1(is_verified);
PG_FUNCTION_INFO_V1(evict);
PG_FUNCTION_INFO_V1(pin_file_numbers);
PG_FUNCTION_INFO_V1(set_next_oid);
PG_FUNCTION_INFO_V1(generic_record);

/* The most that the storage manager takes in one call. */
#define MAX_PAGES	PG_IOV_MAX

/* The arguments that most functions begin with. */
typedef struct Target
{
	Relation	rel;
	SMgrRelation smgr;
	ForkNumber	fork;
	BlockNumber blkno;
	int			npages;
	void	   *pages[MAX_PAGES];
} Target;

static void
get_target(FunctionCallInfo fcinfo, LOCKMODE lockmode, int npages,
		   Target *target)
{
	char	   *buf;

	if (npages < 1 || npages > MAX_PAGES)
		elog(ERROR, "number of pages is out of range");

	target->rel = relation_open(PG_GETARG_OID(0), lockmode);
	target->smgr = RelationGetSmgr(target->rel);
	target->fork = forkname_to_number(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	target->blkno = PG_GETARG_INT64(2);
	target->npages = npages;

	buf = palloc_aligned(npages * BLCKSZ, PG_IO_ALIGN_SIZE, 0);
	for (int i = 0; i < npages; i++)
		target->pages[i] = buf + i * BLCKSZ;
}

/* The same with argument 3 as pages to be written; empties the buffers. */
static void
get_target_and_pages(FunctionCallInfo fcinfo, Target *target)
{
	bytea	   *pages = PG_GETARG_BYTEA_PP(3);
	BlockNumber first = 0;

	get_target(fcinfo, AccessExclusiveLock,
			   VARSIZE_ANY_EXHDR(pages) / BLCKSZ, target);
	memcpy(target->pages[0], VARDATA_ANY(pages), target->npages * BLCKSZ);

	FlushRelationBuffers(target->rel);
	DropRelationBuffers(target->smgr, &target->fork, 1, &first);
}

static void
page_argument(FunctionCallInfo fcinfo, PGIOAlignedBlock *page)
{
	bytea	   *arg = PG_GETARG_BYTEA_PP(0);

	if (VARSIZE_ANY_EXHDR(arg) != BLCKSZ)
		elog(ERROR, "not a page");
	memcpy(page->data, VARDATA_ANY(arg), BLCKSZ);
}

Datum
write_file(PG_FUNCTION_ARGS)
{
	Target		target;

	get_target_and_pages(fcinfo, &target);
	if (PG_GETARG_BOOL(4) && DataChecksumsEnabled())
		for (int i = 0; i < target.npages; i++)
			if (!PageIsNew(target.pages[i]))
				((PageHeader) target.pages[i])->pd_checksum =
					pg_checksum_page(target.pages[i], target.blkno + i);
	mdwritev(target.smgr, target.fork, target.blkno,
			 (const void **) target.pages, target.npages, false);
	relation_close(target.rel, NoLock);
	PG_RETURN_VOID();
}

Datum
smgr_write(PG_FUNCTION_ARGS)
{
	Target		target;

	get_target_and_pages(fcinfo, &target);
	smgrwritev(target.smgr, target.fork, target.blkno,
			   (const void **) target.pages, target.npages, false);
	relation_close(target.rel, NoLock);
	PG_RETURN_VOID();
}

Datum
smgr_extend(PG_FUNCTION_ARGS)
{
	Target		target;

	get_target_and_pages(fcinfo, &target);
	smgrextend(target.smgr, target.fork, target.blkno, target.pages[0], false);
	relation_close(target.rel, NoLock);
	PG_RETURN_VOID();
}

Datum
smgr_read(PG_FUNCTION_ARGS)
{
	Target		target;
	bytea	   *result;

	get_target(fcinfo, AccessShareLock, PG_GETARG_INT32(3), &target);
	smgrreadv(target.smgr, target.fork, target.blkno, target.pages,
			  target.npages);
	result = palloc(VARHDRSZ + target.npages * BLCKSZ);
	SET_VARSIZE(result, VARHDRSZ + target.npages * BLCKSZ);
	memcpy(VARDATA(result), target.pages[0], target.npages * BLCKSZ);
	relation_close(target.rel, AccessShareLock);
	PG_RETURN_BYTEA_P(result);
}

Datum
checksum(PG_FUNCTION_ARGS)
{
	PGIOAlignedBlock page;

	page_argument(fcinfo, &page);
	PG_RETURN_INT32(pg_checksum_page(page.data, PG_GETARG_INT64(1)));
}

Datum
is_verified(PG_FUNCTION_ARGS)
{
	PGIOAlignedBlock page;

	page_argument(fcinfo, &page);
	PG_RETURN_BOOL(PageIsVerified(page.data, PG_GETARG_INT64(1), 0, NULL));
}

Datum
evict(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	int32		evicted;
	int32		flushed;
	int32		skipped;

	EvictRelUnpinnedBuffers(rel, &evicted, &flushed, &skipped);
	if (skipped > 0)
		elog(ERROR, "%d buffers are pinned", skipped);
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}

Datum
pin_file_numbers(PG_FUNCTION_ARGS)
{
	RelFileLocator locator = {
		.spcOid = MyDatabaseTableSpace,
		.dbOid = MyDatabaseId,
	};

	for (Oid number = PG_GETARG_OID(0); number <= PG_GETARG_OID(1); number++)
	{
		SMgrRelation smgr;

		locator.relNumber = number;
		smgr = smgropen(locator, INVALID_PROC_NUMBER);
		smgrpin(smgr);
		if (TdeGetRelationKey(&smgr->smgr_rlocator) != NULL)
			elog(ERROR, "file number %u is encrypted already", number);
	}
	PG_RETURN_VOID();
}

Datum
set_next_oid(PG_FUNCTION_ARGS)
{
	/* oidCount 0 makes the next caller log a new range, as it should */
	LWLockAcquire(OidGenLock, LW_EXCLUSIVE);
	TransamVariables->nextOid = PG_GETARG_OID(0);
	TransamVariables->oidCount = 0;
	LWLockRelease(OidGenLock);
	PG_RETURN_VOID();
}

Datum
generic_record(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	text	   *content = PG_GETARG_TEXT_PP(1);
	Size		len = VARSIZE_ANY_EXHDR(content);
	Buffer		buffer = ExtendBufferedRel(BMR_REL(rel), MAIN_FORKNUM, NULL,
										   EB_LOCK_FIRST);

	/* One record with an image of the page, and one with what changed. */
	for (int i = 0; i < 2; i++)
	{
		GenericXLogState *state = GenericXLogStart(rel);
		Page		page = GenericXLogRegisterBuffer(state, buffer, 0);

		if (i == 0)
			PageInit(page, BLCKSZ, len);
		else
			memcpy(PageGetSpecialPointer(page), VARDATA_ANY(content), len);
		GenericXLogFinish(state);
	}
	UnlockReleaseBuffer(buffer);
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}

#ifdef USE_INJECTION_POINTS
static shmem_startup_hook_type next_shmem_startup = NULL;

extern PGDLLEXPORT void crash(const char *name, const void *private_data,
							  void *arg);

void
crash(const char *name, const void *private_data, void *arg)
{
	ereport(LOG, (errmsg_internal("crash at \"%s\"", name)));
	kill(MyProcPid, SIGKILL);
}

static void
attach(void)
{
	if (next_shmem_startup)
		next_shmem_startup();
	InjectionPointAttach(getenv("COFFER_CRASH_AT"), "test_tde_storage",
						 "crash", NULL, 0);
}

void
_PG_init(void)
{
	if (process_shared_preload_libraries_in_progress &&
		getenv("COFFER_CRASH_AT") != NULL)
	{
		next_shmem_startup = shmem_startup_hook;
		shmem_startup_hook = attach;
	}
}
#endif
