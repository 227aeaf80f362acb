# Copyright (c) 2026, the Coffer authors

# Starts that begin an epoch of WAL and then fail: the archive gets every segment
# that they have ended, and to the next start a clean shutdown is one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy qw(copy);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeLife;
use TdeTest;
use TdeWal;
use Test::More;

plan skip_all => 'injection points not supported by this build'
  unless ($ENV{enable_injection_points} || '') eq 'yes';

my $node = wal_node('main');
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_tde, test_tde_storage'\n");
$node->start;
tde_setup($node);
$node->safe_psql('postgres', 'CREATE TABLE t (a int) USING tde_heap');
record_key_stream($node);
encrypt_wal($node);

my $rows = 0;

sub insert
{
	$node->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
	$rows++;
	return;
}

sub check_rows
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
		$rows, "$what: all rows");
}

# A start that dies at an injection point
sub die_at
{
	my ($what, $point) = @_;
	my $log = -s $node->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	local $ENV{COFFER_CRASH_AT} = $point;
	is($node->start(fail_ok => 1), 0, "$what: start dies");
	return like(slurp_file($node->logfile, $log), qr/crash at "$point"/,
		"$what: at $point");
}

#
# Every segment that an epoch's beginning ended is archived, whoever began it
#
foreach my $point ('tde-wal-epoch-written', 'promotion-after-wal-segment-cleanup')
{
	foreach my $pages (0, 1)
	{
		my $what = "$pages whole pages before a segment's end";

		insert();
		my $end = write_up_to($node, $pages, 4096);
		my $file = segment_name(1, $end);
		$node->stop('immediate');
		die_at($what, $point) foreach 1 .. 2;
		$node->start;
		insert();
		my $next = $node->safe_psql('postgres',
			'SELECT pg_walfile_name(pg_switch_wal())');
		cmp_ok($next, 'gt', $file, "$what: a later segment");
		wait_archived($node, $next);
		ok(-f $node->archive_dir . "/$file", "$what: $file is archived");
		check_rows($what);
	}
}

#
# After a clean shutdown starts fail, and the next one finds what was shut down:
# unlogged tables are as they were, and nothing is replayed.  A standby comes
# along all the way.
#
$node->append_conf('postgresql.conf', "archive_mode = off\n");
$node->restart;
$node->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'start');
$standby->append_conf('postgresql.conf', "max_connections = 200\n");
follow($standby, $node);
$standby->start;
$node->safe_psql('postgres',
	'CREATE EXTENSION pg_walinspect; CREATE UNLOGGED TABLE unlogged (a int)');

my ($page, $segment) = (8192, 1024 * 1024);
my $checkpoint;					# of the shutdown, and where it ends
my $end;
my $unlogged = 0;

sub control
{
	my ($line) = @_;
	my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
	return $control =~ /^\Q$line\E: +(.*)$/m ? $1 : die "no $line";
}

# The checkpoint is somewhere in the first half of a page.
sub stop_cleanly
{
	insert();
	$node->safe_psql('postgres', 'INSERT INTO unlogged VALUES (1)');
	$unlogged++;
	do
	{
		$node->safe_psql('postgres',
			"SELECT pg_logical_emit_message(false, '', repeat('a', 1000), true)");
	  }
	  while $node->safe_psql('postgres',
		"SELECT mod(pg_current_wal_insert_lsn() - '0/0', $page)") > $page / 2;
	$node->stop;
	$checkpoint = control('Latest checkpoint location');
	$end = from_lsn($checkpoint) + 120;
	return;
}

sub fail_cleanly
{
	my ($what, $point) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	die_at($what, $point);
	return is(control('Database cluster state'),
		'shut down', "$what: pg_control says shut down");
}

sub go_on
{
	my ($what) = @_;
	my $log = -s $node->logfile;
	my $count = 'SELECT count(*) FROM unlogged';
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->start;
	$log = slurp_file($node->logfile, $log);
	like($log, qr/database system was shut down at/, "$what: starts");
	unlike($log, qr/not properly shut down|redo starts/,
		"$what: without recovery");
	check_rows($what);
	is($node->safe_psql('postgres', $count),
		$unlogged, "$what: unlogged table is kept");
	insert();
	$node->stop('immediate');
	$node->start;
	check_rows("$what, and a crash");
	is($node->safe_psql('postgres', $count), 0, 'which empties it');
	$unlogged = 0;
	insert();
	wait_replayed($node, $standby);
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'),
		$rows, "$what: rows on a standby");
	return $log;
}

# Overwrite a part of WAL with something else
sub tear
{
	my ($lsn, $len, $byte) = @_;
	my $file = $node->data_dir . '/pg_wal/' . segment_name(1, $lsn);

	open(my $fh, '+<:raw', $file) or die "could not open: $!";
	sysseek($fh, $lsn % $segment, 0) or die;
	syswrite($fh, $byte x $len) == $len or die;
	close($fh);
	return;
}

sub first_page { return int($end / $page) * $page + $page; }

my $connections = 50;
my $found = qr/WAL of a start that failed ends at/;

# at each step, and what the last write of it tore
foreach my $case (
	[ 'stored', undef, 0 ],
	[ 'marker', undef, 0 ],
	[ 'written', undef, 1 ],
	[ 'written', 'marker', 0, sub { tear($end, 8, "\0") } ],
	[ 'written', 'first page', 0, sub { tear(first_page(), $page, "\0") } ],
	[ 'written', 'half of it', 0, sub { tear(first_page() + 4096, 4096, 'x') } ],
	[ 'end', undef, 1 ],
	[ 'end', 'first record', 1, sub { tear(first_page() + $page + 40, 8, 'x') } ],
	[ 'end', 'its page', 1, sub { tear(first_page() + $page, $page, "\0") } ])
{
	my ($point, $torn, $finds, $tear) = @$case;
	my $what = $torn ? "$point, torn: $torn" : $point;

	stop_cleanly();
	foreach my $try (1 .. 2)
	{
		$connections++;
		$node->append_conf('postgresql.conf', "max_connections = $connections\n");
		fail_cleanly("$what, start $try",
			$point eq 'end'
			? 'promotion-after-wal-segment-cleanup'
			: "tde-wal-epoch-$point");
		$tear->() if $tear;
	}
	my $log = go_on($what);
	$finds ? like($log, $found, "$what: is found") : unlike($log, $found,
		"$what: nothing is found");
	is($node->safe_psql('postgres', 'SHOW max_connections'),
		$connections, "$what: settings");
}

# with changes of the setting
foreach my $settings ('on off on', 'on off off', 'off on on', 'off on off',
	'off off on', 'on on off', 'on on on')
{
	my ($before, $failed, $after) = split ' ', $settings;

	$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = $before\n");
	$node->restart;
	stop_cleanly();
	$connections++;
	$node->append_conf('postgresql.conf',
		"pg_tde.wal_encrypt = $failed\nmax_connections = $connections\n");
	fail_cleanly($settings, 'promotion-after-wal-segment-cleanup');
	$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = $after\n");
	go_on($settings);
	is($node->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
		$after eq 'on' ? 't' : 'f', "$settings: WAL is as it is set");
}

# An epoch that is in the file of epochs only is not taken for the one that WAL in
# clear is in, by a server that recovers.
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = off\n");
$node->restart;
stop_cleanly();
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
fail_cleanly('epoch in the file', 'tde-wal-epoch-stored');
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = off\n");
like(go_on('epoch in the file'), qr/WAL is in clear from/,
	'epoch in the file: an epoch in clear follows');
$node->stop;
$node->backup_fs_cold('cold');
$node->start;
my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($node, 'cold');
$recovered->append_conf('postgresql.conf', "restore_command = 'false'\n");
$recovered->set_recovery_mode;
$recovered->start;
$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
is($recovered->safe_psql('postgres', 'SELECT count(*) FROM t'),
	$rows, 'epoch in the file: recovery reads on');
$recovered->stop;

# What a start that failed said of settings is contradicted by the next one, though
# the former died before pg_control said it, too.
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
stop_cleanly();
my $control_file = $node->data_dir . '/global/pg_control';
copy($control_file, "$control_file.shut-down") or die;
$node->append_conf('postgresql.conf', 'max_connections = ' . ($connections + 1));
fail_cleanly('settings', 'promotion-after-wal-segment-cleanup');
rename("$control_file.shut-down", $control_file) or die;
$node->append_conf('postgresql.conf', "\nmax_connections = $connections\n");
go_on('settings');
is( $node->safe_psql(
		'postgres',
		qq{SELECT string_agg(substring(description FROM 'max_connections=(\\d+)'), ' ' ORDER BY start_lsn)
		FROM pg_get_wal_records_info('$checkpoint', pg_current_wal_flush_lsn())
		WHERE record_type = 'PARAMETER_CHANGE'}),
	($connections + 1) . " $connections",
	'settings: both changes are logged');
# A server whose start failed becomes a standby of the one that was promoted after
# the shutdown: what the start has written is on a branch that ends there.
stop_cleanly();
fail_cleanly('rewind', 'tde-wal-epoch-written');
$standby->promote;
$standby->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
$rows++;
copy($node->data_dir . '/postgresql.conf', $node->basedir . '/conf') or die;
command_ok(
	[
		'pg_rewind',
		'--source-server' => $standby->connstr('postgres'),
		'--target-pgdata' => $node->data_dir ],
	'rewind: pg_rewind');
copy($node->basedir . '/conf', $node->data_dir . '/postgresql.conf') or die;
follow($node, $standby);
$node->append_conf('postgresql.conf', "max_connections = 200\n");
$node->start;
wait_replayed($standby, $node);
check_rows('rewind');
$standby->stop;

$node->stop;
key_stream_is_used_once();

done_testing();
