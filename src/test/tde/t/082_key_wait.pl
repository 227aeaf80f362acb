# Copyright (c) 2026, the Coffer authors

# A key provider that does not answer: a start that replays WAL waits for it,
# says so, and goes on without it when time is up, or ends when it is told to; a server that runs does not need
# it; a standby that serves queries waits for as long as it takes.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf',
	"checkpoint_timeout = 1h\npg_tde.key_wait_timeout = 60s\n");
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);

# Databases with keys of their own, in one provider that will be away
$node->safe_psql('postgres', "CREATE DATABASE d$_") foreach (1 .. 3);
foreach my $n (1 .. 3)
{
	tde_setup($node, "d$n");
	$node->safe_psql(
		"d$n", qq{
		SELECT pg_tde_create_key_using_global_key_provider('k$n', 'ring');
		SELECT pg_tde_set_key_using_global_key_provider('k$n', 'ring');
		CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g});
}
$node->safe_psql('postgres',
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');

sub away { rename($ring, "$ring.away") or die "$!"; return; }
sub back { rename("$ring.away", $ring) or die "$!"; return; }
sub set_timeout
{
	my ($n, $value) = @_;
	$n->adjust_conf('postgresql.conf', 'pg_tde.key_wait_timeout', $value);
	return;
}

# Start without waiting for the result.
sub begin_start
{
	my ($n) = @_;
	system_or_bail('pg_ctl', '--no-wait', '--pgdata' => $n->data_dir,
		'--log' => $n->logfile, 'start');
	return;
}

# It is over: no postmaster any more.
sub wait_stopped
{
	my ($n) = @_;
	for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if !-e $n->data_dir . '/postmaster.pid';
		select(undef, undef, undef, 0.1);
	}
	die 'server does not stop';
}

#
# Running: not affected
#
away();
my $from = -s $node->logfile;
foreach my $db ('postgres', 'd1')
{
	is( $node->safe_psql(
			$db, q{
			CREATE TABLE u USING tde_heap AS TABLE t;
			CHECKPOINT;
			VACUUM FULL t;
			SELECT count(*) FROM u}),
		1000,
		"$db: tables are made and read without the provider");
}
my ($ret, $out, $err) = $node->psql('d1', 'SELECT pg_tde_verify_key()');
like($err, qr/ERROR:  failed to retrieve principal key "k1" from key provider "ring"\nDETAIL:  could not open keyring file "\Q$ring\E": No such file/,
	'what needs it fails at once');
unlike(slurp_file($node->logfile, $from), qr/waiting for key provider/,
	'and nobody waits');

#
# A start that replays WAL goes on without when time is up
#
sub unreadable
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $db ('postgres', 'd1')
	{
		($ret, $out, $err) = $node->psql($db, 'SELECT count(*) FROM t');
		like($err, qr/ERROR:  encryption key of relation "[^"]+" is not available\nDETAIL:  The reason is: principal key "[^"]+" cannot be had from key provider "ring": could not open keyring file/,
			"$what: $db");
	}
	return;
}

back();
$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop('immediate');
away();
set_timeout($node, '3s');
my $begin = time;
$from = -s $node->logfile;
$node->start;
cmp_ok(time - $begin, '>=', 3, 'it waited 3 s');
cmp_ok(time - $begin, '<', 60, 'but not for every key again');
my $log = slurp_file($node->logfile, $from);
like(
	$log,
	qr/LOG:  waiting for key provider "ring" to return principal key "default"\n.*DETAIL:  could not open keyring file "\Q$ring\E": No such file or directory\n.*HINT:  The server goes on when the key provider returns the key, or without it after 3 s \("pg_tde\.key_wait_timeout"\)\./,
	'it said what it waits for');
like(
	$log,
	qr/WARNING:  failed to retrieve principal key "default" from key provider "ring"\n.*DETAIL:  could not open keyring file "\Q$ring\E": No such file or directory\n/,
	'it said what it is without');
unreadable('without the keys');
is(() = $log =~ /waiting for key provider/g, 1, 'it said so once');

set_timeout($node, '0');
$node->stop('immediate');
$from = -s $node->logfile;
$node->start;
unlike(slurp_file($node->logfile, $from), qr/waiting for key provider/,
	'0 does not wait');
unreadable('0');

set_timeout($node, '-1');
$node->stop;
$from = -s $node->logfile;
$node->start;
unlike(slurp_file($node->logfile, $from), qr/waiting for key provider/,
	'after a clean shutdown there is no wait');
unreadable('clean start');

#
# It goes on when the provider is back, however late, and repeats itself
#
$node->stop('immediate');
$from = -s $node->logfile;
begin_start($node);
$node->wait_for_log(qr/LOG:  still waiting for key provider "ring" to return principal key "default"\n.*DETAIL:  could not open keyring file/,
	$from);
back();
$node->wait_for_log(qr/database system is ready to accept connections/, $from);
$node->_update_pid(1);
is($node->safe_psql("d$_", 'SELECT count(*) FROM t'), 1000, "d$_ is readable")
  foreach (1 .. 3);

#
# It stops when it is told to
#
foreach my $mode ('smart', 'fast', 'immediate')
{
	$node->stop('immediate');
	away();
	$from = -s $node->logfile;
	begin_start($node);
	$node->wait_for_log(qr/waiting for key provider/, $from);
	$begin = time;
	system_or_bail('pg_ctl', '--pgdata' => $node->data_dir,
		'--mode' => $mode, 'stop');
	cmp_ok(time - $begin, '<', 10, "stop of mode $mode ends the wait");
	unlike(slurp_file($node->logfile, $from), qr/PANIC|TRAP:/, "$mode: in order");
	back();
	$node->start;
}

# After a crash too: nothing is lost
$node->safe_psql('d2', 'INSERT INTO t VALUES (1001)');
tde_crash($node);
away();
$from = -s $node->logfile;
begin_start($node);
$node->wait_for_log(qr/waiting for key provider/, $from);
system_or_bail('pg_ctl', '--pgdata' => $node->data_dir, 'stop');
back();
$node->start;
is($node->safe_psql('d2', 'SELECT count(*) FROM t'), 1001, 'recovered later');

#
# A standby that replays a rotation
#
set_timeout($node, '3s');
$node->reload;
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);

# It has a keyring of its own, in which the new key is not yet.
my $theirs = $standby->basedir . '/keyring';
copy_keyring($ring, $theirs);
command_ok(
	[
		'pg_tde_change_key_provider', '--force', '-D', $standby->data_dir,
		'1664', 'ring', 'file', $theirs
	],
	'the standby asks its own keyring');
$standby->start;
$node->wait_for_catchup($standby);

sub rotate
{
	my ($name) = @_;
	$node->safe_psql(
		'd1', qq{
		SELECT pg_tde_create_key_using_global_key_provider('$name', 'ring');
		SELECT pg_tde_set_key_using_global_key_provider('$name', 'ring');
		CREATE TABLE $name USING tde_heap AS TABLE t});
	return;
}

$from = -s $standby->logfile;
rotate('r1');
$standby->wait_for_log(
	qr/LOG:  waiting for key provider "ring" to return principal key "r1"\n.*DETAIL:  key "r1" does not exist in keyring file "\Q$theirs\E"\n.*HINT:  Replay goes on when the key provider returns the key\./,
	$from);
is( $standby->safe_psql('postgres',
		q{SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'}),
	'TdeKeyProvider',
	'pg_stat_activity shows it');
sleep 5;
is($standby->safe_psql('d1', 'SELECT count(*) FROM t'),
	1000, 'longer than the setting it serves queries');
copy_keyring($ring, $theirs);
$node->wait_for_catchup($standby);
is($standby->safe_psql('d1', 'SELECT count(*) FROM r1'),
	1000, 'and goes on when the key is there');

# Stopped meanwhile
$from = -s $standby->logfile;
rotate('r2');
$standby->wait_for_log(qr/waiting for key provider "ring" to return principal key "r2"/, $from);
$begin = time;
$standby->stop('fast');
cmp_ok(time - $begin, '<', 10, 'a standby that waits stops at once');

# Started again it may need the key before it is consistent, so that its start
# is bounded like any other.
copy_keyring($ring, $theirs);
$standby->start;
$node->wait_for_catchup($standby);

# Promoted meanwhile: with the key it does as it is told, without it ends.
$from = -s $standby->logfile;
rotate('r3');
$standby->wait_for_log(qr/waiting for key provider "ring" to return principal key "r3"/, $from);
system_or_bail('pg_ctl', '--no-wait', '--pgdata' => $standby->data_dir, 'promote');
copy_keyring($ring, $theirs);
ok($standby->poll_query_until('d1', 'SELECT NOT pg_is_in_recovery()'),
	'promoted when the key was there');
is($standby->safe_psql('d1', 'SELECT count(*) FROM r3'),
	1000, 'with all that it had received');
$standby->stop;

$node->backup('second');
$standby = PostgreSQL::Test::Cluster->new('second');
$standby->init_from_backup($node, 'second', has_streaming => 1);
$theirs = $standby->basedir . '/keyring';
copy_keyring($ring, $theirs);
command_ok(
	[
		'pg_tde_change_key_provider', '--force', '-D', $standby->data_dir,
		'1664', 'ring', 'file', $theirs
	],
	'another standby with its own keyring');
$standby->start;
$node->wait_for_catchup($standby);
$from = -s $standby->logfile;
rotate('r4');
$standby->wait_for_log(qr/waiting for key provider "ring" to return principal key "r4"/, $from);
sleep 4;
system_or_bail('pg_ctl', '--no-wait', '--pgdata' => $standby->data_dir, 'promote');
$begin = time;
$standby->wait_for_log(
	qr/FATAL:  failed to retrieve principal key "r4" from key provider "ring"/, $from);
cmp_ok(time - $begin, '>=', 2, 'the setting counts from the promotion on');
wait_stopped($standby);
$standby->_update_pid(0);
copy_keyring($ring, $theirs);
$standby->start;
ok(-e $standby->data_dir . '/standby.signal', 'it is still a standby');
$node->wait_for_catchup($standby);
is($standby->safe_psql('d1', 'SELECT count(*) FROM r4'), 1000,
	'and has lost nothing');

done_testing();
