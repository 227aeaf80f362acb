# Copyright (c) 2026, the Coffer authors

# The checks of the crypto core and the formats, in a backend.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $vectors = abs_path('../vectors');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION test_tde_core');

my $result = $node->safe_psql('postgres',
	"SELECT ok, name FROM test_tde_core('$vectors', true)");
for my $line (split /\n/, $result)
{
	my ($ok, $name) = split /\|/, $line, 2;
	ok($ok eq 't', $name);
}

# The program must have run the same checks, but for those that need its own
# allocator.
my ($stdout, $stderr) =
  run_command([ 'tde_core_checks', '--secure-heap', '../vectors' ]);
my @program = grep { !/^secure heap:/ } ($stdout =~ /^ok \d+ - (.*)/mg);
my @backend = map { s/^.*?\|//r } split /\n/, $result;
is_deeply(\@backend, \@program, 'backend and program ran the same checks');

$node->stop;
done_testing();
