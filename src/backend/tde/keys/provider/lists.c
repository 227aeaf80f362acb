/*-------------------------------------------------------------------------
 *
 * lists.c
 *	  The lists of key providers: one global, one for each database that wants
 *	  its own.
 *
 * A list is a small file that is replaced whole.  A provider is named by its
 * UUID wherever a principal key is referred to, so its options may change.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/provider/lists.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xloginsert.h"
#include "access/xlog.h"
#include "provider_internal.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tde/xlog.h"
#include "utils/injection_point.h"

/*
 * Read a list, which is empty where there is no file; NULL with a problem.
 */
static TdeProviderList *
read_list(Oid dbOid, TdeStoreProblem *problem)
{
	TdeProviderList *list = tde_store_read_providers(dbOid, problem);

	if (list == NULL && problem->missing)
	{
		list = palloc0(sizeof(TdeProviderList));
		list->dbOid = dbOid;
		list->providers = palloc0(sizeof(TdeProvider));
	}
	return list;
}

TdeProviderList *
TdeGetProviders(Oid dbOid)
{
	TdeStoreProblem problem;
	TdeProviderList *list = read_list(dbOid, &problem);

	if (list == NULL && problem.errnum != 0)
		tde_store_report(ERROR, &problem);
	if (list == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not use the list of key providers in file \"%s\": %s",
						problem.path, _(problem.message)),
				 errhint("Restore the file from a backup.")));
	return list;
}

TdeProviderList *
TdeTryGetProviders(Oid dbOid, char **problem)
{
	TdeStoreProblem found;
	TdeProviderList *list = read_list(dbOid, &found);

	if (list)
		*problem = NULL;
	else if (found.errnum != 0)
		*problem = tde_store_problem_text(&found);
	else
		*problem = psprintf(_("could not use the list of key providers in file \"%s\": %s"),
							found.path, _(found.message));
	return list;
}

/*
 * The provider that has a principal key; NULL if the list does not know it.
 */
TdeProvider *
tde_find_named_provider(TdeProviderList *list, const TdePrincipalRef *ref)
{
	for (int i = 0; i < list->nproviders; i++)
		if (tde_provider_is_named(&list->providers[i], ref))
			return &list->providers[i];
	return NULL;
}

/*
 * Put a list in its file, in redo.
 */
void
tde_providers_install(const TdeProviderList *list, const uint8 *data,
					  size_t len)
{
	char		path[MAXPGPATH];

	tde_make_directory(list->dbOid);
	tde_provider_path(list->dbOid, path);
	tde_write_temp_file(path, data, len, true);
	tde_rename_temp_file(path, ERROR);
}

/*
 * Log a changed list and replace its file; see tde_scopes_log_and_store().
 * Caller holds store_lock exclusively.
 */
void
tde_providers_log_and_store(TdeProviderList *list)
{
	char		path[MAXPGPATH];
	uint8	   *data;
	size_t		len;
	XLogRecPtr	lsn;

	Assert(LWLockHeldByMeInMode(&tde_store->lock, LW_EXCLUSIVE));

	if ((list->change++ == 0 && tde_random(list->id.b, TDE_ID_LEN) != 0) ||
		tde_providers_draw_uuids(list) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not make an id: %s", tde_cipher_error())));
	data = palloc(tde_providers_encoded_size(list->nproviders));
	len = tde_providers_encode(list, data);
	if (len == 0)
		elog(ERROR, "could not encode the list of key providers: %s",
			 tde_cipher_error());

	tde_make_directory(list->dbOid);
	tde_provider_path(list->dbOid, path);
	tde_write_temp_file(path, data, len, true);

	INJECTION_POINT("tde-providers-written", NULL);
	INJECTION_POINT_LOAD("tde-providers-logged");

	START_CRIT_SECTION();
	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	XLogBeginInsert();
	XLogRegisterData(data, len);
	lsn = XLogInsert(RM_TDE_ID, XLOG_TDE_PROVIDERS);
	XLogFlush(lsn);
	INJECTION_POINT_CACHED("tde-providers-logged", NULL);
	tde_rename_temp_file(path, PANIC);
	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	END_CRIT_SECTION();

	pg_atomic_fetch_or_u32(&tde_store->active, TDE_ACTIVE);
	pfree(data);
}
