# Copyright (c) 2026, the Coffer authors

# The list of a database's encrypted relations, which speaks for them where a
# key file is lost and no page is on disk: with garbage in it, and written anew.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "autovacuum = off\ncheckpoint_timeout = 1h\n");
$node->start;
tde_setup($node);

my $list = $node->data_dir . '/pg_tde/'
  . $node->safe_psql('postgres',
	'SELECT oid FROM pg_database WHERE datname = current_database()')
  . '/relations';

# An encrypted table without a page on disk; its key file
sub make_empty
{
	my ($table) = @_;
	$node->safe_psql('postgres',
		"CREATE TABLE $table (a int) USING tde_heap; CHECKPOINT");
	return $node->data_dir . '/'
	  . $node->safe_psql('postgres',
		"SELECT 'pg_tde/' || d.oid || '/' || pg_relation_filenode('$table') || '.key' "
		  . 'FROM pg_database d WHERE datname = current_database()');
}

# The key of a table is lost in a crash after which its first row is replayed.
sub key_is_missed
{
	my ($table, $key, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->safe_psql('postgres', "INSERT INTO $table VALUES (1)");
	$node->stop('immediate');
	rename $key, "$key.away" or die "rename: $!";
	my $from = -s $node->logfile;
	is($node->start(fail_ok => 1), 0, "$label: no start without the key");
	like(
		slurp_file($node->logfile, $from),
		qr/could not get the encryption key of relation/,
		"$label: the log says why");
	rename "$key.away", $key or die "rename: $!";
	$node->start;
	is($node->safe_psql('postgres', "SELECT a FROM $table"),
		'1', "$label: the row is there with it");
	return;
}

my $before = make_empty('before');
append_to_file($list, 'garbage');
my $after = make_empty('after');
key_is_missed('before', $before, 'listed before garbage');
key_is_missed('after', $after, 'listed after garbage');

# A list of a million entries that say little is written anew at a start.
my $third = make_empty('third');
$node->stop;
my $content = slurp_file($list);
append_to_file($list, $content x (17 * 1024 * 1024 / length $content));
my $size = -s $list;
$node->start;
cmp_ok(-s $list, '<', 4096, "a list of $size bytes was written anew");
key_is_missed('third', $third, 'listed anew');

# What is not listed is plain.
$node->safe_psql('postgres',
	'CREATE TABLE plain (a int); CHECKPOINT; INSERT INTO plain VALUES (1)');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT a FROM plain'),
	'1', 'a plain table without a page on disk is plain');

$node->stop;
done_testing();
