/*-------------------------------------------------------------------------
 *
 * autovacuum.c
 *	  Relations that autovacuum passes by.
 *
 * What cannot be read for want of its key, autovacuum would fail on once a
 * minute, and those who watch the log would stop reading it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * IDENTIFICATION
 *	  src/backend/tde/storage/autovacuum.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/procnumber.h"
#include "tde/keys.h"
#include "tde/storage.h"

/*
 * Is this row of pg_class one of a relation that is encrypted under keys that
 * are unavailable, or was given up?  Catalogs are not, and only they are
 * mapped.
 */
bool
TdeAutovacuumSkips(const FormData_pg_class *class)
{
	RelFileLocatorBackend rlocator = {
		.locator.spcOid = OidIsValid(class->reltablespace) ?
			class->reltablespace : MyDatabaseTableSpace,
		.locator.dbOid = MyDatabaseId,
		.locator.relNumber = class->relfilenode,
		.backend = INVALID_PROC_NUMBER,
	};

	return TdeDatabaseInTrouble(MyDatabaseId) && !class->relisshared &&
		class->relpersistence != RELPERSISTENCE_TEMP &&
		RelFileNumberIsValid(class->relfilenode) &&
		TdeRelationKeyIsLost(&rlocator);
}
