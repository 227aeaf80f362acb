# Copyright (c) 2026, the Coffer authors

# Setting another principal key, or changing the list of key providers, and a
# crash at each step of it: of the backend that does it, whereupon the server
# starts anew without asking any provider, of the whole server, and of the
# postmaster.  Every relation stays readable; either the change is complete or
# it has not happened, on the standby too; and CREATE TABLE goes on meanwhile.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf(
	'postgresql.conf', q{
wal_keep_size = 1GB
wal_writer_delay = 10s
restart_after_crash = on
});
$primary->start;
tde_setup($primary);
my $ring = tde_keyring($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }

# Database "own" has its own key and provider, the others follow the default.
my @databases = ('postgres', 'other', 'own');
sql('CREATE EXTENSION injection_points');
sql("CREATE DATABASE $_") foreach qw(other own);
tde_setup($primary, $_) foreach qw(other own);
$primary->safe_psql('own', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('k0', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('k0', 'own')});
foreach my $db (@databases)
{
	$primary->safe_psql($db,
		'CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g'
	);
}
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

my $n = 0;
my @meanwhile;

# What can be changed: statements that do it, the database to do it in, what
# shows whether it was done
my %changes = (
	default => {
		db => 'postgres',
		do => q{
			SELECT pg_tde_create_key_using_global_key_provider('kN', 'ring');
			SELECT pg_tde_set_default_key_using_global_key_provider('kN', 'ring')},
		show => q{SELECT key_name FROM pg_tde_default_key_info()}
	},
	database => {
		db => 'own',
		do => q{
			SELECT pg_tde_create_key_using_database_key_provider('kN', 'own');
			SELECT pg_tde_set_key_using_database_key_provider('kN', 'own')},
		show => q{SELECT key_name FROM pg_tde_key_info()}
	},
	server => {
		db => 'postgres',
		do => q{
			SELECT pg_tde_create_key_using_global_key_provider('kN', 'ring');
			SELECT pg_tde_set_server_key_using_global_key_provider('kN', 'ring')},
		show => q{SELECT key_name FROM pg_tde_server_key_info()}
	},
	providers => {
		db => 'own',
		do => qq{SELECT pg_tde_add_database_key_provider_file('kN', '$ring.kN')},
		show => q{SELECT max(name) FROM pg_tde_list_all_database_key_providers()
			WHERE name ~ '^k'}
	});

sub statements
{
	my ($change) = @_;
	return $change->{do} =~ s/kN/k$n/gr;
}

sub shown
{
	my ($node, $change) = @_;
	return $node->safe_psql($change->{db}, $change->{show});
}

sub check
{
	my ($label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_replayed($primary, $standby);
	foreach my $node ($primary, $standby)
	{
		my $on = "$label, on the " . $node->name;
		foreach my $db (@databases)
		{
			is( $node->safe_psql($db,
					join(' UNION ALL ', map { "SELECT sum(g) FROM $_" } 't', @meanwhile)),
				join("\n", '500500', (1) x @meanwhile),
				"$on: rows of $db");
			$node->safe_psql($db, 'SELECT pg_tde_verify_key()');
		}
		$node->safe_psql('postgres',
			'SELECT pg_tde_verify_default_key(), pg_tde_verify_server_key()');
	}
	is_deeply(
		[
			grep { !/\/\d+\.key$/ }
			  differing_files(key_files($standby), key_files($primary))
		],
		[],
		"$label: scopes and providers are the same on both nodes");
	return;
}

sub kill_backend
{
	my ($pid) = @_;
	my $offset = -s $primary->logfile;

	# No provider can be reached when the server starts anew.
	rename($_, "$_.away") or die foreach $ring, "$ring.own";
	kill 'KILL', $pid;
	$primary->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	$primary->poll_query_until('postgres', 'SELECT true');
	rename("$_.away", $_) or die foreach $ring, "$ring.own";
	return;
}

sub run_case
{
	my ($what, $point, $done, $how, $quiet) = @_;
	my $change = $changes{$what};
	my $label = "$what, $how at $point";

	$n++;
	my $before = shown($primary, $change);
	attach($primary, $point, 'wait');
	my $session =
	  parked($primary, $change->{db}, $point, statements($change));
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE wait_event = '$point'");

	# In every database a table is made, and read, meanwhile; or nothing
	# happens that would flush WAL.
	if (!$quiet)
	{
		$primary->safe_psql($_,
			"CREATE TABLE meanwhile_$n USING tde_heap AS SELECT 1 AS g")
		  foreach @databases;
		push @meanwhile, "meanwhile_$n";
		is( sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid"),
			$point, "$label: CREATE TABLE does not wait");
	}

	if ($how eq 'kill of the backend')
	{
		kill_backend($pid);
	}
	elsif ($how eq 'kill of the postmaster')
	{
		tde_crash($primary);
		$primary->start;
	}
	else
	{
		$primary->stop('immediate');
		$primary->start;
	}
	eval { $session->quit };

	my $expected = $done ? "k$n" : $before;
	wait_replayed($primary, $standby);
	is(shown($_, $change), $expected, "$label: outcome on the " . $_->name)
	  foreach $primary, $standby;
	check($label);

	# and again, to the end
	$n++;
	$primary->safe_psql($change->{db}, statements($change));
	is(shown($primary, $change), "k$n", "$label: done after that");
	return;
}

# the server has a key of its own from here on
$n++;
sql(statements($changes{server}));
check('at first');

# Whether a change is done depends on whether it had been logged.  Rotation of
# the default key concerns three scopes: its own and those of two databases.
run_case('default', 'tde-scopes-written', 0, 'crash');
run_case('default', 'tde-scopes-logged', 1, 'kill of the backend');
run_case('default', 'tde-scope-renamed', 1, 'crash');
run_case('default', 'tde-scopes-renamed', 1, 'kill of the backend');
run_case('default', 'tde-scope-renamed', 1, 'crash', 1);
run_case('database', 'tde-scopes-written', 0, 'kill of the backend');
run_case('database', 'tde-scopes-logged', 1, 'kill of the postmaster');
run_case('database', 'tde-scope-renamed', 1, 'kill of the backend');
run_case('server', 'tde-scopes-logged', 1, 'crash');
run_case('providers', 'tde-providers-written', 0, 'crash');
run_case('providers', 'tde-providers-logged', 1, 'kill of the backend');
run_case('providers', 'tde-providers-logged', 1, 'crash', 1);
check('in the end');

# A database begins to use the default key just when that is replaced.
$n++;
sql('CREATE DATABASE late');
$primary->safe_psql('late', 'CREATE EXTENSION pg_tde');
attach($primary, 'tde-scopes-written', 'wait');
my $session = parked($primary, 'postgres', 'tde-scopes-written',
	statements($changes{default}));
my $late = $primary->background_psql('late');
$late->query_until(qr/begun/,
	"\\echo begun\nCREATE TABLE t USING tde_heap AS SELECT 1 AS g;\n");
$primary->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'TdeKeyStore'})
  or die;
release($primary, 'tde-scopes-written');
$session->quit;
$late->quit;
is( $primary->safe_psql('late',
		'SELECT pg_tde_verify_key(); SELECT g, key_name FROM t, pg_tde_key_info()'),
	"\n1|k$n",
	'a database that waited for the rotation is under the new key');

is(join(' ', map { glob($_->data_dir . '/pg_tde/*/*.tmp') } $primary, $standby),
	'', 'no temporary file is left');
$standby->promote;
$standby->safe_psql($_, 'CREATE TABLE promoted USING tde_heap AS SELECT 2 AS g')
  foreach @databases;
is($standby->safe_psql($_, 'SELECT g FROM promoted'),
	'2', "a table made in $_ after promotion")
  foreach @databases;
$standby->stop;
$primary->stop;
done_testing();
