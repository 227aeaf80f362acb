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
-- For everybody
--

CREATE FUNCTION pg_tde_is_encrypted(relation regclass)
RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_version()
RETURNS text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME';

--
-- Encrypted tables
--

CREATE FUNCTION pg_tdeam_handler(internal)
RETURNS table_am_handler
LANGUAGE C
AS 'MODULE_PATHNAME';

CREATE ACCESS METHOD tde_heap TYPE TABLE HANDLER pg_tdeam_handler;
COMMENT ON ACCESS METHOD tde_heap IS 'encrypted heap table access method';

CREATE FUNCTION pg_tde_ddl_command_start_capture()
RETURNS event_trigger
LANGUAGE C
AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_ddl_command_end_capture()
RETURNS event_trigger
LANGUAGE C
AS 'MODULE_PATHNAME';

CREATE EVENT TRIGGER pg_tde_ddl_start ON ddl_command_start
	EXECUTE FUNCTION pg_tde_ddl_command_start_capture();

CREATE EVENT TRIGGER pg_tde_ddl_end ON ddl_command_end
	EXECUTE FUNCTION pg_tde_ddl_command_end_capture();
