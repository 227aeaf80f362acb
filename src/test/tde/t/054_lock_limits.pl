# Copyright (c) 2026, the Coffer authors

# Where no memory, or next to none, may be locked: initdb and the server run,
# encrypt, recover, and say that keys could be swapped out.

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

foreach my $limit (0, 64)
{
	# Not tde_node(): it may get its data directory by copying another one
	my $dir = PostgreSQL::Test::Utils::tempdir . '/data';
	ok( limited($limit, 'initdb', '--no-sync', '--auth' => 'trust',
			'--pgdata' => $dir),
		"initdb with $limit kB");

	my $node = tde_node("limit$limit");
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
	is( $node->safe_psql('postgres', 'SELECT locked FROM pg_tde_key_memory'),
		'f',
		'the view says that keys are not locked');
	like(slurp_file($node->logfile),
		qr/LOG:  could not lock the memory that holds encryption keys/,
		'and so does the log');
	$node->stop;
}

done_testing();
