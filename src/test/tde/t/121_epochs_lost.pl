# Copyright (c) 2026, the Coffer authors

# The file of epochs is lost, damaged, or an old one: the server makes it again
# of what pg_wal has and of what is left of it, takes only what is proven, and
# keeps the damaged file.  What is in neither is an error still, until
# pg_tde_rebuild_epochs has taken it from an archive.

use strict;
use warnings FATAL => 'all';

use File::Copy qw(move);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $node = wal_node('main');
$node->start;
tde_setup($node);
encrypt_wal($node);
$node->safe_psql('postgres', 'CREATE TABLE t (a int) USING tde_heap');
my $epochs = epochs_path($node);
my $global = $node->data_dir . '/pg_tde/global';
my $wal = $node->data_dir . '/pg_wal';
my $inserted = 0;

sub insert
{
	$node->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
	$inserted++;
	return;
}

sub write_bytes
{
	my ($path, $bytes) = @_;

	open(my $fh, '>:raw', $path) or die "could not open \"$path\": $!";
	print $fh $bytes;
	close($fh) or die;
	chmod 0600, $path or die;
	return;
}

# Which of the first are not among the second?
sub missing
{
	my ($some, $all) = @_;
	my %all = map { $_ => 1 } @$all;
	return scalar grep { !$all{$_} } @$some;
}

sub damaged_files
{
	my @files = glob("$global/wal_epochs.damaged*");
	return @files;
}

# An old file; and WAL in five epochs
insert();
my $old = slurp_bytes($epochs);
foreach (1 .. 3)
{
	$node->restart;
	insert();
}

my %bad = (
	lost => sub { undef },
	empty => sub { '' },
	truncated => sub { substr($_[0], 0, length($_[0]) / 2) },
	changed => sub { substr($_[0], 0, -100) . (substr($_[0], -100) ^ "\1") },
	old => sub { $old });

foreach my $mode ('immediate', 'fast')
{
	foreach my $what (sort keys %bad)
	{
		insert();
		$node->stop($mode);
		my $content = slurp_bytes($epochs);
		my @before = epochs_in($epochs);
		my $bytes = $bad{$what}->($content);
		my $log = -s $node->logfile;

		unlink $epochs or die;
		write_bytes($epochs, $bytes) if defined $bytes;
		unlink damaged_files();
		ok($node->start(fail_ok => 1), "$what, $mode: the server starts");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
			$inserted, "$what, $mode: with all rows");
		like(
			slurp_file($node->logfile, $log),
			qr/LOG:  rebuilt file "pg_tde\/global\/wal_epochs", which has the keys of WAL\n.*DETAIL:  .*\d+ keys .* in directory "pg_wal"\.\n/,
			"$what, $mode: and says what it did");
		my @after = epochs_in($epochs);
		is(missing(\@before, \@after), 0, "$what, $mode: no key is lost");
		is(scalar(@after), @before + 1, "$what, $mode: there is one more");

		my @kept = damaged_files();
		if ($what eq 'lost' || $what eq 'old')
		{
			is(scalar(@kept), 0, "$what, $mode: nothing was kept aside");
		}
		else
		{
			is(scalar(@kept), 1, "$what, $mode: the damaged file was kept");
			ok(slurp_bytes($kept[0]) eq $bytes, "$what, $mode: as it was");
		}
	}
}
unlink damaged_files();

# A second damaged file does not take the place of the first.
foreach my $i (0, 1)
{
	$node->stop;
	my $content = slurp_bytes($epochs);
	write_bytes($epochs, $bad{changed}->($content));
	$node->start;
	is(scalar(damaged_files()), $i + 1, 'damaged files that were kept: ' . ($i + 1));
}

# Where no page needs it, but a new epoch is to be added
foreach my $what ('changed', 'lost')
{
	$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', 'off');
	$node->restart;
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->adjust_conf('postgresql.conf', 'pg_tde.wal_encrypt', 'on');
	$node->stop;
	my @before = epochs_in($epochs);
	my $bytes = $bad{$what}->(slurp_bytes($epochs));
	unlink $epochs;
	write_bytes($epochs, $bytes) if defined $bytes;
	$node->start;
	is(missing(\@before, [ epochs_in($epochs) ]),
		0, "$what where it is not needed: no key is lost");
}

# From here on pg_wal has only what recovery needs: an epoch begins in a segment
# before that of the checkpoint.
my $archive = $node->archive_dir;
my $away = $node->basedir . '/away';
mkdir $away or die;

sub crash_without_old_wal
{
	insert();
	$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
	insert();
	$node->safe_psql('postgres', 'CHECKPOINT');
	insert();
	my $last = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
	insert();
	wait_archived($node, $last);
	tde_crash($node);
	my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
	my ($redo) = $control =~ /Latest checkpoint's REDO WAL file: +(\S+)/ or die;
	foreach my $name (grep { /^[0-9A-F]{24}$/ && $_ lt $redo } slurp_dir($wal))
	{
		move("$wal/$name", "$away/$name") or die;
	}
	return;
}

# Where one byte is wrong, all other epochs are there still.
crash_without_old_wal();
my @before = epochs_in($epochs);
my $bytes = slurp_bytes($epochs);
substr($bytes, 16 + 80, 1) ^= "\1";
write_bytes($epochs, $bytes);
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	$inserted, 'one epoch is damaged: all rows');
is(missing(\@before, [ epochs_in($epochs) ]),
	1, '... and all other keys are taken from the file');

# What neither pg_wal nor the file has is an error, and nothing is changed.
foreach my $what ('lost', 'empty')
{
	crash_without_old_wal();
	@before = epochs_in($epochs);
	my $whole = slurp_bytes($epochs);
	$bytes = $bad{$what}->($whole);
	unlink $epochs or die;
	write_bytes($epochs, $bytes) if defined $bytes;
	unlink damaged_files();
	my $log = -s $node->logfile;

	is($node->start(fail_ok => 1), 0, "$what, and not in pg_wal: no start");
	like(
		slurp_file($node->logfile, $log),
		qr/FATAL:  key [0-9A-F]{8} of WAL page at [0-9A-F]+\/[0-9A-F]+ of timeline 1 is not available: .*pg_tde\/global\/wal_epochs.*\n.*HINT:  .*pg_tde_rebuild_epochs/,
		'... the log says why, and what helps');
	unlike(slurp_file($node->logfile, $log), qr/rebuilt/, '... nothing was rebuilt');
	is(-e $epochs ? slurp_bytes($epochs) : undef, $bytes, '... or changed');
	is(scalar(damaged_files()), 0, '... or renamed');

	# The archive has it.
	command_ok([ 'pg_tde_rebuild_epochs', '-D', $node->data_dir, $archive ],
		'pg_tde_rebuild_epochs from the archive');
	is(scalar(damaged_files()), $what eq 'lost' ? 0 : 1, '... keeps a damaged file');
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
		$inserted, '... and all rows are there');
	# but for the one that was damaged before, which the archive has, too
	is(missing(\@before, [ epochs_in($epochs) ]), 0, '... and all keys');
}
$node->stop;

done_testing();
