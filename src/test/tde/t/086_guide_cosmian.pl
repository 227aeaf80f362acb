# Copyright (c) 2026, the Coffer authors

# The guide, from its first command to its last, against the server that it was
# written for, over both versions of TLS and two of KMIP.
#
# The TLS version is forced by an OpenSSL configuration of our server, so a
# connection of another version cannot come about (085_guide_pykmip shows that
# it takes effect); that of KMIP by an option of the provider.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeGuide;
use TdeKms;
use Test::More;

my ($missing) = TdeKms->missing('cosmian');
plan skip_all => $missing if $missing;

my $dir = PostgreSQL::Test::Utils::tempdir('kms');

foreach my $tls ('1.3', '1.2')
{
	foreach my $kmip ('2.1', '1.4')
	{
		my $name = "tls$tls-kmip$kmip";
		# Each its own: the guide's keys must be new.
		my $kms = TdeKms->new('cosmian', "$dir/$name");
		$kms->start;
		guide_life(
			$name, $kms,
			env => { OPENSSL_CONF => openssl_with_tls($dir, $tls) },
			$kmip eq '2.1' ? () : (options => { kmipVersion => $kmip }));
		ok($kms->running, "$name: the KMS runs to the end");
		$kms->stop;
	}
}
done_testing();
