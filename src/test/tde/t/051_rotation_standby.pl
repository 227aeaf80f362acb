# Copyright (c) 2026, the Coffer authors

# Rotations that a standby replays: over files that are newer already, as in a
# base backup; and while the provider of the new key is away.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
my $ring = tde_keyring($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sql('CREATE DATABASE other');
tde_setup($primary, 'other');
my @databases = ('postgres', 'other');
$primary->safe_psql($_,
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g')
  foreach @databases;

# Rotate the default key to one in a file, and provider, of its own.
sub rotate
{
	my ($name) = @_;
	sql(qq{
		SELECT pg_tde_add_global_key_provider_file('$name', '$ring.$name');
		SELECT pg_tde_create_key_using_global_key_provider('$name', '$name');
		SELECT pg_tde_set_default_key_using_global_key_provider('$name', '$name');
		CREATE TABLE under_$name USING tde_heap AS SELECT 1 AS g});
	return;
}

sub check
{
	my ($node, $key, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $db (@databases)
	{
		is($node->safe_psql($db, 'SELECT sum(g) FROM t'),
			'500500', "$label: rows of $db");
		is( $node->safe_psql($db, 'SELECT key_name FROM pg_tde_key_info()'),
			$key, "$label: key of $db");
	}
	is( $node->safe_psql('postgres',
			'SELECT key_name FROM pg_tde_default_key_info()'),
		$key, "$label: default key");
	return;
}

#
# A base backup that begins before two rotations and copies the key store after
# them.  The key in between has gone with its provider; what was wrapped by it
# is replayed all the same.
#
$primary->backup('base');
my $backup = $primary->backup_dir . '/base';
rotate('one');
my $file = 'pg_tde/global/default_key.key';
my $one = slurp_bytes($primary->data_dir . "/$file");
rotate('two');
sql(q{SELECT pg_tde_delete_global_key_provider('one')});
unlink "$ring.one" or die;
system_or_bail('rm', '-r', "$backup/pg_tde");
PostgreSQL::Test::RecursiveCopy::copypath($primary->data_dir . '/pg_tde',
	"$backup/pg_tde");
my $two = slurp_bytes("$backup/$file");
isnt($one, $two, 'the backup has the newer file');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
my ($wal) = run_command(
	[
		'pg_waldump',
		'--start' => '0/2000028',
		'--path' => $primary->data_dir . '/pg_wal'
	]);
my @rotations = $wal =~ /lsn: ([0-9A-F\/]+), prev [0-9A-F\/]+, desc: SCOPES/g;
is(scalar(@rotations), 2, 'two rotations to replay');

# Between the two, the older one must not have replaced the file: the node
# could not start again with it.
replay_until($standby, $rotations[1],
	'cp "' . $primary->data_dir . '/pg_wal/%f" "%p"');
is(slurp_bytes($standby->data_dir . "/$file"),
	$two, 'the older record has changed nothing');
replay_on($standby);
wait_replayed($primary, $standby);
check($standby, 'two', 'older records over newer files');
is($standby->safe_psql('postgres', 'SELECT g FROM under_one'),
	'1', 'a table made under the key in between');
is_deeply([ differing_files(key_files($standby), key_files($primary)) ],
	[], 'the files are the newer ones');
$standby->restart;
check($standby, 'two', 'started again');

#
# The provider of a new key is away when the standby comes to the rotation.
#
sub rotate_while_away
{
	my ($name) = @_;
	my $offset = -s $standby->logfile;

	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	rotate($name);
	rename("$ring.$name", "$ring.away") or die;
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	$standby->wait_for_log(qr/waiting for key provider "$name"/, $offset);
	return;
}

sub give_back
{
	my ($name) = @_;
	rename("$ring.away", "$ring.$name") or die;
	return;
}

rotate_while_away('three');
$standby->wait_for_event('startup', 'TdeKeyProvider');
pass('pg_stat_activity shows that the startup process waits for it');
check($standby, 'two', 'queries meanwhile');
my $lsn = $primary->lsn('insert');
sql('CREATE TABLE later (a int)');
is( $standby->safe_psql('postgres',
		"SELECT pg_last_wal_replay_lsn() < '$lsn'"),
	't', 'replay has stopped');
give_back('three');
wait_replayed($primary, $standby);
check($standby, 'three', 'the provider is back');
is($standby->safe_psql('postgres', 'SELECT g FROM under_three'),
	'1', 'replay went on');

# A shutdown does not wait, and the next start gets along.
rotate_while_away('four');
$standby->stop('fast');
give_back('four');
$standby->start;
wait_replayed($primary, $standby);
check($standby, 'four', 'shut down while it waited');

# Nor does a crash harm.
rotate_while_away('five');
$standby->stop('immediate');
give_back('five');
$standby->start;
wait_replayed($primary, $standby);
check($standby, 'five', 'stopped in disorder while it waited');

# A promotion that is asked for meanwhile follows.
rotate_while_away('six');
$primary->stop('immediate');
$standby->safe_psql('postgres', 'SELECT pg_promote(wait => false)');
sleep 2;
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', 'no promotion over a key that is missing');
give_back('six');
ok( $standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'),
	'promoted when the key is there');
check($standby, 'six', 'promoted');
is($standby->safe_psql('postgres', 'SELECT g FROM under_six'),
	'1', 'nothing was lost');
$standby->safe_psql('other', 'CREATE TABLE u USING tde_heap AS SELECT 1 AS g');
$standby->restart;
is($standby->safe_psql('other', 'SELECT g FROM u'),
	'1', 'a table made after that');
$standby->stop;

done_testing();
