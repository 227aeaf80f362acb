# Copyright (c) 2026, the Coffer authors

# Where WAL goes from clear to encrypted, nothing in clear is left in segments that
# are to be written, nor gets there again by recycling: on a primary, also one that
# is killed while it scrubs, and on a standby, whose last segment is archived with
# its promotion, and is in a backup that is taken from it.

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
my $canary = 'CANARY-recycled-with-its-segment-';

# WAL is removed by each checkpoint, and most of it recycled
my $recycling = q{
shared_preload_libraries = 'pg_tde, test_tde_storage'
autovacuum = off
checkpoint_timeout = 1h
wal_keep_size = 0
min_wal_size = 24MB
max_wal_size = 24MB
log_min_messages = log
};

sub fill
{
	my ($node, $rows) = @_;
	$node->safe_psql('postgres',
		"INSERT INTO t SELECT '$canary' || repeat('x', 400) FROM generate_series(1, $rows)");
	return;
}

# Segments, with how many pages from a position on have a canary; those of no
# page left out
sub unused_with_canaries
{
	my ($node, $from) = @_;
	my $wal = $node->data_dir . '/pg_wal';
	my %found;

	foreach my $file (grep { /^[0-9A-F]{24}$/ } slurp_dir($wal))
	{
		my $start = hex(substr($file, 8, 8)) * 2**32 + hex(substr($file, 16)) * $segment;
		my $content = slurp_bytes("$wal/$file");

		for (my $at = 0; $at < length $content; $at += $page)
		{
			next if $start + $at < $from;
			$found{$file}++ if index(substr($content, $at, $page), $canary) >= 0;
		}
	}
	return %found;
}

sub position
{
	my ($node, $function) = @_;
	return $node->safe_psql('postgres', "SELECT $function() - '0/0'");
}

sub no_canaries
{
	my ($what, $node, $from) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %found = unused_with_canaries($node, $from);
	return is(join(', ', map { "$_: $found{$_} pages" } sort keys %found),
		'', "$what: nothing in clear in segments to come");
}

# Where the last epoch that a log speaks of began
sub epoch_began
{
	my ($node) = @_;
	my ($lsn) =
	  slurp_file($node->logfile) =~ /.*WAL is (?:encrypted|in clear) from ([0-9A-F\/]+) on/s
	  or die 'no epoch began on ' . $node->name;
	return from_lsn($lsn);
}

# A server whose segments to come are full of canaries
sub full_node
{
	my ($name, %params) = @_;
	my $node = tde_node($name, extra => [ '--wal-segsize' => 1 ], %params);

	$node->append_conf('postgresql.conf', $recycling);
	$node->start;
	tde_setup($node);
	$node->safe_psql('postgres', 'CREATE TABLE t (a text) USING tde_heap');
	return $node;
}

#
# On a primary
#
my $node = full_node('main');
fill($node, 40000);
$node->safe_psql('postgres', 'CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
fill($node, 10);
my $end = position($node, 'pg_current_wal_insert_lsn');
my %before = unused_with_canaries($node, $end);
cmp_ok(scalar keys %before, '>', 10,
	'control: segments were recycled with what is in clear');

# The current one has a tail of that kind, too.
my $current = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
ok(exists $before{$current}, 'control: so was the one that is written');

$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->stop;
{
	local $ENV{COFFER_CRASH_AT} = 'tde-wal-segment-scrubbed';
	$node->start(fail_ok => 1);
}
like(slurp_file($node->logfile), qr/crash at "tde-wal-segment-scrubbed"/,
	'a start was killed while it scrubbed');
my %left = unused_with_canaries($node, $end);
cmp_ok(scalar keys %left, '>', 5, 'control: it left most for the next start');
$node->start;
like(
	slurp_file($node->logfile),
	qr/LOG:  overwrote \d+ kB of WAL in clear in \d+ unused segments/,
	'the next start says what it has overwritten');
no_canaries('after a start', $node, epoch_began($node));

# Segments with WAL from before are not recycled.
foreach (1 .. 3)
{
	$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
	fill($node, 2000);
	$node->safe_psql('postgres', 'CHECKPOINT');
	no_canaries("after checkpoint $_", $node, position($node, 'pg_current_wal_insert_lsn'));
}
my $encrypted = () = grep { $_ gt $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())') }
  grep { /^[0-9A-F]{24}$/ } slurp_dir($node->data_dir . '/pg_wal');
cmp_ok($encrypted, '>', 0, 'those with encrypted WAL are');
my $log = -s $node->logfile;
$node->restart;
unlike(slurp_file($node->logfile, $log), qr/overwrote/,
	'a start after encrypted WAL overwrites nothing');

# Off, and on again
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = off\n");
$node->restart;
fill($node, 20000);
$node->safe_psql('postgres', 'CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
fill($node, 10);
%before = unused_with_canaries($node, position($node, 'pg_current_wal_insert_lsn'));
cmp_ok(scalar keys %before, '>', 5, 'control: recycled while WAL is in clear again');
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->stop('immediate');
$node->start;
no_canaries('after a crash', $node, epoch_began($node));
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	66020, 'all rows');
$node->stop;

#
# On a standby, which is not to encrypt itself
#
my $primary = full_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', "wal_keep_size = 1GB\n");
$primary->reload;
$primary->backup('start');

# A standby that has an archive of its own
sub standby
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($primary, 'start', has_streaming => 1);
	my $archive = $node->basedir . '/archive';
	mkdir $archive or die;
	$node->append_conf(
		'postgresql.conf', qq{
$recycling
archive_mode = on
archive_command = 'cp %p $archive/%f'
wal_retrieve_retry_interval = 100ms
});
	$node->start;
	return $node;
}

# What the last segment of a timeline, as archived with a promotion, has behind
# the end of its WAL
sub archived_behind
{
	my ($node, $lsn) = @_;
	my $file = segment_name(1, $lsn) . '.partial';
	$node->poll_query_until('postgres',
		"SELECT (pg_stat_file('pg_wal/archive_status/$file.done', true)).size IS NOT NULL")
	  or die 'the last segment of the timeline was not archived';
	return substr(slurp_bytes($node->basedir . "/archive/$file"), $lsn % $segment);
}

my $standby = standby('standby');
my $other = standby('other');
fill($primary, 40000);
$primary->safe_psql('postgres', 'CHECKPOINT');
foreach ($standby, $other)
{
	$primary->wait_for_replay_catchup($_);
	$_->safe_psql('postgres', 'CHECKPOINT');
}
fill($primary, 6000);
$primary->safe_psql('postgres', 'CHECKPOINT; SELECT pg_switch_wal()');
fill($primary, 10);
$primary->wait_for_replay_catchup($_) foreach $standby, $other;
%before = unused_with_canaries($standby, position($standby, 'pg_last_wal_replay_lsn'));
cmp_ok(scalar keys %before, '>', 10, 'control: a standby recycles them, too');
$current = segment_name(1, position($standby, 'pg_last_wal_replay_lsn'));
ok(exists $before{$current}, 'control: so was the one that it writes');

# One that encrypts from its promotion on
$other->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$other->restart;
$primary->wait_for_replay_catchup($other);
$end = position($other, 'pg_last_wal_replay_lsn');
isnt(index(
		substr(slurp_bytes($other->data_dir . '/pg_wal/' . segment_name(1, $end)), $end % $segment),
		$canary),
	-1, 'control: a standby that is to be promoted has such a segment, too');
$other->promote;
is(index(archived_behind($other, $end), $canary),
	-1, 'nothing in clear is behind the end of WAL in the one that is archived');
no_canaries('after a promotion', $other, epoch_began($other));
$other->stop;

# The primary
$primary->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$primary->restart;
$primary->wait_for_replay_catchup($standby);
like(
	slurp_file($standby->logfile),
	qr/LOG:  overwrote \d+ kB of WAL in clear in \d+ unused segments/,
	'the standby says what it has overwritten');
no_canaries('on the standby', $standby, epoch_began($primary));

# Streaming goes on where it was, and a segment that the standby has not got to
# the end of has nothing behind what it received.
$primary->safe_psql('postgres', "INSERT INTO t VALUES ('encrypted')");
$primary->wait_for_replay_catchup($standby);
no_canaries('streaming again', $standby, epoch_began($primary));

$primary->safe_psql('postgres', 'SELECT pg_switch_wal(); CHECKPOINT');
fill($primary, 1500);
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_replay_catchup($standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
no_canaries('after a restartpoint', $standby, position($standby, 'pg_last_wal_replay_lsn'));

$standby->command_ok(
	[
		'pg_basebackup', '--pgdata', $standby->basedir . '/fetched',
		'--wal-method' => 'fetch', '--no-sync', '--checkpoint' => 'fast',
		'--dbname' => $standby->connstr('postgres')
	],
	'pg_basebackup with the segments of a standby');
is(join(' ', files_with($standby->basedir . '/fetched/pg_wal', $canary)),
	'', 'which have nothing in clear');

# Nothing is received any more; the last segment is archived.  (The first one to
# read rows writes hint bits, and WAL.)
my $rows = $primary->safe_psql('postgres', 'SELECT count(*) + 10 FROM t');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
fill($primary, 10);
$primary->wait_for_replay_catchup($standby);
$primary->stop('immediate');
$end = position($standby, 'pg_last_wal_replay_lsn');
$standby->promote;
is(index(archived_behind($standby, $end), $canary),
	-1, 'nothing in clear is behind the end of its WAL');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'), $rows, 'all rows');
$standby->stop;

done_testing();
