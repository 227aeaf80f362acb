# Copyright (c) 2026, the Coffer authors

# The worker that asks whether the principal keys in use were revoked: what it
# reports, what it does, and that it is not there unless asked for.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use JSON::PP ();
use Test::More;
use TdeKms;
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);
my $workers =
  q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_tde key state poll'};

$node->safe_psql('postgres', 'CREATE DATABASE own');
tde_setup($node, 'own');
$node->safe_psql(
	'own', q{
	SELECT pg_tde_create_key_using_global_key_provider('k1', 'ring');
	SELECT pg_tde_set_key_using_global_key_provider('k1', 'ring');
	CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g});
$node->safe_psql('postgres',
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');
is($node->safe_psql('postgres', $workers), 0, 'no worker by default');

# Put a key line into the keyring, or take it out.
my $content = slurp_bytes($ring);

sub write_ring
{
	my ($new) = @_;
	unlink "$ring.new";
	append_to_file("$ring.new", $new);
	chmod 0600, "$ring.new" or die;
	rename("$ring.new", $ring) or die;
	return;
}

# The worker shuts the server down.
sub stops_for_key
{
	my ($n, $start) = @_;
	my $name = $n->name;

	$n->wait_for_log(
		qr/LOG:  shutting down because of the state of a principal key\n/, $start);
	$n->wait_for_log(qr/database system is shut down/, $start);
	for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if !-e $n->data_dir . '/postmaster.pid';
		select(undef, undef, undef, 0.1);
	}
	$n->_update_pid(0);
	unlike(slurp_file($n->logfile, $start), qr/PANIC|TRAP:/, "$name: no other end");
	return;
}

#
# On, and nothing to report
#
$node->append_conf('postgresql.conf', 'pg_tde.key_state_poll_interval = 1s');
my $from = -s $node->logfile;
$node->restart;
$node->poll_query_until('postgres', $workers, '1') or die;
$node->wait_for_log(qr/operation=check key="k1" provider="ring" .*outcome=success/, $from);
unlike(slurp_file($node->logfile, $from), qr/WARNING/, 'all keys are active');

#
# The provider is away: logged, and nothing else
#
rename($ring, "$ring.away") or die;
$from = -s $node->logfile;
$node->wait_for_log(
	qr/LOG:  could not ask key provider "ring" for the state of principal key "k1"\n.*DETAIL:  could not open keyring file "\Q$ring\E"/,
	$from);
$node->append_conf('postgresql.conf', 'pg_tde.key_state_action = shutdown');
$node->reload;
sleep 3;
is($node->safe_psql('own', 'SELECT count(*) FROM t'), 1000,
	'no answer is no reason to stop');
rename("$ring.away", $ring) or die;
$node->adjust_conf('postgresql.conf', 'pg_tde.key_state_action', 'log');
$node->reload;

#
# Missing: reported, and nothing else, whatever the settings say
#
my $other = tde_node('other');
$other->start;
tde_setup($other);
my $other_ring = tde_keyring($other);
$other->stop;

# a valid keyring without key "k1", with another "default"
my $is_missing =
  qr/WARNING:  key provider "ring" reports principal key "k1" as missing\n.*DETAIL:  It is in use: 1 database\.\n.*HINT:  Set another/;
$from = -s $node->logfile;
write_ring(slurp_bytes($other_ring));
$node->wait_for_log($is_missing, $from);
is($node->safe_psql('own', 'SELECT count(*) FROM t'), 1000,
	'the server goes on by default');
$node->adjust_conf('postgresql.conf', 'pg_tde.key_state_action', 'shutdown');
$node->reload;
for (1 .. 2)
{
	$from = -s $node->logfile;
	$node->wait_for_log($is_missing, $from);
}
is($node->safe_psql('own', 'SELECT count(*) FROM t'), 1000,
	'a key that is missing is no reason to stop');
unlike(slurp_file($node->logfile), qr/shutting down because/,
	'and nobody says so');

#
# A name stands for one key: the provider's other key of that name is not set,
# and a database that begins to use the default key gets the one in use.
#
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach ('wrong', 'later');
tde_setup($node, 'wrong');
tde_setup($node, 'later');
my ($ret, $stdout, $stderr) = $node->psql('wrong',
	q{SELECT pg_tde_set_key_using_global_key_provider('default', 'ring')});
isnt($ret, 0, 'another key of the default key\'s name');
like(
	$stderr,
	qr/ERROR:  key provider "ring" returns another key under the name "default" than is in use\nHINT:  Restore/,
	'another key of the default key\'s name: message');
$node->safe_psql('later', 'CREATE TABLE t (g int) USING tde_heap');
write_ring($content);
is($node->safe_psql('later', 'SELECT pg_tde_verify_key()'), '',
	'the right one is back');
$node->safe_psql('wrong',
	q{SELECT pg_tde_set_key_using_global_key_provider('default', 'ring')});
$node->safe_psql('postgres', 'DROP DATABASE wrong');

# The key provider decides over what is there after a start.
$node->stop;
write_ring(slurp_bytes($other_ring));
$node->start;
($ret, $stdout, $stderr) = $node->psql('own', 'SELECT count(*) FROM t');
like($stderr, qr/ERROR:  encryption key of relation "[^"]+" is not available/,
	'without the key, no relation');
write_ring($content);
$node->restart;
is($node->safe_psql('own', 'SELECT count(*) FROM t'), 1000,
	'with it, everything is there');
$node->stop;

#
# States as KMIP knows them
#
SKIP:
{
	my ($missing) = TdeKms->missing('pykmip');
	skip $missing, 1 if $missing;

	my $kms = TdeKms->new('pykmip', $node->basedir . '/kms');
	$kms->start;
	my $options = JSON::PP->new->canonical->encode(
		{
			host => $kms->{host},
			port => $kms->{port} + 0,
			certPath => $kms->{cert},
			keyPath => $kms->{key},
			caPath => $kms->{ca}
		});
	my $admin = "$ENV{top_builddir}/src/test/tde/keyring/kmip_admin";

	sub kmip_admin
	{
		my ($out) = run_command([ $admin, $options, @_ ]);
		is($out, 'OK', "KMS: @_");
		return;
	}

	my $tenant = tde_node('tenant', allows_streaming => 1);
	$tenant->append_conf('postgresql.conf',
		"pg_tde.key_state_poll_interval = 1s\npg_tde.key_state_action = log\n");
	$tenant->start;
	$tenant->safe_psql('postgres', 'CREATE EXTENSION pg_tde');
	$tenant->safe_psql('postgres', $kms->provider_sql('kms'));
	$tenant->safe_psql(
		'postgres', q{
		SELECT pg_tde_create_key_using_global_key_provider('one', 'kms');
		SELECT pg_tde_create_key_using_global_key_provider('two', 'kms');
		SELECT pg_tde_set_default_key_using_global_key_provider('one', 'kms');
		CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g});
	$from = -s $tenant->logfile;
	$tenant->wait_for_log(
		qr/operation=check key="one" provider="kms" .*outcome=success/, $from);
	unlike(slurp_file($tenant->logfile), qr/WARNING:  key provider/,
		'KMIP: an active key');

	kmip_admin('revoke', 'one');
	$tenant->wait_for_log(
		qr/WARNING:  key provider "kms" reports principal key "one" as revoked\n.*DETAIL:  It is in use: default key, server key, 1 database\./,
		$from);
	($ret, $stdout, $stderr) = $tenant->psql('postgres',
		q{SELECT pg_tde_set_key_using_global_key_provider('one', 'kms')});
	like(
		$stderr,
		qr/ERROR:  cannot use principal key "one" of key provider "kms"\nDETAIL:  The key provider reports the key as revoked\.\nHINT:  Create another/,
		'KMIP: nothing new comes under a revoked key');
	is( $tenant->safe_psql('postgres', q{
			CREATE TABLE t2 (g int) USING tde_heap;
			SELECT pg_tde_verify_default_key()}),
		'', 'KMIP: what is under it goes on');
	$tenant->safe_psql('postgres',
		"SELECT pg_tde_set_default_key_using_global_key_provider('two', 'kms');
		 SELECT pg_tde_set_server_key_using_global_key_provider('two', 'kms')");
	sleep 2;
	$from = -s $tenant->logfile;
	sleep 3;
	unlike(slurp_file($tenant->logfile, $from), qr/WARNING:  key provider/,
		'KMIP: a key that is not in use any more is nobody\'s concern');

	kmip_admin('compromise', 'two');
	$tenant->wait_for_log(
		qr/WARNING:  key provider "kms" reports principal key "two" as revoked as compromised\n/,
		$from);
	is($tenant->safe_psql('postgres', 'SELECT count(*) FROM t'),
		1000, 'KMIP: a log line and nothing else');

	# a standby asks for itself
	$tenant->backup('copy');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($tenant, 'copy', has_streaming => 1);
	$standby->start;
	is($standby->safe_psql('postgres', $workers), 1, 'a worker on the standby');
	$standby->stop;

	$kms->stop;
	$from = -s $tenant->logfile;
	$tenant->adjust_conf('postgresql.conf', 'pg_tde.key_state_action',
		'shutdown');
	$tenant->reload;
	$tenant->wait_for_log(
		qr/LOG:  could not ask key provider "kms" for the state of principal key "two"\n/,
		$from);
	is($tenant->safe_psql('postgres', 'SELECT count(*) FROM t'),
		1000, 'KMIP: no answer is no reason to stop');
	$kms->start;
	stops_for_key($tenant, $from);
	my ($control) = run_command([ 'pg_controldata', $tenant->data_dir ]);
	like($control, qr/Database cluster state:\s+shut down\n/, 'a clean shutdown');

	$standby->adjust_conf('postgresql.conf', 'pg_tde.key_state_action',
		'shutdown');
	$from = -s $standby->logfile;
	system_or_bail('pg_ctl', '--no-wait', '--pgdata' => $standby->data_dir,
		'--log' => $standby->logfile, 'start');
	stops_for_key($standby, $from);

	# One that the KMS destroyed and forgot
	my $last = tde_node('last');
	$last->append_conf('postgresql.conf',
		"pg_tde.key_state_poll_interval = 1s\npg_tde.key_state_action = shutdown\n");
	$last->start;
	$last->safe_psql('postgres', 'CREATE EXTENSION pg_tde');
	$last->safe_psql('postgres', $kms->provider_sql('kms'));
	$last->safe_psql(
		'postgres', q{
		SELECT pg_tde_create_key_using_global_key_provider('three', 'kms');
		SELECT pg_tde_set_default_key_using_global_key_provider('three', 'kms')});
	$last->stop;
	$last->adjust_conf('postgresql.conf', 'pg_tde.key_state_poll_interval', '5s');
	$last->start;
	kmip_admin('revoke', 'three');
	kmip_admin('destroy', 'three');
	$from = -s $last->logfile;
	$last->wait_for_log(
		qr/WARNING:  key provider "kms" reports principal key "three" as missing\n/,
		$from);
	is($last->safe_psql('postgres', 'SELECT 1'), 1,
		'KMIP: a key that is missing is no reason to stop');
	$last->stop;
	$kms->stop;
}

done_testing();
