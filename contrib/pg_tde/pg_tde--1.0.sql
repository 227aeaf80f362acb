/* contrib/pg_tde/pg_tde--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_tde" to load this file. \quit

-- Fails unless the library is preloaded; not needed afterwards.
CREATE FUNCTION pg_tde_require_preload()
RETURNS void
LANGUAGE C
AS 'MODULE_PATHNAME';

SELECT @extschema@.pg_tde_require_preload();

DROP FUNCTION pg_tde_require_preload();

--
-- Key providers.  The functions without a type in their name are for
-- superusers; those with one are shorthands for them, which anybody may call
-- and which get him no further.
--

CREATE FUNCTION pg_tde_add_database_key_provider(type text, name text, options json)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_add_database_key_provider(text, text, json) FROM PUBLIC;

CREATE FUNCTION pg_tde_add_database_key_provider_file(provider_name text, file_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_database_key_provider('file', provider_name,
		json_object('path' VALUE file_path));
END;

CREATE FUNCTION pg_tde_add_database_key_provider_kmip(provider_name text, kmip_host text, kmip_port int, kmip_cert_path text, kmip_key_path text, kmip_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_database_key_provider('kmip', provider_name,
		json_object('host' VALUE kmip_host, 'port' VALUE kmip_port,
			'certPath' VALUE kmip_cert_path, 'keyPath' VALUE kmip_key_path,
			'caPath' VALUE kmip_ca_path ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_add_database_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_database_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path
			ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_add_database_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text, vault_namespace text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_database_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path,
			'namespace' VALUE vault_namespace ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_add_global_key_provider(type text, name text, options json)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_add_global_key_provider(text, text, json) FROM PUBLIC;

CREATE FUNCTION pg_tde_add_global_key_provider_file(provider_name text, file_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_global_key_provider('file', provider_name,
		json_object('path' VALUE file_path));
END;

CREATE FUNCTION pg_tde_add_global_key_provider_kmip(provider_name text, kmip_host text, kmip_port int, kmip_cert_path text, kmip_key_path text, kmip_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_global_key_provider('kmip', provider_name,
		json_object('host' VALUE kmip_host, 'port' VALUE kmip_port,
			'certPath' VALUE kmip_cert_path, 'keyPath' VALUE kmip_key_path,
			'caPath' VALUE kmip_ca_path ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_add_global_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_global_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path
			ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_add_global_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text, vault_namespace text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_add_global_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path,
			'namespace' VALUE vault_namespace ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_database_key_provider(type text, name text, options json)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_change_database_key_provider(text, text, json) FROM PUBLIC;

CREATE FUNCTION pg_tde_change_database_key_provider_file(provider_name text, file_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_database_key_provider('file', provider_name,
		json_object('path' VALUE file_path));
END;

CREATE FUNCTION pg_tde_change_database_key_provider_kmip(provider_name text, kmip_host text, kmip_port int, kmip_cert_path text, kmip_key_path text, kmip_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_database_key_provider('kmip', provider_name,
		json_object('host' VALUE kmip_host, 'port' VALUE kmip_port,
			'certPath' VALUE kmip_cert_path, 'keyPath' VALUE kmip_key_path,
			'caPath' VALUE kmip_ca_path ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_database_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_database_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path
			ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_database_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text, vault_namespace text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_database_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path,
			'namespace' VALUE vault_namespace ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_global_key_provider(type text, name text, options json)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_change_global_key_provider(text, text, json) FROM PUBLIC;

CREATE FUNCTION pg_tde_change_global_key_provider_file(provider_name text, file_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_global_key_provider('file', provider_name,
		json_object('path' VALUE file_path));
END;

CREATE FUNCTION pg_tde_change_global_key_provider_kmip(provider_name text, kmip_host text, kmip_port int, kmip_cert_path text, kmip_key_path text, kmip_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_global_key_provider('kmip', provider_name,
		json_object('host' VALUE kmip_host, 'port' VALUE kmip_port,
			'certPath' VALUE kmip_cert_path, 'keyPath' VALUE kmip_key_path,
			'caPath' VALUE kmip_ca_path ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_global_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_global_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path
			ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_change_global_key_provider_vault_v2(provider_name text, vault_url text, vault_mount_path text, vault_token_path text, vault_ca_path text, vault_namespace text)
RETURNS void
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
	SELECT @extschema@.pg_tde_change_global_key_provider('vault-v2', provider_name,
		json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
			'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path,
			'namespace' VALUE vault_namespace ABSENT ON NULL));
END;

CREATE FUNCTION pg_tde_delete_database_key_provider(provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_delete_database_key_provider(text) FROM PUBLIC;

CREATE FUNCTION pg_tde_delete_global_key_provider(provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_delete_global_key_provider(text) FROM PUBLIC;

CREATE FUNCTION pg_tde_list_all_database_key_providers(OUT id int, OUT name text, OUT type text, OUT options json)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_list_all_database_key_providers() FROM PUBLIC;

CREATE FUNCTION pg_tde_list_all_global_key_providers(OUT id int, OUT name text, OUT type text, OUT options json)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_list_all_global_key_providers() FROM PUBLIC;

--
-- Principal keys
--

CREATE FUNCTION pg_tde_create_key_using_database_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_create_key_using_database_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_create_key_using_global_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_create_key_using_global_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_set_key_using_database_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_set_key_using_database_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_set_key_using_global_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_set_key_using_global_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_set_server_key_using_global_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_set_server_key_using_global_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_set_default_key_using_global_key_provider(key_name text, provider_name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_set_default_key_using_global_key_provider(text, text) FROM PUBLIC;

CREATE FUNCTION pg_tde_verify_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_verify_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_verify_server_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_verify_server_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_verify_default_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_verify_default_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_delete_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_delete_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_delete_server_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_delete_server_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_delete_default_key()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_delete_default_key() FROM PUBLIC;

CREATE FUNCTION pg_tde_key_info(OUT key_name text, OUT provider_name text, OUT provider_id int, OUT key_creation_time timestamptz)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_key_info() FROM PUBLIC;

CREATE FUNCTION pg_tde_server_key_info(OUT key_name text, OUT provider_name text, OUT provider_id int, OUT key_creation_time timestamptz)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_server_key_info() FROM PUBLIC;

CREATE FUNCTION pg_tde_default_key_info(OUT key_name text, OUT provider_name text, OUT provider_id int, OUT key_creation_time timestamptz)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_default_key_info() FROM PUBLIC;

--
-- Keys that belong to no relation
--

CREATE FUNCTION pg_tde_orphaned_keys(OUT tablespace oid, OUT file_number oid, OUT key_id text, OUT created timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_orphaned_keys() FROM PUBLIC;

CREATE FUNCTION pg_tde_remove_orphaned_keys()
RETURNS int
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_remove_orphaned_keys() FROM PUBLIC;

--
-- For everybody
--

CREATE FUNCTION pg_tde_is_encrypted(relation regclass)
RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_is_wal_encrypted()
RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_version()
RETURNS text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME';

--
-- Monitoring.  What names keys or providers of other databases is for
-- pg_read_all_stats, of which pg_monitor is a member.
--

CREATE FUNCTION pg_stat_get_tde_provider_list(OUT datid oid, OUT provider_id int, OUT name text, OUT type text)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_tde_providers AS
	SELECT p.datid, d.datname, p.provider_id, p.name, p.type
	  FROM pg_stat_get_tde_provider_list() p LEFT JOIN pg_catalog.pg_database d ON d.oid = p.datid;

CREATE FUNCTION pg_stat_get_tde_principal_keys(OUT scope text, OUT datid oid, OUT key_name text,
	OUT provider_id int, OUT provider_name text, OUT follows_default boolean,
	OUT created timestamptz, OUT cipher text, OUT scope_keys int,
	OUT last_scope_key_created timestamptz, OUT available boolean, OUT problem text)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_tde_principal_keys AS
	SELECT k.scope, k.datid, d.datname, k.key_name, k.provider_id, k.provider_name,
	       k.follows_default, k.created, k.cipher, k.scope_keys,
	       k.last_scope_key_created, k.available, k.problem
	  FROM pg_stat_get_tde_principal_keys() k LEFT JOIN pg_catalog.pg_database d ON d.oid = k.datid;

CREATE FUNCTION pg_stat_get_tde_providers(OUT datid oid, OUT provider_id int, OUT provider_name text,
	OUT operation text, OUT calls bigint, OUT failures bigint,
	OUT total_time double precision, OUT max_time double precision,
	OUT last_success timestamptz, OUT last_failure timestamptz, OUT last_error text,
	OUT stats_reset timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_stat_tde_providers AS
	SELECT s.datid, d.datname, s.provider_id, s.provider_name, s.operation,
	       s.calls, s.failures, s.total_time, s.max_time,
	       s.last_success, s.last_failure, s.last_error, s.stats_reset
	  FROM pg_stat_get_tde_providers() s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.datid;

CREATE FUNCTION pg_stat_get_tde_cache(OUT name text, OUT entries bigint, OUT max_entries bigint,
	OUT hits bigint, OUT misses bigint, OUT evictions bigint, OUT stats_reset timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_stat_tde_cache AS
	SELECT name, entries, max_entries, hits, misses, evictions, stats_reset
	  FROM pg_stat_get_tde_cache();

CREATE FUNCTION pg_stat_get_tde_key_memory(OUT size bigint, OUT locked boolean,
	OUT unlocked_processes bigint)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_tde_key_memory AS
	SELECT size, locked, unlocked_processes FROM pg_stat_get_tde_key_memory();

CREATE FUNCTION pg_stat_get_tde_rotations(OUT pid int, OUT datid oid, OUT scope text, OUT key_name text,
	OUT provider_name text, OUT phase text, OUT scopes_total bigint, OUT scopes_done bigint,
	OUT started timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

CREATE VIEW pg_stat_progress_tde_rotation AS
	SELECT r.pid, r.datid, d.datname, r.scope, r.key_name, r.provider_name,
	       r.phase, r.scopes_total, r.scopes_done, r.started
	  FROM pg_stat_get_tde_rotations() r LEFT JOIN pg_catalog.pg_database d ON d.oid = r.datid;

REVOKE ALL ON FUNCTION pg_stat_get_tde_provider_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_stat_get_tde_principal_keys() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_stat_get_tde_providers() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_stat_get_tde_cache() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_stat_get_tde_key_memory() FROM PUBLIC;
REVOKE ALL ON FUNCTION pg_stat_get_tde_rotations() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_provider_list() TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_principal_keys() TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_providers() TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_cache() TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_key_memory() TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_stat_get_tde_rotations() TO pg_read_all_stats;
GRANT SELECT ON pg_tde_providers, pg_tde_principal_keys, pg_stat_tde_providers,
	pg_stat_tde_cache, pg_tde_key_memory, pg_stat_progress_tde_rotation
	TO pg_read_all_stats;

CREATE FUNCTION pg_stat_tde_reset()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_stat_tde_reset() FROM PUBLIC;

-- What is encrypted is no secret, as with pg_tde_is_encrypted().
CREATE FUNCTION pg_stat_get_tde_relation_key(relation regclass,
	OUT encrypted boolean, OUT cipher text, OUT created timestamptz, OUT problem text)
RETURNS record
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';

CREATE VIEW pg_tde_relations AS
	SELECT c.oid AS relid, n.nspname AS schemaname, c.relname, c.relkind, a.amname,
	       k.encrypted, k.cipher, k.created AS key_created, k.problem
	  FROM pg_catalog.pg_class c
	       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	       LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
	       CROSS JOIN LATERAL pg_stat_get_tde_relation_key(c.oid) k
	 WHERE c.relkind IN ('r', 'i', 't', 'm', 'S');

-- Not of the system: objects that initdb makes have smaller OIDs.
CREATE VIEW pg_tde_database AS
	SELECT d.oid AS datid, d.datname,
	       count(*) FILTER (WHERE r.encrypted) AS encrypted,
	       count(*) FILTER (WHERE NOT r.encrypted) AS unencrypted,
	       count(r.relid) FILTER (WHERE r.encrypted IS NULL) AS unknown,
	       count(r.problem) AS problems
	  FROM pg_catalog.pg_database d
	       LEFT JOIN pg_tde_relations r ON r.relid >= 16384
	 WHERE d.datname = pg_catalog.current_database()
	 GROUP BY d.oid, d.datname;

GRANT SELECT ON pg_tde_relations, pg_tde_database TO PUBLIC;

--
-- Encrypted tables
--

CREATE FUNCTION pg_tdeam_handler(internal)
RETURNS table_am_handler
LANGUAGE C
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tdeam_handler(internal) FROM PUBLIC;

CREATE ACCESS METHOD tde_heap TYPE TABLE HANDLER pg_tdeam_handler;
COMMENT ON ACCESS METHOD tde_heap IS 'encrypted heap table access method';

-- Nothing depends on these; they are what scripts expect to find.

CREATE FUNCTION pg_tde_ddl_command_start_capture()
RETURNS event_trigger
LANGUAGE C
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_ddl_command_start_capture() FROM PUBLIC;

CREATE FUNCTION pg_tde_ddl_command_end_capture()
RETURNS event_trigger
LANGUAGE C
AS 'MODULE_PATHNAME';

REVOKE ALL ON FUNCTION pg_tde_ddl_command_end_capture() FROM PUBLIC;

CREATE EVENT TRIGGER pg_tde_ddl_start ON ddl_command_start
	EXECUTE FUNCTION pg_tde_ddl_command_start_capture();

CREATE EVENT TRIGGER pg_tde_ddl_end ON ddl_command_end
	EXECUTE FUNCTION pg_tde_ddl_command_end_capture();
