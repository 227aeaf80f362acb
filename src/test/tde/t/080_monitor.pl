# Copyright (c) 2026, the Coffer authors

# What the server tells of keys and providers: the line in the log for each
# access to a principal key, counters of calls that fail, the progress of a
# rotation, and views that stay readable when files are damaged.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', qq{
autovacuum = off
pg_tde.key_wait_timeout = 3s
restart_after_crash = on
});
$node->start;
my $ring = tde_keyring($node);
my $from;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The lines about principal keys since the last call
sub accesses
{
	my @lines = slurp_file($node->logfile, $from) =~
	  /^\d{4}-[^\n]*? LOG:  principal key access: (.*)/mg;
	$from = -s $node->logfile;
	return @lines;
}
$from = -s $node->logfile;

#
# The log
#
sql('CREATE EXTENSION pg_tde');
sql("SELECT pg_tde_add_global_key_provider_file('ring', '$ring')");
my @lines = accesses();
is(scalar @lines, 2, 'a provider is added: a line for the call, one for the change');
like(
	$lines[1],
	qr/^operation=add_provider provider="ring" provider_id=-1 type=file options="\{\\x22path\\x22 : \\x22\Q$ring\E\\x22\}" outcome=success process=/,
	'with its options');
like(
	$lines[0],
	qr/^operation=validate provider="ring" provider_id=0 type=file outcome=success time=[0-9.]+ process="client backend" user="[^"]+" role="[^"]+" database="postgres" client="\[local\]" application="[^"]+"$/,
	'with who, where and how');

sql("SELECT pg_tde_create_key_using_global_key_provider('k1', 'ring')");
@lines = accesses();
is(scalar @lines, 1, 'a key is created: one line');
like($lines[0],
	qr/^operation=create key="k1" provider="ring" provider_id=-1 type=file outcome=success/,
	'of that key');

sql("SELECT pg_tde_set_default_key_using_global_key_provider('k1', 'ring')");
@lines = accesses();
is(join("\n", grep { !/^operation=fetch key="k1" .* outcome=success/ } @lines) =~
	  s/ process=.*//gr,
	qq{operation=set scope=default key="k1" provider="ring" provider_id=-1 outcome=success\n}
	  . qq{operation=set scope=server key="k1" provider="ring" provider_id=-1 outcome=success},
	'the default key is set, and the server key with it');
cmp_ok(scalar @lines, '>', 2, 'which were fetched for that');

# who acts as somebody else is known as both
sql('CREATE ROLE officer SUPERUSER');
sql("SET ROLE officer; SELECT pg_tde_verify_default_key()");
@lines = accesses();
is(scalar @lines, 1, 'a key is verified: one line');
like($lines[0], qr/^operation=fetch .* user="(?!officer)[^"]+" role="officer"/,
	'with the role that the user took');

# failures
my ($ret, $stdout, $stderr) = $node->psql('postgres',
	"SELECT pg_tde_set_default_key_using_global_key_provider('nosuch', 'ring')");
isnt($ret, 0, 'a key that is not there cannot be set');
@lines = accesses();
is(scalar @lines, 2, 'a line for the call, one for the refusal');
like($lines[0], qr/^operation=fetch key="nosuch" .* outcome=not_found/,
	'which says so');
like(
	$lines[1],
	qr/^operation=set function="pg_tde_set_default_key_using_global_key_provider" outcome=failed sqlstate=[0-9A-Z]{5} reason="[^"]*nosuch[^"]*" process="client backend" user="[^"]+" role=/,
	'... and who tried it');

# a name cannot forge a line
$node->psql('postgres',
	qq{SELECT pg_tde_create_key_using_global_key_provider(E'x" outcome=success\\nLOG:  principal key access: y', 'ring')});
@lines = accesses();
is(scalar @lines, 1, 'a name with a line break: one line');
like($lines[0], qr/^operation=create key="x\\x22 outcome=success\\x0aLOG:/,
	'in which quotes and line breaks are escaped');

# no session silences it
$node->safe_psql('postgres', q{
	SET log_min_messages = panic;
	SELECT pg_tde_verify_default_key();
	SHOW log_min_messages});
@lines = accesses();
is(scalar @lines, 1, 'a line in a session with log_min_messages = panic');

# providers: what was, and what is
sql("SELECT pg_tde_add_database_key_provider_file('own', '$ring.own')");
accesses();
sql("SELECT pg_tde_change_database_key_provider_file('own', '$ring.other')");
@lines = accesses();
like($lines[-1],
	qr/^operation=change_provider database_oid=\d+ provider="own" provider_id=1 type=file options="[^"]*\Q$ring\E\.other[^"]*" old_type=file old_options="[^"]*\Q$ring\E\.own[^"]*" outcome=success process=/,
	'a provider is changed');
sql("SELECT pg_tde_delete_database_key_provider('own')");
@lines = accesses();
is(scalar @lines, 1, 'a provider is deleted: one line');
like($lines[0],
	qr/^operation=delete_provider database_oid=\d+ provider="own" provider_id=1 type=file options="[^"]*\Q$ring\E\.other[^"]*" outcome=success process=/,
	'with what it was');

# who may not is recorded
sql('CREATE ROLE clerk; GRANT EXECUTE ON FUNCTION pg_tde_delete_global_key_provider(text) TO clerk');
$node->psql('postgres', "SET ROLE clerk; SELECT pg_tde_delete_global_key_provider('ring')");
@lines = accesses();
is(scalar @lines, 1, 'a function is refused: one line');
like($lines[0],
	qr/^operation=delete_provider function="pg_tde_delete_global_key_provider" outcome=denied sqlstate=42501 reason="[^"]+" process="client backend" user="[^"]+" role="clerk"/,
	'which says to whom');

# a token in place of its file's path
foreach my $call (
	q{SELECT pg_tde_add_global_key_provider_vault_v2('v', 'https://127.0.0.1:1', 'm', 'hvs.canary', NULL)},
	q{DO $$BEGIN PERFORM pg_tde_add_global_key_provider('vault-v2', 'v',
		'{"url": "https://127.0.0.1:1", "mountPath": "m", "tokenPath": "hvs.canary"}'); END$$})
{
	my $start = -s $node->logfile;
	my ($code, $out, $err) =
	  $node->psql('postgres', "SET log_statement = none; $call");
	like($err, qr/option "tokenPath" .* is not an absolute path/, 'a token is no path');
	my $written = slurp_file($node->logfile, $start);
	like($written, qr/is not an absolute path/, '... which is logged');
	unlike($written, qr/canary/, '... without the statement');
}
accesses();

# no key material: the keyring file has it in clear
my $keyring = slurp_bytes($ring);
my @secrets = $keyring =~ /([0-9a-fA-F]{32,})/g;
my $log = slurp_file($node->logfile);
is(scalar(grep { index($log, $_) >= 0 } @secrets), 0, 'no key is in the log');

# it can be turned off, but not by a session
($ret, $stdout, $stderr) = $node->psql('postgres', 'SET pg_tde.log_key_access = off');
like($stderr, qr/cannot be changed now/, 'no session turns it off');
$node->append_conf('postgresql.conf', 'pg_tde.log_key_access = off');
$node->reload;
ok($node->poll_query_until('postgres', "SHOW pg_tde.log_key_access", 'off'),
	'turned off');
$from = -s $node->logfile;
sql('SELECT pg_tde_verify_default_key()');
is(scalar(accesses()), 0, 'no line then');
$node->append_conf('postgresql.conf', 'pg_tde.log_key_access = on');

# the start
$node->restart;
@lines = accesses();
is(scalar(grep { /process="startup"/ } @lines), 1, 'a start fetches the key once');

#
# Counters
#
my $calls = q{SELECT calls || '/' || failures FROM pg_stat_tde_providers
	WHERE provider_name = 'ring' AND operation = };
is(sql($calls . "'fetch'"), '1/0', 'the fetch of the start is counted');
rename $ring, "$ring.away" or die;
($ret, $stdout, $stderr) = $node->psql('postgres', 'SELECT pg_tde_verify_default_key()');
isnt($ret, 0, 'the provider is away');
is(sql($calls . "'fetch'"), '2/1', 'a failure is counted');
like(
	sql(q{SELECT last_error FROM pg_stat_tde_providers
		WHERE provider_name = 'ring' AND operation = 'fetch'}),
	qr/\Q$ring\E/,
	'and kept');
is( sql(q{SELECT last_failure > last_success FROM pg_stat_tde_providers
		WHERE provider_name = 'ring' AND operation = 'fetch'}),
	't', 'with its time');

# a start that waits asks again and again; one line is enough
$node->stop('immediate');
$from = -s $node->logfile;
$node->start;
@lines = grep { /outcome=(?!success)/ } accesses();
is(scalar @lines, 1, 'one line, however long it waited');
is( sql(q{SELECT bool_or(available), count(*) > 0 FROM pg_tde_principal_keys
		WHERE problem LIKE 'principal key "k1" cannot be had from key provider "ring": could not open keyring file %'}),
	'f|t', 'the view says what is not available, and why');
rename "$ring.away", $ring or die;
$node->restart;

#
# Progress of a rotation
#
SKIP:
{
	skip 'Injection points not supported by this build', 5
	  unless $ENV{enable_injection_points} eq 'yes';

	sql('CREATE EXTENSION injection_points');
	sql("CREATE TABLE t (a int) USING tde_heap");
	sql("SELECT pg_tde_create_key_using_global_key_provider('k2', 'ring')");
	is(sql('SELECT count(*) FROM pg_stat_progress_tde_rotation'), '0',
		'no rotation');

	sql("SELECT injection_points_attach('tde-scopes-written', 'wait')");
	my $rotation = $node->background_psql('postgres');
	my $pid = $rotation->query_safe('SELECT pg_backend_pid()');
	# a rotation says what it moved
	$rotation->query_safe('SET client_min_messages = warning');
	$rotation->query_until(qr/begin/,
		q{\echo begin
		SELECT pg_tde_set_default_key_using_global_key_provider('k2', 'ring');
		});
	$node->wait_for_event('client backend', 'tde-scopes-written');
	is( sql(q{SELECT pid, datname, scope, key_name, provider_name, phase,
			scopes_total, scopes_done, started < now() FROM pg_stat_progress_tde_rotation}),
		"$pid|postgres|default|k2|ring|writing files|3|3|t",
		'a rotation under way');
	sql("SELECT injection_points_detach('tde-scopes-written')");
	sql("SELECT injection_points_wakeup('tde-scopes-written')");
	$rotation->query_safe('SELECT 1');
	is(sql('SELECT count(*) FROM pg_stat_progress_tde_rotation'), '0',
		'no rotation after it');

	# one that fails, and one whose process is ended, leave nothing
	$node->psql('postgres',
		"SELECT pg_tde_set_default_key_using_global_key_provider('nosuch', 'ring')");
	is(sql('SELECT count(*) FROM pg_stat_progress_tde_rotation'), '0',
		'nor after one that failed');
	sql("SELECT pg_tde_create_key_using_global_key_provider('k3', 'ring')");
	sql("SELECT injection_points_attach('tde-scopes-written', 'wait')");
	$rotation->query_until(qr/begin/,
		q{\echo begin
		SELECT pg_tde_set_default_key_using_global_key_provider('k3', 'ring');
		});
	$node->wait_for_event('client backend', 'tde-scopes-written');
	sql("SELECT injection_points_detach('tde-scopes-written')");
	sql("SELECT pg_terminate_backend($pid)");
	sql("SELECT injection_points_wakeup('tde-scopes-written')");
	ok( $node->poll_query_until('postgres',
			"SELECT NOT EXISTS (SELECT FROM pg_stat_progress_tde_rotation)"),
		'nor after one whose process ended');
	# psql has ended by itself
	$rotation->{run}->finish;
}

#
# Damage is shown, and hides nothing else
#
sql('CREATE TABLE lost (a int) USING tde_heap');
sql('CREATE TABLE empty (a int) USING tde_heap');
sql('INSERT INTO lost VALUES (1)');
sql('CHECKPOINT');
my $data = $node->data_dir;
my $db = sql('SELECT oid FROM pg_database WHERE datname = current_database()');
foreach my $table ('lost', 'empty')
{
	my $file = sql("SELECT pg_relation_filenode('$table')");
	rename "$data/pg_tde/$db/$file.key", "$data/pg_tde/$db/$file.gone" or die;
}
is( sql(q{SELECT relname, encrypted, cipher IS NULL, problem LIKE 'Key file%'
		FROM pg_tde_relations WHERE problem IS NOT NULL ORDER BY 1}),
	"empty|t|t|t\nlost|t|t|t",
	'missing keys are shown');
is(sql('SELECT problems FROM pg_tde_database'), '2', 'and counted');

$node->safe_psql('postgres', 'CREATE DATABASE broken');
tde_setup($node, 'broken');
$node->safe_psql('broken', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('own', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own', 'own')});
my $broken = sql(q{SELECT oid FROM pg_database WHERE datname = 'broken'});
is(sql(q{SELECT count(*) FROM pg_tde_providers WHERE datname = 'broken'}),
	'1', 'the provider of another database is shown');
my %intact;
foreach my $file ('provider_config', 'database_key.key')
{
	$intact{$file} = slurp_bytes("$data/pg_tde/$broken/$file");
	open my $fh, '+<:raw', "$data/pg_tde/$broken/$file" or die;
	seek $fh, 10, 0;
	print $fh "\xff\xff";
	close $fh;
}
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT name FROM pg_tde_providers');
is($stdout, 'ring', 'a damaged list of providers hides no other');
like($stderr, qr{WARNING:.*pg_tde/$broken/provider_config}, 'and is named');
is( sql(q{SELECT scope, key_name IS NULL, problem LIKE '%database_key.key%'
		FROM pg_tde_principal_keys WHERE datname = 'broken'}),
	'database|t|t',
	'a damaged key file is shown');
is(sql(q{SELECT count(*) FROM pg_tde_principal_keys WHERE scope = 'default'}),
	'1', 'and hides no other');

foreach my $file (keys %intact)
{
	open my $fh, '>:raw', "$data/pg_tde/$broken/$file" or die;
	print $fh $intact{$file};
	close $fh;
}

# A standby has what it got from its primary, and asks the provider itself
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_replay_catchup($standby);
like(slurp_file($standby->logfile),
	qr/principal key access: operation=fetch key="k\d" .* outcome=success .* process="startup"/,
	'a standby fetches the key');
is( $standby->safe_psql(
		'postgres', q{
		SELECT scope, key_name IS NOT NULL, available FROM pg_tde_principal_keys
		WHERE datname IS NULL ORDER BY scope}),
	"default|t|t\nserver|t|t",
	'and shows its keys');
foreach my $view (
	qw(pg_tde_providers pg_stat_tde_providers pg_tde_relations pg_tde_database
	pg_stat_tde_cache pg_tde_key_memory pg_stat_progress_tde_rotation))
{
	cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM $view"),
		'>=', $view =~ /progress/ ? 0 : 1, "$view on a standby");
}
$standby->safe_psql('postgres', 'SELECT pg_stat_tde_reset()');
$standby->stop;

# Counters begin anew after a crash; the views work on
$node->psql('postgres', "SELECT pg_tde_verify_default_key()");
my $victim = $node->background_psql('postgres');
my $victim_pid = $victim->query_safe('SELECT pg_backend_pid()');
kill 'KILL', $victim_pid;
$victim->quit;
$node->poll_query_until('postgres', undef, '') or die 'no restart';
ok($node->poll_query_until('postgres', $calls . "'fetch'", '0/0'),
	'counters begin anew after a crash');
is(sql(q{SELECT count(*) FROM pg_tde_principal_keys WHERE scope = 'default' AND available}),
	'1', 'keys are available after it');

$node->stop;
done_testing();
