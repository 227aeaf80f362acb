--
-- pg_tde.inherit_global_providers
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/inherit.keyring'
SELECT pg_tde_add_global_key_provider_file('ip', :'keyring');
SELECT pg_tde_create_key_using_global_key_provider('g1', 'ip');
SELECT pg_tde_create_key_using_global_key_provider('g2', 'ip');
SELECT pg_tde_set_default_key_using_global_key_provider('g1', 'ip');
SHOW pg_tde.inherit_global_providers;

-- a superuser's decision
CREATE ROLE regress_tde_user;
SET ROLE regress_tde_user;
SET pg_tde.inherit_global_providers = off;
RESET ROLE;
DROP ROLE regress_tde_user;

-- off: global keys, the default key included, are not for this database
SET pg_tde.inherit_global_providers = off;
SELECT key_name FROM pg_tde_key_info();
SELECT key_name FROM pg_tde_default_key_info();
SELECT pg_tde_verify_key();
CREATE TABLE t (a int) USING tde_heap;
SELECT pg_tde_set_key_using_global_key_provider('g1', 'ip');
SELECT pg_tde_delete_key();
-- the server and other databases have theirs
SELECT pg_tde_set_server_key_using_global_key_provider('g2', 'ip');
SELECT pg_tde_set_default_key_using_global_key_provider('g2', 'ip');
SELECT pg_tde_verify_default_key();
SELECT key_name FROM pg_tde_key_info();

-- one of its own is used as ever, and there is no falling back
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_create_key_using_database_key_provider('d1', 'dp');
SELECT pg_tde_set_key_using_database_key_provider('d1', 'dp');
CREATE TABLE t (a int) USING tde_heap;
INSERT INTO t VALUES (1);
SELECT pg_tde_delete_key();
SELECT key_name FROM pg_tde_key_info();

-- on again, there is
SET pg_tde.inherit_global_providers = on;
SELECT pg_tde_delete_key();
SELECT key_name FROM pg_tde_key_info();
SELECT * FROM t;

-- a database that uses a global key already keeps it
SET pg_tde.inherit_global_providers = off;
SELECT key_name FROM pg_tde_key_info();
SELECT pg_tde_verify_key();
CREATE TABLE t2 (a int) USING tde_heap;
INSERT INTO t2 SELECT * FROM t;
SELECT * FROM t2;
SELECT pg_tde_set_default_key_using_global_key_provider('g1', 'ip');
SELECT key_name FROM pg_tde_key_info();
RESET pg_tde.inherit_global_providers;

DROP TABLE t, t2;
SELECT pg_tde_delete_default_key();
SELECT pg_tde_delete_database_key_provider('dp');
SELECT key_name FROM pg_tde_key_info();
-- it took the server key along, which was the same, so the provider can go
\set VERBOSITY terse
SELECT pg_tde_delete_global_key_provider('ip');
\set VERBOSITY default
