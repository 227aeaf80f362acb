# Copyright (c) 2026, the Coffer authors

# Recycled segments have WAL in clear from before it was encrypted.  None of it
# is left where encrypted WAL goes: on the primary, on a standby, in what is
# archived and backed up from there.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $primary = tde_node('primary', allows_streaming => 1,
	extra => [ '--wal-segsize' => 1 ]);
$primary->append_conf('postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
min_wal_size = 32MB
max_wal_size = 32MB
});
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres', 'CREATE TABLE t (a int, b text) USING tde_heap');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->enable_archiving;
$standby->start;

sub wal { return $_[0]->data_dir . '/pg_wal'; }

sub sql { return $primary->safe_psql('postgres', $_[0]); }

sub current_segment { return sql('SELECT pg_walfile_name(pg_current_wal_lsn())'); }

# The segments with canaries, behind one or all
sub dirty
{
	my ($node, $behind) = @_;
	return grep { !defined $behind || $_ gt $behind }
	  map { s{.*/}{}r } files_with(wal($node), $canary);
}

sub catch_up
{
	$primary->wait_for_replay_catchup($standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# WAL in clear, and segments recycled
sub fill
{
	sql("INSERT INTO t SELECT g, '$canary' || repeat('x', 500) FROM generate_series(1, 20000) g");
	sql('CHECKPOINT');
	catch_up();
	return;
}
fill() foreach 1, 2;
cmp_ok(scalar(dirty($primary, current_segment())),
	'>', 3, 'the primary has recycled segments with WAL in clear');
cmp_ok(scalar(dirty($standby, current_segment())),
	'>', 3, 'so has the standby');

#
# Encryption begins in the middle of such a segment
#
sql("SELECT pg_switch_wal(); SELECT pg_logical_emit_message(false, 't', 'x')");
catch_up();
my $begin = current_segment();
ok(scalar(grep { $_ eq $begin } dirty($primary)), 'this one, too');
$primary->stop;
$_->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n")
  foreach $primary, $standby;
$standby->restart;
my $log = -s $primary->logfile;
$primary->start;
is(join(' ', dirty($primary, $begin)), '', 'none of them is left on the primary');
is(join(' ', grep { $_ eq $begin } dirty($primary)),
	'', 'nor is what was behind the end of WAL');
like(slurp_file($primary->logfile, $log),
	qr/LOG:  removed \d+ recycled WAL segments with WAL in clear/, '... which is said');

#
# Segments in clear go, and encrypted ones are recycled
#
sub fill_encrypted
{
	foreach my $n (1 .. 3)
	{
		sql('INSERT INTO t SELECT g, repeat(md5(g::text), 15) FROM generate_series(1, 10000) g');
		sql('CHECKPOINT');
		catch_up();
	}
	return;
}
fill_encrypted();
is(join(' ', dirty($primary)), '', 'nothing in clear is recycled on the primary');
cmp_ok(scalar(grep { /^[0-9A-F]{24}$/ && $_ gt current_segment() } slurp_dir(wal($primary))),
	'>', 3, '... and encrypted segments are');

# The standby's old ones are cleaned when they are opened.
my $now = current_segment();
is( join(' ', grep { $_ le $now && $_ gt $begin } dirty($standby)),
	'', 'the standby has nothing in clear in segments that were received');
is(join(' ', grep { $_ eq $begin } dirty($standby)),
	'', '... nor in that in which encryption began');

#
# What is copied from a standby: a backup with its segments, and the last one
# of a timeline
#
my $backup = $standby->basedir . '/fetched';
command_ok(
	[
		'pg_basebackup', '--no-sync', '-c', 'fast', '-X', 'fetch',
		'-d' => $standby->connstr('postgres'), '-D' => $backup
	],
	'backup of the standby');
is(join(' ', files_with("$backup/pg_wal", $canary)), '', '... has nothing in clear');

sql("SELECT pg_switch_wal(); SELECT pg_logical_emit_message(false, 't', 'x', true)");
$primary->wait_for_replay_catchup($standby);
my $end = current_segment();
$primary->stop('immediate');
# as if it had been recycled when it was opened
my $path = wal($standby) . "/$end";
my $content = slurp_bytes($path);
substr($content, -8192) = pack('a24', '') . $canary x 200 . "\0" x (8192 - 24 - 200 * length($canary));
open(my $fh, '+<:raw', $path) or die;
print $fh $content;
close $fh or die;
$standby->promote;
my $partial = $standby->archive_dir . "/$end.partial";
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e $partial;
	select(undef, undef, undef, 0.1);
}
ok(-e $partial, 'the last segment of the timeline is archived');
is(join(' ', files_with($standby->archive_dir, $canary)),
	'', '... without anything in clear');
$standby->stop;

done_testing();
