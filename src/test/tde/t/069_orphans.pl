# Copyright (c) 2026, the Coffer authors

# Keys that belong to no relation: found by asking pg_class, removed on request,
# and never one that somebody is about to need.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $node = life_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\n");
$node->start;
tde_setup($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE space LOCATION ''});
my $db = sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'});

# Key file of a relation
sub key_path
{
	my ($relation) = @_;
	return $node->data_dir . "/pg_tde/$db/" . sql(qq{
		SELECT pg_relation_filenode(oid) ||
			CASE WHEN reltablespace > 0 THEN '_' || reltablespace ELSE '' END || '.key'
		FROM pg_class WHERE oid = '$relation'::regclass});
}

# Leave the key of a relation behind, as a crash does; returns its file.
sub make_orphan
{
	my ($options) = @_;
	sql("CREATE TABLE o USING tde_heap $options AS SELECT 1 AS i");
	my $key = key_path('o');
	my $content = slurp_bytes($key);
	sql('DROP TABLE o; CHECKPOINT');
	die "$key is there" if -e $key;
	append_to_file($key, $content);
	return $key;
}

sub listed { return sql('SELECT count(*) FROM pg_tde_orphaned_keys()'); }

# The removal in a session of its own, when it waits for a transaction.
sub waiting_removal
{
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begins/,
		"\\echo begins\nSELECT 'removed ' || pg_tde_remove_orphaned_keys();\n");
	$node->poll_query_until('postgres',
		"SELECT wait_event IN ('virtualxid', 'transactionid') FROM pg_stat_activity WHERE pid = $pid")
	  or die 'the removal does not wait';
	return $session;
}

sub removed_is
{
	my ($session, $expected, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->{stdout} = '' if $session->{stdout} !~ /removed/;
	like($session->query('SELECT 1'), qr/^removed $expected$/m, $label);
	$session->quit;
	return;
}

# Keys of relations that live, of all kinds, are none
sql(q{
	CREATE TABLE t (i serial PRIMARY KEY, t text) USING tde_heap;
	INSERT INTO t (t) SELECT 'x' FROM generate_series(1, 100);
	CREATE TABLE s USING tde_heap TABLESPACE space AS SELECT * FROM t;
	CREATE UNLOGGED TABLE u USING tde_heap AS SELECT * FROM t;
	TRUNCATE u;
	VACUUM FULL t});
is(listed(), 0, 'no orphan');
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 0, 'none removed');

# Found, and what is told of them
my $orphan = make_orphan('');
my $far = make_orphan('TABLESPACE space');
my ($number) = $orphan =~ m{/(\d+)\.key$};
my ($far_number, $far_space) = $far =~ m{/(\d+)_(\d+)\.key$};
is( sql(q{
		SELECT string_agg(concat_ws(' ', tablespace, file_number, length(key_id),
			created BETWEEN pg_postmaster_start_time() AND now()), ', ' ORDER BY tablespace)
		FROM pg_tde_orphaned_keys()}),
	"1663 $number 32 t, $far_space $far_number 32 t",
	'orphans of both tablespaces');
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 2, 'removed');
ok(!-e $orphan && !-e $far, 'their files are gone');
is(listed(), 0, 'no more orphans');

# Those of a crash: the key is logged and there, its relation is not
$orphan = make_orphan('');
attach($node, 'tde-key-installed', 'wait');
my $creator = parked($node, 'postgres', 'tde-key-installed',
	'CREATE TABLE cut (i int) USING tde_heap');
tde_crash($node);
eval { $creator->quit };
$node->start;
is(listed(), 2, 'a crash leaves keys behind');
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 2, 'they are removed');
$node->stop('immediate');
$node->start;
is(sql('SELECT count(*) FROM t'), 100, 'recovery after it');

# Not one that is being made: its relation has neither row nor file yet
$orphan = make_orphan('');
attach($node, 'tde-key-installed', 'wait');
$creator = parked($node, 'postgres', 'tde-key-installed',
	'CREATE TABLE made USING tde_heap AS SELECT 1 AS i');
my $remover = waiting_removal();
release($node, 'tde-key-installed');
removed_is($remover, 1, 'only the orphan is removed');
$creator->quit;
is(sql('SELECT i FROM made'), 1, 'the new table has its key');
$node->restart;
is(sql('SELECT i FROM made'), 1, '... on disk');

# Nor while a transaction is prepared
$orphan = make_orphan('');
sql(q{BEGIN; CREATE TABLE two USING tde_heap AS SELECT 2 AS i; PREPARE TRANSACTION 'p'});
$remover = waiting_removal();
sql(q{COMMIT PREPARED 'p'});
removed_is($remover, 1, 'only the orphan is removed');
is(sql('SELECT i FROM two'), 2, 'what was prepared has its key');

# Nor while a base backup runs, but then
$orphan = make_orphan('');
my $backup = $node->background_psql('postgres');
$backup->query_safe(q{SELECT pg_backup_start('b', true)});
my ($rc, $out, $err) =
  $node->psql('postgres', 'SELECT pg_tde_remove_orphaned_keys()');
is($out, 0, 'none is removed during a base backup');
like($err, qr/NOTICE:  1 orphaned key is still there/, '... and that is said');
ok(-e $orphan, '... it is there');
is(listed(), 0, '... and waits for its removal');
$backup->query_safe('SELECT pg_backup_stop(false)');
$backup->quit;
sql('CHECKPOINT');
ok(!-e $orphan, 'a checkpoint after the backup removes it');

# Nor what has a data file, whatever pg_class says; nor another key
$orphan = make_orphan('');
($number) = $orphan =~ m{/(\d+)\.key$};
append_to_file($node->data_dir . "/base/$db/$number", '');
is(listed(), 0, 'a data file, if empty');
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 0, '... keeps the key');
unlink($node->data_dir . "/base/$db/$number") or die $!;
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 1, 'until it is gone');

# Nor that of a relation whose data file is lost
my $file = $node->data_dir . '/' . sql(q{SELECT pg_relation_filepath('t')});
$node->stop;
rename($file, "$file.away") or die $!;
$node->start;
is(sql('SELECT pg_tde_remove_orphaned_keys()'), 0, 'pg_class has the number');
rename("$file.away", $file) or die $!;
is(sql('SELECT count(*) FROM t'), 100, '... and the file is back');

# Its own transaction cannot be waited for
($rc, $out, $err) = $node->psql('postgres',
	'BEGIN; CREATE TABLE own (i int) USING tde_heap; SELECT pg_tde_remove_orphaned_keys()');
like($err,
	qr/cannot remove orphaned keys in a transaction that has changed something/,
	'refused in a transaction with changes');

# A base backup brings the keys that wait for their removal when it begins, but
# not the drops.  A standby shows them, and removes them after its promotion.
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
wait_replayed($node, $standby);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_tde_orphaned_keys()'),
	1, 'a standby shows its own');
($rc, $out, $err) =
  $standby->psql('postgres', 'SELECT pg_tde_remove_orphaned_keys()');
like($err, qr/cannot execute pg_tde_remove_orphaned_keys\(\) during recovery/,
	'... and removes none');
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT pg_tde_remove_orphaned_keys()'),
	1, 'but does when it is promoted');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'), 100,
	'... and reads its tables');
$standby->stop;

$node->stop;
done_testing();
