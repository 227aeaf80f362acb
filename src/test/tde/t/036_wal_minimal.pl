# Copyright (c) 2026, the Coffer authors

# With wal_level = minimal, files made in a transaction are written and synced
# at its end instead of being logged.  They are encrypted none the less, and
# readable after a crash.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', qq{
wal_level = minimal
max_wal_senders = 0
allow_in_place_tablespaces = on
});

# Zero, so that even small files are synced and not logged; and the other way.
foreach my $threshold ('0', '1GB')
{
	$node->append_conf('postgresql.conf',
		"wal_skip_threshold = '$threshold'");
	if ($threshold eq '0')
	{
		$node->start;
		tde_setup($node);
		$node->safe_psql('postgres', q{CREATE TABLESPACE ts LOCATION ''});
	}
	else
	{
		$node->restart;
		$node->safe_psql('postgres', 'DROP SCHEMA s CASCADE');
	}

	my $copy = join('', map { "$_\t$canary$_\n" } 1 .. 500) . "\\.\n";
	$node->safe_psql('postgres', qq{
		CREATE SCHEMA s;
		SET search_path = s;
		CREATE TABLE later (a int, b text) USING tde_heap;
		CREATE TABLE early (a int PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO early SELECT g, '$canary' || g FROM generate_series(1, 500) g;
		CREATE TABLE unmoved (a int, b text) USING tde_heap;
		INSERT INTO unmoved SELECT g, '$canary' || g
			FROM generate_series(1, 500) g;
		CREATE TABLE plain (a int, b text);
		BEGIN;
		CREATE TABLE copied (a int PRIMARY KEY, b text) USING tde_heap;
		COPY copied FROM stdin WITH (FREEZE);
$copy
		CREATE INDEX copied_b ON copied (b);
		TRUNCATE later;
		COPY later FROM stdin WITH (FREEZE);
$copy
		TRUNCATE plain;
		COPY plain FROM stdin WITH (FREEZE);
$copy
		ALTER TABLE early SET TABLESPACE ts;
		CLUSTER early USING early_pkey;
		SAVEPOINT one;
		CREATE TABLE sub (a serial PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO sub (b) VALUES ('$canary');
		ROLLBACK TO one;
		CREATE TABLE sub (a serial PRIMARY KEY, b text);
		ALTER TABLE sub SET ACCESS METHOD tde_heap;
		INSERT INTO sub (b) VALUES ('$canary');
		ALTER TABLE unmoved SET ACCESS METHOD heap;
		ALTER TABLE unmoved SET ACCESS METHOD tde_heap;
		COMMIT;
		CREATE MATERIALIZED VIEW mv USING tde_heap AS TABLE copied});
	$node->stop('immediate');
	$node->start;

	my $label = "wal_skip_threshold = $threshold";
	# What is on disk before any checkpoint of ours is what counts.
	check_storage($node, 'postgres', "$label, after the crash",
		canary => $canary, control => ['s.plain'], no_checkpoint => 1);
	is( $node->safe_psql('postgres', q{
		SELECT count(*), min(b), max(b) FROM s.copied;
		SELECT count(*) FROM s.later;
		SELECT count(*) FROM s.early;
		SELECT count(*) FROM s.unmoved;
		SELECT count(*) FROM s.mv;
		SELECT count(*) FROM s.plain;
		SELECT a, b FROM s.sub;
		SET enable_seqscan = off;
		SELECT a FROM s.copied WHERE b ~ '9' AND a = 9}),
		"500|${canary}1|${canary}99\n500\n500\n500\n500\n500\n1|$canary\n9",
		"$label: rows");
	check_storage($node, 'postgres', "$label, after a checkpoint",
		canary => $canary, control => ['s.plain']);
}

$node->stop;
done_testing();
