# Copyright (c) 2026, the Coffer authors

# Where a server has its keys: no copy is left where a core dump would show it,
# even if a change of principal keys goes wrong half-way; and a principal key
# that is not in use any more is not kept, on a standby neither.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $node = life_node('main', allows_streaming => 1);
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION test_tde_core; CREATE EXTENSION injection_points');
if (sql('SELECT bool_or(exposed IS NULL) FROM resident_keys(false)') eq 't')
{
	$node->stop;
	plan skip_all => 'not known how to look for keys in memory here';
}

$node->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'start', has_streaming => 1);
$standby->start;

# The principal keys that both nodes have in memory
sub principals_are
{
	my ($expected, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_replayed($node, $standby);
	is( $_->safe_psql(
			'postgres',
			q{SELECT string_agg(name, ' ' ORDER BY name) FROM resident_keys(false)
			  WHERE kind = 'principal key'}),
		$expected,
		"$label: principal keys in memory of the " . $_->name)
	  foreach $node, $standby;
	return;
}
principals_are('default', 'at first');

# Databases that follow the default key, one with a key of its own, and some
# generations
sql('CREATE DATABASE own');
tde_setup($node, 'own');
$node->safe_psql('own', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('k0', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('k0', 'own')});
sql('CREATE TABLE t USING tde_heap AS SELECT 1 AS g');
$node->safe_psql('own', 'CREATE EXTENSION test_tde_core');
foreach my $n (1 .. 20)
{
	sql("SELECT pg_tde_create_key_using_global_key_provider('k$n', 'ring')");
	sql("SELECT pg_tde_set_default_key_using_global_key_provider('k$n', 'ring')");
	$node->safe_psql('own', qq{
		SELECT pg_tde_create_key_using_database_key_provider('own$n', 'own');
		SELECT pg_tde_set_key_using_database_key_provider('own$n', 'own')});
}

# One that stays in memory, whatever becomes of the statements below
sql(q{
	SELECT pg_tde_create_key_using_global_key_provider('next', 'ring');
	SELECT pg_tde_set_server_key_using_global_key_provider('next', 'ring')});

# What a session that has executed these would leave in a core dump
sub exposed
{
	my ($db, $control, $statements, $error) = @_;
	my $session = $node->background_psql($db, on_error_stop => 0);
	my $out = $session->query($statements);
	my $stderr = $session->{stderr};
	$session->{stderr} = '';
	like($stderr, $error, "$statements: ends as meant");
	my $keys = $session->query(
		"SELECT kind, name FROM resident_keys($control) WHERE exposed");
	$session->quit;
	return $keys;
}

principals_are('k20 next own20', 'after rotations');
is(sql(q{SELECT count(*) > 60 FROM resident_keys(false) WHERE kind = 'scope key'}),
	't', 'there are scope keys to look for');
like(exposed('postgres', 'true', 'SELECT 1', qr/^$/),
	qr/^scope key\|[0-9a-f]{32}$/, 'a copy is found');

my %statements = (
	'postgres' =>
	  q{SELECT pg_tde_set_default_key_using_global_key_provider('next', 'ring')},
	'own' =>
	  q{SELECT pg_tde_set_key_using_global_key_provider('next', 'ring')});
foreach my $db (sort keys %statements)
{
	sql(q{SELECT count_keys_at('tde-scopes-written')});
	is( exposed($db, 'false', $statements{$db},
			qr/^psql:[^\n]*WARNING:  tde-scopes-written: 0 keys exposed(\npsql:[^\n]*NOTICE:  moved from .*)?$/s),
		'',
		"$db: nothing after a change");
	detach($node, 'tde-scopes-written');
	attach($node, 'tde-scopes-written', 'error');
	is( exposed($db, 'false', $statements{$db},
			qr/error triggered for injection point tde-scopes-written/),
		'',
		"$db: nothing after a failed change");
	is( exposed($db, 'false', "BEGIN; $statements{$db}",
			qr/error triggered for injection point tde-scopes-written/),
		'',
		"$db: nor in the transaction that has failed");
	detach($node, 'tde-scopes-written');
}
attach($node, 'tde-scopes-written', 'error');
is( exposed('own', 'false', 'SELECT pg_tde_delete_key()',
		qr/error triggered for injection point tde-scopes-written/),
	'',
	'nothing after a failed deletion');
detach($node, 'tde-scopes-written');
is(exposed('own', 'false', 'SELECT pg_tde_delete_key()', qr/^$/),
	'', 'nothing after a deletion');

#
# Out of use
#
sub set_own
{
	my ($key) = @_;
	sql("SELECT pg_tde_create_key_using_global_key_provider('$key', 'ring')");
	$node->safe_psql('own',
		"SELECT pg_tde_set_key_using_global_key_provider('$key', 'ring')");
	return;
}
principals_are('next', 'after a deletion');
set_own('last1');
principals_are('last1 next', 'a key of its own');
sql('DROP DATABASE own; CHECKPOINT');
wait_replayed($node, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
principals_are('next', 'after the database was dropped');

$standby->stop;
$node->stop;
done_testing();
