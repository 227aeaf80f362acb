# Copyright (c) 2026, the Coffer authors

# CREATE, DROP, prepared transactions and unlogged tables around a crash.
#
# The heart of it: WAL of a relation that was dropped is replayed after a
# crash, and replay makes the relation's file anew.  Recovery is stopped just
# before the drop, with few buffers, so that it has written out much of the
# file by then; no page may be in clear.

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
my $node = life_node('main');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# All of a relation's pages that were written are encrypted.
sub encrypted_ok
{
	my ($server, $path, $pages, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my ($plain, $marked, $bytes) = pages_of($server, $path);
	cmp_ok($marked, '>=', $pages, "$label: enough pages were written");
	is($plain, 0, "$label: none is in clear");
	is(index($bytes, $canary), -1, "$label: no canary");
	return;
}

#
# Prepare: of each kind a relation made before, and one after the checkpoint
# where recovery begins
#
my $t = '(a int, b text) USING tde_heap';
my @kinds = qw(before after);

sql("CREATE TABLE live_before $t;" . fill_sql('live_before', $canary, 1, 2000)
	  . "CREATE TABLE dropped_before $t; CREATE INDEX dropped_before_i ON dropped_before (b);"
	  . fill_sql('dropped_before', $canary, 1, 100)
	  . "CREATE UNLOGGED TABLE unlogged_before $t;"
	  . fill_sql('unlogged_before', $canary, 1, 100)
	  . 'CREATE TABLE plain (a int, b text);'
	  . fill_sql('plain', $canary, 1, 100));
sql("BEGIN; CREATE TABLE prepared_before $t;"
	  . fill_sql('prepared_before', $canary, 1, 100)
	  . q{PREPARE TRANSACTION 'commit_before'});
sql("BEGIN; CREATE TABLE aborted_before $t;"
	  . fill_sql('aborted_before', $canary, 1, 100)
	  . q{PREPARE TRANSACTION 'abort_before'});
sql('CHECKPOINT');
my $redo = redo_lsn($node);

sql("CREATE TABLE live_after $t;" . fill_sql('live_after', $canary, 1, 2000)
	  . "CREATE TABLE dropped_after $t; CREATE INDEX dropped_after_i ON dropped_after (b);"
	  . join('', map { fill_sql("dropped_$_", $canary, 101, 3000) } @kinds)
	  . "CREATE UNLOGGED TABLE unlogged_after $t;"
	  . fill_sql('unlogged_after', $canary, 1, 100));
sql("BEGIN; CREATE TABLE prepared_after $t;"
	  . fill_sql('prepared_after', $canary, 1, 100)
	  . q{PREPARE TRANSACTION 'commit_after'});
sql("BEGIN; CREATE TABLE aborted_after $t;"
	  . fill_sql('aborted_after', $canary, 1, 100)
	  . q{PREPARE TRANSACTION 'abort_after'});

my %rows = map { $_ => sql(rows_sql($_)) } qw(live_before live_after);
my @dropped = map { ("dropped_$_", "dropped_${_}_i") } @kinds;
my %path = map { $_ => relation_path($node, 'postgres', $_) } @dropped;
my %key =
  map { $_ => key_of($node, 'postgres', $_) } @dropped, 'live_after';

# What is not written out is lost with the buffers, and replay must do it.
my $before_drop = $node->lsn('insert');
sql('DROP TABLE dropped_before, dropped_after');
my $keys = key_files($node, 1);
$node->stop('immediate');
is(redo_lsn($node), $redo, 'no checkpoint since');
ok(-e $node->data_dir . "/$key{$_}", "key of $_ outlives the drop")
  foreach @dropped;

#
# A copy in which keys, and files, of dropped relations are lost; and key files
# not synced since the last checkpoint, as after a crash of the machine
#
$node->backup_fs_cold('crashed');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'crashed');
unlink $copy->data_dir . '/standby.signal';
foreach my $lost ('dropped_before', 'dropped_before_i')
{
	unlink $copy->data_dir . "/$key{$lost}" or die;
	unlink relation_files($copy, $path{$lost});
}
unlink $copy->data_dir . "/$key{live_after}" or die;
truncate $copy->data_dir . "/$key{dropped_after}", 0 or die;

#
# Replay, stopped before the drop
#
replay_until($node, $before_drop);
encrypted_ok($node, $path{$_}, 30, "replay of $_") foreach @dropped;
is_deeply([ differing_files(key_files($node, 1), $keys) ],
	[], 'replay of the records leaves the same keys');

# ... and to the end.
replay_on($node);
is(sql(rows_sql("live_$_")), $rows{"live_$_"}, "rows of table made $_")
  foreach @kinds;
is(sql("SELECT count(*) FROM unlogged_$_"), '0', "unlogged table made $_")
  foreach @kinds;
sql(fill_sql("unlogged_$_", $canary, 1, 100)) foreach @kinds;
sql(fill_sql("live_$_", $canary, 2001, 2100)) foreach @kinds;
sql("COMMIT PREPARED 'commit_$_'") foreach @kinds;
is(sql("SELECT count(*), max(a) FROM prepared_$_"),
	'100|100', "table of a prepared transaction made $_")
  foreach @kinds;

# Recovery ended in a checkpoint; the second one is surely beyond the drops.
sql("ROLLBACK PREPARED 'abort_$_'") foreach @kinds;
sql('CHECKPOINT') foreach 1 .. 2;
ok(!-e $node->data_dir . "/$key{$_}", "key of $_ is gone in the end")
  foreach @dropped;
my @all = map { ("live_$_", "unlogged_$_", "prepared_$_") } @kinds;
my @left = split /\n/, sql(
	join(' UNION ALL ',
		map { "SELECT pg_relation_filenode('$_')" } @all)
	  . ' UNION ALL ' . join(' UNION ALL ',
		map { "SELECT pg_relation_filenode(reltoastrelid) FROM pg_class WHERE relname = '$_' UNION ALL SELECT pg_relation_filenode(indexrelid) FROM pg_index WHERE indrelid = (SELECT reltoastrelid FROM pg_class WHERE relname = '$_')" } @all));
is_deeply(
	[ sort map { /(\d+)\.key$/ } keys %{ key_files($node, 1) } ],
	[ sort @left ],
	'what is left are the keys of living relations');
check_storage($node, 'postgres', 'in the end',
	canary => $canary, control => ['plain']);
is( scalar(differing_files(
			{ map { $_ => $keys->{$_} } keys %{ key_files($node, 1) } },
			key_files($node, 1))),
	0,
	'... the same as before the crash');
$node->stop;

#
# The copy: nothing is known of the lost relations, so that replay gives them
# keys of its own.
#
replay_until($copy, $before_drop);
encrypted_ok($copy, $path{$_}, 30, "replay of $_, the key lost")
  foreach 'dropped_before', 'dropped_before_i';
isnt(key_id($copy, $key{dropped_before}), '', 'there is a key of the node');
isnt(key_files($copy, 1)->{ $key{dropped_before} },
	$keys->{ $key{dropped_before} }, '... its own');
is(key_files($copy, 1)->{ $key{$_} },
	$keys->{ $key{$_} }, "replay restores the key of $_")
  foreach qw(dropped_after live_after);
replay_on($copy);
is($copy->safe_psql('postgres', rows_sql("live_$_")),
	$rows{"live_$_"}, "rows of table made $_")
  foreach @kinds;
$copy->safe_psql('postgres', 'CHECKPOINT') foreach 1 .. 2;
ok(!-e $copy->data_dir . "/$key{dropped_before}", 'which is gone in the end');
$copy->stop;

done_testing();
