--
-- CREATE and DROP EXTENSION
--

-- an extension that is taken back leaves nothing, and may come again
BEGIN;
CREATE EXTENSION pg_tde;
ROLLBACK;
SELECT count(*) FROM pg_extension WHERE extname = 'pg_tde';
SELECT evtname FROM pg_event_trigger;

-- any schema, even one whose name must be quoted
CREATE SCHEMA "Of TDE";
CREATE EXTENSION pg_tde SCHEMA "Of TDE";
SELECT "Of TDE".pg_tde_version() LIKE 'pg_tde 2.2, PostgreSQL 18%' AS version;
SELECT pg_tde_version();  -- not in the search path
SELECT "Of TDE".pg_tde_add_database_key_provider_file(NULL, '/dev/null');
ALTER EXTENSION pg_tde SET SCHEMA public;  -- not relocatable
DROP EXTENSION pg_tde;
DROP SCHEMA "Of TDE";

-- but that of the system, where nobody makes views
CREATE EXTENSION pg_tde SCHEMA pg_catalog;
SET search_path = pg_catalog;
CREATE EXTENSION pg_tde;
RESET search_path;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'pg\_tde%';

-- an ordinary user may not
CREATE ROLE regress_tde_user;
GRANT ALL ON SCHEMA public TO regress_tde_user;
GRANT ALL ON DATABASE :"DBNAME" TO regress_tde_user;
SET ROLE regress_tde_user;
CREATE EXTENSION pg_tde;
RESET ROLE;
REVOKE ALL ON SCHEMA public FROM regress_tde_user;
REVOKE ALL ON DATABASE :"DBNAME" FROM regress_tde_user;
DROP ROLE regress_tde_user;

CREATE EXTENSION pg_tde;

-- what is in it besides functions
SELECT amname, amtype, amhandler FROM pg_am WHERE amname = 'tde_heap';
SELECT evtname, evtevent, evtenabled, evtfoid::regproc
  FROM pg_event_trigger ORDER BY evtname COLLATE "C";

-- what the guide has one do "if they are not there"
CREATE EVENT TRIGGER pg_tde_ddl_start ON ddl_command_start
  EXECUTE FUNCTION pg_tde_ddl_command_start_capture();
CREATE EVENT TRIGGER pg_tde_ddl_end ON ddl_command_end
  EXECUTE FUNCTION pg_tde_ddl_command_end_capture();

-- and if one is not there indeed
ALTER EXTENSION pg_tde DROP EVENT TRIGGER pg_tde_ddl_start;
DROP EVENT TRIGGER pg_tde_ddl_start;
CREATE EVENT TRIGGER pg_tde_ddl_start ON ddl_command_start
  EXECUTE FUNCTION pg_tde_ddl_command_start_capture();
CREATE VIEW v AS SELECT 1 AS a;
DROP VIEW v;
ALTER EXTENSION pg_tde ADD EVENT TRIGGER pg_tde_ddl_start;

-- they are event triggers and nothing else
SELECT pg_tde_ddl_command_start_capture();
SELECT pg_tde_ddl_command_end_capture();

-- internal functions stay internal
SELECT pg_tdeam_handler('x');
SELECT pg_tde_require_preload();

SELECT pg_tde_version() LIKE 'pg_tde 2.2, PostgreSQL 18%' AS version;
