# Copyright (c) 2026, the Coffer authors

# A key provider that does not answer for a while: a standby that restores from
# an archive in clear goes on serving queries, and replays what comes when the
# provider is back.  How long the two programs wait.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $dir = PostgreSQL::Test::Utils::tempdir;
my $shm = "/dev/shm/coffer-test-$$";
mkdir $shm or die;
END { system('rm', '-rf', $shm) if defined $shm }
mkdir "$dir/$_" or die foreach qw(written clear);

my $node = tde_node(
	'main',
	allows_streaming => 1,
	extra => ['--wal-segsize=1']);
$node->append_conf(
	'postgresql.conf', qq{
autovacuum = off
archive_mode = on
archive_command = 'cp %p $dir/written/%f && pg_tde_archive_decrypt -T $shm %f %p "cp %%p $dir/clear/%%f"'
});
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);
my $data = $node->data_dir;
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
$node->safe_psql('postgres', 'CREATE TABLE t (a int) USING tde_heap');
$node->backup('backup');

sub away { rename($ring, "$ring.away") or die "$!"; return; }
sub back { rename("$ring.away", $ring) or die "$!"; return; }

# A row in a segment of its own, which is archived
sub archive_row
{
	my $segment = $node->safe_psql('postgres',
		'INSERT INTO t VALUES (1); SELECT pg_walfile_name(pg_switch_wal())');
	$node->poll_query_until('postgres',
		"SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
	  or die 'WAL is not archived';
	return $segment;
}

my $segment = archive_row();
my $waiting = qr/warning: waiting for key provider "[^"]+" to return principal key "[^"]+"\n[^\n]*detail: could not open keyring file "\Q$ring\E"/;

sub restore
{
	my (@options) = @_;
	return [
		'pg_tde_restore_encrypt', '-T', $shm, '-D', $data, @options, $segment,
		"$dir/back", "cp $dir/clear/%f %p" ];
}

sub archive
{
	my (@options) = @_;
	return [
		'pg_tde_archive_decrypt', '-T', $shm, '-D', $data, @options, $segment,
		"$dir/written/$segment", "cp %p $dir/back" ];
}

#
# The programs
#
foreach my $program (\&restore, \&archive)
{
	command_checks_all(
		$program->('-w', 'x'),
		$program == \&restore ? 255 : 1,
		[qr/^$/], [qr/invalid value "x" for option -w\/--wait/], 'bad value');
}

away();
my $from = time;
command_checks_all(restore('--wait=2'), 255, [qr/^$/],
	[qr/${waiting}.*error: key [0-9A-F]{8} of WAL page at .* is not available: could not open keyring file/s],
	'restoring waits for a time, and stops recovery then');
cmp_ok(time - $from, '>=', 1.5, 'for that time');
command_checks_all(restore('--wait=0'), 255, [qr/^$/],
	[qr/^[^\n]*error: key [0-9A-F]{8} of WAL page/], 'or not at all');
command_checks_all(archive(), 1, [qr/^$/],
	[qr/^[^\n]*error: key [0-9A-F]{8} of WAL page/],
	'archiving does not wait, the archiver tries again');
ok(!-e "$dir/back", 'there is no file');
command_checks_all(archive('-w', 2), 1, [qr/^$/], [$waiting],
	'unless it is told to');

# While they wait they can be stopped, and go on when the key is there.
sub begin
{
	my (@command) = @_;
	unlink "$dir/stderr";
	my $pid = fork() // die;
	if ($pid == 0)
	{
		open STDERR, '>', "$dir/stderr" or die;
		exec @command or die;
	}
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return $pid if -e "$dir/stderr" && slurp_file("$dir/stderr") =~ $waiting;
		usleep(100_000);
	}
	die 'it does not wait';
}

foreach my $command (restore(), archive('-w', -1))
{
	my $pid = begin(@$command);
	kill TERM => $pid;
	waitpid $pid, 0;
	is($? & 127, 15, "$command->[0]: SIGTERM ends the wait");
	is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory');

	$pid = begin(@$command);
	is_deeply([ glob("$shm/*") ], [], 'nor is there anything while it waits');
	back();
	waitpid $pid, 0;
	is($?, 0, 'it goes on when the provider answers');
	ok(-s "$dir/back", 'and has done what it should');
	unlink "$dir/back";
	away();
}
back();

#
# A standby
#
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup');
$standby->append_conf(
	'postgresql.conf', qq{
restore_command = 'pg_tde_restore_encrypt -T $shm %f %p "cp $dir/clear/%%f %%p"'
wal_retrieve_retry_interval = 100ms
archive_mode = off
});
$standby->set_standby_mode;
$standby->start;
$standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM t')
  or die 'the standby does not replay';

# The primary archives, then the provider goes away, and only then the standby
# can get it.
my $restore_from = "$dir/clear";
rename $restore_from, "$restore_from.later" or die;
mkdir $restore_from or die;
$node->append_conf('postgresql.conf',
	"archive_command = 'pg_tde_archive_decrypt -T $shm %f %p \"cp %%p $dir/clear.later/%%f\"'\n");
$node->reload;
archive_row();
away();
my $log = -s $standby->logfile;
rmdir $restore_from or die;
rename "$restore_from.later", $restore_from or die;
$standby->wait_for_log($waiting, $log);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'),
	1, 'a standby without the key provider serves queries');
sleep 3;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'),
	1, 'and goes on to');
back();
$standby->poll_query_until('postgres', 'SELECT count(*) = 2 FROM t')
  or die 'the standby does not go on';
unlike(slurp_file($standby->logfile, $log), qr/FATAL|255/,
	'it replays the rest when the provider is back');

$standby->stop;
$node->stop;
is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory at all');

done_testing();
