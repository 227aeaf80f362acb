/*-------------------------------------------------------------------------
 *
 * key_file.c
 *	  Key files of relations: reading, putting in place, syncing.
 *
 * A key file is written when its relation is created and fsynced at the next
 * checkpoint, like a data file; until then the WAL record that carries its
 * content protects it.  The checkpointer gets two requests for it: one for
 * the file and one, the same for all files of a database, for the directory.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/relation/key_file.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/relpath.h"
#include "relation_internal.h"
#include "storage/fd.h"
#include "storage/sync.h"
#include "tde/sync.h"

void
tde_fill_relation_key(const TdeKey *key, TdeRelationKey *out)
{
	out->id = key->id;
	out->cipher = key->cipher;
	tde_copy_key(out->key, key->key, TDE_MAX_KEY_LEN);
}

/*
 * Read the key file of a relation and, if "unwrap", the key in it.  Allocates
 * nothing and does not raise; a problem is described in "reason", a phrase
 * that fits after the file's name.
 */
TdeKeyFileStatus
tde_key_file_read(const RelFileLocator *locator, TdeKey *key, bool unwrap,
				  char *reason, size_t reason_size)
{
	uint8		record[TDE_KEY_RECORD_LEN + 1];
	uint8		scope_key[TDE_WRAP_KEY_LEN];
	char		why_not[TDE_REASON_LEN];
	const char *why;
	int			len = tde_store_read_key(locator, record, key, &why);
	int			rc;

	if (len == 0)
		return TDE_KEYFILE_NONE;
	if (len < 0)
	{
		if (why)
			strlcpy(reason, _(why), reason_size);
		else
			snprintf(reason, reason_size, _("could not be read: %m"));
		return TDE_KEYFILE_BAD;
	}
	if (!unwrap)
		return TDE_KEYFILE_OK;

	if (key->created <= tde_given_up(locator->dbOid))
	{
		strlcpy(reason, _("the database was given up in recovery"),
				reason_size);
		return TDE_KEYFILE_GIVEN_UP;
	}
	if (key->created <= tde_relation_given_up(locator))
	{
		strlcpy(reason, _("the relation was given up in recovery"),
				reason_size);
		return TDE_KEYFILE_GIVEN_UP;
	}
	if (!tde_generation_key(&key->generation, scope_key))
	{
		if (tde_scope_is_unavailable(TDE_SCOPE_DATABASE, locator->dbOid, why_not))
		{
			strlcpy(reason, why_not, reason_size);
			return TDE_KEYFILE_UNAVAILABLE;
		}
		strlcpy(reason,
				_("the key that protects it is missing from the keys of its database"),
				reason_size);
		return TDE_KEYFILE_BAD;
	}
	rc = tde_key_record_unwrap(record, len, scope_key, key, &why);
	tde_wipe(scope_key, sizeof(scope_key));
	if (rc != 0)
	{
		strlcpy(reason, _(why), reason_size);
		return TDE_KEYFILE_BAD;
	}
	return TDE_KEYFILE_OK;
}

/*
 * Is there a key file?  Whatever is in it.  Raises an error where that cannot
 * be found out.
 */
bool
TdeKeyFileExists(const RelFileLocator *rlocator)
{
	char		path[MAXPGPATH];

	if (!TdeIsActive() || !OidIsValid(rlocator->dbOid))
		return false;
	tde_key_path(rlocator, path);
	if (access(path, F_OK) == 0)
		return true;
	if (errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not access file \"%s\": %m", path)));
	return false;
}

/*
 * Does the first page of a relation's file bear the mark of an encrypted page?
 * Asked where there is no key file, before the relation is taken for plain: a
 * page that is replayed or evicted is not read before it is written, so that
 * nobody else would notice that a key is lost.
 */
TdeDataFileMark
tde_data_file_mark(const RelFileLocator *locator)
{
	return tde_store_data_file_mark(relpathperm(*locator, MAIN_FORKNUM).str);
}

static void
request_sync(const RelFileLocator *locator)
{
	FileTag		tag;

	memset(&tag, 0, sizeof(tag));
	tag.handler = SYNC_HANDLER_TDE_KEY;
	tag.rlocator = *locator;
	(void) RegisterSyncRequest(&tag, SYNC_REQUEST, true);

	/* The directory: file number 0. */
	tag.rlocator.spcOid = InvalidOid;
	tag.rlocator.relNumber = InvalidRelFileNumber;
	(void) RegisterSyncRequest(&tag, SYNC_REQUEST, true);
}

static void
report_registry(const RelFileLocator *locator)
{
	char		path[MAXPGPATH];
	int			save_errno = errno;

	tde_registry_path(locator->dbOid, path);
	errno = save_errno;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", path)));
}

/*
 * Put a key file in its place and tell everybody.  The new file was written
 * by tde_write_temp_file() or is given as "record".  On the primary, no
 * checkpoint may put its redo pointer behind the key's WAL record before this
 * is done: the caller logs it later, or delays checkpoints since before it did.
 */
void
tde_key_file_install(const TdeKey *key, const uint8 *record)
{
	TdeCachePartition *part = tde_cache_partition(&key->locator);
	char		path[MAXPGPATH];
	char		temp[MAXPGPATH + sizeof(TDE_TEMP_SUFFIX)];

	tde_key_path(&key->locator, path);
	snprintf(temp, sizeof(temp), "%s%s", path, TDE_TEMP_SUFFIX);
	if (record)
		tde_write_temp_file(path, record, TDE_KEY_RECORD_LEN, false);

	if (!tde_registry_append(&key->locator, TDE_WORD_ENCRYPTED))
		report_registry(&key->locator);

	/*
	 * The partition's lock keeps the removal of an old key of this number
	 * from hitting the new one.
	 */
	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (rename(temp, path) != 0)
	{
		int			save_errno = errno;

		LWLockRelease(&part->lock);
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rename file \"%s\" to \"%s\": %m",
						temp, path)));
	}
	tde_known_set(&key->locator, TDE_KNOWN_ENCRYPTED);
	tde_cache_change(part, &key->locator, TDE_CACHE_EMPTY, NULL);
	LWLockRelease(&part->lock);

	request_sync(&key->locator);
}

/*
 * The number of a relation now belongs to a plain one, which is about to be
 * created: forget that it was encrypted, and remove the key file if there is
 * one.
 */
void
tde_key_file_forget(const RelFileLocator *locator)
{
	TdeCachePartition *part = tde_cache_partition(locator);
	bool		exists = TdeKeyFileExists(locator);
	char		path[MAXPGPATH];
	int			rc = 0;
	int			save_errno;

	if (!tde_registry_append(locator, TDE_WORD_PLAIN))
		report_registry(locator);

	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (exists)
	{
		tde_key_path(locator, path);
		rc = unlink(path);
		save_errno = errno;
	}
	if (rc == 0 || save_errno == ENOENT)
	{
		tde_known_set(locator, TDE_KNOWN_NOTHING);
		tde_cache_change(part, locator, TDE_CACHE_PLAIN, NULL);
	}
	LWLockRelease(&part->lock);

	if (rc != 0 && save_errno != ENOENT)
	{
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
	}
	request_sync(locator);
}

static int
sync_path(const char *path, int flags)
{
	int			fd = BasicOpenFile(path, flags | PG_BINARY);
	int			rc;
	int			save_errno;

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	rc = pg_fsync(fd);
	save_errno = errno;
	close(fd);
	errno = save_errno;
	return rc;
}

/*
 * The checkpointer's part: fsync a key file, or the directory of a database
 * and the list of its encrypted relations.  A file that is gone is no failure,
 * its removal was not an accident.
 */
int
tde_sync_key_file(const FileTag *ftag, char *path)
{
	int			rc;

	if (ftag->rlocator.relNumber != InvalidRelFileNumber)
	{
		tde_key_path(&ftag->rlocator, path);
		return sync_path(path, O_RDWR);
	}

	tde_registry_path(ftag->rlocator.dbOid, path);
	if (sync_path(path, O_RDWR) != 0)
		return -1;
	tde_database_dir(ftag->rlocator.dbOid, path);
	rc = sync_path(path, O_RDONLY);

	/* Some systems cannot fsync directories; fd.c forgives these too. */
	if (rc != 0 && (errno == EBADF || errno == EINVAL))
		rc = 0;
	return rc;
}
