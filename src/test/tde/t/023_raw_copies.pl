# Copyright (c) 2026, the Coffer authors

# Files that are copied as they are stay readable: init forks over main forks
# after a crash, databases, cold and online backups, and a backup put together
# from increments.

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
$node->append_conf(
	'postgresql.conf', q{
	autovacuum = off
	summarize_wal = on
});
$node->start;
tde_setup($node);
my $space = $node->basedir . '/space';
mkdir $space or die "could not create $space: $!";
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
$node->safe_psql('postgres', 'CREATE DATABASE source');
tde_setup($node, 'source');

my $state = q{
	SET enable_seqscan = off;
	SELECT (SELECT count(*) || ' ' || sum(length(b)) FROM t),
		(SELECT count(*) FROM t WHERE b ^@ 'row 1'), (SELECT a FROM t WHERE b = 'row 77')};
$node->safe_psql(
	'source', q{
	CREATE TABLE t (a serial PRIMARY KEY, b text COLLATE "C") USING tde_heap;
	CREATE INDEX ON t (b);
	INSERT INTO t (b) SELECT 'row ' || g FROM generate_series(1, 2000) g;
	CREATE UNLOGGED TABLE u (a serial PRIMARY KEY, b text, c text[], p point) USING tde_heap;
	CREATE INDEX ON u (b);
	CREATE INDEX ON u USING hash (b);
	CREATE INDEX ON u USING gin (c);
	CREATE INDEX ON u USING gist (p);
	CREATE INDEX ON u USING spgist (p);
	CREATE INDEX ON u USING brin (a);
	INSERT INTO u (b, c, p) SELECT 'row', ARRAY['row'], point(1, 2) FROM generate_series(1, 500);
	VACUUM t, u;
});
my $expected = $node->safe_psql('source', $state);
like($expected, qr/^2000 \d+\|1111\|77$/, 'rows');

# Unlogged relations get their init fork
sub check_unlogged
{
	my ($where, $label) = @_;

	is($where->safe_psql('source', 'SELECT count(*) FROM u'),
		'0', "$label: unlogged table is empty");
	is( $where->safe_psql(
			'source', q{
			INSERT INTO u (b, c, p) SELECT 'new', ARRAY['new'], point(3, 4) FROM generate_series(1, 100);
			SET enable_seqscan = off;
			SELECT (SELECT count(*) FROM u WHERE b = 'new'),
				(SELECT count(*) FROM u WHERE c @> ARRAY['new']),
				(SELECT count(*) FROM u WHERE p <@ box '((2,3),(4,5))'),
				(SELECT count(*) FROM u WHERE a > 0)}),
		'100|100|100|100', "$label: unlogged table and its indexes can be used");
	return;
}
$node->stop('immediate');
$node->start;
is($node->safe_psql('source', $state), $expected, 'rows after a crash');
check_unlogged($node, 'crash');
check_storage($node, 'source', 'crash', canary => 'row 1');

# Databases, copied both ways and moved
for my $strategy ('file_copy', 'wal_log')
{
	$node->safe_psql('postgres',
		"CREATE DATABASE $strategy TEMPLATE source STRATEGY $strategy");
	is($node->safe_psql($strategy, $state),
		$expected, "$strategy: rows");
	$node->safe_psql($strategy, "UPDATE t SET b = b || '' WHERE a % 2 = 0; VACUUM t");
	check_storage($node, $strategy, $strategy, canary => 'row 1');
	$node->safe_psql('postgres',
		"ALTER DATABASE $strategy SET TABLESPACE elsewhere");
	is($node->safe_psql($strategy, $state),
		$expected, "$strategy: rows in another tablespace");
	check_storage($node, $strategy, "$strategy, moved", canary => 'row 1');
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql($strategy, $state),
		$expected, "$strategy: rows after a crash");
}
$node->safe_psql('postgres', 'DROP DATABASE file_copy; DROP DATABASE wal_log');
$node->safe_psql('postgres', 'DROP TABLESPACE elsewhere');

# An online backup, an increment, and both together.  pg_basebackup verifies
# checksums without keys.
$node->backup('full');
$node->safe_psql('source',
	"INSERT INTO t (b) SELECT 'row 1 late' FROM generate_series(1, 1000)");
$expected = $node->safe_psql('source', $state);
$node->command_checks_all(
	[
		'pg_basebackup', '--no-sync', '--checkpoint=fast',
		'--pgdata' => $node->backup_dir . '/increment',
		'--incremental' => $node->backup_dir . '/full/backup_manifest',
		'--dbname' => $node->connstr('postgres')
	],
	0, [], [qr/^$/], 'incremental backup, and no checksum fails');
$node->command_ok([ 'pg_verifybackup', $node->backup_dir . '/full' ],
	'backup can be verified');
my $combined = PostgreSQL::Test::Cluster->new('combined');
$combined->init_from_backup($node, 'increment', combine_with_prior => ['full']);
$combined->start;
is($combined->safe_psql('source', $state),
	$expected, 'rows in a backup put together from increments');
check_unlogged($combined, 'increments');
check_storage($combined, 'source', 'increments', canary => 'row 1');
$combined->stop;

# A cold copy
$node->stop;
$node->backup_fs_cold('cold');
my $cold = PostgreSQL::Test::Cluster->new('cold');
$cold->init_from_backup($node, 'cold');
$cold->start;
is($cold->safe_psql('source', $state), $expected, 'rows in a cold copy');
$cold->stop;
command_ok([ 'pg_checksums', '--check', '--pgdata', $cold->data_dir ],
	'checksums on disk');

# Checksums taken away and put back by a program that has no keys
$cold->command_ok([ 'pg_checksums', '--disable', '--pgdata', $cold->data_dir ],
	'checksums are disabled');
$cold->start;
is($cold->safe_psql('source', $state), $expected, 'rows without checksums');
$cold->safe_psql('source', q{UPDATE t SET b = b || '' WHERE a % 3 = 0; VACUUM t});
$cold->stop;
$cold->command_ok([ 'pg_checksums', '--enable', '--pgdata', $cold->data_dir ],
	'checksums are enabled');
$cold->start;
is($cold->safe_psql('source', $state), $expected, 'rows with checksums again');
$cold->stop;

done_testing();
