--
-- Monitoring views
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/monitor.keyring'

SELECT pg_tde_add_database_key_provider_file('monitored', :'keyring');
SELECT pg_stat_tde_reset();
SELECT pg_tde_create_key_using_database_key_provider('m1', 'monitored');
SELECT pg_tde_create_key_using_database_key_provider('m1', 'monitored');
SELECT pg_tde_set_key_using_database_key_provider('m1', 'monitored');
\set VERBOSITY terse
SELECT pg_tde_set_key_using_database_key_provider('nosuch', 'monitored');
\set VERBOSITY default
SELECT pg_tde_verify_key();
SELECT pg_tde_change_database_key_provider_file('monitored', :'keyring');

-- providers
SELECT datname = current_database() AS here, provider_id > 0 AS own, name, type
  FROM pg_tde_providers WHERE name = 'monitored';
-- no option of one is shown
SELECT count(*) FROM pg_tde_providers p WHERE p::text LIKE '%results%';

-- calls: a change of a provider asks it, and for the keys in use
SELECT operation, calls, failures, total_time > 0 AS total, max_time <= total_time AS max,
       last_success >= stats_reset AS success, last_failure >= stats_reset AS failure,
       last_error LIKE '%nosuch%' AS error
  FROM pg_stat_tde_providers WHERE provider_name = 'monitored' ORDER BY operation;

-- principal keys
SELECT scope, datname = current_database() AS here, key_name, provider_name, follows_default,
       created > now() - interval '1 hour' AS created, cipher, available, problem
  FROM pg_tde_principal_keys WHERE key_name = 'm1';
SELECT scope_keys FROM pg_tde_principal_keys WHERE key_name = 'm1' \gset
SELECT pg_tde_create_key_using_database_key_provider('m2', 'monitored');
SELECT pg_tde_set_key_using_database_key_provider('m2', 'monitored');
SELECT key_name, scope_keys - :scope_keys AS more FROM pg_tde_principal_keys WHERE provider_name = 'monitored';

-- relations
CREATE SCHEMA monitored;
SET search_path = monitored, public;
CREATE TABLE plain (a int PRIMARY KEY, b text);
CREATE TABLE secret (a serial PRIMARY KEY, b text) USING tde_heap;
SET pg_tde.cipher = aes_256_xts;
CREATE UNLOGGED TABLE unlogged (a int) USING tde_heap;
RESET pg_tde.cipher;
CREATE TEMPORARY TABLE temporary (a int) USING tde_heap;
CREATE MATERIALIZED VIEW matview USING tde_heap AS SELECT 1;
CREATE TABLE parted (a int) PARTITION BY RANGE (a) USING tde_heap;
CREATE VIEW v AS SELECT 1;
SELECT relname, relkind, amname, encrypted, cipher,
       key_created > now() - interval '1 hour' AS created, problem
  FROM pg_tde_relations
 WHERE schemaname = 'monitored' OR relname = 'temporary' ORDER BY relname COLLATE "C";
SELECT encrypted, cipher FROM pg_tde_relations
 WHERE relid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'secret'::regclass);
-- it agrees with the question for one relation
SELECT relid::regclass FROM pg_tde_relations
 WHERE encrypted IS DISTINCT FROM pg_tde_is_encrypted(relid);
SELECT * FROM pg_stat_get_tde_relation_key(0);
SELECT * FROM pg_stat_get_tde_relation_key('v');
SELECT datname = current_database() AS here, encrypted > 5 AS encrypted, unencrypted > 1 AS unencrypted,
       problems FROM pg_tde_database;

-- caches and memory
SELECT name, entries > 0 OR name = 'key_removals' AS entries, entries <= max_entries AS fits, hits >= 0 AS hits,
       misses >= 0 AS misses, evictions >= 0 AS evictions, stats_reset <= now() AS reset
  FROM pg_stat_tde_cache ORDER BY name COLLATE "C";
-- the shared cache is asked when a process meets a relation for the first time
SELECT hits + misses AS asked FROM pg_stat_tde_cache WHERE name = 'relation_keys' \gset
\c
SELECT count(*) FROM monitored.secret;
SELECT hits + misses > :asked AS more FROM pg_stat_tde_cache WHERE name = 'relation_keys';
SELECT size > 0 AS size, locked IS NOT NULL AS locked FROM pg_tde_key_memory;
SELECT * FROM pg_stat_progress_tde_rotation;

-- reset
SELECT pg_stat_tde_reset();
SELECT DISTINCT calls, failures, total_time, last_success, last_error
  FROM pg_stat_tde_providers WHERE provider_name = 'monitored';

-- who may look
CREATE ROLE regress_tde_nobody;
CREATE ROLE regress_tde_monitor IN ROLE pg_monitor;
SET ROLE regress_tde_nobody;
SELECT * FROM pg_tde_providers;
SELECT * FROM pg_tde_principal_keys;
SELECT * FROM pg_stat_tde_providers;
SELECT * FROM pg_stat_tde_cache;
SELECT * FROM pg_tde_key_memory;
SELECT * FROM pg_stat_progress_tde_rotation;
SELECT * FROM pg_stat_get_tde_provider_list();
SELECT * FROM pg_stat_get_tde_principal_keys();
SELECT * FROM pg_stat_get_tde_providers();
SELECT * FROM pg_stat_get_tde_cache();
SELECT * FROM pg_stat_get_tde_key_memory();
SELECT * FROM pg_stat_get_tde_rotations();
SELECT pg_stat_tde_reset();
-- what is encrypted is no secret
SELECT encrypted FROM pg_tde_relations WHERE schemaname = 'monitored' AND relname = 'secret';
SELECT encrypted > 0 AS some FROM pg_tde_database;
SET ROLE regress_tde_monitor;
SELECT count(*) FROM pg_tde_providers WHERE name = 'monitored';
SELECT count(*) FROM pg_tde_principal_keys WHERE key_name = 'm2';
SELECT count(*) FROM pg_stat_tde_providers WHERE provider_name = 'monitored';
SELECT count(*) FROM pg_stat_tde_cache;
SELECT count(*) FROM pg_tde_key_memory;
SELECT count(*) FROM pg_stat_progress_tde_rotation;
SELECT pg_stat_tde_reset();
RESET ROLE;
DROP ROLE regress_tde_nobody, regress_tde_monitor;

-- counters go with the provider
SET client_min_messages = warning;
DROP SCHEMA monitored CASCADE;
RESET client_min_messages;
SELECT pg_tde_delete_key();
SELECT pg_tde_delete_database_key_provider('monitored');
SELECT count(*) FROM pg_stat_tde_providers WHERE provider_name = 'monitored';
