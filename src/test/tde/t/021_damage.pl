# Copyright (c) 2026, the Coffer authors

# Damaged pages of encrypted relations are treated as upstream treats damaged
# pages: an error, unless zero_damaged_pages or ignore_checksum_failure says
# otherwise.  Pages that are whole, but that we cannot or must not read as
# they are, are always an error, and nothing is lost.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;
use Test::More;

my $node = tde_node('main');
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
tde_setup($node);

my $space = $node->basedir . '/space';
mkdir $space or die "could not create $space: $!";
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
$node->safe_psql(
	'postgres', q{
	CREATE EXTENSION test_tde_storage;
	CREATE TABLE t (a int, b text) USING tde_heap;
	INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 1000) g;
	CREATE TABLE plain (a int, b text) USING heap;
	INSERT INTO plain SELECT * FROM t;
	VACUUM t, plain;
	SELECT evict('t');
	SELECT evict('plain');
});
my $rows = '1000|500500';
my $count = 'SELECT count(*), sum(a) FROM t';
my $path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('t')");
my ($db, $number) = $path =~ m{base/(\d+)/(\d+)};
my $last = $node->safe_psql('postgres',
	"SELECT pg_relation_size('t') / 8192 - 1");

sub page_on_disk
{
	my ($blkno, $rel) = @_;
	$rel = 't' unless defined $rel;
	return $node->safe_psql('postgres',
		"SELECT pg_read_binary_file(pg_relation_filepath('$rel'), $blkno * 8192, 8192)");
}

# Put a page, given as \x..., into the file
sub put_page
{
	my ($blkno, $page, $set_checksum, $rel) = @_;
	$rel = 't' unless defined $rel;
	$set_checksum = $set_checksum ? 'true' : 'false';
	$node->safe_psql('postgres',
		"SELECT write_file('$rel', 'main', $blkno, '$page', $set_checksum)");
	return;
}

sub run_sql
{
	my ($sql) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', $sql);
	return ($stdout, $stderr);
}

sub byte_of
{
	my ($page, $offset) = @_;
	return hex(substr($page, 2 + 2 * $offset, 2));
}

sub with_byte
{
	my ($page, $offset, $value) = @_;
	substr($page, 2 + 2 * $offset, 2) = sprintf('%02x', $value);
	return $page;
}

#
# What is on disk
#
my $good = page_on_disk(1);
is(byte_of($good, 18), 5, 'the page on disk bears the mark');
my $read = $node->safe_psql('postgres', "SELECT smgr_read('t', 'main', 1, 1)");
is(byte_of($read, 18), 4, 'the page in memory does not');
is(substr($read, 2, 16), substr($good, 2, 16), 'the LSN is in clear');
is(substr($read, 2 + 20, 14), substr($good, 2 + 20, 14), 'so are flags and bounds');
isnt(substr($read, 2 + 48, 16), substr($good, 2 + 48, 16),
	'what follows the header is not');
my $stored = $node->safe_psql('postgres', "SELECT checksum('$good', 1)");
is(byte_of($good, 8) + 256 * byte_of($good, 9),
	$stored, 'the checksum is that of the encrypted page');
is($node->safe_psql('postgres', "SELECT is_verified('$read', 1)"),
	't', 'a page that was read synchronously can be verified');

# the same page gives the same ciphertext
$node->safe_psql('postgres', "SELECT smgr_write('t', 'main', 1, '$read')");
is(page_on_disk(1), $good, 'writing a page again changes nothing');

# another block number gives another one
$node->safe_psql('postgres', "SELECT smgr_write('t', 'main', 2, smgr_read('t', 'main', 1, 1))");
isnt(substr(page_on_disk(2), 66), substr($good, 66), 'the ciphertext depends on the block');
$node->safe_psql('postgres',
	"SELECT smgr_write('t', 'main', 2, (SELECT smgr_read('t', 'main', 2, 1)))");

#
# A bad checksum, in the free space of the last page, so that what is there
# can still be shown
#
$node->safe_psql('postgres', 'TRUNCATE t; INSERT INTO t SELECT g, \'row \' || g FROM generate_series(1, 1000) g');
$node->safe_psql('postgres', "VACUUM t; SELECT evict('t')");
$path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('t')");
($db, $number) = $path =~ m{base/(\d+)/(\d+)};
$good = page_on_disk($last);
my ($lower, $upper) =
  (byte_of($good, 12) + 256 * byte_of($good, 13), byte_of($good, 14) + 256 * byte_of($good, 15));
my $hole = int(($lower + $upper) / 2);
cmp_ok($upper - $lower, '>', 64, 'the last page has free space');
my $bad = with_byte($good, $hole, byte_of($good, $hole) ^ 1);

put_page($last, $bad, 0);
my ($stdout, $stderr) = run_sql($count);
like($stderr, qr/ERROR:  invalid page in block $last of relation "\Q$path\E"/,
	'bad checksum: error');
($stdout, $stderr) = run_sql("SET ignore_checksum_failure = on; $count");
is($stdout, $rows, 'bad checksum: page is shown under ignore_checksum_failure');
like($stderr, qr/WARNING:  ignoring checksum failure in block $last/, '... with a warning');
is( $node->safe_psql('postgres',
		"SELECT checksum_failures > 0 FROM pg_stat_database WHERE datname = 'postgres'"),
	't', '... and is counted');

put_page($last, $bad, 0);
($stdout, $stderr) = run_sql('ALTER TABLE t SET TABLESPACE elsewhere');
like($stderr, qr/WARNING:  page verification failed/, 'bad checksum: a copy is refused');
like($stderr, qr/ERROR:  invalid page in block $last of relation "\Q$path\E"/, '... with an error');
($stdout, $stderr) = run_sql(
	"SET ignore_checksum_failure = on; BEGIN; ALTER TABLE t SET TABLESPACE elsewhere; $count; ROLLBACK");
is($stdout, $rows, 'bad checksum: page is copied under ignore_checksum_failure');
like($stderr, qr/WARNING:  page verification failed/, '... with a warning');

# the page loses its mark in the damage
put_page($last, with_byte($bad, 18, 4), 0);
($stdout, $stderr) = run_sql($count);
like($stderr, qr/ERROR:  invalid page in block $last/, 'bad checksum, no mark: damaged page');
($stdout, $stderr) = run_sql("SET ignore_checksum_failure = on; $count");
like($stderr, qr/ERROR:  block $last of encrypted relation "\Q$path\E" is not encrypted/,
	'... and is not taken for plaintext');
($stdout, $stderr) = run_sql('ALTER TABLE t SET TABLESPACE elsewhere');
like($stderr, qr/ERROR:  invalid page in block $last/, '... nor copied');
($stdout, $stderr) = run_sql(
	'SET ignore_checksum_failure = on; ALTER TABLE t SET TABLESPACE elsewhere');
like($stderr, qr/ERROR:  block $last of encrypted relation "\Q$path\E" is not encrypted/,
	'... whatever is ignored');

# damage that the header shows
put_page($last, with_byte($good, 17, 0xff), 1);
($stdout, $stderr) = run_sql($count);
like($stderr, qr/ERROR:  invalid page in block $last/, 'bad header: error');

put_page($last, $bad, 0);
($stdout, $stderr) = run_sql("SET zero_damaged_pages = on; $count");
like($stderr, qr/WARNING:  invalid page in block $last of relation "\Q$path\E"; zeroing out page/,
	'bad checksum: page is zeroed under zero_damaged_pages');
cmp_ok((split /\|/, $stdout)[0], '<', 1000, '... and its rows are missing');
put_page($last, $good, 0);
is($node->safe_psql('postgres', $count), $rows, 'the page is back');

#
# Whole pages at the wrong place
#
my $unmarked = with_byte($good, 18, 4);
put_page($last, $unmarked, 1);
for my $setting ('zero_damaged_pages = off', 'zero_damaged_pages = on', 'ignore_checksum_failure = on')
{
	($stdout, $stderr) = run_sql("SET $setting; $count");
	like(
		$stderr,
		qr{ERROR:  block $last of encrypted relation "\Q$path\E" is not encrypted\nDETAIL:  The relation has its key in file "pg_tde/$db/$number\.key"\.\nHINT:  },
		"unmarked page: error, $setting");
}
($stdout, $stderr) = run_sql('ALTER TABLE t SET TABLESPACE elsewhere');
like($stderr, qr/ERROR:  block $last of encrypted relation "\Q$path\E" is not encrypted/,
	'unmarked page: not copied');
put_page($last, $good, 0);
is($node->safe_psql('postgres', $count), $rows, 'unmarked page: nothing was lost');

my $plain_good = page_on_disk(0, 'plain');
my $plain_path = $node->safe_psql('postgres', "SELECT pg_relation_filepath('plain')");
my ($plain_number) = $plain_path =~ m{(\d+)$};
my $no_key =
  qr{ERROR:  block 0 of relation "\Q$plain_path\E" is encrypted, but the relation has no key\nDETAIL:  The key is expected in file "pg_tde/$db/$plain_number\.key"\.\nHINT:  };
$good = page_on_disk(0);
put_page(0, $good, 1, 'plain');
for my $setting ('zero_damaged_pages = off', 'zero_damaged_pages = on', 'ignore_checksum_failure = on')
{
	($stdout, $stderr) = run_sql("SET $setting; SELECT count(*), sum(a) FROM plain");
	like($stderr, $no_key, "encrypted page of a plain relation: error, $setting");
}
($stdout, $stderr) = run_sql('ALTER TABLE plain SET TABLESPACE elsewhere');
like($stderr, $no_key, 'encrypted page of a plain relation: not copied');
put_page(0, $plain_good, 0, 'plain');
is($node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM plain'),
	$rows, 'encrypted page of a plain relation: nothing was lost');

#
# What must not be written
#
for my $case (
	[ 'encrypted page', 'The page is encrypted already', $good ],
	[ 'page without bounds', 'The page is not empty, but its header is', '\x' . ('00' x 8191) . '01' ],
	[ 'page of another layout', 'unknown layout version', with_byte($read, 18, 3) ],
	[ 'page of another size', 'page size', with_byte($read, 19, 0x40) ])
{
	my ($what, $detail, $page) = @$case;
	my $before = page_on_disk(0);

	($stdout, $stderr) = run_sql("SELECT smgr_write('t', 'main', 0, '$page')");
	like($stderr, qr/ERROR:  invalid page for block 0 of encrypted relation "\Q$path\E"\nDETAIL:  .*$detail/,
		"$what: not written");
	($stdout, $stderr) = run_sql("SELECT smgr_extend('t', 'main', $last + 1, '$page')");
	like($stderr, qr/ERROR:  invalid page for block \d+ of encrypted relation/, "$what: no extension");
	is(page_on_disk(0), $before, "$what: the file is as it was");
}

# Many pages in one call, among them one of zeros
$node->safe_psql(
	'postgres', q{
	CREATE TABLE source (a int, b text) USING tde_heap;
	INSERT INTO source SELECT g, repeat('x', 400) FROM generate_series(1, 800) g;
	CREATE TABLE target (LIKE source) USING tde_heap;
	INSERT INTO target SELECT g, repeat('y', 400) FROM generate_series(1, 800) g;
	CHECKPOINT;
	SELECT smgr_write('target', 'main', 1,
		smgr_read('source', 'main', 1, 18) || decode(repeat('00', 8192), 'hex') || smgr_read('source', 'main', 20, 21));
});
is( $node->safe_psql('postgres',
		q{SELECT count(*) FILTER (WHERE b LIKE 'x%') || ' ' || count(*) FILTER (WHERE b LIKE 'y%') FROM target}),
	$node->safe_psql('postgres',
		q{SELECT (SELECT count(*) FROM source WHERE ctid BETWEEN '(1,0)' AND '(18,999)' OR ctid BETWEEN '(20,0)' AND '(40,999)')
			|| ' ' || (SELECT count(*) FROM source WHERE ctid < '(1,0)' OR ctid > '(41,0)')}),
	'40 pages in one write');
is($node->safe_psql('postgres', q{SELECT pg_read_binary_file(pg_relation_filepath('target'), 19 * 8192, 8192) = decode(repeat('00', 8192), 'hex')}),
	't', 'a page of zeros is one on disk');
is($node->safe_psql('postgres', q{SELECT smgr_read('target', 'main', 0, 41) = string_agg(smgr_read('target', 'main', g, 1), '' ORDER BY g) FROM generate_series(0, 40) g}),
	't', 'pages read together are those read one by one');
check_storage($node, 'postgres', 'after all that');

#
# The keys get lost as a whole
#
$node->stop;
rename $node->data_dir . '/pg_tde', $node->basedir . '/pg_tde' or die "rename: $!";
$node->start;
for my $setting ('zero_damaged_pages = off', 'zero_damaged_pages = on')
{
	($stdout, $stderr) = run_sql("SET $setting; $count");
	like(
		$stderr,
		qr{ERROR:  could not get the encryption key of relation "\Q$path\E"\nDETAIL:  Key file "pg_tde/$db/$number\.key": the file does not exist},
		"directory pg_tde is gone: error, $setting");
}
is($node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM plain'),
	$rows, '... plain tables can be read');
$node->stop;
system_or_bail('rm', '-rf', $node->data_dir . '/pg_tde');
rename $node->basedir . '/pg_tde', $node->data_dir . '/pg_tde' or die "rename: $!";
$node->start;
is($node->safe_psql('postgres', $count), $rows, '... and is back: all can be read');
$node->stop;

command_ok([ 'pg_checksums', '--check', '--pgdata', $node->data_dir ], 'checksums on disk');

#
# A server that never knew encryption
#
my $stranger = PostgreSQL::Test::Cluster->new('stranger');
$stranger->init;
$stranger->start;
$stranger->safe_psql(
	'postgres', qq{
	CREATE EXTENSION test_tde_storage;
	CREATE TABLE plain AS SELECT g AS a FROM generate_series(1, 10) g;
	SELECT write_file('plain', 'main', 0, '$good');
});
($stdout, $stderr) = ('', '');
$stranger->psql('postgres', 'SET zero_damaged_pages = on; SELECT * FROM plain',
	stdout => \$stdout, stderr => \$stderr);
like($stderr, qr/ERROR:  block 0 of relation ".*" is encrypted, but the relation has no key/,
	'encrypted page in a cluster without encryption: error');
is($stdout, '', '... and no rows');
$stranger->stop;

done_testing();
