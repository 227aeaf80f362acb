# Copyright (c) 2026, the Coffer authors

# Archives that somebody changed who has every file and no key: pages in clear
# put in the place of encrypted ones, records of epochs made up or moved, WAL
# cut off by a marker.  Recovery refuses each with its position and reason, and
# does not end there; a standby waits for better WAL.  An archive that was
# decrypted is accepted where a setting says so.

use strict;
use warnings FATAL => 'all';

use File::Copy qw(copy);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeForge;
use TdeTest;
use TdeWal;
use Test::More;

my $page = 8192;
my $segment = 1024 * 1024;

my $primary = wal_node('primary');
$primary->start;
tde_setup($primary);
$primary->safe_psql('postgres', 'CREATE TABLE t (a int) USING tde_heap');
encrypt_wal($primary);
$primary->backup('start');
my $archive = $primary->archive_dir;

sub insert
{
	$primary->safe_psql('postgres',
		'INSERT INTO t SELECT generate_series(1, 1000)');
	return;
}

sub rows { return $_[0]->safe_psql('postgres', 'SELECT count(*) FROM t'); }

# Three epochs: one that ends inside a page, one in clear, an encrypted one
insert();
my $end = write_up_to($primary, 20, 4000);
$primary->stop('immediate');
$primary->append_conf('postgresql.conf', "pg_tde.wal_encrypt = off\n");
$primary->start;
insert();
$primary->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$primary->restart;
insert();
my $rows = rows($primary);
my $last = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
wait_archived($primary, $last);

# Where the first epoch ends, and in clear goes on; and its first segment
my $clear = segment_name(1, $end);
my $p1 = int(($end % $segment + $page - 1) / $page);
my ($checkpoint) = slurp_file($primary->backup_dir . '/start/backup_label') =~
  /CHECKPOINT LOCATION: (\S+)/;
my $begin = segment_name(1, from_lsn($checkpoint));
my $begin_page = int(from_lsn($checkpoint) % $segment / $page);
my @pages = wal_pages(slurp_file("$archive/$clear"));
is(epoch_page(@pages[ 0 .. $p1 ]), $p1, 'the epoch in clear is where it should be');

my $copies = 0;

# A copy of the archive, with a segment changed by a sub that gets its pages
sub forge
{
	my ($name, $change) = @_;
	my $copy = $primary->basedir . '/archive' . ++$copies;
	my @content = wal_pages(slurp_file("$archive/$name"));

	mkdir $copy or die;
	copy("$archive/$_", "$copy/$_") or die
	  foreach grep { !/^\./ } slurp_dir($archive);
	$change->(\@content);
	append_to_file("$copy/new", join('', @content));
	die 'another size' if -s "$copy/new" != $segment;
	rename("$copy/new", "$copy/$name") or die;
	return $copy;
}

sub node_from
{
	my ($name, $dir, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'start');
	$node->append_conf('postgresql.conf',
		"restore_command = 'cp $dir/%f %p'\narchive_mode = off\n" . ($conf // ''));
	return $node;
}

sub recovers
{
	my ($what, $name, $dir, $conf) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $node = node_from($name, $dir, $conf);

	$node->set_recovery_mode;
	$node->start;
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
	  or die 'no end of recovery';
	is(rows($node), $rows, $what);
	unlike(slurp_file($node->logfile), qr/could not accept page/,
		"$what: no page is refused");
	$node->stop;
	return;
}

sub refused
{
	my ($what, $lsn, $why, $name, $change) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $node = node_from("forged" . ($copies + 1), forge($name, $change));
	my $at = to_lsn($lsn);
	my $log;

	$node->set_recovery_mode;
	# It may be ready for queries before it comes to the page.
	tde_try_start($node);
	wait_stopped($node);
	$node->_update_pid(0);
	$log = slurp_file($node->logfile);
	like($log, qr/FATAL:  could not accept page at $at of WAL segment $name: $why/,
		"$what: refused");
	unlike($log, qr/restore point "forged"|archive recovery complete/,
		"$what: nothing of it is replayed");
	return;
}

sub segment_start { return hex(substr($_[0], 16)) * $segment; }

my $first_id = wal_page_header($pages[ $p1 - 1 ])->{key_id};
my $p1_lsn = segment_start($clear) + $p1 * $page;
my $in_clear = 'it is in clear, and not the beginning of a new epoch';

recovers('the archive as it is', 'good', $archive);

#
# A page in clear in the place of an encrypted one
#
foreach my $case (
	[ 'page in clear', 0, $in_clear ],
	[
		'page said to be decrypted', $first_id | 0x80000000,
		'it is in clear, decrypted for an archive'
	])
{
	my ($what, $id, $why) = @$case;

	refused(
		"$what, where WAL begins",
		segment_start($begin) + $begin_page * $page,
		$why, $begin,
		sub {
			$_[0][$begin_page] = forged_page($_[0][$begin_page], $id, 0,
				forged_message('forged'));
		});
	refused(
		"$what, before the epoch's end",
		$p1_lsn - $page,
		$why, $clear,
		sub {
			$_[0][ $p1 - 1 ] = forged_page($_[0][ $p1 - 1 ], $id, 0,
				forged_message('forged'));
		});
}

#
# The record of an epoch that is none: without a tag, as before there was one;
# with a wrong one; with another record on its page
#
sub put_epoch
{
	my ($content, $change, @more) = @_;
	my $header = wal_page_header($content->[$p1]);
	my ($prev) = unpack('Q<', substr($content->[$p1], $header->{size} + 8, 8));
	my $epoch = epoch_of($content->[$p1]);
	my $room = $page - $header->{size};

	$epoch = $change->($epoch);
	substr($epoch, -4) = pack('V', crc32c(substr($epoch, 0, -4)));
	my $record = join '', @more;
	substr($content->[$p1], $header->{size}) =
	  $record . forged_record(222, 0x40, $prev, $epoch, $room - length($record));
	return;
}

refused("an epoch's record without a tag", $p1_lsn, 'record has no tag', $clear,
	sub {
		put_epoch(
			$_[0],
			sub {
				my ($epoch) = @_;
				my $bare = substr($epoch, 0, 56) . "\0" x 68;
				substr($bare, 4, 2) = pack('v', 1);
				substr($bare, 8, 4) = pack('V', length($bare));
				return $bare;
			});
	});
foreach my $case ([ 'identifier', 12 ], [ 'place', 24 ], [ 'end of WAL before', 32 ],
	[ 'tag', 100 ])
{
	my ($what, $at) = @$case;

	refused(
		"an epoch's record with another $what", $p1_lsn,
		'scope key does not authenticate the record', $clear,
		sub {
			put_epoch(
				$_[0],
				sub {
					my ($epoch) = @_;
					substr($epoch, $at, 2) ^= pack('v', $at == 12 ? 1 : 0x2000);
					return $epoch;
				});
		});
}
refused("a record beside an epoch's", $p1_lsn, $in_clear, $clear,
	sub {
		put_epoch($_[0], sub { return $_[0]; },
			forged_record(0, 0x70, $end, forged_message('forged')->[2], 104));
	});
refused("an epoch's page that goes on with a record", $p1_lsn, $in_clear, $clear,
	sub {
		substr($_[0][$p1], 2, 2) |= pack('v', 1);
		substr($_[0][$p1], 16, 4) = pack('V', 64);
	});

#
# WAL before a genuine epoch is cut off by a marker at a record's beginning
#
my ($start) = to_lsn($end - $end % $page - $page);
my ($dump) = run_command(
	[ 'pg_waldump', '-p' => $primary->data_dir, '-s' => $start, '-e' => to_lsn($end) ]);
my @records = map { from_lsn($_) } $dump =~ /lsn: ([0-9A-F\/]+)/g;
my ($cut) = grep { $_ >= $end - $end % $page } @records;
refused(
	'WAL cut off by a marker', $p1_lsn,
	'it begins an epoch after WAL that ends at ' . to_lsn($end) . ', not at '
	  . to_lsn($cut),
	$clear,
	sub {
		my $at = $cut % $page;
		substr($_[0][ $p1 - 1 ], $at) =
			pack('VV', 0xFFFFFFFF, 0x43774E78 ^ ($cut & 0xFFFFFFFF))
		  . "\0" x ($page - $at - 8);
	});

#
# A standby waits, and is not promoted where WAL goes on
#
my $forged = forge(
	$clear,
	sub {
		$_[0][ $p1 - 1 ] =
		  forged_page($_[0][ $p1 - 1 ], 0, 0, forged_message('forged'));
	});
my $standby = node_from('standby', $forged);
$standby->set_standby_mode;
$standby->start;
$standby->wait_for_log(qr/LOG:  could not accept page/);
command_fails(
	[ 'pg_ctl', '--pgdata' => $standby->data_dir, 'promote', '--timeout' => 2 ],
	'no promotion where forged WAL comes next');
$standby->wait_for_log(
	qr/LOG:  promotion refused: WAL goes on at \S+ with a page that cannot be used/);
unlink "$forged/$clear" or die;
copy("$archive/$clear", "$forged/$clear") or die;
$standby->poll_query_until('postgres', "SELECT count(*) = $rows FROM t")
  or die 'not all rows';
$standby->promote;
is(rows($standby), $rows, 'with the right segment the standby goes on');
$standby->stop;

#
# An archive that was decrypted
#
my $decrypted = $primary->basedir . '/decrypted';
mkdir $decrypted or die;
foreach my $name (grep { /^[0-9A-F]{24}$/ } slurp_dir($archive))
{
	system_or_bail('pg_tde_archive_decrypt', '-D', $primary->data_dir, $name,
		$archive . "/$name", "cp %p $decrypted/%f");
}
my $strict = node_from('strict', $decrypted);
$strict->set_recovery_mode;
tde_try_start($strict);
wait_stopped($strict);
$strict->_update_pid(0);
like(
	slurp_file($strict->logfile),
	qr/FATAL:  could not accept page .* it is in clear, decrypted for an archive\n.*HINT:  .*"pg_tde\.accept_clear_wal"/,
	'an archive that was decrypted is refused, with a hint');
recovers('... and accepted with the setting', 'lenient', $decrypted,
	"pg_tde.accept_clear_wal = on\n");

$primary->stop;
done_testing();
