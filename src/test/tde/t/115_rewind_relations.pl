# Copyright (c) 2026, the Coffer authors

# pg_rewind of relations that both branches changed, vacuumed, extended and
# truncated, over the boundaries of their segments where a build has small ones;
# with encrypted WAL that the target has kept, and with such from its archive.
# amcheck, the visibility map and the rows themselves say that all is well.

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

my $canary = 'CANARY-0123456789-abcdefgh';

# What happens to each table on the branch that is given up and on the other
my $delete_tail = 'DELETE FROM t WHERE a > 500';
my $delete_some = 'DELETE FROM t WHERE a % 5 = 1';
my $update = q{UPDATE t SET b = b || 'u' WHERE a % 7 = 2};
my $insert = fill_sql('t', $canary, 2001, 4000);
my $insert_less = fill_sql('t', $canary, 2001, 2500);
my $toast = q{UPDATE t SET b = repeat(b, 30) WHERE a % 50 = 3};
my %changes = (
	changed => [ "$delete_some; $insert", "$update; $insert_less" ],
	grown_old => [ $insert, 'SELECT' ],
	grown_new => [ 'SELECT', $insert ],
	shrunk_old => [ $delete_tail, $update ],
	shrunk_new => [ $update, $delete_tail ],
	shrunk_grown => [ $delete_tail, $insert ],
	grown_shrunk => [ $insert, $delete_tail ],
	truncated_old => [ "TRUNCATE t; $insert_less", $update ],
	truncated_new => [ $update, "TRUNCATE t; $insert_less" ],
	rewritten => [ 'VACUUM FULL t', $delete_some ],
	dropped_old => [ 'DROP TABLE t', $update ],
	dropped_new => [ $insert, 'DROP TABLE t' ],
	toasted => [ $toast, "$delete_some; $toast" ],
	# dead rows that only one side removes, and marks their pages as all visible
	vacuumed_old => [ 'SELECT', 'SELECT' ]);

sub tables
{
	my ($node) = @_;
	return split /\n/,
	  $node->safe_psql('postgres',
		q{SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1}
	  );
}

sub change
{
	my ($node, $side) = @_;

	# what is deleted may be removed by VACUUM: nobody has an old snapshot
	foreach my $table (sort keys %changes)
	{
		$node->safe_psql('postgres', $changes{$table}[$side] =~ s/\bt\b/$table/gr);
	}
	$node->safe_psql('postgres',
		"CREATE TABLE only_$side (a int PRIMARY KEY, b text) USING tde_heap;"
		  . fill_sql("only_$side", $canary, 1, 1000));
	$side == 0
	  ? $node->safe_psql('postgres', 'VACUUM')
	  : vacuum_others($node, '(FREEZE, INDEX_CLEANUP on)');
	return;
}

# all tables but the one that only the target vacuums
sub vacuum_others
{
	my ($node, $options) = @_;
	$node->safe_psql('postgres',
		"VACUUM $options " . join(', ', grep { $_ ne 'vacuumed_old' } tables($node)));
	return;
}

# No corruption: pages, indexes against tables, maps against tables
sub check_relations
{
	my ($what, $node, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->command_ok(
		[
			'pg_amcheck', '--heapallindexed', @options,
			'--database' => 'postgres'
		],
		"$what: amcheck");
	foreach my $f ('pg_check_visible', 'pg_check_frozen')
	{
		is( $node->safe_psql(
				'postgres',
				join(' UNION ALL ', map { "SELECT '$_', * FROM $f('$_')" } tables($node))
			),
			'', "$what: $f");
	}
	return;
}

sub run_case
{
	my ($mode) = @_;

	my $old = life_node(
		"old_$mode",
		allows_streaming => 1,
		has_archiving => 1,
		extra => [ '--wal-segsize' => 1 ]);
	my $archive = $old->archive_dir;
	my $keep = $mode eq 'archive' ? 0 : '1GB';
	$old->append_conf('postgresql.conf', "wal_keep_size = $keep\nmax_wal_size = 20MB\n");
	$old->start;
	tde_setup($old);
	$old->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
	$old->restart;
	$old->safe_psql('postgres', "CREATE EXTENSION $_")
	  foreach qw(amcheck pg_visibility pg_freespacemap);
	foreach my $table (sort keys %changes)
	{
		$old->safe_psql(
			'postgres', qq{
			CREATE TABLE $table (a int PRIMARY KEY, b text) USING tde_heap;
			ALTER TABLE $table ALTER b SET STORAGE EXTERNAL;
			CREATE INDEX ON $table (substr(b, 1, 100));}
			  . fill_sql($table, $canary, 1, 1000));
	}
	$old->safe_psql('postgres', 'VACUUM');
	$old->backup('start');
	my $new = PostgreSQL::Test::Cluster->new("new_$mode");
	$new->init_from_backup($old, 'start', has_streaming => 1);
	$new->append_conf('postgresql.conf', "archive_mode = off\nwal_keep_size = 1GB\n");
	$new->start;

	# Replay will begin at this checkpoint, some segments before they part.  It
	# does not touch what was deleted before.
	$old->safe_psql('postgres', $delete_some =~ s/\bt\b/vacuumed_old/r);
	$old->safe_psql('postgres', 'CHECKPOINT');
	wait_replayed($old, $new);
	$new->safe_psql('postgres', 'CHECKPOINT');
	foreach my $i (1 .. 3)
	{
		$old->safe_psql('postgres',
			join('', map { fill_sql($_, $canary, 1000 + $i, 1000 + $i) } sort keys %changes)
			  . q{DELETE FROM changed WHERE a % 20 = } . $i);
		$old->safe_psql('postgres', 'SELECT pg_switch_wal()');
	}
	vacuum_others($old, '');
	wait_replayed($old, $new);
	$new->promote;

	# Both sides change, and begin epochs of their own.
	change($old, 0);
	$old->restart;
	$old->safe_psql('postgres', $update =~ s/\bt\b/changed/r);
	tde_crash($old);
	$old->start;
	$old->safe_psql('postgres', 'VACUUM changed; CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
	check_relations("$mode, target before", $old, '--parent-check');
	change($new, 1);
	$new->restart;
	$new->safe_psql('postgres', $update =~ s/\bt\b/changed/r);
	$new->safe_psql('postgres', 'VACUUM changed; CHECKPOINT');
	check_relations("$mode, source", $new, '--parent-check');

	# In a build with small segments there are many.
	my $blocks = $old->safe_psql('postgres',
		q{SELECT setting FROM pg_settings WHERE name = 'segment_size'});
	my $path = $new->data_dir . '/' . relation_path($new, 'postgres', 'changed');
	is(-e "$path.1" ? 'many' : 'one',
		$blocks < 1000 ? 'many' : 'one',
		"$mode: segments of $blocks blocks");

	#
	# Rewind
	#
	$old->stop;
	my @wal = grep { /^00000001/ } slurp_dir($old->data_dir . '/pg_wal');
	my @archived = grep { /^00000001[0-9A-F]{16}$/ } slurp_dir($archive);
	cmp_ok(scalar(@archived), '>', scalar(@wal) + 3,
		"$mode: much of WAL is in the archive only") if $mode eq 'archive';
	$old->append_conf('postgresql.conf', "restore_command = 'cp $archive/%f %p'\n")
	  if $mode eq 'archive';
	my $conf = slurp_file($old->data_dir . '/postgresql.conf');
	my @source = ('--source-server' => $new->connstr('postgres'));

	# The source has nothing of before: the target needs what it has kept.
	unlink glob($new->data_dir . '/pg_wal/00000001????????????????');
	if ($mode eq 'local')
	{
		$new->stop;
		@source = ('--source-pgdata' => $new->data_dir);
	}
	my @rewind = ('pg_rewind', '--target-pgdata' => $old->data_dir, @source, '--no-sync');
	if ($mode eq 'archive')
	{
		command_fails_like(\@rewind,
			qr/could not (?:find previous WAL record|open file|read WAL)/,
			"$mode: pg_rewind fails without the archive");
		push @rewind, '--restore-target-wal';
	}
	command_ok(\@rewind, "$mode: pg_rewind");
	$new->start if $mode eq 'local';
	unlink $old->data_dir . '/postgresql.conf';
	append_to_file($old->data_dir . '/postgresql.conf', $conf);
	$old->append_conf('postgresql.conf', "archive_mode = off\n");
	$old->enable_streaming($new);
	$old->start;
	wait_replayed($new, $old);

	my @tables = tables($new);
	is(join(' ', tables($old)), "@tables", "$mode: the same tables");
	is( $old->safe_psql('postgres', rows_sql($_)),
		$new->safe_psql('postgres', rows_sql($_)),
		"$mode: rows of $_") foreach @tables;
	is( $old->safe_psql('postgres', "SELECT count(*) FROM pg_freespace('$_')"),
		$new->safe_psql('postgres', "SELECT count(*) FROM pg_freespace('$_')"),
		"$mode: length of $_") foreach @tables;
	check_relations("$mode, standby", $old);

	# Goes on by itself
	$old->promote;
	check_relations("$mode, promoted", $old, '--parent-check');
	$old->safe_psql('postgres', fill_sql($_, $canary, 5001, 6000) . "DELETE FROM $_ WHERE a % 3 = 0")
	  foreach @tables;
	$old->safe_psql('postgres', 'VACUUM; REINDEX DATABASE postgres');
	tde_crash($old);
	$old->start;
	check_relations("$mode, promoted and changed", $old, '--parent-check');
	check_storage($old, 'postgres', $mode, canary => $canary);
	is(join(' ', files_with($old->data_dir . '/pg_wal', $canary)),
		'', "$mode: no canary in WAL");
	$old->stop;
	$new->stop;
	return;
}

run_case($_) foreach ('remote', 'local', 'archive');
done_testing();
