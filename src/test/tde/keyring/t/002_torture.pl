# Copyright (c) 2026, the Coffer authors

# The file provider under damage, death, failing system calls and full disks.
# Each is done at every place where it can happen: see keyring_torture.c.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $file = "$dir/keyring";
my $options = qq({"path":"$file"});

# A file with three keys, one of each length.
sub make_keyring
{
	unlink $file;
	for my $key ([ 'a', 32 ], [ "b\xff %", 24 ], [ 'c', 16 ])
	{
		command_ok([ 'test_keyring', $options, 'create', @$key ],
			'make a key');
	}
	return;
}

# Run a command of the test program and show what it counted.
sub torture
{
	my ($command, $name) = @_;
	my ($out, $err) = ('', '');

	make_keyring();
	IPC::Run::run [ 'test_keyring', $options, $command, $name ],
	  '>' => \$out, '2>' => \$err;
	my $status = $? >> 8;
  SKIP:
	{
		# e.g. where a container does not allow ptrace
		skip "$command: $out", 2 if $status == 77;
		is($status, 0, "$command '$name'");
		is($err, '', "$command '$name': no complaints");
	}
	note $out if $status == 0;
	diag $out if $status != 0 && $status != 77;
	return;
}

torture('damage', 'a');
torture('kill', 'a');
torture('kill', '');
torture('fail', 'a');
torture('fail', '');
torture('full', 'a');

# With lazy binding the dynamic loader saves registers on the stack, with
# whatever is in them, the first time a function is called; that is not ours
# to wipe.
$ENV{LD_BIND_NOW} = '1';
torture('residue', 'a');

done_testing();
