/*-------------------------------------------------------------------------
 *
 * tdedesc.c
 *	  Descriptions of the key store's WAL records, for the server and for
 *	  pg_waldump.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/keys/tdedesc.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tde/provider.h"
#include "tde/scope.h"
#include "tde/wal_epoch.h"
#include "tde/xlog.h"

static void
append_id(StringInfo buf, const TdeId *id)
{
	for (int i = 0; i < TDE_ID_LEN; i++)
		appendStringInfo(buf, "%02x", id->b[i]);
}

static void
desc_keys(StringInfo buf, const uint8 *data, size_t len)
{
	uint32		n;
	TdeKey		key;
	const char *reason;

	memcpy(&n, data, sizeof(n));
	appendStringInfo(buf, "nkeys: %u", n);
	data += SizeOfTdeKeys;
	len -= SizeOfTdeKeys;
	for (; len >= TDE_KEY_RECORD_LEN; len -= TDE_KEY_RECORD_LEN,
		 data += TDE_KEY_RECORD_LEN)
	{
		if (tde_key_record_decode(data, TDE_KEY_RECORD_LEN, &key, &reason) != 0)
		{
			appendStringInfo(buf, "; invalid key record: %s", reason);
			return;
		}
		appendStringInfo(buf, "; rel %u/%u/%u cipher %s id ",
						 key.locator.spcOid, key.locator.dbOid,
						 key.locator.relNumber, tde_cipher_name(key.cipher));
		append_id(buf, &key.id);
	}
}

static void
desc_scopes(StringInfo buf, const uint8 *data, size_t len)
{
	static const char *const kinds[] = {"?", "database", "server", "default"};
	uint32		n;

	memcpy(&n, data, sizeof(n));
	appendStringInfo(buf, "nscopes: %u", n);
	data += SizeOfTdeScopes;
	len -= SizeOfTdeScopes;
	while (len >= sizeof(uint32))
	{
		uint32		scope_len;
		TdeScope	scope;
		TdeScopeGeneration *generations;
		const char *reason = "wrong length";
		int			ngen = -1;

		memcpy(&scope_len, data, sizeof(scope_len));
		data += sizeof(scope_len);
		len -= sizeof(scope_len);
		if (scope_len <= len)
			ngen = tde_scope_count(data, scope_len, &reason);
		generations = ngen > 0 ?
			palloc(sizeof(TdeScopeGeneration) * ngen) : NULL;
		if (generations == NULL ||
			tde_scope_decode(data, scope_len, &scope, generations, ngen,
							 &reason) != 0)
		{
			appendStringInfo(buf, "; invalid scope: %s", reason);
			return;
		}
		appendStringInfo(buf, "; %s %u change " UINT64_FORMAT " generation %u%s%s",
						 kinds[scope.kind], scope.dbOid, scope.change,
						 generations[ngen - 1].number,
						 scope.follows_default ? " follows default" : "",
						 scope.retired ? " retired" : "");
		pfree(generations);
		data += scope_len;
		len -= scope_len;
	}
}

static void
desc_wal_epoch(StringInfo buf, const uint8 *data, size_t len)
{
	const char *reason;
	TdeWalEpoch epoch;

	if (tde_wal_epoch_decode(data, tde_wal_epoch_length(data, len),
							 &epoch, &reason) < 0)
	{
		appendStringInfo(buf, "invalid epoch: %s", reason);
		return;
	}
	appendStringInfo(buf, "%s; tli %u; prev tli %u; start %X/%X; WAL before ends %X/%X",
					 epoch.id == 0 ? "in clear" : "encrypted",
					 epoch.tli, epoch.prev_tli,
					 LSN_FORMAT_ARGS(epoch.start),
					 LSN_FORMAT_ARGS(epoch.prev_end));
	if (epoch.id != 0)
	{
		appendStringInfo(buf, "; key %08X under generation ", epoch.id);
		append_id(buf, &epoch.generation);
	}
}

void
tde_desc(StringInfo buf, XLogReaderState *record)
{
	const uint8 *data = (const uint8 *) XLogRecGetData(record);
	size_t		len = XLogRecGetDataLen(record);

	switch (XLogRecGetInfo(record) & ~XLR_INFO_MASK)
	{
		case XLOG_TDE_KEYS:
			if (len >= SizeOfTdeKeys)
				desc_keys(buf, data, len);
			break;
		case XLOG_TDE_SCOPES:
			if (len >= SizeOfTdeScopes)
				desc_scopes(buf, data, len);
			break;
		case XLOG_TDE_PROVIDERS:
			{
				const char *reason;
				int			n = tde_providers_count(data, len, &reason);

				if (n < 0)
					appendStringInfo(buf, "invalid list: %s", reason);
				else
					appendStringInfo(buf, "nproviders: %d", n);
			}
			break;
		case XLOG_TDE_DATABASE_DROP:
			{
				xl_tde_database_drop *xlrec = (xl_tde_database_drop *) data;

				appendStringInfo(buf, "database %u scope ", xlrec->dbOid);
				append_id(buf, &xlrec->id);
			}
			break;
		case XLOG_TDE_WAL_EPOCH:
			desc_wal_epoch(buf, data, len);
			break;
	}
}

const char *
tde_identify(uint8 info)
{
	switch (info & ~XLR_INFO_MASK)
	{
		case XLOG_TDE_KEYS:
			return "KEYS";
		case XLOG_TDE_SCOPES:
			return "SCOPES";
		case XLOG_TDE_PROVIDERS:
			return "PROVIDERS";
		case XLOG_TDE_DATABASE_DROP:
			return "DATABASE_DROP";
		case XLOG_TDE_WAL_EPOCH:
			return "WAL_EPOCH";
	}
	return NULL;
}
