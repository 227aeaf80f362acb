# Copyright (c) 2026, the Coffer authors

# Encrypted WAL goes on, on another server and timeline: failovers and
# switchovers with standbys that follow, at each kind of place in WAL, also when
# they have an epoch's record and nothing of the epoch; promotions that die at
# each step; encryption that begins or ends with a promotion.  The archive
# leads through all of it.

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
	"shared_preload_libraries = 'pg_tde, injection_points'\n");
$first->start;
tde_setup($first);
$first->safe_psql(
	'postgres', q{
	CREATE EXTENSION injection_points;
	CREATE TABLE t (a int, b text) USING tde_heap});
record_key_stream($first);
encrypt_wal($first);
$first->backup('start');

my $archive = $first->archive_dir;

# A standby from that backup
sub standby
{
	my ($name, $upstream) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($first, 'start');
	follow($node, $upstream);
	$node->start;
	return $node;
}

my $primary = $first;
my $last_row = 0;

sub insert
{
	my ($node) = @_;

	$node = $primary unless defined $node;
	$last_row++;
	$node->safe_psql('postgres', fill_sql('t', $canary, $last_row, $last_row + 19));
	$last_row += 19;
	return;
}

sub rows { return $_[0]->safe_psql('postgres', rows_sql('t')); }

# All of them have the rows of the first.
sub check_rows
{
	my ($what, $node, @others) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $rows = rows($node);

	is($rows =~ /^(\d+)/ ? $1 : '', $last_row, "$what: all rows");
	foreach my $other (@others)
	{
		wait_replayed($node, $other);
		is(rows($other), $rows, "$what: rows on " . $other->name);
	}
	return;
}

# Where WAL ended, as the log of the one that went on says
sub epoch_began_at
{
	my ($node, $from) = @_;
	my ($lsn) =
	  slurp_file($node->logfile, $from) =~
	  /.*WAL is (?:encrypted|in clear) from ([0-9A-F\/]+) on/s
	  or die 'no epoch began on ' . $node->name;
	return from_lsn($lsn);
}

sub timeline
{
	my ($node) = @_;
	return hex($node->safe_psql('postgres',
		'SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)'));
}

# The new primary takes over; nothing that the old one wrote is lost, so that
# it and the others can follow.  WAL ends at "where" (see write_up_to).
sub failover
{
	my ($what, $new, $others, $where, $quiet) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $old = $primary;
	my $log = -s $new->logfile;
	my $end;
	my %pids = reverse map { split /\|/ } split /\n/,
	  $old->safe_psql('postgres',
		'SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()');

	# The old one may not write anything after that: no running transactions,
	# no hint bits that a query sets, no checkpoint, which a promotion is
	# followed by.
	$old->safe_psql('postgres', 'CHECKPOINT');
	insert();
	kill 'STOP', $pids{'background writer'};
	$end = write_up_to($old, @{ $where || [ 20, 4000 ] });
	$_->poll_query_until('postgres',
		"SELECT pg_last_wal_replay_lsn() - '0/0' >= $end")
	  or die "no WAL on " . $_->name
	  foreach $new, @$others;
	$old->kill9;
	kill 'KILL', $pids{'background writer'};
	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless kill(0, values %pids);
		select(undef, undef, undef, 0.1);
	}
	is($new->safe_psql('postgres', 'SELECT pg_promote()'),
		't', "$what: promoted");
	$primary = $new;
	is( to_lsn(epoch_began_at($new, $log)),
		to_lsn(int(($end + $page - 1) / $page) * $page + $page),
		"$what: WAL ended at " . to_lsn($end)) unless $quiet;
	insert();
	follow($_, $new) foreach $old, @$others;
	$old->start;
	check_rows($what, $new, $old, @$others);
	return;
}

#
# Failover, with a sibling that waits at the end of WAL, and one behind the
# one that is promoted
#
my $second = standby('second', $first);
my $third = standby('third', $first);
my $behind = standby('behind', $second);
insert();
check_rows('at first', $first, $second, $third);
wait_replayed($first, $behind, $second);

tde_crash($first);
$second->promote;
$primary = $second;
insert();
follow($third, $second);
check_rows('failover', $second, $third, $behind);
# all of them again, from what they have on disk
tde_crash($_) foreach $third, $behind;
insert();
tde_crash($second);
$_->start foreach $second, $third, $behind;
insert();
check_rows('failover, and a crash of all', $second, $third, $behind);
$third->restart;
$behind->restart;
check_rows('failover, and a restart', $second, $third, $behind);

#
# Switchover: the old one is stopped cleanly and follows
#
insert();
$second->stop;
$third->promote;
$primary = $third;
follow($_, $third) foreach $second, $behind;
$second->start;
insert();
check_rows('switchover', $third, $second, $behind);

#
# At each kind of place in WAL: in the middle of a page; in the last but one of
# a segment, so that the epoch's record ends the segment; in the last page, so
# that the next segment begins with the record; exactly at a page's end, and at
# a segment's; and so near to a page's end that nothing but the marker fits
#
my ($a, $b, $c) = ($third, $second, $behind);
foreach my $case (
	[ 'middle of a page', 20, 4000 ],
	[ 'last page but one', 1, 4000 ],
	[ 'last page', 0, 4000 ],
	[ "page's end", 20, 0 ],
	[ "segment's end", 0, 0 ],
	[ "end of the last page but one", 1, 0 ],
	[ "8 bytes before a segment's end", 0, 8 ])
{
	my ($what, @where) = @$case;
	failover($what, $b, [$c], \@where);
	($a, $b, $c) = ($b, $c, $a);
}

#
# Encryption ends, or begins, with a promotion
#
foreach my $setting ('off', 'off', 'on', 'on')
{
	my $log = -s $b->logfile;
	$b->append_conf('postgresql.conf', "pg_tde.wal_encrypt = $setting\n");
	$b->restart;
	failover("to $setting", $b, [$c], undef, $setting eq 'off');
	is($_->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
		$setting eq 'on' ? 't' : 'f', "$setting: on " . $_->name)
	  foreach $a, $b, $c;
	tde_crash($b);
	$b->start;
	insert();
	check_rows("to $setting, and a crash", $b, $a, $c);
	($a, $b, $c) = ($b, $c, $a);
}

#
# A crash after the checkpoint at the end of recovery that the first encrypted
# WAL begins with, before the end of the start
#
$b->append_conf('postgresql.conf', "pg_tde.wal_encrypt = off\n");
$b->restart;
failover('to off again', $b, [$c], undef, 1);
($a, $b, $c) = ($b, $c, $a);
insert();
wait_replayed($a, $b);
$b->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$b->restart;
wait_replayed($a, $b);
attach($b, 'promotion-after-wal-segment-cleanup', 'wait');
$b->safe_psql('postgres', 'SELECT pg_promote(false)');
$b->wait_for_event('startup', 'promotion-after-wal-segment-cleanup');
tde_crash($b);
my ($control) = run_command([ 'pg_controldata', $b->data_dir ]);
like($control, qr/Database cluster state: +shut down$/m,
	'to pg_control the checkpoint is the end');
$b->start;
$primary = $b;
tde_crash($a);
insert();
follow($_, $b) foreach $a, $c;
$a->start;
check_rows('crash after the checkpoint', $b, $a, $c);
is($_->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	't', 'and encrypted on ' . $_->name) foreach $a, $b, $c;

#
# The archive has everything: each timeline's segments up to where it ends, and
# leads a server from the first backup through all of it
#
my $tli = timeline($primary);
my $now = $primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
insert();
my $last_segment = $primary->safe_psql('postgres', "SELECT pg_walfile_name('$now')");
wait_archived($primary, $last_segment);
my $history = slurp_file("$archive/" . sprintf('%08X.history', $tli));
my $from = 0;
my @missing;
foreach my $line ($history =~ /^(\d+\t[0-9A-F\/]+)\t/mg, "$tli\t$now")
{
	my ($of, $end) = split /\t/, $line;

	$end = from_lsn($end);
	if ($from > 0)
	{
		for (my $lsn = $from; $lsn < $end; $lsn = (int($lsn / $segment) + 1) * $segment)
		{
			my $name = segment_name($of, $lsn);
			push @missing, $name
			  unless -e "$archive/$name" || -e "$archive/$name.partial";
		}
	}
	$from = $end;
}
is("@missing", '', 'no segment is missing in the archive');

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($first, 'start');
$restored->append_conf('postgresql.conf',
	"restore_command = 'cp $archive/%f %p'\narchive_mode = off\n");
$restored->set_recovery_mode;
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
is( $restored->safe_psql('postgres', 'SELECT max(a) FROM t'),
	$last_row - 20,
	'a server from the archive has all rows but those after its end');
$restored->stop;
$_->stop foreach $c, $a, $b;

key_stream_is_used_once();

done_testing();
