# Copyright (c) 2026, the Coffer authors

# Base backups during which relations and a database are dropped, from the
# primary and from a standby.  Whether their files are in the backup or not,
# replay of what was done to them before the drop puts nothing on disk in
# clear, and the keys for it are in the backup, since no key is removed while
# one is being taken.

use strict;
use warnings FATAL => 'all';

use File::Copy;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres',
	'CREATE EXTENSION pg_buffercache; CREATE TABLE live '
	  . $t . ';' . fill_sql('live', $canary, 1, 500));
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

sub sql { return $primary->safe_psql('postgres', $_[0]); }

# Copy what of the data directory the filter lets through.
sub copy_files
{
	my ($node, $backup, $pattern) = @_;
	PostgreSQL::Test::RecursiveCopy::copypath(
		$node->data_dir,
		$backup,
		filterfn => sub {
			return 0 if $_[0] =~ /^(postmaster\.(pid|opts)|pg_replslot\/.+)$/;
			return $_[0] eq '' || $_[0] =~ $pattern;
		});
	return;
}

# Take a backup of a node by hand.  In the middle of it, drop a table, one that
# is made during the backup, and a database; the files are copied before or
# after.
sub take_backup
{
	my ($node, $name, $copy_first) = @_;
	my $backup = $node->backup_dir . "/$name";
	my $gone = "gone_$name";

	mkdir $node->backup_dir;
	$primary->safe_psql('postgres', "CREATE DATABASE $gone");
	tde_setup($primary, $gone);
	$primary->safe_psql($gone,
		"CREATE TABLE inside $t;" . fill_sql('inside', $canary, 1, 50));
	sql("CREATE TABLE old $t;" . fill_sql('old', $canary, 1, 50));
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);

	my $session = $node->background_psql('postgres');
	$session->query_safe("SELECT pg_backup_start('$name', fast => true)");
	my $redo = redo_lsn($node);

	my $main = qr/^(?!pg_wal\/.)/;
	copy_files($node, $backup, $main) if $copy_first;

	$primary->safe_psql($gone, fill_sql('inside', $canary, 51, 3000));
	sql("CREATE TABLE new $t;"
		  . join('', map { fill_sql($_, $canary, 51, 3000) } qw(old new)));
	my %paths = (
		(map { $_ => relation_path($primary, 'postgres', $_) } qw(old new)),
		inside => relation_path($primary, $gone, 'inside'));
	my %keys = (
		(map { $_ => key_of($primary, 'postgres', $_) } qw(old new)),
		inside => key_of($primary, $gone, 'inside'));
	my $before_drop = $primary->lsn('insert');
	sql('DROP TABLE old, new');
	sql("DROP DATABASE $gone");
	sql(fill_sql('live', $canary, 501, 510));
	for (1 .. 2)
	{
		sql('CHECKPOINT');
		wait_replayed($primary, $standby);
		$standby->safe_psql('postgres', 'CHECKPOINT');
	}
	cmp_ok(redo_lsn($node), '>', $redo, "$name: redo pointer has moved on");
	foreach my $file (sort values %paths)
	{
		ok(!-e $node->data_dir . "/$file", "$name: file $file is gone");
	}
	foreach my $file (sort values %keys)
	{
		ok(-e $node->data_dir . "/$file", "$name: key $file is there");
	}
	my $kept = key_files($node);

	copy_files($node, $backup, $main) if !$copy_first;
	my $label = $session->query_safe(
		'SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)');
	$session->quit;

	# Of a standby, pg_control says how far the backup must be replayed, and
	# goes last.
	copy($node->data_dir . '/global/pg_control', "$backup/global/pg_control")
	  or die "could not copy: $!"
	  if $node == $standby;
	rmdir "$backup/pg_wal" or die;
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/pg_wal',
		"$backup/pg_wal");
	append_to_file("$backup/backup_label", "$label\n");

	# The backup has ended; so the keys go, at the next checkpoint.
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	foreach my $file (sort values %keys)
	{
		ok( !-e $node->data_dir . "/$file",
			"$name: key $file is gone after the backup");
	}
	return ($before_drop, \%paths, \%keys, $kept);
}

# Restore it, and stop replay before the drop to look at the files.
sub check_backup
{
	my ($node, $name, $copy_first, $lsn, $paths, $keys, $kept) = @_;
	my $restored = PostgreSQL::Test::Cluster->new("restored_$name");

	$restored->init_from_backup($node, $name, has_streaming => 1);
	is((-e $restored->data_dir . "/$paths->{old}" ? 1 : 0),
		$copy_first, "$name: is the table's file in the backup?");
	replay_until($restored, $lsn);
	foreach my $relation (sort keys %$paths)
	{
		my ($plain, $marked, $bytes) =
		  pages_of($restored, $paths->{$relation});
		cmp_ok($marked, '>=', 30, "$name: pages of $relation were written");
		is($plain, 0, "$name: none of $relation is in clear");
		is(index($bytes, $canary), -1, "$name: no canary in $relation");
	}

	# ... under the very keys that they had.
	my $now = key_files($restored);
	is($now->{$_}, $kept->{$_}, "$name: key $_") foreach sort values %$keys;

	replay_on($restored);
	wait_replayed($primary, $restored, $node);
	is( $restored->safe_psql('postgres', rows_sql('live')),
		sql(rows_sql('live')), "$name: rows");

	# What is left over is swept at a later start and goes with a restartpoint.
	for (1 .. 2)
	{
		$restored->restart if $_ == 1;
		sql('CHECKPOINT');
		wait_replayed($primary, $restored, $node);
		$restored->safe_psql('postgres', 'CHECKPOINT');
	}
	is_deeply([ differing_files(key_files($restored), key_files($primary)) ],
		[], "$name: the same files as on the primary in the end");
	check_storage($restored, 'postgres', $name, canary => $canary);
	$restored->stop;
	return;
}

foreach my $case (
	[ $primary, 'files_first', 1 ],
	[ $primary, 'files_last', 0 ],
	[ $standby, 'standby_files_first', 1 ],
	[ $standby, 'standby_files_last', 0 ])
{
	my ($node, $name, $copy_first) = @$case;
	my @result = take_backup($node, $name, $copy_first);
	check_backup($node, $name, $copy_first, @result);
}

$standby->stop;
$primary->stop;
done_testing();
