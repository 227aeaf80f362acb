# Copyright (c) 2026, the Coffer authors

# Whoever waits for a key provider that is silent ends as soon as it is told to:
# by a timeout, by the administrator, or because replay on a standby needs what
# the statement holds; and others do not wait for it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeKms;
use TdeTest;
use Test::More;
use Time::HiRes qw(time);

my ($reason) = TdeKms->missing('pykmip');
plan skip_all => $reason if $reason;

my $kms = TdeKms->new('pykmip', PostgreSQL::Test::Utils::tempdir);
$kms->start;

my $primary = tde_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', "autovacuum = off\n");
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres', $kms->provider_sql('kms'));
$primary->safe_psql('postgres', q{
	SELECT pg_tde_create_key_using_global_key_provider('k', 'kms');
	SELECT pg_tde_set_key_using_global_key_provider('k', 'kms');
	CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g;
	CREATE DATABASE other});
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = 100ms\n");
$standby->start;
$primary->wait_for_catchup($standby);

$kms->pause;

# A session that waits for the provider
my $from;
sub waiting
{
	my ($node, $before) = @_;
	$from = -s $node->logfile;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_until(qr/calling/,
		"$before;\n\\echo calling\nSELECT pg_tde_verify_key();\n");
	$node->poll_query_until('postgres',
		"SELECT wait_event = 'TdeKeyProvider' FROM pg_stat_activity WHERE pid = $pid")
	  or die 'session does not wait';
	return ($session, $pid);
}

# It ends soon, and this is in the server's log.
sub ends
{
	my ($what, $node, $session, $pid, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $start = time;

	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'"
	);
	cmp_ok(time - $start, '<', 4, "$what: soon");
	like(slurp_file($node->logfile, $from), $message, "$what: and says so");
	eval { $session->quit };
	return;
}

ends('statement_timeout', $primary,
	waiting($primary, q{SET statement_timeout = '1s'}),
	qr/ERROR:  canceling statement due to statement timeout/);
ends('transaction_timeout', $primary,
	waiting($primary, q{SET transaction_timeout = '1s'}),
	qr/FATAL:  terminating connection due to transaction timeout/);

my ($session, $pid) =
  waiting($primary, 'SELECT 1');
$primary->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ends('pg_terminate_backend', $primary, $session, $pid,
	qr/FATAL:  terminating connection due to administrator command/);

# DROP DATABASE waits until every session has closed its files of it.
($session, $pid) = waiting($primary, 'SELECT 1');
my $start = time;
$primary->safe_psql('postgres', 'DROP DATABASE other');
is( $primary->safe_psql('postgres',
		"SELECT wait_event FROM pg_stat_activity WHERE pid = $pid"),
	'TdeKeyProvider',
	'DROP DATABASE does not wait for the provider');
$primary->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
ends('pg_cancel_backend', $primary, $session, $pid,
	qr/ERROR:  canceling statement due to user request/);

# On a standby, replay removes rows that the session could still see.
($session, $pid) = waiting($standby,
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'DELETE FROM t; VACUUM t');
ends('conflict with recovery', $standby, $session, $pid,
	qr/ERROR:  canceling statement due to conflict with recovery/);
$primary->wait_for_catchup($standby);

$kms->resume;
$_->safe_psql('postgres', 'SELECT pg_tde_verify_key()')
  foreach $primary, $standby;
$standby->stop;
$primary->stop;
$kms->stop;
done_testing();
