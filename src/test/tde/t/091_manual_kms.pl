# Copyright (c) 2026, the Coffer authors

# The examples of doc/operations.md that need a KMS, or that come before others
# in a life than in the page: its blocks marked "text".  Each is run as it is
# printed, but for the places of files and the KMS, in the order of the list
# below, and all of them must be in it.

use strict;
use warnings FATAL => 'all';

use Cwd 'abs_path';
use File::Basename;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeKms;
use TdeTest;
use Test::More;

# Test files in a build are links into the repository, which has the manual.
my $page = dirname(abs_path(__FILE__)) . '/../../../../doc/operations.md';
plan skip_all => 'the manual is not beside the source' unless -e $page;
my ($reason) = TdeKms->missing('pykmip');
plan skip_all => $reason if $reason;

my @blocks = slurp_file($page) =~ /^```text\n(.*?)^```$/msg;

my $kms = TdeKms->new('pykmip', PostgreSQL::Test::Utils::tempdir_short());
$kms->start;
my ($cert, $key) = $kms->certificate('new', 'coffer');

my $node = tde_node('main');
$node->start;
my $ring = tde_keyring($node);
$node->safe_psql(
	'postgres', qq{
	CREATE EXTENSION pg_tde;
	SELECT pg_tde_add_global_key_provider_file('keyring', '$ring');
	SELECT pg_tde_create_key_using_global_key_provider('key_01', 'keyring');
	SELECT pg_tde_set_default_key_using_global_key_provider('key_01', 'keyring');
	CREATE TABLE customers USING tde_heap AS SELECT 'x' AS name});

# Run the one block that has this in it; what it prints.
sub run_block
{
	my ($what, $pattern) = @_;
	my ($block, @more) = grep { /$pattern/ } @blocks;
	my ($out, $err) = ('', '');

	is(scalar @more, 0, "$what: it is one block");
	@blocks = grep { $_ ne $block } @blocks;
	$block =~ s{/etc/coffer/kms/new_cert.pem}{$cert}g;
	$block =~ s{/etc/coffer/kms/new_key.pem}{$key}g;
	$block =~ s{/etc/coffer/kms/client_cert.pem}{$kms->{cert}}g;
	$block =~ s{/etc/coffer/kms/client_key.pem}{$kms->{key}}g;
	$block =~ s{/etc/coffer/kms/ca.pem}{$kms->{ca}}g;
	$block =~ s{'kms.example.com', 5696}{'localhost', $kms->{port}}g;
	my @command =
	  $block =~ /^SELECT/
	  ? (
		'psql', '-X', '-At',
		'-v' => 'ON_ERROR_STOP=1',
		'-d' => $node->connstr('postgres'))
	  : ('bash', '-e');
	ok(IPC::Run::run(\@command, '<', \$block, '>', \$out, '2>', \$err), $what)
	  or diag("$block\n$out\n$err");
	return $out;
}
sub default_key
{
	return $node->safe_psql('postgres',
		'SELECT provider_name, key_name FROM pg_tde_default_key_info()');
}

like(run_block('when does it expire', qr/-enddate/), qr/^notAfter=/m,
	'a date');
unlike(run_block('from a file into a KMS', qr/'key_02'/), qr/keyring/,
	'the file is not used any more');
is(default_key(), 'kms|key_02', 'the KMS has the key');
is(run_block('what is missing', qr/NOT available/), '', 'nothing is missing');
run_block('other certificates', qr/new_cert/);
is( $node->safe_psql('postgres',
		q{SELECT options->>'certPath' FROM pg_tde_list_all_global_key_providers()}),
	$cert, 'other certificates');
run_block('loss of a key', qr/'key_03'/);
is(default_key(), 'kms|key_03', 'rotated');
$node->restart;
is($node->safe_psql('postgres', 'SELECT name FROM customers'), 'x', 'readable');
$node->safe_psql('postgres', 'ALTER TABLE customers SET ACCESS METHOD heap');
run_block('no encryption any more', qr/delete_default_key/);
is(default_key(), '|', 'no default key');
is($node->safe_psql('postgres', 'SELECT name FROM customers'), 'x', 'readable');

is(join("\n", @blocks), '', 'all blocks were run');
$node->stop;
$kms->stop;
done_testing();
