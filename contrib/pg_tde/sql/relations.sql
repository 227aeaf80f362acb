--
-- pg_tde_is_encrypted() and the kinds of relations
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/relations.keyring'
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_create_key_using_database_key_provider('k', 'dp');
SELECT pg_tde_set_key_using_database_key_provider('k', 'dp');

CREATE SCHEMA enc CREATE TABLE in_schema (a serial PRIMARY KEY, b text) USING tde_heap;
CREATE TABLE enc.t (a serial PRIMARY KEY, b text UNIQUE, c int GENERATED ALWAYS AS IDENTITY) USING tde_heap;
CREATE INDEX t_expr ON enc.t (lower(b));
CREATE MATERIALIZED VIEW enc.m USING tde_heap AS SELECT 1 AS one;
CREATE UNLOGGED TABLE enc.u (a serial PRIMARY KEY, b text) USING tde_heap;
CREATE TEMPORARY TABLE tmp (a serial PRIMARY KEY, b text) USING tde_heap;
CREATE TABLE enc.p (a int, b text) PARTITION BY LIST (a) USING tde_heap;
CREATE TABLE enc.p1 PARTITION OF enc.p FOR VALUES IN (1);
CREATE TABLE enc.p2 PARTITION OF enc.p FOR VALUES IN (2) USING heap;
CREATE INDEX p_b ON enc.p (b);
CREATE VIEW enc.v AS SELECT * FROM enc.t;
CREATE SEQUENCE enc.s;
CREATE TABLE enc.plain (a serial PRIMARY KEY, b text) USING heap;
CREATE TYPE enc.c AS (a int);

CREATE FUNCTION list(schema oid) RETURNS TABLE (name text, kind "char", encrypted boolean)
LANGUAGE SQL BEGIN ATOMIC
  SELECT regexp_replace(c.relname, '[0-9]{4,}', 'OID'), c.relkind,
         pg_tde_is_encrypted(c.oid)
    FROM pg_class c
   WHERE c.relnamespace = list.schema OR
         c.oid IN (SELECT reltoastrelid FROM pg_class
                    WHERE relnamespace = list.schema
                   UNION ALL
                   SELECT indexrelid FROM pg_index JOIN pg_class r ON indrelid = reltoastrelid
                    WHERE relnamespace = list.schema)
   ORDER BY c.relname COLLATE "C";
END;
SELECT * FROM list('enc'::regnamespace);
SELECT * FROM list(pg_my_temp_schema());

-- rewrites keep it, and each gets a new key
INSERT INTO enc.t (b) SELECT repeat('x', g) FROM generate_series(1, 500) g;
VACUUM FULL enc.t;
CLUSTER enc.t USING t_pkey;
REINDEX TABLE enc.t;
REFRESH MATERIALIZED VIEW enc.m;
TRUNCATE enc.u;
SELECT bool_and(encrypted) FROM list('enc'::regnamespace) WHERE name ~ '^(t|m|u)(_|$)';
SELECT count(*), sum(length(b)) FROM enc.t;

-- both ways
ALTER TABLE enc.t SET ACCESS METHOD heap;
SELECT * FROM list('enc'::regnamespace) WHERE name ~ '^t(_|$)';
SELECT count(*), sum(length(b)) FROM enc.t;
ALTER TABLE enc.t SET ACCESS METHOD tde_heap;
SELECT * FROM list('enc'::regnamespace) WHERE name ~ '^t(_|$)';
SELECT count(*), sum(length(b)) FROM enc.t;
ALTER TABLE enc.u SET LOGGED;
SELECT * FROM list('enc'::regnamespace) WHERE name ~ '^u(_|$)';

-- sequences go with their owner
ALTER SEQUENCE enc.s OWNED BY enc.t.a;
SELECT pg_tde_is_encrypted('enc.s');
ALTER SEQUENCE enc.s OWNED BY enc.plain.a;
SELECT pg_tde_is_encrypted('enc.s');
ALTER SEQUENCE enc.s OWNED BY NONE;
SELECT pg_tde_is_encrypted('enc.s');

-- whole schemas
SET default_table_access_method = tde_heap;
CREATE SCHEMA whole CREATE TABLE a (a serial, b text) CREATE TABLE b (a int PRIMARY KEY);
CREATE TABLE whole.c AS SELECT 1 AS a;
SELECT * FROM list('whole'::regnamespace);
RESET default_table_access_method;

-- without event triggers too
SET event_triggers = off;
CREATE TABLE enc.quiet (a int) USING tde_heap;
RESET event_triggers;
SELECT pg_tde_is_encrypted('enc.quiet');

-- another access method made with the handler
CREATE ACCESS METHOD tde_heap_basic TYPE TABLE HANDLER pg_tdeam_handler;
CREATE TABLE enc.other (a int) USING tde_heap_basic;
SELECT pg_tde_is_encrypted('enc.other');

-- catalogs are not
SELECT relname, pg_tde_is_encrypted(oid) FROM pg_class
 WHERE oid IN ('pg_class'::regclass, 'pg_database'::regclass);

-- ciphers: aliases show up under their own name
SET pg_tde.cipher = aes_256;
SHOW pg_tde.cipher;
SET pg_tde.cipher = aes_128;
SHOW pg_tde.cipher;
SET pg_tde.cipher = rot13;
SET pg_tde.nosuch = 1;
SET pg_tde.cipher = aes_256_xts;
CREATE TABLE enc.x256 AS TABLE enc.t;
SET pg_tde.cipher = aes_128_cbc;
CREATE TABLE enc.c128 USING tde_heap AS TABLE enc.t;
SET pg_tde.cipher = aes_256_cbc;
CREATE TABLE enc.c256 USING tde_heap AS TABLE enc.t;
RESET pg_tde.cipher;
SELECT pg_tde_is_encrypted('enc.c128'), pg_tde_is_encrypted('enc.c256');
SELECT count(*) FROM enc.c128 JOIN enc.c256 USING (a, b, c);

SET client_min_messages = warning;
DROP SCHEMA enc, whole CASCADE;
DROP TABLE tmp;
DROP ACCESS METHOD tde_heap_basic;
DROP FUNCTION list;
SELECT pg_tde_delete_key();
SELECT pg_tde_delete_database_key_provider('dp');
