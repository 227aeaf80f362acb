# Copyright (c) 2026, the Coffer authors

# Help, version, unknown options, and what must be given.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

program_help_ok('pg_tde_change_key_provider');
program_version_ok('pg_tde_change_key_provider');
program_options_handling_ok('pg_tde_change_key_provider');

my $dir = PostgreSQL::Test::Utils::tempdir;
delete $ENV{PGDATA};

command_fails_like([ 'pg_tde_change_key_provider', '-D', $dir, '1664', 'ring' ],
	qr/too few arguments/, 'too few arguments');
command_fails_like([ 'pg_tde_change_key_provider', '1664', 'ring', 'file', '/f' ],
	qr/no data directory specified/, 'no data directory');
command_fails_like(
	[ 'pg_tde_change_key_provider', '-D', "$dir/none", '1664', 'ring', 'file', '/f' ],
	qr/"\Q$dir\E\/none": No such file or directory/,
	'directory that does not exist');
command_fails_like(
	[ 'pg_tde_change_key_provider', '-D', $dir, '1664', 'ring', 'file', '/f' ],
	qr/could not open file "[^"]*pg_control".*: No such file or directory/,
	'directory that is no data directory');

done_testing();
