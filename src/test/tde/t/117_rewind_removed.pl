# Copyright (c) 2026, the Coffer authors

# pg_rewind puts replay back to a checkpoint between the record of a key and
# that of its relation, where both servers have since dropped the relation and
# removed the key.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeLife;
use TdeStorage;
use TdeTest;
use Test::More;

plan skip_all => 'injection points not supported by this build'
  unless ($ENV{enable_injection_points} || '') eq 'yes';

my $canary = 'CANARY-0123456789-abcdefgh';
my $one = tde_node('one', allows_streaming => 1);
$one->append_conf('postgresql.conf', q{
shared_preload_libraries = 'pg_tde, injection_points'
autovacuum = off
checkpoint_timeout = 1h
wal_keep_size = 1GB
wal_log_hints = on
});
$one->start;
tde_setup($one);
$one->safe_psql('postgres', 'CREATE EXTENSION injection_points');
$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('two');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->start;

# A checkpoint after the record of the key, on both servers
attach($one, 'tde-key-created', 'wait');
my $before = key_files($one, 1);
my $session = $one->background_psql('postgres');
$session->query_until(
	qr/begun/, qq{
	\\echo begun
	CREATE TABLE t (a int, b char(100)) USING tde_heap;
	INSERT INTO t SELECT g, '$canary' FROM generate_series(1, 1000) g;
	DROP TABLE t;
	\\echo done
});
$one->wait_for_event('client backend', 'tde-key-created');
my @keys = grep { !exists $before->{$_} } sort keys %{ key_files($one, 1) };
is(scalar(@keys), 1, 'there is a key, and no relation');
$one->safe_psql('postgres', 'CHECKPOINT');
$one->wait_for_replay_catchup($two);
$two->safe_psql('postgres', 'CHECKPOINT');
$one->safe_psql(
	'postgres', q{
	SELECT injection_points_detach('tde-key-created');
	SELECT injection_points_wakeup('tde-key-created')});
$session->query_until(qr/done/, '');
$session->quit;
$one->wait_for_replay_catchup($two);

# Both go on by themselves, and remove it.
$two->promote;
foreach my $node ($one, $two)
{
	$node->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
	ok(!-e $node->data_dir . "/$keys[0]", $node->name . ' has removed the key');
}

$one->stop;
command_ok(
	[
		'pg_rewind', '--no-sync',
		'--target-pgdata' => $one->data_dir,
		'--source-server' => $two->connstr('postgres')
	],
	'pg_rewind');
$one->append_conf('postgresql.conf', 'port = ' . $one->port . "\n");
$one->enable_streaming($two);
$one->start;
$two->safe_psql('postgres', 'CREATE TABLE u USING tde_heap AS SELECT 1 AS a');
$two->wait_for_replay_catchup($one);
is($one->safe_psql('postgres', 'SELECT a FROM u'), 1, 'the rewound server follows');
$one->safe_psql('postgres', 'CHECKPOINT');
is(join(' ', files_with($one->data_dir . '/base', $canary)), '',
	'nothing of the dropped relation was written in clear');
$one->stop;
$two->stop;

done_testing();
