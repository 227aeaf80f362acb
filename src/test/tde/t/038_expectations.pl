# Copyright (c) 2026, the Coffer authors

# A table that the catalogs say is encrypted and whose key is lost is never
# written in clear, can be dropped, and does no harm to others.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub fails
{
	my ($query, $label) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $query);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($err, qr/could not get the encryption key of relation/, $label);
	return;
}

# Empty tables are the hard case: there is no page that bears the mark.
sql(qq{
	CREATE TABLE empty (b text) USING tde_heap;
	CREATE TABLE empty_toast (b text) USING tde_heap;
	ALTER TABLE empty_toast ALTER b SET STORAGE EXTERNAL;
	CREATE TABLE full_one (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO full_one (b) SELECT '$canary' FROM generate_series(1, 1000);
	CREATE MATERIALIZED VIEW mv USING tde_heap AS TABLE empty;
	CREATE TABLE other (a serial, b text) USING tde_heap;
	INSERT INTO other (b) VALUES ('$canary')});
my %path;
my $toast = sql(q{SELECT reltoastrelid::regclass FROM pg_class
				  WHERE relname = 'empty_toast'});
$path{$_} = sql("SELECT pg_relation_filepath('$_')")
  foreach ('empty', 'full_one', 'mv', $toast, 'full_one_pkey',
	'full_one_a_seq');
$node->stop;

# Lose the keys.
foreach my $rel (sort keys %path)
{
	my ($number) = $path{$rel} =~ /(\d+)$/;
	my @keys = glob($node->data_dir . "/pg_tde/*/*$number*.key");
	is(scalar @keys, 1, "$rel has a key file");
	unlink $keys[0] or die;
}
$node->start;

fails("INSERT INTO empty VALUES ('$canary')", 'insert into an empty table');
fails("COPY empty FROM PROGRAM 'echo $canary'", 'COPY');
fails("INSERT INTO empty_toast VALUES (repeat('$canary', 500))",
	'insert into empty TOAST');
fails("BEGIN; SAVEPOINT s; INSERT INTO empty VALUES ('$canary');",
	'in a subtransaction');
my ($ret, $out, $err) =
  $node->psql('postgres', "INSERT INTO full_one (b) VALUES ('$canary')");
isnt($ret, 0, 'insert into a table with rows');
($ret, $out, $err) = $node->psql('postgres', 'TABLE full_one');
isnt($ret, 0, 'read of a table with rows');
is($out, '', 'no row of it');
sql('CHECKPOINT');
is(-s ($node->data_dir . "/$path{empty}"), 0, 'the empty file is still empty');
is( join(' ', files_with($node->data_dir . '/base', $canary)),
	'', 'nothing was written in clear');

# A session that lived through it all
my $session = $node->background_psql('postgres');
$session->query_safe('SELECT count(*) FROM other; INSERT INTO other (b)
	VALUES (1)');
is($session->query_safe('SELECT count(*) FROM empty'),
	'0', 'an empty table has no page that would need a key');

# The rest of the database works, and the tables can be given new storage or
# dropped.
sql("TRUNCATE empty; INSERT INTO empty VALUES ('$canary')");
is(sql('SELECT count(*) FROM empty'), '1', 'truncated, and used again');
$session->query_safe("INSERT INTO empty VALUES ('$canary')");
sql('DROP MATERIALIZED VIEW mv');
sql('DROP TABLE full_one, empty_toast');
is($session->query_safe('SELECT count(*) FROM empty'), '2', 'and read');
$session->quit;
check_storage($node, 'postgres', 'what is left', canary => $canary);

$node->stop;
done_testing();
