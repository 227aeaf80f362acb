# Copyright (c) 2026, the Coffer authors

# Replay meets files that do not go with the keys: maps of an older relation in
# a base backup, and relations of which nothing is left.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;
use Test::More;

my $node = tde_node('main', allows_streaming => 1);
# On io_method = sync see 024_stale_smgr.pl.
$node->append_conf(
	'postgresql.conf', q{
	autovacuum = off
	io_method = sync
	wal_keep_size = '256MB'
	full_page_writes = on
});
# The test gives numbers out again right after a checkpoint.  The background
# writer may then still have the old file open and lose what it writes.
$node->append_conf('postgresql.conf', "bgwriter_lru_maxpages = 0\n");
$node->start;
tde_setup($node);
my $fill =
  q{SELECT g AS a, 'Canary ' || g || repeat('x', 200) AS b FROM generate_series(1, 5000) g};
my $number = 910000;
$node->safe_psql(
	'postgres', qq{
	CREATE EXTENSION pg_buffercache;
	CREATE EXTENSION test_tde_storage;
	CREATE TABLE plain USING heap AS $fill;
	SELECT set_next_oid($number);
	CREATE TABLE t (a int, b text) USING heap;
	INSERT INTO t $fill;
	DELETE FROM t WHERE a % 3 = 0;
	VACUUM t;
});
my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('t')");
my ($db) = $path =~ m{base/(\d+)/$number};
ok(defined $db, 'the number is the one asked for');

#
# A base backup that has a plain relation's files beside the key of an encrypted
# one that got its number while the backup was being taken.
#
my $session = $node->background_psql('postgres');
$session->query_safe('SET client_min_messages = warning');
$session->query_safe("SELECT pg_backup_start('by hand', fast => true)");
my $backup = $node->backup_dir . '/by_hand';
mkdir $node->backup_dir;
PostgreSQL::Test::RecursiveCopy::copypath(
	$node->data_dir,
	$backup,
	filterfn => sub {
		return $_[0] !~
		  m{^(postmaster\.(pid|opts)|pg_wal/.+|pg_replslot/.+|pg_tde)$};
	});
is(join(' ', map { $_ > 0 ? 'some' : 'no' } plain_and_marked(slurp_bytes("$backup/${path}_fsm"))),
	'some no', 'free space map in the backup is in clear');

# Replay of this reads the free space map, which has no full page images.
$node->safe_psql(
	'postgres', q{
	DELETE FROM t WHERE a % 7 = 0;
	INSERT INTO t SELECT a, b FROM plain WHERE a < 1000;
	UPDATE t SET b = b || 'y' WHERE a % 5 = 0;
});
$node->safe_psql('postgres', 'DROP TABLE t');
$node->safe_psql('postgres', 'VACUUM pg_class');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql(
	'postgres', qq{
	SELECT set_next_oid($number);
	CREATE TABLE t (a int, b text) USING tde_heap;
	INSERT INTO t $fill;
	DELETE FROM t WHERE a % 3 = 0;
	VACUUM t;
});
is($node->safe_psql('postgres', "SELECT pg_relation_filepath('t')"),
	$path, 'the number is given to an encrypted relation');
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/pg_tde',
	"$backup/pg_tde");
ok(-f "$backup/pg_tde/$db/$number.key", 'its key is in the backup');
my $label = $session->query_safe('SELECT labelfile FROM pg_backup_stop()');
$session->quit;
PostgreSQL::Test::Utils::append_to_file("$backup/backup_label", "$label\n");

my $count = 'SELECT count(*), sum(a), sum(length(b)) FROM t';
my $expected = $node->safe_psql('postgres', $count);
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'by_hand', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
ok( $standby->log_contains(
		qr/LOG:  zeroing block \d+ of relation "\Q${path}_fsm\E", which is not encrypted/),
	'pages in clear were zeroed');
is($standby->safe_psql('postgres', $count), $expected, 'rows on the standby');

# The drop that was replayed must not take the key along later
for (1 .. 2)
{
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->wait_for_catchup($standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
}
$standby->restart;
is($standby->safe_psql('postgres', $count),
	$expected, 'rows after restartpoints and a restart');
$standby->promote;
$standby->safe_psql(
	'postgres', q{
	VACUUM t;
	INSERT INTO t SELECT a, b FROM plain WHERE a < 1000;
});
check_storage($standby, 'postgres', 'promoted standby', canary => 'Canary',
	control => ['plain']);
$standby->stop;

#
# A relation of which neither file nor key is there, though WAL writes to it:
# both went after that, in a way that replay does not get to see.  And one
# without a file that never had a key, and stays plain.
#
$node->safe_psql('postgres', 'CHECKPOINT');
my $lost = PostgreSQL::Test::Cluster->new('lost');
$node->backup('lost');
$lost->init_from_backup($node, 'lost', has_streaming => 1);
my $plain =
  $node->safe_psql('postgres', "SELECT pg_relation_filepath('plain')");
for my $file ((map { relation_files($lost, $_) } ($path, $plain)),
	$lost->data_dir . "/pg_tde/$db/$number.key")
{
	unlink $file or die "could not remove $file: $!";
}
$lost->start;
$node->safe_psql(
	'postgres', q{
	INSERT INTO t SELECT a, b FROM plain WHERE a < 2000;
	INSERT INTO plain SELECT a, b FROM plain WHERE a < 2000});
$node->wait_for_catchup($lost);
$lost->safe_psql('postgres', 'SELECT pg_buffercache_evict_all()');
ok(-f $lost->data_dir . "/pg_tde/$db/$number.key",
	'the relation has a key again');
my ($in_clear, $encrypted) = (0, 0);
foreach my $file (relation_files($lost, $path))
{
	next if $file =~ /_(fsm|vm)$/;
	my $content = slurp_bytes($file);
	my ($p, $m) = plain_and_marked($content);
	$in_clear += $p;
	$encrypted += $m;
	is(index($content, 'Canary'), -1, 'no row is in clear');
}
is($in_clear, 0, 'no page is in clear');
cmp_ok($encrypted, '>', 10, 'some pages are encrypted');
isnt(index(slurp_bytes($lost->data_dir . "/$plain"), 'Canary'),
	-1, 'the plain relation is plain');
ok(!-e $lost->data_dir . "/pg_tde/$db/" . ($plain =~ s{.*/}{}r) . '.key',
	'... and has no key');

# Then they are dropped, which is what makes them disappear
$node->safe_psql('postgres', 'DROP TABLE t, plain; CHECKPOINT');
$node->wait_for_catchup($lost);
$lost->safe_psql('postgres', 'CHECKPOINT');
ok(!-s $lost->data_dir . "/$path", 'the file is gone with the relation');
$lost->restart;
$lost->promote;
is($lost->safe_psql('postgres', 'SELECT count(*) FROM pg_class WHERE relname = \'t\''),
	'0', 'the server goes on');
$lost->stop;
$node->stop;

done_testing();
