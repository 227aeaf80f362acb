# Copyright (c) 2026, the Coffer authors

# Who reads encrypted WAL: logical decoding, subscriptions, pg_walinspect, the
# WAL summarizer, on a primary and on a standby, across starts; read-ahead in
# recovery that comes to keys which replay has yet to bring; and keys that are
# missing, which are an error and not an end of WAL.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeLife;
use TdeTest;
use TdeWal;
use Test::More;

my $page = 8192;
my $canary = 'CANARY-0123456789-abcdefgh';

my $node = wal_node('main', allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "summarize_wal = on\n");
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub insert
{
	sql(fill_sql('t', $canary, 1, 20));
	return;
}

sub rows { return $_[0]->safe_psql('postgres', rows_sql('t')); }

sub archived
{
	my $last = sql('SELECT pg_walfile_name(pg_switch_wal())');
	insert();
	wait_archived($node, $last);
	return $last;
}

#
# Read-ahead, with all WAL in reach: keys are changed, encryption begins, and
# the next epochs come at once
#
sql('CREATE TABLE t (a int, b text) USING tde_heap; CREATE EXTENSION pg_walinspect');
$node->backup('in_clear');
insert();
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");

sub rotate
{
	my ($key) = @_;
	sql(qq{
		SELECT pg_tde_create_key_using_global_key_provider('$key', 'ring');
		SELECT pg_tde_set_server_key_using_global_key_provider('$key', 'ring')});
	return;
}

rotate('key0');
$node->restart;
foreach my $i (1 .. 3)
{
	insert();
	rotate("key$i");
	$i == 2 ? tde_crash($node) : $node->stop('fast');
	$node->start;
}
insert();
my $rows = rows($node);
archived();

my $large = q{
recovery_prefetch = on
wal_decode_buffer_size = 64MB
maintenance_io_concurrency = 1000
archive_mode = off
};

{
	my $copy = PostgreSQL::Test::Cluster->new('ahead');
	$copy->init_from_backup($node, 'in_clear', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', $large);
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	is(rows($copy), $rows, 'recovery that reads far ahead');
	$copy->stop('immediate');
}

#
# A key that is missing
#
$node->backup('encrypted');
insert();
archived();

# Nothing of the epoch's record is in this backup's WAL: its file is needed.
foreach my $missing ('wal_epochs', 'server_key.key')
{
	my $copy = PostgreSQL::Test::Cluster->new("without_$missing");
	$copy->init_from_backup($node, 'encrypted', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', $large);
	my $file = $copy->data_dir . "/pg_tde/global/$missing";
	rename $file, "$file.away" or die "no $file: $!";
	is($copy->start(fail_ok => 1), 0, "archive recovery without $missing: no start");
	like(
		slurp_file($copy->logfile),
		qr/FATAL:  key [0-9A-F]{8} of WAL page at [0-9A-F]+\/[0-9A-F]+ of timeline 1 is not available: .*pg_tde\/global\/$missing/,
		"... and the log says why");
	rename "$file.away", $file or die;
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	cmp_ok($copy->safe_psql('postgres', 'SELECT count(*) FROM t'),
		'>', 100, "... with it, all is there");

	# And so after a crash, but that pg_wal has the keys of WAL that it needs.
	tde_crash($copy);
	rename $file, "$file.away" or die;
	my $log = -s $copy->logfile;
	my $lost = $missing ne 'wal_epochs';
	is($copy->start(fail_ok => 1), $lost ? 0 : 1, "crash recovery without $missing");
	like(
		slurp_file($copy->logfile, $log),
		$lost ? qr/FATAL:  .*pg_tde\/global\/$missing/ :
		  qr/LOG:  rebuilt file "pg_tde\/global\/$missing"/,
		"... and the log says why");
	$copy->stop('immediate') unless $lost;
}

# A page under a key that nobody knows
{
	my $dir = $node->basedir . '/damaged';
	mkdir $dir or die;
	insert();
	my $lsn = sql(q{SELECT pg_current_wal_insert_lsn() - '0/0'});
	my $file = sql('SELECT pg_walfile_name(pg_current_wal_insert_lsn())');
	insert() foreach 1 .. 3;
	my $rows_then = rows($node);
	archived();
	my $at = int($lsn / $page) * $page + $page;
	system("cp " . $node->archive_dir . "/* $dir/") == 0 or die;
	open(my $fh, '+<:raw', "$dir/$file") or die "could not open: $!";
	sysseek($fh, $at % 1048576 + 20, 0) or die;
	syswrite($fh, pack('V', 0x12345678)) == 4 or die;
	close($fh);
	my $says = qr/key 12345678 of WAL page at 0\/@{[ sprintf('%X', $at) ]} of timeline 1 is not available: it is not in file "pg_tde\/global\/wal_epochs"/;
	my $conf = "restore_command = 'cp $dir/%f %p'\n$large";

	my $copy = PostgreSQL::Test::Cluster->new('unknown_key');
	$copy->init_from_backup($node, 'encrypted');
	$copy->append_conf('postgresql.conf', $conf);
	$copy->set_recovery_mode;
	# it may have begun to serve queries
	tde_try_start($copy);
	wait_stopped($copy);
	like(slurp_file($copy->logfile), qr/FATAL:  $says/,
		'archive recovery: a page under an unknown key is an error');
	$copy->kill9;

	my $standby = PostgreSQL::Test::Cluster->new('unknown_key_standby');
	$standby->init_from_backup($node, 'encrypted');
	$standby->append_conf('postgresql.conf', $conf);
	$standby->set_standby_mode;
	$standby->start;
	$standby->wait_for_log($says);
	is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
		't', 'a standby goes on waiting');
	system_log('pg_ctl', '--no-wait', '--pgdata' => $standby->data_dir, 'promote');
	$standby->wait_for_log(
		qr/LOG:  promotion refused: WAL goes on at \S+ with a page that cannot be used/);
	is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
		't', '... and is not promoted');
	$standby->stop('immediate');
	my $log = -s $standby->logfile;
	$standby->start;
	$standby->wait_for_log($says, $log);
	is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
		't', 'it is a standby again');
	# the right page comes
	system('cp ' . $node->archive_dir . "/* $dir/") == 0 or die;
	ok( $standby->poll_query_until('postgres',
			'SELECT count(*) >= ' . ($rows_then =~ /^(\d+)/ ? $1 : '') . ' FROM t'),
		'and goes on when the right page comes');
	$standby->promote;
	cmp_ok($standby->safe_psql('postgres', 'SELECT count(*) FROM t'),
		'>', 100, 'and can be promoted then');
	$standby->stop('immediate');
}

#
# Readers in a server that runs
#
my $standby = PostgreSQL::Test::Cluster->new('standby');
sql("SELECT pg_create_physical_replication_slot('standby')");
$standby->init_from_backup($node, 'encrypted', has_streaming => 1);
$standby->append_conf(
	'postgresql.conf', q{
primary_slot_name = 'standby'
hot_standby_feedback = on
});
$standby->start;
wait_replayed($node, $standby);

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->start;
my $conninfo = $node->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', 'CREATE TABLE l (a int PRIMARY KEY, b text)');
sql('CREATE TABLE l (a int PRIMARY KEY, b text) USING tde_heap; CREATE PUBLICATION p FOR TABLE l');
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION s CONNECTION '$conninfo' PUBLICATION p");
$subscriber->wait_for_subscription_sync($node, 's');
sql("SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')");
$standby->create_logical_slot_on_standby($node, 'on_standby', 'postgres');

my $l = 0;
sub insert_l { $l++; sql("INSERT INTO l VALUES ($l, '$canary $l')"); return; }

foreach my $how ('restart', 'crash', 'restart twice')
{
	insert_l();
	my $start = sql('SELECT pg_current_wal_insert_lsn()');
	if ($how eq 'crash')
	{
		tde_crash($node);
		$node->start;
	}
	else
	{
		$node->restart foreach 1 .. ($how eq 'restart' ? 1 : 2);
	}
	# at once, with nothing of the epoch there
	like(
		sql("SELECT string_agg(data, '') FROM pg_logical_slot_peek_changes('decoded', NULL, NULL)"),
		qr/\Q$canary $l\E/,
		"$how: a slot is read at once");
	$node->poll_query_until('postgres',
		q{SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication WHERE application_name = 'standby'})
	  or die;
	insert_l();
	wait_replayed($node, $standby);
	like(
		$standby->safe_psql(
			'postgres',
			"SELECT string_agg(data, '') FROM pg_logical_slot_get_changes('on_standby', NULL, NULL)"
		),
		qr/\Q$canary @{[ $l - 1 ]}\E.*\Q$canary $l\E/s,
		"$how: logical decoding on a standby");
	$node->wait_for_catchup('s');
	is($subscriber->safe_psql('postgres', 'SELECT count(*), max(b) FROM l'),
		"$l|$canary $l", "$how: rows of the subscriber");
	cmp_ok(
		$standby->safe_psql(
			'postgres',
			"SELECT count(*) FROM pg_get_wal_records_info('$start', pg_last_wal_replay_lsn()) WHERE resource_manager = 'Heap'"
		),
		'>', 0, "$how: pg_walinspect on a standby");
}
is(sql('SELECT pg_tde_is_wal_encrypted()'), 't', 'WAL is encrypted');

# The summarizer: on the primary and on the standby
sql('CREATE TABLE summed (a int, b text) USING tde_heap;' . fill_sql('summed', $canary, 1, 20));
my $to = sql('SELECT pg_current_wal_lsn()');
my $number = sql(q{SELECT pg_relation_filenode('summed')});
sql('CHECKPOINT');
wait_replayed($node, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
foreach my $server ($node, $standby)
{
	ok( $server->poll_query_until(
			'postgres',
			"SELECT summarized_lsn >= '$to' FROM pg_get_wal_summarizer_state()"),
		'WAL is summarized on ' . $server->name);
	cmp_ok(
		$server->safe_psql(
			'postgres',
			"SELECT count(*) FROM pg_available_wal_summaries() w, pg_wal_summary_contents(w.tli, w.start_lsn, w.end_lsn) c WHERE c.relfilenode = $number"
		),
		'>', 0, '... with what was written: ' . $server->name);
}

# A walsender with nothing to send does not keep the server from stopping
$node->restart foreach 1, 2;
$node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 's'});
my $begun = time;
$node->stop('fast');
cmp_ok(time - $begun, '<', 30, 'a fast stop with an idle subscriber ends');
$node->start;
insert_l();
$node->wait_for_catchup('s');
is($subscriber->safe_psql('postgres', 'SELECT count(*), max(b) FROM l'),
	"$l|$canary $l", 'and goes on');

$subscriber->stop;
$standby->stop;
$node->stop;

done_testing();
