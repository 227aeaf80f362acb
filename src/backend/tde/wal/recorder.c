/*-------------------------------------------------------------------------
 *
 * recorder.c
 *	  For tests: records all that is encrypted for WAL, in clear.
 *
 * Only in builds with injection points, and only where the environment of the
 * server names a directory in COFFER_WAL_RECORDER: each process then writes a
 * file there with the position, the key's digest and the bytes of each piece.
 * From that, a test shows that no key stream was used for two plaintexts.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/recorder.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef USE_INJECTION_POINTS

#include <fcntl.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "wal_internal.h"

typedef struct RecordedPiece
{
	uint64		key_digest;
	XLogRecPtr	lsn;
	uint64		len;			/* bytes that follow */
} RecordedPiece;

void
tde_wal_record_use(XLogRecPtr lsn, const char *plain, int len)
{
	static int	fd = -1;
	static pid_t fd_of = 0;
	const char *dir = getenv("COFFER_WAL_RECORDER");
	RecordedPiece piece;

	if (dir == NULL || len == 0)
		return;
	if (fd_of != MyProcPid)
	{
		char		path[MAXPGPATH];

		snprintf(path, sizeof(path), "%s/%d", dir, MyProcPid);
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
		if (fd < 0)
			elog(PANIC, "could not open \"%s\": %m", path);
		fd_of = MyProcPid;
	}
	piece.key_digest = hash_bytes_extended(tde_wal_writing->key,
										   TDE_WAL_KEY_LEN, 0);
	piece.lsn = lsn;
	piece.len = len;
	if (write(fd, &piece, sizeof(piece)) != sizeof(piece) ||
		write(fd, plain, len) != len)
		elog(PANIC, "could not record a piece of WAL: %m");
}

#endif
