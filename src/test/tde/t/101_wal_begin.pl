# Copyright (c) 2026, the Coffer authors

# Where WAL ends, and a new epoch begins: at each distance from a page's end,
# in a record that a crash cut off, with starts that die at each step, and with
# pages that were torn.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

plan skip_all => 'injection points not supported by this build'
  unless ($ENV{enable_injection_points} || '') eq 'yes';

my $page = 8192;
my $segment = 1024 * 1024;
my $node = tde_node('main', extra => [ '--wal-segsize' => 1 ]);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'pg_tde, test_tde_storage'
autovacuum = off
checkpoint_timeout = 1h
log_min_messages = log
});
$node->start;
tde_setup($node);
$node->safe_psql('postgres',
	'CREATE EXTENSION pg_walinspect; CREATE TABLE t (a int) USING tde_heap');
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Where the last record ends; nothing else writes WAL
sub end_of_wal { return sql("SELECT pg_current_wal_insert_lsn() - '0/0'"); }

# A message of n bytes, durable; returns where it ends
sub emit
{
	my ($n) = @_;
	return sql(
		"SELECT pg_logical_emit_message(false, '', repeat('a', $n), true) - '0/0'");
}

# A message that ends at a given distance from a page's end.  One of 300 + 8 * k
# bytes takes 8 * k bytes more than one of 300.
my $length_of_300;
{
	my ($from, $to);
	do
	{
		$from = emit(300);
		$to = emit(300);
	} while (int($from / $page) != int($to / $page));
	$length_of_300 = $to - $from;
}

sub emit_up_to
{
	my ($distance) = @_;

	for (my $at = emit(300);; $at = emit(300))
	{
		my $more = $page - $at % $page - $distance - $length_of_300;
		return emit(300 + $more) if $more >= 0;
	}
}

sub crash_and_start
{
	$node->stop('immediate');
	$node->start;
	return;
}

# The epoch that began last: its record, and where the WAL before it ends
sub last_epoch
{
	my $log = slurp_file($node->logfile);
	my ($start) = $log =~ /.*WAL is (?:encrypted|in clear) from ([0-9A-F\/]+) on/s
	  or die;
	my $page_before = to_lsn(eval { sql("SELECT '$start' - '0/0'::pg_lsn") } - $page);
	return sql(
		qq{SELECT description FROM pg_get_wal_records_info('$page_before', pg_current_wal_flush_lsn())
		WHERE record_type = 'WAL_EPOCH'});
}

my $rows = 0;

sub insert
{
	sql('INSERT INTO t VALUES (1)');
	$rows++;
	return;
}

sub check_rows
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql('SELECT count(*) FROM t'), $rows, "$what: all rows");
}

#
# WAL that ends 0 to 48 bytes before a page's end
#
foreach my $distance (0, 8, 16, 24, 32, 40, 48)
{
	insert();
	my $end = emit_up_to($distance);
	is(($page - $end % $page) % $page,
		$distance, "WAL ends $distance bytes before a page's end");
	crash_and_start();
	check_rows("$distance bytes");
	my $expected = to_lsn($end);
	like(last_epoch(), qr/WAL before ends \Q$expected\E;/,
		"$distance bytes: not a byte of WAL was lost");
	# the same, cleanly
	insert();
	$node->restart;
	check_rows("$distance bytes, restart");
}

#
# WAL that ends at a segment's beginning, in its last page, or in the one
# before: segments that an epoch's beginning ends are archived
#
my $archive = $node->basedir . '/archive';
mkdir $archive or die;
$node->append_conf('postgresql.conf', qq{
archive_mode = on
wal_level = replica
archive_command = 'test ! -f $archive/%f && cp %p $archive/%f'
});
$node->restart;
foreach my $pages_left (0, 1, 2)
{
	my $what = "$pages_left pages before a segment's end";
	insert();
	if ($pages_left == 0)
	{
		sql('SELECT pg_switch_wal()');
	}
	else
	{
		my $at;
		do { $at = emit(5000) }
		  while int(($segment - 1 - $at % $segment) / $page) + 1 != $pages_left;
	}
	my $file = sql('SELECT pg_walfile_name(pg_current_wal_insert_lsn())');
	crash_and_start();
	check_rows("WAL ends $what");
	insert();
	sql('SELECT pg_switch_wal()');
	wait_archived($node, $file);
	ok(-f "$archive/$file", "WAL ends $what: $file is archived");
	crash_and_start();
	check_rows("WAL ends $what, and a crash");
}
$node->append_conf('postgresql.conf', 'archive_mode = off');
$node->restart;

#
# Starts that die at a step, twice, after a clean shutdown and after a crash
#
sub die_twice
{
	my ($what, $point, $is_clean) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$ENV{COFFER_CRASH_AT} = $point;
	foreach my $try (1, 2)
	{
		my $log = -s $node->logfile;
		is($node->start(fail_ok => 1), 0, "$what: start $try dies");
		like(slurp_file($node->logfile, $log), qr/crash at "$point"/,
			"$what: where it should");
		my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
		like(
			$control,
			$is_clean
			? qr/cluster state: +shut down$/m
			: qr/cluster state: +in crash recovery$/m,
			"$what: state in pg_control");
	}
	delete $ENV{COFFER_CRASH_AT};
	return;
}

foreach my $mode ('fast', 'immediate')
{
	foreach my $point ('stored', 'marker', 'written')
	{
		my @what = ("$point after $mode");
		insert();
		$node->stop($mode);
		die_twice("@what", "tde-wal-epoch-$point", $mode eq 'fast');
		$node->start;
		check_rows("@what");
		insert();
		crash_and_start();
		check_rows("@what, and a crash");
	}
}

#
# Starts that die at their end, twice: behind the checkpoint at the end of crash
# recovery, or that encryption begins with, and behind a record of changed
# settings
#
foreach my $setting ('on', 'off', 'on')
{
	foreach my $mode ('immediate', 'fast')
	{
		my $what = "end of a start after $mode, $setting";
		insert();
		my $connections = sql('SHOW max_connections') + 1;
		$node->append_conf('postgresql.conf',
			"max_connections = $connections\npg_tde.wal_encrypt = $setting\n");
		$node->stop($mode);
		die_twice($what, 'promotion-after-wal-segment-cleanup', 1);
		$node->start;
		check_rows($what);
		is(sql('SHOW max_connections'), $connections, "$what: settings");
		is(sql('SELECT pg_tde_is_wal_encrypted()'),
			$setting eq 'on' ? 't' : 'f', "$what: WAL is as it is set");
		insert();
		crash_and_start();
		check_rows("$what, and a crash");
	}
}

#
# Torn writes of the two pages: they are written by a start that then dies, and
# lose a part
#
sub wal_file
{
	my ($lsn) = @_;
	return $node->data_dir . '/pg_wal/' . segment_name(1, $lsn);
}

# Overwrite a part of WAL with zeros
sub tear
{
	my ($lsn, $len) = @_;
	open(my $fh, '+<:raw', wal_file($lsn)) or die "could not open: $!";
	sysseek($fh, $lsn % $segment, 0) or die;
	syswrite($fh, "\0" x $len) == $len or die;
	close($fh);
	return;
}

foreach my $torn ([ 'marker', 0 ], [ 'record of the epoch', 512 ],
	[ 'record of the epoch', 4096 ], [ 'page of the epoch', 0 ])
{
	my ($what, $at) = @$torn;
	insert();
	my $end = end_of_wal();
	$node->stop('immediate');
	$ENV{COFFER_CRASH_AT} = 'tde-wal-epoch-written';
	$node->start(fail_ok => 1);
	delete $ENV{COFFER_CRASH_AT};
	if ($what eq 'marker')
	{
		tear($end, 8);
	}
	else
	{
		my $p1 = int(($end + $page - 1) / $page) * $page;
		tear($p1 + $at, $at == 0 ? $page : $page - $at);
	}
	$node->start;
	check_rows("torn $what, $at");
	insert();
	crash_and_start();
	check_rows("torn $what, $at, and a crash");
}

#
# A record that a crash cut off at a page's end
#
foreach my $again (0, 1)
{
	insert();
	my $from = emit(1);
	$from = emit(4000) while $page - $from % $page < 1000;
	my $end = emit(20000);
	$node->stop('immediate');
	my $cut = int($from / $page) * $page + $page;
	my $file = wal_file($cut);
	my $rest = $segment - $cut % $segment;

	if (wal_file($end) ne $file)
	{
		unlink wal_file($end);
	}
	tear($cut, $rest);
	if ($again)
	{
		# the start that overwrites it dies when it has done so
		$ENV{COFFER_CRASH_AT} = 'tde-wal-epoch-written';
		is($node->start(fail_ok => 1), 0, 'start dies');
		delete $ENV{COFFER_CRASH_AT};
	}
	my $log = -s $node->logfile;
	$node->start;
	check_rows("record cut off, $again");
	like(slurp_file($node->logfile, $log),
		qr/successfully skipped missing contrecord at/,
		'record cut off: recovery steps over it')
	  if $again;
	insert();
	crash_and_start();
	check_rows("record cut off, $again, and a crash");
}

done_testing();
