# Copyright (c) 2026, the Coffer authors

# Several databases: each has its own providers and key, or follows the
# default key; deleting keys falls back by the rules.

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
my $ring1 = $node->basedir . '/ring1';
my $ring2 = $node->basedir . '/ring2';
my $ring3 = $node->basedir . '/ring3';

sub fails_like
{
	my ($db, $sql, $regex, $name) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($db, $sql);
	like($stderr, $regex, $name);
	return;
}

sub rows
{
	my ($db) = @_;
	return $node->safe_psql($db, 'SELECT count(*), sum(a) FROM t');
}

for my $db ('one', 'two', 'three')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION pg_tde');
}

# Providers of the same name in two databases are two providers
$node->safe_psql('one', "SELECT pg_tde_add_database_key_provider_file('p', '$ring1')");
$node->safe_psql('two', "SELECT pg_tde_add_database_key_provider_file('p', '$ring2')");
for my $db ('one', 'two')
{
	is( $node->safe_psql(
			$db,
			'SELECT id, name FROM pg_tde_list_all_database_key_providers()'),
		'1|p',
		"ids of database $db begin with 1");
	$node->safe_psql(
		$db, q{
		SELECT pg_tde_create_key_using_database_key_provider('k', 'p');
		SELECT pg_tde_set_key_using_database_key_provider('k', 'p');
		CREATE TABLE t (a int, b text) USING tde_heap;
		INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g;
	});
}
is( $node->safe_psql('three', 'SELECT count(*) FROM pg_tde_list_all_database_key_providers()'),
	'0', 'a third database does not see them');
fails_like('three', q{SELECT pg_tde_set_key_using_database_key_provider('k', 'p')},
	qr/key provider "p" does not exist/, '... and cannot use them');
fails_like('three', 'CREATE TABLE t (a int) USING tde_heap',
	qr/principal key is not set/, 'no encrypted table without a key');

isnt(slurp_bytes($ring1), slurp_bytes($ring2), 'the two keys are not the same');

# One global provider and default key for those without their own
$node->safe_psql(
	'three', qq{
	SELECT pg_tde_add_global_key_provider_file('g', '$ring3');
	SELECT pg_tde_create_key_using_global_key_provider('d1', 'g');
	SELECT pg_tde_create_key_using_global_key_provider('d2', 'g');
	SELECT pg_tde_set_default_key_using_global_key_provider('d1', 'g');
	CREATE TABLE t (a int, b text) USING tde_heap;
	INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g;
});
my $expected = rows('three');
is( $node->safe_psql('three', 'SELECT key_name, provider_name, provider_id FROM pg_tde_key_info()'),
	'd1|g|-1', 'database three uses the default key');
is($node->safe_psql('one', 'SELECT key_name, provider_id FROM pg_tde_key_info()'),
	'k|1', 'database one its own');

# The default key cannot go while a database needs it
fails_like('three', 'SELECT pg_tde_delete_default_key()',
	qr/cannot delete the default principal key/, 'default key is in use');
fails_like('one', q{SELECT pg_tde_delete_global_key_provider('g')},
	qr/cannot delete key provider "g"/, 'so is its provider');

# Rotation of the default key, from any database
$node->safe_psql('one', q{SELECT pg_tde_set_default_key_using_global_key_provider('d2', 'g')});
is($node->safe_psql('three', 'SELECT key_name FROM pg_tde_key_info()'),
	'd2', 'rotation of the default key reaches database three');
is($node->safe_psql('one', 'SELECT key_name FROM pg_tde_key_info()'),
	'k', '... and not database one');
is(rows('three'), $expected, 'rows are there');

# Falling back to it
$node->safe_psql('one', 'SELECT pg_tde_delete_key()');
is($node->safe_psql('one', 'SELECT key_name, provider_id FROM pg_tde_key_info()'),
	'd2|-1', 'database one falls back to the default key');
is(rows('one'), $expected, 'rows are there');
$node->safe_psql('one', q{SELECT pg_tde_delete_database_key_provider('p')});

# Restart, after a crash: everything comes from its provider again
$node->stop('immediate');
$node->start;
is(rows($_), $expected, "rows of database $_ after a crash") for ('one', 'two', 'three');
$node->safe_psql($_, 'SELECT pg_tde_verify_key()') for ('one', 'two', 'three');

# All go, and the default key may go
$node->safe_psql('two', q{SELECT pg_tde_verify_key()});
$node->safe_psql('one', 'DROP TABLE t');
$node->safe_psql('postgres', 'DROP DATABASE three');
$node->safe_psql('one', 'SELECT pg_tde_delete_default_key()');
is($node->safe_psql('one', 'SELECT key_name FROM pg_tde_key_info()'),
	'', 'database one has no key any more');
fails_like('two', 'SELECT pg_tde_delete_key()',
	qr/cannot delete the principal key of the database/,
	'with encrypted relations and no default key, a key stays');
is(rows('two'), $expected, 'rows are there');

# A key that was deleted, and its provider too, are missed by nobody: neither
# at the next start nor by the next key.  (Database two keeps its own.)
$node->safe_psql(
	'one', qq{
	SELECT pg_tde_add_database_key_provider_file('brief', '$ring1.brief');
	SELECT pg_tde_create_key_using_database_key_provider('b', 'brief');
	SELECT pg_tde_set_key_using_database_key_provider('b', 'brief');
	CREATE TABLE t (a int, b text) USING tde_heap;
	DROP TABLE t;
	SELECT pg_tde_delete_key();
	SELECT pg_tde_delete_database_key_provider('brief');
});
$node->stop;
unlink("$ring1.brief") or die "could not remove keyring: $!";
my $offset = -s $node->logfile;
$node->start;
unlike(slurp_file($node->logfile, $offset), qr/WARNING|brief/,
	'server starts without the keyring of a deleted key');
$node->safe_psql(
	'one', qq{
	SELECT pg_tde_add_database_key_provider_file('p', '$ring1');
	SELECT pg_tde_set_key_using_database_key_provider('k', 'p');
	CREATE TABLE t (a int, b text) USING tde_heap;
	INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g;
});
$node->stop('immediate');
$node->start;
is(rows('one'), $expected, 'rows under the next key');

# A database made from one with keys
for my $strategy ('wal_log', 'file_copy')
{
	$node->safe_psql('postgres',
		"CREATE DATABASE copy_$strategy TEMPLATE two STRATEGY $strategy");
	is(rows("copy_$strategy"), $expected, "rows of a copy with $strategy");
	is( $node->safe_psql("copy_$strategy", q{SELECT pg_tde_is_encrypted('t')}),
		't', '... which is encrypted');
	$node->safe_psql("copy_$strategy", 'SELECT pg_tde_verify_key()');

	# apart from then on
	$node->safe_psql(
		"copy_$strategy", qq{
		SELECT pg_tde_add_database_key_provider_file('q', '$ring1');
		SELECT pg_tde_create_key_using_database_key_provider('k_$strategy', 'q');
		SELECT pg_tde_set_key_using_database_key_provider('k_$strategy', 'q');
		INSERT INTO t VALUES (1, 'x');
	});
	is($node->safe_psql('two', 'SELECT key_name FROM pg_tde_key_info()'),
		'k', 'the key of the original does not change with that of the copy');
	is( $node->safe_psql('two', 'SELECT count(*) FROM pg_tde_list_all_database_key_providers()'),
		'1', '... nor do its providers');
}
is(rows('two'), $expected, 'rows are there');
$node->safe_psql('postgres', 'DROP DATABASE two');
$node->restart;
is($node->safe_psql("copy_$_", 'SELECT count(*) FROM t'),
	'1001', "copy with $_ outlives the original")
  for ('wal_log', 'file_copy');

$node->stop;

done_testing();
