# Copyright (c) 2026, the Coffer authors

# One database's lost key is that database's trouble: the server starts without
# it, the others do not notice, and the database can be repaired in SQL, or comes
# back by itself.  Where WAL cannot be replayed without the key, an operator can
# give the database up.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf(
	'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
pg_tde.key_wait_timeout = 1s
restart_after_crash = on
});
$node->start;
tde_setup($node);
$node->safe_psql('postgres', 'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');

# Databases with a key provider of their own each
my (%ring, %oid);
foreach my $db ('lost', 'other')
{
	$ring{$db} = $node->basedir . "/ring of $db";
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	tde_setup($node, $db);
	$node->safe_psql(
		$db, qq{
		SELECT pg_tde_add_database_key_provider_file('$db ring', '$ring{$db}');
		SELECT pg_tde_create_key_using_database_key_provider('$db key', '$db ring');
		SELECT pg_tde_set_key_using_database_key_provider('$db key', '$db ring');
		CREATE TABLE t (a serial PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO t (b) SELECT '$canary' || g FROM generate_series(1, 5000) g;
		CREATE TABLE plain AS SELECT 1 AS a;
		CREATE TABLE doomed (a text PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO doomed VALUES ('$canary', '$canary');
		CREATE UNLOGGED TABLE u (b text) USING tde_heap});
	$oid{$db} = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$db'");
}
my $cause = qr/principal key "lost key" cannot be had from key provider "lost ring": could not open keyring file "\Q$ring{lost}\E": No such file or directory/;

sub away { rename($ring{lost}, "$ring{lost}.away") or die "$!"; return; }
sub back { rename("$ring{lost}.away", $ring{lost}) or die "$!"; return; }

sub others_answer
{
	my ($what, $n) = @_;
	$n //= $node;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($n->safe_psql('postgres', 'SELECT sum(g) FROM t'), 500500, "$what: postgres");
	is($n->safe_psql('other', 'SELECT count(b) FROM t'), 5000, "$what: another database");
	return;
}

sub fails
{
	my ($n, $sql, $pattern, $what) = @_;
	my ($ret, $out, $err) = $n->psql('lost', $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($err, $pattern, $what);
	return;
}

sub view
{
	my ($n) = @_;
	return $n->safe_psql('postgres',
		q{SELECT available, problem FROM pg_tde_principal_keys WHERE datname = 'lost'});
}

#
# A clean start
#
is(view($node), 't|', 'the view: available');
$node->stop;
away();
my $from = -s $node->logfile;
$node->start;
my $log = slurp_file($node->logfile, $from);
unlike($log, qr/waiting for key provider/, 'a clean start does not wait');
like($log, qr/WARNING:  failed to retrieve principal key "lost key" from key provider "lost ring"\n.*DETAIL:  could not open keyring file "\Q$ring{lost}\E": No such file or directory\n(?:.*\n)*?.*CONTEXT:  while opening the keys of database $oid{lost}\n/,
	'provider, key, cause and database are in the log');
others_answer('clean start');

my $unavailable = qr/ERROR:  encryption key of relation "[^"]+" is not available\nDETAIL:  The reason is: $cause\.\nHINT:  When that is repaired, no restart is needed/;
fails($node, 'SELECT count(*) FROM t', $unavailable, 'reading');
fails($node, 'INSERT INTO t (b) VALUES (1)', $unavailable, 'writing');
fails($node, 'SELECT b FROM t WHERE a = 1', $unavailable, 'an index');
fails($node, 'VACUUM t', $unavailable, 'VACUUM');
fails($node, 'CREATE TABLE n (a int) USING tde_heap',
	qr/ERROR:  scope keys of database $oid{lost} are not available\nDETAIL:  The reason is: $cause\./,
	'a new relation');
fails($node, q{SELECT pg_tde_set_key_using_global_key_provider('default', 'ring')},
	qr/ERROR:  scope keys of database $oid{lost} are not available\nDETAIL:  The reason is: $cause\./,
	'rotation to another provider');
is($node->safe_psql('lost', 'SELECT a FROM plain'), 1, 'a plain table is read');
like(view($node), qr/^f\|$cause$/, 'the view: why');
$node->safe_psql('lost', 'DROP TABLE doomed; DROP TABLE u; CHECKPOINT');
is($node->safe_psql('lost', q{SELECT count(*) FROM pg_class WHERE relname IN ('doomed', 'u')}),
	0, 'DROP needs no key');

# Autovacuum, which has something to do everywhere
$node->append_conf(
	'postgresql.conf', q{
autovacuum_naptime = 1s
autovacuum_vacuum_insert_threshold = 0
autovacuum_vacuum_insert_scale_factor = 0
log_autovacuum_min_duration = 0
});
$node->adjust_conf('postgresql.conf', 'autovacuum', 'on');
$from = -s $node->logfile;
$node->safe_psql('lost', q{
	SELECT pg_stat_force_next_flush();
	INSERT INTO plain SELECT generate_series(1, 2000)});
$node->reload;
$node->wait_for_log(qr/automatic vacuum of table "lost\.public\.plain"/, $from);
unlike(slurp_file($node->logfile, $from), qr/ERROR/, 'autovacuum passes by without an error');
$node->adjust_conf('postgresql.conf', 'autovacuum', 'off');
$node->reload;

# A crash of one backend: no wait, and the same as before
$from = -s $node->logfile;
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $victim = $session->query('SELECT pg_backend_pid()');
like($victim, qr/^\d+$/, 'there is a victim');
kill 'KILL', $victim;
$node->wait_for_log(qr/database system is ready to accept connections/, $from);
$session->{run}->finish;
unlike(slurp_file($node->logfile, $from), qr/waiting for key provider|FATAL:  (?!terminating|the database)/,
	'a backend crashed: nobody waits');
others_answer('a backend crashed');
fails($node, 'SELECT count(*) FROM t', $unavailable, 'a backend crashed: still unavailable');

#
# Repaired in SQL: the keys have moved
#
my $elsewhere = $node->basedir . '/elsewhere';
copy_keyring("$ring{lost}.away", $elsewhere);
$node->safe_psql('lost',
	qq{SELECT pg_tde_change_database_key_provider_file('lost ring', '$elsewhere')});
is($node->safe_psql('lost', 'SELECT count(b) FROM t'), 5000, 'repaired in SQL');
is(view($node), 't|', 'the view: available again');
$node->safe_psql('lost', 'CREATE TABLE again USING tde_heap AS TABLE t');
back();
$node->safe_psql('lost',
	qq{SELECT pg_tde_change_database_key_provider_file('lost ring', '$ring{lost}')});

# It verifies the key
$node->stop;
away();
$node->start;
fails($node, 'SELECT count(*) FROM t', $unavailable, 'away again');
fails($node, 'SELECT pg_tde_verify_key()', qr/ERROR:  failed to retrieve principal key "lost key"/,
	'verification fails');
back();
$node->safe_psql('lost', 'SELECT pg_tde_verify_key()');
is($node->safe_psql('lost', 'SELECT count(b) FROM t'), 5000, 'back after verification');

# Nothing is done: the worker sees that it is back
$node->stop;
away();
$from = -s $node->logfile;
$node->start;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_tde key retry'}),
	1, 'a worker is there');
back();
$node->wait_for_log(qr/LOG:  keys of database $oid{lost} are available again/, $from);
is($node->safe_psql('lost', 'SELECT count(b) FROM t'), 5000, 'back by itself');
ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_tde key retry'}),
	'the worker has ended');

# A scope file that cannot be read, or is lost, is one database's trouble, too,
# and no restart is needed when it is back.
my $scope_file = $node->data_dir . "/pg_tde/$oid{lost}/database_key.key";
my $scope = slurp_bytes($scope_file);
foreach my $how ('damaged', 'missing')
{
	$node->stop;
	unlink $scope_file or die;
	append_to_file($scope_file, substr($scope, 0, 50)) if $how eq 'damaged';
	$node->start;
	others_answer($how);
	fails($node, 'SELECT count(*) FROM t',
		qr/DETAIL:  The reason is: key file "pg_tde\/$oid{lost}\/database_key\.key" cannot be used: /,
		"$how: the error says so");
	is($node->safe_psql('postgres',
			'SELECT count(*) FROM pg_tde_principal_keys WHERE NOT available'),
		1, "$how: the view shows it");
	unlink $scope_file;
	append_to_file($scope_file, $scope);
	$node->safe_psql('lost', 'SELECT pg_tde_verify_key()');
	is($node->safe_psql('lost', 'SELECT count(b) FROM t'),
		5000, "$how: rows are there when it is back");
}

#
# After a crash
#
$node->safe_psql('lost', 'CHECKPOINT');
$node->safe_psql('postgres', 'CREATE TABLE r USING tde_heap AS TABLE t');
tde_crash($node);
away();
$from = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $from),
	qr/LOG:  waiting for key provider "lost ring".*HINT:  The server goes on when the key provider returns the key, or without it after 1 s/s,
	'after a crash it waits');
others_answer('crash, the key is not needed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM r'), 1000, 'WAL was replayed');
back();
$node->safe_psql('lost', 'SELECT pg_tde_verify_key()');

my $backup_rows = 5000;
$node->backup('copy');
$node->safe_psql('lost', qq{
	INSERT INTO t (b) SELECT '$canary' || g FROM generate_series(1, 1000) g;
	UPDATE t SET b = b || 'x';
	CREATE TABLE late USING tde_heap AS TABLE t;
	CREATE INDEX ON late (a)});
tde_crash($node);
away();
$from = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'crash, the key is needed: no start');
my $needs = qr/FATAL:  encryption key of relation "[^"]+" is not available\n.*DETAIL:  The reason is: $cause\.\n.*HINT:  .*"pg_tde\.give_up_databases" set to '$oid{lost}'\./;
like(slurp_file($node->logfile, $from), $needs, 'it says why, and what can be done');

# Also where all there is of a page is its full image, which replay does not read
back();
$node->start;
$node->safe_psql('lost', 'CREATE TABLE image USING tde_heap AS SELECT 1 AS a; CHECKPOINT');
$node->safe_psql('lost', 'INSERT INTO image VALUES (2)');
tde_crash($node);
away();
$from = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'crash, full-page images: no start');
like(slurp_file($node->logfile, $from), $needs, '... nor later than that');
back();
$node->start;
is($node->safe_psql('lost', 'SELECT sum(a) FROM image'), 3, '... and nothing is lost');
tde_crash($node);

# Not given up where that is not necessary
$node->append_conf('postgresql.conf', "pg_tde.give_up_databases = '$oid{lost}'\n");
$from = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $from), qr/LOG:  database $oid{lost} is not given up/, 'the key is there: not given up');
is($node->safe_psql('lost', 'SELECT count(b) FROM late'), 6000, 'the key is there: all is there');

#
# Given up
#
$node->safe_psql('lost', qq{
	CHECKPOINT;
	UPDATE t SET b = b || 'y';
	DELETE FROM late WHERE a % 2 = 0;
	CREATE TABLE later USING tde_heap AS TABLE late;
	DROP TABLE again;
	VACUUM t});
tde_crash($node);
away();
$from = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $from),
	qr/WARNING:  giving up the encrypted relations of database $oid{lost}\n/, 'given up: the log says so');
others_answer('given up');
$node->adjust_conf('postgresql.conf', 'pg_tde.give_up_databases', "''");
my $given_up = qr/ERROR:  relation "[^"]+" is lost, because its database was given up in recovery/;
fails($node, "SELECT count(*) FROM $_", $given_up, "given up: $_") foreach ('t', 'late', 'later');
fails($node, 'SELECT b FROM t WHERE a = 1', $given_up, 'given up: with an index');
fails($node, 'CREATE TABLE n (a int) USING tde_heap', qr/scope keys of database $oid{lost} are not available/,
	'given up: no new relation');
is($node->safe_psql('lost', 'SELECT count(*) FROM plain'), 2001, 'given up: plain tables are replayed');
$node->restart;
others_answer('given up, restarted');
fails($node, 'SELECT count(*) FROM t', $given_up, 'given up, restarted: t');

# The key comes back: what was given up stays so, what is new is as ever
back();
$node->safe_psql('lost', 'SELECT pg_tde_verify_key()');
fails($node, 'SELECT count(*) FROM t', $given_up, 'given up: the key is back');
like(view($node), qr/^t\|relations made before .* were given up in recovery$/, 'given up: the view');
$node->safe_psql('lost', "DROP TABLE later; CREATE TABLE fresh (a int PRIMARY KEY, b text) USING tde_heap; INSERT INTO fresh VALUES (1, '$canary')");
tde_crash($node);
$node->start;
is($node->safe_psql('lost', 'SELECT a FROM fresh'), 1, 'given up: a new relation');
fails($node, 'SELECT count(*) FROM late', $given_up, 'given up: after another crash');
$node->safe_psql('lost', 'DROP TABLE t, late; CREATE TABLE t USING tde_heap AS SELECT 1 AS a');
is($node->safe_psql('lost', 'SELECT a FROM t'), 1, 'given up: made anew');
$node->restart;
is($node->safe_psql('lost', 'SELECT a FROM t'), 1, 'given up: made anew, restarted');
$node->stop;
is(join(' ', grep { !m{/pg_wal/|^pg_wal/} } files_with($node->data_dir, $canary)), '', 'nothing in clear');
isnt(join(' ', files_with($node->basedir, 'lost key')), '', 'and the search finds what is there');
$node->start;

#
# A standby
#
$node->safe_psql('lost', 'CREATE TABLE s USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');
$node->backup('second');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'second', has_streaming => 1);
my $theirs = $standby->basedir . '/theirs';
copy_keyring($ring{lost}, $theirs);
command_ok(
	[
		'pg_tde_change_key_provider', '--force', '-D', $standby->data_dir,
		$oid{lost}, 'lost ring', 'file', $theirs
	],
	'the standby has a keyring of its own');
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('lost', 'SELECT count(*) FROM s'), 1000, 'standby: reads');
$standby->stop;
rename($theirs, "$theirs.away") or die;
$node->safe_psql('lost', 'UPDATE s SET g = g + 1; CHECKPOINT; CREATE TABLE s2 USING tde_heap AS TABLE s');
$from = -s $standby->logfile;
system('pg_ctl', '--no-wait', '--pgdata' => $standby->data_dir, '--log' => $standby->logfile, 'start');
$standby->wait_for_log(qr/FATAL:  encryption key of relation "[^"]+" is not available\n.*DETAIL:  The reason is: .*"\Q$theirs\E"/, $from);
$standby->_update_pid(-1);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if !-e $standby->data_dir . '/postmaster.pid';
	select(undef, undef, undef, 0.1);
}
$standby->_update_pid(0);
# room for all that is replayed, so that a session could find it there
$standby->append_conf('postgresql.conf',
	"pg_tde.give_up_databases = '$oid{lost}'\nshared_buffers = 32MB\n");
$standby->start;
$node->safe_psql('lost', 'UPDATE s2 SET g = g + 1; DELETE FROM s WHERE g % 2 = 0; CREATE INDEX ON s2 (g); VACUUM s');
$node->safe_psql('postgres', 'INSERT INTO r VALUES (1)');
$node->wait_for_catchup($standby);
others_answer('standby: given up', $standby);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM r'), 1001, 'standby: replay goes on');
fails($standby, "SELECT count(*) FROM $_", $given_up, "standby: $_") foreach ('s', 's2');
$standby->restart;
rename("$theirs.away", $theirs) or die;
$standby->safe_psql('lost', 'SELECT pg_tde_verify_key()');
fails($standby, "SELECT count(*) FROM $_", $given_up, "standby, the key is back: $_") foreach ('s', 's2');
$node->safe_psql('lost', 'CREATE TABLE s3 USING tde_heap AS SELECT 1 AS a; UPDATE s2 SET g = g + 1');
$node->wait_for_catchup($standby);
is($standby->safe_psql('lost', 'SELECT a FROM s3'), 1, 'standby: what is made later');
$standby->promote;
others_answer('standby: promoted', $standby);
fails($standby, 'SELECT count(*) FROM s2', $given_up, 'standby: promoted');
$standby->safe_psql('lost', 'DROP TABLE s, s2; CHECKPOINT');
$standby->stop;
is(join(' ', grep { !m{^pg_wal/} } files_with($standby->data_dir, $canary)), '', 'standby: nothing in clear');

# One that is made later, under a key that the standby cannot have
$node->backup('third');
my $newer_ring = $node->basedir . '/newer ring';
$node->safe_psql('postgres', 'CREATE DATABASE newer');
tde_setup($node, 'newer');
$node->safe_psql(
	'newer', qq{
	SELECT pg_tde_add_database_key_provider_file('newer ring', '$newer_ring');
	SELECT pg_tde_create_key_using_database_key_provider('newer key', 'newer ring');
	SELECT pg_tde_set_key_using_database_key_provider('newer key', 'newer ring');
	CREATE TABLE t USING tde_heap AS SELECT '$canary' || g AS b FROM generate_series(1, 1000) g;
	UPDATE t SET b = b || 'x'});
rename($newer_ring, "$newer_ring.away") or die;
my $newer = $node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'newer'});
my $late = PostgreSQL::Test::Cluster->new('late');
$late->init_from_backup($node, 'third', has_streaming => 1);
$from = -s $late->logfile;
$late->start;
$late->wait_for_log(qr/waiting for key provider "newer ring" to return principal key "newer key"/, $from);
others_answer('made later: the standby waits', $late);
$late->append_conf('postgresql.conf', "pg_tde.give_up_databases = '$oid{other}, $newer'\n");
$late->restart;
$node->wait_for_catchup($late);
others_answer('made later: given up', $late);
my (undef, undef, $lost) = $late->psql('newer', 'SELECT count(*) FROM t');
like($lost, $given_up, 'made later: given up');
$late->stop;
is(join(' ', grep { !m{^pg_wal/} } files_with($late->data_dir, $canary)), '', 'made later: nothing in clear');
rename("$newer_ring.away", $newer_ring) or die;

#
# The server's own key
#
my $server_ring = $node->basedir . '/server ring';
$node->safe_psql(
	'postgres', qq{
	SELECT pg_tde_add_global_key_provider_file('server ring', '$server_ring');
	SELECT pg_tde_create_key_using_global_key_provider('server key', 'server ring');
	SELECT pg_tde_set_server_key_using_global_key_provider('server key', 'server ring')});
foreach my $how ('stop', 'crash')
{
	$how eq 'stop' ? $node->stop : tde_crash($node);
	rename($server_ring, "$server_ring.away") or die;
	$node->start;
	others_answer("server key away, $how");
	rename("$server_ring.away", $server_ring) or die;
	$node->safe_psql('postgres', 'SELECT pg_tde_verify_server_key()');
	is( $node->safe_psql('postgres', q{SELECT available FROM pg_tde_principal_keys WHERE scope = 'server'}),
		't', "server key away, $how: back");
}
$node->stop;
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
rename($server_ring, "$server_ring.away") or die;
$from = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'WAL is to be encrypted: no start');
my $server_cause = qr/principal key "server key" cannot be had from key provider "server ring": could not open keyring file "\Q$server_ring\E": No such file or directory/;
like(slurp_file($node->logfile, $from),
	qr/FATAL:  WAL cannot be encrypted: the server's scope key is not available\n.*DETAIL:  The reason is: $server_cause\./,
	'WAL is to be encrypted: key, provider and cause');
rename("$server_ring.away", $server_ring) or die;
$node->start;
others_answer('encrypted WAL');
$node->stop;
$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', 'off');
rename($server_ring, "$server_ring.away") or die;
$from = -s $node->logfile;
is($node->start(fail_ok => 1), 0, 'WAL is encrypted: no start');
like(slurp_file($node->logfile, $from), qr/FATAL:  .*$server_cause/, 'WAL is encrypted: key, provider and cause');
rename("$server_ring.away", $server_ring) or die;
$node->start;
others_answer('the end');
$node->stop;

done_testing();
