# Copyright (c) 2026, the Coffer authors

# A principal key that is deleted, with its provider and the key itself, after
# the last relation that it protected was dropped.  No node may need it to
# start again: not the primary after a crash, not a standby that has made no
# restartpoint since before the relation existed, and not a base backup that
# began before the relation was dropped.

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

my $canary = 'CANARY-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
my $ring = tde_keyring($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION pg_tde; CREATE TABLE live (a int);
	 CREATE DATABASE own; CREATE DATABASE follows');
$primary->safe_psql($_, 'CREATE EXTENSION pg_tde') foreach qw(own follows);
# the server's key is another one, and stays
sql(qq{
	SELECT pg_tde_add_global_key_provider_file('server', '$ring.server');
	SELECT pg_tde_create_key_using_global_key_provider('server', 'server');
	SELECT pg_tde_set_server_key_using_global_key_provider('server', 'server')});

$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

# Each case: where the relation is, how its principal key comes and goes.
my %cases = (
	'key of a database' => {
		db => 'own',
		set => qq{
			SELECT pg_tde_add_database_key_provider_file('p', '$ring.own');
			SELECT pg_tde_create_key_using_database_key_provider('k', 'p');
			SELECT pg_tde_set_key_using_database_key_provider('k', 'p')},
		delete => 'SELECT pg_tde_delete_key()',
		delete_provider => q{SELECT pg_tde_delete_database_key_provider('p')},
		ring => "$ring.own"
	},
	'default key' => {
		db => 'follows',
		set => qq{
			SELECT pg_tde_add_global_key_provider_file('g', '$ring.default');
			SELECT pg_tde_create_key_using_global_key_provider('k', 'g');
			SELECT pg_tde_set_default_key_using_global_key_provider('k', 'g')},
		delete => 'SELECT pg_tde_delete_default_key()',
		delete_provider => q{SELECT pg_tde_delete_global_key_provider('g')},
		ring => "$ring.default"
	});

my $n = 0;
foreach my $label (sort keys %cases)
{
	my $case = $cases{$label};
	my $db = $case->{db};

	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	my $redo = redo_lsn($standby);

	$primary->safe_psql($db, $case->{set});
	$primary->safe_psql($db,
		"CREATE TABLE t $t;" . fill_sql('t', $canary, 1, 3000));
	my ($ret, $out, $err) = $primary->psql($db, $case->{delete});
	like($err, qr/cannot delete the .*principal key/,
		"$label: not while there is a relation");

	# A base backup that began before the drop holds the deletion up.
	my $backup = $primary->background_psql('postgres');
	$backup->query_safe(q{SELECT pg_backup_start('b', fast => true)});
	$primary->safe_psql($db, 'DROP TABLE t');
	($ret, $out, $err) = $primary->psql($db, $case->{delete});
	like($err,
		qr/cannot delete a principal key while a base backup is running/,
		"$label: not during a base backup");
	$backup->query_safe('SELECT pg_backup_stop(wait_for_archive => false)');
	$backup->quit;

	wait_replayed($primary, $standby);
	is(redo_lsn($standby), $redo, "$label: no restartpoint on the standby");
	$primary->safe_psql($db, $case->{delete});
	$primary->safe_psql($db, $case->{delete_provider});
	unlink $case->{ring} or die;
	wait_replayed($primary, $standby);
	cmp_ok(redo_lsn($standby), '>', $redo,
		"$label: the deletion makes a restartpoint");

	# Nothing has been checkpointed on request since.
	$_->stop('immediate') foreach $standby, $primary;
	$_->start foreach $primary, $standby;
	$n++;
	sql("INSERT INTO live VALUES ($n)");
	wait_replayed($primary, $standby);
	is($_->safe_psql('postgres', 'SELECT max(a) FROM live'),
		$n, "$label: " . $_->name . ' has recovered')
	  foreach $primary, $standby;
}

# Both can be used again, with another key.
tde_setup($primary, 'template1');
foreach my $db (qw(own follows))
{
	$primary->safe_psql($db,
		"CREATE TABLE again $t;" . fill_sql('again', $canary, 1, 100));
	wait_replayed($primary, $standby);
	is( $standby->safe_psql($db, rows_sql('again')),
		$primary->safe_psql($db, rows_sql('again')),
		"$db: another key");
}
for (1 .. 2)
{
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
}
is_deeply([ differing_files(key_files($standby), key_files($primary)) ],
	[], 'the same files on both nodes');
is_deeply([ files_with($_->data_dir . '/base', $canary) ],
	[], 'nothing in clear on the ' . $_->name)
  foreach $primary, $standby;


#
# The first CREATE TABLE of a database has drawn its key and not put it in
# place when the principal key is to be deleted.
#
SKIP:
{
	skip 'injection points are not supported by this build', 3
	  if ($ENV{enable_injection_points} // '') ne 'yes';

	sql('CREATE DATABASE race');
	$primary->safe_psql('race', qq{
		SELECT pg_tde_add_database_key_provider_file('r', '$ring.race');
		SELECT pg_tde_create_key_using_database_key_provider('k', 'r');
		SELECT pg_tde_set_key_using_database_key_provider('k', 'r')});
	attach($primary, 'tde-key-drawn', 'wait');
	my $creator =
	  parked($primary, 'race', 'tde-key-drawn', "CREATE TABLE first $t");
	my $deleter = $primary->background_psql('race', on_error_stop => 0);
	$deleter->query_until(qr/begun/,
		"\\echo begun\nSET pg_tde.inherit_global_providers = off;\n"
		  . "SELECT pg_tde_delete_key();\n");
	ok( $primary->poll_query_until('postgres', q{
			SELECT wait_event = 'TdeKeyStore' FROM pg_stat_activity
			WHERE query LIKE 'SELECT pg_tde_delete_key%'}),
		'the deletion waits for the key that was drawn');
	release($primary, 'tde-key-drawn');
	$creator->quit;
	$deleter->query('SELECT 1');
	like($deleter->{stderr}, qr/cannot delete the principal key|cannot delete/,
		'and is refused');
	$deleter->quit;
	$primary->safe_psql('race', 'INSERT INTO first VALUES (1)');
	$primary->restart;
	is($primary->safe_psql('race', 'SELECT a FROM first'),
		'1', 'the table has its key after a restart');
}

$standby->stop;
$primary->stop;
done_testing();
