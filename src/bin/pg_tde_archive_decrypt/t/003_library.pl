# Copyright (c) 2026, the Coffer authors

# pg_tde as archive_library: the archive is in clear, and the key provider is not
# asked for any segment, so it may be away.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../../../test/tde/perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';
my $dir = PostgreSQL::Test::Utils::tempdir . "/it's";
my $shm = "/dev/shm/coffer-test-$$";
mkdir $shm or die;
END { system('rm', '-rf', $shm) if defined $shm }
mkdir $_ or die foreach $dir, "$dir/archive";

my $node = tde_node('main', allows_streaming => 1, extra => ['--wal-segsize=1']);
my $command = qq{cp %p "$dir/archive/%f"} =~ s/'/''/r;
$node->append_conf(
	'postgresql.conf', qq{
autovacuum = off
archive_mode = on
archive_library = 'pg_tde'
pg_tde.archive_temp_directory = '$shm'
});
$node->start;
tde_setup($node);
my $ring = tde_keyring($node);
$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
$node->backup('backup');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub write_row
{
	sql("INSERT INTO t SELECT '$canary' FROM generate_series(1, 10)");
	return sql('SELECT pg_walfile_name(pg_switch_wal())');
}

sub wait_for
{
	my ($segment) = @_;
	$node->poll_query_until('postgres',
		"SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
	  or die 'WAL is not archived';
	return;
}

sub ids
{
	my ($file) = @_;
	my $wal = slurp_bytes($file);
	my %ids = map { unpack('L<', substr($wal, $_ * 8192 + 20, 4)) => 1 } 0 .. 127;
	delete $ids{0};
	return sort keys %ids;
}

# It says what it lacks.
sql('CREATE TABLE t (a text) USING tde_heap');
my $first = write_row();
$node->wait_for_log(
	qr/archiving is not configured\n.*"pg_tde\.archive_command" is not set/);
$node->append_conf('postgresql.conf', "pg_tde.archive_command = 'exit 7'\n");
my $log = -s $node->logfile;
$node->reload;
$node->wait_for_log(qr/LOG:  could not archive file "\w+": child process exited with exit code 7\n.*DETAIL:  The command was: exit 7/,
	$log);
ok(sql('SELECT failed_count FROM pg_stat_archiver') > 0, 'failures are counted');

# The key provider goes away; segments are archived, of two epochs.
$node->append_conf('postgresql.conf', "pg_tde.archive_command = '$command'\n");
rename $ring, "$ring.away" or die;
command_fails([ 'pg_tde_archive_decrypt', '-T', $shm, '-D', $node->data_dir, $first,
		$node->data_dir . "/pg_wal/$first", 'true' ],
	'the program has no key now');
$node->reload;
wait_for(write_row());
rename "$ring.away", $ring or die;
tde_crash($node);
$node->start;
rename $ring, "$ring.away" or die;
my $last = write_row();
wait_for($last);
my @segments = sort(grep { /^[0-9A-F]{24}$/ } slurp_dir("$dir/archive"));
my %epochs = map { $_ => 1 } map { ids("$dir/archive/$_") } @segments;
cmp_ok(scalar(keys %epochs), '>=', 2, 'several epochs are in the archive');
is(scalar(grep { !($_ & 0x80000000) } keys %epochs), 0, 'all in clear');
isnt(index(slurp_bytes("$dir/archive/$_"), $canary), -1, "$_ has the canary")
  foreach $first, $last;
is_deeply([ glob("$shm/*") ], [], 'nothing is left in memory');

# The command does not get the keys.
$node->append_conf('postgresql.conf',
	"pg_tde.archive_command = 'cat >\"" . ($dir =~ s/'/''/r) . "/stdin\"'\n");
$node->reload;
wait_for(write_row());
is(-s "$dir/stdin", 0, 'nothing is on the standard input of the command');
rename "$ring.away", $ring or die;

# It comes back.
my $plain = PostgreSQL::Test::Utils::tempdir . '/archive';
symlink("$dir/archive", $plain) or die;
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'backup');
$restored->append_conf(
	'postgresql.conf', qq{
restore_command = 'pg_tde_restore_encrypt -T $shm %f %p "cp $plain/%%f %%p"'
archive_mode = off
});
$restored->set_recovery_mode;
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die;
is($restored->safe_psql('postgres', 'SELECT count(*) FROM t'),
	30, 'the archive is restored');
$restored->stop;
$node->stop;

done_testing();
