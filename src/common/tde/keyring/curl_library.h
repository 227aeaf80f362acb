/*-------------------------------------------------------------------------
 *
 * curl_library.h
 *	  libcurl, loaded when it is first needed.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/curl_library.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef TDE_KEYRING_CURL_LIBRARY_H
#define TDE_KEYRING_CURL_LIBRARY_H

#include <curl/curl.h>

/*
 * The functions that we use.  Their types are those that the header declares.
 */
#define TDE_CURL_FUNCTIONS(X) \
	X(easy_cleanup) \
	X(easy_getinfo) \
	X(easy_init) \
	X(easy_setopt) \
	X(easy_strerror) \
	X(global_init_mem) \
	X(multi_add_handle) \
	X(multi_cleanup) \
	X(multi_info_read) \
	X(multi_init) \
	X(multi_perform) \
	X(multi_remove_handle) \
	X(multi_strerror) \
	X(multi_wait) \
	X(slist_append) \
	X(slist_free_all) \
	X(version_info)

typedef struct TdeCurl
{
#define TDE_CURL_MEMBER(name)	__typeof__(curl_##name) *name;
	TDE_CURL_FUNCTIONS(TDE_CURL_MEMBER)
#undef TDE_CURL_MEMBER

	/*
	 * SSL_CTX_set_options() of the OpenSSL 3 that libcurl uses, which need not
	 * be ours; NULL if it uses something else.
	 */
	uint64_t	(*ssl_set_options) (void *ctx, uint64_t options);
} TdeCurl;

/*
 * Returns the library, or NULL with a reason: a static string, or the dynamic
 * loader's, valid until its next call.  Not to be called by several threads
 * at once.
 */
extern const TdeCurl *tde_curl_load(const char **reason);

#endif							/* TDE_KEYRING_CURL_LIBRARY_H */
