# Copyright (c) 2026, the Coffer authors

# What somebody meets who comes from pg_tde 2: dumps, the procedure for backups,
# versions of the extension, options of providers, a data directory of its.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "autovacuum = off\n");
$node->start;
my $dir = $node->basedir;

# ---- versions ----

foreach my $version ('1.0', '2.0', '2.1')
{
	is( $node->safe_psql(
			'postgres', qq{
			CREATE EXTENSION pg_tde VERSION '$version';
			ALTER EXTENSION pg_tde UPDATE TO '2.2';
			SELECT extversion, pg_tde_version() ~ '^pg_tde 2\\.2,' FROM pg_extension
			 WHERE extname = 'pg_tde'}),
		'2.2|t',
		"version $version is there, and updated to 2.2");
	$node->safe_psql('postgres', 'DROP EXTENSION pg_tde');
}
$node->safe_psql('postgres', 'CREATE EXTENSION pg_tde');
is( $node->safe_psql(
		'postgres', q{
		SELECT default_version, installed_version FROM pg_available_extensions
		 WHERE name = 'pg_tde'}),
	'2.2|2.2',
	'default version');

# ---- providers ----

# A file that somebody touched is a keyring without keys from then on.
my $touched = "$dir/touched";
append_to_file($touched, '');
chmod 0600, $touched or die;
$node->safe_psql('postgres',
	qq{SELECT pg_tde_add_global_key_provider_file('ring', '$touched')});
like(slurp_file($touched), qr/\Acoffer keyring 1\nend [0-9a-f]{64}\n\z/,
	'an empty file is made a keyring when its provider is added');
$node->safe_psql(
	'postgres', q{
	SELECT pg_tde_create_key_using_global_key_provider('default', 'ring');
	SELECT pg_tde_set_default_key_using_global_key_provider('default', 'ring');
});

# But one whose content is gone is not taken for a fresh one.
my $content = slurp_file($touched);
truncate($touched, 0) or die;
my ($ret, $stdout, $stderr) = $node->psql('postgres',
	q{SELECT pg_tde_create_key_using_global_key_provider('other', 'ring')});
like($stderr, qr/is not a valid keyring file: file is truncated/,
	'no key is made in a keyring that has become empty');
($ret, $stdout, $stderr) = $node->psql('postgres',
	qq{SELECT pg_tde_change_global_key_provider_file('ring', '$touched')});
like($stderr, qr/is not a valid keyring file: file is truncated/,
	'nor is a provider changed to it');
is(-s $touched, 0, '... and it stays empty');
append_to_file($touched, $content);
$node->safe_psql('postgres', 'SELECT pg_tde_verify_default_key()');

($ret, $stdout, $stderr) = $node->psql(
	'postgres', q{
	SELECT pg_tde_add_database_key_provider('vault-v2', 'v', '{"url": "http://127.0.0.1:1",
		"mountPath": "secret", "tokenPath": "/nonexistent", "caPath": null, "namespace": null}')});
like($stderr, qr/could not open token file/, 'an option that is null is not there');
($ret, $stdout, $stderr) = $node->psql('postgres',
	q{SELECT pg_tde_add_database_key_provider('file', 'n', '{"path": null}')});
like($stderr, qr/option "path" of key provider "n" is missing/,
	'a required option that is null is missing');

# ---- the cipher's name ----

is($node->safe_psql('postgres', "SET pg_tde.cipher = '$_'; SHOW pg_tde.cipher"),
	$_, "pg_tde.cipher $_")
  foreach ('aes_128', 'aes_256', 'aes_256_xts');

# ---- a dump ----

# As pg_dumpall writes it there.
my $user = $node->safe_psql('postgres', 'SELECT current_user');
my $dump = "$dir/all.sql";
append_to_file($dump, <<"EOT");
--
-- PostgreSQL database cluster dump
--

\\restrict pKJ7ebdCnDJhqsLDo1G2SKAu8NFYyxjOTsLbWLhkYyDgHAmsnmFk3xYo7xvc5cr

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE ROLE keeper;
ALTER ROLE keeper WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE $user;
ALTER ROLE $user WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

\\unrestrict pKJ7ebdCnDJhqsLDo1G2SKAu8NFYyxjOTsLbWLhkYyDgHAmsnmFk3xYo7xvc5cr

\\connect template1

CREATE EXTENSION IF NOT EXISTS pg_tde WITH SCHEMA public;
COMMENT ON EXTENSION pg_tde IS 'pg_tde access method';

CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';
ALTER DATABASE shop OWNER TO $user;

\\connect shop

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;

ALTER DATABASE shop SET default_table_access_method TO 'tde_heap';
ALTER DATABASE shop SET "pg_tde.cipher" TO 'aes_256';
ALTER DATABASE shop SET "pg_tde.enforce_encryption" TO 'on';
ALTER DATABASE shop SET "pg_tde.inherit_global_providers" TO 'on';

\\connect shop

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);

CREATE EXTENSION IF NOT EXISTS pg_tde WITH SCHEMA public;
COMMENT ON EXTENSION pg_tde IS 'pg_tde access method';

SET default_tablespace = '';
SET default_table_access_method = tde_heap;

CREATE TABLE public.orders (
    id integer NOT NULL,
    what text
);
ALTER TABLE public.orders OWNER TO $user;

CREATE SEQUENCE public.orders_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.orders_id_seq OWNED BY public.orders.id;
ALTER TABLE ONLY public.orders ALTER COLUMN id SET DEFAULT nextval('public.orders_id_seq'::regclass);

COPY public.orders (id, what) FROM stdin;
1	first
2	second
\\.

SELECT pg_catalog.setval('public.orders_id_seq', 2, true);
ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

GRANT ALL ON FUNCTION public.pg_tde_set_key_using_database_key_provider(key_name text, provider_name text) TO keeper;
GRANT ALL ON FUNCTION public.pg_tde_key_info(OUT key_name text, OUT provider_name text, OUT provider_id integer, OUT key_creation_time timestamp with time zone) TO keeper;
EOT

# The manual's command line.
$node->command_ok(
	[
		'sh', '-c',
		q{cat "$1" | sed "/^CREATE ROLE $2;/d" | psql -X -v ON_ERROR_STOP=1 -d "$3"},
		'sh', $dump, $user, $node->connstr('postgres')
	],
	'a dump of a server with pg_tde 2 is restored');
is( $node->safe_psql(
		'shop', q{
		SELECT relname, pg_tde_is_encrypted(oid) FROM pg_class
		 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i', 'S')
		 ORDER BY relname;
		SELECT sum(id), max(what) FROM orders;
		SHOW pg_tde.cipher;
		SELECT has_function_privilege('keeper', 'pg_tde_key_info()', 'execute')}),
	"orders|t\norders_id_seq|t\norders_pkey|t\n3|second\naes_256\nt",
	'... encrypted, with its settings and grants');

# Where the library is not preloaded the restore stops before it fills plain
# tables.
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
my ($out, $err);
$ret = IPC::Run::run(
	[ 'psql', '-X', '-d', $plain->connstr('postgres'), '-f', $dump ],
	'>' => \$out, '2>' => \$err);
ok(!$ret, 'without the library the restore fails, without ON_ERROR_STOP too');
like($err, qr/FATAL:  pg_tde must be loaded via "shared_preload_libraries"/,
	'... and says what is missing');
is($plain->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'shop'}),
	'0', '... before there is a table in clear');
$plain->stop;

# ---- a backup as its manual has it ----

sub put_copy
{
	my ($target) = @_;
	mkdir $target, 0700 or die;
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/pg_tde',
		"$target/pg_tde");
	append_to_file("$target/pg_tde/stale", 'x');
	return;
}
my @backup = ('--no-sync', '-c', 'fast', '-d', $node->connstr('postgres'));

put_copy("$dir/refused");
$node->command_fails_like([ 'pg_tde_basebackup', @backup, '-E', '-D', "$dir/refused" ],
	qr/error: the server does not encrypt WAL.*hint: Set "pg_tde.wal_encrypt" to on/s,
	'-E is refused where it would not be true');
ok(-e "$dir/refused/pg_tde/stale", '... and the target is as it was');

$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
put_copy("$dir/target");
$node->command_fails_like([ 'pg_basebackup', @backup, '-D', "$dir/target" ],
	qr/exists but is not empty/, 'pg_basebackup leaves such a target alone');
ok(-e "$dir/target/pg_tde/stale", '... as it was');
$node->command_ok([ 'pg_tde_basebackup', @backup, '-X', 'stream', '-E', '-D', "$dir/target" ],
	'pg_tde_basebackup into a target with a copy of the key store');
ok(!-e "$dir/target/pg_tde/stale", '... which is replaced');
$node->command_ok([ 'pg_verifybackup', '-n', "$dir/target" ], '... and is verified');

put_copy("$dir/more");
append_to_file("$dir/more/other", 'x');
$node->command_fails_like([ 'pg_tde_basebackup', @backup, '-E', '-D', "$dir/more" ],
	qr/exists but is not empty/, 'a target with something else is refused');
ok(-e "$dir/more/pg_tde/stale", '... as it was');

my $restored = PostgreSQL::Test::Cluster->new('restored');
PostgreSQL::Test::RecursiveCopy::copypath("$dir/target", $restored->data_dir);
chmod 0700, $restored->data_dir or die;
$restored->append_conf('postgresql.conf',
	'port = ' . $restored->port . "\nunix_socket_directories = '" . $restored->host . "'\n");
$restored->start;
is($restored->safe_psql('shop', 'SELECT sum(id) FROM orders'), '3', 'the backup starts');
$restored->stop;

# ---- its data directory ----

foreach my $file ('1664_providers', '16384_keys', 'wal_keys')
{
	my $path = $restored->data_dir . "/pg_tde/$file";
	append_to_file($path, 'x');
	my $start = -s $restored->logfile;
	is($restored->start(fail_ok => 1), 0, "no start with a file $file");
	like(
		slurp_file($restored->logfile, $start),
		qr/FATAL:  the data directory was encrypted by Percona's pg_tde\n.*DETAIL:  File "pg_tde\/$file"/,
		'... and the log says what it is');
	command_fails_like([ 'pg_tde_check_keys', '-D', $restored->data_dir ],
		qr/was encrypted by Percona's pg_tde/, '... pg_tde_check_keys, too');
	unlink $path or die;
}
$restored->start;
$restored->stop;

$node->stop;

done_testing();
