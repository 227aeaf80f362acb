# Copyright (c) 2026, the Coffer authors

# CBC needs data checksums: without them hint bits are not logged, and a torn
# write of one damages a page.  Keys for it are refused in a cluster without
# checksums, and a cluster that has such keys does not start without them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my @cbc = ('aes_128_cbc', 'aes_256_cbc');
my $table = 'USING tde_heap AS SELECT g FROM generate_series(1, 1000) g';

#
# Without checksums from the beginning
#
my $node = tde_node('without', extra => ['--no-data-checksums']);
$node->start;
tde_setup($node);
foreach my $cipher (@cbc)
{
	foreach my $kind ('TABLE', 'TEMP TABLE', 'UNLOGGED TABLE')
	{
		my ($ret, $out, $err) = $node->psql('postgres',
			"SET pg_tde.cipher = $cipher; CREATE $kind t $table");
		isnt($ret, 0, "$cipher, CREATE $kind fails");
		like($err, qr/ERROR:  cipher "$cipher" needs data checksums/,
			'... and says why');
		like($err, qr/HINT:  .*enable data checksums with pg_checksums/,
			'... and what to do');
	}
}
foreach my $cipher ('aes_128_xts', 'aes_256_xts')
{
	$node->safe_psql('postgres',
		"SET pg_tde.cipher = $cipher; CREATE TABLE t_$cipher $table");
	is($node->safe_psql('postgres', "SELECT sum(g) FROM t_$cipher"),
		'500500', "$cipher needs no checksums");
}

# A setting that the cluster cannot use does no harm to what is there.
$node->append_conf('postgresql.conf', "pg_tde.cipher = 'aes_128_cbc'");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT sum(g) FROM t_aes_128_xts'),
	'500500', 'started and recovered with CBC as the default');
my ($ret, $out, $err) =
  $node->psql('postgres', 'TRUNCATE t_aes_128_xts');
like($err, qr/cipher "aes_128_cbc" needs data checksums/,
	'a new file of an old table is refused, too');
is($node->safe_psql('postgres', 'SELECT sum(g) FROM t_aes_128_xts'),
	'500500', '... and its rows are still there');
$node->stop;
command_ok([ 'pg_checksums', '--enable', '--pgdata', $node->data_dir ],
	'checksums are enabled');
$node->start;
$node->safe_psql('postgres', "CREATE TABLE t $table");
is($node->safe_psql('postgres', 'SELECT sum(g) FROM t'),
	'500500', 'with checksums, CBC can be used');

#
# With CBC keys, and checksums taken away
#
$node->stop;
command_ok([ 'pg_checksums', '--disable', '--pgdata', $node->data_dir ],
	'checksums are disabled');
my $offset = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'the server does not start');
my $log = slurp_file($node->logfile, $offset);
like($log,
	qr/FATAL:  data checksums are disabled, but cipher "aes_128_cbc" needs them/,
	'... and says why');
like($log, qr/HINT:  Enable data checksums with pg_checksums\./,
	'... and what to do');
command_ok([ 'pg_checksums', '--enable', '--pgdata', $node->data_dir ],
	'checksums are enabled again');
$node->start;
is($node->safe_psql('postgres', 'SELECT sum(g) FROM t'),
	'500500', 'nothing is lost');
$node->stop;

done_testing();
