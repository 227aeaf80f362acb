# Copyright (c) 2026, the Coffer authors

# Promotions that die in the middle of beginning an epoch, and servers that
# have of a new timeline only the marker, or only the record of its epoch: they
# are stopped, flush pages, take restartpoints, are promoted, are followed, and
# go on when the rest comes.

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

my $page = 8192;
my $segment = 1024 * 1024;
my $canary = 'CANARY-0123456789-abcdefgh';

my $first = wal_node('first');
$first->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_tde, test_tde_storage'\n");
$first->start;
tde_setup($first);
$first->safe_psql('postgres', 'CREATE TABLE t (a int, b text) USING tde_heap');
record_key_stream($first);
encrypt_wal($first);
$first->backup('start');
my $archive = $first->archive_dir;

sub insert
{
	$_[0]->safe_psql('postgres', fill_sql('t', $canary, 1, 20));
	return;
}

sub rows { return $_[0]->safe_psql('postgres', rows_sql('t')); }

sub node_from
{
	my ($root, $backup, $name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($root, $backup);
	$node->append_conf('postgresql.conf', $conf);
	return $node;
}

# It can be written to, crashes, and has its rows.
sub goes_on
{
	my ($what, $node) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	insert($node);
	my $rows = rows($node);
	tde_crash($node);
	$node->start;
	is(rows($node), $rows, "$what: rows after a crash");
	insert($node);
	$rows = rows($node);
	$node->restart;
	is(rows($node), $rows, "$what: rows after a restart");
	return;
}

#
# Promotions that die at a step
#
foreach my $point ('stored', 'marker', 'written')
{
	my $node = node_from($first, 'start', "dies-$point", "archive_mode = off\n");
	follow($node, $first);
	$ENV{COFFER_CRASH_AT} = "tde-wal-epoch-$point";
	$node->start;
	delete $ENV{COFFER_CRASH_AT};
	insert($first);
	my $rows = rows($first);
	wait_replayed($first, $node);
	system_log('pg_ctl', '--no-wait', '--pgdata' => $node->data_dir, 'promote');
	wait_stopped($node);
	like(slurp_file($node->logfile), qr/crash at "tde-wal-epoch-$point"/,
		"promotion dies at $point");
	$node->kill9;				# it is gone; say so
	$node->start;
	is(rows($node), $rows, "died at $point: rows");
	goes_on("died at $point", $node);
	$node->stop('immediate');
}

#
# A new timeline, and archives in which it ends early
#
my $second = node_from($first, 'start', 'second', '');
follow($second, $first);
$second->start;
insert($first);
$first->safe_psql('postgres', 'CHECKPOINT');
insert($first);
my $rows_before = rows($first);
wait_replayed($first, $second);
$second->promote;
$first->stop('immediate');
insert($second);
my $rows_after = rows($second);
my $last = $second->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
insert($second);
wait_archived($second, $last);

my ($p2) = slurp_file($second->logfile) =~
  /.*WAL is encrypted from ([0-9A-F]+\/[0-9A-F]+) on/s
  or die;
my ($end) = slurp_file("$archive/00000002.history") =~ /^1\t([0-9A-F]+\/[0-9A-F]+)\t/m
  or die;
my %cut = (
	record => [ $p2, $second->safe_psql('postgres', "SELECT '$p2' - '0/0'::pg_lsn") ]);
$cut{marker} = [ $end, $cut{record}[1] - $page ];

# The archive up to there
sub cut_archive
{
	my ($dir, $lsn) = @_;
	my $of_cut = segment_name(2, $lsn);

	mkdir $dir or die;
	foreach my $file (slurp_dir($archive))
	{
		next unless -f "$archive/$file";
		next if $file =~ /^00000001.*partial$/;
		next if $file =~ /^00000002[0-9A-F]{16}$/ && $file gt $of_cut;
		copy("$archive/$file", "$dir/$file") or die;
	}
	return if $lsn % $segment == 0;
	open(my $fh, '+<:raw', "$dir/$of_cut") or die "could not open \"$of_cut\": $!";
	sysseek($fh, $lsn % $segment, 0) or die;
	syswrite($fh, "\0" x ($segment - $lsn % $segment));
	close($fh);
	return;
}

sub is_at
{
	my ($node, $lsn) = @_;
	$node->poll_query_until('postgres',
		"SELECT pg_last_wal_replay_lsn() = '$lsn'");
	return;
}

foreach my $what ('marker', 'record')
{
	my ($lsn, $cut_at) = @{ $cut{$what} };
	my $dir = $first->basedir . "/cut-$what";

	cut_archive($dir, $cut_at);
	my $node = node_from($first, 'start', "waits-$what",
		"restore_command = 'cp $dir/%f %p'\narchive_mode = off\n");
	$node->set_standby_mode;
	$node->start;
	is_at($node, $lsn);
	is(rows($node), $rows_before, "$what: standby is at the end");
	$node->restart;
	is_at($node, $lsn);
	is(rows($node), $rows_before, "$what: and after a restart");
	tde_crash($node);
	$node->start;
	is_at($node, $lsn);
	is(rows($node), $rows_before, "$what: and after a crash");
	$node->safe_psql('postgres', 'CHECKPOINT');
	my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
	like(
		$control,
		$what eq 'record'
		? qr/^Minimum recovery ending location: +\Q$lsn\E$/m
		: qr/^Minimum recovery ending location: +[0-9A-F]+\/[0-9A-F]+$/m,
		"$what: pages are flushed");
	like($control, qr/^Min recovery ending loc's timeline: +2$/m,
		"$what: on the new timeline")
	  if $what eq 'record';
	tde_crash($node);
	$node->start;
	is_at($node, $lsn);
	is(rows($node), $rows_before, "$what: and after a crash with these");
	$node->stop;
	$node->backup_fs_cold('waiting');

	# promoted, with a sibling that waits at the same place
	my ($promoted, $sibling) =
	  map { node_from($node, 'waiting', "$_-$what", '') }
	  ('promoted', 'sibling');
	foreach my $standby ($promoted, $sibling)
	{
		$standby->set_standby_mode;
		$standby->start;
		is_at($standby, $lsn);
	}
	$promoted->promote;
	follow($sibling, $promoted);
	insert($promoted);
	wait_replayed($promoted, $sibling);
	is(rows($sibling), rows($promoted), "$what: sibling follows who was promoted");
	goes_on("$what: promoted", $promoted);
	wait_replayed($promoted, $sibling);
	is(rows($sibling), rows($promoted), "$what: sibling goes on");
	$promoted->stop;
	$sibling->stop;

	# what comes from an archive only ends there, too
	my $recovered = node_from($node, 'waiting', "recovered-$what", '');
	unlink $recovered->data_dir . '/standby.signal';
	$recovered->set_recovery_mode;
	$recovered->start;
	$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	is(rows($recovered), $rows_before, "$what: recovery ends there");
	goes_on("$what: recovered", $recovered);
	$recovered->stop;

	# the rest comes
	$node->start;
	is_at($node, $lsn);
	$node->stop('immediate') if $what eq 'marker';
	foreach my $file (grep { /^00000002[0-9A-F]{16}$/ } slurp_dir($archive))
	{
		copy("$archive/$file", "$dir/$file.new") or die;
		rename "$dir/$file.new", "$dir/$file" or die;
	}
	$node->start if $what eq 'marker';
	$node->poll_query_until('postgres', 'SELECT count(*) = '
		  . ($rows_after =~ /^(\d+)/ ? $1 : '')
		  . ' FROM t');
	is(rows($node), $rows_after, "$what: and the rest, when it comes");
	follow($node, $second);
	insert($second);
	wait_replayed($second, $node);
	is(rows($node), rows($second), "$what: and what is streamed");
	$node->stop;
}
$second->stop;

key_stream_is_used_once();

done_testing();
