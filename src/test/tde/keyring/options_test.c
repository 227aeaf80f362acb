/*-------------------------------------------------------------------------
 *
 * options_test.c
 *	  Typed options, as a provider with more of them than the file provider
 *	  would use them.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/keyring/options_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "test_keyring.h"
#include "../../../common/tde/keyring/options.h"

static const TdeKeyringOption known[] = {
	{"host", false, true},
	{"port", true, true},
	{"caPath", false, false},
	{"timeout", true, false},
	{NULL}
};

/* Options, and a piece of the message, or NULL if they are right. */
static const struct
{
	const char *options;
	const char *message;
}			cases[] = {
	{"{\"host\":\"h\",\"port\":5696}", NULL},
	{"{\"host\":\"h\",\"port\":\"5696\"}", NULL},
	{" {\n \"port\" : -1 , \"caPath\" : \"\" , \"host\" : \"h\\u0041\\\"\\\\\" } ", NULL},
	{"{\"host\":\"h\",\"port\":1,\"timeout\":2147483647}", NULL},
	{"{\"host\":\"h\",\"port\":1,\"timeout\":2147483648}", "\"timeout\" of key provider \"p\" must be an integer"},
	{"{\"host\":\"h\",\"port\":1.5}", "must be an integer"},
	{"{\"host\":\"h\",\"port\":1e3}", "must be an integer"},
	{"{\"host\":\"h\",\"port\":\" 1\"}", "must be an integer"},
	{"{\"host\":\"h\",\"port\":\"1 \"}", "must be an integer"},
	{"{\"host\":\"h\",\"port\":\"\"}", "must be an integer"},
	{"{\"host\":\"h\",\"port\":\"-\"}", "must be an integer"},
	{"{\"host\":7,\"port\":1}", "\"host\" of key provider \"p\" must be a string"},
	{"{\"host\":\"\",\"port\":1}", "\"host\" of key provider \"p\" must not be empty"},
	{"{\"port\":1}", "\"host\" of key provider \"p\" is missing"},
	{"{\"host\":\"h\"}", "\"port\" of key provider \"p\" is missing"},
	{"{}", "is missing"},
	{"{\"host\":\"h\",\"port\":1,\"prot\":2}", "unrecognized option \"prot\""},
	{"{\"host\":\"h\",\"port\":1,\"host\":\"i\"}", "\"host\" of key provider \"p\" is given twice"},
	{"{\"host\":\"h\",\"port\":1,\"h\\u006fst\":\"i\"}", "\"host\" of key provider \"p\" is given twice"},
	{"{\"host\":null,\"port\":1}", "\"host\" of key provider \"p\" is missing"},
	{"{\"host\":\"h\",\"port\":1,\"caPath\":null,\"timeout\":null}", NULL},
	{"{\"host\":null,\"port\":1,\"host\":\"h\"}", "\"host\" of key provider \"p\" is given twice"},
	{"{\"host\":\"h\",\"port\":1,\"prot\":null}", "unrecognized option \"prot\""},
	{"{\"host\":true,\"port\":1}", "must be a string or a number"},
	{"{\"host\":{\"a\":\"b\"},\"port\":1}", "must be a string or a number"},
	{"{\"host\":[\"h\"],\"port\":1}", "must be a string or a number"},
	{"[]", "are not a JSON object"},
	{"[{}]", "are not a JSON object"},
	{"\"host\"", "are not a JSON object"},
	{"5", "are not a JSON object"},
	{"null", "are not a JSON object"},
	{"", "could not parse options"},
	{"{", "could not parse options"},
	{"{\"host\":\"h\",\"port\":1", "could not parse options"},
	{"{\"host\":\"h\",\"port\":1}}", "could not parse options"},
	{"{\"host\":\"h\",\"port\":1,}", "could not parse options"},
	{"{\"host\":\"h\\q\",\"port\":1}", "could not parse options"},
	{"{\"host\":\"h\\u0000\",\"port\":1}", "could not parse options"},
	{"{\"host\":\"h\\", "could not parse options"},
	{"{\"host\":\"h\\u00", "could not parse options"},
	{"{\"host\":\"h\\u00e9\",\"port\":1}", "Unicode escape above 007F"},
	{"{\"host\":\"h\\ud83d\\ude00\",\"port\":1}", "Unicode escape above 007F"},
};

int
torture_options(void)
{
	TdeProvider provider = {.id = 1,.name = "p",.type = "x"};
	TdeKeyringError error;
	char		buf[5];
	int			number = 0;
	int			bad = 0;

	for (int i = 0; i < lengthof(cases); i++)
	{
		TdeKeyringStatus status;

		strlcpy(provider.options, cases[i].options, sizeof(provider.options));
		status = tde_keyring_check_names(&provider, known, &error);
		if (cases[i].message == NULL ? status != TDE_KEYRING_OK :
			(status != TDE_KEYRING_BAD_OPTIONS ||
			 strstr(error.message, cases[i].message) == NULL))
		{
			printf("%s: %s: %s\n", cases[i].options, status_name(status),
				   status == TDE_KEYRING_OK ? "" : error.message);
			bad++;
		}
	}

	/* nesting as deep as there is room for */
	memset(provider.options, '[', TDE_MAX_PROVIDER_OPTIONS);
	provider.options[TDE_MAX_PROVIDER_OPTIONS] = '\0';
	bad += tde_keyring_check_names(&provider, known, &error) !=
		TDE_KEYRING_BAD_OPTIONS;

	strcpy(provider.options, "{\"host\":\"1234\",\"long\":\"12345\",\"port\":77}");
	bad += !tde_keyring_option(&provider, "host", buf, sizeof(buf)) ||
		strcmp(buf, "1234") != 0;
	bad += tde_keyring_option(&provider, "long", buf, sizeof(buf));
	bad += tde_keyring_option(&provider, "port", buf, sizeof(buf));
	bad += tde_keyring_option(&provider, "none", buf, sizeof(buf));
	bad += !tde_keyring_option_int(&provider, "port", 1, 77, &number) ||
		number != 77;
	bad += !tde_keyring_option_int(&provider, "host", 1, 65535, &number) ||
		number != 1234;
	bad += tde_keyring_option_int(&provider, "port", 1, 76, &number);
	bad += tde_keyring_option_int(&provider, "port", 78, 100, &number);
	bad += tde_keyring_option_int(&provider, "none", 1, 100, &number);

	printf("%d options, %d bad\n", (int) lengthof(cases), bad);
	return bad != 0;
}
