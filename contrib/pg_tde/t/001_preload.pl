# Copyright (c) 2026, the Coffer authors

# The library must be preloaded to begin with encryption, and need not be to
# read what is encrypted already.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../../../src/test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;

# Not preloaded: no extension
my ($ret, $stdout, $stderr) = $node->psql('postgres', 'CREATE EXTENSION pg_tde');
isnt($ret, 0, 'CREATE EXTENSION fails where the library is not preloaded');
like(
	$stderr,
	qr/FATAL:  pg_tde must be loaded via "shared_preload_libraries"/,
	'error says what is missing');
like(
	$stderr,
	qr/HINT:  Add pg_tde to "shared_preload_libraries" and restart the server\./,
	'hint says what to do');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM pg_proc WHERE proname LIKE 'pg\_tde%'}),
	'0',
	'nothing is left behind');

# ... not by loading it in the session either
($ret, $stdout, $stderr) =
  $node->psql('postgres', q{LOAD 'pg_tde'; CREATE EXTENSION pg_tde});
like($stderr, qr/must be loaded via/, 'LOAD does not help');

# Preloaded, beside other libraries
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_stat_statements, pg_tde'\n");
$node->restart;
tde_setup($node);
$node->safe_psql(
	'postgres', q{
	CREATE TABLE t (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO t (b) SELECT 'row ' || g FROM generate_series(1, 1000) g;
});
my $rows = $node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM t');

# Not preloaded any more: what there is works, recovery included
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM t'),
	$rows, 'encrypted table is read without the library being preloaded');
is($node->safe_psql('postgres', q{SELECT pg_tde_is_encrypted('t')}),
	't', '... and is encrypted');
$node->safe_psql('postgres', q{INSERT INTO t (b) VALUES ('one more')});
is( $node->safe_psql('postgres', 'SELECT key_name FROM pg_tde_default_key_info()'),
	'default',
	'key is still known');
$node->safe_psql('postgres', 'SELECT pg_tde_verify_default_key()');

# ... but there is no way to begin
for my $call (
	q{pg_tde_set_default_key_using_global_key_provider('default', 'ring')},
	q{pg_tde_set_key_using_global_key_provider('default', 'ring')},
	q{pg_tde_set_server_key_using_global_key_provider('default', 'ring')})
{
	($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT $call");
	like($stderr, qr/ERROR: .*preload/, "$call demands the library");
	like(
		$stderr,
		qr/HINT: .*"shared_preload_libraries" and restart/,
		'... and says what to do');
}
$node->safe_psql('postgres', 'CREATE DATABASE other');
($ret, $stdout, $stderr) = $node->psql('other', 'CREATE EXTENSION pg_tde');
like($stderr, qr/must be loaded via/, 'no extension in another database');

# Back again
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_tde'\n");
$node->restart;
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	'1001', 'all rows are there');
$node->safe_psql('other', 'CREATE EXTENSION pg_tde');

$node->stop;

done_testing();
