# Copyright (c) 2026, the Coffer authors

# Help, version, unknown options, and what must be given.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

program_help_ok('pg_tde_check_keys');
program_version_ok('pg_tde_check_keys');
program_options_handling_ok('pg_tde_check_keys');

my $dir = PostgreSQL::Test::Utils::tempdir;
delete $ENV{PGDATA};

command_fails_like([ 'pg_tde_check_keys' ],
	qr/no data directory specified/, 'no data directory');
command_fails_like([ 'pg_tde_check_keys', $dir, 'x' ],
	qr/too many command-line arguments \(first is "x"\)/, 'too many arguments');
command_fails_like([ 'pg_tde_check_keys', "$dir/none" ],
	qr/could not change directory to "\Q$dir\E\/none": No such file or directory/,
	'directory that does not exist');
command_fails_like([ 'pg_tde_check_keys', '--pgdata', $dir ],
	qr/directory "\Q$dir\E" is not a data directory/,
	'directory that is no data directory');

done_testing();
