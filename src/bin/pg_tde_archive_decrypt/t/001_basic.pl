# Copyright (c) 2026, the Coffer authors

# What the program does that needs no keys: options, the command and its
# status, WAL that is not encrypted, files that cannot be used.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

my $program = 'pg_tde_archive_decrypt';

# Segments are of 1 MB: this one begins at 0/3000000.
my $segment = '000000010000000000000030';

program_help_ok($program);
program_version_ok($program);
program_options_handling_ok($program);

delete $ENV{PGDATA};
my $dir = PostgreSQL::Test::Utils::tempdir;
chdir $dir or die;
mkdir 'wal' or die;

sub fails
{
	my ($command, $stderr, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	command_checks_all($command, 1, [qr/^$/], [$stderr], $what);
	return;
}

sub page
{
	my ($position, $id, $data) = @_;
	my $header = pack 'S< S< L< Q< L< L<', 0xD118, 0, 1, $position, 0, $id;
	return $header . substr($data . "\0" x 8192, 0, 8192 - length $header);
}

sub write_file
{
	my ($name, @content) = @_;
	my $content = join '', @content;
	unlink "wal/$name";
	append_to_file("wal/$name", $content);
	return $content;
}

sub write_segment
{
	my ($name, @pages) = @_;
	return write_file($name, @pages, "\0" x (1024 * 1024 - 8192 * @pages));
}

fails([ $program, $segment ], qr/too few arguments/, 'too few arguments');
fails([ $program, $segment, 'x', 'true', 'more' ],
	qr/too many command-line arguments \(first is "more"\)/, 'too many arguments');
fails([ $program, $segment, 'wal/none', 'true' ],
	qr/could not open file "wal\/none": No such file or directory/, 'no file');
fails([ $program, $segment, 'wal/none' ],
	qr/could not open file "wal\/none": No such file or directory/,
	'no file, to standard output');

#
# What is not encrypted passes, and the command sees the file itself.
#
# The last page is what a recycled segment contains: another place's.
my %plain = (
	$segment => write_segment($segment, page(0x3000000, 0, 'in clear'),
		page(0x3002000, 0x80000005, 'decrypted'),
		page(0x1004000, 5, 'recycled')),
	"$segment.partial" =>
	  write_segment("$segment.partial", page(0x3000000, 0, 'in clear')),
	'00000002.history' => write_file('00000002.history', "1\t0/3000000\tx\n"),
	"$segment.00000028.backup" =>
	  write_file("$segment.00000028.backup", "START WAL LOCATION\n"));

for my $name (sort keys %plain)
{
	my ($stdout, $stderr) = run_command([ $program, $name, "wal/$name" ]);
	chomp(my $expected = $plain{$name});
	ok($stdout eq $expected, "$name: to standard output");
	is($stderr, '', "$name: without a word");
	command_checks_all(
		[ $program, '-T', $dir, $name, "wal/$name", 'echo "%f %p %%"; exit 3' ],
		3, [qr/^\Q$name\E wal\/\Q$name\E %$/], [qr/^$/],
		"$name: the command gets the file, and its status is passed on");
}
fails([ $program, $segment, "wal/$segment", 'cp %q' ],
	qr/unexpected placeholder "%q"/, 'unknown placeholder');

# Who reads standard output may stop, also where the server ignores SIGPIPE.
{
	local $SIG{PIPE} = 'IGNORE';
	my ($stdout, $stderr) =
	  run_command([ 'sh', '-c', "$program $segment wal/$segment | true; echo done" ]);
	is("$stdout$stderr", 'done', 'a reader that stops is no error');
}
fails([ 'sh', '-c', "$program $segment wal/$segment >/dev/full" ],
	qr/could not write file "stdout": No space left on device/,
	'standard output that cannot be written');

#
# What is encrypted needs a key.
#
write_segment($segment, page(0x3000000, 0, 'in clear'), page(0x3002000, 5, 'secret'));
my $missing =
  qr/key 00000005 of WAL page at 0\/3002000 of timeline 1 in file "wal\/$segment" is not available: file "pg_tde\/global\/wal_epochs" does not exist/;
fails([ $program, $segment, "wal/$segment", 'touch ran' ], $missing, 'no key');
fails([ $program, $segment, "wal/$segment" ], $missing, 'no key, to standard output');
ok(!-e 'ran', 'the command is not run');
fails([ $program, '-D', '/none', $segment, "wal/$segment" ],
	qr/file "\/none\/pg_tde\/global\/wal_epochs" does not exist/,
	'data directory that does not exist');

write_file($segment, page(0x3000000, 5, ''));
fails([ $program, $segment, "wal/$segment", 'touch ran' ],
	qr/file "wal\/$segment" has 8192 bytes, which is not the size of a WAL segment/,
	'file of a wrong length');

done_testing();
