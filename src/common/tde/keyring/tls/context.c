/*-------------------------------------------------------------------------
 *
 * context.c
 *	  What our side of a connection brings along: certificate, private key,
 *	  the CAs it trusts, and the rules.
 *
 * The files are read anew for each call, so a renewed certificate is in use
 * as soon as it is in place.
 *
 * Whoever has the private key can fetch the principal keys.  It is held to
 * libpq's rule for client keys: no access for group and world, but a key of
 * root's may be readable for the group.  As in the file provider, that is
 * asked of the file that was opened, and its content is wiped.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/tls/context.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tde/cipher.h"
#include "tls_internal.h"

#define MAX_KEY_FILE	(64 * 1024)

/* OpenSSL's reason for the last failure, and forget it. */
static const char *
openssl_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = NULL;

	if (code != 0)
		reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) :
			ERR_reason_error_string(code);
	ERR_clear_error();
	return reason ? reason : _("unknown error");
}

/* Can it be read?  OpenSSL's own message for that is less clear. */
static TdeKeyringStatus
check_readable(const char *path, const char *what, TdeKeyringError *error)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	TdeKeyringStatus status = TDE_KEYRING_OK;

	if (fd < 0)
		return tde_keyring_fail(error,
								errno == EACCES ? TDE_KEYRING_DENIED :
								TDE_KEYRING_UNREACHABLE,
								_("The file must be readable by the user who runs the server or program."),
								_("could not open %s file \"%s\": %m"),
								what, path);
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		status = tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								  _("%s file \"%s\" is not a regular file"),
								  what, path);
	close(fd);
	return status;
}

/* No passphrases: there is nobody to ask. */
static int
no_passphrase(char *buf, int size, int rwflag, void *userdata)
{
	bool	   *asked = userdata;

	if (asked)
		*asked = true;
	return -1;
}

/* Is this open file one that a private key may lie in? */
static TdeKeyringStatus
check_key_file(int fd, const char *path, struct stat *st,
			   TdeKeyringError *error)
{
	if (fstat(fd, st) != 0)
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("could not stat private key file \"%s\": %m"),
								path);
	if (!S_ISREG(st->st_mode))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("private key file \"%s\" is not a regular file"),
								path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("The file must belong to the user who runs the server or program, or to root."),
								_("private key file \"%s\" belongs to another user"),
								path);
	if (st->st_mode & (st->st_uid == 0 && geteuid() != 0 ?
					   S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO))
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Permissions should be u=rw (0600) or less, or u=rw,g=r (0640) or less if the file belongs to root."),
								_("private key file \"%s\" has group or world access"),
								path);
	if (st->st_size <= 0 || st->st_size > MAX_KEY_FILE)
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA, NULL,
								_("private key file \"%s\" has an unexpected size"),
								path);
	return TDE_KEYRING_OK;
}

/* The key in a file's content. */
static TdeKeyringStatus
parse_key(const char *data, size_t len, const char *path, EVP_PKEY **pkey,
		  TdeKeyringError *error)
{
	BIO		   *bio = BIO_new_mem_buf(data, len);
	bool		asked = false;

	*pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked) :
		NULL;
	BIO_free(bio);
	if (*pkey)
		return TDE_KEYRING_OK;
	if (asked)
	{
		ERR_clear_error();
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Remove the passphrase, and let only the server's user read the file."),
								_("private key file \"%s\" is protected by a passphrase"),
								path);
	}
	tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
					 _("The file must hold a private key in PEM format."),
					 _("could not load private key file \"%s\""), path);
	return tde_keyring_detail(error, "%s", openssl_reason());
}

static TdeKeyringStatus
read_key(const char *path, EVP_PKEY **pkey, TdeKeyringError *error)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	TdeKeyringStatus status;
	char	   *data;
	bool		locked;
	ssize_t		n;

	if (fd < 0)
		return tde_keyring_fail(error,
								errno == EACCES ? TDE_KEYRING_DENIED :
								TDE_KEYRING_UNREACHABLE,
								_("The file must be readable by the user who runs the server or program."),
								_("could not open private key file \"%s\": %m"),
								path);
	status = check_key_file(fd, path, &st, error);
	if (status != TDE_KEYRING_OK)
	{
		close(fd);
		return status;
	}
	data = tde_secure_alloc(st.st_size, false, &locked);
	if (data == NULL)
	{
		close(fd);
		return tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								_("out of memory"));
	}
	do
		n = read(fd, data, st.st_size);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		status = tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
								  _("could not read private key file \"%s\": %m"),
								  path);
	else
		status = parse_key(data, n, path, pkey, error);
	close(fd);
	tde_secure_free(data, st.st_size);
	return status;
}

static TdeKeyringStatus
load_identity(SSL_CTX *ctx, const TdeTlsParams *params, TdeKeyringError *error)
{
	TdeKeyringStatus status;
	EVP_PKEY   *pkey;
	bool		matches;

	status = check_readable(params->cert_path, _("client certificate"), error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (SSL_CTX_use_certificate_chain_file(ctx, params->cert_path) != 1)
	{
		tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
						 _("The file must hold a certificate in PEM format."),
						 _("could not load client certificate file \"%s\""),
						 params->cert_path);
		return tde_keyring_detail(error, "%s", openssl_reason());
	}

	status = read_key(params->key_path, &pkey, error);
	if (status != TDE_KEYRING_OK)
		return status;
	matches = SSL_CTX_use_PrivateKey(ctx, pkey) == 1 &&
		SSL_CTX_check_private_key(ctx) == 1;
	EVP_PKEY_free(pkey);
	if (matches)
		return TDE_KEYRING_OK;
	tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
					 _("Name the private key that the certificate was made for."),
					 _("private key file \"%s\" does not match client certificate file \"%s\""),
					 params->key_path, params->cert_path);
	return tde_keyring_detail(error, "%s", openssl_reason());
}

static TdeKeyringStatus
load_ca(SSL_CTX *ctx, const char *path, TdeKeyringError *error)
{
	TdeKeyringStatus status;

	if (path == NULL)
	{
		if (SSL_CTX_set_default_verify_paths(ctx) == 1)
			return TDE_KEYRING_OK;
		tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
						 _("could not load the system's CA certificates"));
		return tde_keyring_detail(error, "%s", openssl_reason());
	}
	status = check_readable(path, _("CA certificate"), error);
	if (status != TDE_KEYRING_OK)
		return status;
	if (SSL_CTX_load_verify_file(ctx, path) == 1)
		return TDE_KEYRING_OK;
	tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
					 _("The file must hold certificates in PEM format."),
					 _("could not load CA certificate file \"%s\""), path);
	return tde_keyring_detail(error, "%s", openssl_reason());
}

TdeKeyringStatus
tls_context(const TdeTlsParams *params, SSL_CTX **ctx, TdeKeyringError *error)
{
	TdeKeyringStatus status;

	ERR_clear_error();
	*ctx = SSL_CTX_new(TLS_client_method());
	if (*ctx == NULL ||
		SSL_CTX_set_min_proto_version(*ctx, TLS1_2_VERSION) != 1)
	{
		tde_keyring_fail(error, TDE_KEYRING_FAILED, NULL,
						 _("could not create SSL context"));
		status = tde_keyring_detail(error, "%s", openssl_reason());
	}
	else
	{
		/* what SSL_read() returned is wiped in OpenSSL's buffers */
		SSL_CTX_set_options(*ctx, SSL_OP_CLEANSE_PLAINTEXT |
							SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
		SSL_CTX_set_session_cache_mode(*ctx, SSL_SESS_CACHE_OFF);
		SSL_CTX_set_verify(*ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_default_passwd_cb(*ctx, no_passphrase);

		status = load_identity(*ctx, params, error);
		if (status == TDE_KEYRING_OK)
			status = load_ca(*ctx, params->ca_path, error);
	}
	if (status != TDE_KEYRING_OK)
	{
		SSL_CTX_free(*ctx);
		*ctx = NULL;
	}
	return status;
}
