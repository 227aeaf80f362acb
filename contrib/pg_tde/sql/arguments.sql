--
-- Arguments that are wrong
--
\getenv abs_builddir PG_ABS_BUILDDIR
\set keyring :abs_builddir '/results/arguments.keyring'
\set options '{"path":"' :keyring '"}'

-- NULL
SELECT pg_tde_add_database_key_provider(NULL, 'p', '{}');
SELECT pg_tde_add_database_key_provider('file', NULL, '{}');
SELECT pg_tde_add_database_key_provider('file', 'p', NULL);
SELECT pg_tde_add_global_key_provider(NULL, 'p', '{}');
SELECT pg_tde_change_database_key_provider('file', NULL, '{}');
SELECT pg_tde_change_global_key_provider('file', 'p', NULL);
SELECT pg_tde_add_database_key_provider_file(NULL, :'keyring');
SELECT pg_tde_add_database_key_provider_file('p', NULL);
SELECT pg_tde_add_database_key_provider_vault_v2('v', NULL, 'm', '/t', NULL);
SELECT pg_tde_add_database_key_provider_vault_v2('v', 'https://v', NULL, '/t', NULL);
SELECT pg_tde_add_database_key_provider_vault_v2('v', 'https://v', 'm', NULL, NULL, NULL);
SELECT pg_tde_add_global_key_provider_vault_v2('v', 'https://v', 'm', 'token', NULL);
SELECT pg_tde_add_global_key_provider_vault_v2('v', 'http://v', 'm', '/t', '');
SELECT pg_tde_add_global_key_provider_vault_v2('v', 'https://v', 'm', '/t', '', 'two words');
SELECT pg_tde_add_global_key_provider('vault-v2', 'v', '{"url":"https://v","mountPath":"m","tokenPath":"/nonexistent/t","caPath":null}');
SELECT pg_tde_change_database_key_provider_vault_v2('nosuch', 'https://v', 'm', '/t', '');
SELECT pg_tde_change_global_key_provider_vault_v2(NULL, 'https://v', 'm', '/t', '', 'n');
SELECT pg_tde_add_database_key_provider_kmip('k', NULL, 5696, '/c', '/k', '/a');
SELECT pg_tde_add_database_key_provider_kmip('k', 'h', NULL, '/c', '/k', '/a');
SELECT pg_tde_add_database_key_provider_kmip('k', 'h', 0, '/c', '/k', '/a');
SELECT pg_tde_add_database_key_provider_kmip('k', 'h', 5696, NULL, '/k', '/a');
SELECT pg_tde_add_database_key_provider_kmip('k', 'h', 5696, '/c', '', '/a');
SELECT pg_tde_add_global_key_provider_kmip('k', 'h,,i', 5696, '/c', '/k', '/a');
SELECT pg_tde_add_global_key_provider_kmip('k', 'h:99999', 5696, '/c', '/k', NULL);
SELECT pg_tde_add_global_key_provider_kmip('k', 'h', 5696, '/nosuch/c', '/k', NULL);
SELECT pg_tde_add_global_key_provider('kmip', 'k', '{"host":"h","port":5696,"certPath":"/c","keyPath":"/k","caPath":"/a","tls":1}');
SELECT pg_tde_add_global_key_provider('kmip', 'k', '{"host":"h","port":5696,"certPath":"/c","keyPath":"/k","kmipVersion":"1.5"}');
SELECT pg_tde_change_database_key_provider_kmip('nosuch', 'h', 5696, '/c', '/k', '/a');
SELECT pg_tde_delete_database_key_provider(NULL);
SELECT pg_tde_delete_global_key_provider(NULL);
SELECT pg_tde_create_key_using_database_key_provider(NULL, 'p');
SELECT pg_tde_create_key_using_global_key_provider('k', NULL);
SELECT pg_tde_set_key_using_database_key_provider(NULL, 'p');
SELECT pg_tde_set_key_using_global_key_provider('k', NULL);
SELECT pg_tde_set_server_key_using_global_key_provider(NULL, NULL);
SELECT pg_tde_set_default_key_using_global_key_provider(NULL, 'p');
SELECT pg_tde_is_encrypted(NULL);

-- empty
SELECT pg_tde_add_database_key_provider('', 'p', :'options');
SELECT pg_tde_add_database_key_provider('file', '', :'options');
SELECT pg_tde_add_database_key_provider_file('p', '');
SELECT pg_tde_delete_global_key_provider('');
SELECT pg_tde_create_key_using_database_key_provider('', 'p');
SELECT pg_tde_set_key_using_database_key_provider('k', '');

-- limits are in bytes: 126 for a provider's name, ...
SELECT convert_from('\xc3a9', getdatabaseencoding()) AS two \gset
SELECT pg_tde_add_database_key_provider('file', repeat('x', 126), :'options');
SELECT pg_tde_add_database_key_provider('file', repeat('x', 127), :'options');
SELECT pg_tde_add_database_key_provider('file', repeat(:'two', 63), :'options');
SELECT pg_tde_add_database_key_provider('file', repeat(:'two', 64), :'options');
SELECT pg_tde_delete_database_key_provider(repeat('x', 127));
SELECT id, octet_length(name) FROM pg_tde_list_all_database_key_providers();

-- ... 1,023 for its options, ...
SELECT pg_tde_add_database_key_provider('file', 'long',
         (rpad(left(:'options', -1), 1022) || '}')::json);
SELECT pg_tde_add_database_key_provider('file', 'longer',
         (rpad(left(:'options', -1), 1023) || '}')::json);
SELECT octet_length(options::text) FROM pg_tde_list_all_database_key_providers()
  WHERE name = 'long';

-- ... 255 for a key's name
SELECT pg_tde_create_key_using_database_key_provider(repeat('k', 255), 'long');
SELECT pg_tde_create_key_using_database_key_provider(repeat('k', 256), 'long');
SELECT pg_tde_set_key_using_database_key_provider(repeat('k', 256), 'long');

-- type and options
SELECT pg_tde_add_database_key_provider('paper', 'p', :'options');
SELECT pg_tde_add_database_key_provider(repeat('file', 10), 'p', :'options');
SELECT pg_tde_add_database_key_provider('file', 'p', '{"path":');
SELECT pg_tde_add_database_key_provider('file', 'p', '[]');
SELECT pg_tde_add_database_key_provider('file', 'p', '"/tmp/x"');
SELECT pg_tde_add_database_key_provider('file', 'p', '1');
SELECT pg_tde_add_database_key_provider('file', 'p', 'null');
SELECT pg_tde_add_database_key_provider('file', 'p', '{}');
SELECT pg_tde_add_database_key_provider('file', 'p', '{"path": 17}');
SELECT pg_tde_add_database_key_provider('file', 'p', '{"path": {"a": "b"}}');
SELECT pg_tde_add_database_key_provider('file', 'p', '{"way": "/tmp/x"}');
SELECT pg_tde_add_database_key_provider('file', 'p', '{"path": "/tmp/x", "path": "/tmp/y"}');

-- relations without storage, and none at all
CREATE VIEW a_view AS SELECT 1 AS one;
SELECT pg_tde_is_encrypted('a_view');
DROP VIEW a_view;
SELECT pg_tde_is_encrypted(0::oid);
SELECT pg_tde_is_encrypted('nosuch');

SELECT pg_tde_delete_database_key_provider(name)
  FROM pg_tde_list_all_database_key_providers();
SELECT count(*) FROM pg_tde_list_all_database_key_providers();
