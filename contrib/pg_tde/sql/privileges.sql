--
-- Who may call what
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/privileges.keyring'

CREATE ROLE regress_tde_user;
SET ROLE regress_tde_user;
SELECT pg_tde_version() IS NOT NULL AS version;
SELECT pg_tde_is_encrypted('pg_class');
-- shorthands can be called, what they call cannot
SELECT pg_tde_add_database_key_provider_file('p', '/tmp/x');
SELECT pg_tde_add_global_key_provider_file('p', '/tmp/x');
SELECT pg_tde_change_database_key_provider_file('p', '/tmp/x');
SELECT pg_tde_change_global_key_provider_file('p', '/tmp/x');
SELECT pg_tde_add_database_key_provider_vault_v2('p', 'https://v', 'm', '/t', '');
SELECT pg_tde_add_global_key_provider_vault_v2('p', 'https://v', 'm', '/t', '');
SELECT pg_tde_change_database_key_provider_vault_v2('p', 'https://v', 'm', '/t', '', 'n');
SELECT pg_tde_change_global_key_provider_vault_v2('p', 'https://v', 'm', '/t', '', 'n');
SELECT pg_tde_add_database_key_provider_kmip('p', 'h', 5696, '/c', '/k', '/a');
SELECT pg_tde_add_global_key_provider_kmip('p', 'h', 5696, '/c', '/k', '/a');
SELECT pg_tde_change_database_key_provider_kmip('p', 'h', 5696, '/c', '/k', '/a');
SELECT pg_tde_change_global_key_provider_kmip('p', 'h', 5696, '/c', '/k', '/a');
SELECT pg_tde_key_info();
-- nor does he see what providers are made of
SELECT * FROM pg_tde_list_all_database_key_providers();
SELECT * FROM pg_tde_list_all_global_key_providers();
SET pg_tde.cipher = aes_256_xts;
RESET ROLE;

-- one who is granted everything, and is no superuser
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE 'pg\_tde%'
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO regress_tde_user', f);
  END LOOP;
END $$;
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_add_global_key_provider_file('gp2', :'keyring');
SELECT pg_tde_create_key_using_global_key_provider('g', 'gp2');

SET ROLE regress_tde_user;
-- these demand a superuser
SELECT pg_tde_add_database_key_provider('file', 'p', '{"path":"/tmp/x"}');
SELECT pg_tde_add_global_key_provider('file', 'p', '{"path":"/tmp/x"}');
SELECT pg_tde_change_database_key_provider('file', 'dp', '{"path":"/tmp/x"}');
SELECT pg_tde_change_global_key_provider('file', 'gp2', '{"path":"/tmp/x"}');
SELECT pg_tde_add_database_key_provider_file('p', '/tmp/x');
SELECT pg_tde_change_global_key_provider_file('gp2', '/tmp/x');
SELECT pg_tde_delete_database_key_provider('dp');
SELECT pg_tde_delete_global_key_provider('gp2');
SELECT pg_tde_create_key_using_global_key_provider('k', 'gp2');
SELECT pg_tde_set_key_using_global_key_provider('g', 'gp2');
SELECT pg_tde_set_server_key_using_global_key_provider('g', 'gp2');
SELECT pg_tde_set_default_key_using_global_key_provider('g', 'gp2');
SELECT pg_tde_delete_default_key();
SELECT pg_tde_delete_server_key();
-- a wrong argument tells him no more
SELECT pg_tde_delete_global_key_provider('nosuch');
SELECT pg_tde_delete_global_key_provider(NULL);
-- these do not
SELECT name, type FROM pg_tde_list_all_database_key_providers();
SELECT count(*) > 0 AS some FROM pg_tde_list_all_global_key_providers();
SELECT pg_tde_create_key_using_database_key_provider('k', 'dp');
SELECT pg_tde_set_key_using_database_key_provider('k', 'dp');
SELECT key_name, provider_name FROM pg_tde_key_info();
SELECT count(*) FROM pg_tde_server_key_info();
SELECT count(*) FROM pg_tde_default_key_info();
SELECT pg_tde_verify_key();
SELECT pg_tde_delete_key();
RESET ROLE;

SELECT pg_tde_delete_database_key_provider('dp');
SELECT pg_tde_delete_global_key_provider('gp2');

-- whoever may use tables may use encrypted ones
SELECT pg_tde_add_database_key_provider_file('dp', :'keyring');
SELECT pg_tde_set_key_using_database_key_provider('k', 'dp');
CREATE SCHEMA AUTHORIZATION regress_tde_user;
SET ROLE regress_tde_user;
CREATE TABLE regress_tde_user.t (a serial PRIMARY KEY, b text) USING tde_heap;
INSERT INTO regress_tde_user.t (b) VALUES ('x');
SELECT * FROM regress_tde_user.t;
SELECT pg_tde_is_encrypted('regress_tde_user.t');
RESET ROLE;
-- and the question is no secret
CREATE ROLE regress_tde_other;
SET ROLE regress_tde_other;
SELECT pg_tde_is_encrypted('regress_tde_user.t');
SELECT pg_tde_is_encrypted((SELECT oid FROM pg_class WHERE relname = 't'));
RESET ROLE;
DROP SCHEMA regress_tde_user CASCADE;
SELECT pg_tde_delete_key();
SELECT pg_tde_delete_database_key_provider('dp');
DROP OWNED BY regress_tde_user;
DROP ROLE regress_tde_user, regress_tde_other;
