# Copyright (c) 2026, the Coffer authors

# A dump restored keeps what is encrypted; restored without its access
# methods, it becomes what default_table_access_method says.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main');
$node->start;
tde_setup($node);

# The database's setting makes a whole schema encrypted without a word in it.
$node->safe_psql('postgres', 'CREATE DATABASE src');
tde_setup($node, 'src');
$node->safe_psql('postgres',
	'ALTER DATABASE src SET default_table_access_method = tde_heap');
$node->safe_psql('src', qq{
	CREATE SCHEMA app
		CREATE TABLE t (a serial PRIMARY KEY, b text UNIQUE, big text,
			i int GENERATED ALWAYS AS IDENTITY);
	ALTER TABLE app.t ALTER big SET STORAGE EXTERNAL;
	INSERT INTO app.t (b, big) SELECT '$canary' || g, repeat('$canary', 200)
		FROM generate_series(1, 100) g;
	CREATE MATERIALIZED VIEW app.mv AS SELECT b FROM app.t;
	CREATE INDEX ON app.mv (b);
	CREATE TABLE app.part (a serial, k int, b text) PARTITION BY LIST (k)
		USING tde_heap;
	CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES IN (1);
	CREATE TABLE app.part2 PARTITION OF app.part FOR VALUES IN (2) USING heap;
	INSERT INTO app.part (k, b) VALUES (1, '$canary'), (2, '$canary');
	CREATE UNLOGGED TABLE app.u (a serial, b text);
	INSERT INTO app.u (b) VALUES ('$canary');
	CREATE TABLE app.plain USING heap AS SELECT b FROM app.t;
	CREATE SEQUENCE app.alone});

sub tables
{
	my ($db) = @_;
	return $node->safe_psql($db, q{
		SELECT c.oid::regclass::text, pg_tde_is_encrypted(c.oid) FROM pg_class c
		WHERE relnamespace = 'app'::regnamespace
		  AND pg_tde_is_encrypted(c.oid) IS NOT NULL ORDER BY 1});
}
my $source = tables('src');
my $read = q{SELECT count(*), max(b), max(a), max(i), max(length(big)),
	(SELECT last_value FROM app.t_a_seq), (SELECT count(*) FROM app.mv),
	(SELECT count(*) FROM app.part) FROM app.t};
my $rows = $node->safe_psql('src', $read);
my %state = map { $_->{name} => $_->{is} } check_storage($node, 'src',
	'source', canary => $canary, control => [ 'app.plain', 'app.part2' ]);
is($state{$_}, 't', "$_ is encrypted")
  foreach qw(app.t app.t_pkey app.t_b_key app.t_a_seq app.t_i_seq app.mv
  app.mv_b_idx app.part1 app.part_a_seq app.u app.u_a_seq);

my $dir = PostgreSQL::Test::Utils::tempdir();
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", 'src' ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", 'src' ],
	'pg_dump as text');

# As it was, with a plain default
$node->safe_psql('postgres', 'CREATE DATABASE as_it_was');
$node->command_ok([ 'pg_restore', '-e', '-d', 'as_it_was', "$dir/dump" ],
	'pg_restore');
check_storage($node, 'as_it_was', 'pg_restore',
	canary => $canary, control => [ 'app.plain', 'app.part2' ]);
is($node->safe_psql('as_it_was', $read), $rows, 'rows');
is(tables('as_it_was'), $source, 'each as it was');

# The text form, several at a time
$node->safe_psql('postgres', 'CREATE DATABASE text');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f',
	"$dir/dump.sql", 'text' ], 'psql');
is(tables('text'), $source, 'each as it was, from text');
$node->safe_psql('postgres', 'CREATE DATABASE jobs');
$node->command_ok(
	[ 'pg_restore', '-e', '-j', '3', '-d', 'jobs', "$dir/dump" ],
	'pg_restore -j');
is(tables('jobs'), $source, 'each as it was, with jobs');

# Everything encrypted, though the dump has a plain table
$node->safe_psql('postgres',
	'CREATE DATABASE enc;
	 ALTER DATABASE enc SET default_table_access_method = tde_heap');
$node->safe_psql('enc', 'CREATE EXTENSION pg_tde');
$node->command_ok(
	[ 'pg_restore', '-e', '--no-table-access-method', '-d', 'enc', "$dir/dump" ],
	'pg_restore --no-table-access-method');
check_storage($node, 'enc', 'everything encrypted', canary => $canary);
is( tables('enc'),
	$source =~ s/\|f$/|t/mgr =~ s/^app\.alone\|t/app.alone|f/mr,
	'all but the sequence that nobody owns');

# Everything plain, in a database without the extension's default
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->safe_psql('plain', 'CREATE EXTENSION pg_tde');
$node->command_ok(
	[ 'pg_restore', '-e', '--no-table-access-method', '-d', 'plain', "$dir/dump" ],
	'pg_restore to plain');
is(tables('plain'), $source =~ s/\|t$/|f/mgr, 'all plain');
check_storage($node, 'plain', 'everything plain',
	canary => $canary, control => [ 'app.t', 'app.mv', 'app.part1', 'app.u' ]);

$node->stop;
done_testing();
