# Copyright (c) 2026, the Coffer authors

# The WAL record of a key and its file are one step to a checkpoint: one that
# takes its redo pointer between the two waits for the file, and syncs it.
# Crashes and errors between the two leave nothing broken.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeStorage;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $t = '(a int) USING tde_heap';
my $primary = life_node('primary', allows_streaming => 1);
# fsync and debug messages to see which files a checkpoint syncs
$primary->append_conf(
	'postgresql.conf', q{
wal_keep_size = 1GB
fsync = on
log_checkpoints = on
log_min_messages = debug1
});
$primary->start;
tde_setup($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sql("CREATE TABLE live $t; INSERT INTO live VALUES (1);
	CREATE EXTENSION injection_points");
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;
my $oid = sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'});

sub keys_now { return join(' ', sort keys %{ key_files($_[0], 1) }); }

# Relations' keys that are in one list and not in another
sub new_keys
{
	my ($before, $after) = @_;
	my %old = map { $_ => 1 } split / /, $before;
	return grep { !$old{$_} } split / /, $after;
}

# What was never made, nor dropped, leaves orphans behind, which stay: so many
# on primary and standby.
sub check_orphans
{
	my ($old, $label, %orphans) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node ($primary, $standby)
	{
		my $before = $old->{ $node->name };

		$node->restart;
		sql('CHECKPOINT');
		wait_replayed($primary, $standby);
		$standby->safe_psql('postgres', 'CHECKPOINT');
		is(scalar(new_keys($before, keys_now($node))),
			$orphans{ $node->name },
			"$label: orphans on the " . $node->name);
		is(scalar(new_keys(keys_now($node), $before)),
			0, "$label: no other key is gone from the " . $node->name);
	}
	return;
}

#
# A crash at each point, with a checkpoint on its way, and all that is in WAL
# on disk
#
foreach my $point ('tde-key-logged', 'tde-key-installed')
{
	my %before = map { $_->name => keys_now($_) } $primary, $standby;
	attach($primary, $point, 'wait');
	my $creator = parked($primary, 'postgres', $point, "CREATE TABLE lost $t");
	sql('INSERT INTO live VALUES (2); SELECT pg_switch_wal()');
	my $redo = redo_lsn($primary);
	my $checkpoint = $primary->background_psql('postgres');
	$checkpoint->query_until(qr/begun/, "\\echo begun\nCHECKPOINT;\n");
	$primary->wait_for_event('checkpointer', 'CheckpointDelayStart');
	sql('INSERT INTO live VALUES (3)');
	is(redo_lsn($primary), $redo, "$point: a checkpoint waits");
	wait_replayed($primary, $standby);
	my @standby_has = new_keys($before{standby}, keys_now($standby));
	is(scalar(@standby_has), 1, "$point: the standby has the key");

	$primary->stop('immediate');
	eval { $_->quit } foreach $creator, $checkpoint;
	$primary->start;

	is(join(' ', new_keys($before{primary}, keys_now($primary))),
		"@standby_has", "$point: replay brings the key");
	is( key_id($primary, $standby_has[0]),
		key_id($standby, $standby_has[0]),
		"$point: the same one");
	is(sql(q{SELECT to_regclass('lost') IS NULL}),
		't', "$point: there is no such table");
	check_orphans(\%before, "crash at $point", primary => 1, standby => 1);
}

#
# The checkpoint that waited syncs the file and its directory.
#
attach($primary, 'tde-key-logged', 'wait');
my $creator = parked($primary, 'postgres', 'tde-key-logged',
	"CREATE TABLE made $t; INSERT INTO made VALUES (4)");
my $redo = redo_lsn($primary);
my $offset = -s $primary->logfile;
my $checkpoint = $primary->background_psql('postgres');
$checkpoint->query_until(qr/begun/, "\\echo begun\nCHECKPOINT;\n");
$primary->wait_for_event('checkpointer', 'CheckpointDelayStart');
is(redo_lsn($primary), $redo, 'the checkpoint waits');
release($primary, 'tde-key-logged');
$_->quit foreach $creator, $checkpoint;
cmp_ok(redo_lsn($primary), '>', $redo, 'then it is done');
my $number = sql(q{SELECT pg_relation_filenode('made')});
ok( $primary->log_contains(
		qr/checkpoint sync: .*file=pg_tde\/$oid\/$number\.key /, $offset),
	'it has synced the key file');
ok($primary->log_contains(qr/checkpoint sync: .*file=pg_tde\/$oid /, $offset),
	'... and the directory');
# Its redo pointer lies behind the record: replay would not bring the key.
my ($record) = run_command(
	[
		'pg_waldump',
		'--start' => sprintf('0/%X', redo_lsn($primary)),
		'--path' => $primary->data_dir . '/pg_wal'
	]);
unlike($record, qr/rmgr: TDE/, 'the record is before the redo pointer');
tde_crash($primary);
$primary->start;
is(sql('SELECT a FROM made'), '4', 'row of the table after a crash');

#
# An error between record and file
#
foreach my $point ('tde-key-logged', 'tde-key-installed')
{
	my %before = map { $_->name => keys_now($_) } $primary, $standby;
	attach($primary, $point, 'error');
	my ($ret, $out, $err) =
	  $primary->psql('postgres', "CREATE TABLE lost $t");
	like($err, qr/error triggered for injection point $point/,
		"$point: CREATE fails");
	detach($primary, $point);
	sql("CHECKPOINT; CREATE TABLE lost $t; INSERT INTO lost VALUES (5)");
	pass("$point: neither checkpoint nor CREATE TABLE is held up");
	is(sql('SELECT a FROM lost'), '5', "$point: row of the second attempt");
	wait_replayed($primary, $standby);
	is($standby->safe_psql('postgres', 'SELECT a FROM lost'),
		'5', "$point: and on the standby");
	sql('DROP TABLE lost');
	check_orphans(
		\%before, "error at $point",
		primary => $point eq 'tde-key-installed' ? 1 : 0,
		standby => 1);
}

#
# The primary crashes there, and its standby is promoted.
#
my $before = keys_now($standby);
attach($primary, 'tde-key-logged', 'wait');
$creator = parked($primary, 'postgres', 'tde-key-logged',
	"CREATE TABLE lost $t");
sql('INSERT INTO live VALUES (6)');
wait_replayed($primary, $standby);
$primary->stop('immediate');
eval { $creator->quit };
$standby->promote;
my @orphan = new_keys($before, keys_now($standby));
is(scalar(@orphan),
	1, 'the promoted standby has the key of a table that was never made');
$standby->safe_psql('postgres',
	"CREATE TABLE lost $t; INSERT INTO lost VALUES (7)");
is($standby->safe_psql('postgres', 'SELECT a FROM lost'),
	'7', 'row of a table made there');
my $lost = key_of($standby, 'postgres', 'lost');
$standby->restart;
$standby->safe_psql('postgres', 'CHECKPOINT');
is(join(' ', new_keys($before, keys_now($standby))),
	join(' ', sort @orphan, $lost), 'beside that of the living table');
$standby->stop;

done_testing();
