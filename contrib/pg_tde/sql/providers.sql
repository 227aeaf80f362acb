--
-- Key providers
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/providers.keyring'
\set keyring2 :abs_builddir '/results/providers2.keyring'

-- paths differ from one machine to the next
CREATE FUNCTION show_options(json) RETURNS text LANGUAGE SQL
  RETURN regexp_replace($1::text, '"/[^"]*/', '"DIR/', 'g');

SELECT * FROM pg_tde_list_all_database_key_providers();
SELECT * FROM pg_tde_list_all_global_key_providers();

-- database providers have positive ids, global ones negative ones
SELECT pg_tde_add_database_key_provider_file('dp1', :'keyring');
SELECT pg_tde_add_database_key_provider('file', 'dp2',
         json_build_object('path', :'keyring2'));
SELECT pg_tde_add_global_key_provider_file('gp1', :'keyring');
SELECT pg_tde_add_global_key_provider('file', 'gp2',
         ('{"path":    "' || :'keyring2' || '"}')::json);
-- the two lists are apart: the same name may stand in both
SELECT pg_tde_add_global_key_provider_file('dp1', :'keyring');

SELECT id, name, type, show_options(options)
  FROM pg_tde_list_all_database_key_providers() ORDER BY id;
SELECT id, name, type, show_options(options)
  FROM pg_tde_list_all_global_key_providers() ORDER BY id DESC;

-- once a name is taken it is taken
SELECT pg_tde_add_database_key_provider_file('dp1', :'keyring2');
SELECT pg_tde_add_global_key_provider_file('gp1', :'keyring2');

-- change
SELECT pg_tde_change_database_key_provider_file('dp1', :'keyring2');
SELECT pg_tde_change_global_key_provider('file', 'gp1',
         json_build_object('path', :'keyring2'));
SELECT pg_tde_change_database_key_provider_file('nosuch', :'keyring2');
SELECT pg_tde_change_global_key_provider_file('nosuch', :'keyring2');
SELECT id, name, type, show_options(options)
  FROM pg_tde_list_all_database_key_providers() ORDER BY id;
SELECT id, name, type, show_options(options)
  FROM pg_tde_list_all_global_key_providers() ORDER BY id DESC;

-- delete; an id is not used again
SELECT pg_tde_delete_database_key_provider('dp2');
SELECT pg_tde_delete_database_key_provider('dp2');
SELECT pg_tde_delete_global_key_provider('dp1');
SELECT pg_tde_delete_global_key_provider('dp2');
SELECT pg_tde_add_database_key_provider_file('dp3', :'keyring');
SELECT id, name FROM pg_tde_list_all_database_key_providers() ORDER BY id;
SELECT id, name FROM pg_tde_list_all_global_key_providers() ORDER BY id DESC;

-- what these functions do does not end with the transaction
BEGIN;
SELECT pg_tde_add_database_key_provider_file('dp4', :'keyring');
ROLLBACK;
SELECT id, name FROM pg_tde_list_all_database_key_providers() ORDER BY id;

-- it is not there twice, the extension may go and come
DROP EXTENSION pg_tde;
CREATE EXTENSION pg_tde;
SELECT id, name FROM pg_tde_list_all_database_key_providers() ORDER BY id;

SELECT pg_tde_delete_database_key_provider(name)
  FROM pg_tde_list_all_database_key_providers();
SELECT pg_tde_delete_global_key_provider(name)
  FROM pg_tde_list_all_global_key_providers();
SELECT * FROM pg_tde_list_all_database_key_providers();
SELECT * FROM pg_tde_list_all_global_key_providers();
DROP FUNCTION show_options;
