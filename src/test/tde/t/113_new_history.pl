# Copyright (c) 2026, the Coffer authors

# Programs that begin another history of WAL, with encrypted WAL before and
# after: pg_createsubscriber, which gives a standby a system identifier of its
# own, and pg_upgrade, which leaves the keys of the old WAL behind.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

# pg_upgrade leaves scripts in the current directory.
chdir $PostgreSQL::Test::Utils::tmp_check or die "could not chdir: $!";

my $canary = 'CANARY-0123456789-abcdefgh';
my $count = q{SELECT count(*), sum(a) FROM t};

sub fill
{
	my ($node, $from, $to) = @_;
	$node->safe_psql('postgres', qq{
		INSERT INTO t SELECT g, '$canary' || g FROM generate_series($from, $to) g;
		SELECT pg_logical_emit_message(true, 'test', '$canary')});
	return;
}

# The rows are there, now and after another epoch, and WAL is encrypted.
sub goes_on
{
	my ($name, $node, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', $count), $expected, "$name: rows");
	is($node->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
		't', "$name: WAL is encrypted");
	my $from = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$node->safe_psql('postgres',
		"SELECT pg_logical_emit_message(true, 'test', '$canary')");
	tde_crash($node);
	$node->start;
	is($node->safe_psql('postgres', $count),
		$expected, "$name: rows after a crash");
	command_ok(
		[
			'pg_waldump', '-q', '-p' => $node->data_dir, '-s' => $from,
			'-t' => $node->safe_psql('postgres',
				'SELECT timeline_id FROM pg_control_checkpoint()'),
			'-e' => $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()')
		],
		"$name: pg_waldump");
	is(join(' ', files_with($node->data_dir . '/pg_wal', $canary)),
		'', "$name: no canary in WAL");
	return;
}

my $main = tde_node('main', allows_streaming => 'logical');
$main->append_conf('postgresql.conf', "autovacuum = off\n");
$main->start;
tde_setup($main);
$main->safe_psql('postgres',
	'CREATE TABLE t (a int PRIMARY KEY, b text) USING tde_heap');
$main->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$main->restart;
fill($main, 1, 100);

# ---- pg_createsubscriber ----

$main->backup('b');
my $sub = PostgreSQL::Test::Cluster->new('sub');
$sub->init_from_backup($main, 'b', has_streaming => 1);
$sub->set_standby_mode;
my $connstr = $main->connstr . ' dbname=postgres';
$sub->append_conf('postgresql.conf', "primary_conninfo = '$connstr'\n");
$sub->start;
fill($main, 101, 200);
$main->wait_for_catchup($sub);
$sub->stop;
command_ok(
	[
		'pg_createsubscriber',
		'--pgdata' => $sub->data_dir,
		'--publisher-server' => $main->connstr('postgres'),
		'--socketdir' => $sub->host,
		'--subscriber-port' => $sub->port,
		'--database' => 'postgres',
		'--subscription' => 's'
	],
	'pg_createsubscriber');
$sub->start;
fill($main, 201, 300);
$main->wait_for_catchup('s');
goes_on('subscriber', $sub, $main->safe_psql('postgres', $count));
fill($main, 301, 400);
$main->wait_for_catchup('s');
is($sub->safe_psql('postgres', $count),
	$main->safe_psql('postgres', $count), 'the subscriber goes on');
$sub->safe_psql('postgres', 'DROP SUBSCRIPTION s');
$sub->stop;

# ---- pg_upgrade ----

my $expected = $main->safe_psql('postgres', $count);
$main->stop;
my $new = tde_node('new');
$new->append_conf('postgresql.conf',
	"autovacuum = off\npg_tde.wal_encrypt = on\n");
command_ok(
	[
		'pg_tde_upgrade', '--no-sync', '-s', $new->host,
		-d => $main->data_dir, -b => $main->config_data('--bindir'),
		-p => $main->port,
		-D => $new->data_dir, -B => $new->config_data('--bindir'),
		-P => $new->port
	],
	'pg_tde_upgrade');
ok( !-e $new->data_dir . '/pg_tde/global/wal_epochs',
	'the keys of the old WAL are not taken along');
$new->start;
goes_on('upgraded', $new, $expected);
$new->stop;

done_testing();
