# Copyright (c) 2026, the Coffer authors

# An archive in clear, from a server whose WAL is encrypted, and back: through
# pg_tde_archive_decrypt in archive_command, through pg_tde_restore_encrypt in
# restore_command.  The archive can be read, the servers' pg_wal cannot; what
# comes back is what was there; and a key that is missing stops both programs,
# and nothing is lost.

use strict;
use warnings FATAL => 'all';

use File::Copy;
use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;
use Time::HiRes qw(usleep);

my $canary = 'CANARY-0123456789-abcdefgh';
my $dir = PostgreSQL::Test::Utils::tempdir;
my $shm = "/dev/shm/coffer-test-$$";
mkdir $shm or die;
END { system('rm', '-rf', $shm) if defined $shm }

# What the archiver had: the segment as the server wrote it, and in clear.
mkdir "$dir/$_" or die foreach qw(written clear second);

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
$node->backup('backup');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub rows_of
{
	my ($server) = @_;
	return $server->safe_psql('postgres',
		'SELECT count(*), sum(a), md5(string_agg(b, NULL ORDER BY a)) FROM t');
}

my $n = 0;

sub write_rows
{
	my ($rows) = @_;
	my $first = $n + 1;
	$n += $rows;
	sql("INSERT INTO t SELECT g, '$canary' || g || repeat(chr(65 + g % 26), g % 100) FROM generate_series($first, $n) g");
	return;
}

# Finish the segment, and wait until it is in the archive; returns its name.
sub archive_now
{
	my $segment = sql('SELECT pg_walfile_name(pg_switch_wal())');
	$node->poll_query_until('postgres',
		"SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
	  or die 'WAL is not archived';
	return $segment;
}

# Several epochs: a restart, crashes; records over the pages' ends; zeros.
sql('CREATE TABLE t (a int PRIMARY KEY, b text) USING tde_heap');
sql(q{CREATE TABLE zeros (a bytea STORAGE plain) USING tde_heap;
	INSERT INTO zeros SELECT decode(repeat('00', 7900), 'hex') FROM generate_series(1, 100)});
write_rows(1000);
sql('SELECT pg_create_restore_point(\'early\')');
my $early = rows_of($node);
write_rows(4000);
$node->restart;
write_rows(5000);
sql('SELECT pg_create_restore_point(\'middle\')');
my $middle = rows_of($node);
write_rows(3000);
tde_crash($node);
$node->start;
write_rows(3000);
sql('SELECT pg_switch_wal()');
tde_crash($node);
$node->start;
write_rows(100);
rows_of($node);					# sets hint bits, which is logged
archive_now();

#
# The archive
#
my @segments = sort(grep { /^[0-9A-F]{24}$/ } slurp_dir("$dir/clear"));
is_deeply([ grep { /^[0-9A-F]{24}$/ } sort(slurp_dir("$dir/written")) ],
	\@segments, 'each segment was archived twice');
isnt(join(' ', files_with("$dir/clear", $canary)), '',
	'in the archive the canary is in clear');
is(join(' ', files_with("$dir/written", $canary)), '',
	'but not in what the server wrote');
is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory');

# Is any page encrypted?
sub key_ids
{
	my ($file) = @_;
	my $wal = slurp_bytes($file);
	my %ids;
	for (my $at = 0; $at < length $wal; $at += 8192)
	{
		$ids{ unpack('L<', substr($wal, $at + 20, 4)) }++;
	}
	delete $ids{0};
	return keys %ids;
}

is(scalar(grep { !($_ & 0x80000000) } map { key_ids("$dir/clear/$_") } @segments),
	0, 'no page in the archive is encrypted');
my %epochs = map { $_ => 1 } map { key_ids("$dir/written/$_") } @segments;
cmp_ok(scalar(keys %epochs), '>=', 4, 'and the server wrote several epochs');

# What is read of it without any key is what is read of the original.
sub waldump
{
	my ($path, @options) = @_;
	my ($stdout, $stderr) = run_command(
		[ 'pg_waldump', '-p', $path, @options, $segments[0], $segments[-1] ]);
	return $stdout;
}
my $dump = waldump("$dir/written", '-k', "$data/pg_tde");
cmp_ok(length $dump, '>', 100000, 'original WAL is read with keys');
ok(waldump("$dir/clear", '-k', '/none') eq $dump,
	'WAL from the archive is read without keys, and is the same');

# Each segment in both forms, there and back.
my $different = 0;
my $differs_back = 0;
foreach my $segment (@segments)
{
	system("pg_tde_archive_decrypt -D $data $segment $dir/written/$segment >$dir/stdout") == 0
	  or die;
	$different++
	  if slurp_bytes("$dir/stdout") ne slurp_bytes("$dir/clear/$segment");
	run_command([ 'pg_tde_restore_encrypt', '-T', $shm, '-D', $data, $segment, "$dir/back", "cp $dir/clear/%f %p" ]);
	$differs_back++
	  if slurp_bytes("$dir/back") ne slurp_bytes("$dir/written/$segment");
	unlink "$dir/back";
}
is($different, 0, 'standard output gets the same as the command');
is($differs_back, 0, 'encrypted again, segments are what the server wrote');

# One that is encrypted, for what follows
my ($encrypted) = grep { my $s = $_; grep { $_ } key_ids("$dir/written/$s") } @segments;

#
# Failures of pg_tde_archive_decrypt
#
sub archive
{
	return [ 'pg_tde_archive_decrypt', '-D', $data, @_[ 0 .. $#_ - 1 ],
		$encrypted, "$dir/written/$encrypted", $_[-1] ];
}

for my $status (1, 5, 127, 143)
{
	command_exit_is(archive('-T', $shm, "exit $status"),
		$status, "status $status of the command is passed on");
}
command_exit_is(archive('-T', $shm, 'kill -KILL $$'),
	128 + 9, 'death by a signal is passed on');
command_checks_all(
	archive('-T', $shm, 'stat -c "%%a %%F" $(dirname %p); basename %p'),
	0, [qr/^700 directory\n$encrypted$/], [qr/^$/],
	'the command gets a path with the right name in a private directory');
SKIP:
{
	skip 'temporary files are in memory here', 2
	  if `stat -f -c %T '$dir'` =~ /^(tmpfs|ramfs)$/m;
	command_checks_all(archive('-T', $dir, "touch $dir/ran"),
		1, [qr/^$/], [qr/directory "\Q$dir\E" is not in memory/],
		'not on a disk');
	ok(!-e "$dir/ran", 'and the command does not run');
}
{
	my $pid = fork() // die;
	exec @{ archive('-T', $shm, "echo x >$dir/pid; exec sleep 1000") } if $pid == 0;
	usleep(50_000) until -s "$dir/pid";
	is(scalar(@{ [ glob("$shm/*/$encrypted") ] }), 1, 'the command runs');
	kill TERM => $pid;
	waitpid $pid, 0;
	is($? & 127, 15, 'SIGTERM ends the program');
}
is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory after that');

# The keyring is lost for a while: the archiver tries again, with a reason.
my $log = -s $node->logfile;
my $failed = sql('SELECT failed_count FROM pg_stat_archiver');
rename $ring, "$ring.away" or die;
write_rows(10);
my $segment = sql('SELECT pg_walfile_name(pg_switch_wal())');
$node->poll_query_until('postgres',
	"SELECT failed_count > $failed FROM pg_stat_archiver")
  or die 'archiving goes on';
like(
	slurp_file($node->logfile, $log),
	qr/error: key [0-9A-F]{8} of WAL page at [0-9A-F]+\/[0-9A-F]+ of timeline 1 in file "pg_wal\/$segment" is not available: could not open keyring file "\Q$ring\E"/,
	'a key that is not available is named with file and position');
ok(!-e "$dir/clear/$segment", 'and nothing is archived');
rename "$ring.away", $ring or die;
$node->poll_query_until('postgres',
	"SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
  or die 'WAL is not archived';
ok(-e "$dir/clear/$segment", 'archiving goes on with the key');
my $all = rows_of($node);

#
# Recovery.  The backup knows none of the later epochs.
#
sub restored
{
	my ($name, $command, $conf) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	$server->init_from_backup($node, 'backup');
	$server->append_conf(
		'postgresql.conf', qq{
restore_command = '$command'
recovery_target_timeline = 'latest'
archive_mode = off
$conf
});
	$server->set_recovery_mode;
	return $server;
}

sub recover
{
	my ($server) = @_;
	$server->start;
	$server->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
	  or die 'recovery does not end';
	return;
}

my $restore = qq{pg_tde_restore_encrypt -T $shm %f %p "cp $dir/clear/%%f %%p"};
my $to_middle = "recovery_target_name = 'middle'\nrecovery_target_action = 'promote'";

my $pitr = restored('pitr', $restore, qq{$to_middle
archive_mode = on
archive_command = 'pg_tde_archive_decrypt -T $shm %f %p "cp %%p $dir/second/%%f"'});
recover($pitr);
is(rows_of($pitr), $middle, 'recovery to a point in time');
is(join(' ', files_with($pitr->data_dir . '/pg_wal', $canary)), '',
	'no canary in pg_wal of what was restored');
is($pitr->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	't', 'and it encrypts');

# It archives its history and the segment in which the timeline ended, too.
$pitr->safe_psql('postgres', "INSERT INTO t VALUES (-1, '$canary')");
my $end = $pitr->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$pitr->poll_query_until('postgres',
	"SELECT last_archived_wal >= '$end' FROM pg_stat_archiver")
  or die 'WAL is not archived';
my @second = slurp_dir("$dir/second");
is(slurp_file("$dir/second/00000002.history"),
	slurp_file($pitr->data_dir . '/pg_wal/00000002.history'),
	'history of the timeline is archived');
isnt(join(' ', files_with("$dir/second", $canary)), '', 'in clear');
$pitr->stop;

my $other = restored('other', $restore, '');
recover($other);
is(rows_of($other), $all, 'recovery of all');
is(join(' ', files_with($other->data_dir . '/pg_wal', $canary)), '',
	'no canary in pg_wal there either');
$other->safe_psql('postgres', "INSERT INTO t VALUES (-1, '$canary')");
tde_crash($other);
$other->start;
is($other->safe_psql('postgres', 'SELECT count(*) FROM t WHERE a = -1'),
	1, 'it goes on, through a crash');
$other->stop;

my $clear = restored('clear', "cp $dir/clear/%f %p",
	'pg_tde.accept_clear_wal = on');
recover($clear);
is(rows_of($clear), $all, 'where a setting says so it works without the program');
$clear->stop;

# The records XLOG of the first segment of timeline 2
sub first_wal
{
	my ($server) = @_;
	my $wal = $server->data_dir . '/pg_wal';
	my ($segment) = sort(grep { /^00000002[0-9A-F]{16}$/ } slurp_dir($wal));
	my ($stdout) = run_command([ 'pg_waldump', '-p', $wal, '-r', 'XLOG', $segment ]);
	return $stdout;
}

# Whose WAL is in clear from then on does not go on in a page that says that it
# was encrypted: pg_tde_restore_encrypt would encrypt the new records under the
# old key, and the positions had others.
my $off = restored('off', "cp $dir/clear/%f %p",
	$to_middle =~ s/middle/early/r
	  . "\npg_tde.wal_encrypt = off\npg_tde.accept_clear_wal = on");
recover($off);
is(rows_of($off), $early, 'recovery to an earlier point in time');
# The first record of the new timeline
my ($new) = first_wal($off) =~ /lsn: (\S+), .*CHECKPOINT_SHUTDOWN/ or die;
my ($name, $offset) = split /\|/,
  $off->safe_psql('postgres', "SELECT * FROM pg_walfile_name_offset('$new')");
my $page = substr(slurp_bytes($off->data_dir . "/pg_wal/$name"), $offset - $offset % 8192, 8192);
is(unpack('L<', substr($page, 20, 4)), 0, 'new WAL is in pages in clear');
$off->safe_psql('postgres', "INSERT INTO t VALUES (-1, '$canary')");
tde_crash($off);
$off->start;
is($off->safe_psql('postgres', 'SELECT count(*) FROM t WHERE a = -1'),
	1, 'and it goes on, through a crash');
$off->stop;

# A standby that is promoted begins with a checkpoint in encrypted WAL, as its
# last one is in WAL in clear: a stock server would start from that.
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup');
$standby->append_conf(
	'postgresql.conf', qq{
restore_command = 'cp $dir/clear/%f %p'
archive_mode = off
pg_tde.accept_clear_wal = on
});
$standby->set_standby_mode;
$standby->start;
$standby->poll_query_until('postgres', "SELECT count(*) = $n FROM t")
  or die 'the standby does not get all';
$standby->safe_psql('postgres', 'CHECKPOINT');
$standby->promote;
is(rows_of($standby), $all, 'promotion of a standby');
my $dumped = first_wal($standby);
like($dumped, qr/CHECKPOINT_SHUTDOWN/, 'there is a checkpoint');
unlike($dumped, qr/END_OF_RECOVERY/, 'instead of an end-of-recovery record');
$standby->stop;

# An archive of both kinds
mkdir "$dir/mixed" or die;
copy($_ % 2 ? "$dir/clear/$segments[$_]" : "$dir/written/$segments[$_]", "$dir/mixed/$segments[$_]")
  or die
  foreach 0 .. $#segments;
copy("$dir/clear/$segment", "$dir/mixed/$segment") or die;
my $mixed = restored('mixed', $restore =~ s/clear/mixed/r, '');
recover($mixed);
is(rows_of($mixed), $all, 'an archive of both kinds');
is(join(' ', files_with($mixed->data_dir . '/pg_wal', $canary)), '',
	'no canary in pg_wal');
$mixed->stop;

#
# Without the key recovery stops; it does not end.
#
my $keyless = restored('keyless', $restore, 'pg_tde.key_wait_timeout = 0');
$keyless->append_conf('postgresql.conf',
	"restore_command = '" . ($restore =~ s/-T/-D $dir -T/r) . "'\n");
$keyless->start(fail_ok => 1);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last unless -e $keyless->data_dir . '/postmaster.pid';
	usleep(100_000);
}
ok(!-e $keyless->data_dir . '/postmaster.pid', 'recovery without the key stops');
my $reason = slurp_file($keyless->logfile);
like($reason, qr/error: key [0-9A-F]{8} of WAL page at \S+ of timeline 1 in file "[0-9A-F]{24}" is not available: /,
	'the log names key, position and file');
like($reason, qr/FATAL:  could not restore file "[0-9A-F]{24}" from archive: child process exited with exit code 255/,
	'and the server does not take it for the end');
unlike($reason, qr/archive recovery complete/, 'it is not complete');
$keyless->{_pid} = undef;
$keyless->append_conf('postgresql.conf', "restore_command = '$restore'\n");
recover($keyless);
is(rows_of($keyless), $all, 'with the key it goes on to the end');
$keyless->stop;

is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory at all');

done_testing();
