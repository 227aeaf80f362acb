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

$standby->stop;
$primary->stop;
done_testing();
