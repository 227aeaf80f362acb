# Copyright (c) 2026, the Coffer authors

# A standby that starts again between the record of a key and the record of
# what the key is for: a database that its primary copies, which takes longer
# than some checkpoints, or a table whose creation stalls.  Its restartpoints
# keep the key; it goes on, after one more start and after promotion; and no
# page of what was empty meanwhile is written in clear.

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

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $canary = 'CANARY-0123456789-abcdefgh';
my $control = 'CONTROL-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';

# One pair of servers a case: the fault kills the standby.
sub pair
{
	my ($case) = @_;
	my $primary = life_node("primary_$case", allows_streaming => 1);

	$primary->append_conf('postgresql.conf', "wal_keep_size = 1GB\n");
	$primary->start;
	tde_setup($primary);
	$primary->safe_psql('postgres', "CREATE TABLESPACE ts LOCATION '';
		CREATE EXTENSION injection_points; CREATE EXTENSION pg_buffercache;
		CREATE DATABASE src");
	tde_setup($primary, 'src');
	$primary->safe_psql(
		'src', qq{
		CREATE TABLE filled $t; CREATE INDEX ON filled (b);
		CREATE TABLE empty $t;
		CREATE TABLE plain (a int, b text);} . fill_sql('filled', $canary, 1, 500));
	$primary->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new("standby_$case");
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	# what is dirty is written soon
	$standby->append_conf('postgresql.conf', "shared_buffers = 1MB\n");
	$standby->start;
	return ($primary, $standby);
}

# A restartpoint after all that was logged up to now
sub restartpoint
{
	my ($primary, $standby) = @_;
	$primary->safe_psql('postgres', 'CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# Two checkpoints and a restart of the standby while somebody is stopped
sub restart_meanwhile
{
	my ($primary, $standby, $case) = @_;
	my $keys = key_files($standby, 1);

	restartpoint($primary, $standby);
	$standby->restart;
	restartpoint($primary, $standby);
	restartpoint($primary, $standby);
	my $now = key_files($standby, 1);
	is(join(' ', grep { !exists $now->{$_} } sort keys %$keys),
		'', "$case: no key is removed from the standby");
	return;
}

# Replayed all, or died?
sub replays
{
	my ($primary, $standby, $case) = @_;
	my $lsn = $primary->lsn('insert');
	my $done;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my ($ret, $out) = $standby->psql('postgres',
			"SELECT pg_last_wal_replay_lsn() >= '$lsn'");
		$done = $ret == 0 && $out eq 't';
		last if $done || !-e $standby->data_dir . '/postmaster.pid';
		select(undef, undef, undef, 0.1);
	}
	ok($done, "$case: the standby replays");
	return 1 if $done;
	diag(join "\n", grep { /FATAL|PANIC|DETAIL/ }
		  split /\n/, slurp_file($standby->logfile));
	$standby->{_pid} = undef;
	return 0;
}

sub rows
{
	my ($node, $db) = @_;
	return join "\n", map { $node->safe_psql($db, rows_sql($_)) } qw(filled empty);
}

sub nothing_in_clear
{
	my ($node, $db, $case) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# all but WAL, which is not encrypted here
	write_all($node);
	is(join(' ', grep { !/pg_wal/ } files_with($node->data_dir, $canary)),
		'', "$case: nothing in clear");
	isnt(join(' ', grep { !/pg_wal/ } files_with($node->data_dir, $control)),
		'', "$case: the control is found");
	return;
}

foreach my $case ('move', 'copy')
{
	my ($primary, $standby) = pair($case);
	my ($command, $db) =
	  $case eq 'move'
	  ? ('ALTER DATABASE src SET TABLESPACE ts', 'src')
	  : ('CREATE DATABASE dst TEMPLATE src STRATEGY file_copy', 'dst');

	attach($primary, 'tde-database-keys-copied', 'wait');
	my $session =
	  parked($primary, 'postgres', 'tde-database-keys-copied', $command);
	wait_replayed($primary, $standby);
	restart_meanwhile($primary, $standby, $case);
	release($primary, 'tde-database-keys-copied');
	$session->quit;

	# What was empty is filled when the standby has copied the file.  First
	# this alone, since replay may stop at what has pages.
	if (replays($primary, $standby, $case))
	{
		$primary->safe_psql('postgres', 'CHECKPOINT');
		$primary->safe_psql($db,
			fill_sql('empty', $canary, 1, 500)
			  . fill_sql('plain', $control, 1, 500));
		nothing_in_clear($standby, $db, "$case, empty table filled")
		  if replays($primary, $standby, "$case, empty table filled");
		$primary->psql($db, fill_sql('filled', $canary, 501, 600));
	}
	SKIP:
	{
		skip "$case: the standby is dead", 1
		  unless replays($primary, $standby, "$case, filled");
		my $rows = rows($primary, $db);
		is(rows($standby, $db), $rows, "$case: rows on the standby");
		nothing_in_clear($standby, $db, "$case, standby");
		$standby->restart;
		restartpoint($primary, $standby);
		is(rows($standby, $db), $rows, "$case: and when it starts again");
		$standby->promote;
		$standby->safe_psql('postgres', 'CHECKPOINT');
		is(rows($standby, $db), $rows, "$case: and after promotion");
		$standby->safe_psql($db,
			fill_sql('empty', $canary, 501, 600)
			  . fill_sql('filled', $canary, 601, 700));
		$rows = rows($standby, $db);
		nothing_in_clear($standby, $db, "$case, promoted");
		$standby->restart;
		is(rows($standby, $db), $rows, "$case: promoted, started again");
	}
	$standby->stop('immediate', fail_ok => 1) if $standby->{_pid};
	$primary->stop('immediate');
}

#
# CREATE TABLE stalls when its key is there and its file is not
#
{
	my ($primary, $standby) = pair('create');

	attach($primary, 'tde-key-created', 'wait');
	my $session = parked($primary, 'src', 'tde-key-created',
		"CREATE TABLE late $t");
	wait_replayed($primary, $standby);
	restart_meanwhile($primary, $standby, 'create');
	release($primary, 'tde-key-created');
	$session->quit;
	SKIP:
	{
		skip 'create: the standby is dead', 1
		  unless replays($primary, $standby, 'create');
		$primary->safe_psql('src', fill_sql('late', $canary, 1, 500)
			. fill_sql('plain', $control, 1, 500));
		wait_replayed($primary, $standby);
		my $rows = $primary->safe_psql('src', rows_sql('late'));
		is($standby->safe_psql('src', rows_sql('late')),
			$rows, 'create: rows on the standby');
		nothing_in_clear($standby, 'src', 'create');
		$standby->restart;
		$standby->promote;
		is($standby->safe_psql('src', rows_sql('late')),
			$rows, 'create: and after promotion');
	}
	$standby->stop('immediate', fail_ok => 1) if $standby->{_pid};
	$primary->stop('immediate');
}

# A standby that crashes after a move, or after the template of a copy was dropped,
# replays the copy again, of a source that is gone.  PostgreSQL would leave an empty
# directory.
{
	my ($primary, $standby) = pair('again');

	$primary->safe_psql('postgres', 'CREATE DATABASE template TEMPLATE src');
	restartpoint($primary, $standby);
	$primary->safe_psql('postgres', $_)
	  foreach 'ALTER DATABASE src SET TABLESPACE ts',
	  'CREATE DATABASE copied TEMPLATE template STRATEGY file_copy',
	  'DROP DATABASE template';
	$primary->safe_psql('src', fill_sql('filled', $canary, 501, 600));
	wait_replayed($primary, $standby);
	foreach my $times ('once', 'twice')
	{
		$standby->stop('immediate');
		$standby->start;
		wait_replayed($primary, $standby);
		foreach my $database ('src', 'copied')
		{
			my $rows = $database eq 'src' ? 600 : 500;
			is( $standby->safe_psql($database,
					"SELECT count(*), count(DISTINCT b) > 0 FROM filled WHERE b LIKE '$canary%'"),
				"$rows|t",
				"replayed again, $times: all rows of $database");
		}
	}
	$primary->safe_psql('postgres', 'ALTER DATABASE src SET TABLESPACE pg_default');
	wait_replayed($primary, $standby);
	$standby->stop('immediate');
	$standby->start;
	wait_replayed($primary, $standby);
	is($standby->safe_psql('src', 'SELECT count(*) FROM filled'),
		600, 'moved there and back: all rows');
	$standby->stop;
	$primary->stop;
}

done_testing();
