# Copyright (c) 2026, the Coffer authors

# Reports are written where there is a directory for them, hold no secrets, and
# are never more than they should be; without a directory the server just runs.

use strict;
use warnings FATAL => 'all';
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
my $dir = $node->basedir . '/reports';
my $log = $node->logfile;

# The line of a guide, and the default directory, which does not exist here
plan skip_all => 'default directory exists'
  if -e '/usr/local/percona/telemetry/pg';
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_tde,percona_pg_telemetry'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_tde');
is( $node->safe_psql(
		'postgres', q{
		SELECT name, setting, unit, context FROM pg_settings
		WHERE name LIKE 'percona%' ORDER BY name}),
	join("\n",
		'percona_pg_telemetry.enabled|on||sighup',
		'percona_pg_telemetry.files_to_keep|7||sighup',
		'percona_pg_telemetry.path|/usr/local/percona/telemetry/pg||sighup',
		'percona_pg_telemetry.scrape_interval|86400|s|sighup'),
	'settings');

sub wait_for
{
	my ($what, $test) = @_;
	for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return ok(1, $what) if $test->();
		usleep(100_000);
	}
	return ok(0, $what);
}

sub reports
{
	opendir(my $dh, $dir) or die "could not open $dir: $!";
	my @files = sort grep { !/^\.\.?$/ } readdir($dh);
	closedir($dh);
	return @files;
}

$node->wait_for_log(
	qr/LOG:  could not use directory "\/usr\/local\/percona\/telemetry\/pg", no telemetry is written: No such file or directory/);
pass('a missing directory is logged');

# Secrets in all the places where there are some
my $secret = 'Secret4711';
$node->append_conf(
	'postgresql.conf', qq{
percona_pg_telemetry.path = '$dir'
percona_pg_telemetry.scrape_interval = 1
percona_pg_telemetry.files_to_keep = 3
archive_command = 'true $secret'
restore_command = 'true $secret'
archive_cleanup_command = 'true $secret'
primary_conninfo = 'host=/nowhere password=$secret'
ssl_passphrase_command = 'echo $secret'
cluster_name = '$secret'
event_source = '$secret'
other.thing = '$secret'
});
$node->safe_psql('postgres', qq{
	CREATE ROLE "$secret"; CREATE DATABASE "$secret";
	CREATE DATABASE closed ALLOW_CONNECTIONS false});
$node->safe_psql($secret, q{CREATE EXTENSION pg_tde; CREATE TABLE t (a int)});
$node->restart;
usleep(3_000_000);
is( scalar(() = slurp_file($log) =~ /no telemetry is written: No such/g),
	2, 'a missing directory is logged once, not each second');

# The directory comes; a reload looks for it
mkdir($dir) or die "could not make $dir: $!";
$node->reload;
wait_for('a report', sub { scalar(grep { /\.json$/ } reports()) });
my $sysid = $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
my ($name) = grep { /\.json$/ } reports();
like($name, qr/^\d{10}-$sysid\.json$/, 'its name');
my $text = slurp_file("$dir/$name");
my $mode = (stat("$dir/$name"))[2] & 07777;
is(sprintf('%o', $mode), '640', 'its mode');
my $report = decode_json($text);

is($report->{db_instance_id}, $sysid, 'system identifier');
is($report->{pillar_version},
	$node->safe_psql('postgres', 'SHOW server_version'), 'version');
cmp_ok($report->{uptime}, '<', 3600, 'uptime');
is($report->{databases_count}, 3, 'databases without templates');

my %databases = map { $_->{database_oid} => $_ } @{ $report->{databases} };
my %oids = map { split(/\|/, $_) } split /\n/,
  $node->safe_psql('postgres', 'SELECT datname, oid FROM pg_database');
is_deeply([ sort keys %databases ],
	[ sort map { $oids{$_} } 'postgres', 'closed', $secret ], 'which');
my $size = $node->safe_psql('postgres', "SELECT pg_database_size('$secret')");
cmp_ok(abs($databases{ $oids{$secret} }{database_size} - $size),
	'<', $size / 5, 'size of a database');
my %extensions = map { $_->{extension_name} => $_->{extension_version} }
  @{ $databases{ $oids{$secret} }{active_extensions} };
is($extensions{pg_tde}, '2.2', 'an extension');
ok($extensions{plpgsql}, 'another one');
is($databases{ $oids{closed} }{active_extensions},
	undef, 'a database that takes no connections');

my %settings = map { $_->{name} => $_ } @{ $report->{settings} };
is($settings{shared_buffers}{unit}, '8kB', 'unit of a setting');
is( $settings{shared_buffers}{setting},
	$node->safe_psql('postgres', q{SELECT setting FROM pg_settings WHERE name = 'shared_buffers'}),
	'its value');
is($settings{'pg_tde.enforce_encryption'}{setting}, 'off', 'one of ours');
is($settings{shared_preload_libraries}{setting},
	'pg_tde,percona_pg_telemetry', 'a text that tells nothing');
for my $s ('archive_command', 'primary_conninfo', 'ssl_passphrase_command',
	'cluster_name', 'listen_addresses', 'percona_pg_telemetry.path')
{
	ok(exists $settings{$s} && !defined $settings{$s}{setting},
		"value of $s is not told");
}
ok(!exists $settings{'other.thing'}, 'what nobody knows is not listed');
unlike($text, qr/$secret/, 'nothing secret, no name of a database or role');

# Never more than files_to_keep; other people's files stay
append_to_file("$dir/1000000000-123.json", '{}');
append_to_file("$dir/notes.txt", 'x');
append_to_file("$dir/1000000000-$sysid.json", '{}');
wait_for('the oldest goes', sub { !-e "$dir/1000000000-$sysid.json" });
$name = (grep { /$sysid/ } reports())[0];
wait_for('old reports go', sub { !-e "$dir/$name" });
my $n = grep { /-$sysid\.json$/ } reports();
cmp_ok($n, '<=', 4, 'never more than files_to_keep, and the one just written');
ok(-e "$dir/1000000000-123.json" && -e "$dir/notes.txt",
	'files of others stay');

# Nobody's databases are held up
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template1');
$node->safe_psql('postgres', 'DROP DATABASE other WITH (FORCE)');

# Off
$node->append_conf('postgresql.conf', 'percona_pg_telemetry.enabled = off');
$node->reload;
wait_for(
	'switched off',
	sub {
		my @before = reports();
		usleep(2_500_000);
		return "@before" eq join(' ', reports());
	});

# A relative path is refused
my ($ret, $stdout, $stderr) = $node->psql('postgres',
	q{ALTER SYSTEM SET percona_pg_telemetry.path = 'here'});
like($stderr, qr/DETAIL:  The path must be absolute\./, 'a relative path');

# A standby writes reports too
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$dir = $standby->basedir . '/reports';
mkdir($dir) or die "could not make $dir: $!";
$standby->append_conf('postgresql.conf',
	"percona_pg_telemetry.enabled = on\npercona_pg_telemetry.path = '$dir'\n");
$standby->start;
wait_for('a standby reports', sub { scalar(grep { /\.json$/ } reports()) });
$standby->stop;

unlike(
	slurp_file($log),
	qr/"percona_pg_telemetry for database \d+" .*exited|terminated by signal/,
	'no worker failed');
$node->stop;

done_testing();
