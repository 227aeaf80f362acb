# Copyright (c) 2026, the Coffer authors

# The checks of the crypto core and the formats, in a program.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

for my $options ([], ['--secure-heap'])
{
	my ($stdout, $stderr) =
	  run_command([ 'tde_core_checks', @$options, '../vectors' ]);
	my $seen = 0;

	for my $line (split /\n/, $stdout)
	{
		if ($line =~ /^(not )?ok \d+ - (.*)/)
		{
			$seen++;
			ok(!defined $1, join(' ', @$options, $2));
		}
	}
	like($stdout, qr/^1\.\.$seen$/m, "all of $seen checks were run");
	is($stderr, '', 'nothing on stderr');
}

done_testing();
