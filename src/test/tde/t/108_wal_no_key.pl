# Copyright (c) 2026, the Coffer authors

# Promotions that would fail, or end encryption: a standby warns of them when it
# starts and when what it replays changes matters, refuses those that cannot be,
# and goes on.  A server that is told to does not write WAL in clear after
# encrypted.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $primary = tde_node('primary', allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS a');
$primary->backup('base');

sub standby
{
	my ($name, $settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->append_conf('postgresql.conf', $settings);
	$node->start;
	return $node;
}

my $row = 1;

sub insert
{
	$row++;
	$primary->safe_psql('postgres', "INSERT INTO t VALUES ($row)");
	return;
}

# It is refused, with a reason, and the standby goes on.
sub refused
{
	my ($what, $node, $reason) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) =
	  $node->psql('postgres', 'SELECT pg_promote()');

	isnt($status, 0, "$what: pg_promote() fails");
	like($err, qr/ERROR:  promotion refused: $reason/, '... with the reason');

	my $log = -s $node->logfile;
	command_fails(
		[ 'pg_ctl', '--pgdata' => $node->data_dir, '--timeout' => 2, 'promote' ],
		"$what: pg_ctl promote fails");
	$node->wait_for_log(qr/LOG:  promotion refused: $reason/, $log);
	ok(!-e $node->data_dir . '/promote', '... and its request is gone');
	ok(-f $node->data_dir . '/standby.signal', '... the standby is one still');
	is_deeply([ grep { /history/ } slurp_dir($node->data_dir . '/pg_wal') ],
		[], '... no timeline was begun');
	insert();
	$primary->wait_for_replay_catchup($node);
	is($node->safe_psql('postgres', 'SELECT max(a) FROM t'), $row,
		'... and goes on');
	return;
}

#
# No server key
#
my $standby = standby('standby', 'pg_tde.wal_encrypt = on');
$primary->wait_for_replay_catchup($standby);
like(
	slurp_file($standby->logfile),
	qr/WARNING:  this standby cannot be promoted: no server key is set\n.*HINT:  Set one on the primary/,
	'a standby without a server key says so when it starts');
refused('no server key', $standby, 'no server key is set');
is(scalar(() = slurp_file($standby->logfile) =~ /this standby cannot be promoted/g),
	1, 'the warning is not repeated');

# What it stores is in clear, whatever its setting says.
my @backup = (
	'pg_basebackup', '--encrypt-wal', '--no-sync', '--checkpoint' => 'fast',
	'--pgdata' => $primary->basedir . '/encrypted');
command_fails_like([ @backup, '--dbname' => $standby->connstr('postgres') ],
	qr/error: the server does not encrypt WAL/,
	'pg_basebackup -E from a standby that replays WAL in clear');
ok(!-e $primary->basedir . '/encrypted/PG_VERSION', '... takes no backup');

# With a key it can be promoted.
my $log = -s $standby->logfile;
tde_setup($primary);
insert();
$primary->wait_for_replay_catchup($standby);
$standby->wait_for_log(
	qr/LOG:  nothing of WAL encryption is in the way of a promotion of this standby any more/,
	$log);

# The key's file is damaged.
my $key_file = $standby->data_dir . '/pg_tde/global/server_key.key';
my $key = slurp_bytes($key_file);
truncate $key_file, 60 or die;
refused('damaged key', $standby, 'could not use key file "pg_tde/global/server_key.key"');
open(my $fh, '>:raw', $key_file) or die;
print $fh $key;
close $fh or die;
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT max(a), pg_tde_is_wal_encrypted() FROM t'),
	"$row|t", 'promoted, and encrypts');
$standby->stop;

#
# A standby that would go on in clear
#
$standby = standby('unencrypted', '');
$primary->wait_for_replay_catchup($standby);
unlike(slurp_file($standby->logfile), qr/promoted/,
	'while WAL is in clear there is nothing to say');
$log = -s $standby->logfile;
$primary->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
$primary->restart;
insert();
$primary->wait_for_replay_catchup($standby);
my $warning = qr/WARNING:  WAL would go on in clear if this standby were promoted\n.*DETAIL:  The WAL that it replays is encrypted, and "pg_tde.wal_encrypt" is off here\.\n.*HINT:  Turn/;
like(slurp_file($standby->logfile, $log), $warning,
	'a warning when WAL begins to be encrypted');
$standby->safe_psql('postgres', 'CHECKPOINT');
command_ok([ @backup, '--dbname' => $standby->connstr('postgres') ],
	'pg_basebackup -E from one that replays encrypted WAL');
$log = -s $standby->logfile;
$standby->restart;
$standby->wait_for_log($warning, $log);

# It may not.
$standby->append_conf('postgresql.conf', 'pg_tde.enforce_wal_encryption = on');
$log = -s $standby->logfile;
$standby->restart;
$standby->wait_for_log(
	qr/WARNING:  this standby cannot be promoted: WAL would go on in clear\n/, $log);
refused('enforced', $standby, 'WAL would go on in clear');
$standby->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
$standby->restart;
insert();
$primary->wait_for_replay_catchup($standby);
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT max(a), pg_tde_is_wal_encrypted() FROM t'),
	"$row|t", 'promoted with the setting on');
$standby->stop;

#
# A server that is started
#
$primary->append_conf('postgresql.conf',
	"pg_tde.enforce_wal_encryption = on\npg_tde.wal_encrypt = off\n");
foreach my $mode ('fast', 'immediate')
{
	$primary->stop($mode);
	$log = -s $primary->logfile;
	$primary->start(fail_ok => 1);
	like(
		slurp_file($primary->logfile, $log),
		qr/FATAL:  WAL cannot be written: WAL would go on in clear\n.*DETAIL:  .*"pg_tde.enforce_wal_encryption" is on\.\n.*HINT:  Turn "pg_tde.wal_encrypt" on/,
		"no start in clear after encrypted WAL ($mode stop)");
	$primary->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
	$primary->start;
	is($primary->safe_psql('postgres', 'SELECT max(a) FROM t'), $row, 'all rows');
	$primary->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = off');
}
$primary->append_conf('postgresql.conf', 'pg_tde.enforce_wal_encryption = off');
$primary->restart;
is($primary->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	'f', 'with the setting off WAL goes on in clear');

# WAL in clear may be followed by the same.
$primary->append_conf('postgresql.conf', 'pg_tde.enforce_wal_encryption = on');
$primary->restart;
is($primary->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	'f', 'after WAL in clear the setting asks for nothing');
$primary->stop;

done_testing();
