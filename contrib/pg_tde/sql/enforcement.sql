--
-- pg_tde.enforce_encryption
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/enforcement.keyring'
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_create_key_using_database_key_provider('k', 'dp');
SELECT pg_tde_set_key_using_database_key_provider('k', 'dp');

-- what is there before
CREATE SCHEMA enf;
SET search_path = enf, public;
CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE plain (a serial PRIMARY KEY, b int);
INSERT INTO plain (b) SELECT g FROM generate_series(1, 100) g;
CREATE MATERIALIZED VIEW plain_mv AS SELECT * FROM plain;
CREATE UNIQUE INDEX ON plain_mv (a);
CREATE TABLE plain_p (a int) PARTITION BY LIST (a) USING heap;
CREATE TABLE plain_p1 PARTITION OF plain_p FOR VALUES IN (1);
CREATE SEQUENCE plain_seq;
CREATE TABLE enc (a serial PRIMARY KEY, b text) USING tde_heap;
CREATE MATERIALIZED VIEW enc_mv USING tde_heap AS SELECT * FROM plain;
CREATE UNIQUE INDEX ON enc_mv (a);

-- a superuser's decision
SHOW pg_tde.enforce_encryption;
CREATE ROLE regress_tde_user;
SET ROLE regress_tde_user;
SET pg_tde.enforce_encryption = on;
RESET ROLE;
SET pg_tde.enforce_encryption = on;
SET ROLE regress_tde_user;
SET pg_tde.enforce_encryption = off;
RESET pg_tde.enforce_encryption;
SET LOCAL pg_tde.enforce_encryption = off;
RESET ROLE;
DROP ROLE regress_tde_user;
SHOW pg_tde.enforce_encryption;

-- whatever makes a table, it is refused
CREATE TABLE t (a int);
CREATE TABLE t (a int) USING heap;
CREATE TABLE t (a int) USING other_heap;
CREATE UNLOGGED TABLE t (a int);
CREATE TEMPORARY TABLE t (a int);
CREATE TABLE IF NOT EXISTS t (a int);
CREATE TABLE t (LIKE enc INCLUDING ALL);
CREATE TABLE t () INHERITS (enc);
CREATE TYPE ty AS (a int);
CREATE TABLE t OF ty;
CREATE TABLE t AS SELECT 1 AS a;
CREATE TABLE t AS EXECUTE nosuch;
PREPARE p AS SELECT 1 AS a;
CREATE TABLE t AS EXECUTE p;
DEALLOCATE p;
EXPLAIN (ANALYZE, COSTS OFF) CREATE TABLE t AS SELECT 1 AS a;
CREATE TABLE t AS SELECT 1 AS a WITH NO DATA;
SELECT 1 AS a INTO t;
SELECT 1 AS a INTO TEMPORARY t;
CREATE MATERIALIZED VIEW t AS SELECT 1 AS a;
CREATE SCHEMA s CREATE TABLE t (a int);
CREATE TABLE t (a int) PARTITION BY LIST (a) USING heap;
CREATE TABLE plain_p2 PARTITION OF plain_p FOR VALUES IN (2);
DO $$ BEGIN CREATE TEMPORARY TABLE t (a int); END $$;
DO $$ BEGIN EXECUTE 'CREATE TABLE t AS SELECT 1 AS a'; END $$;
SET event_triggers = off;
CREATE TABLE t (a int);
RESET event_triggers;
SET allow_system_table_mods = on;
CREATE TABLE t (a int);
RESET allow_system_table_mods;

-- or another access method
ALTER TABLE enc SET ACCESS METHOD heap;
ALTER TABLE enc SET ACCESS METHOD DEFAULT;
ALTER TABLE enc SET ACCESS METHOD other_heap, ADD COLUMN c int;
ALTER TABLE plain SET ACCESS METHOD other_heap;
ALTER MATERIALIZED VIEW enc_mv SET ACCESS METHOD heap;
ALTER TABLE plain_p SET ACCESS METHOD other_heap;

-- what encrypts is not
CREATE TABLE t1 (a serial, b text) USING tde_heap;
CREATE TABLE t2 USING tde_heap AS SELECT 1 AS a;
CREATE TEMPORARY TABLE t3 (a int) USING tde_heap;
CREATE MATERIALIZED VIEW t4 USING tde_heap AS SELECT 1 AS a;
CREATE SCHEMA s CREATE TABLE t (a int) USING tde_heap;
CREATE TABLE enc_p (a int) PARTITION BY LIST (a) USING tde_heap;
CREATE TABLE enc_p1 PARTITION OF enc_p FOR VALUES IN (1);
CREATE TABLE enc_p2 PARTITION OF enc_p FOR VALUES IN (2) USING heap;
CREATE TABLE some_p (a int) PARTITION BY LIST (a);
CREATE TABLE some_p1 PARTITION OF some_p FOR VALUES IN (1);
SET default_table_access_method = tde_heap;
CREATE TABLE some_p1 PARTITION OF some_p FOR VALUES IN (1);
CREATE TABLE t5 (LIKE plain INCLUDING ALL);
SELECT 1 AS a INTO t6;
CREATE MATERIALIZED VIEW t7 AS SELECT 1 AS a;
ALTER TABLE enc_p SET ACCESS METHOD heap;
ALTER TABLE enc_p SET ACCESS METHOD DEFAULT;
RESET default_table_access_method;
ALTER TABLE enc SET ACCESS METHOD tde_heap;
-- nor what holds no rows
CREATE VIEW v AS SELECT 1 AS a;

-- sequences have no access method: those without owner are encrypted
CREATE SEQUENCE new_seq;
CREATE TEMPORARY SEQUENCE temp_seq;
SELECT pg_tde_is_encrypted('new_seq'), pg_tde_is_encrypted('temp_seq'),
       pg_tde_is_encrypted('plain_seq');
ALTER SEQUENCE plain_seq RESTART 10;
SELECT pg_tde_is_encrypted('plain_seq');
ALTER SEQUENCE new_seq OWNED BY plain.b;
SELECT pg_tde_is_encrypted('new_seq');
ALTER SEQUENCE new_seq OWNED BY NONE;
SELECT pg_tde_is_encrypted('new_seq');

-- tables that were there are used, altered and rewritten as before
TRUNCATE plain;
INSERT INTO plain (b) SELECT g FROM generate_series(1, 100) g;
VACUUM FULL plain;
CLUSTER plain USING plain_pkey;
REINDEX TABLE plain;
CREATE INDEX ON plain (b);
ALTER TABLE plain ADD COLUMN c text DEFAULT random()::text, ADD COLUMN d serial;
ALTER TABLE plain ALTER d TYPE bigint;
ALTER TABLE plain SET UNLOGGED;
ALTER TABLE plain SET LOGGED;
ALTER TABLE plain SET ACCESS METHOD heap;
ALTER TABLE plain SET TABLESPACE pg_default;
REFRESH MATERIALIZED VIEW plain_mv;
REFRESH MATERIALIZED VIEW CONCURRENTLY plain_mv;
INSERT INTO plain (b) VALUES (101);
REFRESH MATERIALIZED VIEW CONCURRENTLY plain_mv;
REFRESH MATERIALIZED VIEW CONCURRENTLY enc_mv;
SELECT count(*) FROM plain_mv;
SELECT count(*) FROM enc_mv;
CREATE TABLE late (LIKE plain_p) USING tde_heap;
ALTER TABLE plain_p ATTACH PARTITION late FOR VALUES IN (3);
-- but nothing that is plain becomes a partition, nor does what has such a partition
ALTER TABLE plain_p DETACH PARTITION plain_p1;
ALTER TABLE plain_p ATTACH PARTITION plain_p1 FOR VALUES IN (1);
ALTER TABLE some_p ATTACH PARTITION plain_p1 FOR VALUES IN (2);
RESET pg_tde.enforce_encryption;
CREATE TABLE mixed (a int) PARTITION BY LIST (a);
CREATE TABLE mixed1 PARTITION OF mixed FOR VALUES IN (4) USING tde_heap;
CREATE TABLE mixed2 PARTITION OF mixed FOR VALUES IN (5) USING heap;
SET pg_tde.enforce_encryption = on;
ALTER TABLE some_p ATTACH PARTITION mixed FOR VALUES IN (4, 5);
ALTER TABLE mixed2 SET ACCESS METHOD tde_heap;
ALTER TABLE some_p ATTACH PARTITION mixed FOR VALUES IN (4, 5);
INSERT INTO some_p VALUES (4), (5);
SELECT tableoid::regclass, pg_tde_is_encrypted(tableoid) FROM some_p ORDER BY a;
-- rows of a parent never go to a child
CREATE TABLE parent (a int) USING tde_heap;
ALTER TABLE plain_p1 INHERIT parent;
INSERT INTO parent VALUES (1);
SELECT tableoid::regclass FROM parent;
ALTER TABLE plain_p1 NO INHERIT parent;
RESET pg_tde.enforce_encryption;
ALTER TABLE plain_p ATTACH PARTITION plain_p1 FOR VALUES IN (1);
SET pg_tde.enforce_encryption = on;
SELECT relname, pg_tde_is_encrypted(oid) FROM pg_class
 WHERE relnamespace = 'enf'::regnamespace AND relname ~ '^plain' AND relkind IN ('r', 'i', 'S', 'm')
 ORDER BY relname COLLATE "C";
-- no table that a refresh makes for itself lets another one in
BEGIN;
REFRESH MATERIALIZED VIEW CONCURRENTLY plain_mv;
CREATE TEMPORARY TABLE t (a int);
ROLLBACK;
-- and become encrypted
ALTER TABLE plain SET ACCESS METHOD tde_heap;
ALTER MATERIALIZED VIEW plain_mv SET ACCESS METHOD tde_heap;
ALTER TABLE plain_p SET ACCESS METHOD tde_heap;
ALTER TABLE plain_p1 SET ACCESS METHOD tde_heap;
-- then there is nothing that is not
SELECT relname FROM pg_class WHERE relnamespace IN ('enf'::regnamespace, 's'::regnamespace)
                               AND NOT pg_tde_is_encrypted(oid);
-- system catalogs are no matter
VACUUM FULL pg_description;

-- a database without the extension, or without a key
RESET pg_tde.enforce_encryption;
ALTER SEQUENCE new_seq RESTART;
SELECT pg_tde_is_encrypted('new_seq');
SET client_min_messages = warning;
RESET search_path;
DROP SCHEMA enf, s CASCADE;
DROP ACCESS METHOD other_heap;
DISCARD TEMP;
SELECT pg_tde_delete_key();
SET pg_tde.enforce_encryption = on;
CREATE SEQUENCE no_key;
CREATE TABLE no_key (a int) USING tde_heap;
DROP EXTENSION pg_tde;
CREATE TABLE t (a int);
RESET pg_tde.enforce_encryption;
CREATE EXTENSION pg_tde;
SELECT pg_tde_delete_database_key_provider('dp');
