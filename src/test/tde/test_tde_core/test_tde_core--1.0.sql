/* src/test/tde/test_tde_core/test_tde_core--1.0.sql */

\echo Use "CREATE EXTENSION test_tde_core" to load this file. \quit

CREATE FUNCTION test_tde_core(vector_directory text, secure_heap bool,
	OUT ok bool, OUT name text)
RETURNS SETOF record STRICT
AS 'MODULE_PATHNAME' LANGUAGE C;
