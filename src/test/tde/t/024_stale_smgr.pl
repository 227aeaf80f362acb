# Copyright (c) 2026, the Coffer authors

# No process writes plaintext because it opened a relation's storage, and
# learnt that it was plain, before the relation existed.
#
# A session opens the storage of file numbers that are not given out yet, and
# keeps it open for good, as relation cache and checkpointer do.
# Then relations are made under these numbers, and that very session writes
# and reads them.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;
use Test::More;

my $node = tde_node('main', allows_streaming => 1);
# Not with io_method = worker: PostgreSQL's I/O workers keep a file open whose
# number was given to another relation since, and read from the old one.
$node->append_conf(
	'postgresql.conf', q{
	autovacuum = off
	io_method = sync
});
$node->start;
tde_setup($node);
$node->safe_psql(
	'postgres', q{
	CREATE EXTENSION test_tde_storage;
	CREATE EXTENSION pg_buffercache;
	CREATE TABLE control USING heap AS SELECT 'Canary ' || g AS word FROM generate_series(1, 1000) g;
});

sub next_number
{
	# a file number of today is what the next ones follow
	$node->safe_psql('postgres', 'CREATE TABLE probe ()');
	my $number =
	  $node->safe_psql('postgres', q{SELECT pg_relation_filenode('probe')});
	$node->safe_psql('postgres', 'DROP TABLE probe');
	return $number + 1;
}

my $stale = $node->background_psql('postgres');
my $first = next_number();
my $last = $first + 500;
$stale->query_safe("SELECT pin_file_numbers($first, $last)");

my $other = $node->background_psql('postgres');
for my $round ('first', 'second')
{
	$other->query_safe(q{
		CREATE TABLE t (word text) USING tde_heap;
		CREATE INDEX ON t (word);
		INSERT INTO t SELECT * FROM control;
	});
	my $number =
	  $node->safe_psql('postgres', q{SELECT pg_relation_filenode('t')});
	ok($number >= $first && $number <= $last,
		"$round: file number $number was opened before");

	# the stale session writes what the other one made, then reads it again
	$stale->query_safe(q{
		SELECT pg_buffercache_evict_relation('t');
		SELECT pg_buffercache_evict_relation('t_word_idx');
	});
	is($stale->query_safe('SELECT count(*) FROM t'),
		'1000', "$round: rows, read back");
	$stale->query_safe(q{INSERT INTO t SELECT 'Canary late' FROM generate_series(1, 1000)});
	check_storage($node, 'postgres', $round,
		canary => 'Canary', control => ['control']);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
		'2000', "$round: rows in a third session");
	$other->query_safe('DROP TABLE t');
	$node->safe_psql('postgres', 'CHECKPOINT');
}

# One number, plain and encrypted in turn, while that session and the
# checkpointer live on with what they have open.
$first = 900000;
$last = $first + 10;
$stale->query_safe("SELECT pin_file_numbers($first, $last)");
my $life = 0;
for my $am ('heap', 'tde_heap', 'heap', 'tde_heap')
{
	$life++;
	my $label = "life $life, $am";
	$other->query_safe(
		qq{
		SELECT set_next_oid($first);
		CREATE TABLE t (word text) USING $am;
		INSERT INTO t SELECT * FROM control;
	});
	is($node->safe_psql('postgres', q{SELECT pg_relation_filenode('t')}),
		$first, "$label: the number");
	$stale->query_safe(q{
		SELECT pg_buffercache_evict_relation('t');
		INSERT INTO t SELECT 'Canary late' FROM generate_series(1, 1000);
		SELECT pg_buffercache_evict_relation('t');
	});
	is($stale->query_safe('SELECT count(*) FROM t'), '2000', "$label: rows");
	$node->safe_psql('postgres', q{UPDATE t SET word = word || ''});
	check_storage($node, 'postgres', $label,
		canary => 'Canary', control => [ 'control', $am eq 'heap' ? 't' : () ]);
	is($other->query_safe('SELECT count(*) FROM t'),
		'2000', "$label: rows in another session");

	$other->query_safe('DROP TABLE t');
	# a number is free again when no row bears it, not even a dead one; the
	# file goes with one checkpoint, the key with the next
	$node->safe_psql('postgres', 'VACUUM pg_class');
	$node->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
}
$stale->quit;
$other->quit;

# A standby whose startup process, checkpointer and background writer go
# through the same with their own storage objects
my $standby_rows = q{SELECT count(*), min(word) FROM s};
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf',
	"recovery_prefetch = on\nshared_buffers = '1MB'");
$standby->start;
for my $am ('tde_heap', 'heap', 'tde_heap')
{
	$node->safe_psql(
		'postgres', qq{
		SELECT set_next_oid(950000);
		CREATE TABLE s (word text) USING $am;
		INSERT INTO s SELECT * FROM control;
		CHECKPOINT;
		UPDATE s SET word = word || '';
	});
	$node->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', $standby_rows),
		'1000|Canary 1', "standby, $am: rows");
	$standby->safe_psql('postgres', 'CHECKPOINT');
	check_storage($standby, 'postgres', "standby, $am",
		canary => 'Canary', control => ['control']);
	is($node->safe_psql('postgres', q{SELECT pg_relation_filenode('s')}),
		950000, "standby, $am: the number");
	$node->safe_psql('postgres', 'DROP TABLE s');
	$node->safe_psql('postgres', 'VACUUM pg_class');
	$node->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
}
$standby->stop;
$node->stop;

done_testing();
