# Copyright (c) 2026, the Coffer authors

# Where no memory, or next to none, or not enough for many connections, may be
# locked: initdb and the server run, encrypt, recover, and say, once, that keys
# could be swapped out.  With lock_memory the server says how much it needs.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my ($capabilities) =
  slurp_file('/proc/self/status') =~ /^CapEff:\s*[0-9a-f]+([0-9a-f]{4})$/m;
plan skip_all => 'this user may lock memory without limit (CAP_IPC_LOCK)'
  if hex($capabilities) & (1 << 14);

# Run a command that may lock so many kB.
sub limited
{
	my ($limit, @command) = @_;
	return run_log(
		[ 'sh', '-c', 'ulimit -l "$1" && shift && exec "$@"', 'sh', $limit,
			@command ]);
}

foreach my $limit (0, 64, 8192)
{
	# Not tde_node(): it may get its data directory by copying another one
	my $dir = PostgreSQL::Test::Utils::tempdir . '/data';
	ok( limited($limit, 'initdb', '--no-sync', '--auth' => 'trust',
			'--pgdata' => $dir),
		"initdb with $limit kB");

	my $node = tde_node("limit$limit");
	$node->append_conf('postgresql.conf', 'restart_after_crash = on');
	# what one read at a time of each connection needs is too much for 8 MB
	$node->append_conf('postgresql.conf', q{
		max_connections = 2000
		io_max_concurrency = 64}) if $limit == 8192;
	my $start = sub {
		my $label = shift;
		my $ok = limited($limit, 'pg_ctl', '--pgdata' => $node->data_dir,
			'--log' => $node->logfile, '--wait', 'start');
		ok($ok, "$label with $limit kB");
		$node->_update_pid($ok);
	};
	$start->('start');
	tde_setup($node);
	$node->safe_psql('postgres', q{
		CREATE TABLE t (a int PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO t SELECT g, 'canary' || g FROM generate_series(1, 1000) g});
	tde_crash($node);
	$start->('recovery');
	is( $node->safe_psql('postgres',
			q{SELECT count(*), bool_and(b = 'canary' || a), bool_and(pg_tde_is_encrypted('t')) FROM t}),
		'1000|t|t',
		'an encrypted table is read');
	is( $node->safe_psql('postgres',
			'SELECT locked, unlocked_processes > 5 FROM pg_tde_key_memory'),
		'f|t',
		'the view says that keys are not locked');

	# After a crash of a backend the postmaster makes shared memory anew
	my $offset = -s $node->logfile;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	kill 'KILL', scalar $session->query('SELECT pg_backend_pid()');
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	$node->poll_query_until('postgres', 'SELECT count(*) = 1000 FROM t')
	  or die 'the server did not come back';
	$session->{run}->kill_kill;
	$node->stop;

	my $log = slurp_file($node->logfile);
	is(scalar(() = $log =~ /could not lock the memory that holds encryption keys/g),
		2, 'the log says so once for each start');
	my ($has, $may) = $log =~
	  /A process has at least (\d+) kB of such memory, and may lock at most (\d+) kB\./;
	is($may, $limit, '... with the limit');
	cmp_ok($has, '>', $limit, '... and what is needed');
}

# A limit that is lowered for a running server: a new process says so
SKIP:
{
	skip 'no program prlimit', 3
	  unless run_log([ 'sh', '-c', 'command -v prlimit' ]);
	my $node = tde_node('lowered');
	$node->start;
	tde_setup($node);
	my $view = 'SELECT locked, unlocked_processes FROM pg_tde_key_memory';
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	is($node->safe_psql('postgres', $view), 't|0', 'all is locked');
	run_log([ 'prlimit', "--pid=$postmaster", '--memlock=65536:' ])
	  or die 'could not lower a limit';
	my $failed = (split /\|/, $node->safe_psql('postgres', $view))[1];
	cmp_ok($failed, '>', 0, 'a process that could not lock is counted');
	$node->safe_psql('postgres', 'SELECT 1') foreach 1 .. 3;
	$node->stop;
	my $log = slurp_file($node->logfile);
	is(scalar(() = $log =~ /could not lock the memory that holds encryption keys/g),
		1, 'and said, once');
}

# What lock_memory says it needs is what it needs
my $node = tde_node('whole');
$node->append_conf('postgresql.conf', 'lock_memory = on');
my $start = sub {
	return limited($_[0], 'pg_ctl', '--pgdata' => $node->data_dir,
		'--log' => $node->logfile, '--wait', 'start');
};
ok(!$start->(8192), 'lock_memory: no start with 8 MB');
my ($needed) = slurp_file($node->logfile) =~
  /"lock_memory" is on, and this process needs to lock at least (\d+) kB; it may lock at most 8192 kB/;
cmp_ok($needed // 0, '>', 8192, '... the error tells how much is needed');
SKIP:
{
	my $hard = (run_command([ 'sh', '-c', 'ulimit -H -l' ]))[0];
	my $enough = int($needed * 1.5);
	skip "the limit of locked memory (ulimit -H -l) is too low to try: $hard kB", 2
	  if $hard ne 'unlimited' && $hard < $enough;
	my $offset = -s $node->logfile;
	ok(!$start->($needed - 1024), '... less is refused');
	ok($start->($enough), '... half as much again, for its children, will do');
	$node->_update_pid(1);
	$node->stop;
}

done_testing();
