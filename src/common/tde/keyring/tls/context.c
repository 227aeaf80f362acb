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
#define MAX_PASSPHRASE_FILE	1024

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

typedef struct Passphrase
{
	const TdeSecret *file;		/* NULL: there is none */
	bool		asked;
} Passphrase;

/* There is nobody to ask but a file. */
static int
give_passphrase(char *buf, int size, int rwflag, void *userdata)
{
	Passphrase *passphrase = userdata;
	size_t		len;

	if (passphrase == NULL)
		return -1;
	passphrase->asked = true;
	if (passphrase->file == NULL)
		return -1;
	len = strcspn(passphrase->file->data, "\r\n");
	if (len > size)
		return -1;
	memcpy(buf, passphrase->file->data, len);
	return (int) len;
}

/* The key in a file's content. */
static TdeKeyringStatus
parse_key(const char *data, size_t len, const char *path,
		  const TdeSecret *passphrase_file, EVP_PKEY **pkey,
		  TdeKeyringError *error)
{
	BIO		   *bio = BIO_new_mem_buf(data, len);
	Passphrase	passphrase = {.file = passphrase_file};

	*pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_passphrase,
										  &passphrase) : NULL;
	BIO_free(bio);
	if (*pkey)
		return TDE_KEYRING_OK;
	if (passphrase.asked)
	{
		ERR_clear_error();
		if (passphrase_file)
			return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
									_("The first line of the file in option \"keyPassphrasePath\" must be the passphrase."),
									_("private key file \"%s\" has another passphrase"),
									path);
		return tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
								_("Name a file with the passphrase in option \"keyPassphrasePath\"."),
								_("private key file \"%s\" is protected by a passphrase"),
								path);
	}
	tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
					 _("The file must hold a private key in PEM format."),
					 _("could not load private key file \"%s\""), path);
	return tde_keyring_detail(error, "%s", openssl_reason());
}

static TdeKeyringStatus
read_key(const TdeTlsParams *params, EVP_PKEY **pkey, TdeKeyringError *error)
{
	const char *path = params->key_path;
	TdeSecret	file;
	TdeSecret	passphrase = {0};
	TdeKeyringStatus status;

	status = tde_secret_read(path, _("private key file"), MAX_KEY_FILE, &file,
							 error);
	if (status == TDE_KEYRING_OK && params->passphrase_path)
		status = tde_secret_read(params->passphrase_path, _("passphrase file"),
								 MAX_PASSPHRASE_FILE, &passphrase, error);
	if (status == TDE_KEYRING_OK)
		status = parse_key(file.data, file.len, path,
						   params->passphrase_path ? &passphrase : NULL,
						   pkey, error);
	tde_secret_free(&passphrase);
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

	status = read_key(params, &pkey, error);
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

/*
 * Certificates that were revoked.  The CRL of each CA on the way to the trusted
 * one must be there.
 */
static TdeKeyringStatus
load_crl(SSL_CTX *ctx, const char *path, TdeKeyringError *error)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509_LOOKUP *lookup;
	struct stat st;
	bool		loaded;

	if (stat(path, &st) != 0)
		return tde_keyring_fail(error, keyring_errno_status(), NULL,
								_("could not stat CRL \"%s\": %m"), path);
	if (S_ISDIR(st.st_mode))
	{
		lookup = X509_STORE_add_lookup(store, X509_LOOKUP_hash_dir());
		loaded = lookup &&
			X509_LOOKUP_add_dir(lookup, path, X509_FILETYPE_PEM) == 1;
	}
	else
	{
		lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
		loaded = lookup &&
			X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) > 0;
	}
	if (loaded && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK |
									   X509_V_FLAG_CRL_CHECK_ALL) == 1)
		return TDE_KEYRING_OK;
	tde_keyring_fail(error, TDE_KEYRING_BAD_DATA,
					 _("It must be a file with CRLs in PEM format, or a directory that \"openssl rehash\" prepared."),
					 _("could not load CRL \"%s\""), path);
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
		SSL_CTX_set_default_passwd_cb(*ctx, give_passphrase);

		status = load_identity(*ctx, params, error);
		if (status == TDE_KEYRING_OK)
			status = load_ca(*ctx, params->ca_path, error);
		if (status == TDE_KEYRING_OK && params->crl_path)
			status = load_crl(*ctx, params->crl_path, error);
		SSL_CTX_set_app_data(*ctx, (char *) params->server_name);

		/* whatever certificate is named there is trusted, be it the server's */
		if (params->ca_path)
			X509_STORE_set_flags(SSL_CTX_get_cert_store(*ctx),
								 X509_V_FLAG_PARTIAL_CHAIN);
	}
	if (status != TDE_KEYRING_OK)
	{
		SSL_CTX_free(*ctx);
		*ctx = NULL;
	}
	return status;
}
