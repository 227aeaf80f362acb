# Copyright (c) 2026, the Coffer authors

# The guide, from its first command to its last, against PyKMIP.  That server
# knows TLS 1.2 only, so it also shows that a server of ours whose OpenSSL is
# configured for one version uses no other.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeGuide;
use TdeKms;
use TdeTest;
use Test::More;

my ($missing) = TdeKms->missing('pykmip');
plan skip_all => $missing if $missing;

my $dir = PostgreSQL::Test::Utils::tempdir('kms');
my $kms = TdeKms->new('pykmip', "$dir/pykmip");
$kms->start;
guide_life('pykmip', $kms);
ok($kms->running, 'the KMS runs to the end');

my $node = tde_node('versions');
foreach my $tls ('1.2', '1.3')
{
	local $ENV{OPENSSL_CONF} = openssl_with_tls($dir, $tls);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS pg_tde');
	my ($ret, $out, $err) =
	  $node->psql('postgres', $kms->provider_sql("tls$tls"));
	$tls eq '1.2'
	  ? is($err, '', 'TLS 1.2 only: the provider is added')
	  : like($err, qr/^[^\n]*ERROR:  .*\nDETAIL:  TLS error: ./s,
		'TLS 1.3 only: it is not');
	$node->stop;
}
$kms->stop;
done_testing();
