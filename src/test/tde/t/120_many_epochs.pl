# Copyright (c) 2026, the Coffer authors

# The file of epochs is read once in a process, not for each reader of WAL, and
# not at all for the epoch that is being written.  It is not there while
# it should not be read.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $node = wal_node('main');
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\n");
$node->start;
tde_setup($node);
encrypt_wal($node);
$node->safe_psql('postgres',
	'CREATE TABLE t (a int) USING tde_heap; CREATE EXTENSION pg_walinspect');
my $epochs = epochs_path($node);

sub prepare
{
	my ($name) = @_;
	return
	  "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '$name'; COMMIT PREPARED '$name';\n";
}

sub has_rows
{
	return 'SELECT count(*) > 0 FROM pg_get_wal_records_info'
	  . "('$_[0]', '$_[1]') WHERE resource_manager = 'Heap';\n";
}

# An epoch that is over, and the one in which this server writes
my $from = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (0)');
my $to = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
$node->stop;

# with ten thousand others
my @records = epochs_in($epochs);
write_epochs($epochs, other_epochs($records[0], 10000), @records);
$node->start;
is(scalar(epochs_in($epochs)),
	10000 + @records + 1, 'the server adds to a file of 10,000 epochs');
my $content = slurp_bytes($epochs);

# This session has read the file.
my $session = $node->background_psql('postgres');
is($session->query(has_rows($from, $to)), 't', 'WAL of an epoch that is over');

unlink $epochs or die;
$node->safe_psql('postgres', prepare('new'));
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	2, 'COMMIT PREPARED in a new session reads no file');
is($session->query(has_rows($from, $to)),
	't', 'an older epoch is read from the file once');
$session->query_safe(prepare('old'));
is($session->query(has_rows($from, $to)),
	't', '... whatever else is read in between');

# Another process has to read it.
isnt($node->psql('postgres', has_rows($from, $to)),
	0, 'a process that has not read the file needs it');

open(my $fh, '>:raw', $epochs) or die;
print $fh $content;
close($fh) or die;
chmod 0600, $epochs or die;
is($node->safe_psql('postgres', has_rows($from, $to)),
	't', 'with the file it can');
$session->quit;

# What changed is read again: a standby replays an epoch after a session has
# read the file there.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
$session = $standby->background_psql('postgres');
foreach my $i (1 .. 3)
{
	$node->restart;
	$from = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$node->safe_psql('postgres', "INSERT INTO t VALUES ($i)");
	$to = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_replication})
	  or die;
	$node->wait_for_catchup($standby);
	is($session->query(has_rows($from, $to)),
		't', "... reads the epoch that was replayed since ($i)");
}
$session->quit;
$standby->stop;
$node->stop;

done_testing();
