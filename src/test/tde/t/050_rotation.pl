# Copyright (c) 2026, the Coffer authors

# Rotation of principal keys: a crash at each step leaves every relation
# readable, nothing waits for a rotation, and standbys follow.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

plan skip_all => 'needs injection points, which this build does without'
  if $ENV{enable_injection_points} ne 'yes';

my $node = tde_node('main', allows_streaming => 1);
# preloaded, so that waiting in a critical section has nothing to allocate
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_tde, injection_points'\n");
$node->start;
plan skip_all => 'needs the extension injection_points, which is not installed'
  unless $node->check_extension('injection_points');
tde_setup($node);
$node->safe_psql('postgres', 'CREATE EXTENSION injection_points');
$node->safe_psql('postgres', 'CREATE DATABASE other');
tde_setup($node, 'other');
foreach my $db ('postgres', 'other')
{
	$node->safe_psql($db,
		'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g'
	);
}
$node->safe_psql('postgres', 'CHECKPOINT');

my $n = 0;

# the statements that make the next key the default key
sub rotate
{
	$n++;
	return "SELECT pg_tde_create_key_using_global_key_provider('k$n', 'ring');"
	  . "SELECT pg_tde_set_default_key_using_global_key_provider('k$n', 'ring');";
}

sub check
{
	my ($what) = @_;
	foreach my $db ('postgres', 'other')
	{
		is($node->safe_psql($db, 'SELECT sum(g) FROM t'),
			'500500', "$what: rows of $db");
		$node->safe_psql($db, 'SELECT pg_tde_verify_key()');
	}
	$node->safe_psql('postgres', 'SELECT pg_tde_verify_default_key()');
	return;
}

sub key_name
{
	my ($db, $function) = @_;
	return $node->safe_psql($db, "SELECT key_name FROM $function()");
}

# Whether the rotation is done depends on whether it had been logged.
my @points = (
	[ 'tde-scopes-written', 0 ],
	[ 'tde-scopes-logged', 1 ],
	[ 'tde-scope-renamed', 1 ],
	[ 'tde-scopes-renamed', 1 ]);

foreach my $case (@points)
{
	my ($point, $done) = @$case;
	my $before = key_name('postgres', 'pg_tde_default_key_info');
	my $statements = rotate();

	# in a new session each time: a crash takes the point away
	$node->safe_psql('postgres',
		"SELECT injection_points_attach('$point', 'wait')");
	my $session =
	  $node->background_psql('postgres', on_error_stop => 0);
	$session->query_until(qr/started/, "\\echo started\n$statements\n");
	$node->wait_for_event('client backend', $point);

	# A table is created meanwhile, and its neighbours are read.
	$node->safe_psql('postgres',
		"CREATE TABLE meanwhile_$n USING tde_heap AS SELECT 1 AS x");
	is($node->safe_psql('other', 'SELECT count(*) FROM t'),
		'1000', "$point: reading goes on");

	$node->stop('immediate');
	eval { $session->quit };
	$node->start;

	check("crash at $point");
	is($node->safe_psql('postgres', "SELECT x FROM meanwhile_$n"),
		'1', "crash at $point: the table made meanwhile");
	my $expected = $done ? "k$n" : $before;
	is(key_name('postgres', 'pg_tde_default_key_info'),
		$expected, "crash at $point: default key");
	is(key_name($_, 'pg_tde_key_info'),
		$expected, "crash at $point: key of $_")
	  foreach ('postgres', 'other');

	# and again, to the end
	$node->safe_psql('postgres', rotate());
	check("rotation after a crash at $point");
	is(key_name('other', 'pg_tde_key_info'),
		"k$n", "rotation after a crash at $point: key");
}

# A base backup that begins before a rotation and copies the key store after
# it replays the old record over the newer file.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
my ($keydir) = glob($node->data_dir . '/pg_tde');
$node->safe_psql('postgres', rotate());
$node->safe_psql('postgres', rotate());
PostgreSQL::Test::RecursiveCopy::copypath($keydir,
	$standby->data_dir . '/pg_tde.new');
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf',
	$standby->data_dir . '/pg_tde');
rename($standby->data_dir . '/pg_tde.new', $standby->data_dir . '/pg_tde')
  or die "could not rename: $!";
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('other', 'SELECT sum(g) FROM t'),
	'500500', 'standby reads');
is($standby->safe_psql('postgres',
		'SELECT key_name FROM pg_tde_default_key_info()'),
	"k$n", 'an old rotation replayed over a newer file changes nothing');

# The standby must fetch a new principal key while its provider is away: replay
# waits, and goes on when the provider is back.
my $ring = tde_keyring($node);
my $offset = -s $standby->logfile;
$node->safe_psql('postgres',
	"SELECT pg_tde_create_key_using_global_key_provider('late', 'ring')");
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$node->safe_psql('postgres',
	"SELECT pg_tde_set_default_key_using_global_key_provider('late', 'ring')");
rename($ring, "$ring.away") or die "could not rename: $!";
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$standby->wait_for_log(qr/waiting for key provider "ring"/, $offset);
is($standby->safe_psql('other', 'SELECT sum(g) FROM t'),
	'500500', 'queries go on while replay waits for a key provider');
rename("$ring.away", $ring) or die "could not rename: $!";
$node->wait_for_catchup($standby);
is($standby->safe_psql('other', 'SELECT sum(g) FROM t'),
	'500500', 'the standby reads after one more rotation');
$standby->promote;
is($standby->safe_psql('other', 'SELECT sum(g) FROM t'),
	'500500', 'and after its promotion');
$standby->safe_psql('other',
	'CREATE TABLE new USING tde_heap AS SELECT 1 AS x');
foreach my $file (glob("$keydir/*/database_key.key"))
{
	my $name = substr($file, length($node->data_dir));
	is( slurp_bytes($standby->data_dir . $name),
		slurp_bytes($file), "the standby has the same $name");
}

done_testing();
