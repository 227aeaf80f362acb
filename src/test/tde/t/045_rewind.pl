# Copyright (c) 2026, the Coffer authors

# pg_rewind, to a source that has gone on without the target.
#
# The source dropped relations and removed their keys, and the target still
# replays what was done to them before the drop.  And both branches gave out
# the same file numbers: encrypted here, plain there, and with another key.

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
my $columns = '(a int, b text)';
my $t = "$columns USING tde_heap";
my ($enc_plain, $plain_enc, $enc_enc) = (910000, 910100, 910200);

# What the source has, and the target lacks or has otherwise
sub differing_from
{
	my ($target, $source) = @_;
	my $files = key_files($source);
	return grep { exists $files->{$_} }
	  differing_files(key_files($target), $files);
}

# A relation with a file number of its own choice
sub create_as
{
	my ($node, $name, $number, $am) = @_;
	$node->safe_psql('postgres',
		"CREATE TABLE $name $columns USING $am;
		 SELECT set_next_oid($number);
		 TRUNCATE $name;" . fill_sql($name, $canary, 1, 100));
	is($node->safe_psql('postgres', "SELECT pg_relation_filenode('$name')"),
		$number, $node->name . ": number of $name");
	return;
}

sub run_case
{
	my ($mode) = @_;

	my $old = life_node("old_$mode", allows_streaming => 1);
	$old->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
	$old->start;
	tde_setup($old);
	$old->safe_psql('postgres',
		'CREATE EXTENSION pg_buffercache; CREATE EXTENSION test_tde_storage;
		 CREATE DATABASE gone');
	$old->safe_psql('postgres', 'CREATE DATABASE late');
	tde_setup($old, $_) foreach qw(gone late);
	$old->backup('start');
	my $new = PostgreSQL::Test::Cluster->new("new_$mode");
	$new->init_from_backup($old, 'start', has_streaming => 1);
	$new->start;

	$old->safe_psql('postgres',
		"CREATE TABLE live $t; CREATE TABLE dropped $t;"
		  . fill_sql('live', $canary, 1, 500)
		  . fill_sql('dropped', $canary, 1, 50));
	$old->safe_psql('gone',
		"CREATE TABLE inside $t;" . fill_sql('inside', $canary, 1, 50));
	$old->safe_psql('postgres', 'CHECKPOINT');

	# from here replay will begin
	$old->safe_psql('postgres', fill_sql('dropped', $canary, 51, 2000));
	$old->safe_psql('gone', fill_sql('inside', $canary, 51, 2000));
	my %paths = (
		dropped => relation_path($old, 'postgres', 'dropped'),
		inside => relation_path($old, 'gone', 'inside'));
	my %keys = (
		dropped => key_of($old, 'postgres', 'dropped'),
		inside => key_of($old, 'gone', 'inside'));
	my $kept = key_files($old);
	wait_replayed($old, $new);
	$new->promote;

	#
	# The old primary, which nobody listens to any more
	#
	$old->safe_psql('postgres',
		"CREATE TABLE only_old $t;"
		  . fill_sql('only_old', $canary, 1, 100)
		  . fill_sql('dropped', $canary, 2001, 2100)
		  . fill_sql('live', $canary, 501, 600));
	create_as($old, 'a', $enc_plain, 'tde_heap');
	create_as($old, 'b', $plain_enc, 'heap');
	create_as($old, 'c', $enc_enc, 'tde_heap');
	$old->safe_psql('postgres', q{
		VACUUM a, b, c;
		SELECT pg_tde_create_key_using_global_key_provider('dead', 'ring');
		SELECT pg_tde_set_default_key_using_global_key_provider('dead', 'ring');
		CREATE TABLE under_dead USING tde_heap AS SELECT 1 AS a});
	my $dead_key = key_of($old, 'postgres', 'under_dead');
	my $ring = tde_keyring($old);
	$old->safe_psql('postgres', qq{
		SELECT pg_tde_add_database_key_provider_file('own', '$ring.dead');
		SELECT pg_tde_add_database_key_provider_file('more', '$ring.dead');
		SELECT pg_tde_add_global_key_provider_file('dead', '$ring.dead')});
	$old->safe_psql('postgres', 'CREATE DATABASE stray');
	$old->safe_psql('stray', 'CREATE EXTENSION pg_tde');
	foreach my $db (qw(late stray))
	{
		$old->safe_psql($db, qq{
			SELECT pg_tde_create_key_using_global_key_provider('$db', 'dead');
			SELECT pg_tde_set_key_using_global_key_provider('$db', 'dead');
			CREATE TABLE under_dead USING tde_heap AS SELECT 1 AS a});
	}
	my $stray = $old->safe_psql('postgres',
		q{SELECT oid FROM pg_database WHERE datname = 'stray'});
	my $late = $old->safe_psql('postgres',
		q{SELECT oid FROM pg_database WHERE datname = 'late'});

	#
	# The new one
	#
	$new->safe_psql('postgres',
		fill_sql('dropped', $canary, 2001, 3000) . 'CHECKPOINT');
	my $before_drop = $new->lsn('insert');
	$new->safe_psql('postgres', 'DROP TABLE dropped');
	$new->safe_psql('postgres', 'DROP DATABASE gone');
	$new->safe_psql('postgres', 'CHECKPOINT');
	$new->safe_psql('postgres', 'CHECKPOINT');
	ok(!-e $new->data_dir . "/$keys{dropped}", 'source has removed the key');
	create_as($new, 'a', $enc_plain, 'heap');
	create_as($new, 'b', $plain_enc, 'tde_heap');
	create_as($new, 'c', $enc_enc, 'tde_heap');
	$new->safe_psql('postgres',
		'VACUUM a, b, c;' . fill_sql('live', $canary, 501, 700));
	my ($old_c, $new_c) = map { key_id($_, key_of($_, 'postgres', 'c')) }
	  $old, $new;
	isnt($old_c, $new_c, 'c has two keys');

	#
	# Rewind
	#
	$old->stop;
	my @source = ('--source-server' => $new->connstr('postgres'));
	if ($mode eq 'local')
	{
		$new->stop;
		@source = ('--source-pgdata' => $new->data_dir);
	}
	my $conf = slurp_file($old->data_dir . '/postgresql.conf');
	command_ok(
		[
			'pg_rewind', '--target-pgdata' => $old->data_dir, @source,
			'--no-sync'
		],
		"pg_rewind, $mode source");
	$new->start if $mode eq 'local';
	unlink $old->data_dir . '/postgresql.conf';
	append_to_file($old->data_dir . '/postgresql.conf', $conf);
	$old->enable_streaming($new);

	my $now = key_files($old);
	is($now->{ $keys{$_} }, $kept->{ $keys{$_} }, "key of $_ is kept")
	  foreach sort keys %keys;
	ok(exists $now->{$dead_key},
		'so is one under a scope key that only the target had');

	# Of databases that are on both branches, the given-up one leaves nothing.
	ok(!exists $now->{"pg_tde/$late/database_key.key"},
		'no scope that only the target had');
	ok( !exists $now->{ "pg_tde/"
			  . ($keys{dropped} =~ s/.*?(\d+).*/$1/r)
			  . '/provider_config' },
		'no providers that only the target had');

	# Replay up to the drop, from what the source still has of WAL
	replay_until($old, $before_drop,
		'cp "' . $new->data_dir . '/pg_wal/%f" "%p"');
	foreach my $relation (sort keys %paths)
	{
		my ($plain, $marked, $bytes) = pages_of($old, $paths{$relation});
		cmp_ok($marked, '>=', 30, "pages of $relation were written");
		is($plain, 0, "none of $relation is in clear");
		is(index($bytes, $canary), -1, "no canary in $relation");
	}
	replay_on($old);
	wait_replayed($new, $old);
	is( $old->safe_psql('postgres', rows_sql($_)),
		$new->safe_psql('postgres', rows_sql($_)), "rows of $_")
	  foreach qw(live a b c);
	check_storage($old, 'postgres', 'target',
		canary => $canary, control => ['a']);

	# The same node again, and after a promotion.  What only the target's branch
	# had stays there, since nothing says that it was dropped.
	$old->restart;
	for (1 .. 2)
	{
		$new->safe_psql('postgres', 'CHECKPOINT');
		wait_replayed($new, $old);
		$old->safe_psql('postgres', 'CHECKPOINT');
	}
	is_deeply([ differing_from($old, $new) ],
		[], 'the same files as on the source in the end');

	# The same provider that was added on the branch that was given up
	$new->safe_psql('postgres', qq{
		SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
		SELECT pg_tde_create_key_using_database_key_provider('own', 'own');
		SELECT pg_tde_set_key_using_database_key_provider('own', 'own');
		CREATE TABLE under_own USING tde_heap AS SELECT 1 AS a});
	wait_replayed($new, $old);
	is($old->safe_psql('postgres', 'SELECT a FROM under_own'),
		'1', 'a provider that was added on both branches');
	is_deeply([ differing_from($old, $new) ],
		[], '... is the same on both nodes');
	$old->restart;
	$old->promote;
	is( $old->safe_psql('postgres', rows_sql($_)),
		$new->safe_psql('postgres', rows_sql($_)),
		"rows of $_ after promotion") foreach qw(live a b c);
	is($old->safe_psql('postgres', 'SELECT a FROM under_own'),
		'1', 'rows of under_own after promotion');
	is($old->safe_psql('late', 'SELECT key_name FROM pg_tde_key_info()'),
		'default', 'a database that had a key on the other branch only');
	$old->safe_psql('postgres', fill_sql('live', $canary, 701, 800));
	check_storage($old, 'postgres', 'promoted target',
		canary => $canary, control => ['a']);
	$old->stop;
	$new->stop;
	return;
}

run_case('remote');
run_case('local');
done_testing();
