# Copyright (c) 2026, the Coffer authors

# A key outlives its relation until no replay can need it, and not much longer.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "checkpoint_timeout = 1h\n");
$node->start;
tde_setup($node);

# The key file of a relation, relative to the data directory.
sub key_of
{
	my ($relation) = @_;
	return $node->safe_psql('postgres',
		"SELECT 'pg_tde/' || d.oid || '/' || pg_relation_filenode('$relation') || '.key' "
		  . "FROM pg_database d WHERE datname = current_database()");
}

sub has { return -e $_[0]->data_dir . '/' . $_[1]; }

# a table with a row; returns its key file
sub make
{
	my ($name) = @_;
	$node->safe_psql('postgres',
		"CREATE TABLE $name (x text) USING tde_heap; INSERT INTO $name VALUES ('canary')");
	return key_of($name);
}

my $key = make('a');
ok(has($node, $key), 'a new table has a key file');
$node->safe_psql('postgres', 'CHECKPOINT; DROP TABLE a');
ok(has($node, $key), 'the key outlives the table');
$node->safe_psql('postgres', 'CHECKPOINT');
ok(!has($node, $key), 'a checkpoint removes the key');

# a rolled-back creation
$node->safe_psql('postgres',
	'BEGIN; CREATE TABLE b (x text) USING tde_heap; ROLLBACK; CHECKPOINT');
my @left = glob($node->data_dir . '/pg_tde/*/[1-9]*.key');
is(scalar(@left), 0, 'nothing is left of a rolled-back creation');

# while a base backup runs
$key = make('c');
my $backup = $node->background_psql('postgres');
$backup->query_safe("SELECT pg_backup_start('b', true)");
$node->safe_psql('postgres', 'DROP TABLE c; CHECKPOINT; CHECKPOINT');
ok(has($node, $key), 'a base backup holds the removal off');
$backup->query_safe('SELECT pg_backup_stop(false)');
$backup->quit;
$node->safe_psql('postgres', 'CHECKPOINT');
ok(!has($node, $key), 'the key goes when the backup has ended');

# dropped, and crashed before a checkpoint
$key = make('d');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql('postgres',
	q{INSERT INTO d SELECT 'canary' || g FROM generate_series(1, 1000) g; DROP TABLE d});
tde_crash($node);
ok(has($node, $key), 'the key is there for crash recovery');
$node->start;
is_deeply([ files_with($node->data_dir . '/base', 'canary') ],
	[], 'replay of a dropped table leaves nothing in clear');
$node->safe_psql('postgres', 'CHECKPOINT');
ok(!has($node, $key), 'recovery removes the key in the end');

# nothing is concluded from a file that is not there
$key = make('e');
$node->safe_psql('postgres', 'CHECKPOINT');
my $saved = slurp_bytes($node->data_dir . "/$key");
$node->safe_psql('postgres', 'DROP TABLE e; CHECKPOINT');
$node->stop;
append_to_file($node->data_dir . "/$key", $saved);
$node->start;
$node->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
ok(has($node, $key), 'a key without a relation stays');

# more drops than the queue in memory takes
SKIP:
{
	skip 'injection points are not supported by this build', 4
	  if ($ENV{enable_injection_points} // '') ne 'yes';

	my @keys = map { make("many_$_") } 1 .. 25;
	my $removed = q{SELECT evictions FROM pg_stat_tde_cache WHERE name = 'key_removals'};
	my $before = $node->safe_psql('postgres', $removed);

	$node->safe_psql('postgres', 'CREATE EXTENSION injection_points');
	$node->safe_psql('postgres',
		q{SELECT injection_points_attach('tde-removal-queue-full', 'notice')});
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->safe_psql('postgres',
		'DROP TABLE ' . join(', ', map { "many_$_" } 1 .. 25));
	my @files = glob($node->data_dir . '/pg_tde/global/removals.*');
	# each table has a TOAST table, and that an index
	is(scalar @files, 7, 'the queue went to files');
	$node->safe_psql('postgres', 'CHECKPOINT');
	ok( $node->poll_query_until(
			'postgres', "SELECT ($removed) = $before + 75"),
		'the checkpoint begins to remove them, and it goes on');
	is_deeply([ grep { has($node, $_) } @keys ], [], 'all keys are gone');
	@files = glob($node->data_dir . '/pg_tde/global/removals.*');
	is(scalar @files, 0, 'the files too');
	$node->safe_psql('postgres',
		q{SELECT injection_points_detach('tde-removal-queue-full')});
}

# a whole database
$node->safe_psql('postgres', 'CREATE DATABASE gone');
tde_setup($node, 'gone');
$node->safe_psql('gone', 'CREATE TABLE t (x text) USING tde_heap');
my $oid = $node->safe_psql('postgres',
	"SELECT oid FROM pg_database WHERE datname = 'gone'");
$node->safe_psql('postgres', 'CHECKPOINT; DROP DATABASE gone');
ok(has($node, "pg_tde/$oid/database_key.key"),
	'the keys of a database outlive it');
$node->safe_psql('postgres', 'CHECKPOINT');
ok(!has($node, "pg_tde/$oid"), 'a checkpoint removes its directory');

# its OID, wanted again at once
$node->safe_psql('postgres', "CREATE DATABASE again OID $oid");
tde_setup($node, 'again');
$node->safe_psql('again', 'CREATE TABLE t (x text) USING tde_heap');
$node->safe_psql('postgres', 'DROP DATABASE again');
$node->safe_psql('postgres', "CREATE DATABASE again OID $oid");
ok(!has($node, "pg_tde/$oid"),
	'a new database of the same OID finds no old keys');
tde_setup($node, 'again');
$node->safe_psql('again',
	q{CREATE TABLE t USING tde_heap AS SELECT 'canary' AS x});
$node->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
is($node->safe_psql('again', 'SELECT x FROM t'),
	'canary', 'and keeps its own');

# a standby, whose restartpoint decides
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$key = make('f');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->wait_for_catchup($standby);
ok(has($standby, $key), 'the standby has the key');
is(slurp_bytes($standby->data_dir . "/$key"),
	slurp_bytes($node->data_dir . "/$key"),
	'the very same');
$node->safe_psql('postgres', 'DROP TABLE f; CHECKPOINT');
$node->wait_for_catchup($standby);
ok(!has($node, $key), 'the primary has removed it');
ok(has($standby, $key), 'the standby keeps it');
$standby->stop('immediate');
ok(has($standby, $key), 'over a crash');
$standby->start;
$node->safe_psql('postgres', 'CHECKPOINT');
$node->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
ok(!has($standby, $key), 'until a restartpoint is beyond the drop');

done_testing();
