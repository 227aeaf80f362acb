/*-------------------------------------------------------------------------
 *
 * file.c
 *	  The file provider: principal keys in a file that only its owner may
 *	  read.
 *
 * Nothing is taken from or put into a file that somebody else may have
 * written or read: it must be a regular file of ours or of root, without
 * access for group and world.  That is asked of the file that was opened, not
 * of its name, so a symbolic link is as good as what it points to; secrets
 * that are mounted into containers are such links.  A writer follows a link
 * too, and replaces its target (file_replace.c).
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/file.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "file_format.h"
#include "file_replace.h"
#include "tde/cipher.h"
#include "tde/keyring.h"

/* data directory, and "path" as long as options can hold */
#define KEYRING_PATH_LEN	(MAXPGPATH + TDE_MAX_PROVIDER_OPTIONS)

/* A file's content, in memory that is wiped when it is given back. */
typedef struct Content
{
	char	   *data;
	size_t		len;
	size_t		size;			/* of the memory */
} Content;

static bool
alloc_content(Content *content, size_t size)
{
	bool		locked;

	content->data = tde_secure_alloc(size, false, &locked);
	content->size = size;
	content->len = 0;
	return content->data != NULL;
}

static void
free_content(Content *content)
{
	if (content->data)
		tde_secure_free(content->data, content->size);
	content->data = NULL;
	content->len = 0;
}

/* The option "path", from the data directory on if it is relative. */
static void
get_path(const TdeProvider *provider, char *path)
{
	char		option[TDE_MAX_PROVIDER_OPTIONS + 1];
	const char *directory = tde_keyring_directory();

	/* cannot fail: the options were checked */
	if (!tde_keyring_option(provider, "path", option, sizeof(option)))
		option[0] = '\0';
	if (directory == NULL || is_absolute_path(option))
		strlcpy(path, option, KEYRING_PATH_LEN);
	else
		snprintf(path, KEYRING_PATH_LEN, "%s/%s", directory, option);
}

static TdeKeyringStatus
fail_damaged(TdeKeyringError *error, const char *path, const char *reason,
			 int line)
{
	const char *hint = _("Restore the file from a backup of it.");

	if (line == 1)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Check the path of the key provider, or restore the file from a backup of it."),
								_("file \"%s\" is not a valid keyring file: %s"),
								path, reason);
	if (line > 1)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, hint,
								_("keyring file \"%s\" is damaged: line %d: %s"),
								path, line, reason);
	return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, hint,
							_("keyring file \"%s\" is damaged: %s"),
							path, reason);
}

/* ---- reading ---- */

/* Is this open file one that we may trust? */
static TdeKeyringStatus
check_file(int fd, const char *path, struct stat *st, TdeKeyringError *error)
{
	if (fstat(fd, st) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not stat keyring file \"%s\": %m"),
								path);
	if (!S_ISREG(st->st_mode))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("keyring file \"%s\" is not a regular file"),
								path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("The file must belong to the user who runs the server or program, or to root."),
								_("keyring file \"%s\" belongs to another user"),
								path);
	if (st->st_mode & (S_IRWXG | S_IRWXO))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Permissions should be u=rw (0600) or less; use \"chmod 0600\"."),
								_("keyring file \"%s\" has group or world access"),
								path);
	if (st->st_size > KEYRING_MAX_FILE_LEN)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("keyring file \"%s\" is larger than %d bytes"),
								path, KEYRING_MAX_FILE_LEN);
	return TDE_KEYRING_OK;
}

/*
 * Read a whole file.  One that does not exist is an error unless missing_ok;
 * then content->data stays NULL.
 */
static TdeKeyringStatus
read_file(const char *path, bool missing_ok, Content *content,
		  TdeKeyringError *error)
{
	TdeKeyringStatus status;
	struct stat st;
	ssize_t		n = 0;
	int			fd;

	content->data = NULL;
	content->len = 0;

	/* not to block on a FIFO that is then refused */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
	{
		if (errno != ENOENT)
			return tde_keyring_fail(error, keyring_errno_status(), NULL,
									_("could not open keyring file \"%s\": %m"),
									path);
		/* a symbolic link to nothing is not "no file yet" */
		if (missing_ok && lstat(path, &st) != 0)
			return TDE_KEYRING_OK;
		return tde_keyring_fail(error, TDE_KEYRING_UNREACHABLE,
								_("The file is created with its first key. If it held keys, put it back."),
								_("could not open keyring file \"%s\": %m"),
								path);
	}

	status = check_file(fd, path, &st, error);
	if (status == TDE_KEYRING_OK && !alloc_content(content, st.st_size + 1))
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("out of memory"));
	while (status == TDE_KEYRING_OK && content->len < content->size)
	{
		n = read(fd, content->data + content->len,
				 content->size - content->len);
		if (n > 0)
			content->len += n;
		else if (n == 0)
			break;
		else if (errno != EINTR)
			status = tde_keyring_fail(error, keyring_errno_status(), NULL,
									  _("could not read keyring file \"%s\": %m"),
									  path);
	}
	if (status == TDE_KEYRING_OK && content->len != st.st_size)
		status = fail_damaged(error, path, _("file changes while it is read"),
							  0);
	close(fd);
	if (status != TDE_KEYRING_OK)
		free_content(content);
	return status;
}

/*
 * Look for a key in a file's content; name may be NULL, to verify only.
 * NOT_FOUND is left for the caller to describe.
 */
static TdeKeyringStatus
find_key(const char *path, const Content *content, const char *name,
		 TdePrincipalKey *key, TdeKeyringError *error)
{
	TdeKeyringStatus status = TDE_KEYRING_NOT_FOUND;
	KeyringEntry entry;
	const char *reason;
	int			line;

	switch (keyring_file_find(content->data, content->len, name, &entry,
							  &reason, &line))
	{
		case KEYRING_FOUND:
			*key = entry.key;
			status = TDE_KEYRING_OK;
			break;
		case KEYRING_ABSENT:
			break;
		case KEYRING_DAMAGED:
			status = fail_damaged(error, path, reason, line);
			break;
	}
	tde_wipe(&entry, sizeof(entry));
	return status;
}

static TdeKeyringStatus
file_fetch(const TdeProvider *provider, const char *name,
		   const TdeKeyringCall *call, TdePrincipalKey *key,
		   TdeKeyringError *error)
{
	char		path[KEYRING_PATH_LEN];
	TdeKeyringStatus status;
	Content		content;

	get_path(provider, path);
	status = read_file(path, false, &content, error);
	if (status != TDE_KEYRING_OK)
		return status;
	status = find_key(path, &content, name, key, error);
	free_content(&content);
	if (status == TDE_KEYRING_NOT_FOUND)
		tde_keyring_fail(error, status, NULL,
						 _("key \"%s\" does not exist in keyring file \"%s\""),
						 name, path);
	return status;
}

/*
 * Somebody made an empty file for a provider that is to be added: write there
 * that it holds no keys yet.  So an empty file stays what it is otherwise, one
 * whose content was lost.
 */
static TdeKeyringStatus
begin_keyring(const char *path, const TdeKeyringCall *call,
			  TdeKeyringError *error)
{
	KeyringReplace replace;
	TdeKeyringStatus status;
	Content		old;
	char		data[KEYRING_MAX_GROWTH];
	size_t		len;

	status = keyring_replace_begin(path, call, &replace, error);
	if (status != TDE_KEYRING_OK)
		return status;
	status = read_file(replace.path, false, &old, error);
	if (status == TDE_KEYRING_OK && old.len > 0)
	{
		status = find_key(replace.path, &old, NULL, NULL, error);
		if (status == TDE_KEYRING_NOT_FOUND)
			status = TDE_KEYRING_OK;
	}
	else if (status == TDE_KEYRING_OK)
	{
		len = keyring_file_append(NULL, 0, NULL, data);
		status = len > 0 ?
			keyring_replace_commit(&replace, data, len, error) :
			tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
							 _("could not compute a checksum"));
	}
	free_content(&old);
	keyring_replace_end(&replace);
	return status;
}

/*
 * A provider may be added before its file exists, since its first key makes
 * the file: then it must be possible to make it.
 */
static TdeKeyringStatus
file_validate(const TdeProvider *provider, const TdeKeyringCall *call,
			  TdeKeyringError *error)
{
	char		path[KEYRING_PATH_LEN];
	TdeKeyringStatus status;
	Content		content;

	get_path(provider, path);
	status = read_file(path, true, &content, error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (content.data)
	{
		bool		begin = provider->id == 0 && content.len == 0;

		if (begin)
			status = begin_keyring(path, call, error);
		else
			status = find_key(path, &content, NULL, NULL, error);
		free_content(&content);
		if (begin)
			return status;
		return status == TDE_KEYRING_NOT_FOUND ? TDE_KEYRING_OK : status;
	}

	keyring_get_directory(path);
	if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not use directory \"%s\" for a keyring file: %m"),
								path);
	return TDE_KEYRING_OK;
}

/* ---- writing ---- */

/* A fresh entry: random key, present time. */
static bool
make_entry(KeyringEntry *entry, const char *name, int keylen)
{
	time_t		now = time(NULL);
	struct tm	tm;

	memset(entry, 0, sizeof(*entry));
	strlcpy(entry->name, name, sizeof(entry->name));
	entry->key.len = keylen;
	return gmtime_r(&now, &tm) != NULL &&
		strftime(entry->created, sizeof(entry->created),
				 "%Y-%m-%dT%H:%M:%SZ", &tm) == KEYRING_TIME_LEN - 1 &&
		tde_random(entry->key.key, keylen) == 0;
}

/* With the right to do so: put a new key into the keyring file. */
static TdeKeyringStatus
add_key(KeyringReplace *replace, const char *name, int keylen,
		TdePrincipalKey *key, TdeKeyringError *error)
{
	TdeKeyringStatus status;
	Content		old;
	Content		new = {0};
	KeyringEntry entry;

	status = read_file(replace->path, true, &old, error);
	if (status == TDE_KEYRING_OK && old.data)
	{
		status = find_key(replace->path, &old, name, key, error);
		if (status == TDE_KEYRING_OK)
			status = tde_keyring_fail(error, TDE_KEYRING_EXISTS, NULL,
									  _("key \"%s\" already exists in keyring file \"%s\""),
									  name, replace->path);
		else if (status == TDE_KEYRING_NOT_FOUND)
			status = TDE_KEYRING_OK;
	}
	if (status == TDE_KEYRING_OK &&
		old.len > KEYRING_MAX_FILE_LEN - KEYRING_MAX_GROWTH)
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("keyring file \"%s\" is full"),
								  replace->path);
	if (status == TDE_KEYRING_OK &&
		!alloc_content(&new, old.len + KEYRING_MAX_GROWTH))
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("out of memory"));
	if (status == TDE_KEYRING_OK)
	{
		if (make_entry(&entry, name, keylen))
			new.len = keyring_file_append(old.data, old.len, &entry, new.data);
		if (new.len > 0)
			status = keyring_replace_commit(replace, new.data, new.len, error);
		else
			status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
									  _("could not generate a principal key"));
		if (status == TDE_KEYRING_OK)
			*key = entry.key;
		tde_wipe(&entry, sizeof(entry));
	}

	free_content(&old);
	free_content(&new);
	return status;
}

static TdeKeyringStatus
file_create(const TdeProvider *provider, const char *name, int keylen,
			const TdeKeyringCall *call, TdePrincipalKey *key,
			TdeKeyringError *error)
{
	char		path[KEYRING_PATH_LEN];
	TdeKeyringStatus status;
	KeyringReplace replace;

	get_path(provider, path);
	status = keyring_replace_begin(path, call, &replace, error);
	if (status != TDE_KEYRING_OK)
		return status;
	status = add_key(&replace, name, keylen, key, error);
	keyring_replace_end(&replace);
	return status;
}

/* ---- the provider type ---- */

static const TdeKeyringOption file_options[] = {
	{"path", false, true},
	{NULL}
};

const TdeKeyringType tde_keyring_file = {
	.name = "file",
	.options = file_options,
	.validate = file_validate,
	.fetch = file_fetch,
	.create = file_create,
};
