# Copyright (c) 2026, the Coffer authors

# The guide, from its first command to its last, against the server that it was
# written for, over both versions of TLS and two of KMIP.
#
# The TLS version is forced by an OpenSSL configuration of the server, so a
# connection of another version cannot come about; that of KMIP by an option
# of the provider.

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
	my $cnf = "$dir/openssl-$tls.cnf";
	append_to_file(
		$cnf, qq{openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = versions
[versions]
MinProtocol = TLSv$tls
MaxProtocol = TLSv$tls
});
	foreach my $kmip ('2.1', '1.4')
	{
		my $name = "tls$tls-kmip$kmip";
		# Each its own: the guide's keys must be new.
		my $kms = TdeKms->new('cosmian', "$dir/$name");
		$kms->start;
		guide_life(
			$name, $kms,
			env => { OPENSSL_CONF => $cnf },
			$kmip eq '2.1' ? () : (options => { kmipVersion => $kmip }));
		ok($kms->running, "$name: the KMS runs to the end");
		$kms->stop;
	}
}
done_testing();
