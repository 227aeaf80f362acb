# Copyright (c) 2026, the Coffer authors

# pg_tde.enforce_encryption where a regression test does not get: initdb,
# single-user mode, extensions, dumps, pg_upgrade, restarts.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../../../src/test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $refused = qr/cannot create table "\w+" with access method "heap"/;

# A cluster can be born with it
my $node = tde_node('main',
	extra => [ '--set' => 'pg_tde.enforce_encryption=on' ], force_initdb => 1);
$node->start;
tde_setup($node);
is($node->safe_psql('postgres', 'SHOW pg_tde.enforce_encryption'), 'on', 'set by initdb');
cmp_ok(
	$node->safe_psql('postgres', 'SELECT count(*) FROM information_schema.sql_features'),
	'>', 0, 'tables of initdb are there');
my ($ret, $stdout, $stderr) = $node->psql('postgres', 'CREATE TABLE t (a int)');
like($stderr, $refused, 'CREATE TABLE');

# Roles and databases
$node->safe_psql('postgres', q{
	CREATE ROLE u LOGIN; GRANT CREATE ON SCHEMA public TO u;
	CREATE DATABASE free; ALTER DATABASE free SET pg_tde.enforce_encryption = off;
	CREATE DATABASE src; ALTER DATABASE src SET pg_tde.enforce_encryption = off});
for my $sql (
	'SET pg_tde.enforce_encryption = off',
	q{SELECT set_config('pg_tde.enforce_encryption', 'off', false)},
	'ALTER ROLE u SET pg_tde.enforce_encryption = off',
	q{CREATE FUNCTION f() RETURNS void SET pg_tde.enforce_encryption = off
	  LANGUAGE SQL AS 'SELECT 1'})
{
	($ret, $stdout, $stderr) =
	  $node->psql('postgres', $sql, extra_params => [ '-U', 'u' ]);
	like(
		$stderr,
		qr/permission denied to set parameter "pg_tde.enforce_encryption"/,
		"a user may not: $sql");
}
($ret, $stdout, $stderr) = $node->psql('postgres', 'SELECT 1',
	connstr => $node->connstr('postgres')
	  . " user=u options='-c pg_tde.enforce_encryption=off'");
like(
	$stderr,
	qr/permission denied to set parameter "pg_tde.enforce_encryption"/,
	'... nor when he connects');
$node->safe_psql('free', 'CREATE TABLE t (a int)');

# Scripts of extensions are commands like others
my $dir = $node->basedir . '/extensions';
mkdir($dir);
mkdir("$dir/extension");
append_to_file("$dir/extension/ext.control",
	"default_version = '1'\nrelocatable = true\n");
append_to_file("$dir/extension/ext--1.sql", "CREATE TABLE ext_settings (a int);\n");
$node->append_conf('postgresql.conf',
	"extension_control_path = '$dir:\$system'\n");
$node->reload;
$node->poll_query_until('postgres',
	qq{SELECT current_setting('extension_control_path') LIKE '$dir%'});
($ret, $stdout, $stderr) = $node->psql('postgres', 'CREATE EXTENSION ext');
like($stderr, $refused, 'CREATE EXTENSION');
$node->safe_psql('postgres',
	'SET default_table_access_method = tde_heap; CREATE EXTENSION ext');
is($node->safe_psql('postgres', q{SELECT pg_tde_is_encrypted('ext_settings')}),
	't', 'with the default access method it is encrypted');

# Dumps: those of plain tables are refused as they are
tde_setup($node, 'src');
$node->safe_psql('src', q{
	CREATE TABLE plain (a serial PRIMARY KEY, b text);
	INSERT INTO plain (b) VALUES ('x');
	CREATE SEQUENCE s;
	CREATE TABLE enc (a int) USING tde_heap});
my $dump = $node->basedir . '/dump';
$node->command_ok(
	[ 'pg_dump', '--format' => 'custom', '--file' => $dump, $node->connstr('src') ],
	'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE dst1; CREATE DATABASE dst2');
$node->command_fails_like(
	[ 'pg_restore', '--exit-on-error', '--dbname' => $node->connstr('dst1'), $dump ],
	$refused,
	'pg_restore of a plain table is refused');
$node->safe_psql('dst2', 'CREATE EXTENSION pg_tde');
$node->command_ok(
	[
		'pg_restore', '--exit-on-error', '--no-table-access-method',
		'--dbname' => $node->connstr('dst2')
		  . " options='-c default_table_access_method=tde_heap'",
		$dump
	],
	'pg_restore --no-table-access-method is not');
is( $node->safe_psql('dst2', q{
		SELECT relname, pg_tde_is_encrypted(oid) FROM pg_class
		WHERE relname IN ('plain', 'plain_pkey', 'plain_a_seq', 's', 'enc') ORDER BY relname}),
	"enc|t\nplain|t\nplain_a_seq|t\nplain_pkey|t\ns|t",
	'all is encrypted');

# A copy of a database is what its template was
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE src');
is($node->safe_psql('copied', q{SELECT b, pg_tde_is_encrypted('plain') FROM plain}),
	'x|f', 'CREATE DATABASE copies what there is');

# After a crash, and in single-user mode
$node->stop('immediate');
$node->start;
($ret, $stdout, $stderr) = $node->psql('postgres', 'CREATE TABLE t (a int)');
like($stderr, $refused, 'after a restart');
$node->stop;

sub single
{
	my ($sql, @options) = @_;
	my ($out, $err);
	run_log(
		[ 'postgres', '--single', @options, '-D', $node->data_dir, 'postgres' ],
		'<' => \$sql, '>' => \$out, '2>' => \$err);
	return $err;
}
like(single("CREATE TABLE t (a int)\n"), $refused, 'single-user mode');
like(single("CREATE TABLE t (a int)\n", '-O'),
	$refused, 'single-user mode with -O');
unlike(single("CREATE TABLE single (a int) USING tde_heap\n"),
	qr/ERROR/, 'single-user mode, encrypted');
$node->start;
is($node->safe_psql('postgres', q{SELECT pg_tde_is_encrypted('single')}), 't', 'is encrypted');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 't'}),
	'0', 'no plain table');
$node->stop;

# pg_upgrade takes the tables as they are
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => [ '--set' => 'pg_tde.enforce_encryption=on' ], force_initdb => 1);
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_tde'\n");
my $bindir = $node->config_data('--bindir');
chdir(${PostgreSQL::Test::Utils::tmp_check});
$node->adjust_conf('postgresql.conf', 'extension_control_path', undef);
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'--old-datadir' => $node->data_dir, '--new-datadir' => $new->data_dir,
		'--old-bindir' => $bindir, '--new-bindir' => $bindir,
		'--socketdir' => $new->host,
		'--old-port' => $node->port, '--new-port' => $new->port
	],
	'pg_upgrade');
$new->start;
is( $new->safe_psql('src', q{
		SELECT relname, pg_tde_is_encrypted(oid) FROM pg_class
		WHERE relname IN ('plain', 'plain_pkey', 'plain_a_seq', 's', 'enc') ORDER BY relname}),
	"enc|t\nplain|f\nplain_a_seq|f\nplain_pkey|f\ns|f",
	'tables are what they were');
is($new->safe_psql('src', q{SELECT b, nextval('s') FROM plain}), 'x|1', 'and work');
is($new->safe_psql('dst2', q{SELECT b, nextval('s') FROM plain}), 'x|1',
	'encrypted ones too');
($ret, $stdout, $stderr) = $new->psql('postgres', 'CREATE TABLE t (a int)');
like($stderr, $refused, 'the new cluster enforces encryption');
$new->stop;

done_testing();
