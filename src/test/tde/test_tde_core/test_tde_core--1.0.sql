/* src/test/tde/test_tde_core/test_tde_core--1.0.sql */

\echo Use "CREATE EXTENSION test_tde_core" to load this file. \quit

CREATE FUNCTION test_tde_core(vector_directory text, secure_heap bool,
	OUT ok bool, OUT name text)
RETURNS SETOF record STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;

-- The scope keys and principal keys that the server has in memory, and whether
-- a core dump of this backend would show them.  With "control", a copy of one
-- of them is put where it would, so that it must be found.  Null: not known.
CREATE FUNCTION resident_keys(control bool, OUT kind text, OUT name text,
	OUT exposed bool)
RETURNS SETOF record STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;

-- Have whoever comes to an injection point look for them, and tell how many he
-- would show, in a warning.
CREATE FUNCTION count_keys_at(point text)
RETURNS void STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;

-- The same keys, and that of WAL, themselves.
CREATE FUNCTION key_bytes(OUT kind text, OUT name text, OUT key bytea)
RETURNS SETOF record STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;

-- And that of a relation; null if it is plain.
CREATE FUNCTION relation_key_bytes(relation regclass)
RETURNS bytea STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;

-- Leave a copy of a scope key in ordinary memory of this backend.
CREATE FUNCTION expose_key()
RETURNS void STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;
