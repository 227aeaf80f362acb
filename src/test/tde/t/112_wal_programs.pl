# Copyright (c) 2026, the Coffer authors

# PostgreSQL's programs on a server with encrypted WAL: backups by each method,
# verified with their WAL, archives by pg_receivewal, and what restarts or makes
# a cluster.  None of them writes WAL in clear.

use strict;
use warnings FATAL => 'all';

use File::Copy qw(copy move);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';
my $rows = q{SELECT count(*), md5(string_agg(b, '' ORDER BY a)) FROM t};
my $next = 1;

# Changes that put the canary into WAL, but not in clear into relations.
sub fill
{
	my ($node) = @_;
	my $to = $next + 199;
	$node->safe_psql('postgres', qq{
		INSERT INTO t SELECT g, '$canary' || g FROM generate_series($next, $to) g;
		SELECT pg_logical_emit_message(true, 'test', '$canary')});
	$next = $to + 1;
	return;
}

# no canary in the WAL of a data directory
sub no_canary
{
	my ($name, $dir) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', files_with($dir, $canary)), '', "$name: no canary");
	return;
}

# A server on a directory that was made from another's, with its rows
sub starts
{
	my ($name, $node, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->start;
	is($node->safe_psql('postgres', $rows), $expected, "$name: rows");
	fill($node);
	$node->stop;
	no_canary($name, $node->data_dir);
	return;
}

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf',
	"autovacuum = off\nwal_keep_size = 1GB\nsummarize_wal = on\n");
$node->start;
tde_setup($node);
$node->safe_psql('postgres',
	'CREATE TABLE t (a int, b text) USING tde_heap');

# -E is refused where it would not be true.
my $backups = $node->basedir . '/b';
mkdir $backups or die;
my @basebackup = ('--no-sync', '-c', 'fast', '-d', $node->connstr('postgres'));
command_fails_like(
	[ 'pg_basebackup', @basebackup, '-E', '-D' => "$backups/refused" ],
	qr/error: the server does not encrypt WAL/,
	'-E is refused if WAL is not encrypted');
ok(!-e "$backups/refused", '... and leaves nothing behind');

$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
fill($node);

# ---- base backups ----

my %methods = (
	stream => [ 'pg_basebackup', '-X', 'stream' ],
	fetch => [ 'pg_tde_basebackup', '-X', 'fetch', '--encrypt-wal=aes_128' ],
	R => [ 'pg_tde_basebackup', '-R', '-E', '--wal-method=stream' ],
	tar => [ 'pg_basebackup', '-Ft' ]);
foreach my $method (sort keys %methods)
{
	my $dir = "$backups/$method";
	my $expected = $node->safe_psql('postgres', $rows);
	my ($stdout, $stderr) = run_command(
		[ @{ $methods{$method} }, @basebackup, '-D' => $dir ]);
	is($stderr, '', "$method: backup without a message");
	if ($method eq 'tar')
	{
		command_ok([ 'pg_verifybackup', '-n', $dir ], "$method: pg_verifybackup -n");
		my $tar = $dir;
		$dir = "$backups/untarred";
		mkdir $dir, 0700 or die;
		system_or_bail('tar', 'xf', "$tar/base.tar", '-C', $dir);
		system_or_bail('tar', 'xf', "$tar/pg_wal.tar", '-C', "$dir/pg_wal");
		copy("$tar/backup_manifest", $dir) or die;
	}
	no_canary($method, $dir);
	command_ok([ 'pg_verifybackup', $dir ], "$method: pg_verifybackup");

	# WAL that lies elsewhere is read with the backup's keys.
	rename("$dir/pg_wal", "$dir.wal") or die;
	mkdir "$dir/pg_wal", 0700 or die;
	command_ok([ 'pg_verifybackup', '-w' => "$dir.wal", $dir ],
		"$method: pg_verifybackup -w");
	rmdir "$dir/pg_wal" or die;
	rename("$dir.wal", "$dir/pg_wal") or die;

	my $copy = PostgreSQL::Test::Cluster->new("from_$method");
	PostgreSQL::Test::RecursiveCopy::copypath($dir, $copy->data_dir);
	chmod 0700, $copy->data_dir or die;
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port);
	$copy->append_conf('postgresql.conf',
		"unix_socket_directories = '" . $copy->host . "'")
	  if $PostgreSQL::Test::Utils::use_unix_sockets;
	if ($method eq 'R')
	{
		$copy->start;
		fill($node);
		$node->wait_for_catchup($ENV{PGAPPNAME});
		is($copy->safe_psql('postgres', $rows),
			$node->safe_psql('postgres', $rows), 'R: the standby follows');
		no_canary('standby', $copy->data_dir);

		# also a standby can be read and backed up
		my $at = $copy->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
		command_ok([ 'pg_waldump', '-q', '-p' => $copy->data_dir,
			'-s' => $copy->safe_psql('postgres',
				'SELECT redo_lsn FROM pg_control_checkpoint()'),
			'-e' => $at ], 'pg_waldump of a standby');
		command_ok(
			[
				'pg_basebackup', '--no-sync', '-c', 'fast', '-E',
				'-d' => $copy->connstr('postgres'),
				'-D' => "$backups/of_standby"
			],
			'backup of a standby');
		command_ok([ 'pg_verifybackup', "$backups/of_standby" ],
			'... is verified');
		$copy->promote;
		fill($copy);
		$copy->stop;
		no_canary('promoted', $copy->data_dir);
	}
	else
	{
		starts($method, $copy, $expected);
	}
}

# A damaged segment is found, as without encryption.
{
	my $dir = "$backups/stream";
	my ($segment) = sort glob "$dir/pg_wal/0*";
	open(my $fh, '+<:raw', $segment) or die;
	my ($lsn) = slurp_file("$dir/backup_manifest") =~ /"Start-LSN": "([^"]+)"/;
	my (undef, $low) = split m{/}, $lsn;
	seek($fh, (hex($low) & 0xFFFFFF) + 16, 0) or die;
	print $fh "\x55" x 64;
	close($fh);
	command_fails_like([ 'pg_verifybackup', $dir ],
		qr/WAL parsing failed for timeline 1/, 'a damaged segment is found');
}

# ---- incremental backup ----

fill($node);
command_ok(
	[
		'pg_basebackup', @basebackup,
		'-i' => "$backups/fetch/backup_manifest",
		'-D' => "$backups/incremental"
	],
	'incremental backup');
command_ok([ 'pg_verifybackup', "$backups/incremental" ], '... is verified');
my $combined = PostgreSQL::Test::Cluster->new('combined');
command_ok(
	[
		'pg_combinebackup', '--no-sync', '-o' => $combined->data_dir,
		"$backups/fetch", "$backups/incremental"
	],
	'pg_combinebackup');
command_ok([ 'pg_verifybackup', $combined->data_dir ], '... is verified');
$combined->append_conf('postgresql.conf', 'port = ' . $combined->port);
$combined->append_conf('postgresql.conf',
	"unix_socket_directories = '" . $combined->host . "'")
  if $PostgreSQL::Test::Utils::use_unix_sockets;
starts('combined', $combined, $node->safe_psql('postgres', $rows));

# ---- pg_receivewal ----

my $received = $node->basedir . '/received';
mkdir $received or die;
$node->safe_psql('postgres',
	q{SELECT pg_create_physical_replication_slot('r', true)});
fill($node);
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
my $end = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
fill($node);
command_ok(
	[
		'pg_receivewal', '--no-sync', '-D' => $received, '-S' => 'r',
		'-d' => $node->connstr('postgres'), '-E' => $end, '--no-loop'
	],
	'pg_receivewal');
my @segments = grep { !/\.partial$/ } glob "$received/*";
cmp_ok(scalar(@segments), '>=', 1, '... has made segments');
foreach my $segment (@segments)
{
	my ($name) = $segment =~ m{([^/]+)$};
	ok( slurp_bytes($segment) eq
		  slurp_bytes($node->data_dir . "/pg_wal/$name"),
		"$name is as on the server");
}
no_canary('pg_receivewal', $received);

# ---- programs for stopped clusters ----

my $expected = $node->safe_psql('postgres', $rows);
$node->stop;
command_ok([ 'pg_tde_checksums', '--check', '-D' => $node->data_dir ],
	'pg_tde_checksums');
command_ok([ 'pg_controldata', $node->data_dir ], 'pg_controldata');
command_ok([ 'pg_tde_resetwal', '-D' => $node->data_dir ], 'pg_tde_resetwal');
starts('after pg_resetwal', $node, $expected);
$expected = do { $node->start; $node->safe_psql('postgres', $rows) };
tde_crash($node);
$node->start;
is($node->safe_psql('postgres', $rows), $expected, '... and after a crash');
$node->stop;

# ---- names ----

foreach my $name (qw(basebackup checksums resetwal rewind upgrade waldump))
{
	foreach my $option ('--help', '--version')
	{
		my ($ours, $stderr) = run_command([ "pg_tde_$name", $option ]);
		my ($stock) = run_command([ "pg_$name", $option ]);

		isnt($ours, '', "pg_tde_$name $option");
		$ours =~ s/pg_tde_$name/pg_$name/g;
		is($ours, $stock, '... is that of the program under its other name');
		is($stderr, '', '... and has no message');
	}
}

done_testing();
