# Copyright (c) 2026, the Coffer authors

# Principal keys in a real Vault, through their whole life: set, used over
# restarts and crashes, rotated; and a Vault that is sealed, silent, gone, does
# not like the token, has lost the key or has another one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeKms;
use TdeTest;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => $_ foreach TdeKms->missing('vault');

my $vault = TdeKms->new('vault', PostgreSQL::Test::Utils::tempdir);
$vault->start;
my $url = $vault->{url};

my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', q{
pg_tde.key_wait_timeout = 3s
restart_after_crash = on
});
$node->start;

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
my $rows = 0;
my $n = 0;

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

note 'a key is set and used';

sql('CREATE EXTENSION pg_tde');
sql($vault->provider_sql('vault'));
is(sql('SELECT name, type FROM pg_tde_list_all_global_key_providers()'),
	'vault|vault-v2', 'the provider is there');
is( sql(q{SELECT options->>'url', options->>'tokenPath' FROM pg_tde_list_all_global_key_providers()}),
	"$url|$vault->{token}", 'with its options');
fails('a key that is not there',
	q{SELECT pg_tde_set_default_key_using_global_key_provider('key_01', 'vault')},
	qr/ERROR:  failed to retrieve principal key "key_01" from key provider "vault"/,
	qr/DETAIL:  key "key_01" does not exist on server "\Q$url\E" \("coffer\/data\/key_01"\)/);
sql(q{SELECT pg_tde_create_key_using_global_key_provider('key_01', 'vault')});
fails('the same key again',
	q{SELECT pg_tde_create_key_using_global_key_provider('key_01', 'vault')},
	qr/ERROR:  principal key "key_01" already exists in key provider "vault"/);
sql(q{SELECT pg_tde_set_default_key_using_global_key_provider('key_01', 'vault')});
sql('CREATE TABLE t (a int, b text) USING tde_heap');
works('first key');
verifies('first key');
like($vault->vault('kv', 'get', '-mount=coffer', '-field=key', 'key_01'),
	qr{^[A-Za-z0-9+/]{43}=\s*$}, 'what Vault holds');

$node->restart;
works('restart');
tde_crash($node);
$node->start;
works('crash');
sql(q{
	SELECT pg_tde_create_key_using_global_key_provider('folder/key_02', 'vault');
	SELECT pg_tde_set_default_key_using_global_key_provider('folder/key_02', 'vault');
});
is(sql('SELECT key_name FROM pg_tde_key_info()'), 'folder/key_02', 'rotated');
is(sql('SELECT key_name FROM pg_tde_server_key_info()'),
	'folder/key_02', 'the server key, too');
works('rotation');
verifies('rotation');
$vault->vault('kv', 'metadata', 'delete', '-mount=coffer', 'key_01');
$node->restart;
works('restart after rotation, old key destroyed');
tde_crash($node);
$node->start;
works('crash after rotation, old key destroyed');

note 'sealed';

$vault->seal;
fails('sealed', 'SELECT pg_tde_verify_key()',
	qr/ERROR:  failed to retrieve principal key "folder\/key_02" from key provider "vault"/,
	qr/DETAIL:  server "\Q$url\E" is sealed or down for maintenance: Vault is sealed/,
	qr/HINT:  Unseal the server/);
fails('sealed, create',
	q{SELECT pg_tde_create_key_using_global_key_provider('key_03', 'vault')},
	qr/ERROR:  could not create principal key "key_03" in key provider "vault"/,
	qr/is sealed/);
fails('sealed, add', $vault->provider_sql('second'),
	qr/ERROR:  could not use key provider "second"/, qr/is sealed/);
fails('sealed, change', $vault->provider_sql('vault', 'global', verb => 'change'),
	qr/ERROR:  could not use key provider "vault"/, qr/is sealed/);
works('sealed');

# A backend crashes: the keys survive it.
my $session = $node->background_psql('postgres');
kill('KILL', $session->query_safe('SELECT pg_backend_pid()'));
$session->{run}->finish;
$node->poll_query_until('postgres', 'SELECT true');
works('crash of a backend while sealed');

sql('CHECKPOINT');
$node->stop('immediate');
starts_without('sealed',
	qr/LOG: .*waiting for key provider "vault" to return principal key "folder\/key_02"/,
	qr/WARNING: .*failed to retrieve principal key "folder\/key_02" from key provider "vault"/,
	qr/DETAIL:  server "\Q$url\E" is sealed/);
$vault->unseal;
$node->start;
works('unsealed');
verifies('unsealed');

note 'silent, and gone';

$vault->pause;
my $start = time;
fails('silent', q{SET statement_timeout = '500ms'; SELECT pg_tde_verify_key()},
	qr/ERROR:  canceling statement due to statement timeout/);
cmp_ok(time - $start, '<', 2, 'a query that waits is cancelled within a second or so');
$start = time;
fails('silent', 'SELECT pg_tde_verify_key()',
	qr/DETAIL:  server "\Q$url\E" did not answer within 10000 ms/);
cmp_ok(time - $start, '<', 12, 'and ends by itself');
fails('silent, change',
	q{SET statement_timeout = '500ms'; } . $vault->provider_sql('vault', 'global', verb => 'change'),
	qr/ERROR:  canceling statement due to statement timeout/);
works('silent');
$vault->resume;
verifies('no longer silent');

$vault->stop;
fails('gone', 'SELECT pg_tde_verify_key()', qr/DETAIL:  could not connect to server "\Q$url\E": /);
works('gone');
$node->stop;
starts_without('gone', qr/WARNING: .*failed to retrieve principal key "folder\/key_02"/,
	qr/could not connect to server "\Q$url\E"/);
$vault->start;
$node->start;
works('back');
verifies('back');

note 'the token';

$vault->new_token('-ttl=1s', '-explicit-max-ttl=1s');
sleep 2;
fails('expired token', 'SELECT pg_tde_verify_key()',
	qr/ERROR:  failed to retrieve principal key "folder\/key_02" from key provider "vault"/,
	qr/DETAIL:  server "\Q$url\E" denies access to "coffer\/data\/folder\/key_02" with the token from file "\Q$vault->{token}\E": .*permission denied/,
	qr/HINT:  Check that the token has not expired/);
works('expired token');
$node->stop;
starts_without('expired token', qr/WARNING: .*failed to retrieve/, qr/denies access/);
$vault->new_token;
$node->start;
works('new token');
verifies('new token');
chmod 0644, $vault->{token};
fails('a token for all to read', 'SELECT pg_tde_verify_key()',
	qr/DETAIL:  token file "\Q$vault->{token}\E" has group or world access/, qr/HINT:  File must have/);
chmod 0600, $vault->{token};

note 'the key is deleted, destroyed, overwritten';

$vault->vault('kv', 'delete', '-mount=coffer', 'folder/key_02');
fails('deleted', 'SELECT pg_tde_verify_key()',
	qr/DETAIL:  newest version of key "folder\/key_02" is deleted on server/,
	qr/HINT:  Get it back with "vault kv undelete"/);
fails('deleted, create',
	q{SELECT pg_tde_create_key_using_global_key_provider('folder/key_02', 'vault')},
	qr/already exists/, qr/HINT:  A key of which only deleted versions/);
works('deleted');
$node->stop;
starts_without('deleted', qr/WARNING: .*failed to retrieve/, qr/is deleted on server/);
$vault->vault('kv', 'undelete', '-mount=coffer', '-versions=1', 'folder/key_02');
$node->start;
works('undeleted');
verifies('undeleted');

$vault->vault('kv', 'put', '-mount=coffer', 'folder/key_02',
	'key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=');
fails('overwritten', 'SELECT pg_tde_verify_key()',
	qr/ERROR:  principal key "folder\/key_02" from key provider "vault" is not the key in use/);
$node->stop;
starts_without('overwritten', qr/is not the key that was in use/);
$vault->vault('kv', 'rollback', '-mount=coffer', '-version=1', 'folder/key_02');
$node->start;
works('rolled back');
verifies('rolled back');

# A key that is destroyed is lost with the next restart: set another one.
$vault->vault('kv', 'metadata', 'delete', '-mount=coffer', 'folder/key_02');
fails('gone for good', 'SELECT pg_tde_verify_key()',
	qr/DETAIL:  key "folder\/key_02" does not exist on server/);
sql(q{
	SELECT pg_tde_create_key_using_global_key_provider('key_03', 'vault');
	SELECT pg_tde_set_default_key_using_global_key_provider('key_03', 'vault');
});
$node->restart;
works('another key in place of one that was lost');
verifies('another key in place of one that was lost');

note 'a provider is changed, and deleted, only where that loses nothing';

my $before = sql('SELECT * FROM pg_tde_list_all_global_key_providers()');
my $change = "SELECT pg_tde_change_global_key_provider_vault_v2('vault', ";
my $rest = "'$vault->{token}', '$vault->{ca}')";
my $ring = tde_keyring($node);

$vault->vault('secrets', 'enable', '-path=other', '-version=2', 'kv');
$vault->vault('secrets', 'enable', '-path=old', '-version=1', 'kv');
open(my $fh, '>', "$vault->{dir}/policy2.hcl") or die;
print $fh qq{path "$_/*" { capabilities = ["create", "read"] }\n} foreach qw(coffer other old);
close($fh);
$vault->vault('policy', 'write', 'coffer', "$vault->{dir}/policy2.hcl");

fails('no such engine', "$change '$url', 'nosuch', $rest",
	qr/ERROR:  could not use key provider "vault"/, qr/denies access to "nosuch"/);
fails('an engine of version 1', "$change '$url', 'old', $rest",
	qr/there is no KV secrets engine of version 2 at "old"/);
fails('an engine without the key', "$change '$url', 'other', $rest",
	qr/ERROR:  key provider "vault" does not return principal key "key_03", which is in use/,
	qr/DETAIL:  key "key_03" does not exist on server/);
$vault->vault('kv', 'put', '-mount=other', 'key_03',
	'key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=');
fails('an engine with another key', "$change '$url', 'other', $rest",
	qr/ERROR:  key provider "vault" returns another principal key "key_03" than the one in use/);
fails('a CA that did not sign', "$change '$url', 'coffer', '$vault->{token}', '"
	  . $vault->authority('wrong') . "')",
	qr/ERROR:  could not use key provider "vault"/,
	qr/DETAIL:  SSL\/TLS certificate verification failed for server "\Q$url\E": /);
fails('an empty keyring', "SELECT pg_tde_change_global_key_provider_file('vault', '$ring')",
	qr/does not return principal key "key_03"/);
is(sql('SELECT * FROM pg_tde_list_all_global_key_providers()'), $before, 'nothing has changed');
verifies('nothing has changed');

fails('in use', q{SELECT pg_tde_delete_global_key_provider('vault')},
	qr/ERROR:  cannot delete key provider "vault"/, qr/Principal key "key_03" is the server key/);

(my $url2 = $url) =~ s/localhost/127.0.0.1/;
sql("$change '$url2', 'coffer', $rest");
verifies('the same server by another name');
$vault->vault('kv', 'put', '-mount=other', 'key_03',
	'key=' . $vault->vault('kv', 'get', '-mount=coffer', '-field=key', 'key_03') =~ s/\s//gr);
sql("$change '$url', 'other', $rest");
verifies('keys that were copied to another engine');
$node->restart;
works('keys that were copied to another engine');

note 'a name is given once';

{
	my @makers = map {
		my %m = (out => '', err => '');
		$m{run} = IPC::Run::start(
			[
				'psql', '--no-psqlrc', '--dbname' => $node->connstr('postgres'), '--command' =>
				  q{SELECT pg_tde_create_key_using_global_key_provider('race', 'vault')}
			],
			'>' => \$m{out},
			'2>' => \$m{err});
		\%m;
	} 1 .. 5;
	my @made = grep { $_->{run}->finish } @makers;
	is(scalar @made, 1, 'one of several who make the same key makes it');
	like($_->{err}, qr/principal key "race" already exists/, 'the others are told')
	  foreach grep { $_->{err} ne '' } @makers;
}

note 'what is said of tokens and keys';

{
	my $token = slurp_file($vault->{token}) =~ s/\s//gr;
	my $key = $vault->vault('kv', 'get', '-mount=other', '-field=key', 'key_03') =~ s/\s//gr;
	my @needles = ($token, substr($key, 0, 40));
	is_deeply([ files_with($node->data_dir, @needles) ], [], 'nothing in the data directory');
	my $log = slurp_file($node->logfile);
	is(scalar(grep { index($log, $_) >= 0 } @needles), 0, 'nothing in the log');
	is_deeply([ files_with($vault->{dir}, $token) ], ['token'], 'the search finds what is there');
}

$node->stop;
$vault->stop;
done_testing();
