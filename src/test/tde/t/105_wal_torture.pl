# Copyright (c) 2026, the Coffer authors

# A primary and a standby are killed at any instant, under load with DDL and
# rotation of the server key.  No committed transaction is lost, and the standby
# goes on without being made anew.  COFFER_TORTURE_ROUNDS rounds, 4 if it is not
# set.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds = $ENV{COFFER_TORTURE_ROUNDS} || 4;

my $primary = tde_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 30s
max_wal_size = 100MB
wal_keep_size = 2GB
log_statement = none
});
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres',
	'CREATE TABLE ack (round int, client int, pad text) USING tde_heap');
$primary->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$primary->restart;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/insert.sql",
	"INSERT INTO ack VALUES (:round, :client_id, repeat('x', 200));\n");
append_to_file("$dir/ddl.sql", q{
\set n random(1, 1000000000)
CREATE TABLE d:n (a int PRIMARY KEY, b text) USING tde_heap;
INSERT INTO d:n SELECT g, repeat('y', 100) FROM generate_series(1, 200) g;
TRUNCATE d:n;
DROP TABLE d:n;
SELECT pg_tde_create_key_using_global_key_provider('k:n', 'ring');
SELECT pg_tde_set_server_key_using_global_key_provider('k:n', 'ring');
});

# What pgbench says to have committed in a round
sub acknowledged
{
	my ($round) = @_;
	my $n = 0;
	foreach my $file (glob("$dir/log$round.*"))
	{
		$n += () = slurp_file($file) =~ /\n/g;
	}
	return $n;
}

my $seed = $ENV{COFFER_TORTURE_SEED} || time;
srand($seed);
note "seed $seed, $rounds rounds";

my $lost = 0;
my $differing = 0;
my $all = 0;
foreach my $round (1 .. $rounds)
{
	my $victim = rand() < 0.5 ? $primary : $standby;
	my $out = '';
	my @connect = ('-h', $primary->host, '-p', $primary->port);
	my @load = map { IPC::Run::start($_, '<', \'', '>', \$out, '2>', \$out) } (
		[
			'pgbench', @connect, '-n', '-c', 3, '-T', 600, '-M', 'simple',
			'-D', "round=$round", '-l', "--log-prefix=$dir/log$round",
			'-f', "$dir/insert.sql", 'postgres'
		],
		[
			'pgbench', @connect, '-n', '-c', 1, '-T', 600,
			'-f', "$dir/ddl.sql", 'postgres'
		]);

	sleep(0.3 + rand(2));
	tde_crash($victim);
	if ($victim == $standby)
	{
		sleep(rand(1));
		$_->signal('INT') foreach @load;
	}
	$_->finish foreach @load;
	$victim->start;

	my $acknowledged = acknowledged($round);
	my $rows = $primary->safe_psql('postgres',
		"SELECT count(*) FROM ack WHERE round = $round");
	$all += $acknowledged;
	$lost += $acknowledged - $rows if $rows < $acknowledged;
	note sprintf('round %d: %s killed, %d acknowledged, %d there',
		$round, $victim->name, $acknowledged, $rows);

	$primary->wait_for_replay_catchup($standby);
	my $digest = 'SELECT round, count(*) FROM ack GROUP BY 1 ORDER BY 1';
	$differing++
	  if $primary->safe_psql('postgres', $digest) ne
	  $standby->safe_psql('postgres', $digest);
}
note "$rounds rounds, $all transactions acknowledged";
is($lost, 0, 'no committed transaction was lost');
is($differing, 0, 'the standby has what the primary has');
$standby->promote;
is( $standby->safe_psql('postgres', 'SELECT count(*) FROM ack'),
	$primary->safe_psql('postgres', 'SELECT count(*) FROM ack'),
	'and after promotion');

done_testing();
