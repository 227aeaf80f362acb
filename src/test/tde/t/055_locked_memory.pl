# Copyright (c) 2026, the Coffer authors

# Keys are in locked memory only, in every process of a server: of each kind
# that there is, each mapping for keys is locked, and the keys themselves are
# nowhere else.  And no process keeps the key of a relation that is gone.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeMemory;
use TdeTest;
use Test::More;

my $reason = memory_can_be_searched();
plan skip_all => $reason if $reason;
my $limit = (run_command([ 'sh', '-c', 'ulimit -l' ]))[0];
plan skip_all => "the limit of locked memory (ulimit -l) is too low: $limit kB"
  if $limit ne 'unlimited' && $limit < 8192;

my $node = tde_node('main', allows_streaming => 'logical', has_archiving => 1);
$node->append_conf(
	'postgresql.conf', q{
	io_method = worker
	io_workers = 2
	max_connections = 20
	max_worker_processes = 16
	logging_collector = on
	log_destination = 'stderr'
	summarize_wal = on
	checkpoint_timeout = 1h
	autovacuum = on
	autovacuum_naptime = 1s
	min_parallel_table_scan_size = 0
	parallel_setup_cost = 0
	parallel_tuple_cost = 0
	pg_tde.key_state_poll_interval = 3600
});
$node->start;
tde_setup($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# From here on WAL is encrypted
sql(q{
	SELECT pg_tde_create_key_using_global_key_provider('server', 'ring');
	SELECT pg_tde_set_server_key_using_global_key_provider('server', 'ring');
	ALTER SYSTEM SET pg_tde.wal_encrypt = on});
$node->restart;

sql(q{
	CREATE EXTENSION test_tde_core;
	CREATE TABLE t (id int PRIMARY KEY, body text) USING tde_heap
		WITH (autovacuum_enabled = off);
	INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g;
	CREATE TABLE dropped USING tde_heap AS SELECT * FROM t LIMIT 5000;
	ALTER TABLE dropped SET (autovacuum_enabled = off);
	CREATE TABLE vacuumed USING tde_heap AS SELECT * FROM t;
	ALTER TABLE vacuumed SET (autovacuum_vacuum_threshold = 1,
		autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100,
		autovacuum_vacuum_cost_limit = 1);
	CHECKPOINT});

my $standby = PostgreSQL::Test::Cluster->new('standby');
$node->backup('base');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# A logical walsender, and a worker that applies what it sends
$node->safe_psql('postgres', 'CREATE DATABASE sub');
tde_setup($node, 'sub');
$node->safe_psql('sub', 'CREATE TABLE t (id int PRIMARY KEY, body text) USING tde_heap');
sql(q{
	CREATE PUBLICATION p FOR TABLE t;
	SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
(my $quoted = $node->connstr('postgres')) =~ s|'|''|g;
$node->safe_psql('sub', qq{
	CREATE SUBSCRIPTION sub CONNECTION '$quoted' PUBLICATION p
		WITH (create_slot = false, slot_name = 's', copy_data = false)});

# Load.  Parallel workers that stay, an autovacuum worker that takes its time,
# a backend that has read and written
my $parallel = $node->background_psql('postgres', on_error_stop => 0);
$parallel->query_until(
	qr/begun/, q{
	\echo begun
	SET max_parallel_workers_per_gather = 2;
	SET debug_parallel_query = on;
	SELECT sum(length(body)), min(CASE WHEN id = 1 OR id = 19999
		THEN pg_sleep(3600)::text END) FROM t;
});
my $session = $node->background_psql('postgres');
$session->query_safe(
	q{
	CREATE TEMP TABLE temp (a text) USING tde_heap;
	INSERT INTO temp SELECT repeat('y', 500) FROM generate_series(1, 20000);
	SELECT count(*) FROM temp});
sql(q{
	UPDATE vacuumed SET body = body || 'z';
	UPDATE t SET body = body || 'z' WHERE id % 3 = 0;
	INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(20001, 25000) g});
sql(q{SELECT sum(length(body)) FROM t; CHECKPOINT});
$node->wait_for_catchup('sub');
$node->wait_for_catchup($standby, 'replay');
$session->query_safe(
	q{SELECT sum(length(body)) FROM t; SELECT sum(length(body)) FROM dropped});
$node->safe_psql('sub', 'SELECT sum(length(body)) FROM t');
my $standby_session = $standby->background_psql('postgres');
$standby_session->query_safe(
	q{SELECT sum(length(body)) FROM t; SELECT sum(length(body)) FROM dropped});
foreach my $waiting (
	"backend_type = 'parallel worker' AND wait_event = 'PgSleep'",
	"backend_type = 'autovacuum worker' AND wait_event = 'VacuumDelay'")
{
	$node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE $waiting")
	  or die "timed out waiting for $waiting, there is:\n"
	  . sql('SELECT backend_type, wait_event, query FROM pg_stat_activity');
}

# The keys, known to us
my %keys;
foreach my $line (split /\n/, sql('SELECT kind, name, key FROM key_bytes()'))
{
	my ($kind, $name, $hex) = $line =~ /^([^|]*)\|(.*)\|\\x([0-9a-f]+)$/;
	$keys{"$kind $name"} = pack('H*', $hex);
}
foreach my $relation (qw(t t_pkey dropped vacuumed))
{
	my $hex = sql("SELECT relation_key_bytes('$relation')");
	$keys{"relation $relation"} = pack('H*', substr($hex, 2));
}
$keys{'relation sub.t'} = pack('H*', substr($node->safe_psql('sub',
			q{CREATE EXTENSION test_tde_core; SELECT relation_key_bytes('t')}), 2));
my $temp_key =
  pack('H*', substr($session->query_safe("SELECT relation_key_bytes('temp')"), 2));
is(scalar(grep { /^scope key/ } keys %keys) >= 2
	  && defined $keys{'principal key default'}
	  && defined $keys{'principal key server'}
	  && defined $keys{'WAL key '},
	1, 'keys of all kinds are known');
my $ring = slurp_bytes(tde_keyring($node));
my $hex = unpack('H*', $keys{'principal key default'});
like($ring, qr/\Q$hex\E/i, 'and they are the right ones');

sub view_says
{
	my ($n, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $n->safe_psql('postgres',
			'SELECT size > 4000000, locked, unlocked_processes FROM pg_tde_key_memory'),
		$expected,
		'the view of ' . $n->name);
	return;
}
view_says($_, 't|t|0') foreach $node, $standby;

# Where a process must have keys in private memory, or we looked wrongly: in
# its contexts, or its table
my %expected = (
	'main' => {
		'archiver' => [],
		'autovacuum launcher' => [],
		'autovacuum worker' => ['relation vacuumed'],
		'background writer' => [],
		'checkpointer' => ['relation vacuumed'],
		'client backend' => [ 'relation t', 'relation dropped' ],
		'io worker' => ['relation t'],
		'logger' => [],
		'logical replication apply worker' => ['relation sub.t'],
		'logical replication launcher' => [],
		'parallel worker' => ['relation t'],
		'pg_tde key state poll' => [],
		'postmaster' => [],
		'walsender' => ['WAL key '],
		'walsummarizer' => [],
		'walwriter' => [],
	},
	'standby' => {
		'background writer' => [],
		'checkpointer' => [],
		'client backend' => ['relation t'],
		'io worker' => ['relation t'],
		'logger' => [],
		'pg_tde key state poll' => [],
		'postmaster' => [],
		'startup' => ['relation vacuumed'],
		'walreceiver' => [],
		'walsummarizer' => [],
	});

# All that can be said of the processes of a node
sub check_processes
{
	my ($n) = @_;
	my %processes = processes_of($n);
	my %kinds;
	my %has;

	foreach my $pid (sort { $a <=> $b } keys %processes)
	{
		my $kind = $processes{$pid};
		my $label = $n->name . ": $kind";
		my ($count, @unlocked);
		my @found;

		next
		  unless unless_gone(
			$pid,
			sub {
				($count, @unlocked) = unlocked_key_memory($pid);
				@found = find_keys($pid, { %keys, 'relation temp' => $temp_key });
			});
		$kinds{$kind}++;
		cmp_ok($count, '>', 0, "$label: there is memory for keys");
		is(join(', ', @unlocked), '', "$label: it is locked");
		is( join(', ', map { "$_->{key} in $_->{name}" } grep { !$_->{locked} } @found),
			'',
			"$label: no key elsewhere");
		$has{$kind}{ $_->{key} } = 1 foreach grep { $_->{private} } @found;
	}
	is( join(', ', sort keys %kinds),
		join(', ', sort keys %{ $expected{ $n->name } }),
		$n->name . ': all kinds of processes were seen');
	foreach my $kind (sort keys %{ $expected{ $n->name } })
	{
		ok($has{$kind}{$_}, $n->name . ": $kind has the key of $_")
		  foreach @{ $expected{ $n->name }{$kind} };
	}
	return;
}
check_processes($_) foreach $node, $standby;
view_says($_, 't|t|0') foreach $node, $standby;

# A copy elsewhere would have been found
my $control = $node->background_psql('postgres');
my $pid = $control->query_safe('SELECT pg_backend_pid()');
is(scalar(grep { !$_->{locked} } find_keys($pid, \%keys)), 0, 'no copy');
$control->query_safe('SELECT expose_key()');
cmp_ok(scalar(grep { !$_->{locked} && $_->{key} =~ /^scope key/ }
		  find_keys($pid, \%keys)),
	'>', 0, 'a copy is found');
$control->quit;

# Out of use: a temporary relation's key goes with it, at once
my $session_pid = $session->query_safe('SELECT pg_backend_pid()');
my %temp = ('relation temp' => $temp_key);
cmp_ok(scalar(find_keys($session_pid, \%temp)), '>', 0,
	'the key of a temporary relation is there');
$session->query_safe('DROP TABLE temp');
is(scalar(find_keys($session_pid, \%temp)), 0, '... and goes with it');

# ... and others with the checkpoint that removes them, in every process, though
# it does nothing
my %dropped = ('relation dropped' => $keys{'relation dropped'});

sub has_dropped
{
	my ($n) = @_;
	my %processes = processes_of($n);
	my @having;

	foreach my $pid (sort { $a <=> $b } keys %processes)
	{
		my @found;

		push @having, map { "$processes{$pid} $_->{name}" } @found
		  if unless_gone($pid, sub { @found = find_keys($pid, \%dropped) })
		  && @found > 0;
	}
	return join ', ', @having;
}
like(has_dropped($_), qr/client backend/, $_->name . ': the key is there')
  foreach $node, $standby;
$node->safe_psql('postgres', 'DROP TABLE dropped');
sql('CHECKPOINT');
$node->wait_for_catchup($standby, 'replay');
$standby->safe_psql('postgres', 'CHECKPOINT');
# The file goes at the checkpoint after that which unlinks the data file
sql('CHECKPOINT');
$node->wait_for_catchup($standby, 'replay');
$standby->safe_psql('postgres', 'CHECKPOINT');
foreach my $n ($node, $standby)
{
	my $left;
	foreach my $try (1 .. $PostgreSQL::Test::Utils::timeout_default)
	{
		$left = has_dropped($n);
		last if $left eq '';
		select(undef, undef, undef, 0.1);
	}
	is($left, '', $n->name . ': the key is in no process any more');
}

$session->quit;
$standby_session->quit;
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()
		AND backend_type = 'client backend'});
$parallel->quit;
$standby->stop;
$node->stop;
done_testing();
