# Copyright (c) 2026, the Coffer authors

# Databases that come back: a new one with the OID of one that was dropped, and
# one that is moved to another tablespace and back, while keys of the earlier
# life wait for their removal; on a primary, on a standby that starts again
# from before all that, and with failures in the middle.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeStorage;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $canary = 'CANARY-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';
my $oid = 60000;

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sub db { return $primary->safe_psql(@_); }
sql('CREATE EXTENSION pg_buffercache; CREATE EXTENSION injection_points');
sql(qq{CREATE TABLESPACE $_ LOCATION ''}) foreach qw(ts1 ts2);
my %spc = split /[|\n]/, sql('SELECT spcname, oid FROM pg_tablespace');

$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

sub restartpoint
{
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# Both nodes have a database's rows, read from disk, and encrypted.
sub check_db
{
	my ($db, $expected, $label, @nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_replayed($primary, $standby);
	foreach my $node (@nodes ? @nodes : ($primary, $standby))
	{
		$node->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
		is($node->safe_psql($db, rows_sql('t')),
			$expected, "$label: rows on the " . $node->name);
		check_storage($node, $db, "$label: " . $node->name,
			no_checkpoint => 1, canary => $canary);
	}
	return;
}

sub crash_standby
{
	my ($redo) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
	is(redo_lsn($standby), $redo, 'no restartpoint since');
	$standby->stop('immediate');
	$standby->start;
	return;
}

sub same_files
{
	my ($label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# what is left of failures is swept at a start
	foreach my $node ($primary, $standby)
	{
		$node->restart;
		restartpoint();
	}
	is_deeply(
		[ differing_files(key_files($standby), key_files($primary)) ],
		[], "$label: the same files on both nodes");
	return;
}

# A database with providers and a principal key of its own
sub make_db
{
	my ($db, $ring, $nproviders, $template) = @_;

	sql("CREATE DATABASE $db OID $oid TEMPLATE template0");
	db($db, 'CREATE EXTENSION pg_tde');
	db($db, qq{SELECT pg_tde_add_database_key_provider_file('p$_',
			'$ring')}) foreach 1 .. $nproviders;
	db($db, qq{
		SELECT pg_tde_create_key_using_database_key_provider('$db', 'p1');
		SELECT pg_tde_set_key_using_database_key_provider('$db', 'p1');
		CREATE TABLE t $t;} . fill_sql('t', $canary . $db, 1, 500));
	return;
}

#
# DROP DATABASE, and another one with its OID, each with keys and providers of
# its own.  The first has seen more changes than the second.
#
my $ring = tde_keyring($primary);
restartpoint();
my $redo = redo_lsn($standby);
make_db('first', "$ring.1", 5);
wait_replayed($primary, $standby);
my $first = key_files($primary);
sql('DROP DATABASE first');
make_db('second', "$ring.2", 1);
my $second = key_files($primary);
foreach my $file ("pg_tde/$oid/database_key.key",
	"pg_tde/$oid/provider_config")
{
	isnt($first->{$file}, $second->{$file}, "$file is a new one");
}
my $rows = db('second', rows_sql('t'));
check_db('second', $rows, 'second database');
is(key_files($standby)->{$_}, $second->{$_}, "$_ is the same on the standby")
  foreach grep { /^pg_tde\/$oid\// } sort keys %$second;
crash_standby($redo);
check_db('second', $rows, 'second database, replayed again');
db('second', 'SELECT pg_tde_verify_key()');
$standby->safe_psql('second', 'SELECT pg_tde_verify_key()');
restartpoint();
check_db('second', $rows, 'second database, after a checkpoint');
$primary->stop('immediate');
$primary->start;
check_db('second', $rows, 'second database, after a crash');
same_files('second database');

#
# The standby removes the first one's keys at a restartpoint that comes when
# the first record of the second one is replayed.
#
sql('CREATE DATABASE tmpl');
db('tmpl', qq{
	CREATE EXTENSION pg_tde;
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('own', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own', 'own');
	CREATE TABLE t $t;} . fill_sql('t', $canary, 1, 300));
$rows = db('tmpl', rows_sql('t'));
wait_replayed($primary, $standby);
sql('DROP DATABASE second; CHECKPOINT');
ok(!-e $primary->data_dir . "/pg_tde/$oid", 'primary has removed the keys');
attach($primary, 'tde-providers-logged', 'wait');
my $session = parked($primary, 'postgres', 'tde-providers-logged',
	"CREATE DATABASE third OID $oid TEMPLATE tmpl STRATEGY file_copy");
wait_replayed($primary, $standby);
ok(-e $standby->data_dir . "/pg_tde/$oid/database_key.key",
	'standby has not');
$standby->safe_psql('postgres', 'CHECKPOINT');
release($primary, 'tde-providers-logged');
$session->quit;
check_db('third', $rows, 'third database');
same_files('third database');
check_db('third', $rows, 'third database, started again');

#
# ALTER DATABASE SET TABLESPACE: crash of the primary when the keys are there
# and the files are not; failure half-way; success; and back at once
#
sql('CREATE DATABASE moved');
tde_setup($primary, 'moved');
db('moved', "CREATE TABLE t $t; CREATE INDEX ON t (b); CREATE TABLE u $t TABLESPACE ts2;"
	. fill_sql('t', $canary, 1, 500) . fill_sql('u', $canary, 1, 10));
$rows = db('moved', rows_sql('t'));
my $moved = sql(q{SELECT oid FROM pg_database WHERE datname = 'moved'});
my $node_file = db('moved', q{SELECT pg_relation_filenode('t')});
my $key_home = "pg_tde/$moved/$node_file.key";
my $key_away = "pg_tde/$moved/${node_file}_$spc{ts1}.key";
restartpoint();
$redo = redo_lsn($standby);
my $first_id = key_id($primary, $key_home);

attach($primary, 'tde-database-keys-copied', 'wait');
$session = parked($primary, 'postgres', 'tde-database-keys-copied',
	'ALTER DATABASE moved SET TABLESPACE ts1');
isnt(key_id($primary, $key_away), '', 'the copy of the key is there');
$primary->stop('immediate');
eval { $session->quit };
$primary->start;
check_db('moved', $rows, 'crash during the move');
# nothing was dropped: it is an orphan, and stays
isnt(key_id($primary, $key_away), '', 'the copy of the key stays');

my $stray = $primary->data_dir . "/base/$moved/zzz";
append_to_file($stray, 'x');
chmod 0, $stray or die;
my ($ret, $out, $err) =
  $primary->psql('postgres', 'ALTER DATABASE moved SET TABLESPACE ts1');
like($err, qr/could not open file.*zzz/, 'the move fails half-way');
unlink $stray or die;
check_db('moved', $rows, 'failed move');
sql('ALTER DATABASE moved SET TABLESPACE ts1');
check_db('moved', $rows, 'moved');
isnt(key_id($primary, $key_home), '', 'the old key waits');
sql('ALTER DATABASE moved SET TABLESPACE pg_default');
isnt(key_id($primary, $key_home), $first_id, 'moved back: another key');
check_db('moved', $rows, 'moved back');
sql('CHECKPOINT');
check_db('moved', $rows, 'moved back, removal done');
is(key_id($primary, $key_away), '', 'no key left where it was');
crash_standby($redo);
check_db('moved', $rows, 'moved back, replayed again');
db('moved', fill_sql('t', $canary, 501, 600));
$rows = db('moved', rows_sql('t'));
check_db('moved', $rows, 'moved back, changed');
restartpoint();
check_db('moved', $rows, 'moved back, after a restartpoint');
is(key_id($standby, $key_away),
	'', 'no key left where it was, on the standby');

# Replay of the move fails on the standby, is made to work, and goes on.
$stray = $standby->data_dir . "/base/$moved/zzz";
append_to_file($stray, 'x');
chmod 0, $stray or die;
my $offset = -s $standby->logfile;
sql('ALTER DATABASE moved SET TABLESPACE ts1');
$standby->wait_for_log(qr/FATAL:  could not open file.*zzz/, $offset);
$standby->wait_for_log(qr/database system is shut down/, $offset);
db('moved', fill_sql('t', $canary, 601, 700));
$rows = db('moved', rows_sql('t'));
sql('ALTER DATABASE moved SET TABLESPACE pg_default');
unlink $stray or die;
$standby->{_pid} = undef;
$standby->start;
check_db('moved', $rows, 'a move that failed on the standby');
same_files('moves');
check_db('moved', $rows, 'started again');

#
# And dropped at once after a move
#
sql('ALTER DATABASE moved SET TABLESPACE ts1');
sql('DROP DATABASE moved');
crash_standby(redo_lsn($standby));
restartpoint();
restartpoint();
ok(!-e $_->data_dir . "/pg_tde/$moved", $_->name . ': no keys are left')
  foreach $primary, $standby;
same_files('in the end');

$standby->stop;
$primary->stop;
done_testing();
