--
-- Principal keys of a database, the default key, the server's key
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/keys.keyring'

-- nothing is set: one row all the same
SELECT * FROM pg_tde_key_info();
SELECT * FROM pg_tde_server_key_info();
SELECT * FROM pg_tde_default_key_info();
SELECT pg_tde_verify_key();
SELECT pg_tde_verify_server_key();
SELECT pg_tde_verify_default_key();
SELECT pg_tde_delete_key();
SELECT pg_tde_delete_default_key();
CREATE TABLE no_key (a int) USING tde_heap;

SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_add_global_key_provider_file('gp', :'keyring');

-- a key is made once, by name, and used once it is set
SELECT pg_tde_create_key_using_database_key_provider('k1', 'dp');
SELECT pg_tde_create_key_using_database_key_provider('k1', 'dp');
SELECT pg_tde_create_key_using_database_key_provider('k1', 'nosuch');
SELECT pg_tde_create_key_using_global_key_provider('k1', 'dp');
SELECT * FROM pg_tde_key_info();
\set VERBOSITY terse
SELECT pg_tde_set_key_using_database_key_provider('nosuch', 'dp');
\set VERBOSITY default
SELECT pg_tde_set_key_using_database_key_provider('k1', 'nosuch');
SELECT pg_tde_set_key_using_database_key_provider('k1', 'dp');
SELECT key_name, provider_name, provider_id > 0 AS of_database,
       key_creation_time BETWEEN now() - interval '1 hour' AND clock_timestamp() AS recent
  FROM pg_tde_key_info();
SELECT pg_tde_verify_key();

-- rotation
CREATE TABLE t (a int, b text) USING tde_heap;
INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 1000) g;
SELECT pg_tde_create_key_using_global_key_provider('k2', 'gp');
SELECT pg_tde_set_key_using_global_key_provider('k2', 'gp');
SELECT key_name, provider_name, provider_id < 0 AS global FROM pg_tde_key_info();
SELECT count(*), sum(a) FROM t;
SELECT pg_tde_verify_key();

-- to the key that is set already
SELECT pg_tde_set_key_using_global_key_provider('k2', 'gp');
SELECT key_name, provider_name FROM pg_tde_key_info();

-- a provider that is in use stays
-- (the detail has the OID of the database)
\set VERBOSITY terse
SELECT pg_tde_delete_global_key_provider('gp');
\set VERBOSITY default
SELECT pg_tde_delete_database_key_provider('dp');
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');

-- setting a key is not undone
BEGIN;
SELECT pg_tde_set_key_using_database_key_provider('k1', 'dp');
ROLLBACK;
SELECT key_name, provider_name FROM pg_tde_key_info();

-- there is an encrypted table and no default key to fall back to
SELECT pg_tde_delete_key();
SELECT key_name, provider_name FROM pg_tde_key_info();

-- the default key, and with it the server's, which has none
SELECT pg_tde_create_key_using_global_key_provider('def1', 'gp');
SELECT pg_tde_create_key_using_global_key_provider('srv1', 'gp');
\set VERBOSITY terse
SELECT pg_tde_set_default_key_using_global_key_provider('nosuch', 'gp');
\set VERBOSITY default
SELECT pg_tde_set_default_key_using_global_key_provider('def1', 'gp');
SELECT key_name, provider_name FROM pg_tde_default_key_info();
SELECT key_name, provider_name FROM pg_tde_server_key_info();
SELECT key_name, provider_name FROM pg_tde_key_info();
SELECT pg_tde_verify_default_key();
SELECT pg_tde_verify_server_key();
SELECT pg_tde_set_server_key_using_global_key_provider('srv1', 'gp');
SELECT pg_tde_create_key_using_global_key_provider('def2', 'gp');
SELECT pg_tde_set_default_key_using_global_key_provider('def2', 'gp');
SELECT key_name FROM pg_tde_default_key_info();
SELECT key_name FROM pg_tde_server_key_info();  -- has its own

-- now there is one to fall back to
SELECT pg_tde_delete_key();
SELECT key_name, provider_name FROM pg_tde_key_info();
SELECT count(*), sum(a) FROM t;
SELECT pg_tde_verify_key();
\set VERBOSITY terse
SELECT pg_tde_delete_default_key();  -- in use by this database
\set VERBOSITY default
SELECT pg_tde_delete_key();          -- there is no key of its own

-- rotation of the default key reaches the database
SELECT pg_tde_set_default_key_using_global_key_provider('def1', 'gp');
SELECT key_name FROM pg_tde_key_info();
SELECT count(*), sum(a) FROM t;
CREATE TABLE t2 (a int) USING tde_heap;
INSERT INTO t2 VALUES (1);

-- and with a key of its own it does not need the default key any more
SELECT pg_tde_set_key_using_database_key_provider('k1', 'dp');
SELECT pg_tde_delete_default_key();
SELECT * FROM pg_tde_default_key_info();
SELECT count(*), sum(a) FROM t;

-- the server's own key goes by itself
SELECT key_name FROM pg_tde_server_key_info();
SELECT pg_tde_delete_server_key();
SELECT * FROM pg_tde_server_key_info();
SELECT pg_tde_delete_server_key();
SELECT pg_tde_set_server_key_using_global_key_provider('srv1', 'gp');
SELECT pg_tde_verify_server_key();
SELECT * FROM t2;
SELECT pg_tde_verify_key();

-- a database without encrypted relations may be left without a key
SELECT pg_tde_delete_key();
DROP TABLE t, t2;
SELECT pg_tde_delete_key();
SELECT * FROM pg_tde_key_info();
CREATE TABLE no_key (a int) USING tde_heap;

-- CREATE EXTENSION that is rolled back after keys were set loses none
DROP EXTENSION pg_tde;
BEGIN;
CREATE EXTENSION pg_tde;
SELECT pg_tde_set_key_using_database_key_provider('k1', 'dp');
CREATE TABLE gone (a int) USING tde_heap;
ROLLBACK;
CREATE EXTENSION pg_tde;
SELECT key_name, provider_name FROM pg_tde_key_info();
SELECT pg_tde_verify_key();
CREATE TABLE t (a int) USING tde_heap;
INSERT INTO t VALUES (1);
SELECT * FROM t;

-- no DROP EXTENSION while there is an encrypted table
DROP EXTENSION pg_tde;
DROP TABLE t;

SELECT pg_tde_delete_key();
SELECT pg_tde_delete_database_key_provider('dp');
