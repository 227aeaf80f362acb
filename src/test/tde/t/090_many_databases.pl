# Copyright (c) 2026, the Coffer authors

# A thousand databases with scope keys of their own and ten relations each:
# what a start, a rotation and verification cost, and how often the key
# provider is called.  First all follow the default key, then each has a
# principal key of its own.  Then so many rotations that the table of scope
# keys is full, which a restart mends.
#
# Takes some minutes and 8 GB, so it runs only if PG_TEST_EXTRA names it.
# TDE_DATABASES is the number of databases, 1000 if it is not set.  TDE_KMS is
# the key provider, "file" if it is not set: "scripted" is a KMIP server of the
# tests, over TLS, that finds its keys at once; the kinds of TdeKms.pm are real
# ones.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use IPC::Run;
use TdeKms;
use TdeTest;

plan skip_all => 'takes minutes and 8 GB; not enabled in PG_TEST_EXTRA'
  unless $ENV{PG_TEST_EXTRA}
  && $ENV{PG_TEST_EXTRA} =~ /\btde_many_databases\b/;

my $databases = $ENV{TDE_DATABASES} || 1000;
my $kind = $ENV{TDE_KMS} || 'file';

# Seconds are printed, not judged: what else the machine does would decide.
# This only ends what hangs.
my $limit = $PostgreSQL::Test::Utils::timeout_default;

my $node = tde_node('main');

$node->append_conf(
	'postgresql.conf', q{
fsync = off
max_wal_size = 4GB
checkpoint_timeout = 1h
recovery_init_sync_method = syncfs
autovacuum = off
pg_tde.log_key_access = off
});
$node->start;

my ($kms, $server);
if ($kind ne 'file')
{
	# the scripted one takes this one's certificates
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	$kms = TdeKms->new($kind eq 'scripted' ? 'pykmip' : $kind, $dir);
	if ($kind eq 'scripted')
	{
		$server = IPC::Run::start(
			[
				$ENV{PYTHON} || 'python3',
				"$FindBin::RealBin/../keyring/kmip_server.py",
				$dir,
				"good=good:$dir/server_cert.pem:$dir/server_key.pem:$kms->{ca}"
			],
			'<pipe', \*TO_SERVER);
		for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
		{
			last if -e "$dir/ports";
			select(undef, undef, undef, 0.1);
		}
		($kms->{port}) = slurp_file("$dir/ports") =~ /^good (\d+)$/m;
	}
	else
	{
		$kms->start;
	}
	$node->safe_psql('template1', 'CREATE EXTENSION pg_tde');
	$node->safe_psql('template1', $kms->provider_sql('ring'));
	$node->safe_psql(
		'template1', q{
		SELECT pg_tde_create_key_using_global_key_provider('default', 'ring');
		SELECT pg_tde_set_default_key_using_global_key_provider('default', 'ring')});
}
else
{
	tde_setup($node, 'template1');
}

# How long did it take?
sub timed
{
	my ($what, $code, $without) = @_;
	my $begin = time;

	$without = 0 unless defined $without;
	$code->();
	my $seconds = time - $begin;
	cmp_ok($seconds - $without, '<', $limit,
		sprintf('%s: %.2f s', $what, $seconds)
		  . ($without ? sprintf(', of which %.2f s to connect', $without) : ''));
	return;
}

# What it costs to go from database to database, relation caches being there
sub time_to_connect
{
	everywhere('SELECT 1');
	my $begin = time;
	everywhere('SELECT 1');
	return time - $begin;
}

# Calls to key providers since the server was started, or since the last time
# this was asked.
sub calls
{
	my ($operation) = @_;
	my $n = $node->safe_psql('template1', "SELECT coalesce(sum(calls), 0)
		FROM pg_stat_tde_providers WHERE operation = '$operation'");

	$node->safe_psql('template1', 'SELECT pg_stat_tde_reset()');
	return $n;
}

# One session that goes from database to database
sub everywhere
{
	my ($sql) = @_;
	my $script = "\\set ON_ERROR_STOP 1\n";

	foreach my $n (1 .. $databases)
	{
		$script .= "\\c d$n\n" . ($sql =~ s/#/$n/gr) . ";\n";
	}
	return $node->safe_psql('postgres', $script);
}

sub sum_of
{
	my ($out) = @_;
	my $sum = 0;
	$sum += $_ foreach grep { /^\d+$/ } split /\n/, $out;
	return $sum;
}

#
# Make them
#
$node->safe_psql('template1', join(';', map {
	"CREATE TABLE t$_ USING tde_heap AS SELECT 1 AS a" } 1 .. 10));
my $begin = time;
$node->safe_psql('postgres', join("\n",
	map { "CREATE DATABASE d$_ STRATEGY file_copy;" } 1 .. $databases));

# What is measured from here on is written as it always is.
$node->safe_psql('postgres', 'ALTER SYSTEM SET fsync = on');
$node->reload;
note sprintf('%d databases made in %.0f s', $databases, time - $begin);
is(calls('fetch'), 1, 'one call so far');

my $keys = () = glob($node->data_dir . '/pg_tde/[0-9]*/[0-9]*.key');
is($keys, 10 * ($databases + 1), 'ten keys in each database');
is(() = glob($node->data_dir . '/pg_tde/[0-9]*/database_key.key'),
	$databases + 1, 'and a scope');

#
# All follow the default key
#
timed('restart, one principal key', sub { $node->restart });
is(calls('fetch'), 1, 'one call to the provider');

$node->safe_psql('template1',
	"SELECT pg_tde_create_key_using_global_key_provider('r0', 'ring')");
calls('fetch');
timed(
	'rotation of the default key',
	sub {
		$node->safe_psql('template1',
			"SELECT pg_tde_set_default_key_using_global_key_provider('r0', 'ring')");
	});
is(calls('fetch'), 1, 'one call to the provider');
timed('verification of the default key',
	sub { $node->safe_psql('template1', 'SELECT pg_tde_verify_default_key()') });
is(calls('fetch'), 1, 'one call to the provider');
timed('verification in every database',
	sub { everywhere('SELECT pg_tde_verify_key()') },
	time_to_connect());
is(calls('fetch'), $databases, 'one call for each verification');
timed('restart after the rotation', sub { $node->restart });
is(calls('fetch'), 2, 'one call for each principal key in use');
is(sum_of(everywhere('SELECT a FROM t5')), $databases, 'all are readable');

timed('check without a server',
	sub {
		command_ok([ 'pg_tde_check_keys', '-q', $node->data_dir ],
			'pg_tde_check_keys');
	});

#
# Each has its own
#
$begin = time;
everywhere(
	q{SELECT pg_tde_create_key_using_global_key_provider('k#', 'ring');
	SELECT pg_tde_set_key_using_global_key_provider('k#', 'ring')});
note sprintf('%d principal keys made and set in %.0f s',
	$databases, time - $begin);
calls('fetch');
timed('restart, one principal key for each', sub { $node->restart });
my $fetched = calls('fetch');
is($fetched, $databases + 3 - 1, 'one call for each principal key in use')
  or diag "fetched $fetched";
timed('verification in every database',
	sub { everywhere('SELECT pg_tde_verify_key()') },
	time_to_connect());
is(calls('fetch'), $databases, 'one call for each verification');
is(sum_of(everywhere('SELECT a FROM t5')), $databases, 'all are readable');

# Some have another provider, one and the same, which is away: the others answer,
# and it is not asked for each.
my $lost = $databases > 20 ? 20 : $databases - 1;
my $lost_ring = $node->basedir . '/lost ring';
foreach my $n (1 .. $lost)
{
	$node->safe_psql(
		"d$n", qq{
		SELECT pg_tde_add_database_key_provider_file('lost', '$lost_ring');
		SELECT pg_tde_create_key_using_database_key_provider('lost$n', 'lost');
		SELECT pg_tde_set_key_using_database_key_provider('lost$n', 'lost')});
}
rename($lost_ring, "$lost_ring.away") or die;
timed('restart, a provider is away', sub { $node->restart });
my ($failures, $successes) = split /\|/, $node->safe_psql('template1',
	q{SELECT sum(failures), sum(calls - failures)
	FROM pg_stat_tde_providers WHERE operation = 'fetch'});
# once by the start, and then now and then by the worker
cmp_ok($failures, '>=', 1, 'the provider that is away was asked');
cmp_ok($failures, '<', $lost, 'but not for each of its databases');
is($successes, $databases - $lost + 2, 'one call for each principal key that is there');
$node->safe_psql("d$_", 'SELECT a FROM t5') foreach ($lost + 1 .. $databases);
pass('all others answer');
my (undef, undef, $lost_error) = $node->psql('d1', 'SELECT a FROM t5');
like($lost_error, qr/principal key "lost1" cannot be had from key provider "lost"/,
	'one that does not says why');
$node->safe_psql("d$_", "SELECT pg_tde_change_database_key_provider_file('lost', '$lost_ring.away')")
  foreach (1 .. $lost);
is(sum_of(everywhere('SELECT a FROM t5')), $databases,
	'repaired in SQL, all are readable');
calls('fetch');

# Monitoring, when there is most to see
foreach my $view (
	split /\n/,
	$node->safe_psql('template1',
		q{SELECT relname FROM pg_class WHERE relkind = 'v' AND relname ~ 'tde' ORDER BY 1}))
{
	my $rows;
	timed("view $view", sub {
		$rows = $node->safe_psql('template1', "SELECT count(*) FROM (SELECT * FROM $view) v");
	});
	is($rows, $databases + 3, 'a row for each scope')
	  if $view eq 'pg_tde_principal_keys';
}
calls('fetch');

# A crash of a backend does not ask at all.
my $from = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER SYSTEM SET restart_after_crash = on');
$node->reload;
my $pid = $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
timed(
	'recovery from the crash of a process',
	sub {
		kill 'KILL', $pid;
		$node->wait_for_log(qr/database system is ready to accept connections/,
			$from);
	});
is(calls('fetch'), 0, 'no call to the provider');

#
# Back to the default key, and rotations until there is no room
#
everywhere('SELECT pg_tde_delete_key()');
my ($room, $rotations, $ret, $out, $err) = (0, 0, 0);
$begin = time;
while ($rotations < 60)
{
	$rotations++;
	($ret, $out, $err) = $node->psql(
		'template1', qq{
		SELECT pg_tde_create_key_using_global_key_provider('s$rotations', 'ring');
		SELECT pg_tde_set_default_key_using_global_key_provider('s$rotations', 'ring')},
		timeout => $PostgreSQL::Test::Utils::timeout_default);
	last if $ret != 0;
}
note sprintf('%d rotations in %.0f s', $rotations, time - $begin);
SKIP:
{
	skip 'too few databases to fill the table', 4 if $databases < 500;

	like($err, qr/ERROR:  too many scope keys\n.*HINT:  Restart the server/s,
		'the table of scope keys gets full');
	is(sum_of(everywhere('SELECT a FROM t5')), $databases, 'all are readable');
	timed('restart with a full table', sub { $node->restart });
	$node->safe_psql('template1',
		"SELECT pg_tde_set_default_key_using_global_key_provider('s$rotations', 'ring')");
	is(sum_of(everywhere('SELECT a FROM t5')), $databases,
		'rotated once more, and all are readable');
}
$node->stop;
if ($server)
{
	close(TO_SERVER);
	$server->finish;
}
elsif ($kms)
{
	$kms->stop;
}

done_testing();
