# Copyright (c) 2026, the Coffer authors

# A standby that is to encrypt WAL, and has no server key when it is promoted,
# stops, and is a standby still.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $primary = tde_node('primary', allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS a');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
$standby->start;
$primary->wait_for_replay_catchup($standby);
my $log = -s $standby->logfile;
command_fails(
	[ 'pg_ctl', '--pgdata' => $standby->data_dir, '--timeout' => 20, 'promote' ],
	'promotion without a server key fails');
$standby->wait_for_log(
	qr/FATAL:  WAL cannot be encrypted: no server key is set/, $log);
$standby->wait_for_log(qr/database system is shut down/, $log);
ok(-f $standby->data_dir . '/standby.signal', 'the standby is one still');
is_deeply([ grep { /history/ } slurp_dir($standby->data_dir . '/pg_wal') ],
	[], 'no timeline was begun');
$standby->_update_pid(0);

# With a key it can be promoted.
$standby->start;
tde_setup($primary);
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (2)');
$primary->wait_for_replay_catchup($standby);
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT sum(a), pg_tde_is_wal_encrypted() FROM t'),
	'3|t', 'promoted, and encrypts');

done_testing();
