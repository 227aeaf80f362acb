# Copyright (c) 2026, the Coffer authors

# pg_tde_rebuild_epochs: what it takes from WAL and what it does not.

use strict;
use warnings FATAL => 'all';

use File::Copy qw(copy move);
use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $node = wal_node('main');
$node->start;
tde_setup($node);
encrypt_wal($node);
$node->safe_psql('postgres', 'CREATE TABLE t (a int) USING tde_heap');
$node->restart foreach 1, 2;
$node->safe_psql('postgres', 'INSERT INTO t VALUES (1)');

my $data = $node->data_dir;
my $epochs = epochs_path($node);
my $archive = $node->archive_dir;
my @program = ('pg_tde_rebuild_epochs', '-D', $data);

command_fails_like(
	[ @program, $archive ],
	qr/error: a server is running in this data directory \(PID \d+\)\n.*hint: Stop it first/,
	'refused while the server runs');
$node->stop;
my @all = epochs_in($epochs);
my $whole = slurp_bytes($epochs);
is(scalar(@all), 3, 'three epochs');

sub set_epochs
{
	my ($bytes) = @_;

	unlink $epochs;
	return unless defined $bytes;
	open(my $fh, '>:raw', $epochs) or die;
	print $fh $bytes;
	close($fh) or die;
	chmod 0600, $epochs or die;
	return;
}

# All of it is in pg_wal.
set_epochs(undef);
command_like([ @program, '--dry-run' ],
	qr/^0 keys were in the file, 3 others were found\n$/, 'dry run');
ok(!-e $epochs, '... writes nothing');
command_like(
	[@program],
	qr/^0 keys were in the file, 3 others were found\nfile "pg_tde\/global\/wal_epochs" was written\n$/,
	'the file is lost');
ok(slurp_bytes($epochs) eq $whole, '... and is the same again');
is((stat $epochs)[2] & 07777, 0600, '... with its permissions');
command_like(
	[@program],
	qr/^3 keys were in the file, 0 others were found\n$/,
	'nothing to do');

# In an archive only
mkdir $node->basedir . "/$_" or die foreach 'other', 'forged';
my $other = $node->basedir . '/other';
my @segments = sort grep { /^[0-9A-F]{24}$/ } slurp_dir("$data/pg_wal");
move("$data/pg_wal/$_", "$other/$_") or die foreach @segments;
set_epochs(undef);
command_fails_like([@program], qr/error: no key of WAL was found\n/,
	'not in pg_wal');
ok(!-e $epochs, '... and no file was made');
command_ok([ @program, $other ], 'in another directory');
ok(slurp_bytes($epochs) eq $whole, '... the same again');

# A file that is damaged, and one that lacks an epoch
write_epochs($epochs, $all[0]);
command_like([ @program, $other ],
	qr/^1 keys were in the file, 2 others were found\n/, 'the file is an old one');
ok(slurp_bytes($epochs) eq $whole, '... the same again');
my $damaged = substr($whole, 0, -1);
set_epochs($damaged);
command_checks_all(
	[ @program, $other ],
	0,
	[ qr/the damaged file is now "pg_tde\/global\/wal_epochs.damaged"/ ],
	[ qr/warning: could not use file "pg_tde\/global\/wal_epochs": / ],
	'the file is damaged');
ok(slurp_bytes("$epochs.damaged") eq $damaged, '... and kept');
ok(slurp_bytes($epochs) eq $whole, '... the same again');

# Forged epochs: with the bytes that an attacker can set, and the checksum right
my $forged = $node->basedir . '/forged';

sub forge
{
	my ($at, $bytes) = @_;

	unlink "$forged/$_" foreach slurp_dir($forged);
	foreach my $name (@segments)
	{
		my $content = slurp_bytes("$other/$name");
		foreach my $epoch (@all)
		{
			my $i = index($content, $epoch);
			next if $i < 0;
			my $changed = $epoch;
			substr($changed, $at, length $bytes) = $bytes;
			substr($changed, -4) = pack('V', crc32c(substr($changed, 0, -4)));
			substr($content, $i, length $epoch) = $changed;
		}
		open(my $fh, '>:raw', "$forged/$name") or die;
		print $fh $content;
		close($fh) or die;
	}
	return;
}

set_epochs(undef);
forge(12, pack('V', 1));		# another id
command_checks_all(
	[ @program, $forged ],
	1,
	[qr/0 others were found/],
	[
		qr/warning: key 00000001 of WAL from .* on was found but not taken: scope key does not authenticate the record/,
		qr/error: no key of WAL was found/
	],
	'another id is not believed');
forge(40, pack('Q<', 1));		# another system identifier
command_checks_all(
	[ @program, $forged ],
	1,
	[qr/3 keys of another database system were not taken/],
	[qr/error: no key of WAL was found/],
	'another database system');
forge(56, "\1" x 16);			# a generation that the scope does not have
command_checks_all(
	[ @program, $forged ],
	1,
	[qr/0 others were found/],
	[qr/error: no key of WAL was found/],
	'another scope key');
ok(!-e $epochs, '... and no file was made');

# A segment that cannot be used: what the others have is taken
open(my $fh, '>:raw', "$other/0000000100000000000000FF") or die;
print $fh 'x' x 100;
close($fh) or die;
command_checks_all(
	[ @program, $other ],
	1,
	[qr/3 others were found\nfile ".*" was written/],
	[
		qr/error: could not use file ".*0000000100000000000000FF": it does not have the size of a WAL segment/,
		qr/error: not all segments of WAL could be read/
	],
	'a segment is truncated');
ok(slurp_bytes($epochs) eq $whole, '... the others are taken');
unlink "$other/0000000100000000000000FF" or die;

# Without the principal key nothing can be told
my $ring = tde_keyring($node);
move($ring, "$ring.away") or die;
set_epochs(undef);
command_fails_like(
	[ @program, $other ],
	qr/error: could not open the server's scope key: .*keyring.*\n.*detail: Without it/,
	'without the principal key');
move("$ring.away", $ring) or die;
command_fails_like([ @program, "$other/none" ],
	qr/error: could not read directory ".*none": No such file or directory/,
	'a directory that does not exist');

# And the server starts with what was made.
command_ok([ @program, $other ], 'with it');
move("$other/$_", "$data/pg_wal/$_") or die foreach @segments;
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 1, 'the server starts');
$node->stop;

done_testing();
