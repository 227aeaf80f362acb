/*-------------------------------------------------------------------------
 *
 * store_reading.h
 *	  What the files of this directory share: filling a TdeStoreProblem, and
 *	  reading a directory.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/store/store_reading.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_STORE_READING_H
#define TDE_STORE_READING_H

#include "tde/store.h"

/* The operating system refused, see errno: "could not ... file \"%s\": %m". */
extern void tde_store_failed(TdeStoreProblem *problem, const char *path,
							 const char *message);

/* What is in the file cannot be used. */
extern void tde_store_damaged(TdeStoreProblem *problem, const char *path,
							  const char *reason);

/*
 * Call back for each name in a directory (listing.c).  Returns false with a
 * problem.
 */
extern bool tde_store_walk(const char *path,
						   void (*callback) (const char *name, void *arg),
						   void *arg, TdeStoreProblem *problem);

#endif							/* TDE_STORE_READING_H */
