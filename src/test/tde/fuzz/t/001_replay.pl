# Copyright (c) 2026, the Coffer authors

# Every input of the corpus goes through its fuzz target.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

for my $target (qw(key_record scope providers keyring_file keyring_options ttlv kmip vault_json wal))
{
	my @files = glob "corpus/$target/*";

	cmp_ok(scalar @files, '>', 3, "there is a corpus for $target");
	command_like(
		[ 'fuzz_replay', $target, @files ],
		qr/^${\scalar @files} files$/,
		"corpus of $target");
}

done_testing();
