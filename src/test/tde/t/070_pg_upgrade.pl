# Copyright (c) 2026, the Coffer authors

# pg_upgrade of a cluster with encrypted relations: the files move as they
# are, so the new cluster needs the same keys, and nothing it does meanwhile
# may replace or remove one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

# pg_upgrade leaves scripts in the current directory.
chdir $PostgreSQL::Test::Utils::tmp_check or die "could not chdir: $!";

my $content = q{
	SELECT count(*), sum(length(x)), md5(string_agg(x, ',' ORDER BY id)) FROM t};

# the command that upgrades one node into another
sub pg_upgrade
{
	my ($old, $new, @options) = @_;
	return [
		'pg_upgrade', '--no-sync', '-s', $new->host, @options,
		-d => $old->data_dir, -b => $old->config_data('--bindir'), -p => $old->port,
		-D => $new->data_dir, -B => $new->config_data('--bindir'), -P => $new->port
	];
}

# key file => content, of a database
sub keys_of
{
	my ($node, $db) = @_;
	my $oid = $node->safe_psql('postgres',
		"SELECT oid FROM pg_database WHERE datname = '$db'");
	return map { (m{/([^/]+)$})[0] => slurp_bytes($_) }
	  glob($node->data_dir . "/pg_tde/$oid/*.key");
}

foreach my $mode ('--copy', '--link')
{
	my $name = substr($mode, 2);
	my $old = tde_node("old_$name");

	$old->start;
	tde_setup($old);
	$old->safe_psql('postgres', 'CREATE DATABASE own');
	tde_setup($old, 'own');
	my $keyring = tde_keyring($old);
	$old->safe_psql(
		'own', qq{
		SELECT pg_tde_add_database_key_provider_file('mine', '$keyring.own');
		SELECT pg_tde_create_key_using_database_key_provider('k', 'mine');
		SELECT pg_tde_set_key_using_database_key_provider('k', 'mine')});
	foreach my $db ('postgres', 'own')
	{
		$old->safe_psql(
			$db, q{
			CREATE TABLE t (id serial PRIMARY KEY, x text) USING tde_heap;
			ALTER TABLE t ALTER x SET STORAGE EXTERNAL;
			INSERT INTO t (x) SELECT repeat('canary' || g, 1 + g % 700)
				FROM generate_series(1, 500) g;
			CREATE INDEX ON t (left(x, 20));
			CREATE TABLE gone (x text) USING tde_heap;
			DROP TABLE gone;
			CREATE TABLE plain AS SELECT 'control' AS x});
	}
	my %before;
	foreach my $db ('postgres', 'own')
	{
		$before{$db} = $old->safe_psql($db, $content);
	}
	# the keys of dropped relations go at a checkpoint
	$old->safe_psql('postgres', 'CHECKPOINT');
	my %old_keys = map { ($_ => {keys_of($old, $_)}) } 'postgres', 'own';
	cmp_ok(scalar(keys %{ $old_keys{own} }),
		'>', 5, "$name: the old cluster has keys");
	$old->stop;

	my $new = tde_node("new_$name");
	command_ok(
		pg_upgrade($old, $new, $mode),
		"$name: pg_upgrade");
	$new->start;

	foreach my $db ('postgres', 'own')
	{
		is($new->safe_psql($db, $content),
			$before{$db}, "$name: rows of database $db");
		is( $new->safe_psql(
				$db, q{
				SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
				WHERE relkind IN ('r', 'i', 'S') AND pg_tde_is_encrypted(oid)
				  AND relname !~ '^pg_'}),
			't t_id_seq t_left_idx t_pkey',
			"$name: what is encrypted in database $db");
	}
	$new->safe_psql('own', q{INSERT INTO t (x) VALUES ('canary new')});
	$new->safe_psql('postgres', 'CHECKPOINT');
	foreach my $db ('postgres', 'own')
	{
		is_deeply({ keys_of($new, $db) },
			$old_keys{$db}, "$name: the keys of database $db are the same");
	}
	is_deeply([ files_with($new->data_dir . '/base', 'canary') ],
		[], "$name: nothing in clear");
	$new->stop('immediate');
	$new->start;
	is($new->safe_psql('own', 'SELECT count(*) FROM t'),
		'501', "$name: rows after a crash");
	$new->stop;
}

# A cluster that has keys of its own is no place to upgrade into.
my $old = tde_node('old_refused');
$old->start;
tde_setup($old);
$old->stop;
my $new = tde_node('new_refused');
$new->start;
tde_setup($new);
$new->safe_psql('postgres', 'DROP EXTENSION pg_tde');
$new->stop;
command_checks_all(
	pg_upgrade($old, $new),
	1,
	[qr/Performing Upgrade/],
	[qr/the new cluster has encryption keys of its own/],
	'pg_upgrade refuses a new cluster with keys');

done_testing();
