# Copyright (c) 2026, the Coffer authors

# A keyring file that is away, damaged or unsafe.  A running server does not
# need it, not even after a backend was killed; a start that replays WAL waits
# for it; the server comes up without, and says what is wrong with it; nothing is
# lost when it is back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', q{
autovacuum = off
restart_after_crash = on
});
$node->start;
tde_setup($node);

# A database that follows the default key, and one with a key of its own
$node->safe_psql('postgres', 'CREATE DATABASE own');
tde_setup($node, 'own');
my $keyring = tde_keyring($node);
my $own_ring = $node->basedir . '/own ring';
$node->safe_psql(
	'own', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$own_ring');
	SELECT pg_tde_create_key_using_database_key_provider('own key', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own key', 'own')});

my %rows;

sub rows
{
	my ($db) = @_;
	return $node->safe_psql($db,
		'SELECT count(*), sum(a), md5(string_agg(b, \'\' ORDER BY a)) FROM t');
}

foreach my $db ('postgres', 'own')
{
	$node->safe_psql(
		$db, qq{
		CREATE TABLE t (a serial PRIMARY KEY, b text) USING tde_heap;
		CREATE UNLOGGED TABLE u (b text) USING tde_heap;
		INSERT INTO t (b) SELECT '$canary' || g FROM generate_series(1, 5000) g;
		INSERT INTO u VALUES ('$canary');
		CHECKPOINT;
		UPDATE t SET b = b || 'x' WHERE a % 10 = 0});
	$rows{$db} = rows($db);
}

sub move_away { rename $_, "$_.away" or die foreach ($keyring, $own_ring); return; }
sub move_back { rename "$_.away", $_ or die foreach ($keyring, $own_ring); return; }

sub no_plaintext
{
	my ($what) = @_;
	my @found = grep { !m{^pg_wal/} } files_with($node->data_dir, $canary);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("@found", '', "$what: nothing in clear on disk");
	return;
}

#
# One backend killed
#
move_away();
my $from = -s $node->logfile;
foreach my $round (1, 2)
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query('SELECT pg_backend_pid()');
	my $offset = -s $node->logfile;
	like($pid, qr/^\d+$/, "round $round: victim runs");
	kill 'KILL', $pid;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	$session->{run}->finish;
	like(
		slurp_file($node->logfile, $offset),
		qr/terminated by signal 9.*all server processes terminated; reinitializing.*redo starts at/s,
		"round $round: the server was reinitialised and replayed WAL");

	foreach my $db ('postgres', 'own')
	{
		is(rows($db), $rows{$db}, "round $round: $db is read without the provider");
		is($node->safe_psql($db, 'SELECT count(*) FROM u'),
			0, "round $round: the unlogged table was reset");
		$node->safe_psql(
			$db, qq{
			INSERT INTO u VALUES ('$canary');
			INSERT INTO t (b) SELECT '$canary' FROM generate_series(1, 1000);
			CREATE TABLE t$round USING tde_heap AS TABLE t;
			VACUUM FULL t});
		$rows{$db} = rows($db);
		is($node->safe_psql($db, "SELECT count(*) FROM t$round"),
			5000 + 1000 * $round, "round $round: $db has a new table");
	}
}
unlike(slurp_file($node->logfile, $from), qr/waiting for key provider/,
	'nobody asked the provider');
no_plaintext('killed');

# What needs the provider says so, and the rest goes on.
my ($ret, $out, $err) = $node->psql('own', 'SELECT pg_tde_verify_key()');
like($err, qr/ERROR:.*own key.*DETAIL:  could not open keyring file "\Q$own_ring\E": No such file or directory/s,
	'verification needs the provider');
($ret, $out, $err) = $node->psql('own',
	q{SELECT pg_tde_set_key_using_database_key_provider('own key', 'own')});
like($err, qr/ERROR:.*"own key".*DETAIL:  could not open keyring file "\Q$own_ring\E": No such/s,
	'rotation needs the provider');
is(rows('own'), $rows{own}, 'and nothing is lost by a rotation that failed');

move_back();
$node->safe_psql('own', 'SELECT pg_tde_verify_key()');
$node->safe_psql('postgres', 'SELECT pg_tde_verify_key()');

#
# Started without after a crash: it waits, and goes on when the file is there
#
foreach my $round (1, 2)
{
	$node->stop('immediate');
	move_away();
	$from = -s $node->logfile;
	system_or_bail('pg_ctl', '--no-wait', '--pgdata', $node->data_dir,
		'--log', $node->logfile, 'start');
	$node->wait_for_log(
		qr/LOG:  waiting for key provider "(ring|own)" to return principal key "[^"]+"\n.*DETAIL:  could not open keyring file "[^"]+": No such file or directory/,
		$from);
	move_back();
	$node->wait_for_log(qr/database system is ready to accept connections/, $from);
	$node->_update_pid(1);
	is(rows($_), $rows{$_}, "crash $round, started before its keyring: $_")
	  foreach ('postgres', 'own');
}

#
# Started with one that will not do: it says why, and does without
#
sub refuses
{
	my ($what, $message, $hint) = @_;

	$from = -s $node->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->start;
	my $log = slurp_file($node->logfile, $from);
	like($log, qr/WARNING:  failed to retrieve principal key "default" from key provider "ring"\n.*DETAIL:  $message\n/,
		"$what: provider, key and cause");
	like($log, qr/HINT:  $hint/, "$what: hint") if $hint;
	unlike($log, qr/PANIC|TRAP:|terminated by signal/, "$what: no other death");
	unlike($log, qr/waiting for key provider/, "$what: no vain wait");
	($ret, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM t');
	like($err, qr/ERROR:  encryption key of relation "[^"]+" is not available\nDETAIL:  The reason is: principal key "default" cannot be had from key provider "ring": /,
		"$what: using a relation is an error");
	is(rows('own'), $rows{own}, "$what: another database is read");
	$node->stop;
	return;
}

my $content = slurp_bytes($keyring);

sub write_keyring
{
	unlink $keyring;
	append_to_file($keyring, $_[0]);
	chmod 0600, $keyring or die;
	return;
}

$node->stop;
chmod 0644, $keyring or die;
refuses('readable by others',
	qr/keyring file "\Q$keyring\E" has group or world access/,
	qr/Permissions should be u=rw \(0600\) or less/);
write_keyring(substr $content, 0, 60);
refuses('truncated', qr/keyring file "\Q$keyring\E" is damaged: file is truncated/,
	qr/Restore the file from a backup/);
{
	my $flipped = $content;
	substr($flipped, 60, 1) ^= "\x01";
	write_keyring($flipped);
	refuses('a bit flipped', qr/keyring file "\Q$keyring\E" is damaged: line 2: [^\n]+/,
		qr/Restore the file from a backup/);
}
write_keyring('');
refuses('empty', qr/file "\Q$keyring\E" is not a valid keyring file: file is truncated/);

# Another keyring that has a key of that name
unlink $keyring or die;
my $stranger = tde_node('stranger');
$stranger->start;
tde_setup($stranger);
$stranger->stop;
write_keyring(slurp_bytes(tde_keyring($stranger)));
$from = -s $node->logfile;
$node->start;
like(
	slurp_file($node->logfile, $from),
	qr/WARNING:  principal key "default" from key provider "ring" is not the key that was in use\n.*DETAIL:  It does not open the scope keys in file "pg_tde\/[^"]+"/,
	'key of another cluster: said so');
($ret, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM t');
like($err, qr/DETAIL:  The reason is: principal key "default" from key provider "ring" is not the key that was in use\./,
	'key of another cluster: using a relation is an error');
$node->stop;

# A keyring without that key
unlink "$keyring.none";
$stranger->start;
$stranger->safe_psql('postgres', qq{
	SELECT pg_tde_add_global_key_provider_file('none', '$keyring.none');
	SELECT pg_tde_create_key_using_global_key_provider('something', 'none')});
$stranger->stop;
write_keyring(slurp_bytes("$keyring.none"));
refuses('key is not there', qr/key "default" does not exist in keyring file "\Q$keyring\E"/);

write_keyring($content);
$node->start;
is(rows($_), $rows{$_}, "keyring restored: $_") foreach ('postgres', 'own');

#
# The list of providers is lost.  Scopes say themselves where their principal
# keys are.
#
my $config = $node->data_dir . '/pg_tde/global/provider_config';
my $providers = slurp_bytes($config);
foreach my $case ([ 'missing', undef ],
	[ 'truncated', substr($providers, 0, length($providers) / 2) ],
	[ 'flipped', substr($providers, 0, 30) . chr(ord(substr($providers, 30, 1)) ^ 4) . substr($providers, 31) ])
{
	my ($what, $bytes) = @$case;

	$node->stop;
	unlink $config or die;
	append_to_file($config, $bytes) if defined $bytes;
	$from = -s $node->logfile;
	$node->start;
	like(slurp_file($node->logfile, $from),
		qr/WARNING:  [^\n]*key provider "ring" is not in the list of key providers/,
		"list of providers $what: said so");
	is(rows('postgres'), $rows{postgres}, "list of providers $what: readable");
	unlink $config;
	append_to_file($config, $providers);
	$node->restart;
	is(rows('postgres'), $rows{postgres}, "list of providers $what: restored");
}
$node->stop;
no_plaintext('at the end');

# No key in any log
my ($hex) = $content =~ /^key default \S+ ([0-9a-f]+) /m;
isnt(index($content, $hex), -1, 'there is a key to look for');
is(join(' ', files_with($node->data_dir, $hex, pack('H*', $hex))), '',
	'principal key is nowhere in the data directory');
is(index(slurp_bytes($node->logfile), $hex), -1, 'nor in the log');

done_testing();
