# Copyright (c) 2026, the Coffer authors

# Storage made, dropped and made again around a crash: redo makes what the
# records say, encrypted or plain; unlogged relations are reset; and so on a
# standby.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', 'checkpoint_timeout = 1h');
$node->start;
tde_setup($node);
$node->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'start', has_streaming => 1);
$standby->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $t = '(a serial PRIMARY KEY, b text)';
sql(qq{
	CREATE TABLE before $t USING tde_heap;
	CREATE UNLOGGED TABLE u_before $t USING tde_heap;
	CREATE INDEX u_gin ON u_before USING gin (to_tsvector('simple', b));
	CREATE INDEX u_gist ON u_before USING gist (point(a, a));
	CREATE INDEX u_spgist ON u_before USING spgist (b);
	CREATE INDEX u_hash ON u_before USING hash (b);
	CREATE INDEX u_brin ON u_before USING brin (a);
	CREATE TABLE plain $t;
	INSERT INTO before (b) VALUES ('$canary');
	INSERT INTO u_before (b) SELECT '$canary' FROM generate_series(1, 100);
	INSERT INTO plain (b) VALUES ('$canary');
	CHECKPOINT;
	CREATE TABLE after $t USING tde_heap;
	CREATE UNLOGGED TABLE u_after $t USING tde_heap;
	CREATE TABLE dropped $t USING tde_heap;
	CREATE TABLE to_plain $t USING tde_heap;
	CREATE TABLE to_encrypted $t;}
	  . join('', map { "INSERT INTO $_ (b) VALUES ('$canary');" }
		  qw(after u_after dropped to_plain to_encrypted)));
sql(qq{
	DROP TABLE dropped;
	ALTER TABLE to_plain SET ACCESS METHOD heap;
	ALTER TABLE to_encrypted SET ACCESS METHOD tde_heap;
	ALTER TABLE before SET UNLOGGED;
	ALTER TABLE before SET LOGGED;
	BEGIN; CREATE TABLE aborted $t USING tde_heap;
	INSERT INTO aborted (b) VALUES ('$canary'); ROLLBACK;
	TRUNCATE plain; INSERT INTO plain (b) VALUES ('$canary')});

# An open transaction dies with the server.
my $session = $node->background_psql('postgres');
$session->query_safe("BEGIN; CREATE TABLE open $t USING tde_heap;
	INSERT INTO open (b) VALUES ('$canary')");
sql('SELECT pg_switch_wal()');
$node->stop('immediate');
eval { $session->quit };
$node->start;

sub check
{
	my ($server, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my %state = map { $_->{name} => $_->{is} } check_storage($server,
		'postgres', $label, canary => $canary,
		control => [ 'plain', 'to_plain' ]);
	is($state{$_}, 't', "$label: $_ is encrypted")
	  foreach qw(before before_pkey before_a_seq after after_pkey after_a_seq
	  u_before u_before_pkey u_gin u_after to_encrypted to_encrypted_a_seq);
	is($state{$_}, 'f', "$label: $_ is plain")
	  foreach qw(to_plain to_plain_pkey to_plain_a_seq plain);
	is( $server->safe_psql('postgres',
			join(' UNION ALL ', map { "SELECT '$_', b FROM $_" }
				  qw(before after to_plain to_encrypted plain))),
		join("\n", map { "$_|$canary" }
			  qw(before after to_plain to_encrypted plain)),
		"$label: rows");
	return;
}

check($node, 'after a crash');
is(sql('SELECT count(*) FROM u_before') . sql('SELECT count(*) FROM u_after'),
	'00', 'unlogged tables are empty');
sql(qq{INSERT INTO u_before (b) SELECT '$canary' || g
		FROM generate_series(1, 100) g;
	INSERT INTO u_after (b) SELECT '$canary' || g
		FROM generate_series(1, 100) g});
is( sql(q{SET enable_seqscan = off;
		SELECT count(*) FROM u_before WHERE a > 0;
		SELECT count(*) FROM u_before WHERE b LIKE '%7';
		SELECT count(*) FROM u_before
			WHERE to_tsvector('simple', b) @@ 'nothing';
		SELECT count(*) FROM u_before WHERE point(a, a) <@ box '((0,0),(9,9))';}),
	"100\n10\n0\n9", 'and usable, with their indexes');
check($node, 'unlogged tables filled again');

$node->wait_for_catchup($standby);
check($standby, 'standby');
$standby->stop('immediate');
$standby->start;
check($standby, 'standby, started again');
$standby->promote;
check($standby, 'promoted');
is( $standby->safe_psql('postgres',
		'SELECT (SELECT count(*) FROM u_before), (SELECT count(*) FROM u_after)'
	),
	'0|0', 'unlogged tables of the promoted standby are empty');
$standby->safe_psql('postgres', qq{
	INSERT INTO u_before (b) VALUES ('$canary');
	INSERT INTO u_after (b) VALUES ('$canary')});
check($standby, 'promoted, unlogged tables written');

$standby->stop;
$node->stop;
done_testing();
