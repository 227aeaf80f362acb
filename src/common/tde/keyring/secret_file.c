/*-------------------------------------------------------------------------
 *
 * secret_file.c
 *	  Reading a small file that holds a secret, such as an access token.
 *
 * Such a file is written by somebody else (an administrator, an agent that
 * renews tokens, a container's secret store) and read each time it is needed.
 * Who may read it is asked of the file that was opened, not of its name, so a
 * symbolic link is as good as what it points to.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/secret_file.c
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
#include <unistd.h>

#include "file_replace.h"
#include "secret_file.h"
#include "tde/cipher.h"

/* Is this open file closed to others? */
static TdeKeyringStatus
check_access(int fd, const char *path, const char *what, size_t max,
			 TdeKeyringError *error)
{
	struct stat st;
	mode_t		forbidden;

	if (fstat(fd, &st) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not stat %s \"%s\": %m"), what, path);
	if (!S_ISREG(st.st_mode))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("%s \"%s\" is not a regular file"),
								what, path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("The file must belong to the user who runs the server or program, or to root."),
								_("%s \"%s\" belongs to another user"),
								what, path);
	forbidden = st.st_uid == geteuid() ?
		S_IRWXG | S_IRWXO :
		S_IWGRP | S_IXGRP | S_IRWXO;
	if (st.st_mode & forbidden)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("File must have permissions u=rw (0600) or less if owned by the user who runs the server, or permissions u=rw,g=r (0640) or less if owned by root."),
								_("%s \"%s\" has group or world access"),
								what, path);
	if (st.st_size > (off_t) max)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("%s \"%s\" is larger than %zu bytes"),
								what, path, max);
	return TDE_KEYRING_OK;
}

TdeKeyringStatus
tde_secret_read(const char *path, const char *what, size_t max,
				TdeSecret *secret, TdeKeyringError *error)
{
	TdeKeyringStatus status;
	bool		locked;
	ssize_t		n;
	int			fd;

	memset(secret, 0, sizeof(*secret));

	/* not to block on a FIFO that is then refused */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not open %s \"%s\": %m"), what, path);

	status = check_access(fd, path, what, max, error);
	if (status == TDE_KEYRING_OK)
	{
		/* one byte more than may be there tells if the file grows */
		secret->size = max + 2;
		secret->data = tde_secure_alloc(secret->size, false, &locked);
		if (secret->data == NULL)
			status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
									  _("out of memory"));
	}
	while (status == TDE_KEYRING_OK && secret->len <= max)
	{
		n = read(fd, secret->data + secret->len, max + 1 - secret->len);
		if (n > 0)
			secret->len += n;
		else if (n == 0)
			break;
		else if (errno != EINTR)
			status = tde_keyring_fail(error, keyring_errno_status(), NULL,
									  _("could not read %s \"%s\": %m"),
									  what, path);
	}
	if (status == TDE_KEYRING_OK && secret->len > max)
		status = tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								  _("%s \"%s\" is larger than %zu bytes"),
								  what, path, max);
	close(fd);
	if (status != TDE_KEYRING_OK)
		tde_secret_free(secret);
	return status;
}

void
tde_secret_free(TdeSecret *secret)
{
	tde_secure_free(secret->data, secret->size);
	memset(secret, 0, sizeof(*secret));
}
