# Copyright (c) 2026, the Coffer authors

# The guide, from its first command to its last, against PyKMIP.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeGuide;
use TdeKms;
use Test::More;

my ($missing) = TdeKms->missing('pykmip');
plan skip_all => $missing if $missing;

my $kms = TdeKms->new('pykmip', PostgreSQL::Test::Utils::tempdir('kms'));
$kms->start;
guide_life('pykmip', $kms);
ok($kms->running, 'the KMS runs to the end');
$kms->stop;
done_testing();
