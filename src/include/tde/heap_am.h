/*-------------------------------------------------------------------------
 *
 * heap_am.h
 *	  Tables that are stored as heap stores them: those of access method heap
 *	  and those of the encrypting ones.
 *
 * For modules and programs that read heap's pages, and therefore look at
 * pg_class.relam before they do.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/include/tde/heap_am.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_HEAP_AM_H
#define TDE_HEAP_AM_H

#include "catalog/pg_am_d.h"

/* Symbol of the handler that makes an access method an encrypting one. */
#define TDE_AM_HANDLER	"pg_tdeam_handler"

/* The one that the extension makes with it. */
#define TDE_AM_NAME		"tde_heap"

#ifndef FRONTEND

/*
 * Does the access method encrypt (tde_heap, or another made with its
 * handler)?  Reads the system caches, except for InvalidOid and heap.
 */
extern bool TdeAccessMethodEncrypts(Oid amoid);

static inline bool
TdeIsHeapAccessMethod(Oid amoid)
{
	return amoid == HEAP_TABLE_AM_OID || TdeAccessMethodEncrypts(amoid);
}

#endif							/* FRONTEND */

/*
 * SQL: a row source with the columns of pg_class that pg_amcheck selects by,
 * in which heap stands for the encrypting access methods.
 */
#define TDE_PG_CLASS_WITH_HEAP \
	"(SELECT oid, relname, relnamespace, relkind, relpersistence, relpages, " \
	"reltoastrelid, CASE WHEN relam IN (" \
	"SELECT a.oid FROM pg_catalog.pg_am a JOIN pg_catalog.pg_proc p " \
	"ON p.oid OPERATOR(pg_catalog.=) a.amhandler::pg_catalog.oid " \
	"WHERE p.prosrc OPERATOR(pg_catalog.=) '" TDE_AM_HANDLER "') " \
	"THEN " CppAsString2(HEAP_TABLE_AM_OID) " ELSE relam END AS relam " \
	"FROM pg_catalog.pg_class)"

#endif							/* TDE_HEAP_AM_H */
