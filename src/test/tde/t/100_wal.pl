# Copyright (c) 2026, the Coffer authors

# Encrypted WAL on one server: nothing in clear through starts, crashes and
# restarts; every record is replayed; encryption goes on and off; key stream is
# never used twice.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $node = tde_node('main');
$node->append_conf('postgresql.conf', q{
autovacuum = off
restart_after_crash = on
wal_level = logical
max_prepared_transactions = 5
full_page_writes = on
});
$node->start;
tde_setup($node);
my $wal = $node->data_dir . '/pg_wal';

sub wal_with_canary
{
	my @found = files_with($wal, $canary);
	return "@found";
}

sub write_canaries
{
	my ($i) = @_;
	$node->safe_psql(
		'postgres', qq{
		CREATE TABLE IF NOT EXISTS t (a serial PRIMARY KEY, b text);
		CREATE INDEX IF NOT EXISTS t_b ON t (b);
		INSERT INTO t (b) SELECT '$canary' || $i || '-' || g FROM generate_series(1, 200) g;
		SELECT pg_logical_emit_message(true, '$canary', '$canary');
		UPDATE t SET b = b || 'x' WHERE a % 10 = 0;
		CHECKPOINT;
		UPDATE t SET b = b || 'y' WHERE a % 10 = 1;
		BEGIN; INSERT INTO t (b) VALUES ('$canary prepared'); PREPARE TRANSACTION '$canary$i'; COMMIT PREPARED '$canary$i'});
	return;
}

sub rows
{
	return $node->safe_psql('postgres',
		q{SELECT count(*), sum(a), md5(string_agg(b, '' ORDER BY a)) FROM t});
}

# Control: in clear, the search finds it
write_canaries(0);
isnt(wal_with_canary(), '', 'control: in clear, canaries are in pg_wal');
is($node->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	'f', 'not encrypted');

# Switch it on
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
my $rows = rows();
$node->restart;
is($node->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	't', 'encrypted');
is(rows(), $rows, 'rows are there');

# The fence: stock finds no checkpoint where pg_control says that there is one
{
	my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
	my ($checkpoint) = $control =~ /Latest checkpoint location: +(\S+)/ or die;
	my ($file, $offset) = split /\|/,
	  $node->safe_psql('postgres',
		"SELECT * FROM pg_walfile_name_offset('$checkpoint')");
	isnt(
		unpack('L<',
			substr(slurp_bytes("$wal/$file"), $offset - $offset % 8192 + 20, 4)),
		0,
		'the checkpoint is in encrypted WAL');
}

forget_old_wal($node);
is(wal_with_canary(), '', 'nothing of before in what is left');

record_key_stream($node);
$node->stop;
$node->start;

foreach my $i (1 .. 3)
{
	write_canaries($i);
	$rows = rows();
	is(wal_with_canary(), '', "$i: no canary in pg_wal");
	$i == 2 ? $node->restart : do { tde_crash($node); $node->start };
	is(rows(), $rows, "$i: all rows are there after " . ($i == 2 ? 'a restart' : 'a crash'));
	is(wal_with_canary(), '', "$i: no canary in pg_wal after that");
}

# A crash while much is written
{
	my $psql = $node->background_psql('postgres', on_error_stop => 0);
	$rows = rows();
	my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$psql->query_until(qr/go/, qq{\\echo go
BEGIN;
INSERT INTO t (b) SELECT '$canary' || repeat('z', 1000) FROM generate_series(1, 10000);
SELECT pg_sleep(1000);
});
	$node->poll_query_until('postgres',
		"SELECT pg_current_wal_lsn() - '$lsn' > 2000000");
	tde_crash($node);
	$psql->{run}->kill_kill;
	$node->start;
	is(rows(), $rows, 'all that was committed, and nothing else');
	is(wal_with_canary(), '', 'no canary in pg_wal');
}

# A crash of one process: the server reinitialises and begins another epoch
{
	my $epochs = -s $node->data_dir . '/pg_tde/global/wal_epochs';
	my $pid = $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
	kill 'KILL', $pid;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/);
	ok($node->poll_query_until('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
		'encrypted after a reinitialisation');
	cmp_ok(-s $node->data_dir . '/pg_tde/global/wal_epochs',
		'>', $epochs, 'under another key');
	is(rows(), $rows, 'rows are there');
	write_canaries(4);
}

# Off and on again
$node->stop;
delete $ENV{COFFER_WAL_RECORDER};
$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', 'off');
$node->start;
$rows = rows();
is($node->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	'f', 'not encrypted any more');
write_canaries(5);
isnt(wal_with_canary(), '', 'and in clear indeed');
$rows = rows();
tde_crash($node);
$node->start;
is(rows(), $rows, 'rows are there after a crash in clear');
$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', 'on');
tde_crash($node);
$node->start;
is(rows(), $rows, 'rows are there after a crash from off to on');
write_canaries(6);
$rows = rows();
tde_crash($node);
$node->start;
is(rows(), $rows, 'rows are there after a crash');

# pg_walinspect reads what the server wrote
$node->safe_psql('postgres', 'CREATE EXTENSION pg_walinspect');
my $start = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
write_canaries(7);
cmp_ok(
	$node->safe_psql('postgres',
		"SELECT count(*) FROM pg_get_wal_records_info('$start', pg_current_wal_flush_lsn())"
	),
	'>', 200, 'pg_walinspect reads encrypted WAL');

# logical decoding
$node->safe_psql('postgres',
	"SELECT pg_create_logical_replication_slot('s', 'test_decoding')");
write_canaries(8);
$node->restart;
write_canaries(9);
like(
	$node->safe_psql('postgres',
		"SELECT string_agg(data, '') FROM pg_logical_slot_get_changes('s', NULL, NULL)"),
	qr/${canary}8-200.*${canary}9-200/s,
	'logical decoding across a restart');

$node->stop;

key_stream_is_used_once();

done_testing();
