/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Shared memory of the key store: that of each of its layers, in their
 *	  order.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/shmem.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relation/relation_internal.h"
#include "tde/subsys.h"

void
TdeKeysShmemInit(void)
{
	int			tranche = LWLockNewTrancheId();

	LWLockRegisterTranche(tranche, "TdeKeyStore");

	TdeStoreShmemInit(tranche);
	TdeCountersShmemInit(tranche);
	TdeResidentShmemInit(tranche);
	TdeScopeShmemInit(tranche);
	TdeUnavailableShmemInit(tranche);
	TdeCacheShmemInit(tranche);
	TdeKnownShmemInit();
	TdeRegistryShmemInit(tranche);
	TdeRemovalShmemInit(tranche);
}
