# Copyright (c) 2026, the Coffer authors

# Encrypted WAL on its way: a standby, one behind it, pg_receivewal, an archive
# and base backups get it as it is, and nothing of it in clear; and they go on
# when a server is stopped or crashes in the middle of it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeCapture;
use TdeLife;
use TdeTest;
use TdeWal;
use Test::More;

my $primary = wal_node('primary', allows_streaming => 'logical');
$primary->append_conf('postgresql.conf',
	"max_prepared_transactions = 10\nmax_wal_size = 1GB\n");
$primary->start;
tde_setup($primary);

sub sql { return $primary->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE TABLE t (a serial PRIMARY KEY, b text) USING tde_heap;
	ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
	CREATE INDEX ON t (substr(b, 1, 100));
	SELECT pg_create_physical_replication_slot('standby')});

# The standby gets its WAL through a process that keeps what it sees
my $captures = PostgreSQL::Test::Utils::tempdir();
my $conninfo = capture_start($primary, "$captures/wal");

$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->append_conf(
	'postgresql.conf', qq{
primary_conninfo = '$conninfo application_name=standby'
primary_slot_name = 'standby'
});
$standby->start;
$standby->safe_psql(
	'postgres', q{
	SELECT pg_create_physical_replication_slot('cascade', true);
	SELECT pg_create_physical_replication_slot('receiver', true)});
my $cascade = PostgreSQL::Test::Cluster->new('cascade');
$cascade->init_from_backup($primary, 'start', has_streaming => 1);
$cascade->append_conf(
	'postgresql.conf', qq{
primary_conninfo = '@{[ $standby->connstr ]} application_name=cascade'
primary_slot_name = 'cascade'
});
$cascade->start;

my $received = $standby->basedir . '/received';
mkdir $received or die;
my $receiver = IPC::Run::start(
	[
		'pg_receivewal', '--slot' => 'receiver',
		'--directory' => $received, '--dbname' => $standby->connstr
	],
	'>' => $standby->basedir . '/receiver.log',
	'2>&1');

my $writer;
my $canary;

# Something that writes WAL all the time, until the server goes or it is told
# to stop
sub start_writer
{
	my $script = $primary->basedir . '/writer.sql';

	unlink $script;
	append_to_file(
		$script, qq{
INSERT INTO t (b) SELECT '$canary' || g || repeat('w', 200) FROM generate_series(1, 3) g;
UPDATE t SET b = b || 'u' WHERE a = (SELECT max(a) FROM t);
SELECT pg_logical_emit_message(false, 'w', '$canary' || repeat('m', 3000));
});
	$writer = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client' => 2, '--time' => 600,
			'--rate' => 200, '--file' => $script, $primary->connstr('postgres')
		],
		'>' => '/dev/null',
		'2>' => '/dev/null');
	return;
}

sub stop_writer
{
	$writer->signal('TERM');
	$writer->finish;
	return;
}

# Everybody has all rows
sub check_rows
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $rows = sql(rows_sql('t'));

	wait_replayed($primary, $standby);
	wait_replayed($primary, $cascade, $standby);
	is($_->safe_psql('postgres', rows_sql('t')),
		$rows, "$what: rows on " . $_->name)
	  foreach $standby, $cascade;
	return;
}

# The segment that is being written is finished, and has arrived everywhere
sub finish_segment
{
	my $file = sql('SELECT pg_walfile_name(pg_current_wal_insert_lsn())');
	sql("INSERT INTO t (b) VALUES ('$canary'); SELECT pg_switch_wal(); SELECT pg_logical_emit_message(false, '', '')");
	wait_archived($primary, $file);
	wait_replayed($primary, $standby);
	wait_replayed($primary, $cascade, $standby);
	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if -e "$received/$file";
		select(undef, undef, undef, 0.1);
	}
	ok(-e "$received/$file", "pg_receivewal has finished $file");
	return;
}

# Where WAL comes to
sub places
{
	return (
		'pg_wal of the primary' => $primary->data_dir . '/pg_wal',
		'pg_wal of the standby' => $standby->data_dir . '/pg_wal',
		'pg_wal of the cascade' => $cascade->data_dir . '/pg_wal',
		'the archive' => $primary->archive_dir,
		'what pg_receivewal got' => $received,
		'the capture' => $captures);
}

# Canaries of all kinds are found in clear, and none in encrypted WAL.
sub check_canaries
{
	my ($canaries, %places) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $place (sort keys %places)
	{
		my @found = canaries_in($places{$place}, %$canaries);
		if ($canary =~ /ON/)
		{
			is("@found", '', "no canary in $place");
		}
		else
		{
			is( "@found",
				join(' ', sort keys %$canaries),
				"control: in clear, canaries of all kinds are in $place");
		}
	}
	return;
}

# A base backup that waits, when WAL that it needs has begun, until canaries are
# written.
sub backup_with_canaries
{
	my ($setting, $method, $dir) = @_;
	my $log = "$dir.log";
	my $backup = IPC::Run::start(
		[
			'pg_basebackup', '--pgdata' => $dir, '--wal-method' => $method,
			'--checkpoint' => 'fast', '--no-sync', '--max-rate' => '10M',
			'--dbname' => $primary->connstr
		],
		'>' => $log,
		'2>&1');

	$primary->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'})
	  or die 'no backup: ' . slurp_file($log);
	$backup->signal('STOP');
	my %canaries = wal_canaries($primary, $setting);
	$backup->signal('CONT');
	ok($backup->finish, "$setting: pg_basebackup -X $method")
	  or diag slurp_file($log);
	wait_replayed($primary, $standby);
	wait_replayed($primary, $cascade, $standby);
	drop_wal_canaries($primary);
	return %canaries;
}

sub write_and_search
{
	my ($setting) = @_;
	my %places = places();
	my %canaries;

	$canary = "CANARY-$setting-0123456789";
	start_writer();
	foreach my $method ('stream', 'fetch')
	{
		my $dir = $primary->backup_dir . "/$setting-$method";

		%canaries =
		  (backup_with_canaries($setting, $method, $dir), writer => [$canary]);
		check_canaries(\%canaries,
			"a base backup, -X $method" => "$dir/pg_wal");
	}
	stop_writer();
	finish_segment();
	check_canaries(\%canaries, %places);
	check_rows("WAL encryption $setting");
	return;
}

#
# In clear, and encrypted
#
write_and_search('OFF');

record_key_stream($primary);
encrypt_wal($primary, $standby, $cascade);
write_and_search('ON');
is($_->safe_psql('postgres', 'SELECT pg_tde_is_wal_encrypted()'),
	't', 'WAL is encrypted: ' . $_->name)
  foreach $primary, $standby, $cascade;

# Each backup is whole
foreach my $method ('stream', 'fetch')
{
	my $node = PostgreSQL::Test::Cluster->new($method);

	# tablespaces that were made meanwhile, and which recovery makes
	unlink glob($primary->backup_dir . "/ON-$method/pg_tblspc/*");
	$node->init_from_backup($primary, "ON-$method");
	$node->append_conf('postgresql.conf', "archive_mode = off\n");
	$node->start;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM t WHERE b LIKE 'CANARY-OFF%'}),
		sql(q{SELECT count(*) FROM t WHERE b LIKE 'CANARY-OFF%'}),
		"server from a backup with -X $method");
	$node->stop('immediate');
}

#
# Synchronous replication
#
$primary->append_conf(
	'postgresql.conf', q{
synchronous_standby_names = 'standby'
synchronous_commit = remote_apply
});
$primary->reload;
$primary->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'});

sub check_apply
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $standby->safe_psql(
			'postgres',
			'SELECT count(*) FROM t WHERE a = '
			  . sql("INSERT INTO t (b) VALUES ('$canary $_') RETURNING a")),
		'1',
		"$what: standby has row $_ at once") foreach 1 .. 5;
	return;
}

check_apply('remote_apply');
$primary->restart;
check_apply('remote_apply after a restart');
tde_crash($primary);
$primary->start;
check_apply('remote_apply after a crash');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$primary->reload;

#
# Somebody is stopped, or crashes, in the middle of all that
#
my %down = (
	stop => sub { $_[0]->stop('fast') },
	'immediate stop' => sub { $_[0]->stop('immediate') },
	crash => sub { tde_crash($_[0]) });

foreach my $round (
	[ 'stop', $primary ],
	[ 'crash', $primary ],
	[ 'stop', $standby ],
	[ 'crash', $standby ],
	[ 'crash', $cascade ],
	[ 'immediate stop', $standby, $primary ],
	[ 'crash', $primary, $standby, $cascade ],
	[ 'immediate stop', $primary ])
{
	my ($how, @who) = @$round;
	my $what = "$how of " . join(', ', map { $_->name } @who);
	my @logs = ($standby, $cascade);
	my @at = map { -s $_->logfile } @logs;

	start_writer();
	my $start = sql('SELECT pg_current_wal_insert_lsn()');
	$primary->poll_query_until('postgres',
		"SELECT pg_current_wal_insert_lsn() - '$start' > 200000");
	$down{$how}->($_) foreach @who;
	# what was begun without the others is there for them when they return
	foreach my $node (@who)
	{
		$node->start;
		next unless $node == $primary && @who > 1;
		sql("INSERT INTO t (b) VALUES ('$canary alone')");
		$primary->restart;
	}
	if (!grep { $_ == $primary } @who)
	{
		my $on = sql('SELECT pg_current_wal_insert_lsn()');
		$primary->poll_query_until('postgres',
			"SELECT pg_current_wal_insert_lsn() - '$on' > 200000");
	}
	stop_writer();
	sql("INSERT INTO t (b) VALUES ('$canary after')");
	check_rows($what);
	foreach my $i (0, 1)
	{
		unlike(slurp_file($logs[$i]->logfile, $at[$i]),
			qr/key [0-9A-F]{8}|incorrect resource manager|PANIC/,
			"$what: no WAL that cannot be read on " . $logs[$i]->name);
	}
}

#
# Who gets WAL has the same bytes, from before and after
#
finish_segment();
my $compared = 0;
my @differ;
my %places = places();
delete $places{'the capture'};
foreach my $file (grep { /^[0-9A-F]{24}$/ } slurp_dir($primary->archive_dir))
{
	my $content = slurp_bytes($primary->archive_dir . "/$file");
	foreach my $place (sort keys %places)
	{
		next unless -e "$places{$place}/$file";
		$compared++;
		push @differ, "$file in $place"
		  if slurp_bytes("$places{$place}/$file") ne $content;
	}
}
cmp_ok($compared, '>', 50, 'finished segments to compare: ' . $compared);
is("@differ", '', 'the archive, pg_receivewal and standbys have the same WAL');
check_canaries({ any => ["CANARY-ON"] }, places());

$receiver->signal('INT');
$receiver->finish;
$cascade->stop;
$standby->stop;
$primary->stop;
capture_stop("$captures/wal");

key_stream_is_used_once();

done_testing();
