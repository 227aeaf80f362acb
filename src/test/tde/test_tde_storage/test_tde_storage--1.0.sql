/* src/test/tde/test_tde_storage/test_tde_storage--1.0.sql */

\echo Use "CREATE EXTENSION test_tde_storage" to load this file. \quit

-- Put pages into a relation's file as they are, with their checksums set if
-- asked for; what the buffer manager has of the relation is thrown away.
CREATE FUNCTION write_file(rel regclass, fork text, blkno bigint, pages bytea,
	set_checksum bool DEFAULT true)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Hand pages to the storage manager, in one call: to be written ...
CREATE FUNCTION smgr_write(rel regclass, fork text, blkno bigint, pages bytea)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- ... or as a new block
CREATE FUNCTION smgr_extend(rel regclass, fork text, blkno bigint, page bytea)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Read pages through the storage manager, synchronously.
CREATE FUNCTION smgr_read(rel regclass, fork text, blkno bigint, nblocks int)
RETURNS bytea STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- The checksum of a page, and whether PageIsVerified() accepts it.
CREATE FUNCTION checksum(page bytea, blkno bigint)
RETURNS int STRICT AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION is_verified(page bytea, blkno bigint)
RETURNS bool STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Write out and forget all shared buffers of a relation.
CREATE FUNCTION evict(rel regclass)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Open the storage of all file numbers in a range, in the current database's
-- default tablespace, and keep it open for good; ask for the keys too.
CREATE FUNCTION pin_file_numbers(first oid, last oid)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Have the server hand out this OID next, and use it as file number if it is
-- free.
CREATE FUNCTION set_next_oid(next oid)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;

-- Add a page to a relation, and put a text there with a generic WAL record.  It
-- is an empty page to the access method.
CREATE FUNCTION generic_record(rel regclass, content text)
RETURNS void STRICT AS 'MODULE_PATHNAME' LANGUAGE C;
