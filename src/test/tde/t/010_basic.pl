# Copyright (c) 2026, the Coffer authors

# The whole story: an encrypted table with index and TOAST is filled, survives
# a crash and rotations of all principal keys, is in clear nowhere on disk,
# and is read by a standby with the very same keys, which is then promoted.
#
# WAL is not encrypted here, so the search for the canary leaves it out.

use strict;
use warnings FATAL => 'all';
use File::Find ();
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

# In the table as is; and, where values are compressed, in pieces, so the
# canary's column is not.
my $canary = 'Canary-in-the-coffer-9d1f';
my $control = 'Control-in-the-clear-5b7e';

my $primary = tde_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', "wal_keep_size = '256MB'");
$primary->start;
tde_setup($primary);

sub in_clear
{
	my ($node, $bytes) = @_;
	return grep { !/^pg_wal\// } files_with($node->data_dir, $bytes);
}

# What must be the same at all times
sub rows
{
	my ($node) = @_;
	return $node->safe_psql(
		'postgres', q{
		SELECT count(*), sum(id), sum(length(big)), md5(string_agg(md5(secret || coalesce(big, '')), '' ORDER BY id))
		  FROM vault;
		SET enable_seqscan = off;
		SET enable_bitmapscan = off;
		SELECT count(*) FROM vault WHERE secret LIKE 'Canary%';
		SELECT id FROM vault WHERE secret = 'Canary-in-the-coffer-9d1f 777';
	});
}

# Key files and all that goes with them: name => content
sub key_files
{
	my ($node) = @_;
	my $dir = $node->data_dir . '/pg_tde';
	my %files;

	File::Find::find(
		{
			no_chdir => 1,
			wanted => sub {
				$files{ substr($_, length($dir) + 1) } = slurp_bytes($_) if -f $_;
			}
		},
		$dir);
	return \%files;
}

#
# Create and fill
#
$primary->safe_psql(
	'postgres', qq{
	CREATE TABLE vault (id serial PRIMARY KEY, secret text COLLATE "C", big text) USING tde_heap;
	ALTER TABLE vault ALTER big SET STORAGE EXTERNAL;
	CREATE INDEX vault_secret ON vault (secret);
	CREATE TABLE control (id serial PRIMARY KEY, word text);
	CREATE INDEX control_word ON control (word);
	INSERT INTO vault (secret, big)
	  SELECT '$canary ' || g, CASE WHEN g % 10 = 0 THEN repeat('$canary ' || g || ' ', 200) END
	    FROM generate_series(1, 5000) g;
	INSERT INTO control (word) SELECT '$control ' || g FROM generate_series(1, 1000) g;
	UPDATE vault SET secret = secret WHERE id % 7 = 0;
	DELETE FROM vault WHERE id % 11 = 0;
	VACUUM vault;
	CHECKPOINT;
});
my $expected = rows($primary);
like($expected, qr/^4546\|.*\n4546\n777$/s, 'rows, by sequential and by index scan');
is( $primary->safe_psql(
		'postgres', q{
		SELECT bool_and(pg_tde_is_encrypted(oid)), count(*) FROM pg_class
		 WHERE relname LIKE 'vault%'
		    OR oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'vault')
		    OR relname LIKE 'pg_toast_' || 'vault'::regclass::oid || '_index'}),
	't|6',
	'table, indexes, sequence, TOAST table and its index are encrypted');

is_deeply([ in_clear($primary, $canary) ], [], 'canary is nowhere in clear');
isnt(scalar(in_clear($primary, $control)), 0, 'control is found');

#
# Crash
#
$primary->safe_psql('postgres',
	"INSERT INTO vault (secret, big) SELECT '$canary late ' || g, repeat('$canary', 300) FROM generate_series(1, 500) g");
$expected = rows($primary);
like($expected, qr/\n5046\n777$/, 'rows after more of them');
tde_crash($primary);
$primary->start;
is(rows($primary), $expected, 'rows after a crash');
$primary->safe_psql('postgres', 'CHECKPOINT');
is_deeply([ in_clear($primary, $canary) ], [], 'canary is nowhere in clear');

#
# Standby
#
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is(rows($standby), $expected, 'standby reads the same');

#
# Rotation of principal keys, while the standby follows
#
my $keyring = tde_keyring($primary);
$primary->safe_psql(
	'postgres', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$keyring.own');
	SELECT pg_tde_create_key_using_database_key_provider('own1', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own1', 'own');
	CREATE TABLE second (a int, b text) USING tde_heap;
	INSERT INTO second SELECT g, '$canary' FROM generate_series(1, 1000) g;
	SELECT pg_tde_create_key_using_database_key_provider('own2', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own2', 'own');
});
is(rows($primary), $expected, 'rows after rotation of the database key');
$primary->safe_psql(
	'postgres', q{
	SELECT pg_tde_create_key_using_global_key_provider('default2', 'ring');
	SELECT pg_tde_set_default_key_using_global_key_provider('default2', 'ring');
	SELECT pg_tde_create_key_using_global_key_provider('server2', 'ring');
	SELECT pg_tde_set_server_key_using_global_key_provider('server2', 'ring');
});
is( $primary->safe_psql(
		'postgres', q{
		SELECT key_name FROM pg_tde_key_info();
		SELECT key_name FROM pg_tde_default_key_info();
		SELECT key_name FROM pg_tde_server_key_info()}),
	"own2\ndefault2\nserver2",
	'keys are the new ones');

# Back under the default key
$primary->safe_psql('postgres', 'SELECT pg_tde_delete_key()');
is($primary->safe_psql('postgres', 'SELECT key_name FROM pg_tde_key_info()'),
	'default2', 'database follows the default key');
is(rows($primary), $expected, 'rows after rotation of all keys');

$primary->wait_for_catchup($standby);
is(rows($standby), $expected, 'standby reads the same');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM second'),
	'1000', '... and what came since');
is( $standby->safe_psql(
		'postgres', q{
		SELECT key_name FROM pg_tde_key_info();
		SELECT key_name FROM pg_tde_default_key_info();
		SELECT key_name FROM pg_tde_server_key_info()}),
	"default2\ndefault2\nserver2",
	'... and knows the new keys');
$standby->safe_psql('postgres', 'SELECT pg_tde_verify_key()');

# What a standby only receives it does not change
for my $call (
	"pg_tde_add_global_key_provider_file('more', '$keyring.more')",
	"pg_tde_change_database_key_provider_file('own', '$keyring.more')",
	"pg_tde_delete_database_key_provider('own')",
	"pg_tde_create_key_using_global_key_provider('more', 'ring')",
	"pg_tde_set_key_using_global_key_provider('default', 'ring')",
	"pg_tde_set_default_key_using_global_key_provider('default', 'ring')",
	'pg_tde_delete_key()',
	'pg_tde_delete_default_key()',
	'pg_tde_delete_server_key()')
{
	my ($ret, $stdout, $stderr) = $standby->psql('postgres', "SELECT $call");
	like($stderr, qr/cannot execute pg_tde_\w+\(\) during recovery/, "refused: $call");
}

# The same keys: byte for byte
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
my ($ours, $theirs) = (key_files($primary), key_files($standby));
is_deeply([ sort keys %$theirs ], [ sort keys %$ours ],
	'primary and standby have the same key files');
my $node_db = $primary->safe_psql('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
my $node_file = $primary->safe_psql('postgres', q{SELECT pg_relation_filenode('vault')});
ok(exists $ours->{"$node_db/$node_file.key"}, 'the table has a key file');
is_deeply(
	[ grep { $ours->{$_} ne $theirs->{$_} } sort keys %$ours ],
	[], '... with the same content');

#
# Restart, in order and not
#
$primary->restart;
is(rows($primary), $expected, 'rows after a restart');
$primary->stop('immediate');
$primary->start;
is(rows($primary), $expected, 'rows after an immediate shutdown');
$standby->restart;
is(rows($standby), $expected, 'rows after a restart of the standby');
$primary->wait_for_catchup($standby);
is_deeply([ in_clear($standby, $canary) ], [], 'canary is nowhere on the standby');
isnt(scalar(in_clear($standby, $control)), 0, 'control is');

#
# Promotion
#
tde_crash($primary);
$standby->promote;
is(rows($standby), $expected, 'rows after promotion');
$standby->safe_psql(
	'postgres', qq{
	CREATE TABLE third (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO third (b) SELECT '$canary' FROM generate_series(1, 1000);
	SELECT pg_tde_create_key_using_global_key_provider('default3', 'ring');
	SELECT pg_tde_set_default_key_using_global_key_provider('default3', 'ring');
	VACUUM FULL vault;
	CHECKPOINT;
});
is(rows($standby), $expected, 'rows after rotation and VACUUM FULL there');
$standby->restart;
is(rows($standby), $expected, 'rows after a restart');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM third'),
	'1000', 'rows of a table made after promotion');
is_deeply([ in_clear($standby, $canary) ], [], 'canary is nowhere in clear');
$standby->stop;

done_testing();
