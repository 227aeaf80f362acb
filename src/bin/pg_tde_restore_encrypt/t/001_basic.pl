# Copyright (c) 2026, the Coffer authors

# What the program does that needs no keys: options, the command and its
# status, the directory in memory, signals, files that cannot be used.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $program = 'pg_tde_restore_encrypt';
my $segment = '000000010000000000000003';

# What the program says of its own failures.
my $stop = 255;

program_help_ok($program);
program_version_ok($program);
program_options_handling_ok($program);

delete $ENV{PGDATA};
my $dir = PostgreSQL::Test::Utils::tempdir;
my $shm = "/dev/shm/coffer-test-$$";
chdir $dir or die;
mkdir $shm or die;
END { system('rm', '-rf', $shm) if defined $shm }

sub restore
{
	my ($command, %params) = @_;
	return [
		$program, '-T', $params{shm} // $shm,
		$params{name} // $segment, 'dest', $command
	];
}

# Nothing is left in memory, nor beside the destination.
sub is_clean
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ glob("$shm/*") ], [], "$what: nothing is left in memory");
	ok(!-e 'dest.tmp', "$what: nothing is left unfinished");
	return;
}

sub no_dest
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!-e 'dest', "$what: no file is restored");
	is_clean($what);
	unlink 'dest';
	return;
}

sub stops
{
	my ($command, $stderr, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	command_checks_all($command, $stop, [qr/^$/], [$stderr], $what);
	no_dest($what);
	return;
}

#
# Arguments
#
stops([ $program, $segment, 'dest' ], qr/too few arguments/, 'too few arguments');
stops([ $program, $segment, 'dest', 'true', 'x' ],
	qr/too many command-line arguments \(first is "x"\)/, 'too many arguments');
stops([ $program, '--none', $segment, 'dest', 'true' ],
	qr/--none.*Try "$program --help"/s, 'unknown option');
stops(restore('cp archive %x'), qr/unexpected placeholder "%x"/,
	'unknown placeholder');

#
# The directory in memory
#
stops(restore('true', shm => $dir),
	qr/directory "\Q$dir\E" is not in memory.*hint: [^\n]*--temp-directory/s,
	'directory on a disk') if not_in_memory($dir);
stops(restore('true', shm => "$shm/none"),
	qr/"\Q$shm\E\/none": No such file or directory/,
	'directory that does not exist');

sub not_in_memory
{
	my ($path) = @_;
	my $type = `stat -f -c %T '$path'`;
	return $type !~ /^(tmpfs|ramfs)$/m;
}

#
# The command
#
my $zeros = "\0" x (1024 * 1024);
append_to_file('archive', $zeros);
command_checks_all(
	restore('stat -c "%%a %%F" "$(dirname %p)" && basename %p && echo %f %% && cp archive %p'),
	0, [qr/^700 directory\n$segment\n$segment %\n$/], [qr/^$/],
	'the command gets a path with the right name in a private directory');
is(slurp_file('dest'), $zeros, 'an empty segment is restored as it is');
is_clean('success');
unlink 'dest';

for my $status (1, 2, 125, 126, 127, 143)
{
	command_checks_all(restore("echo why >&2; exit $status"),
		$status, [qr/^$/], [qr/^why$/], "status $status is passed on");
	no_dest("status $status");
}
command_checks_all(restore('kill -KILL $$'), 128 + 9, [qr/^$/], [qr/^$/],
	'death by a signal is passed on');
no_dest('death by a signal');
stops(restore('true'),
	qr/succeeded, but file "[^"]*\/$segment" does not exist/,
	'a command that did nothing has not said that there is no file');
stops(restore('head -c 1000 archive >%p; exit 1'),
	qr/failed with status 1, and has written 1000 bytes/,
	'nor has one that failed half-way');
stops(restore(': >%p; exit 125'),
	qr/failed with status 125, and has written 0 bytes/,
	'nor one that could not write');
command_checks_all([ @{ restore('cp archive %p') }[ 0 .. 3 ], 'none/dest', 'cp archive %p' ],
	$stop, [qr/^$/], [qr/could not create file "none\/dest.tmp": No such file/],
	'destination that cannot be written');
is_clean('destination that cannot be written');

#
# What is no segment is left to the command, with the destination as its path.
#
for my $name ('00000002.history', "$segment.00000028.backup")
{
	command_checks_all(
		[ $program, '-T', $dir, $name, 'dest', 'echo "%f %p"; exit 3' ],
		3, [qr/^\Q$name\E dest$/], [qr/^$/], "$name is left to the command");
}

# It has not said that there is none if it has written a part of it.
command_checks_all(
	[ $program, '00000002.history', 'dest', 'echo x >%p; exit 1' ],
	$stop, [qr/^$/], [qr/failed with status 1, and has written 2 bytes/],
	'history of a timeline that could not be written');
unlink 'dest';
command_ok([ $program, '00000002.history', 'dest', 'echo x >%p' ],
	'history of a timeline');
is(slurp_file('dest'), "x\n", 'is written');
unlink 'dest';

#
# Signals
#
sub running
{
	my (@command) = @_;
	my $pid = fork() // die;
	if ($pid == 0)
	{
		open STDERR, '>', 'stderr' or die;
		exec @command or die;
	}
	return $pid;
}

sub wait_for_file
{
	my ($file) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if -s $file;
		usleep(100_000);
	}
	die "no file $file";
}

for my $signal (qw(TERM INT QUIT HUP))
{
	# a shell's background commands ignore some
	local $SIG{$signal} = 'DEFAULT';
	unlink 'pid';
	my $pid = running(@{ restore('echo x >%p; echo $$ >pid; exec sleep 1000') });
	wait_for_file('pid');
	is(scalar(@{ [ glob("$shm/*/$segment") ] }), 1, "$signal: the command runs");
	kill $signal => $pid;
	waitpid $pid, 0;
	is($? & 127, { TERM => 15, INT => 2, QUIT => 3, HUP => 1 }->{$signal},
		"$signal ends the program");
	ok(!kill(0, slurp_file('pid') =~ /(\d+)/), "$signal: and the command");
	no_dest("SIG$signal");
}

# One that is ignored stays so.
{
	local $SIG{HUP} = 'IGNORE';
	unlink 'pid';
	my $pid = running(@{ restore('cp archive %p; echo $$ >pid; sleep 1') });
	wait_for_file('pid');
	kill HUP => $pid;
	waitpid $pid, 0;
	is($?, 0, 'ignored SIGHUP is ignored');
	unlink 'dest';
}

# What was killed leaves its directory to the next one, which does not take
# that of a program that runs.
unlink 'pid';
my $killed = running(@{ restore('echo x >%p; echo $$ >pid; exec sleep 1000') });
wait_for_file('pid');
my $orphan = slurp_file('pid');
unlink 'pid';
kill KILL => $killed;
waitpid $killed, 0;
kill KILL => $orphan;
my ($leftover) = glob("$shm/*");
my $alive = running(@{ restore('cp archive %p; echo $$ >pid; exec sleep 1000') });
wait_for_file('pid');
ok(!-e $leftover, 'what a killed program has left is removed');
like(slurp_file('stderr'), qr/warning: removing directory "\Q$leftover\E"/,
	'with a warning');
my ($in_use) = glob("$shm/*");
command_ok(restore('cp archive %p'), 'another one works at the same time');
ok(-e "$in_use/$segment", 'and does not remove what is in use');
kill TERM => $alive;
waitpid $alive, 0;
is_clean('after all of them');
unlink 'dest';

#
# Files
#
# A page as an archive in clear has it: whole, with an epoch's number.
sub page
{
	my ($position, $id, $data) = @_;
	my $header = pack 'S< S< L< Q< L< L<', 0xD118, 0, 1, $position, 0, $id;
	return $header . substr($data . "\0" x 8192, 0, 8192 - length $header);
}

unlink 'archive';
append_to_file('archive', page(0x3000000, 0x80000005, 'in clear') . "\0" x (1024 * 1024 - 8192));
stops(restore('cp archive %p'),
	qr/key 00000005 of WAL page at 0\/3000000 of timeline 1 in file "$segment" is not available: file "pg_tde\/global\/wal_epochs" does not exist/,
	'key that is not there');
stops([ $program, '-T', $shm, '-D', '/none', $segment, 'dest', 'cp archive %p' ],
	qr/file "\/none\/pg_tde\/global\/wal_epochs" does not exist/,
	'data directory that does not exist');
{
	local $ENV{PGDATA} = '/pgdata';
	stops(restore('cp archive %p'), qr/file "\/pgdata\/pg_tde\//, 'PGDATA');
	append_to_file('PG_VERSION', "18\n");
	stops(restore('cp archive %p'), qr/file "pg_tde\/global/,
		'the current directory, if it is a data directory');
	mkdir 'pg_wal' or die;
	command_checks_all(
		[ @{ restore('') }[ 0 .. 3 ], "$dir/pg_wal/dest", 'cp archive %p' ],
		$stop, [qr/^$/], [qr/file "\Q$dir\E\/pg_tde\/global/],
		'the data directory that the destination is in');
	unlink 'PG_VERSION';
}

# The server judges lengths, and gets nothing in clear.
for my $length (0, 100, 8192 + 100)
{
	unlink 'archive';
	append_to_file('archive',
		substr(page(0x3000000, 0, 'in clear') . page(0x3002000, 0x80000005, 'canary'), 0, $length));
	command_ok(restore('cp archive %p'), "file of $length bytes");
	is(-s 'dest', $length, "file of $length bytes stays that long");
	unlike(slurp_file('dest'), qr/canary/, 'and has nothing in clear');
	is_clean("file of $length bytes");
	unlink 'dest';
}

done_testing();
