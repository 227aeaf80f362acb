# Copyright (c) 2026, the Coffer authors

# The way back: when nothing is encrypted any more the server needs no key
# provider, whichever way it came there: by the functions that take keys away,
# as our manual has it, or, as users of pg_tde know it, by dropping the extension
# and taking the library out of shared_preload_libraries.  The key is destroyed
# then, and neither a start nor a crash nor a standby nor a backup may miss it.
# While something is encrypted the keys are refused to go, with a reason.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

my $asked = qr/operation=fetch|failed to retrieve principal key/;

# A server that encrypts WAL and has a table under the default key
sub encrypted_node
{
	my ($name) = @_;
	my $node = life_node($name, allows_streaming => 1);

	$node->start;
	tde_setup($node);
	$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
	$node->restart;
	$node->safe_psql('postgres',
		'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 100) g');
	return $node;
}

sub rows
{
	my ($node, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', 'SELECT sum(g) FROM t'), '5050', $label);
	return;
}

# Start and crash without the key; it is not even asked for
sub needs_no_key
{
	my ($node, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $from = -s $node->logfile;

	$node->restart;
	rows($node, "$label: rows after a restart");
	$node->safe_psql('postgres', 'CREATE TABLE crashed AS SELECT 1 AS a');
	tde_crash($node);
	$node->start;
	rows($node, "$label: rows after a crash");
	$node->safe_psql('postgres', 'DROP TABLE crashed');
	unlike(slurp_file($node->logfile, $from), $asked,
		"$label: no key is asked for");
	return;
}

#
# Our manual's way
#
my $node = encrypted_node('ours');
my ($ret, $out, $err);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub fails_sql { ($ret, $out, $err) = $node->psql('postgres', $_[0]); return; }

fails_sql('SELECT pg_tde_delete_server_key()');
like(
	$err,
	qr/ERROR:  cannot delete the server key\nDETAIL:  WAL is encrypted: "pg_tde.wal_encrypt" is on\.\nHINT:  Turn "pg_tde.wal_encrypt" off, restart/,
	'refused while WAL is encrypted');
fails_sql('SELECT pg_tde_delete_default_key()');
like($err, qr/ERROR:  cannot delete the default principal key/,
	'refused while a table is encrypted');

$node->backup('encrypted');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'encrypted', has_streaming => 1);
$standby->start;

sql('ALTER TABLE t SET ACCESS METHOD heap');
fails_sql('SELECT pg_tde_delete_default_key()');
like(
	$err,
	qr/NOTICE:  principal key "default" of key provider "ring" is still in use: server key\nDETAIL:  WAL is encrypted: .*\nHINT:  Turn .* and call pg_tde_delete_server_key\(\) again/,
	'the default key goes, the server key stays, and the user is told');
is( sql('SELECT d.key_name, s.key_name FROM pg_tde_default_key_info() d, pg_tde_server_key_info() s'),
	'|default', '... and so it is');
$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = off');
$standby->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = off');

sql("SELECT pg_create_physical_replication_slot('slot', true)");
$node->restart;
rows($node, 'WAL is in clear');
fails_sql('SELECT pg_tde_delete_server_key()');
like(
	$err,
	qr/ERROR:  cannot delete the server key\nDETAIL:  WAL that is in "pg_wal" still is encrypted, for example in file "[0-9A-F]{24}"\.\nHINT:  Call pg_tde_delete_server_key\(\) again when that file is not needed any more/,
	'refused while a slot holds encrypted WAL');
sql("SELECT pg_drop_replication_slot('slot')");
wait_replayed($node, $standby);
sql('SELECT pg_tde_delete_server_key()');
is(sql('SELECT key_name IS NULL FROM pg_tde_server_key_info()'),
	't', 'deleted');
fails_sql('SELECT pg_tde_delete_server_key()');
like($err, qr/ERROR:  principal key is not set for the server/,
	'there is none any more');
sql(q{SELECT pg_tde_delete_global_key_provider('ring')});
wait_replayed($node, $standby);
unlink tde_keyring($node) or die;

needs_no_key($node, 'ours');
command_ok([ 'pg_tde_check_keys', '--quiet', '-D' => $node->data_dir ],
	'pg_tde_check_keys misses nothing');
wait_replayed($node, $standby);
needs_no_key_standby();
$node->backup('plain');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'plain');
$restored->start;
rows($restored, 'a backup from after that needs no key');
$restored->stop;

# The standby replayed the deletion and has nothing to ask for, either.
sub needs_no_key_standby
{
	my $from = -s $standby->logfile;

	$standby->stop('immediate');
	$standby->start;
	sql('INSERT INTO t VALUES (0)');
	wait_replayed($node, $standby);
	rows($standby, 'standby: rows after a crash');
	unlike(slurp_file($standby->logfile, $from), $asked,
		'standby: no key is asked for');
	$standby->stop;
	return;
}

# All can begin anew.
sql('DROP EXTENSION pg_tde');
tde_setup($node);
sql('ALTER TABLE t SET ACCESS METHOD tde_heap');
$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = on');
$node->restart;
tde_crash($node);
$node->start;
rows($node, 'encrypted again');
$node->stop;

#
# WAL was never encrypted: the default key takes the server's along, that it
# brought.  This is also what can be done when the key is gone already.
#
$node = life_node('default', allows_streaming => 1);
$node->start;
tde_setup($node);
sql('CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 100) g');
sql('ALTER TABLE t SET ACCESS METHOD heap; CHECKPOINT');
my $ring = tde_keyring($node);
rename($ring, "$ring.away") or die;
my $from = -s $node->logfile;
$node->restart;
rows($node, 'nothing encrypted, the key is gone: the server starts');
unlike(slurp_file($node->logfile, $from), qr/WARNING/, '... without a warning');
tde_crash($node);
$node->start;
rows($node, '... and after a crash');
fails_sql('CREATE TABLE u (a int) USING tde_heap');
like($err, qr/ERROR:  .*scope keys of database \d+ are not available\nDETAIL:  .*principal key "default"/s,
	'... but nothing can be encrypted');
fails_sql('SELECT pg_tde_delete_default_key()');
like($err,
	qr/NOTICE:  principal key "default" of key provider "ring" is not the server key any more, either/,
	'the default key takes the server key along');
is( sql('SELECT d.key_name, s.key_name FROM pg_tde_default_key_info() d, pg_tde_server_key_info() s'),
	'|', '... both are gone');
needs_no_key($node, 'default');
sql(qq{SELECT pg_tde_add_global_key_provider_file('new', '$ring.new');
	SELECT pg_tde_create_key_using_global_key_provider('new', 'new');
	SELECT pg_tde_set_default_key_using_global_key_provider('new', 'new')});
sql('ALTER TABLE t SET ACCESS METHOD tde_heap');
$node->restart;
rows($node, 'another key in place of the one that was lost');
$node->stop;

#
# The way of those who know pg_tde: they take no key away.
#
$node = encrypted_node('peer');
sql('ALTER TABLE t SET ACCESS METHOD heap');
$node->append_conf('postgresql.conf', 'pg_tde.wal_encrypt = off');
$node->restart;
sql('DROP EXTENSION pg_tde CASCADE');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
unlink tde_keyring($node) or die;
needs_no_key($node, 'peer');
$node->stop;

#
# A database with nothing encrypted is not waited for, until replay brings its
# first key.
#
$node = life_node('late', allows_streaming => 1);
$node->start;
tde_setup($node);
$ring = tde_keyring($node) . '.late';
sql(qq{SELECT pg_tde_add_global_key_provider_file('late', '$ring');
	SELECT pg_tde_create_key_using_global_key_provider('late', 'late')});
sql('CREATE DATABASE late');
$node->safe_psql('late', q{CREATE EXTENSION pg_tde;
	SELECT pg_tde_set_key_using_global_key_provider('late', 'late')});
$node->backup('late');
my $replica = PostgreSQL::Test::Cluster->new('replica');
$replica->init_from_backup($node, 'late', has_streaming => 1);
$node->safe_psql('late',
	'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 100) g');
rename($ring, "$ring.away") or die;
$replica->append_conf('postgresql.conf', 'pg_tde.key_wait_timeout = 1s');
$replica->start;
$replica->wait_for_log(
	qr/waiting for key provider "late" to return principal key "late".*CONTEXT:  WAL redo at \S+ for TDE\/KEYS/s);
sleep 3;
is($replica->safe_psql('postgres', 'SELECT 1'),
	'1', 'a standby waits for the key of what it replays, and serves queries');
rename("$ring.away", $ring) or die;
wait_replayed($node, $replica);
is($replica->safe_psql('late', 'SELECT sum(g) FROM t'),
	'5050', '... and goes on when it has it');
$replica->stop;
$node->stop;

done_testing();
