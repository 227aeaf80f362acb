# Copyright (c) 2026, the Coffer authors

# The file provider: what it stores and gives back, what it refuses, and what
# it says.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use Fcntl qw(:mode :flock);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $file = "$dir/keyring";

# JSON text of options with a path.
sub options
{
	my $path = shift;
	$path =~ s/([\\"])/\\$1/g;
	return qq({"path":"$path"});
}

# Run the test program; returns status, key or message, hint.
sub keyring
{
	my @args = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run [ 'test_keyring', @args ], '>' => \$out, '2>' => \$err;
	is($err, '', "no complaints: @args[1..$#args]")
	  or BAIL_OUT("test_keyring failed: $err");
	my ($status, $text, $hint) = split /\n/, $out;
	return ($status, $text // '', $hint // '');
}

# Expect a failure, its message and its hint.
sub fails
{
	my ($args, $status, $message, $hint, $what) = @_;
	my ($s, $m, $h) = keyring(@$args);

	is($s, $status, "$what: status");
	like($m, $message, "$what: message");
	if (defined $hint) { like($h, $hint, "$what: hint") }
	else { is($h, '', "$what: no hint") }
	return;
}

sub mode { return sprintf '%04o', S_IMODE((lstat shift)[2]) }

my $o = options($file);
my ($status, $key, $again);

note 'options';

is((keyring($o, 'check'))[0], 'OK', 'a path is enough');
fails([ '{}', 'check' ], 'BAD_OPTIONS', qr/^option "path" of key provider "p" is missing$/,
	undef, 'no path');
fails([ '{"path":""}', 'check' ], 'BAD_OPTIONS', qr/^option "path" .* must not be empty$/,
	undef, 'empty path');
fails([ '{"path":"x","mode":"0600"}', 'fetch', 'a' ], 'BAD_OPTIONS',
	qr/^unrecognized option "mode" of key provider "p"$/, undef,
	'unknown option');
fails([ '-T', 'cloud', $o, 'check' ], 'BAD_OPTIONS',
	qr/^unrecognized key provider type "cloud"$/, undef, 'unknown type');
command_ok([ 'test_keyring', '{}', 'options' ], 'typed options');

note 'before the first key';

is((keyring($o, 'validate'))[0], 'OK', 'the file need not exist');
ok(!-e $file, 'validation creates nothing');
fails([ $o, 'fetch', 'a' ], 'UNREACHABLE',
	qr/^could not open keyring file "\Q$file\E": No such file or directory$/,
	qr/first key/, 'fetch without a file');
fails([ options("$dir/none/keyring"), 'validate' ], 'UNREACHABLE',
	qr/^could not use directory "\Q$dir\E\/none" for a keyring file: No such/,
	undef, 'no directory');
fails([ options("$dir/none/keyring"), 'create', 'a' ], 'UNREACHABLE',
	qr/^could not create file ".*none\/keyring\.tmp": No such/,
	undef, 'create without a directory');

note 'keys';

{
	# A umask must neither open the file nor make it unreadable.
	my $umask = umask 0;
	($status, $key) = keyring($o, 'create', 'a');
	is($status, 'OK', 'first key');
	is(mode($file), '0600', 'mode with umask 0');
	umask 0377;
	is((keyring($o, 'create', 'b', 16))[0], 'OK', 'second key');
	is(mode($file), '0600', 'mode with umask 0377');
	umask $umask;
}
like($key, qr/^[0-9a-f]{64}$/, '32 bytes');
is((keyring($o, 'validate'))[0], 'OK', 'file is valid');
is_deeply([ keyring($o, 'fetch', 'a') ], [ 'OK', $key, '' ],
	'a key comes back');
like((keyring($o, 'fetch', 'b'))[1], qr/^[0-9a-f]{32}$/, '16 bytes');
like((keyring($o, 'create', 'c', 24))[1], qr/^[0-9a-f]{48}$/, '24 bytes');
fails([ $o, 'create', 'a' ], 'EXISTS',
	qr/^key "a" already exists in keyring file "\Q$file\E"$/, undef,
	'name is taken');
is((keyring($o, 'fetch', 'a'))[1], $key, 'it still has its key');
fails([ $o, 'fetch', 'A' ], 'NOT_FOUND',
	qr/^key "A" does not exist in keyring file "\Q$file\E"$/, undef,
	'no such key');
for my $len (0, 1, 15, 17, 31, 33, 64)
{
	fails([ $o, 'create', 'x', $len ], 'FAILED',
		qr/^invalid length of a principal key: $len bytes$/, undef,
		"$len bytes");
}

note 'names';

my %keys;
my @names = (
	' ', '%', '%41', 'A', 'a b', "tab\there", "line\nfeed", "\r", '"', "'",
	'key', 'end', "caf\xc3\xa9", "\x01", "\x7f", "\xff\xfe",
	'n' x 255, "\xff" x 255, '../../x', 'key a 2026');
for my $name (@names)
{
	my ($s, $k) = keyring($o, 'create', $name);
	is($s, 'OK', 'name of any bytes');
	ok(!exists $keys{$k}, 'and a key of its own');
	$keys{$k} = $name;
}
while (my ($k, $name) = each %keys)
{
	is((keyring($o, 'fetch', $name))[1], $k, 'key comes back by its name');
}
fails([ $o, 'create', 'n' x 256 ], 'FAILED',
	qr/^name of a principal key is longer than 255 bytes$/, undef,
	'long name');
fails([ $o, 'fetch', '' ], 'FAILED', qr/^name of a principal key is empty$/,
	undef, 'empty name');
is(scalar(grep { !/^keyring$/ } map { s/.*\///r } glob("$dir/*")), 0,
	'nothing but the keyring file');

# The specification's own way to check a file, with other people's tools.
{
	my @lines = split /^/m, slurp_file($file);
	my $sha256sum = sub {
		my $out;
		IPC::Run::run [ 'sha256sum', '-' ], '<' => \$_[0], '>' => \$out;
		return substr $out, 0, 64;
	};
	is($lines[0], "coffer keyring 1\n", 'first line');
	my $end = pop @lines;
	is($end, 'end ' . $sha256sum->(join '', @lines) . "\n", 'last line');
	my ($text, $check) = $lines[1] =~ /^(key a .*) (\w{16})$/;
	is($check, substr($sha256sum->($text), 0, 16), "a line's checksum");
	like($text, qr/^key a 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \Q$key\E$/,
		'a line');
	is(scalar(grep { /[^\x20-\x7e\n]/ } @lines), 0, 'plain ASCII');
}

note 'relative paths';

{
	my $path = 'sub/keyring';
	mkdir "$dir/sub" or die;
	is((keyring('-D', $dir, options($path), 'create', 'r'))[0], 'OK',
		'from the data directory');
	ok(-f "$dir/$path", 'file is there');
	my ($s, $k) =
	  keyring('-D', '/nonexistent', options("$dir/$path"), 'fetch', 'r');
	is($s, 'OK', 'absolute path stays as it is');
	chdir $dir or die;
	is((keyring(options($path), 'fetch', 'r'))[1], $k,
		'from the working directory');
	is((keyring(options('here'), 'create', 'r'))[0], 'OK',
		'without a directory part');
	is((keyring(options('nowhere'), 'validate'))[0], 'OK',
		'the same, validated');
	chdir '/' or die;
}

note 'paths that are odd';

for my $odd (qq($dir/a "quoted" \\ name), "$dir/caf\xc3\xa9", "$dir/%s%n%m")
{
	is((keyring(options($odd), 'create', 'a'))[0], 'OK', 'create');
	ok(-f $odd, 'file has that name');
	is((keyring(options($odd), 'fetch', 'a'))[0], 'OK', 'fetch');
	fails([ options($odd), 'fetch', 'b' ], 'NOT_FOUND', qr/\Q"$odd"\E$/,
		undef, 'message');
}
{
	my $long = "$dir/" . 'x' x 900;
	fails([ options($long), 'fetch', 'a' ], 'FAILED',
		qr/^could not open keyring file "\Q$long\E": File name too long$/,
		undef, 'name too long for the file system');
}

note 'unsafe files';

for my $mode (0640, 0620, 0610, 0604, 0602, 0601, 0666, 0660)
{
	chmod $mode, $file or die;
	my $oct = sprintf '%04o', $mode;
	for my $call ([ 'fetch', 'a' ], ['validate'], [ 'create', 'new' ])
	{
		fails([ $o, @$call ], 'BAD_DATA',
			qr/^keyring file "\Q$file\E" has group or world access$/,
			qr/^Permissions should be u=rw \(0600\) or less; use "chmod 0600"\.$/,
			"mode $oct, $$call[0]");
	}
}
chmod 0400, $file or die;
is((keyring($o, 'fetch', 'a'))[1], $key, 'mode 0400 is fine');
chmod 0000, $file or die;
SKIP:
{
	skip 'root may read everything', 4 if $> == 0;
	fails([ $o, 'fetch', 'a' ], 'DENIED',
		qr/^could not open keyring file "\Q$file\E": Permission denied$/,
		undef, 'not readable');
}
chmod 0600, $file or die;

mkdir "$dir/directory" or die;
fails([ options("$dir/directory"), 'fetch', 'a' ], 'BAD_DATA',
	qr/is not a regular file$/, undef, 'directory');
fails([ options("$dir/directory"), 'create', 'a' ], 'BAD_DATA',
	qr/is not a regular file$/, undef, 'directory, create');
system('mkfifo', '-m', '0600', "$dir/fifo") == 0 or die;
fails([ options("$dir/fifo"), 'validate' ], 'BAD_DATA',
	qr/is not a regular file$/, undef, 'FIFO does not hang');
fails([ options('/dev/null'), 'fetch', 'a' ], 'BAD_DATA',
	qr/is not a regular file$/, undef, 'device');

SKIP:
{
	# Files of others that we can open: root can make one, and so can an
	# owner who gives us an access list; everybody else has to look for one.
	my $other = '/proc/self/nothing';
	if ($> == 0)
	{
		$other = "$dir/other";
		system('cp', $file, $other) == 0 or die;
		chown 12345, 12345, $other or die;
		chmod 0600, $other or die;
	}
	skip 'needs root to make a file of somebody else', 8 if !-e $other;
	fails([ options($other), 'fetch', 'a' ], 'BAD_DATA',
		qr/^keyring file ".*" belongs to another user$/,
		qr/^The file must belong to the user who runs/, 'file of another user');
	fails([ options($other), 'create', 'new' ], 'BAD_DATA',
		qr/^keyring file ".*" belongs to another user$/,
		qr/^The file must belong/, 'file of another user, create');
}

note 'other files, damage';

for my $case (
	[ '', 'file is truncated', 'empty' ],
	[ 'coffer key', 'file is truncated', 'cut in the first line' ],
	[ "coffer keyring 2\nend x\n", 'unsupported version of the file format', 'later version' ],
	[ "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 'it does not begin with "coffer keyring"', 'other file' ])
{
	my ($content, $reason, $what) = @$case;
	my $path = "$dir/foreign";
	unlink $path;
	append_to_file($path, $content);
	chmod 0600, $path or die;
	fails([ options($path), 'fetch', 'a' ], 'BAD_DATA',
		qr/^file "\Q$path\E" is not a valid keyring file: \Q$reason\E$/,
		qr/^Check the path of the key provider, or restore/, $what);
	fails([ options($path), 'create', 'a' ], 'BAD_DATA',
		qr/^file "\Q$path\E" is not a valid keyring file: \Q$reason\E$/,
		qr/^Check the path/, "$what, create");
	is(slurp_file($path), $content, "$what is left alone");
}
{
	my $path = "$dir/damaged";
	my $content = slurp_file($file);
	my $digit = substr($key, 7, 1) eq '0' ? '1' : '0';
	(my $flipped = $content) =~
	  s/\Q$key\E/substr($key, 0, 7) . $digit . substr($key, 8)/e;
	append_to_file($path, $flipped);
	chmod 0600, $path or die;
	fails([ options($path), 'fetch', 'a' ], 'BAD_DATA',
		qr/^keyring file "\Q$path\E" is damaged: line 2: checksum does not match$/,
		qr/^Restore the file from a backup of it\.$/, 'a digit of the key');
	fails([ options($path), 'fetch', 'b' ], 'BAD_DATA',
		qr/is damaged: line 2/, qr/^Restore/, 'the same, another key');
	unlink $path;
	append_to_file($path, substr $content, 0, 500);
	chmod 0600, $path or die;
	fails([ options($path), 'fetch', 'a' ], 'BAD_DATA',
		qr/^keyring file "\Q$path\E" is damaged: file is truncated$/,
		qr/^Restore/, 'half a file');
	unlink $path;
	append_to_file($path, $content . "x");
	chmod 0600, $path or die;
	fails([ options($path), 'fetch', 'a' ], 'BAD_DATA',
		qr/is damaged: data after the end of the keyring$/,
		qr/^Restore/, 'something behind the end');
}

note 'files that are whole, but not as we would write them';

{
	my $hex = '00112233445566778899aabbccddeeff';
	my $time = '2026-01-31T23:59:59Z';

	# Write a keyring file of lines without CHECK; add the checksums.
	my $write = sub {
		my $path = "$dir/crafted";
		my $content = "coffer keyring 1\n";
		$content .= "$_ " . substr(sha256_hex($_), 0, 16) . "\n" for @_;
		unlink $path;
		append_to_file($path, $content . 'end ' . sha256_hex($content) . "\n");
		chmod 0600, $path or die;
		return options($path);
	};
	is((keyring($write->("key a $time $hex"), 'fetch', 'a'))[1], $hex,
		'a good one');
	is((keyring($write->("key %20%25%C3 $time $hex$hex"), 'fetch', " %\xc3"))[1],
		$hex x 2, 'another');
	is((keyring($write->(), 'fetch', 'a'))[0], 'NOT_FOUND', 'without keys');
	is((keyring($write->(), 'create', 'a'))[0], 'OK', 'the first one');

	for my $line (
		"key %41 $time $hex", "key a%c3 $time $hex",
		"key %2 $time $hex", "key %00 $time $hex",
		"key a\xc3 $time $hex", "key  $time $hex",
		"key a b $time $hex", "key a  $time $hex",
		"key " . ('n' x 256) . " $time $hex", "Key a $time $hex",
		"key a 2026-01-31 23:59:59Z $hex", "key a 2026-01-31T23:59:59 $hex",
		"key a $time  $hex", "key a $time\t$hex",
		"key a $time " . uc $hex, "key a $time " . substr($hex, 1),
		"key a $time " . substr($hex, 2), "key a $time $hex$hex" . '00',
		"key a $time $hex$hex" . '0', "key a $time ", "key a $time",
		"key a", 'key ', '', "key a $time ${hex}xx", "key a $time $hex ")
	{
		my ($s, $m) = keyring($write->($line), 'fetch', 'a');
		is($s, 'BAD_DATA', "\"$line\"");
		like($m, qr/ is damaged: line 2: /, 'message');
	}
	fails([ $write->("key a $time $hex", "key a $time $hex"), 'fetch', 'a' ],
		'BAD_DATA', qr/ is damaged: line 3: two keys have the same name$/,
		qr/^Restore/, 'one name twice');
}

note 'symbolic links';

mkdir "$dir/links" or die;
symlink '../keyring', "$dir/links/to-file" or die;
is((keyring(options("$dir/links/to-file"), 'fetch', 'a'))[1], $key,
	'followed for reading');
is((keyring(options("$dir/links/to-file"), 'create', 'via link'))[0], 'OK',
	'and for writing');
ok(-l "$dir/links/to-file", 'the link stays a link');
is((keyring($o, 'fetch', 'via link'))[0], 'OK', 'its target has the key');
is_deeply([ map { s/.*\///r } glob("$dir/links/*") ], ['to-file'],
	'nothing is made beside the link');
chmod 0644, $file or die;
fails([ options("$dir/links/to-file"), 'fetch', 'a' ], 'BAD_DATA',
	qr/has group or world access/, qr/0600/,
	'the mode that counts is that of the target');
chmod 0600, $file or die;
symlink 'nothing', "$dir/links/dangling" or die;
for my $call ([ 'fetch', 'a' ], ['validate'], [ 'create', 'a' ])
{
	my ($s, $m) = keyring(options("$dir/links/dangling"), @$call);
	is($s, 'UNREACHABLE', "link to nothing, $$call[0]");
	like($m, qr/No such file or directory/, 'message');
}
ok(!-e "$dir/links/nothing", 'its target is not created');

note 'the lock';

# Somebody at work: wait, give up in time, leave his file alone.
sub hold
{
	open my $fh, '+>', "$file.tmp" or die;
	flock $fh, LOCK_EX or die;
	return $fh;
}
{
	my $holder = hold();
	my $start = time;
	fails([ '-t', '700', $o, 'create', 'waits' ], 'UNREACHABLE',
		qr/^timed out waiting for a lock on file "\Q$file.tmp\E"$/,
		qr/^Another process is writing/, 'timeout');
	my $took = time - $start;
	ok($took >= 0.7 && $took < 5, "timeout is kept: $took s");
	$start = time;
	fails([ '-c', $o, 'create', 'waits' ], 'CANCELLED',
		qr/^canceled while waiting for a lock on file/, undef, 'cancel');
	ok(time - $start < 1, 'at once');
	is((keyring('-c', $o, 'fetch', 'a'))[1], $key, 'readers do not wait');
	ok(-e "$file.tmp", "the other writer's file is still there");
	close $holder;
}
# A writer who was killed: his file is in nobody's way.
is((keyring('-c', $o, 'create', 'after'))[0], 'OK',
	'a file without a lock is taken over, without waiting');
ok(!-e "$file.tmp", 'and gone');
# His file is never written to: somebody else may have it open.
{
	append_to_file("$file.tmp", 'x');
	chmod 0666, "$file.tmp" or die;
	open my $spy, '<', "$file.tmp" or die;
	is((keyring($o, 'create', 'spied'))[0], 'OK', 'file that others can read');
	is(-s $spy, 1, 'nothing was written to it');
	is(mode($file), '0600', 'mode');
	close $spy;
}
symlink '/etc/passwd', "$file.tmp" or die;
{
	my ($s, $m) = keyring($o, 'create', 'no');
	is($s, 'FAILED', 'a link in the place of the new file');
	like($m, qr/^could not create file "\Q$file.tmp\E": /, 'message');
}
unlink "$file.tmp" or die;
is((keyring($o, 'fetch', 'a'))[1], $key, 'the first key is still there');

SKIP:
{
	skip 'root may write everywhere', 1 if $> == 0;
	chmod 0500, $dir or die;
	is((keyring($o, 'validate'))[0], 'OK',
		'a directory that cannot be written serves readers');
	fails([ $o, 'create', 'no' ], 'DENIED',
		qr/^could not create file "\Q$file.tmp\E": Permission denied$/,
		undef, 'but not writers');
	fails([ options("$dir/other"), 'validate' ], 'DENIED',
		qr/^could not use directory "\Q$dir\E" for a keyring file: Permission/,
		undef, 'nor a first key');
	chmod 0700, $dir or die;
}

done_testing();
