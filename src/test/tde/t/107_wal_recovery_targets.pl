# Copyright (c) 2026, the Coffer authors

# Recovery to a point in an archive of encrypted WAL, to each kind of target;
# and incremental backups across promotions, at a page's end, too, and where
# encryption begins and ends.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeLife;
use TdeTest;
use TdeWal;
use Test::More;

my $page = 8192;
my $canary = 'CANARY-0123456789-abcdefgh';

my $node = wal_node('main');
$node->append_conf('postgresql.conf',
	"summarize_wal = on\npg_tde.wal_encrypt = off\n");
$node->start;
tde_setup($node);
$node->safe_psql('postgres', 'CREATE TABLE t (a int, b text) USING tde_heap');
record_key_stream($node);
encrypt_wal($node);

sub insert
{
	$_[0]->safe_psql('postgres', fill_sql('t', $canary, 1, 20));
	return;
}

sub rows { return $_[0]->safe_psql('postgres', rows_sql('t')); }

sub lsn
{
	return $_[0]->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
}

#
# Recovery targets
#
insert($node);
$node->backup('full');
my %rows = (immediate => rows($node));
my %target = (immediate => "recovery_target = 'immediate'");

insert($node);
$rows{name} = rows($node);
$node->safe_psql('postgres', "SELECT pg_create_restore_point('here')");
$target{name} = "recovery_target_name = 'here'";
# the target is in another epoch than the backup
$node->restart;
insert($node);
$rows{lsn} = rows($node);
$target{lsn} = "recovery_target_lsn = '" . lsn($node) . "'";
insert($node);
tde_crash($node);
$node->start;
my $xid = $node->safe_psql('postgres',
	"BEGIN; INSERT INTO t VALUES (1, '$canary xid'); SELECT pg_current_xact_id(); COMMIT");
$rows{xid} = rows($node);
$target{xid} = "recovery_target_xid = '$xid'";
insert($node);
$rows{'time'} = rows($node);
$target{'time'} = "recovery_target_time = '"
  . $node->safe_psql('postgres', 'SELECT clock_timestamp() FROM pg_sleep(0.2)') . "'";
$node->safe_psql('postgres', 'SELECT pg_sleep(0.2)');
insert($node);
my $last = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
insert($node);
wait_archived($node, $last);

foreach my $what (sort keys %target)
{
	my $copy = PostgreSQL::Test::Cluster->new("to_$what");
	$copy->init_from_backup($node, 'full', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf',
		"$target{$what}\nrecovery_target_action = promote\narchive_mode = off\n");
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	is(rows($copy), $rows{$what}, "recovery to $what");
	insert($copy);
	my $rows = rows($copy);
	tde_crash($copy);
	$copy->start;
	is(rows($copy), $rows, "recovery to $what, and a crash");
	is($copy->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
		't', "recovery to $what: encrypted");
	$copy->stop('immediate');
}

#
# Incremental backups across promotions
#
my $n = 0;

# Promote a standby of the server, which goes away; and take a backup of it that
# has what was changed since the one that it was made from.
sub promote
{
	my ($what, $setting, $at_page_end) = @_;
	my $standby = PostgreSQL::Test::Cluster->new('standby' . ++$n);
	my $full = $node->backup_dir . "/$n";

	$node->backup($n);
	$standby->init_from_backup($node, $n, has_streaming => 1);
	$standby->append_conf('postgresql.conf', "pg_tde.wal_encrypt = $setting\n");
	$standby->start;
	insert($node);
	wait_replayed($node, $standby);

	my $bgwriter = $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
	my $end;
	if ($at_page_end)
	{
		$node->safe_psql('postgres', 'CHECKPOINT');
		insert($node);
		kill 'STOP', $bgwriter;
		$end = write_up_to($node, 20, 0);
		$standby->poll_query_until('postgres',
			"SELECT pg_last_wal_replay_lsn() - '0/0' >= $end");
	}
	$standby->promote;
	kill 'CONT', $bgwriter;
	$node->stop('immediate');
	if ($at_page_end)
	{
		my ($begun) = slurp_file($standby->logfile) =~
		  /.*WAL is encrypted from ([0-9A-F]+\/[0-9A-F]+) on/s;
		is($standby->safe_psql('postgres', "SELECT '$begun' - '0/0'::pg_lsn"),
			$end + $page, "$what: WAL ended at a page's end");
	}
	insert($standby);

	my $incremental = $standby->backup_dir . '/incremental';
	$standby->command_ok(
		[
			'pg_basebackup', '--no-sync', '--checkpoint' => 'fast',
			'--pgdata' => $incremental,
			'--incremental' => "$full/backup_manifest",
			'--dbname' => $standby->connstr
		],
		"$what: incremental backup");

	my $combined = PostgreSQL::Test::Cluster->new("combined$n");
	my $into = $standby->backup_dir . '/combined';
	command_ok(
		[
			'pg_combinebackup', '--no-sync', '--output' => $into,
			$full, $incremental
		],
		"$what: pg_combinebackup");
	$combined->init_from_backup($standby, 'combined');
	$combined->append_conf('postgresql.conf', "archive_mode = off\n");
	$combined->start;
	is(rows($combined), rows($standby), "$what: rows of the combined backup");
	$combined->stop('immediate');
	$node = $standby;
	return;
}

promote('promotion', 'on');
promote("promotion at a page's end", 'on', 1);
promote('promotion that ends encryption', 'off');
promote('promotion in clear', 'off');
promote('promotion that begins encryption', 'on');
promote("again at a page's end", 'on', 1);
$node->stop;

key_stream_is_used_once();

done_testing();
