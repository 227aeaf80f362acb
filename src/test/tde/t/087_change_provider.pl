# Copyright (c) 2026, the Coffer authors

# Changing and deleting a provider that many databases use: each key is asked
# for once, nobody waits meanwhile, a key that comes into use meanwhile is
# asked for too, and what cannot be known is not assumed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;
use Time::HiRes qw(time);

my $python = $ENV{PYTHON} || 'python3';
plan skip_all => "no \"$python\" to run the server"
  if system("$python -c 'import ssl' 2>/dev/null") != 0;

# A server that keeps keys, under "good"; under "late" it has the same ones,
# but takes its time.
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $server = IPC::Run::start(
	[ $python, "$FindBin::RealBin/../keyring/vault_server.py", $dir, 'plain' ],
	'<pipe', \*TO_SERVER);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e "$dir/ports";
	select(undef, undef, undef, 0.1);
}
my ($port) = slurp_file("$dir/ports") =~ /^plain (\d+)$/m;
append_to_file("$dir/token", "s.ThisIsTheTokenOfTheTest\n");
chmod 0600, "$dir/token";

sub requests { return -e "$dir/requests" ? slurp_file("$dir/requests") : '' }

my $node = tde_node('main');
$node->append_conf('postgresql.conf', "autovacuum = off\n");
$node->start;

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

sub vault
{
	my ($verb, $name, $mount) = @_;
	return "SELECT pg_tde_${verb}_global_key_provider_vault_v2('$name', "
	  . "'http://127.0.0.1:$port', '$mount', '$dir/token', '')";
}

sub fails
{
	my ($what, $sql, @patterns) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	isnt($rc, 0, "$what: refused");
	like($err, $_, $what) foreach @patterns;
	return;
}

tde_setup($node);
sql(vault('add', 'vault', 'good'));
sql("SELECT pg_tde_create_key_using_global_key_provider('$_', 'vault')")
  foreach qw(shared own-1 own-2 later);
sql(q{SELECT pg_tde_set_default_key_using_global_key_provider('shared', 'vault');
	  SELECT pg_tde_set_server_key_using_global_key_provider('shared', 'vault');
	  CREATE TABLE t (a int) USING tde_heap});
foreach my $n (1 .. 8)
{
	sql("CREATE DATABASE d$n");
	tde_setup($node, "d$n");
	sql("SELECT pg_tde_set_key_using_global_key_provider('own-$n', 'vault')", "d$n")
	  if $n <= 2;
	sql('CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 100) g', "d$n");
}

note 'once for each key';

{
	my $before = length requests();
	sql(vault('change', 'vault', 'good'));
	my $asked = substr(requests(), $before);
	is($asked =~ s/^GET \/v1\/sys\/internal\/ui\/mounts\/good .*\n//mr,
		join('', map { "GET /v1/good/data/$_ s.ThisIsTheTokenOfTheTest -\n" }
			  $asked =~ /data\/(\S+) /g), 'keys are asked for');
	is(join(' ', sort $asked =~ /data\/(\S+) /g), 'own-1 own-2 shared',
		'11 scopes use three keys: three questions');
}

note 'nobody waits';

my $change = {};
sub begin_change
{
	my ($mount) = @_;
	$change = { out => '', err => '' };
	my $asked = () = requests() =~ /^GET \/v1\/$mount\/data\//mg;
	$change->{run} = IPC::Run::start(
		[
			'psql', '--no-psqlrc', '--dbname' => $node->connstr('postgres'),
			'--command' => vault('change', 'vault', $mount)
		],
		'>' => \$change->{out},
		'2>' => \$change->{err});
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if (() = requests() =~ /^GET \/v1\/$mount\/data\//mg) > $asked;
		select(undef, undef, undef, 0.1);
	}
	return;
}

begin_change('late');
{
	my $start = time;
	sql('CREATE DATABASE d9');
	tde_setup($node, 'd9');
	sql('CREATE TABLE t (a int) USING tde_heap', 'd9');
	sql("SELECT pg_tde_set_key_using_global_key_provider('later', 'vault')", 'd9');
	sql("SELECT pg_tde_add_global_key_provider_file('ring2', '$dir/ring2')");
	ok($change->{run}->pumpable, 'the change is still waiting');
	note sprintf 'others took %.1f s', time - $start;
}
ok($change->{run}->finish, 'it succeeds') or diag($change->{err});
is(sql(q{SELECT options->>'mountPath' FROM pg_tde_list_all_global_key_providers() WHERE name = 'vault'}),
	'late', 'the provider is changed');
like(requests(), qr/^GET \/v1\/late\/data\/later /m, 'the key that came into use was asked for');

# Cancelled: nothing has changed.
my $list = sql('SELECT * FROM pg_tde_list_all_global_key_providers()');
{
	my $start = time;
	fails('cancelled', "SET statement_timeout = '500ms'; " . vault('change', 'vault', 'late'),
		qr/ERROR:  canceling statement due to statement timeout/);
	cmp_ok(time - $start, '<', 2, 'at once');
}
is(sql('SELECT * FROM pg_tde_list_all_global_key_providers()'), $list, 'nothing has changed');

note 'a key is set while its provider is changed, and does not have it any more';

sql(vault('add', 'spare', 'late'));
{
	my ($asked, $err) = ('', '');
	my $before = () = requests() =~ /^GET \/v1\/late\/data\/own-1 /mg;
	my $set = IPC::Run::start(
		[
			'psql', '--no-psqlrc', '--dbname' => $node->connstr('d5'), '--command' =>
			  q{SELECT pg_tde_set_key_using_global_key_provider('own-1', 'spare')}
		],
		'>' => \$asked,
		'2>' => \$err);
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if (() = requests() =~ /^GET \/v1\/late\/data\/own-1 /mg) > $before;
		select(undef, undef, undef, 0.1);
	}
	sql("SELECT pg_tde_change_global_key_provider_file('spare', '$dir/spare')");
	ok(!$set->finish, 'the key is not set');
	like($err, qr/ERROR:  failed to retrieve principal key "own-1" from key provider "spare"/, 'it is said why');
}
is(sql('SELECT key_name FROM pg_tde_key_info()', 'd5'), 'shared', 'the database has the key it had');
is(sql('SELECT pg_tde_verify_key()', 'd5'), '', 'which verifies');
sql(q{SELECT pg_tde_delete_global_key_provider('spare')});

note 'what cannot be known';

# A scope whose file is damaged: whose key it needs is not known.
my $oid = sql("SELECT oid FROM pg_database WHERE datname = 'd3'");
my $file = $node->data_dir . "/pg_tde/$oid/database_key.key";
my $good = slurp_bytes($file);
sub write_bytes
{
	my ($content) = @_;
	open(my $fh, '>:raw', $file) or die "could not open $file: $!";
	print $fh $content;
	close($fh);
	return;
}

write_bytes(substr($good, 0, 60));
fails('damaged', q{SELECT pg_tde_delete_global_key_provider('ring2')},
	qr/ERROR:  could not find out whether key provider "ring2" is in use/,
	qr/DETAIL:  Key file "pg_tde\/$oid\/database_key.key" cannot be used: /,
	qr/HINT:  Restore the file/);
unlink $file;
fails('missing', q{SELECT pg_tde_delete_global_key_provider('ring2')},
	qr/DETAIL:  Key file .* cannot be used: the file does not exist, but there are keys/);
{
	my ($rc, $out, $err) = $node->psql('postgres', vault('change', 'vault', 'good'));
	is($rc, 0, 'a change is possible: it can be undone');
	like($err, qr/WARNING:  could not find out whether key provider "vault" is in use/, 'with a warning');
}
write_bytes($good);
sql(q{SELECT pg_tde_delete_global_key_provider('ring2')});

note 'the program, and a server that starts meanwhile';

sub start_program
{
	my ($mount) = @_;
	my $asked = () = requests() =~ /^GET \/v1\/$mount\/data\//mg;

	$change = { out => '', err => '' };
	$change->{run} = IPC::Run::start(
		[
			'pg_tde_change_key_provider', '--pgdata' => $node->data_dir, 1664,
			'vault', 'vault-v2', "http://127.0.0.1:$port", $mount, "$dir/token"
		],
		'>' => \$change->{out},
		'2>' => \$change->{err});
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if (() = requests() =~ /^GET \/v1\/$mount\/data\//mg) > $asked;
		select(undef, undef, undef, 0.1);
	}
	return;
}
my $mount =
  q{SELECT options->>'mountPath' FROM pg_tde_list_all_global_key_providers() WHERE name = 'vault'};

$node->stop;
start_program('late');
$node->start;
ok(!$change->{run}->finish, 'started: the program fails');
like($change->{err}, qr/error: a server is running in this data directory \(PID \d+\)/,
	'started: and says why');
is(sql($mount), 'good', 'started: nothing was changed');

$node->stop;
start_program('late');
$node->start;
sql(vault('change', 'vault', 'good'));
$node->stop;
ok(!$change->{run}->finish, 'started and stopped: the program fails');
like($change->{err}, qr/error: the list of key providers was changed/,
	'started and stopped: and says why');

start_program('late');
ok($change->{run}->finish, 'not started: the program is done')
  or diag($change->{err});
$node->start;
is(sql($mount), 'late', 'not started: and has changed the provider');
sql(vault('change', 'vault', 'good'));

note 'all is well';

$node->restart;
is(sql('SELECT count(*) FROM t', "d$_"), 100, "database d$_") foreach 1 .. 8;
is(sql('SELECT pg_tde_verify_key()', "d$_"), '', "key of database d$_") foreach 1 .. 9;

$node->stop;
close(TO_SERVER);
$server->finish;
done_testing();
