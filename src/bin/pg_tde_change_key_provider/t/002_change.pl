# Copyright (c) 2026, the Coffer authors

# A key provider that has moved while the server was down: the server says so
# and does not start, the program tells it the new place, and it starts.  What
# would leave the server without its keys, or is no provider, changes nothing.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeKms;
use TdeTest;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "pg_tde.key_wait_timeout = 0\n");
$node->start;
tde_setup($node);
my $data = $node->data_dir;
my $ring = tde_keyring($node);
my $config = "$data/pg_tde/global/provider_config";

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
$node->safe_psql('postgres',
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');

sub change { return ('pg_tde_change_key_provider', '-D', $data, @_); }

# Fails, says why, and the list of providers stays as it is.
sub refuses
{
	my ($args, $message, $what) = @_;
	my $before = slurp_bytes($config);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	command_checks_all([ change(@$args) ], 1, [qr/^$/], [$message], $what);
	is(slurp_bytes($config), $before, "$what: nothing changed");
	ok(!-e "$config.tmp", "$what: nothing left behind");
	return;
}

sub rows
{
	my ($db, $n) = @_;
	return ($n || $node)->safe_psql($db, 'SELECT count(*), sum(g) FROM t');
}

refuses([ '1664', 'ring', 'file', "$ring.new" ],
	qr/a server is running in this data directory \(PID \d+\)/,
	'server is running');

#
# Wrong arguments
#
$node->stop;
refuses([ '1664', 'rong', 'file', $ring ],
	qr/global key provider "rong" does not exist\n.*There is "ring", of type "file"/s,
	'unknown provider');
refuses([ $own, 'ring', 'file', $ring ],
	qr/key provider "ring" of database $own does not exist\n.*There is "mine"/s,
	'provider of another scope');
refuses([ '4242', 'ring', 'file', $ring ],
	qr/database 4242 has no key providers/, 'unknown database');
refuses([ $_, 'ring', 'file', $ring ],
	qr/invalid OID of a database: "\Q$_\E"/, "database \"$_\"")
  foreach ('0', 'x', '5x', '4294967296');
refuses([ '1664', 'ring', 'filing', $ring ],
	qr/unknown key provider type "filing"\n.*hint: Known types: .*file/s,
	'unknown type');
refuses([ '1664', 'ring', 'file' ],
	qr/option "path" of key provider "ring" is missing/, 'no argument');
refuses([ '1664', 'ring', 'file', '' ],
	qr/option "path" of key provider "ring" is missing|must not be empty/,
	'empty argument');
refuses([ '1664', 'ring', 'file', $ring, 'more' ],
	qr/too many arguments for a key provider of type "file" \(first is "more"\)/,
	'too many arguments');
refuses([ '1664', 'ring', 'file', 'x' x 1100 ],
	qr/options of key provider "ring" are too long/, 'argument too long');

#
# The keyring moves
#
rename($ring, "$ring.new") or die;
my $from = -s $node->logfile;
$node->start;
$node->stop;
like(
	slurp_file($node->logfile, $from),
	qr/WARNING:  failed to retrieve principal key "default" from key provider "ring"\n.*DETAIL:  could not open keyring file "\Q$ring\E": No such file/,
	'the log says what is missing');

refuses([ '1664', 'ring', 'file', "$ring.nowhere" ],
	qr/does not return principal key "default", which is in use \(default key\)\n.*detail: could not open keyring file/s,
	'new place does not exist');
refuses([ '1664', 'ring', 'file', "$ring.own" ],
	qr/does not return principal key "default".*detail: key "default" does not exist in keyring file/s,
	'new place has other keys');

command_checks_all([ change('1664', 'ring', 'file', "$ring.new") ],
	0, [qr/^Key provider "ring" was changed\.$/], [qr/^$/], 'changed');
is((stat $config)[2] & 07777, 0600, 'mode of the list');
$node->start;
is(rows($_), '1000|500500', "$_ is readable") foreach ('postgres', 'own');
$node->safe_psql('postgres', 'SELECT pg_tde_verify_key()');
is( $node->safe_psql('postgres',
		q{SELECT options->>'path' FROM pg_tde_list_all_global_key_providers()}),
	"$ring.new",
	'new options are shown');

# One of a database, to a name that JSON must quote
$node->stop;
my $strange = "$ring \"quoted\" \\ back\tslash";
rename("$ring.own", $strange) or die;
command_ok([ change($own, 'mine', 'file', $strange) ], 'provider of a database');
$node->start;
is(rows('own'), '1000|500500', 'database is readable');
is( $node->safe_psql('own',
		q{SELECT options->>'path' FROM pg_tde_list_all_database_key_providers()}),
	$strange,
	'path is as it was given');

# A path relative to the data directory
$node->stop;
rename("$ring.new", "$data/../keyring") or die;
command_ok([ change('1664', 'ring', 'file', '../keyring') ], 'relative path');
$node->start;
is(rows('postgres'), '1000|500500', 'readable');

#
# Providers that the lists do not know, as in a base backup that copied these
# before: what scopes say of them is entered, and changed
#
$node->stop;
my %lists;
foreach my $list ("$data/pg_tde/global/provider_config",
	"$data/pg_tde/$own/provider_config")
{
	$lists{$list} = slurp_file($list);
	unlink $list or die;
}
command_fails_like([ change('1664', 'other', 'file', "$ring.x") ],
	qr/there are no global key providers/, 'a provider that no scope knows');
rename("$data/../keyring", "$ring.entered") or die;
rename($strange, "$strange.entered") or die;
command_ok([ change('1664', 'ring', 'file', "$ring.entered") ],
	'a global provider that is in no list');
command_ok([ change($own, 'mine', 'file', "$strange.entered") ],
	'one of a database');
$node->start;
is(rows('postgres'), '1000|500500', 'readable');
is(rows('own'), '1000|500500', 'database is readable');
is( $node->safe_psql('own',
		q{SELECT id, name, options->>'path' FROM pg_tde_list_all_database_key_providers()}),
	"1|mine|$strange.entered",
	'it is in the list');
$node->stop;
rename("$ring.entered", "$data/../keyring") or die;
rename("$strange.entered", $strange) or die;
foreach my $list (keys %lists)
{
	unlink $list;
	append_to_file($list, $lists{$list});
}
$node->start;

#
# Without verification
#
$node->stop;
command_ok([ change('--no-verify', '1664', 'ring', 'file', "$ring.later") ],
	'place that is not there yet');
$from = -s $node->logfile;
$node->start;
$node->stop;
like(slurp_file($node->logfile, $from), qr/"\Q$ring\E\.later": No such file/,
	'the new place is asked');
rename("$data/../keyring", "$ring.later") or die;
$node->start;
is(rows('postgres'), '1000|500500', 'readable once it is there');

#
# After a crash, and in a backup
#
$node->backup('copy');
tde_crash($node);
rename("$ring.later", $ring) or die;
refuses([ '1664', 'ring', 'file', $ring ],
	qr/cluster was not shut down.*--force/s, 'crashed');
command_ok([ change('--force', '1664', 'ring', 'file', $ring) ], 'forced');
$node->start;
is(rows($_), '1000|500500', "$_ is readable") foreach ('postgres', 'own');

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'copy', has_streaming => 1);
$restored->start;
my ($ret, $out, $err) = $restored->psql('postgres', 'SELECT count(*) FROM t');
like($err, qr/encryption key of relation "[^"]+" is not available/,
	'the copy is without keys where it was');
$restored->stop;
command_ok(
	[
		'pg_tde_change_key_provider', '-D', $restored->data_dir, '1664',
		'ring', 'file', $ring
	],
	'in a restored backup');
$restored->start;
$node->wait_for_catchup($restored);
is(rows('postgres', $restored), '1000|500500', 'the copy is readable');

# What is changed later on the primary counts on the standby, too, and nothing
# that was changed there is lost.
$restored->stop;
copy_keyring($ring, "$ring.standby");
command_ok(
	[
		'pg_tde_change_key_provider', '-D', $restored->data_dir, '1664',
		'ring', 'file', "$ring.standby"
	],
	'on the standby only');
$restored->start;
like(
	$restored->safe_psql('postgres',
		'SELECT options FROM pg_tde_list_all_global_key_providers()'),
	qr/standby/,
	'it has its own options');
$node->safe_psql(
	'postgres', qq{
	SELECT pg_tde_add_global_key_provider_file('second', '$ring.second');
	SELECT pg_tde_create_key_using_global_key_provider('k2', 'second');
	SELECT pg_tde_set_key_using_global_key_provider('k2', 'second');
	CREATE TABLE u USING tde_heap AS TABLE t});
$node->wait_for_catchup($restored);
is($restored->safe_psql('postgres', 'SELECT count(*) FROM u'),
	1000, 'the next change reaches the standby');
$restored->stop;

#
# Arguments of the other types, in their order
#
$node->stop;
my $provider_options = sub {
	$node->start;
	my $options = $node->safe_psql('postgres',
		q{SELECT options FROM pg_tde_list_all_global_key_providers() WHERE name = 'spare'});
	$node->stop;
	return $options;
};
$node->start;
$node->safe_psql('postgres',
	"SELECT pg_tde_add_global_key_provider_file('spare', '$ring.spare')");
$node->stop;
command_ok(
	[
		change('--no-verify', '1664', 'spare', 'kmip', 'kms.example', '5696',
			'/cert.pem', '/key.pem', '/ca.pem')
	],
	'type kmip');
is( $provider_options->(),
	'{"host": "kms.example", "port": 5696, "certPath": "/cert.pem", "keyPath": "/key.pem", "caPath": "/ca.pem"}',
	'options of kmip');
refuses([ '--no-verify', '1664', 'spare', 'kmip', 'kms.example', 'x', '/c', '/k' ],
	qr/option "port" of key provider "spare" must be an integer/,
	'port that is no number');
command_ok(
	[
		change('--no-verify', '1664', 'spare', 'vault-v2',
			'https://vault.example:8200', 'secret', '/token', '', 'ns')
	],
	'type vault-v2');
is( $provider_options->(),
	'{"url": "https://vault.example:8200", "mountPath": "secret", "tokenPath": "/token", "namespace": "ns"}',
	'options of vault-v2');

#
# A real KMS at another address
#
SKIP:
{
	my ($missing) = TdeKms->missing('pykmip');
	skip $missing, 5 if $missing;

	my $kms = TdeKms->new('pykmip', $node->basedir . '/kms');
	$kms->start;
	$node->start;
	$node->safe_psql('postgres', $kms->provider_sql('kms'));
	$node->safe_psql(
		'postgres', q{
		SELECT pg_tde_create_key_using_global_key_provider('kk', 'kms');
		SELECT pg_tde_set_default_key_using_global_key_provider('kk', 'kms')});
	$node->stop;
	my @rest = ($kms->{port}, $kms->{cert}, $kms->{key}, $kms->{ca});
	refuses(
		[ '1664', 'kms', 'kmip', 'localhost', '1', @rest[ 1 .. 3 ] ],
		qr/could not use key provider "kms"\n.*detail: could not connect to KMIP server/s,
		'nobody there');
	command_ok([ change('1664', 'kms', 'kmip', '127.0.0.1', @rest) ],
		'another address of the KMS');
	command_ok([ 'pg_tde_check_keys', $data ], 'pg_tde_check_keys asks the KMS');
	$node->start;
	$node->safe_psql('postgres', 'SELECT pg_tde_verify_default_key()');
	$node->stop;
	$kms->stop;
	command_checks_all(
		[ 'pg_tde_check_keys', $data ],
		2,
		[qr/^default key: principal key "kk", key provider "kms" \(global\): FAILED$/m],
		[qr/error: default key: could not connect to KMIP server/],
		'and says so if it is down');
}

done_testing();
