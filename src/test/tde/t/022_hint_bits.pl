# Copyright (c) 2026, the Coffer authors

# Hint bits are set in shared pages while they are being written.  Without data
# checksums the buffer manager hands the storage manager the live page, so
# encryption must never happen in it, and must bear that it changes.
#
# Sessions change and read a table while others force its pages out and in
# again; then, and after a crash, everything must be there.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;
use Test::More;

foreach my $checksums ('--no-data-checksums', '--data-checksums')
{
	my $label = substr($checksums, 2);
	my $node = tde_node($checksums eq '--data-checksums' ? 'with' : 'without',
		extra => [$checksums]);

	$node->append_conf(
		'postgresql.conf', q{
		shared_buffers = '16MB'
		autovacuum = off
		bgwriter_delay = 10ms
	});
	$node->start;
	tde_setup($node);
	# few rows in a page, and few pages, so that each is written many times
	$node->safe_psql(
		'postgres', q{
		CREATE EXTENSION test_tde_storage;
		CREATE TABLE t (a int, n int, filler text) USING tde_heap
			WITH (fillfactor = 50, autovacuum_enabled = off);
		INSERT INTO t SELECT g, 0, repeat('x', 100) FROM generate_series(1, 2000) g;
		CREATE TABLE done (n int) USING tde_heap;
	});

	# pgbench fails if any transaction does
	my $dir = $node->basedir;
	PostgreSQL::Test::Utils::append_to_file(
		"$dir/change.sql", q{
		\set a random(1, 2000)
		BEGIN;
		UPDATE t SET n = n + 1 WHERE a = :a;
		INSERT INTO done VALUES (1);
		COMMIT;
		SELECT count(*), 1 / (count(*) / 2000) FROM t;
	});
	PostgreSQL::Test::Utils::append_to_file("$dir/checkpoint.sql",
		"CHECKPOINT;\n");
	PostgreSQL::Test::Utils::append_to_file(
		"$dir/evict.sql", q{
		SELECT count(*) FROM pg_buffercache_evict_relation('t');
	});
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_buffercache');
	$node->command_ok(
		[
			'pgbench', '--no-vacuum', '--client=4', '--jobs=2', '--time=4',
			"--file=$dir/change.sql\@8", "--file=$dir/checkpoint.sql\@1",
			"--file=$dir/evict.sql\@3", 'postgres'
		],
		"$label: changes, reads, checkpoints and evictions at a time");

	my $state = q{
		SELECT count(*), count(DISTINCT a), count(*) FILTER (WHERE filler = repeat('x', 100)),
			sum(n) = (SELECT count(*) FROM done), sum(n) > 0 FROM t};
	is($node->safe_psql('postgres', $state),
		'2000|2000|2000|t|t', "$label: all is there");
	$node->safe_psql('postgres', "SELECT evict('t')");
	is($node->safe_psql('postgres', $state),
		'2000|2000|2000|t|t', "$label: and on disk");
	check_storage($node, 'postgres', $label, canary => 'xxxxxxxx');
	tde_crash($node);
	$node->start;
	is($node->safe_psql('postgres', $state),
		'2000|2000|2000|t|t', "$label: and after a crash");
	$node->stop;
}

done_testing();
