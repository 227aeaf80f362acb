# Copyright (c) 2026, the Coffer authors

# The principal keys of a database, of the server and of all databases move
# from a file to a KMS, from there to each other kind of KMS that is here, and
# back, while transactions run; at each step the KMS fails first, in each way
# that it can.  A failure leaves everything as it was,
# and usable; nobody waits but who asked for the step.

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

# PyKMIP is a package; the others are used where they have been built.
my @kinds = grep { !TdeKms->missing($_) } qw(vault cosmian pykmip);
plan skip_all => join '; ', TdeKms->missing(qw(vault cosmian pykmip))
  unless @kinds;

my $node = tde_node('main');
$node->start;
my $ring = tde_keyring($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

tde_setup($node);
sql('CREATE DATABASE follower');
$node->safe_psql('follower', 'CREATE EXTENSION pg_tde;
	CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g');
sql(qq{
	SELECT pg_tde_add_database_key_provider_file('file', '$ring.db');
	SELECT pg_tde_create_key_using_database_key_provider('first', 'file');
	SELECT pg_tde_set_key_using_database_key_provider('first', 'file');
	CREATE TABLE t USING tde_heap AS SELECT g FROM generate_series(1, 1000) g;
	CREATE TABLE traffic (a bigserial PRIMARY KEY, b text) USING tde_heap;});

# Traffic makes and drops tables all the time, and recovery does all that again.
$ENV{PGCTLTIMEOUT} = $PostgreSQL::Test::Utils::timeout_default;

note 'traffic';

my $script = PostgreSQL::Test::Utils::tempdir . '/traffic.sql';
append_to_file($script, q{
INSERT INTO traffic (b) VALUES (repeat('x', 500));
UPDATE traffic SET b = 'y' WHERE a = (SELECT max(a) / 2 FROM traffic);
CREATE TABLE IF NOT EXISTS made_:client_id USING tde_heap AS SELECT 1 AS a;
DROP TABLE made_:client_id;
\sleep 20 ms
});
my @pgbench = (
	'pgbench', '--no-vacuum', '--client=2', '--time=100000',
	"--file=$script", '--host' => $node->host, '--port' => $node->port,
	'postgres');
my ($traffic, $traffic_err);

sub begin_traffic
{
	$traffic_err = '';
	$traffic =
	  IPC::Run::start(\@pgbench, '>' => '/dev/null', '2>' => \$traffic_err);
	return;
}

# To be called after the end of the server, or of pgbench.
sub end_traffic
{
	my ($what) = @_;
	$traffic->finish;
	unlike($traffic_err, qr/ERROR: /, "$what: no transaction has failed");
	return;
}

begin_traffic();

# Does it go on?
sub traffic_goes_on
{
	my ($what) = @_;
	my $was = sql('SELECT coalesce(max(a), 0) FROM traffic');

	ok( $node->poll_query_until('postgres',
			"SELECT max(a) > $was + 10 FROM traffic"),
		"$what: transactions go on");
	return;
}

# The scopes: where, and what is called to make, to set, to look at and to
# verify a key.  "P" is the provider, "K" the key.
my %scopes = (
	database => {
		create => q{SELECT pg_tde_create_key_using_database_key_provider('K', 'P')},
		set => q{SELECT pg_tde_set_key_using_database_key_provider('K', 'P')},
		show => 'SELECT provider_name, key_name FROM pg_tde_key_info()',
		verify => 'SELECT pg_tde_verify_key()',
		file => 'file'
	},
	server => {
		create => q{SELECT pg_tde_create_key_using_global_key_provider('K', 'P')},
		set => q{SELECT pg_tde_set_server_key_using_global_key_provider('K', 'P')},
		show => 'SELECT provider_name, key_name FROM pg_tde_server_key_info()',
		verify => 'SELECT pg_tde_verify_server_key()',
		file => 'ring'
	},
	default => {
		create => q{SELECT pg_tde_create_key_using_global_key_provider('K', 'P')},
		set => q{SELECT pg_tde_set_default_key_using_global_key_provider('K', 'P')},
		show => 'SELECT provider_name, key_name FROM pg_tde_default_key_info()',
		verify => 'SELECT pg_tde_verify_default_key()',
		file => 'ring'
	});

sub statement
{
	my ($scope, $which, $provider, $key) = @_;
	return $scopes{$scope}{$which} =~ s/'K'/'$key'/r =~ s/'P'/'$provider'/r;
}

sub tables_are_right
{
	my ($what) = @_;
	is($node->safe_psql($_, 'SELECT count(*), sum(g) FROM t'),
		'1000|500500', "$what: tables of database $_")
	  foreach qw(postgres follower);
	$node->safe_psql('follower',
		'CREATE TABLE new (a int) USING tde_heap; DROP TABLE new');
	return;
}

# The ways in which a KMS fails: how it begins, and how it ends.
sub failures
{
	my ($kms) = @_;
	my %failures = (
		'gone' => [ sub { $kms->stop }, sub { $kms->start } ],
		'silent' => [ sub { $kms->pause }, sub { $kms->resume } ]);

	$failures{sealed} = [ sub { $kms->seal }, sub { $kms->unseal } ]
	  if $kms->{kind} eq 'vault';
	$failures{'without rights'} = [
		sub {
			rename $kms->{token}, "$kms->{token}.away";
			append_to_file($kms->{token}, 'hvs.nothing');
			chmod 0600, $kms->{token};
		},
		sub { rename "$kms->{token}.away", $kms->{token} }
	  ] if $kms->{kind} eq 'vault';
	return \%failures;
}

# A crash ends the traffic, which begins anew after it.
sub crash_and_start
{
	my ($what) = @_;

	tde_crash($node);
	end_traffic($what);
	$node->start;
	tables_are_right("$what, crash");
	begin_traffic();
	traffic_goes_on("$what, crash");
	return;
}

my $step = 0;

# One step of a move, which the KMS does not let succeed at first.
sub step
{
	my ($kms, $scope, $sql) = @_;
	my $failures = failures($kms);

	foreach my $failure (sort keys %$failures)
	{
		my $what = "$kms->{kind} $failure, $scope: $sql";
		my $before = sql($scopes{$scope}{show});
		my ($begin, $end) = @{ $failures->{$failure} };

		$begin->();
		my ($rc, $out, $err) =
		  $node->psql('postgres', "SET statement_timeout = '1500ms'; $sql");
		isnt($rc, 0, "$what: refused");
		like(
			$err,
			qr/ERROR:  (failed to retrieve principal key|could not create principal key|could not use key provider|canceling statement due to statement timeout)/,
			"$what: it is said why");
		is(sql($scopes{$scope}{show}), $before, "$what: nothing has changed");
		traffic_goes_on($what);
		tables_are_right($what);
		$end->();
	}

	# A silent KMS may have made the key for one who did not wait.
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	ok($rc == 0 || $err =~ /already exists/, "$kms->{kind}, $scope: $sql")
	  or diag($err);
	return;
}

sub delete_providers
{
	my ($kms) = @_;
	sql("SELECT pg_tde_delete_global_key_provider('$kms->{kind}');
		 SELECT pg_tde_delete_database_key_provider('$kms->{kind}')");
	return;
}

my $previous;

foreach my $kind (@kinds)
{
	my $kms = TdeKms->new($kind, PostgreSQL::Test::Utils::tempdir);
	$kms->start;

	step($kms, 'default', $kms->provider_sql($kind));
	step($kms, 'database', $kms->provider_sql($kind, 'database'));
	foreach my $scope (sort keys %scopes)
	{
		my $key = "$scope-" . ++$step;

		step($kms, $scope, statement($scope, 'create', $kind, $key));
		step($kms, $scope, statement($scope, 'set', $kind, $key));
		is(sql($scopes{$scope}{show}), "$kind|$key", "$kind, $scope: moved there");
		sql($scopes{$scope}{verify});
	}
	tables_are_right("$kind: all keys there");
	traffic_goes_on("$kind: all keys there");

	# Where they were before is not needed any more.
	if ($previous)
	{
		$previous->stop;
		delete_providers($previous);
	}
	$previous = $kms;

	# Every key has to come from there now.
	crash_and_start("$kind: all keys there");
}

# Back to the files, without the KMS: rotation needs the new provider only.
$previous->stop;
foreach my $scope (sort keys %scopes)
{
	my $key = "$scope-" . ++$step;
	my $file = $scopes{$scope}{file};

	sql(statement($scope, 'create', $file, $key));
	sql(statement($scope, 'set', $file, $key));
	is(sql($scopes{$scope}{show}), "$file|$key", "$scope: moved back");
	sql($scopes{$scope}{verify});
}
tables_are_right('keys are back');
traffic_goes_on('keys are back');
delete_providers($previous);
crash_and_start('keys are back');

$traffic->signal('TERM');
end_traffic('all');
$node->stop;
done_testing();
