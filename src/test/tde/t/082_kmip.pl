# Copyright (c) 2026, the Coffer authors

# Principal keys in real KMIP servers, through their whole life: set, used over
# restarts and crashes, rotated; servers that are silent or gone; certificates
# that are not right; and who waits for a server can be cancelled.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeKms;
use TdeTest;
use Test::More;
use Time::HiRes qw(time);

my ($kms, $node, $rows, $n);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Expect an error: its message and detail.
sub fails
{
	my ($what, $sql, @patterns) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	isnt($rc, 0, "$what: refused");
	like($err, $_, $what) foreach @patterns;
	return;
}

# All is well: what was written is there, and more can be written.
sub works
{
	my ($what) = @_;

	$n++;
	is( sql(qq{
		INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 100) g;
		CREATE TABLE t$n (a int) USING tde_heap;
		INSERT INTO t$n VALUES ($n);
		SELECT (SELECT count(*) FROM t) || ' ' || (SELECT a FROM t$n);}),
		($rows += 100) . " $n", "$what: tables can be used and made");
	return;
}

sub verifies
{
	my ($what) = @_;
	is(sql('SELECT pg_tde_verify_key(), pg_tde_verify_default_key(), pg_tde_verify_server_key()'),
		'||', "$what: the keys verify");
	return;
}

sub starts_without
{
	my ($what, @patterns) = @_;
	my $offset = -s $node->logfile;

	$node->start;
	my $log = slurp_file($node->logfile, $offset);
	like($log, $_, "$what: the log says why") foreach @patterns;
	fails("$what: a relation is used", 'SELECT count(*) FROM t',
		qr/ERROR:  encryption key of relation "[^"]+" is not available\nDETAIL:  The reason is: principal key "/);
	$node->stop;
	return;
}

# A call that waits for the server is cancelled, and the session goes on.
sub cancelled
{
	my ($what, $sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_until(qr/calling/, "\\echo calling\n$sql;\n");
	ok( $node->poll_query_until('postgres',
			"SELECT state = 'active' AND query LIKE '%pg_tde%' FROM pg_stat_activity WHERE pid = $pid"),
		"$what: it is under way");
	sleep 1;
	my $start = time;
	sql("SELECT pg_cancel_backend($pid)");
	$node->poll_query_until('postgres',
		"SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid");
	cmp_ok(time - $start, '<', 1.5, "$what: cancelled within a second");
	is($session->query('SELECT 7 * 6'), '42', "$what: the session goes on");
	like($session->{stderr}, qr/ERROR:  canceling statement due to user request/,
		"$what: and was told");
	$session->{stderr} = '';
	$session->quit;
	return;
}

sub life
{
	my ($kind) = @_;
	$kms = TdeKms->new($kind, PostgreSQL::Test::Utils::tempdir);
	$kms->start;
	my $server = "localhost:$kms->{port}";

	($rows, $n) = (0, 0);
	$node = tde_node($kind);
	$node->append_conf('postgresql.conf', "pg_tde.key_wait_timeout = 3s\n");
	$node->start;

	note "$kind: a key is set and used";

	sql('CREATE EXTENSION pg_tde');
	sql($kms->provider_sql('kms'));
	is( sql(q{SELECT name, type, options->>'host', options->>'port', options->>'certPath'
			FROM pg_tde_list_all_global_key_providers()}),
		"kms|kmip|localhost|$kms->{port}|$kms->{cert}", 'the provider is there');
	fails('a key that is not there',
		q{SELECT pg_tde_set_default_key_using_global_key_provider('key_01', 'kms')},
		qr/ERROR:  failed to retrieve principal key "key_01" from key provider "kms"/,
		qr/DETAIL:  KMIP server has no key with the name "key_01"/);
	sql(q{SELECT pg_tde_create_key_using_global_key_provider('key_01', 'kms')});
	fails('the same key again',
		q{SELECT pg_tde_create_key_using_global_key_provider('key_01', 'kms')},
		qr/ERROR:  principal key "key_01" already exists in key provider "kms"/);
	sql(q{
		SELECT pg_tde_set_server_key_using_global_key_provider('key_01', 'kms');
		SELECT pg_tde_set_default_key_using_global_key_provider('key_01', 'kms');
		CREATE TABLE t (a int, b text) USING tde_heap});
	works('first key');
	verifies('first key');

	$node->restart;
	works('restart');
	tde_crash($node);
	$node->start;
	works('crash');
	sql(q{
		SELECT pg_tde_create_key_using_global_key_provider('key 02', 'kms');
		SELECT pg_tde_set_default_key_using_global_key_provider('key 02', 'kms');
		SELECT pg_tde_set_server_key_using_global_key_provider('key 02', 'kms')});
	is(sql('SELECT key_name FROM pg_tde_key_info()'), 'key 02', 'rotated');
	works('rotation');
	tde_crash($node);
	$node->start;
	works('crash after rotation');
	verifies('crash after rotation');

	note 'a provider of a database';

	sql($kms->provider_sql('mine', 'database'));
	sql(q{
		SELECT pg_tde_create_key_using_database_key_provider('key 03', 'mine');
		SELECT pg_tde_set_key_using_database_key_provider('key 03', 'mine')});
	works('key of the database');
	$node->restart;
	works('key of the database, after a restart');
	sql('SELECT pg_tde_delete_key()');
	sql(q{SELECT pg_tde_delete_database_key_provider('mine')});
	works('back to the default key');

	note 'silent, and gone';

	$kms->pause;
	cancelled('verify', 'SELECT pg_tde_verify_key()');
	cancelled('add', $kms->provider_sql('another'));
	cancelled('create',
		q{SELECT pg_tde_create_key_using_global_key_provider('key_04', 'kms')});
	my $start = time;
	fails('silent', 'SELECT pg_tde_verify_key()',
		qr/ERROR:  failed to retrieve principal key "key 02" from key provider "kms"/,
		qr/DETAIL:  could not connect to KMIP server "$server": timeout expired/);
	cmp_ok(time - $start, '<', 12, 'and it ends by itself');
	works('silent');
	$kms->resume;
	verifies('no longer silent');

	$kms->stop;
	fails('gone', 'SELECT pg_tde_verify_key()',
		qr/ERROR:  failed to retrieve principal key "key 02" from key provider "kms"/,
		qr/DETAIL:  could not connect to KMIP server "$server": Connection refused/);
	fails('gone, add', $kms->provider_sql('another'),
		qr/ERROR:  could not use key provider "another": could not connect to KMIP server "$server"/,
		qr/DETAIL:  Connection refused/);
	works('gone');

	# A session can fail any number of times.
  SKIP:
	{
		skip 'no /proc to count descriptors in', 1 unless -d '/proc/self/fd';
		my $count = q{SELECT count(*) FROM pg_ls_dir('/proc/self/fd');};
		my ($rc, $out) = $node->psql('postgres',
			$count . 'SELECT pg_tde_verify_key();' x 20 . $count,
			on_error_stop => 0);
		my ($before, $after) = split /\n/, $out;
		cmp_ok($after, '<', $before + 10, 'no descriptors are left open');
	}
	sql('CHECKPOINT');
	$node->stop('immediate');
	starts_without('gone',
		qr/LOG: .*waiting for key provider "kms" to return principal key "key 02"/,
		qr/WARNING: .*failed to retrieve principal key "key 02" from key provider "kms"/,
		qr/DETAIL:  could not connect to KMIP server "$server": Connection refused/);
	$kms->start;
	$node->start;
	works('back');
	verifies('back');

	note 'certificates';

	fails('a CA that did not sign',
		$kms->provider_sql('kms', 'global', verb => 'change', ca => $kms->authority('wrong')),
		qr/ERROR:  could not use key provider "kms": SSL\/TLS certificate verification failed for KMIP server "$server"/,
		qr/DETAIL:  certificate verify failed: .*certificate/,
		qr/HINT:  Check the CA certificate file/);
	my ($cert, $key) = $kms->certificate('stranger', 'stranger', authority => 'wrong');
	fails('a client certificate that the server does not trust',
		$kms->provider_sql('kms', 'global', verb => 'change', cert => $cert, key => $key),
		qr/ERROR:  could not use key provider "kms": (KMIP server "$server" refused the client certificate|lost connection to KMIP server "$server")/);
	fails('a private key of another certificate',
		$kms->provider_sql('kms', 'global', verb => 'change', key => $key),
		qr/private key file "\Q$key\E" does not match client certificate file/);
	chmod 0644, $kms->{key};
	fails('a private key for all to read', 'SELECT pg_tde_verify_key()',
		qr/DETAIL:  private key file "\Q$kms->{key}\E" has group or world access/);
	chmod 0600, $kms->{key};

	# another user does not get at the key
	($cert, $key) = $kms->certificate('nobody', 'nobody');
	fails('a user without access to the keys',
		$kms->provider_sql('kms', 'global', verb => 'change', cert => $cert, key => $key),
		qr/ERROR:  key provider "kms" does not return principal key "key 02", which is in use/);
	verifies('nothing has changed');

	note 'several servers';

	sql($kms->provider_sql('kms', 'global', verb => 'change',
			host => "127.0.0.1:1, localhost:$kms->{port}"));
	verifies('the first server is down');
	$node->restart;
	works('the first server is down');

	note 'what is said of keys';

	my $log = slurp_file($node->logfile);
	unlike($log, qr/-----BEGIN|[0-9a-f]{64}/i, 'no keys in the log');

	$node->stop;
	$kms->stop;
	return;
}

foreach my $kind (qw(pykmip cosmian))
{
  SKIP:
	{
		my ($reason) = TdeKms->missing($kind);
		skip $reason, 1 if $reason;
		life($kind);
	}
}
done_testing();
