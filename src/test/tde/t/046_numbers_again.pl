# Copyright (c) 2026, the Coffer authors

# A file number that comes back, to an encrypted and to a plain relation, while
# keys of its earlier lives are kept for a base backup, and on a standby that
# starts again from before all that: there replay makes old relations over the
# files of newer ones.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $number = 910000;

my $primary = life_node('primary', allows_streaming => 1);
# Background writer and I/O workers may have a dropped file open when its number
# is given out right after a checkpoint, and write to it or read from it, as in
# stock PostgreSQL; out there that takes all OIDs to go round in between.
$primary->append_conf(
	'postgresql.conf', q{
wal_keep_size = 1GB
bgwriter_lru_maxpages = 0
io_method = sync
});
$primary->start;
tde_setup($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION pg_buffercache; CREATE EXTENSION test_tde_storage;'
	. 'CREATE TABLE live (a int, b text) USING tde_heap;');
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
my $redo = redo_lsn($standby);

# Make a relation, with its maps, that wants the number; which it got.
sub create
{
	my ($name, $am, $rows) = @_;
	sql("CREATE TABLE $name (a int, b text) USING $am;
		 SELECT set_next_oid($number);
		 TRUNCATE $name;"
		  . fill_sql($name, $canary, 1, $rows)
		  . "DELETE FROM $name WHERE a % 3 = 0; VACUUM $name;
			 INSERT INTO $name SELECT a, b FROM $name WHERE a < 100");
	return sql("SELECT pg_relation_filenode('$name')");
}

# So that not even a dead row of pg_class holds the number
sub drop_for_good
{
	my ($name) = @_;
	sql("DROP TABLE $name; VACUUM pg_class; CHECKPOINT");
	return;
}

#
# Kept by a base backup
#
is(create('first', 'tde_heap', 3000), $number, 'an encrypted relation');
my $key = key_of($primary, 'postgres', 'first');
my $first_id = key_id($primary, $key);
my $path = relation_path($primary, 'postgres', 'first');
my $backup = $primary->background_psql('postgres');
$backup->query_safe(q{SELECT pg_backup_start('long', fast => true)});
drop_for_good('first');
ok(!-e $primary->data_dir . "/$path", 'its file is gone');
is(key_id($primary, $key), $first_id, 'its key is kept for the backup');
isnt(create('encrypted', 'tde_heap', 10),
	$number, 'no new encrypted relation gets the number');
isnt(create('plain', 'heap', 10), $number, 'nor does a plain one');
is(key_id($primary, $key), $first_id, 'the key is untouched');
$backup->query_safe('SELECT pg_backup_stop(wait_for_archive => false)');
$backup->quit;
sql('DROP TABLE encrypted, plain; CHECKPOINT');
is(key_id($primary, $key), '', 'the key is gone after the backup');

#
# The number goes round.  Plain relations are larger and smaller than the
# encrypted ones before and after them, so that replay meets pages of both.
#
my @lives = (
	[ 'plain1', 'heap', 2000 ],
	[ 'enc1', 'tde_heap', 4000 ],
	[ 'plain2', 'heap', 3000 ],
	[ 'enc2', 'tde_heap', 1000 ],
	[ 'enc3', 'tde_heap', 3000 ]);
my $last;
my %seen = ($first_id => 1);
foreach my $life (@lives)
{
	my ($name, $am, $rows) = @$life;
	drop_for_good($last) if defined $last;
	is(create($name, $am, $rows), $number, "$name has the number");
	my $id = key_id($primary, $key);
	if ($am eq 'heap')
	{
		is($id, '', 'no key for the plain relation');
	}
	else
	{
		ok($id ne '' && !$seen{$id}++, 'a key of its own');
	}
	sql('CHECKPOINT');
	check_storage($primary, 'postgres', $name,
		$am eq 'heap' ? (control => [$name]) : (), canary => $canary);
	$last = $name;
}

#
# The standby has seen it all and starts again where it was.
#
sub check_standby
{
	my ($label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_replayed($primary, $standby);
	is( $standby->safe_psql('postgres', rows_sql($last)),
		sql(rows_sql($last)), "$label: rows");
	check_storage($standby, 'postgres', "$label: standby",
		no_checkpoint => 1,
		canary => $canary,
		$last =~ /^plain/ ? (control => [$last]) : ());
	return;
}

is(redo_lsn($standby), $redo, 'no restartpoint on the standby');
check_standby('encrypted in the end');
# all files are those of the last life
$standby->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
$standby->stop('immediate');
$standby->start;
check_standby('replayed again');

# With a plain relation as the last one
drop_for_good($last);
is(create('plain3', 'heap', 3500), $number, 'plain3 has the number');
$last = 'plain3';
check_standby('plain in the end');
$standby->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
$standby->stop('immediate');
$standby->start;
is(redo_lsn($standby), $redo, 'no restartpoint on the standby');
check_standby('replayed again');

# From a restartpoint on, a plain relation and then an encrypted one: replay
# begins to make the plain one, whose record takes away the key of what is on
# disk, is interrupted there, and begins again.
drop_for_good($last);
sql('CHECKPOINT');
wait_replayed($primary, $standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
cmp_ok(redo_lsn($standby), '>', $redo, 'restartpoint on the standby');
$redo = redo_lsn($standby);
is(create('plain4', 'heap', 1000), $number, 'plain4 has the number');
drop_for_good('plain4');
is(create('enc4', 'tde_heap', 3500), $number, 'enc4 has the number');
$last = 'enc4';
my ($wal) = run_command(
	[
		'pg_waldump', '--start' => sprintf('0/%X', $redo),
		'--path' => $primary->data_dir . '/pg_wal'
	]);
my ($lsn) = $wal =~ /desc: CREATE base\/\d+\/$number\n.*?lsn: ([0-9A-F\/]+)/
  or die;

# ... once with all of the file on disk, once with the maps alone
foreach my $all (1, 0)
{
	check_standby('encrypted again');
	$standby->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
	is(redo_lsn($standby), $redo, 'no restartpoint since');
	$standby->stop('immediate');
	ok(key_id($standby, $key) ne '', 'the standby has its key');
	truncate($standby->data_dir . "/$path", 0) or die if !$all;

	replay_until($standby, $lsn);
	is(key_id($standby, $key), '', 'replay has taken it away');
	replay_on($standby);
}
check_standby('replay interrupted and begun again');
ok($standby->log_contains(
		qr/zeroing block \d+ of relation "base\/5\/${number}_fsm", which is encrypted/),
	'a map of a later relation');

# A restartpoint on the standby removes the key of a dropped relation; another
# relation's key is there already, its file is not.
SKIP:
{
	skip 'Injection points not supported by this build', 8
	  unless $ENV{enable_injection_points} eq 'yes';

	drop_for_good($last);
	sql("CREATE EXTENSION injection_points;
		 CREATE TABLE enc5 (a int, b text) USING tde_heap;
		 SELECT set_next_oid($number)");
	attach($primary, 'tde-key-installed', 'wait');
	my $session = parked($primary, 'postgres', 'tde-key-installed',
		'TRUNCATE enc5');
	wait_replayed($primary, $standby);
	my $id = key_id($primary, $key);
	ok($id ne '', 'the next relation has its key');
	ok(!-e $standby->data_dir . "/$path", 'there is no file on the standby');
	$standby->safe_psql('postgres', 'CHECKPOINT');
	cmp_ok(redo_lsn($standby), '>', $redo, 'restartpoint on the standby');
	is(key_id($standby, $key), $id, 'the key is not removed');
	release($primary, 'tde-key-installed');
	$session->quit;
	sql(fill_sql('enc5', $canary, 1, 100));
	$last = 'enc5';
	check_standby('its relation');
}

for (1 .. 2)
{
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
}
$standby->restart;
check_standby('after restartpoints');
is_deeply([ differing_files(key_files($standby), key_files($primary)) ],
	[], 'the same key files on both nodes');

$standby->stop;
$primary->stop;
done_testing();
