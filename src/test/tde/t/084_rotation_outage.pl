# Copyright (c) 2026, the Coffer authors

# A rotation whose key provider goes away at each step of it, with traffic, a
# standby and a base backup under way.  Before the key has been fetched the
# rotation fails and changes nothing; after that it does not need the provider
# any more.  A standby waits for the provider and follows; a backup that began
# before needs the old principal key, and says so.

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

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', "pg_tde.key_wait_timeout = 2s\n");
$primary->start;
tde_setup($primary);
my $ring = tde_keyring($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION injection_points');
sql('CREATE DATABASE other');
tde_setup($primary, 'other');
my @databases = ('postgres', 'other');
$primary->safe_psql($_,
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g')
  foreach @databases;
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

# The keys that there will be
my $n = 0;
sql("SELECT pg_tde_create_key_using_global_key_provider('k$_', 'ring')")
  foreach (1 .. 12);

sub away { rename($ring, "$ring.away") or die "$!"; return; }
sub back { rename("$ring.away", $ring) or die "$!"; return; }
sub rotate_sql
{
	my ($key) = @_;
	return "SELECT pg_tde_set_default_key_using_global_key_provider('$key', 'ring')";
}
sub in_use
{
	my ($node) = @_;
	return join ' ',
	  map { $node->safe_psql($_, 'SELECT key_name FROM pg_tde_key_info()') }
	  @databases;
}

# Traffic, on all nodes: what was there is read, new relations are made.
my @made;
sub traffic
{
	my ($label, @nodes) = @_;
	my $name = 'm' . @made;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	push @made, $name;
	foreach my $db (@databases)
	{
		$primary->safe_psql($db,
			"CREATE TABLE $name USING tde_heap AS TABLE t; VACUUM FULL t");
		is($_->safe_psql($db, 'SELECT sum(g) FROM t'),
			500500, "$label: $db is read on the " . $_->name)
		  foreach $primary, @nodes;
	}
	return;
}

sub all_there
{
	my ($label, $node) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $db (@databases)
	{
		is( $node->safe_psql($db,
				'SELECT ' . join(' + ', map { "(SELECT sum(g) FROM $_)" } 't', @made)),
			500500 * (1 + @made),
			"$label: everything in $db on the " . $node->name);
	}
	return;
}

#
# Before the key has been fetched
#
away();
my $before = key_files($primary);
my $lsn = insert_lsn($primary);
my ($ret, $out, $err) = $primary->psql('postgres', rotate_sql('k1'));
like(
	$err,
	qr/ERROR:  failed to retrieve principal key "k1" from key provider "ring"\nDETAIL:  could not open keyring file "\Q$ring\E": No such file or directory/,
	'no provider, no rotation');
($ret, $out, $err) = $primary->psql('postgres',
	q{SELECT pg_tde_create_key_using_global_key_provider('new', 'ring')});
back();
is(in_use($primary), 'default default', 'the keys in use stay');
is_deeply([ differing_files(key_files($primary), $before) ],
	[], 'no file was changed');
ok(sql(q{SELECT pg_tde_create_key_using_global_key_provider('k13', 'ring')}) eq '',
	'no trace of it in the way');
traffic('failed rotation', $standby);

#
# At each step after that
#
foreach my $point (
	'tde-scopes-written', 'tde-scopes-logged',
	'tde-scope-renamed', 'tde-scopes-renamed')
{
	my $key = 'k' . ++$n;
	my $from = -s $standby->logfile;

	# The key has been fetched at the first point, and the standby has not seen
	# the record yet.
	attach($primary, 'tde-scopes-written', 'wait');
	attach($primary, $point, 'wait') if $point ne 'tde-scopes-written';
	my $session =
	  parked($primary, 'postgres', 'tde-scopes-written', rotate_sql($key));
	away();
	traffic("$point: parked");
	release($primary, 'tde-scopes-written');
	if ($point ne 'tde-scopes-written')
	{
		$primary->wait_for_event('client backend', $point);
		release($primary, $point);

		# There, it waits for each scope: in a critical section, a point that
		# is detached stays for whoever has loaded it.
		while (
			$point eq 'tde-scope-renamed'
			&& sql(q{SELECT count(*) FROM pg_stat_activity
				WHERE state = 'active' AND pid <> pg_backend_pid()
				AND query LIKE '%set_default_key%'}) > 0)
		{
			$primary->psql('postgres', "SELECT injection_points_wakeup('$point')");
			select(undef, undef, undef, 0.1);
		}
	}
	$session->quit;
	is(in_use($primary), "$key $key", "$point: rotation without the provider");
	traffic("$point: rotated");

	# The standby waits for it, and serves.
	$standby->wait_for_log(
		qr/LOG:  waiting for key provider "ring" to return principal key "$key"/,
		$from);
	is($standby->safe_psql($_, 'SELECT sum(g) FROM t'),
		500500, "$point: $_ is read on the standby")
	  foreach @databases;
	back();
	wait_replayed($primary, $standby);
	all_there($point, $_) foreach $primary, $standby;
	is(in_use($standby), "$key $key", "$point: the standby follows");
}

# A standby that is stopped while it waits, and a primary that crashes then
my $key = 'k' . ++$n;
my $from = -s $standby->logfile;
attach($primary, 'tde-scopes-written', 'wait');
my $session =
  parked($primary, 'postgres', 'tde-scopes-written', rotate_sql($key));
away();
release($primary, 'tde-scopes-written');
$session->quit;
$standby->wait_for_log(qr/waiting for key provider "ring" to return principal key "$key"/, $from);
$standby->stop;
tde_crash($primary);
$from = -s $primary->logfile;
is($primary->start(fail_ok => 1), 0, 'no start of the primary without the provider');
like(slurp_file($primary->logfile, $from),
	qr/FATAL:  encryption key of relation "[^"]+" is not available\n.*DETAIL:  The reason is: principal key "(default|k\d+)" cannot be had from key provider "ring"/,
	'the log says which key and provider');
back();
$primary->start;
$standby->start;
wait_replayed($primary, $standby);
all_there('crash', $_) foreach $primary, $standby;
is(in_use($_), "$key $key", 'the rotation is complete on the ' . $_->name)
  foreach $primary, $standby;

#
# During a base backup: the keys' files are copied before the rotation, the
# rest after it.
#
my $backup = $primary->backup_dir . '/rotated';
$session = $primary->background_psql('postgres');
$session->query_safe("SELECT pg_backup_start('rotated', fast => true)");
PostgreSQL::Test::RecursiveCopy::copypath($primary->data_dir . '/pg_tde',
	"$backup.keys");
my $old = $key;
$key = 'k' . ++$n;
sql(rotate_sql($key));
away();
traffic('during a backup');
PostgreSQL::Test::RecursiveCopy::copypath(
	$primary->data_dir,
	$backup,
	filterfn => sub { $_[0] !~ /^(pg_tde|pg_wal\/.+|postmaster\.(pid|opts)|pg_replslot\/.+)$/ });
PostgreSQL::Test::RecursiveCopy::copypath("$backup.keys", "$backup/pg_tde");
my $label = $session->query_safe(
	'SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)');
$session->quit;
append_to_file("$backup/backup_label", "$label\n");
rmdir "$backup/pg_wal";
PostgreSQL::Test::RecursiveCopy::copypath($primary->data_dir . '/pg_wal',
	"$backup/pg_wal");

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($primary, 'rotated', has_streaming => 1);
$from = -s $restored->logfile;
is($restored->start(fail_ok => 1), 0, 'the backup does not start without the provider');
like(slurp_file($restored->logfile, $from),
	qr/WARNING:  failed to retrieve principal key "$old" from key provider "ring"\n.*FATAL:  [^\n]*(principal key|encryption key)/s,
	'it asks for the key from before the rotation');
back();
command_checks_all(
	[ 'pg_tde_check_keys', '-q', $restored->data_dir ],
	0,
	[qr/^$/],
	[qr/warning: base\/\d+\/\d+: the relation is encrypted, and key file "[^"]+" is expected from replay of WAL/],
	'pg_tde_check_keys says that it can be started');
$restored->start;
wait_replayed($primary, $restored);
all_there('backup', $restored);
is(in_use($restored), "$key $key", 'replay brought the new key');
$restored->stop;

$standby->stop;
$primary->stop;
done_testing();
