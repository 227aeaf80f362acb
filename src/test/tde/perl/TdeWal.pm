# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeWal - what tests of encrypted WAL need

=cut

package TdeWal;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;
use TdeTest;

our @EXPORT = qw(forget_old_wal key_stream_uses);

=pod

=head1 FUNCTIONS

=over

=item forget_old_wal(node)

Sees to it that pg_wal has nothing of what was written before: the segments are
finished and a checkpoint made, and files recycled for later are removed.

=cut

sub forget_old_wal
{
	my ($node) = @_;
	my $wal = $node->data_dir . '/pg_wal';

	$node->safe_psql('postgres',
		"SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")
	  foreach (1, 2);
	my $current = $node->safe_psql('postgres',
		'SELECT pg_walfile_name(pg_current_wal_lsn())');
	foreach my $file (grep { /^[0-9A-F]{24}$/ } slurp_dir($wal))
	{
		next unless $file gt $current;
		unlink "$wal/$file" or die "could not remove \"$wal/$file\": $!";
	}
	return;
}

=item key_stream_uses(directory)

Reads what a server recorded that was started with COFFER_WAL_RECORDER set to
the directory.  Returns how many pieces were encrypted, and how many of them
meet key stream that was used for something else.

=cut

sub key_stream_uses
{
	my ($dir) = @_;
	my @pieces;
	my $reused = 0;

	foreach my $file (grep { /^\d+$/ } slurp_dir($dir))
	{
		my $data = slurp_bytes("$dir/$file");
		my $at = 0;

		# a process that was killed may have left the last one unfinished
		while ($at + 24 <= length $data)
		{
			my ($key, $lsn, $len) = unpack('Q<Q<Q<', substr($data, $at, 24));
			push @pieces, [ $key, $lsn, substr($data, $at + 24, $len) ];
			$at += 24 + $len;
		}
	}

	my $last = [ 0, 0, '' ];
	foreach my $piece (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @pieces)
	{
		my $overlap =
		  $piece->[0] == $last->[0]
		  ? $last->[1] + length($last->[2]) - $piece->[1]
		  : 0;
		if ($overlap > 0)
		{
			my $n = length $piece->[2];
			$n = $overlap if $n > $overlap;
			$reused++
			  if substr($piece->[2], 0, $n) ne
			  substr($last->[2], $piece->[1] - $last->[1], $n);
			next if $n < $overlap;
		}
		$last = $piece;
	}
	return (scalar @pieces, $reused);
}

=pod

=back

=cut

1;
