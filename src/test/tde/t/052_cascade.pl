# Copyright (c) 2026, the Coffer authors

# A standby behind a standby: it gets keys, rotations, drops and prepared
# transactions through the one in the middle, and follows it when that is
# promoted, which makes keys of its own from then on.

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

my $canary = 'CANARY-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
my $ring = tde_keyring($primary);
$primary->safe_psql('postgres',
	"CREATE EXTENSION pg_buffercache; CREATE TABLE live $t;"
	  . fill_sql('live', $canary, 1, 500));

$primary->backup('start');
my $middle = PostgreSQL::Test::Cluster->new('middle');
$middle->init_from_backup($primary, 'start', has_streaming => 1);
$middle->start;
# the last one comes from a backup of the middle one
$middle->backup('start');
my $last = PostgreSQL::Test::Cluster->new('last');
$last->init_from_backup($middle, 'start', has_streaming => 1);
$last->start;

my $source = $primary;
sub sql { return $source->safe_psql('postgres', $_[0]); }

sub everybody
{
	wait_replayed($primary, $middle) if $source == $primary;
	wait_replayed($source, $last, $middle);
	return $source == $primary ? ($primary, $middle, $last) : ($middle, $last);
}

sub rotate
{
	my ($name) = @_;
	sql(qq{
		SELECT pg_tde_create_key_using_global_key_provider('$name', 'ring');
		SELECT pg_tde_set_default_key_using_global_key_provider('$name', 'ring');
		CREATE TABLE under_$name $t;} . fill_sql("under_$name", $canary, 1, 10));
	return;
}

# Every node has the tables' rows, read from disk where they are encrypted.
sub check
{
	my ($label, @tables) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %rows = map { $_ => sql(rows_sql($_)) } @tables;

	foreach my $node (everybody())
	{
		$node->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
		is($node->safe_psql('postgres', rows_sql($_)),
			$rows{$_}, "$label: rows of $_ on " . $node->name)
		  foreach @tables;
		is( key_id($node, key_of($source, 'postgres', $_)),
			key_id($source, key_of($source, 'postgres', $_)),
			"$label: key of $_ on " . $node->name)
		  foreach @tables;
		check_storage($node, 'postgres', "$label: " . $node->name,
			no_checkpoint => 1, canary => $canary);
	}
	return;
}

check('at first', 'live');
rotate('one');
check('after a rotation', 'live', 'under_one');

# Dropped while the last one has its restartpoint from before that
sql('CHECKPOINT');
everybody();
$_->safe_psql('postgres', 'CHECKPOINT') foreach $middle, $last;
my $redo = redo_lsn($last);
sql("CREATE TABLE dropped $t;" . fill_sql('dropped', $canary, 1, 2000));
my $key = key_of($primary, 'postgres', 'dropped');
sql('DROP TABLE dropped');
sql('CHECKPOINT') foreach 1 .. 2;
everybody();
$middle->safe_psql('postgres', 'CHECKPOINT');
ok(!-e $_->data_dir . "/$key", 'key of the dropped table is gone: ' . $_->name)
  foreach $primary, $middle;
ok(-e $last->data_dir . "/$key", 'it is kept on the last one');
is(redo_lsn($last), $redo, 'which has made no restartpoint since');
$last->stop('immediate');
$last->start;
check('the last one started again', 'live', 'under_one');

# Prepared transactions that are decided after the promotion
foreach my $what (qw(commit rollback))
{
	sql("BEGIN; CREATE TABLE to_$what $t;"
		  . fill_sql("to_$what", $canary, 1, 100)
		  . fill_sql('live', "$canary $what", 1, 5)
		  . "PREPARE TRANSACTION '$what'");
}
my $rolled_back = (
	grep { !key_file_is_known($_) }
	sort keys %{ key_files($primary, 1) })[-1];
everybody();

# Is a key file that of a relation that can be seen?
sub key_file_is_known
{
	my ($number) = $_[0] =~ /(\d+)\.key$/;
	return sql("SELECT count(*) FROM pg_class
		WHERE pg_relation_filenode(oid) = $number") ne '0';
}

#
# The primary is lost, the middle one takes over, and the last one follows.
#
$primary->stop('immediate');
$middle->promote;
$source = $middle;
$middle->safe_psql('postgres', "COMMIT PREPARED 'commit'");
$middle->safe_psql('postgres', "ROLLBACK PREPARED 'rollback'");
sql("CREATE TABLE later $t;" . fill_sql('later', $canary, 1, 100));
check('promoted', 'live', 'under_one', 'to_commit', 'later');
rotate('two');
sql('VACUUM FULL live');
check('rotation after that', 'live', 'under_one', 'under_two', 'to_commit');
is( $last->safe_psql('postgres',
		'SELECT key_name FROM pg_tde_default_key_info()'),
	'two', 'the last one has the new key');

for (1 .. 2)
{
	sql('CHECKPOINT');
	everybody();
	$last->safe_psql('postgres', 'CHECKPOINT');
}
ok(!-e $_->data_dir . "/$rolled_back",
	'key of the transaction rolled back is gone: ' . $_->name)
  foreach $middle, $last;
is_deeply([ differing_files(key_files($last), key_files($middle)) ],
	[], 'the same files on both nodes');

# And once more
$middle->stop('immediate');
$last->promote;
$source = $last;
sql(fill_sql('live', $canary, 501, 600));
rotate('three');
is(sql('SELECT count(*) FROM live'), '605', 'the last one promoted');
check_storage($last, 'postgres', 'the last one promoted',
	canary => $canary);
$last->restart;
is(sql('SELECT count(*) FROM live, under_three WHERE live.a = 7 AND under_three.a = 7'),
	'1', 'and started again');
$last->stop;

done_testing();
