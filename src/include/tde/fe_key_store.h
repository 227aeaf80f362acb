/*-------------------------------------------------------------------------
 *
 * fe_key_store.h
 *	  The key store as programs handle it.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/fe_key_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_FE_KEY_STORE_H
#define TDE_FE_KEY_STORE_H

/*
 * Copy the key store of a stopped cluster into another one, which must have
 * none.  Does nothing if the first has none.  Ends the program with a message
 * on failure.  The caller sees to it that the copies are fsynced.
 */
extern void tde_copy_key_store(const char *from_pgdata, const char *to_pgdata);

#endif							/* TDE_FE_KEY_STORE_H */
