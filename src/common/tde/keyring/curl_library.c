/*-------------------------------------------------------------------------
 *
 * curl_library.c
 *	  libcurl, loaded when it is first needed.
 *
 * Neither the server nor any program is linked to libcurl.  It brings some 25
 * libraries with it, whose initialisation, private pages and mappings every
 * process would pay for (README.md has the figures), while a process that
 * talks to a Vault is rare, and a cluster without one has none.  PostgreSQL's
 * own client library keeps libcurl at the same distance.
 *
 * The library's allocator is replaced by one that wipes what is freed, since
 * it copies tokens and keys into buffers of its own.  That is done once in a
 * process, by whoever initialises the library first; where an extension was
 * faster, its buffers are not wiped.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/common/tde/keyring/curl_library.c
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#ifdef USE_LIBCURL

#include <dlfcn.h>

#include "curl_library.h"
#include "tde/cipher.h"

#ifdef __darwin__
#define CURL_LIBRARY	"libcurl.4.dylib"
#else
#define CURL_LIBRARY	"libcurl.so.4"
#endif

/* ---- the allocator ---- */

/*
 * Each block begins with its size.  It must be safe in threads: libcurl
 * resolves names in one.
 */
#define BLOCK_HEADER	16

StaticAssertDecl(MAXIMUM_ALIGNOF <= BLOCK_HEADER, "blocks are aligned");

static void *
wiping_malloc(size_t size)
{
	char	   *block;

	if (size > SIZE_MAX - BLOCK_HEADER)
		return NULL;
	block = malloc(size + BLOCK_HEADER);
	if (block == NULL)
		return NULL;
	memcpy(block, &size, sizeof(size));
	return block + BLOCK_HEADER;
}

static size_t
block_size(const void *ptr)
{
	size_t		size;

	memcpy(&size, (const char *) ptr - BLOCK_HEADER, sizeof(size));
	return size;
}

static void
wiping_free(void *ptr)
{
	if (ptr == NULL)
		return;
	tde_wipe(ptr, block_size(ptr));
	free((char *) ptr - BLOCK_HEADER);
}

static void *
wiping_realloc(void *ptr, size_t size)
{
	void	   *result = wiping_malloc(size);

	if (result != NULL && ptr != NULL)
	{
		memcpy(result, ptr, Min(size, block_size(ptr)));
		wiping_free(ptr);
	}
	return result;
}

static char *
wiping_strdup(const char *str)
{
	size_t		size = strlen(str) + 1;
	char	   *result = wiping_malloc(size);

	if (result != NULL)
		memcpy(result, str, size);
	return result;
}

static void *
wiping_calloc(size_t n, size_t size)
{
	void	   *result;

	if (size > 0 && n > (SIZE_MAX - BLOCK_HEADER) / size)
		return NULL;
	result = wiping_malloc(n * size);
	if (result != NULL)
		memset(result, 0, n * size);
	return result;
}

/* ---- loading ---- */

/*
 * Fill in the table.  What libcurl depends on is searched for OpenSSL's
 * function, too.
 */
static bool
find_functions(void *handle, TdeCurl *curl, const char **reason)
{
	const curl_version_info_data *info;

#define FIND(name) \
	curl->name = (__typeof__(curl->name)) dlsym(handle, "curl_" #name); \
	if (curl->name == NULL) \
	{ \
		*reason = dlerror(); \
		return false; \
	}
	TDE_CURL_FUNCTIONS(FIND)
#undef FIND

	info = curl->version_info(CURLVERSION_NOW);
	if (info->ssl_version && strncmp(info->ssl_version, "OpenSSL/3", 9) == 0)
		curl->ssl_set_options = (uint64_t (*) (void *, uint64_t))
			dlsym(handle, "SSL_CTX_set_options");
	return true;
}

const TdeCurl *
tde_curl_load(const char **reason)
{
	static TdeCurl library;
	static bool loaded = false;
	TdeCurl		curl = {0};
	void	   *handle;

	if (loaded)
		return &library;

	handle = dlopen(CURL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL)
	{
		*reason = dlerror();
		return NULL;
	}
	/* It stays loaded: what it brings along does not expect to go again. */
	if (!find_functions(handle, &curl, reason))
		return NULL;
	if (curl.global_init_mem(CURL_GLOBAL_DEFAULT, wiping_malloc, wiping_free,
							 wiping_realloc, wiping_strdup,
							 wiping_calloc) != CURLE_OK)
	{
		*reason = _("it could not be initialized");
		return NULL;
	}
	library = curl;
	loaded = true;
	return &library;
}

#endif							/* USE_LIBCURL */
