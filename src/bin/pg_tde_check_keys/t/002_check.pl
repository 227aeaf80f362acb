# Copyright (c) 2026, the Coffer authors

# What the program says of a data directory that is in order, and of every way
# in which a key can be missing.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf(
	'postgresql.conf', q{
allow_in_place_tablespaces = on
autovacuum = off
checkpoint_timeout = 1h
});
$node->start;
my $data = $node->data_dir;
my $ring = tde_keyring($node);

sub check
{
	my ($status, $stdout, $stderr, $what, @options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	command_checks_all([ 'pg_tde_check_keys', @options, $data ],
		$status, $stdout, $stderr, $what);
	return;
}

check(0, [qr/^0 scopes, 0 principal keys asked for, 0 key files \(0 not needed any more\), 0 problems$/],
	[qr/^$/], 'nothing is encrypted');

tde_setup($node);
$node->safe_psql('postgres', 'CREATE DATABASE own');
tde_setup($node, 'own');
my $own = $node->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'own'});
$node->safe_psql(
	'own', qq{
	SELECT pg_tde_add_database_key_provider_file('mine', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('k', 'mine');
	SELECT pg_tde_set_key_using_database_key_provider('k', 'mine');
	CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g});
$node->safe_psql('postgres', q{CREATE TABLESPACE ts LOCATION ''});
$node->safe_psql(
	'postgres', q{
	CREATE TABLE t (a int PRIMARY KEY) USING tde_heap;
	INSERT INTO t SELECT g FROM generate_series(1, 1000) g;
	CREATE UNLOGGED TABLE u (a int) USING tde_heap;
	CREATE TABLE ts (a int) USING tde_heap TABLESPACE ts;
	INSERT INTO ts VALUES (1);
	CREATE TABLE plain AS TABLE t;
	CHECKPOINT});
my $db = $node->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
my $key = key_of($node, 'postgres', 't');
my $ts_key = key_of($node, 'postgres', 'ts');

my $all = [
	qr/^default key: principal key "default", key provider "ring" \(global\): ok$/m,
	qr/^server key: principal key "default", key provider "ring" \(global\): ok$/m,
	qr/^database $db: principal key "default", key provider "ring" \(global\): ok$/m,
	qr/^database $own: principal key "k", key provider "mine" \(of the database\): ok$/m,
	qr/^4 scopes, 2 principal keys asked for, \d+ key files \(0 not needed any more\), 0 problems$/m
];
check(0, $all, [qr/^$/], 'server is running');
$node->backup('copy');
$node->stop;
check(0, $all, [qr/^$/], 'server is down');
check(0, [qr/^$/], [qr/^$/], '--quiet', '-q');
check(0, $all, [qr/^\d of \d databases checked, 0 key files, 0 problems[\r\n].*\d+ key files, 0 problems\n$/s],
	'--progress', '--progress');
command_checks_all(
	[ 'pg_tde_check_keys', '-D', $node->backup_dir . '/copy' ],
	0, [qr/, 0 problems$/], [qr/^$/], 'a base backup');

#
# Providers
#
rename($ring, "$ring.away") or die;
check(
	2,
	[
		qr/^default key: principal key "default", key provider "ring" \(global\): FAILED$/m,
		qr/^database $own: .*: ok$/m,
		qr/, 3 problems$/m
	],
	[qr/error: database $db: could not open keyring file "\Q$ring\E": No such file or directory/],
	'keyring is not there');
check(0, [qr/^default key: .*: not asked$/m, qr/^4 scopes, 0 principal keys asked for, /m],
	[qr/^$/], '--no-providers', '--no-providers');

my $stranger = tde_node('stranger');
$stranger->start;
tde_setup($stranger);
$stranger->stop;
rename(tde_keyring($stranger), $ring) or die;
check(2, [qr/, 3 problems$/m],
	[qr/error: default key: principal key "default" from key provider "ring" is not the key in use/],
	'keyring of another server');
rename("$ring.away", $ring) or die;

#
# Files.  Each is put back afterwards.
#
sub with_file
{
	my ($path, $content, @rest) = @_;
	my $save = slurp_bytes("$data/$path");

	unlink "$data/$path" or die;
	append_to_file("$data/$path", $content->($save)) if defined $content;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check(2, @rest);
	unlink "$data/$path";
	append_to_file("$data/$path", $save);
	chmod 0600, "$data/$path";
	return;
}

sub flipped
{
	my ($content) = @_;
	substr($content, length($content) / 2, 1) ^= "\x01";
	return $content;
}

with_file($key, undef, [qr/, 1 problems$/m],
	[qr/the relation is encrypted, but key file "\Q$key\E" does not exist/],
	'key file lost');
with_file($ts_key, undef, [qr/, 1 problems$/m],
	[qr/error: pg_tblspc\/\d+\/[^:]*: the relation is encrypted, but key file "\Q$ts_key\E" does not exist/],
	'key file of a relation in a tablespace lost');
with_file($key, \&flipped, [qr/, 1 problems$/m],
	[qr/error: relation \d+ of database $db: could not use file "\Q$key\E": /],
	'key file damaged');
with_file($key, sub { substr $_[0], 0, 100 }, [qr/, 1 problems$/m],
	[qr/could not use file "\Q$key\E": file is truncated/],
	'key file truncated');
with_file($key, sub { slurp_bytes("$data/$ts_key") }, [qr/, 1 problems$/m],
	[qr/could not use file "\Q$key\E": it belongs to another relation/],
	'key file of another relation');
with_file("pg_tde/$own/database_key.key", undef, [qr/, 1 problems$/m],
	[qr/error: database $own: there are keys of relations, but no scope key/],
	'scope lost');
with_file("pg_tde/$own/database_key.key", \&flipped, [qr/, 1 problems$/m],
	[qr/error: database $own: could not use file "pg_tde\/$own\/database_key.key": /],
	'scope damaged');
with_file("pg_tde/$own/provider_config", undef, [qr/, 1 problems$/m],
	[qr/error: database $own: key provider "mine" \(number 1\), which has principal key "k", is in no list/],
	'list of providers lost');
with_file("pg_tde/global/provider_config", \&flipped, [qr/, 3 problems$/m],
	[qr/error: default key: could not use file "pg_tde\/global\/provider_config": /],
	'list of providers damaged');

# The key file of one database under the name of another's: the scope key does
# not open it.
my $other = key_of_relation_in_own();
with_file($key, sub { slurp_bytes("$data/$other") }, [qr/, 1 problems$/m],
	[qr/could not use file "\Q$key\E": /], 'key file of another database');

sub key_of_relation_in_own
{
	my ($file) = grep { /\/$own\// } sort keys %{ key_files($node, 1) };
	return $file;
}

#
# What no relation needs any more is no problem.
#
append_to_file("$data/pg_tde/$db/99999.key", 'rubbish');
check(0, [qr/\(1 not needed any more\), 0 problems$/m], [qr/^$/],
	'key file without a relation');
unlink "$data/pg_tde/$db/99999.key";
check(0, $all, [qr/^$/], 'all is in order again');

# No key in what it prints
my ($hex) = slurp_bytes($ring) =~ /^key default \S+ ([0-9a-f]+) /m;
my ($out, $err) = run_command([ 'pg_tde_check_keys', $data ]);
ok(length($hex) >= 32 && index("$out$err", $hex) < 0, 'no key is printed');

done_testing();
