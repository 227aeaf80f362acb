/*-------------------------------------------------------------------------
 *
 * kmip_server.h
 *	  A KMIP server in memory, which misbehaves as it is told, for the checks
 *	  of the KMIP client.
 *
 * It keeps keys by name and state as servers do, and answers in the version
 * asked.  Tests against real servers are elsewhere; this one is for what real
 * ones do once in a thousand years.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/test/tde/test_tde_core/kmip_server.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef KMIP_SERVER_H
#define KMIP_SERVER_H

#include "../../../common/tde/keyring/kmip/messages.h"

#define SERVER_MAX_KEYS		8
#define SERVER_MAX_OPERATION	64

typedef struct ServerKey
{
	char		id[32];
	char		name[64];
	TdePrincipalKey key;
	int			state;			/* KMIP's number; 0: unused entry */
}			ServerKey;

typedef struct KmipServer
{
	TdeKmipStream stream;		/* give this to the client */

	/* ---- what it is like ---- */
	TdeKmipVersion lowest;		/* versions that it speaks */
	TdeKmipVersion highest;
	bool		active_at_once; /* new keys are Active */
	uint64		unsupported;	/* bit 1 << n: not operation n */

	/* ---- what goes wrong with the operation "fault_at" ---- */
	int			fault_at;		/* 0: nothing; -1: any operation */
	int			fault_after;	/* so many times all is well before */
	int			fault_times;	/* and then so many times it is not */
	enum
	{
		LOSE_REQUEST,			/* connection breaks before it arrives */
		LOSE_ANSWER,			/* ... after it was carried out */
		CUT_ANSWER,				/* ... in the middle of the answer */
		GARBLE_ANSWER,			/* the answer makes no sense */
		CANCEL,					/* user cancels before the answer */
		REFUSE,					/* with fault_reason */
		SAY,					/* fault_answer instead of the answer */
		OTHER_NODE,				/* another node creates a key of that name
								 * just before, with state fault_reason */
		OVERTAKEN,				/* the same, and then the connection breaks
								 * before the request arrives */
		OTHER_KEY,				/* Get returns another key */
	}			fault;
	uint32		fault_reason;
	const char *fault_answer;	/* as ttlv_text.h has it; "@" is replaced by
								 * the batch item's id in hexadecimal */

	/* ---- what happened ---- */
	int			asked[SERVER_MAX_OPERATION];	/* by operation */
	int			reopened;
	TdeKmipVersion last_version;	/* of the last request */
	bool		cannot_reopen;
	ServerKey	keys[SERVER_MAX_KEYS];
	int			nkeys_ever;

	/* ---- the connection ---- */
	bool		down;
	uint8		response[TDE_KMIP_MAX_RESPONSE];
	size_t		response_len;
	size_t		response_pos;
} KmipServer;

/* All zeros but the stream and the versions, 1.0 to 2.1. */
extern void server_init(KmipServer *server);

/* Add a key; its bytes are all "byte".  Returns it. */
extern ServerKey * server_add(KmipServer *server, const char *name, int state,
							  uint8 byte);

/* How many keys are there? */
extern int	server_nkeys(const KmipServer *server);

#endif							/* KMIP_SERVER_H */
