# Copyright (c) 2026, the Coffer authors

# Lists of providers and scopes as they were before they had UUIDs (version 1
# of their formats): they are read, by the server and by programs, and what is
# written from then on is of version 2.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeForge;
use TdeTest;
use Test::More;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf',
	"autovacuum = off\nwal_keep_size = 1GB\n");
$node->start;
my $ring = tde_keyring($node);

sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }

# The same content in version 1
sub older
{
	my ($file) = @_;
	my ($magic, $version) = unpack('a4v', $file);
	my $body;

	die "version $version" if $version != 2;
	if ($magic eq 'CFPV')
	{
		$body = substr($file, 0, 48);
		for (my $at = 48; $at < length($file) - 4;)
		{
			my ($type, $name, $options) = unpack('CCv', substr($file, $at + 4, 4));
			my $len = $type + $name + $options;

			$body .= substr($file, $at, 8) . substr($file, $at + 24, $len);
			$at += 24 + $len;
		}
	}
	else
	{
		my ($provider, $name) = unpack('vv', substr($file, 52, 4));
		my ($options, $type) = unpack('vC', substr($file, 60, 3));

		$body =
			substr($file, 0, 60)
		  . pack('V', 0)
		  . substr($file, 88, $provider + $name)
		  . substr($file, 88 + $provider + $name + $type + $options, -4);
	}
	substr($body, 4, 2) = pack('v', 1);
	substr($body, 8, 4) = pack('V', length($body) + 4);
	return $body . pack('V', crc32c($body));
}

sub files
{
	my ($at) = @_;
	return glob($at->data_dir . '/pg_tde/*/{provider_config,*_key.key}');
}

sub versions
{
	my ($at) = @_;
	return join(' ', map { unpack('x4v', slurp_bytes($_)) } files($at));
}

sub make_older
{
	my ($at) = @_;

	foreach my $file (files($at))
	{
		my $content = older(slurp_bytes($file));

		unlink $file or die;
		append_to_file($file, $content);
	}
	return;
}

# Rows in a database under the default key, and in one with its own provider
sub rows
{
	my ($at) = @_;
	return join('; ',
		map { $at->safe_psql($_, 'SELECT count(*), sum(a) FROM t') } 'postgres',
		'own');
}

tde_setup($node);
sql("SELECT pg_tde_set_server_key_using_global_key_provider('default', 'ring')");
sql('CREATE DATABASE own');
sql(qq{
	CREATE EXTENSION pg_tde;
	SELECT pg_tde_add_database_key_provider_file('mine', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('k', 'mine');
	SELECT pg_tde_set_key_using_database_key_provider('k', 'mine')}, 'own');
sql('CREATE TABLE t USING tde_heap AS SELECT generate_series(1, 1000) a', $_)
  foreach 'postgres', 'own';
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
$node->backup('copy');
my $rows = rows($node);
my $own = sql(q{SELECT oid FROM pg_database WHERE datname = 'own'});

is(versions($node), '2 2 2 2 2 2', 'new files');
$node->stop;
make_older($node);
is(versions($node), '1 1 1 1 1 1', 'old files');
command_ok([ 'pg_tde_check_keys', '-q', $node->data_dir ],
	'programs find the keys');
$node->start;
is(rows($node), $rows, 'the server does');

# A standby with old files, too
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
make_older($standby);
$standby->start;

# What uses a provider is found by its number.
my ($ret, $out, $err) =
  $node->psql('postgres', q{SELECT pg_tde_delete_global_key_provider('ring')});
like($err, qr/cannot delete key provider "ring"/, 'a provider in use');

# A rotation, under the old list: the scope says what that says.
sql(qq{
	SELECT pg_tde_create_key_using_database_key_provider('k2', 'mine');
	SELECT pg_tde_set_key_using_database_key_provider('k2', 'mine')}, 'own');
$node->restart;
is(rows($node), $rows, 'a new scope and an old list');

# The program that changes a provider gives them UUIDs.
$node->stop;
copy_keyring("$ring.own", "$ring.moved");
command_ok(
	[
		'pg_tde_change_key_provider', '-D' => $node->data_dir,
		$own, 'mine', 'file', "$ring.moved"
	],
	'a provider is changed in an old list');
$node->start;
is(rows($node), $rows, 'a list changed offline');

# The lists change, and come to have UUIDs.
sql(qq{
	SELECT pg_tde_add_database_key_provider_file('more', '$ring.more');
	SELECT pg_tde_create_key_using_database_key_provider('k3', 'more')}, 'own');
sql(qq{
	SELECT pg_tde_add_global_key_provider_file('more', '$ring.global');
	SELECT pg_tde_create_key_using_global_key_provider('new', 'more')});
$node->restart;
is(rows($node), $rows, 'old and new scopes, and a new list');
like(versions($node), qr/1/, 'some files are old still');

# All scopes are rotated.
sql(q{SELECT pg_tde_set_key_using_database_key_provider('k3', 'more');
	SELECT pg_tde_delete_database_key_provider('mine')}, 'own');
sql(qq{
	SELECT pg_tde_set_${_}_key_using_global_key_provider('new', 'more')})
  foreach qw(default server);
sql(q{SELECT pg_tde_delete_global_key_provider('ring')});
is(versions($node), '2 2 2 2 2 2', 'all files are new');
$node->wait_for_catchup($standby);
is(versions($standby), '2 2 2 2 2 2', 'on the standby, too');
is(rows($standby), $rows, 'which reads them');
$_->restart foreach $standby, $node;
is(rows($_), $rows, $_->name . ' reads them after a restart')
  foreach $node, $standby;
$node->wait_for_catchup($standby);
$_->stop foreach $standby, $node;
is_deeply(
	[ map { slurp_bytes($_) } files($standby) ],
	[ map { slurp_bytes($_) } files($node) ],
	'both have the same');
command_ok([ 'pg_tde_check_keys', '-q', $node->data_dir ],
	'programs find the keys in the end');
done_testing();
