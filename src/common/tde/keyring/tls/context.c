/*-------------------------------------------------------------------------
 *
 * context.c
 *	  What our side of a connection brings along: certificate, private key,
 *	  the CAs it trusts, and the rules.
 *
 * The files are read anew for each call, so a renewed certificate is in use
 * as soon as it is in place.
 *
 * Whoever has the private key can fetch the principal keys: it is read as the
 * secret that it is.
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
#include <sys/stat.h>
#include <unistd.h>

#include "../file_replace.h"
#include "../secret_file.h"
#include "tls_internal.h"

#define MAX_KEY_FILE	(16 * 1024)

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
		return tde_keyring_fail(error, keyring_errno_status(),
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
	TdeSecret	file;
	TdeKeyringStatus status;

	status = tde_secret_read(path, _("private key file"), MAX_KEY_FILE, &file,
							 error);
	if (status == TDE_KEYRING_OK)
		status = parse_key(file.data, file.len, path, pkey, error);
	tde_secret_free(&file);
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

	/* OpenSSL's configuration may demand more than we do, but not less. */
	if (*ctx == NULL ||
		(SSL_CTX_get_min_proto_version(*ctx) < TLS1_2_VERSION &&
		 SSL_CTX_set_min_proto_version(*ctx, TLS1_2_VERSION) != 1))
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
