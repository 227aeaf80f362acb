# Copyright (c) 2026, the Coffer authors

# The settings are the server's own: listed without a configuration, kept by
# whoever manages one, and refused when they are misspelt.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../../../src/test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

# What Patroni looks at: name, context, group, type, boot value, ...
my ($config, $err) = run_command([ 'postgres', '--describe-config' ]);
my %described = map { (split(/\t/, $_))[0] => [ split(/\t/, $_) ] }
  split(/\n/, $config);
my %settings = (
	'lock_memory' => 'postmaster BOOLEAN FALSE',
	'pg_tde.accept_clear_wal' => 'postmaster BOOLEAN FALSE',
	'pg_tde.archive_command' => 'sighup STRING ',
	'pg_tde.archive_temp_directory' => 'sighup STRING /dev/shm',
	'pg_tde.cipher' => 'superuser ENUM aes_128_xts',
	'pg_tde.enforce_encryption' => 'superuser BOOLEAN FALSE',
	'pg_tde.enforce_wal_encryption' => 'postmaster BOOLEAN FALSE',
	'pg_tde.give_up_databases' => 'postmaster STRING ',
	'pg_tde.inherit_global_providers' => 'superuser BOOLEAN TRUE',
	'pg_tde.key_state_action' => 'sighup ENUM log',
	'pg_tde.key_state_poll_interval' => 'postmaster INTEGER 0',
	'pg_tde.key_wait_timeout' => 'sighup INTEGER 30',
	'pg_tde.log_key_access' => 'sighup BOOLEAN TRUE',
	'pg_tde.wal_encrypt' => 'postmaster BOOLEAN FALSE');
is_deeply(
	{
		map { $_ => join(' ', @{ $described{$_} }[ 1, 3, 4 ]) }
		grep { /^(pg_tde\.|lock_memory$)/ } keys %described
	},
	\%settings,
	'--describe-config lists all settings');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
my $data = $node->data_dir;

sub setting
{
	my ($value) = run_command([ 'postgres', '-D', $data, '-C', @_ ]);
	return $value;
}
is(setting('lock_memory'), 'off', 'postgres -C lock_memory');
is(setting('pg_tde.cipher'), 'aes_128_xts', 'postgres -C pg_tde.cipher');
is(setting('pg_tde.cipher', '-c', 'pg_tde.cipher=aes_256'),
	'aes_256', 'alias on the command line is shown as it was given');

# No library is preloaded
$node->start;
is( $node->safe_psql(
		'postgres', q{
		SELECT name FROM pg_settings
		WHERE name = 'lock_memory' OR name LIKE 'pg\_tde%' ORDER BY name COLLATE "C"}),
	join("\n", sort(keys %settings, 'pg_tde.wal_is_encrypted')),
	'pg_settings, with one that only shows');

my ($ret, $stdout, $stderr) = $node->psql('postgres', 'SET pg_tde.cypher = aes_256_xts');
like(
	$stderr,
	qr/invalid configuration parameter name "pg_tde.cypher"/,
	'SET of an unknown name is refused');
($ret, $stdout, $stderr) =
  $node->psql('postgres', q{ALTER SYSTEM SET pg_tde.cypher = 'aes_256_xts'});
like(
	$stderr,
	qr/invalid configuration parameter name "pg_tde.cypher"/,
	'ALTER SYSTEM too');
($ret, $stdout, $stderr) =
  $node->psql('postgres', q{ALTER DATABASE postgres SET pg_tde.cypher = 'aes_256_xts'});
like(
	$stderr,
	qr/invalid configuration parameter name "pg_tde.cypher"/,
	'ALTER DATABASE too');
($ret, $stdout, $stderr) = $node->psql('postgres', 'SET pg_tde.cipher = des');
like(
	$stderr,
	qr/HINT:  Available values: aes_128_xts, aes_256_xts, aes_128_cbc, aes_256_cbc\./,
	'unknown cipher');
($ret, $stdout, $stderr) = $node->psql('postgres', 'SET lock_memory = on');
like($stderr, qr/cannot be changed without restarting the server/,
	'lock_memory needs a restart');

# Who may set it, and whom it reaches
$node->safe_psql('postgres',
	'CREATE ROLE u LOGIN; ALTER DATABASE postgres SET pg_tde.cipher = aes_256_xts');
is($node->safe_psql('postgres', 'SHOW pg_tde.cipher'),
	'aes_256_xts', 'ALTER DATABASE SET');
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'SET pg_tde.cipher = aes_128_xts',
	extra_params => [ '-U', 'u' ]);
like($stderr, qr/permission denied to set parameter "pg_tde.cipher"/,
	'an ordinary user may not change the cipher');
is( $node->safe_psql(
		'postgres', q{
		SET debug_parallel_query = on;
		SET pg_tde.cipher = aes_256_cbc;
		SELECT current_setting('pg_tde.cipher')}),
	'aes_256_cbc',
	'parallel workers see the value');
like(
	$node->safe_psql('postgres', 'SET pg_tde.cipher = aes_256_cbc; EXPLAIN (SETTINGS) SELECT 1'),
	qr/Result/,
	'EXPLAIN (SETTINGS)');

$node->safe_psql('postgres', q{ALTER SYSTEM SET pg_tde.cipher = 'aes_128_cbc'});
$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET pg_tde.cipher});
$node->reload;
$node->poll_query_until('postgres',
	q{SELECT current_setting('pg_tde.cipher') = 'aes_128_cbc'})
  or die 'setting did not arrive';
$node->safe_psql('postgres', 'ALTER SYSTEM SET lock_memory = on');
$node->reload;
$node->poll_query_until('postgres',
	q{SELECT pending_restart FROM pg_settings WHERE name = 'lock_memory'})
  or die 'setting did not arrive';
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');

# A server that is asked to encrypt WAL and cannot does not start
is($node->safe_psql('postgres', 'SHOW pg_tde.wal_encrypt'), 'off', 'wal_encrypt');
$node->stop;
$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
my $start = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'no start with wal_encrypt and no server key');
like(
	slurp_file($node->logfile, $start),
	qr/FATAL:  WAL cannot be encrypted: no server key is set\n.*HINT:  Start the server with "pg_tde.wal_encrypt" off and set one/,
	'... and the log tells why');
$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', undef);
command_fails_like(
	[ 'initdb', '--no-sync', '-c' => 'pg_tde.wal_encrypt=on', $node->basedir . '/new' ],
	qr/FATAL:  WAL cannot be encrypted: no server key is set/,
	'initdb makes no cluster whose WAL is encrypted from the beginning');

# A server that is asked for what it does not know does not start
my $log = $node->logfile;
$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypted = on');
is($node->start(fail_ok => 1), 0, 'no start with an unknown pg_tde setting');
like(
	slurp_file($log),
	qr/invalid configuration parameter name "pg_tde.wal_encrypted"/,
	'... and the log tells');
$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypted', undef);

#
# lock_memory
#
sub start_with_limit
{
	my ($limit) = @_;
	return run_log([
		'sh', '-c', '{ test -z "$1" || ulimit -l "$1"; } && shift && exec "$@"',
		'sh', $limit,
		'pg_ctl', '--pgdata' => $data, '--log' => $log, '--wait', 'start' ]);
}

$node->append_conf('postgresql.conf', 'lock_memory = on');
my ($capabilities) =
  slurp_file('/proc/self/status') =~ /^CapEff:\s*[0-9a-f]+([0-9a-f]{4})$/m;
my $capable = hex($capabilities) & (1 << 14);

# Its run-time library takes the place of mlockall(), and does nothing.
my $sanitized =
  (run_command(['pg_config']))[0] =~ /-fsanitize=\S*address/;
my $no_locking = 'memory is not locked under the address sanitizer';
SKIP:
{
	skip $no_locking, 5 if $sanitized;
	skip 'this user may lock memory without limit (CAP_IPC_LOCK)', 5 if $capable;

	my $offset = -s $log;
	ok(!start_with_limit(64), 'no start where memory may not be locked');
	my $text = slurp_file($log, $offset);
	like($text, qr/FATAL:  could not lock memory: Cannot allocate memory/,
		'error');
	like(
		$text,
		qr/DETAIL:  "lock_memory" is on, and this process needs to lock at least \d{5,} kB; it may lock at most 64 kB\./,
		'detail');
	like($text, qr/HINT: .*ulimit -l unlimited.*LimitMEMLOCK=infinity/, 'hint');
	is(scalar(() = $text =~ /FATAL/g), 1, 'said once, before children start');
}

SKIP:
{
	skip $no_locking, 4 if $sanitized;
	my $unlimited =
	  $capable || (run_command([ 'sh', '-c', 'ulimit -H -l' ]))[0] eq 'unlimited';
	skip 'the limit of locked memory (ulimit -H -l) is too low to try', 4
	  unless $unlimited;

	ok(start_with_limit($capable ? '' : 'unlimited'), 'start with lock_memory');
	$node->_update_pid(1);
	$node->safe_psql('postgres', 'SELECT 1');

	# Locked: most of what the process has (shared memory included)
	my $share = sub {
		my ($pid) = @_;
		my $status = slurp_file("/proc/$pid/status");
		my ($size) = $status =~ /^VmSize:\s*(\d+)/m;
		my ($locked) = $status =~ /^VmLck:\s*(\d+)/m;
		return $locked / $size;
	};
	my $postmaster = (split /\n/, slurp_file("$data/postmaster.pid"))[0];
	cmp_ok($share->($postmaster), '>', 0.9, 'memory of the postmaster is locked');
	my $checkpointer = $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
	cmp_ok($share->($checkpointer), '>', 0.9, '... of the checkpointer');
	my $session = $node->background_psql('postgres');
	cmp_ok($share->($session->query_safe('SELECT pg_backend_pid()')),
		'>', 0.9, '... of a session');
	$session->quit;
	$node->stop;
}

done_testing();
