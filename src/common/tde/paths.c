/*-------------------------------------------------------------------------
 *
 * paths.c
 *	  Names of the files of the key store, for server and programs.
 *
 *	  pg_tde/global/provider_config			global providers
 *	  pg_tde/global/default_key.key			scope record of the default key
 *	  pg_tde/global/server_key.key			scope record of the server
 *	  pg_tde/<db>/provider_config			providers of a database
 *	  pg_tde/<db>/database_key.key			scope record of a database
 *	  pg_tde/<db>/<rel>.key					key record of a relation in pg_default
 *	  pg_tde/<db>/<rel>_<spc>.key			... in another tablespace
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/paths.c
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "catalog/pg_tablespace_d.h"
#include "tde/paths.h"

void
tde_database_dir(Oid dbOid, char *path)
{
	if (OidIsValid(dbOid))
		snprintf(path, MAXPGPATH, "%s/%u", TDE_DIR, dbOid);
	else
		strlcpy(path, TDE_GLOBAL_DIR, MAXPGPATH);
}

void
tde_key_path(const RelFileLocator *locator, char *path)
{
	if (locator->spcOid == DEFAULTTABLESPACE_OID)
		snprintf(path, MAXPGPATH, "%s/%u/%u.key", TDE_DIR, locator->dbOid,
				 locator->relNumber);
	else
		snprintf(path, MAXPGPATH, "%s/%u/%u_%u.key", TDE_DIR, locator->dbOid,
				 locator->relNumber, locator->spcOid);
}

bool
tde_parse_key_file_name(const char *name, Oid dbOid, RelFileLocator *locator)
{
	char	   *end;
	unsigned long rel;
	unsigned long spc = DEFAULTTABLESPACE_OID;

	if (name[0] < '1' || name[0] > '9')
		return false;
	errno = 0;
	rel = strtoul(name, &end, 10);
	if (errno != 0 || rel > PG_UINT32_MAX)
		return false;
	if (*end == '_' && end[1] >= '1' && end[1] <= '9')
	{
		spc = strtoul(end + 1, &end, 10);
		if (errno != 0 || spc > PG_UINT32_MAX)
			return false;
	}
	if (strcmp(end, ".key") != 0)
		return false;

	locator->spcOid = (Oid) spc;
	locator->dbOid = dbOid;
	locator->relNumber = (RelFileNumber) rel;
	return true;
}

Oid
tde_parse_database_dir(const char *name)
{
	char	   *end;
	unsigned long oid;

	if (strspn(name, "0123456789") != strlen(name))
		return InvalidOid;
	errno = 0;
	oid = strtoul(name, &end, 10);
	if (errno != 0 || *end != '\0' || oid > PG_UINT32_MAX)
		return InvalidOid;
	return (Oid) oid;
}

void
tde_scope_path(TdeScopeKind kind, Oid dbOid, char *path)
{
	if (kind == TDE_SCOPE_DATABASE)
		snprintf(path, MAXPGPATH, "%s/%u/%s", TDE_DIR, dbOid,
				 TDE_DATABASE_FILE);
	else
		snprintf(path, MAXPGPATH, "%s/%s", TDE_GLOBAL_DIR,
				 kind == TDE_SCOPE_SERVER ? TDE_SERVER_FILE : TDE_DEFAULT_FILE);
}

void
tde_provider_path(Oid dbOid, char *path)
{
	char		dir[MAXPGPATH];

	tde_database_dir(dbOid, dir);
	snprintf(path, MAXPGPATH, "%s/%s", dir, TDE_PROVIDER_FILE);
}

void
tde_registry_path(Oid dbOid, char *path)
{
	snprintf(path, MAXPGPATH, "%s/%u/%s", TDE_DIR, dbOid, TDE_REGISTRY_FILE);
}
