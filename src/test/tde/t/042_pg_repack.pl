# Copyright (c) 2026, the Coffer authors

# pg_repack's way to rewrite a table in use, step by step as it does it, where
# the default access method is heap, or encrypts; and our WAL records as
# programs see them.
# tools/testbed runs pg_repack itself.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $start = sql('SELECT pg_current_wal_insert_lsn()');
sql(qq{
	CREATE TABLE secret (id int PRIMARY KEY, t text) USING tde_heap;
	INSERT INTO secret SELECT g, '$canary' || g FROM generate_series(1, 100) g;
	CREATE TABLE plain (id int PRIMARY KEY, t text);
	CREATE TABLE plain2 (id int PRIMARY KEY, t text);
	CREATE SCHEMA other});

# Whoever may create a schema can call it as pg_repack does: that gets him no
# plain table where the default encrypts, extension or not.
my $dir = $node->basedir . '/share';
mkdir "$_" or die "could not create \"$_\": $!" foreach $dir, "$dir/extension";
append_to_file("$dir/extension/pg_repack.control",
	"relocatable = false\ndefault_version = '1'\n");
append_to_file("$dir/extension/pg_repack--1.sql", 'CREATE SCHEMA repack');
$node->append_conf('postgresql.conf',
	"extension_control_path = '\$system:$dir'\n");
$node->reload;
sub is_plain_in_schema
{
	my ($expected, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $oid = sql(q{SELECT 'plain'::regclass::oid});
	is( sql(qq{
			SET default_table_access_method = tde_heap;
			CREATE TABLE repack.table_$oid AS SELECT * FROM plain;
			SELECT NOT pg_tde_is_encrypted('repack.table_$oid');
			DROP TABLE repack.table_$oid}),
		$expected, $label);
	return;
}
sql('CREATE SCHEMA repack');
is_plain_in_schema('f', 'no plain table in a schema of that name');
sql('ALTER SCHEMA repack RENAME TO imitation; CREATE EXTENSION pg_repack');
is_plain_in_schema('t', 'a plain one in the schema of the extension');
sql('ALTER EXTENSION pg_repack DROP SCHEMA repack');
is_plain_in_schema('f', 'none where the schema is not of the extension');
sql('ALTER EXTENSION pg_repack ADD SCHEMA repack');
my $end = sql('SELECT pg_current_wal_insert_lsn()');
my $secret = sql(q{SELECT 'secret'::regclass::oid});
my $plain = sql(q{SELECT 'plain'::regclass::oid});
my $plain2 = sql(q{SELECT 'plain2'::regclass::oid});

sql(qq{
	CREATE TABLE repack.log_$secret (id bigserial PRIMARY KEY, row secret);
	CREATE TABLE repack.table_$secret TABLESPACE pg_default
		AS SELECT * FROM ONLY secret WITH NO DATA;
	INSERT INTO repack.table_$secret SELECT * FROM ONLY secret;
	CREATE UNIQUE INDEX index_$secret ON repack.table_$secret (id);
	INSERT INTO repack.log_$secret (row) SELECT secret FROM secret;
	CREATE TABLE repack.table_$plain AS SELECT * FROM plain;
	CREATE TABLE repack.table_x AS SELECT * FROM plain;
	CREATE TABLE repack.table_${secret}_ AS SELECT 1 AS i;
	CREATE TABLE repack.table_9${secret}000000 AS SELECT 1 AS i;
	CREATE TABLE repack.table_4294967295 AS SELECT 1 AS i;
	CREATE TABLE other.table_$secret AS SELECT 1 AS i;
	CREATE TABLE table_$secret AS SELECT 1 AS i;
	SET default_table_access_method = tde_heap;
	CREATE TABLE repack.log_$plain2 (id bigserial PRIMARY KEY, row plain2);
	CREATE TABLE repack.table_$plain2 TABLESPACE pg_default
		AS SELECT * FROM ONLY plain2 WITH NO DATA;
	CREATE TABLE other.table_$plain2 AS SELECT 1 AS i;
	CHECKPOINT});

my %encrypted = map { split /\|/ } split /\n/, sql(
	q{SELECT oid::regclass || '|' || pg_tde_is_encrypted(oid) FROM pg_class
	  WHERE relkind IN ('r', 'i', 'S') AND oid > 16384});
is($encrypted{"other.table_$plain2"}, 'true', 'the default encrypts');
is($encrypted{"repack.$_"}, 'true', "$_ is encrypted")
  foreach "table_$secret", "index_$secret", "log_$secret",
  "log_${secret}_pkey", "log_${secret}_id_seq";
is($encrypted{$_}, 'false', "$_ is not")
  foreach "repack.table_$plain", "repack.table_$plain2", "repack.log_$plain2",
  "repack.log_${plain2}_pkey", 'repack.table_x', "repack.table_${secret}_",
  "repack.table_9${secret}000000", 'repack.table_4294967295',
  "other.table_$secret", "table_$secret";
is(sql("SELECT count(*) FROM repack.table_$secret"), '100', 'the copy reads');

is(join(' ', files_with($node->data_dir . '/base', $canary)),
	'', 'nothing of it is on disk in clear');

# Stock's programs read over a record with this ID (it is a custom one), ours
# say what it is.
my ($out) = run_command(
	[
		'pg_waldump', '--path' => $node->data_dir . '/pg_wal',
		'--start' => $start, '--end' => $end, '--rmgr' => 'custom222'
	]);
like($out, qr/^rmgr: TDE .* desc: \w+/m, 'pg_waldump describes our records');
is(sql(q{SELECT rm_name, rm_builtin FROM pg_get_wal_resource_managers()
		 WHERE rm_id = 222}),
	'TDE|f', 'the server knows our resource manager');

$node->stop;
done_testing();
