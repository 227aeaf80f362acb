# Copyright (c) 2026, the Coffer authors

# The default key is rotated so that the old one can be destroyed: all that is
# under it moves in one step, the server's key and that of a database for which
# it was set by name among it, and the user is told.  After a crash at any
# point of it all is under one of the two keys, and a second call ends it; the
# old key is gone from then on, for restarts, crashes, a base backup, recovery
# to a point in time and a standby.  WAL is encrypted all the time.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

my $primary = life_node('primary', allows_streaming => 1, has_archiving => 1);
$primary->append_conf('postgresql.conf', 'restart_after_crash = on');
$primary->start;
my $ring = tde_keyring($primary);
my @databases = qw(postgres named own);
sub sql { return $primary->safe_psql('postgres', $_[0]); }

# Principal key kN is in a keyring of its own.
sub make_key
{
	my ($n) = @_;
	sql(qq{
		SELECT pg_tde_add_global_key_provider_file('p$n', '$ring.$n');
		SELECT pg_tde_create_key_using_global_key_provider('k$n', 'p$n')});
	return;
}

sub set_default
{
	my ($n) = @_;
	return
	  "SELECT pg_tde_set_default_key_using_global_key_provider('k$n', 'p$n')";
}

# What each scope is under: default, server, databases
sub keys_of
{
	my ($node) = @_;
	return join ' ',
	  $node->safe_psql('postgres',
		'SELECT key_name FROM pg_tde_default_key_info()'),
	  $node->safe_psql('postgres',
		'SELECT key_name FROM pg_tde_server_key_info()'),
	  map { $node->safe_psql($_, 'SELECT key_name FROM pg_tde_key_info()') }
	  @databases;
}

sub check
{
	my ($node, $label, $keys) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(keys_of($node), $keys, "$label: keys");
	is($node->safe_psql($_, 'SELECT sum(g) FROM t'),
		'5050', "$label: rows of $_")
	  foreach @databases;
	$node->safe_psql('postgres',
		'SELECT pg_tde_verify_default_key(), pg_tde_verify_server_key()');
	$node->safe_psql($_, 'SELECT pg_tde_verify_key()') foreach @databases;
	return;
}

sql('CREATE EXTENSION pg_tde; CREATE DATABASE named; CREATE DATABASE own;
	CREATE TABLE live (a int)');
$primary->safe_psql($_, 'CREATE EXTENSION pg_tde') foreach qw(named own);
make_key(1);
my ($ret, $out, $err) = $primary->psql('postgres', set_default(1));
like(
	$err,
	qr/NOTICE:  principal key "k1" of key provider "p1" is the server key, too\nDETAIL:  No server key was set\.$/,
	'the first default key: a server without a key gets it, and the user is told');

# One database follows the default key, one names it, one has another one.
$primary->safe_psql('named',
	q{SELECT pg_tde_set_key_using_global_key_provider('k1', 'p1')});
$primary->safe_psql('own', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('k1', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('k1', 'own')});
$primary->safe_psql($_,
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 100) g')
  foreach @databases;
$primary->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
$primary->restart;

$primary->backup('first');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'first', has_streaming => 1);
$standby->start;

make_key(2);
($ret, $out, $err) = $primary->psql('postgres', set_default(2));
is($ret, 0, 'rotated');
like(
	$err,
	qr/NOTICE:  moved from principal key "k1" of key provider "p1" to "k2" of "p2": default key, server key, 2 databases
DETAIL:  Nothing in this server is under "k1" any more\.
HINT:  Backups that began before, and standbys that have not replayed this, still need "k1"\.$/,
	'the user is told what moved');
check($primary, 'rotated', 'k2 k2 k2 k2 k1');
($ret, $out, $err) = $primary->psql('postgres', set_default(2));
is($err, '', 'the same key again moves nothing');

# Destroyed, as the user has been told that it can be: its provider goes, too.
wait_replayed($primary, $standby);
sql(q{SELECT pg_tde_delete_global_key_provider('p1')});
wait_replayed($primary, $standby);
unlink "$ring.1" or die;
$primary->restart;
check($primary, 'old key destroyed, restart', 'k2 k2 k2 k2 k1');
tde_crash($primary);
$primary->start;
check($primary, 'old key destroyed, crash', 'k2 k2 k2 k2 k1');
sql('INSERT INTO live VALUES (1)');
wait_replayed($primary, $standby);
$standby->stop('immediate');
$standby->start;
wait_replayed($primary, $standby);
check($standby, 'old key destroyed, standby', 'k2 k2 k2 k2 k1');

# A server with another key of its own keeps it.
make_key('s');
sql(q{SELECT pg_tde_set_server_key_using_global_key_provider('ks', 'ps')});
make_key(3);
($ret, $out, $err) = $primary->psql('postgres', set_default(3));
like($err, qr/: default key, 2 databases\n/, "a server's own key is not moved");
check($primary, "a server's own key", 'k3 ks k3 k3 k1');
sql(q{SELECT pg_tde_set_server_key_using_global_key_provider('k3', 'p3')});

# A key file that cannot be read may be under the old key still.
my $oid = sql(q{SELECT oid FROM pg_database WHERE datname = 'named'});
my $file = $primary->data_dir . "/pg_tde/$oid/database_key.key";
my $content = slurp_bytes($file);
append_to_file($file, 'x');
make_key(4);
($ret, $out, $err) = $primary->psql('postgres', set_default(4));
like(
	$err,
	qr/: default key, server key, 1 database\nDETAIL:  Of 1 database nobody can tell whether it is under "k3"/,
	'a damaged key file is counted');
open(my $fh, '>:raw', $file) or die;
print $fh $content;
close($fh) or die;
check($primary, 'a damaged key file came back', 'k4 k4 k4 k3 k1');
$primary->safe_psql('named',
	q{SELECT pg_tde_set_key_using_global_key_provider('k4', 'p4')});

#
# A crash at each step
#
SKIP:
{
	skip 'injection points are not supported by this build', 1
	  if ($ENV{enable_injection_points} // '') ne 'yes';

	sql('CREATE EXTENSION injection_points');
	my $n = 4;
	foreach my $case (
		[ 'tde-scopes-written', 0 ],
		[ 'tde-scopes-logged', 1 ],
		[ 'tde-scope-renamed', 1 ],
		[ 'tde-scopes-renamed', 1 ])
	{
		my ($point, $done) = @$case;
		my $label = "crash at $point";
		my $old = $n++;

		make_key($n);
		attach($primary, $point, 'wait');
		my $session = parked($primary, 'postgres', $point, set_default($n));
		tde_crash($primary);
		eval { $session->quit };
		$primary->start;
		my $now = $done ? "k$n" : "k$old";
		check($primary, $label, "$now $now $now $now k1");

		sql(set_default($n));
		check($primary, "$label, called again", "k$n k$n k$n k$n k1");
		wait_replayed($primary, $standby);
		unlink "$ring.$old" or die;
		$primary->restart;
		wait_replayed($primary, $standby);
		check($_, "$label, old key destroyed, on the " . $_->name,
			"k$n k$n k$n k$n k1")
		  foreach $primary, $standby;
	}

	# Two at once, and a change of the server's key: one after the other.
	make_key('x');
	make_key('y');
	attach($primary, 'tde-scopes-written', 'wait');
	my $first =
	  parked($primary, 'postgres', 'tde-scopes-written', set_default('x'));
	my @others;
	foreach my $statement (
		set_default('y'),
		q{SELECT pg_tde_set_server_key_using_global_key_provider('ks', 'ps')})
	{
		my $other = $primary->background_psql('postgres');
		$other->query_until(qr/begun/, "\\echo begun\n$statement;\n");
		push @others, $other;
		$primary->poll_query_until('postgres', 'SELECT count(*) = '
			  . @others
			  . q{ FROM pg_stat_activity WHERE wait_event = 'TdeKeyStore'})
		  or die;
	}
	release($primary, 'tde-scopes-written');
	$_->quit foreach $first, @others;
	check($primary, 'two rotations and one of the server', 'ky ks ky ky k1');
	sql(q{SELECT pg_tde_set_server_key_using_global_key_provider('ky', 'py')});
}

#
# Backup and recovery to a point in time, from after the rotation
#
make_key('z');
sql(set_default('z'));
unlink glob("$ring.[0-9sxy]");
$primary->backup('after');
sql('INSERT INTO live VALUES (2)');
my $lsn = sql('SELECT pg_current_wal_lsn()');
sql('INSERT INTO live VALUES (3)');
sql('SELECT pg_switch_wal()');
$primary->stop;
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($primary, 'after', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf',
	"recovery_target_lsn = '$lsn'\nrecovery_target_action = promote");
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die;
check($restored, 'recovery to a point in time', 'kz kz kz kz k1');
is($restored->safe_psql('postgres', 'SELECT max(a) FROM live'),
	'2', 'up to that point');
$restored->stop;

# The standby takes over.
$standby->promote;
$standby->restart;
check($standby, 'the standby was promoted', 'kz kz kz kz k1');
$standby->stop;
done_testing();
