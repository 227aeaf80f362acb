/*-------------------------------------------------------------------------
 *
 * subsys.h
 *	  What the server calls when it and its processes start, and at
 *	  checkpoints.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/subsys.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_SUBSYS_H
#define TDE_SUBSYS_H

#include "access/xlogreader.h"

/*
 * Called by the postmaster (or a standalone backend) after the other shared
 * memory is there, and again after each reinitialisation: makes our mapping
 * the first time; afterwards keeps unwrapped scope and principal keys, wipes
 * the rest.
 */
extern void TdeShmemInit(void);

/*
 * Called by a child of the postmaster that does not attach to shared memory
 * (the log collector): it keeps no memory that holds keys, either, and locks
 * what it has where lock_memory asks for it.
 */
extern void TdeShmemDetach(void);

/*
 * Called by every process when PROCSIGNAL_BARRIER_TDE_FORGET reaches it, which
 * a checkpoint sends that has removed keys: wipes the copies of keys that do
 * not hold any more, and the schedules of all keys in cipher contexts.
 * Always returns true: done.
 */
extern bool TdeForgetObsoleteKeys(void);

/*
 * Called by the startup process before it replays anything: reads all scope
 * files, and asks the providers for the principal keys that are not resident
 * yet.  A scope that cannot be opened is noted, with the reason; its database
 * does without.
 */
extern void TdeKeysStartup(void);

/*
 * Called by the checkpointer when the control file names a new redo pointer,
 * by a checkpoint or by a restartpoint: begins to remove the keys of relations
 * dropped before it, unless a base backup runs; at a shutdown, removes all.
 * The second goes on with that; called in the checkpointer's main loop.
 */
extern void TdeKeysRemoveObsolete(XLogRecPtr redo, bool shutdown);
extern void TdeKeysRemoveMore(void);

/* In xlog.c, which alone can see it: is a base backup being taken? */
extern bool TdeBackupIsRunning(void);

/*
 * The part of the key store in TdeShmemInit(), in what each process does in
 * smgrinit() (tables and memory of its own), when keys were removed, and in
 * redo.
 */
extern void TdeKeysShmemInit(void);
extern void TdeKeysProcessInit(void);
extern void TdeKeysForgetStale(void);
extern void TdeKeysRedo(XLogReaderState *record);
extern void TdeKeysReplayNeeds(Oid dbOid);

/*
 * The background worker that asks for the state of principal keys: register
 * it, if the settings want one, while libraries are preloaded; and what the
 * function that was registered calls.
 */
extern void TdeRegisterKeyStateWorker(const char *library,
									  const char *function);
extern void TdeKeyStateWorkerMain(void);

/*
 * The same for the one that tries scopes again that could not be opened when
 * the server started.
 */
extern void TdeRegisterRetryWorker(const char *library, const char *function);
extern void TdeRetryWorkerMain(void);

#endif							/* TDE_SUBSYS_H */
