# Copyright (c) 2026, the Coffer authors

# Help, version, unknown options, and what must be given.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

program_help_ok('pg_tde_rebuild_epochs');
program_version_ok('pg_tde_rebuild_epochs');
program_options_handling_ok('pg_tde_rebuild_epochs');

my $dir = PostgreSQL::Test::Utils::tempdir;
delete $ENV{PGDATA};

command_fails_like([ 'pg_tde_rebuild_epochs', $dir ],
	qr/no data directory specified/, 'no data directory');
command_fails_like([ 'pg_tde_rebuild_epochs', '-D', "$dir/none" ],
	qr/could not change directory to "\Q$dir\E\/none": No such file or directory/,
	'directory that does not exist');
command_fails_like([ 'pg_tde_rebuild_epochs', '-D', $dir ],
	qr/could not open file ".*pg_control" for reading: No such file or directory/,
	'directory that is no data directory');

done_testing();
