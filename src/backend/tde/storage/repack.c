/*-------------------------------------------------------------------------
 *
 * repack.c
 *	  Tables that pg_repack makes to rewrite another one.
 *
 * pg_repack rewrites a table while it is in use: it copies the rows into a
 * table of its own, repack.table_OID, collects concurrent changes in another,
 * repack.log_OID, and at the end exchanges the file numbers of copy and
 * original in pg_class.  It names no access method for either.  With a default
 * of heap, the rows would be written to disk in clear, twice, and the original
 * would keep its access method and get the file of the copy.
 *
 * So these two get the access method of the table whose OID is in their name,
 * and all else follows: indexes and TOAST of the copy are encrypted with it,
 * and the exchanged numbers have their keys.
 *
 * The other way round, with an encrypting default, a plain table would get an
 * encrypted file and remain a heap: its next index, and its next rewrite,
 * would be plain again, while it looked as if it were encrypted.  It stays
 * plain.  This way only in the schema that belongs to the extension pg_repack,
 * which superusers create: else whoever may create a schema could call it
 * "repack" and have plain tables where the default encrypts.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/storage/repack.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "tde/storage.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define REPACK_EXTENSION	"pg_repack"
#define REPACK_SCHEMA	"repack"

static const char *const repack_prefixes[] = {"table_", "log_"};

/* The OID in the name of a table of pg_repack, or InvalidOid. */
static Oid
oid_in_name(const char *relname)
{
	for (int i = 0; i < lengthof(repack_prefixes); i++)
	{
		size_t		len = strlen(repack_prefixes[i]);
		const char *digits = relname + len;
		char	   *end;
		unsigned long oid;

		if (strncmp(relname, repack_prefixes[i], len) != 0)
			continue;
		if (*digits < '0' || *digits > '9')
			return InvalidOid;
		errno = 0;
		oid = strtoul(digits, &end, 10);
		if (*end != '\0' || errno != 0 || oid > OID_MAX)
			return InvalidOid;
		return (Oid) oid;
	}
	return InvalidOid;
}

/* Is a schema that of the extension pg_repack? */
static bool
is_schema_of_extension(Oid namespaceId)
{
	Oid			extension = get_extension_oid(REPACK_EXTENSION, true);

	return OidIsValid(extension) &&
		getExtensionOfObject(NamespaceRelationId, namespaceId) == extension;
}

Oid
TdeAccessMethodOfCopy(Oid namespaceId, const char *relname, Oid amoid)
{
	Oid			original,
				original_am;
	char	   *schema;
	HeapTuple	tuple;

	original = oid_in_name(relname);
	if (!OidIsValid(original))
		return amoid;
	if (amoid != HEAP_TABLE_AM_OID && !TdeAccessMethodEncrypts(amoid))
		return amoid;
	schema = get_namespace_name(namespaceId);
	if (schema == NULL || strcmp(schema, REPACK_SCHEMA) != 0)
		return amoid;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(original));
	if (!HeapTupleIsValid(tuple))
		return amoid;
	original_am = ((Form_pg_class) GETSTRUCT(tuple))->relam;
	ReleaseSysCache(tuple);

	if (TdeAccessMethodEncrypts(original_am))
		return original_am;
	if (original_am == HEAP_TABLE_AM_OID && is_schema_of_extension(namespaceId))
		return original_am;
	return amoid;
}
