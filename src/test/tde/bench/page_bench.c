/*-------------------------------------------------------------------------
 *
 * page_bench.c
 *	  How fast are pages encrypted and decrypted, and how much of that is
 *	  OpenSSL's own work?
 *
 * For each cipher, in each direction, three loops take turns: OpenSSL alone
 * over a buffer of the size of a page (what "openssl speed -evp CIPHER -bytes
 * 8192" does), our page function, and our page function with the page's
 * checksum.  Processor time is counted, so that a busy machine matters less,
 * and the fastest of the rounds is reported.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/bench/page_bench.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <time.h>

#include "getopt_long.h"
#include "storage/checksum.h"
#include "storage/checksum_impl.h"
#include "tde/page.h"

/* Cost that the page functions may add to OpenSSL's: the larger of these. */
#define ALLOWED_SHARE	0.15
#define ALLOWED_USEC	0.06

typedef enum Loop
{
	LOOP_EVP,
	LOOP_PAGE,
	LOOP_PAGE_AND_CHECKSUM,
} Loop;

#define NLOOPS	(LOOP_PAGE_AND_CHECKSUM + 1)

static PGIOAlignedBlock plain;
static PGIOAlignedBlock page;
static EVP_CIPHER_CTX *evp[2];	/* [0] decrypts, [1] encrypts */
static TdePageCipher *page_cipher;
static volatile uint16 sink;

static void
die(const char *what)
{
	fprintf(stderr, "page_bench: %s failed\n", what);
	exit(1);
}

static double
cpu_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

/* One page, the way of the given loop. */
static inline void
one_page(Loop loop, bool encrypt, BlockNumber blkno)
{
	int			n;

	if (loop == LOOP_EVP)
	{
		if (EVP_CipherUpdate(evp[encrypt], (uint8 *) page.data, &n,
							 (uint8 *) page.data, BLCKSZ) != 1)
			die("EVP_CipherUpdate");
	}
	else if (encrypt)
	{
		if (tde_page_encrypt(page_cipher, plain.data, page.data,
							 blkno, MAIN_FORKNUM) < 0)
			die("tde_page_encrypt");
		if (loop == LOOP_PAGE_AND_CHECKSUM)
			sink = pg_checksum_page(page.data, blkno);
	}
	else
	{
		((PageHeader) page.data)->pd_pagesize_version =
			BLCKSZ | TDE_PAGE_LAYOUT_VERSION;
		if (loop == LOOP_PAGE_AND_CHECKSUM)
			sink = pg_checksum_page(page.data, blkno);
		if (tde_page_decrypt(page_cipher, page.data, blkno, MAIN_FORKNUM) < 0)
			die("tde_page_decrypt");
	}
}

/* Microseconds a page takes, from a run of at least that many in all. */
static double
measure(Loop loop, bool encrypt, double usec)
{
	double		start = cpu_usec();
	double		elapsed;
	BlockNumber done = 0;

	do
	{
		for (int i = 0; i < 1000; i++)
			one_page(loop, encrypt, done++);
		elapsed = cpu_usec() - start;
	} while (elapsed < usec);
	return elapsed / done;
}

static double
measure_checksum(double usec)
{
	double		start = cpu_usec();
	double		elapsed;
	BlockNumber done = 0;

	do
	{
		for (int i = 0; i < 1000; i++)
			sink = pg_checksum_page(page.data, done++);
		elapsed = cpu_usec() - start;
	} while (elapsed < usec);
	return elapsed / done;
}

static double
gb_per_second(double usec_per_page)
{
	return BLCKSZ / usec_per_page / 1e3;
}

static void
set_up(TdeCipher cipher)
{
	static const char *const names[] = {
		[TDE_AES_128_XTS] = "AES-128-XTS",
		[TDE_AES_256_XTS] = "AES-256-XTS",
		[TDE_AES_128_CBC] = "AES-128-CBC",
		[TDE_AES_256_CBC] = "AES-256-CBC",
	};
	EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, names[cipher], NULL);
	uint8		key[TDE_MAX_KEY_LEN];
	uint8		iv[16] = {1};

	if (algorithm == NULL ||
		tde_generate_key(cipher, key) < 0 ||
		tde_page_cipher_set_key(page_cipher, cipher, key) < 0)
		die(names[cipher]);
	for (int encrypt = 0; encrypt <= 1; encrypt++)
	{
		EVP_CIPHER_CTX_free(evp[encrypt]);
		evp[encrypt] = EVP_CIPHER_CTX_new();
		if (evp[encrypt] == NULL ||
			EVP_CipherInit_ex2(evp[encrypt], algorithm, key, iv, encrypt,
							   NULL) != 1)
			die(names[cipher]);
		EVP_CIPHER_CTX_set_padding(evp[encrypt], 0);
	}
	EVP_CIPHER_free(algorithm);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"check", no_argument, NULL, 'c'},
		{"rounds", required_argument, NULL, 'r'},
		{"tsv", no_argument, NULL, 't'},
		{NULL, 0, NULL, 0}
	};
	bool		check = false;
	bool		tsv = false;
	int			rounds = 20;
	int			exceeded = 0;
	double		checksum = 1e9;
	int			c;

	while ((c = getopt_long(argc, argv, "cr:t", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'c':
				check = true;
				break;
			case 'r':
				rounds = Max(atoi(optarg), 1);
				break;
			case 't':
				tsv = true;
				break;
			default:
				fprintf(stderr, "usage: page_bench [--check] [--rounds=N] [--tsv]\n"
						"  --check   exit with 1 if a page in XTS costs more than it may\n"
						"  --rounds  rounds of about 1 s (default 20)\n"
						"  --tsv     tab-separated output\n");
				return 2;
		}
	}

	page_cipher = tde_page_cipher_create();
	if (page_cipher == NULL)
		die("tde_page_cipher_create");
	for (int i = TDE_PAGE_HEADER_LEN; i < BLCKSZ; i++)
		plain.data[i] = (char) (i * 7 + (i >> 8));
	((PageHeader) plain.data)->pd_upper = BLCKSZ;
	((PageHeader) plain.data)->pd_pagesize_version =
		BLCKSZ | PG_PAGE_LAYOUT_VERSION;
	memcpy(page.data, plain.data, BLCKSZ);

	for (int round = 0; round < rounds; round++)
		checksum = Min(checksum, measure_checksum(20000));

	if (tsv)
		printf("openssl\tcipher\tdirection\topenssl_usec\tpage_usec\tpage_and_checksum_usec\tchecksum_usec\n");
	else
	{
		printf("%s, pages of %d bytes; checksum alone %.3f us, %.1f GB/s\n\n",
			   OpenSSL_version(OPENSSL_VERSION), BLCKSZ, checksum,
			   gb_per_second(checksum));
		printf("%-12s %-8s %16s %16s %16s  %s\n", "cipher", "",
			   "OpenSSL alone", "page", "and checksum", "added per page");
	}

	for (int cipher = TDE_AES_128_XTS; cipher <= TDE_CIPHER_LAST; cipher++)
	{
		double		best[2][NLOOPS];

		set_up(cipher);
		for (int i = 0; i < 2 * NLOOPS; i++)
			best[i / NLOOPS][i % NLOOPS] = 1e9;

		/* all take turns, so that a slow second hits them alike */
		for (int round = 0; round < rounds; round++)
		{
			for (int i = 0; i < 2 * NLOOPS; i++)
			{
				double	   *b = &best[i / NLOOPS][i % NLOOPS];

				*b = Min(*b, measure(i % NLOOPS, i / NLOOPS, 40000));
			}
		}

		for (int encrypt = 1; encrypt >= 0; encrypt--)
		{
			const double *b = best[encrypt];
			double		added = b[LOOP_PAGE] - b[LOOP_EVP];
			bool		allowed = added <= Max(ALLOWED_SHARE * b[LOOP_EVP],
											   ALLOWED_USEC);

			if (!TdeCipherIsCBC(cipher) && !allowed)
				exceeded = 1;
			if (tsv)
				printf("%s\t%s\t%s\t%.4f\t%.4f\t%.4f\t%.4f\n",
					   OpenSSL_version(OPENSSL_VERSION_STRING),
					   tde_cipher_name(cipher),
					   encrypt ? "encrypt" : "decrypt", b[LOOP_EVP],
					   b[LOOP_PAGE], b[LOOP_PAGE_AND_CHECKSUM], checksum);
			else
				printf("%-12s %-8s %11.2f GB/s %11.2f GB/s %11.2f GB/s  %+.3f us, %+.0f%%%s\n",
					   tde_cipher_name(cipher),
					   encrypt ? "encrypt" : "decrypt",
					   gb_per_second(b[LOOP_EVP]), gb_per_second(b[LOOP_PAGE]),
					   gb_per_second(b[LOOP_PAGE_AND_CHECKSUM]),
					   added, 100 * added / b[LOOP_EVP],
					   allowed ? "" : " (too much)");
			fflush(stdout);
		}
	}
	tde_page_cipher_free(page_cipher);
	return check && exceeded;
}
