# Copyright (c) 2026, the Coffer authors

# pg_dump of a database with encrypted tables restores as it was; and restores
# encrypted what was not.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../../../src/test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $node = tde_node('main');
$node->start;
tde_setup($node);

# The extension in a schema of its own
$node->safe_psql('postgres', 'CREATE DATABASE src');
$node->safe_psql(
	'src', q{
	CREATE ROLE operator;
	CREATE SCHEMA x;
	CREATE EXTENSION pg_tde SCHEMA x;
	GRANT USAGE ON SCHEMA x TO operator;
	GRANT EXECUTE ON FUNCTION x.pg_tde_verify_key() TO operator;
	REVOKE EXECUTE ON FUNCTION x.pg_tde_version() FROM PUBLIC;
	CREATE TABLE enc (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO enc (b) SELECT 'row ' || g FROM generate_series(1, 1000) g;
	CREATE TABLE plain (a serial PRIMARY KEY, b text);
	INSERT INTO plain (b) SELECT 'row ' || g FROM generate_series(1, 1000) g;
	CREATE MATERIALIZED VIEW m USING tde_heap AS SELECT * FROM enc;
});

my $query = q{
	SELECT relname, relkind, x.pg_tde_is_encrypted(oid) FROM pg_class
	 WHERE relnamespace = 'public'::regnamespace ORDER BY relname;
	SELECT evtname, evtevent, evtfoid::regproc FROM pg_event_trigger ORDER BY evtname;
	SELECT amname, amhandler::regproc FROM pg_am WHERE amname LIKE 'tde%';
	SELECT extversion, extnamespace::regnamespace FROM pg_extension WHERE extname = 'pg_tde';
	SELECT proname, proacl FROM pg_proc WHERE proname LIKE 'pg\_tde%' ORDER BY proname COLLATE "C";
	SELECT count(*), sum(a), max(b) FROM enc;
	SELECT count(*), sum(a), max(b) FROM plain;
	SELECT count(*), sum(a), max(b) FROM m;
};
my $expected = $node->safe_psql('src', $query);
like($expected, qr/^enc\|r\|t$/m, 'source is as meant');

my $plain = $node->basedir . '/src.sql';
my $custom = $node->basedir . '/src.dump';
command_ok(
	[ 'pg_dump', '--dbname' => $node->connstr('src'), '--file' => $plain ],
	'pg_dump');
command_ok(
	[
		'pg_dump', '--dbname' => $node->connstr('src'),
		'--format' => 'custom', '--file' => $custom
	],
	'pg_dump, custom format');
unlike(slurp_file($plain), qr/CREATE EVENT TRIGGER|CREATE ACCESS METHOD/,
	'members of the extension are not dumped');

$node->safe_psql('postgres', 'CREATE DATABASE dst1 TEMPLATE template0');
$node->command_ok(
	[
		'psql', '--no-psqlrc', '--set' => 'ON_ERROR_STOP=1', '--quiet',
		'--dbname' => $node->connstr('dst1'), '--file' => $plain
	],
	'restore by psql');
is($node->safe_psql('dst1', $query), $expected, 'all is as it was');

$node->safe_psql('postgres', 'CREATE DATABASE dst2 TEMPLATE template0');
$node->command_ok(
	[
		'pg_restore', '--exit-on-error', '--jobs' => 2,
		'--dbname' => $node->connstr('dst2'), $custom
	],
	'pg_restore');
is($node->safe_psql('dst2', $query), $expected, 'all is as it was');

# Everything encrypted: the dump's own access methods are left out
$node->safe_psql('postgres', 'CREATE DATABASE dst3 TEMPLATE template0');
$node->safe_psql('dst3', 'CREATE SCHEMA x; CREATE EXTENSION pg_tde SCHEMA x');
$node->safe_psql('postgres',
	'ALTER DATABASE dst3 SET default_table_access_method = tde_heap');
$node->command_ok(
	[
		'pg_restore', '--no-table-access-method', '--clean', '--if-exists',
		'--exclude-schema' => 'x',
		'--dbname' => $node->connstr('dst3'), $custom
	],
	'pg_restore with default_table_access_method = tde_heap');
is( $node->safe_psql(
		'dst3', q{
		SELECT DISTINCT x.pg_tde_is_encrypted(oid) FROM pg_class
		 WHERE relnamespace = 'public'::regnamespace}),
	't',
	'all tables, indexes and sequences are encrypted');
is($node->safe_psql('dst3', 'SELECT count(*) FROM plain'),
	'1000', 'rows are there');

# DROP EXTENSION
my ($ret, $stdout, $stderr) = $node->psql('dst1', 'DROP EXTENSION pg_tde');
like(
	$stderr,
	qr/cannot drop extension pg_tde because other objects depend on it/,
	'DROP EXTENSION is refused while there are encrypted tables');
like($stderr, qr/table enc depends on access method tde_heap/, 'and names them');
$node->safe_psql('dst1', 'DROP EXTENSION pg_tde CASCADE');
is( $node->safe_psql(
		'dst1', q{SELECT relname FROM pg_class
		 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'm')}),
	'plain',
	'CASCADE drops them');

$node->stop;

done_testing();
