# Copyright (c) 2026, the Coffer authors

# File numbers come back, and a key may outlive its relation.  A number whose
# key still exists is not handed out; and where a plain relation gets a number
# all the same, or replay makes it, the old key does not apply to it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $node = tde_node('main');
$node->append_conf('postgresql.conf', qq{
checkpoint_timeout = 1h
autovacuum = off
});
$node->start;
tde_setup($node);
my $saved = $node->basedir . '/saved_key';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Dropped for good: even a dead row of pg_class keeps its OID from being given
# to the next relation.
sub drop_tables
{
	my ($tables) = @_;
	sql("CHECKPOINT; DROP TABLE $tables");
	sql('VACUUM pg_class; CHECKPOINT');
	return;
}

# An encrypted relation that is gone, and its key, put aside
sql('CREATE TABLE old (a int) USING tde_heap');
my $number = sql(q{SELECT pg_relation_filenode('old')});
my ($key) = glob($node->data_dir . "/pg_tde/*/*$number*.key");
copy($key, $saved) or die;
drop_tables('old');
$node->stop;
ok(!-e $key, 'the key went with its relation');

# Let the number be the next one.
sub number_is_next
{
	$node->stop if defined $node->{_pid};
	command_ok(
		[ 'pg_resetwal', '-f', '-o', $number, '-D', $node->data_dir ],
		'set the next OID');
	return;
}

# The key is there again, as after a shutdown that forgot its removal.
number_is_next();
copy($saved, $key) or die;
$node->start;
sql('CREATE TABLE other (a int)');
isnt(sql(q{SELECT pg_relation_filenode('other')}),
	$number, 'a number whose key exists is not handed out');
sql('CREATE TABLE another (a int) USING tde_heap');
isnt(sql(q{SELECT pg_relation_filenode('another')}),
	$number, 'not for an encrypted relation either');
drop_tables('other, another');
ok(-e $key, 'it stays: no drop was of its relation');
unlink $key or die;

# Replay of a plain relation's creation
number_is_next();
$node->start;
sql('CREATE TABLE plain (a int); INSERT INTO plain VALUES (1)');
is(sql(q{SELECT pg_relation_filenode('plain')}),
	$number, 'now a plain relation has the number');
$node->stop('immediate');
copy($saved, $key) or die;
$node->start;
is(sql('SELECT a FROM plain'), '1', 'its row after a crash');
check_storage($node, 'postgres', 'replay made it plain');
drop_tables('plain');

# A key that turns up after the number was chosen
SKIP:
{
	skip 'injection points are not built in', 1
	  if ($ENV{enable_injection_points} || '') ne 'yes';

	sql('CREATE EXTENSION injection_points');
	number_is_next();
	$node->start;
	sql(q{SELECT injection_points_attach('tde-prepare-storage', 'wait')});
	my $session = $node->background_psql('postgres');
	$session->query_until(qr/begin/, qq{\\echo begin
		CREATE TABLE plain (a int); INSERT INTO plain VALUES (2);
	});
	$node->wait_for_event('client backend', 'tde-prepare-storage');
	copy($saved, $key) or die;
	sql(q{SELECT injection_points_detach('tde-prepare-storage');
		SELECT injection_points_wakeup('tde-prepare-storage')});
	$session->quit;
	is( sql(q{SELECT a, pg_relation_filenode('plain') FROM plain}),
		"2|$number",
		'a plain relation with the number of a late key');
	check_storage($node, 'postgres', 'it was made plain');
}

$node->stop;
done_testing();
