# Copyright (c) 2026, the Coffer authors

# A standby needs the keys of dropped relations longer than its primary does:
# it starts again at its last restartpoint.  That may be long before the drop;
# and a restartpoint made after the drop uses the redo pointer of a checkpoint
# of the primary, which may lie before the drop too.

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

my $canary = 'CANARY-0123456789-abcdefgh';
my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_buffercache');
foreach my $db (qw(gone gone2))
{
	$primary->safe_psql('postgres', "CREATE DATABASE $db");
	tde_setup($primary, $db);
}
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

my $gone = $primary->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'gone'});
my $gone2 = $primary->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'gone2'});
my $t = '(a int, b text) USING tde_heap';

sub sql { return $primary->safe_psql('postgres', $_[0]); }

sub exists_ok
{
	my ($node, $file, $yes, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is((-e $node->data_dir . "/$file" ? 1 : 0),
		$yes, $node->name . ": $label");
	return;
}

# Stop the standby in disorder and let it replay up to an LSN, before the
# drop; then to the end.  In between, look at the files that it made anew.
sub crash_and_replay
{
	my ($lsn, $paths, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $keys = key_files($standby);

	$standby->stop('immediate');
	replay_until($standby, $lsn);
	foreach my $path (@$paths)
	{
		my ($plain, $marked, $bytes) = pages_of($standby, $path);
		cmp_ok($marked, '>=', 30, "$label: pages of $path were written");
		is($plain, 0, "$label: none is in clear");
		is(index($bytes, $canary), -1, "$label: no canary");
	}

	# Catalogs of a dropped database are made anew under keys of the node.
	my $now = key_files($standby);
	is_deeply([ grep { $now->{$_} ne $keys->{$_} } keys %$keys ],
		[], "$label: the keys are the same");
	replay_on($standby);
	wait_replayed($primary, $standby);
	is( $standby->safe_psql('postgres', rows_sql('live')),
		sql(rows_sql('live')), "$label: rows");
	return;
}

#
# Restarted from a restartpoint before the drop, of a relation and of a database
#
sql("CREATE TABLE live $t; CREATE TABLE old $t;"
	  . fill_sql('live', $canary, 1, 500)
	  . fill_sql('old', $canary, 1, 50));
$primary->safe_psql('gone',
	"CREATE TABLE inside $t;" . fill_sql('inside', $canary, 1, 50));
sql('CHECKPOINT');
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
my $redo = redo_lsn($standby);

sql("CREATE TABLE new $t;"
	  . join('', map { fill_sql($_, $canary, 51, 3000) } qw(new old)));
$primary->safe_psql('gone', fill_sql('inside', $canary, 51, 3000));
sql(fill_sql('live', $canary, 501, 600));
my @paths = (
	(map { relation_path($primary, 'postgres', $_) } qw(new old)),
	relation_path($primary, 'gone', 'inside'));
my @keys = (
	(map { key_of($primary, 'postgres', $_) } qw(new old)),
	key_of($primary, 'gone', 'inside'));
my $before_drop = $primary->lsn('insert');
sql('DROP TABLE new, old');
sql('DROP DATABASE gone');
sql('CHECKPOINT');
exists_ok($primary, $_, 0, "key $_ is gone") foreach @keys;
exists_ok($primary, "pg_tde/$gone", 0, 'keys of the database are gone');

wait_replayed($primary, $standby);
exists_ok($standby, $_, 0, "file $_ is gone") foreach @paths;
exists_ok($standby, $_, 1, "key $_ is there") foreach @keys;
is(redo_lsn($standby), $redo, 'standby: no restartpoint since');
crash_and_replay($before_drop, \@paths, 'restartpoint before the drop');

exists_ok($standby, $_, 1, "key $_ is there") foreach @keys;
$standby->safe_psql('postgres', 'CHECKPOINT');
cmp_ok(redo_lsn($standby), '>', $redo, 'standby: restartpoint');
exists_ok($standby, $_, 0, "key $_ is gone") foreach @keys;
exists_ok($standby, "pg_tde/$gone", 0, 'keys of the database are gone');
exists_ok($standby, key_of($primary, 'postgres', 'live'), 1,
	'key of the living table is there');

#
# A restartpoint after the drop, with a redo pointer before it.  The
# checkpoint is held up between the two by a session that is creating a key.
#
sql("CREATE TABLE old $t;" . fill_sql('old', $canary, 1, 50));
sql('CHECKPOINT');
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
$redo = redo_lsn($standby);

attach($primary, 'tde-key-logged', 'wait');
my $creator = parked($primary, 'postgres', 'tde-key-logged',
	"CREATE TABLE other $t");
my $checkpointer = $primary->background_psql('postgres');
$checkpointer->query_until(qr/begun/, "\\echo begun\nCHECKPOINT;\n");
$primary->wait_for_event('checkpointer', 'CheckpointDelayStart');
sql(fill_sql('old', $canary, 51, 3000));
@paths = (relation_path($primary, 'postgres', 'old'));
@keys = (key_of($primary, 'postgres', 'old'));
$before_drop = $primary->lsn('insert');
sql('DROP TABLE old');
release($primary, 'tde-key-logged');
$checkpointer->quit;
$creator->quit;
exists_ok($primary, $_, 1,
	"key $_ stays at a checkpoint that began before the drop") foreach @keys;

wait_replayed($primary, $standby);
exists_ok($standby, $_, 0, "file $_ is gone") foreach @paths;
$standby->safe_psql('postgres', 'CHECKPOINT');
cmp_ok(redo_lsn($standby), '>', $redo, 'standby: restartpoint');
exists_ok($standby, $_, 1, "key $_ is there") foreach @keys;
crash_and_replay($before_drop, \@paths,
	'redo pointer of the restartpoint before the drop');

sql('CHECKPOINT');
exists_ok($primary, $_, 0, "key $_ is gone") foreach @keys;
wait_replayed($primary, $standby);
exists_ok($standby, $_, 1, "key $_ is there") foreach @keys;
$standby->safe_psql('postgres', 'CHECKPOINT');
exists_ok($standby, $_, 0, "key $_ is gone") foreach @keys;

#
# DROP DATABASE makes a checkpoint before the drop itself.
#
$primary->safe_psql('gone2',
	"CREATE TABLE inside $t;" . fill_sql('inside', $canary, 1, 50));
@keys = (key_of($primary, 'gone2', 'inside'));
$redo = redo_lsn($standby);
sql('DROP DATABASE gone2');
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
cmp_ok(redo_lsn($standby), '>', $redo, 'standby: restartpoint');
exists_ok($standby, "base/$gone2", 0, 'files of the database are gone');
exists_ok($standby, $_, 1, "key $_ is there") foreach @keys;
exists_ok($standby, "pg_tde/$gone2/database_key.key", 1, 'the scope key too');
sql('CHECKPOINT');
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
exists_ok($_, "pg_tde/$gone2", 0, 'keys of the database are gone')
  foreach $primary, $standby;

is_deeply([ differing_files(key_files($standby), key_files($primary)) ],
	[], 'primary and standby have the same files');
check_storage($standby, 'postgres', 'standby', canary => $canary);

$standby->stop;
$primary->stop;
done_testing();
