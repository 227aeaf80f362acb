# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeFaults - storage taken away from servers

=head1 SYNOPSIS

  use TdeFaults;

  with_faults(sub { $node->start });     # faults can happen to this server
  set_faults('EIO 100 read ' . $node->data_dir . '/base/');
  set_faults();                          # the storage is whole again

  take_away("$dir/ts", 'mountpoint');
  give_back("$dir/ts");

=head1 DESCRIPTION

Calls on files that fail, by the library of ../torture, which says what a rule
is; and directories and files that are not where they were.

=cut

package TdeFaults;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Fcntl qw(SEEK_SET);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(with_faults set_faults take_away give_back);

my $file_size = 16384;
my $control;
my $counter = 0;

# The counter, and with true arguments the rules, in the file that servers map
sub write_control
{
	my ($fh, @rules) = @_;

	if (@rules)
	{
		my $text = join('', map { "$_\n" } @{ $rules[0] });
		die 'too many rules' if length($text) >= $file_size - 4;
		sysseek($fh, 4, SEEK_SET);
		syswrite($fh, $text . ("\0" x ($file_size - 4 - length($text))))
		  or die "could not write \"$control\": $!";
	}
	$counter++;
	sysseek($fh, 0, SEEK_SET);
	syswrite($fh, pack('L', $counter)) or die "could not write \"$control\": $!";
	return;
}

=pod

=head1 FUNCTIONS

=over

=item set_faults(rule, ...)

From now on these faults happen, and no others.

=cut

sub set_faults
{
	my (@rules) = @_;

	if (!defined $control)
	{
		$control = PostgreSQL::Test::Utils::tempdir() . '/faults';
		open(my $new, '>:raw', $control)
		  or die "could not create \"$control\": $!";
		print $new "\0" x $file_size;
		close($new);
	}
	open(my $fh, '+<:raw', $control) or die "could not open \"$control\": $!";
	write_control($fh);
	write_control($fh, \@rules);
	close($fh);
	return;
}

=item with_faults(code)

Run code; what it starts is subject to faults.

=cut

sub with_faults
{
	my ($code) = @_;

	set_faults() unless defined $control;
	local $ENV{LD_PRELOAD} = $ENV{COFFER_STORAGE_FAULTS_LIBRARY};
	local $ENV{COFFER_STORAGE_FAULTS} = $control;
	return $code->();
}

=item take_away(path, how) and give_back(path)

A directory or file is gone ("moved"), an empty directory is in its place, as
where a volume is not mounted ("mountpoint"), or nobody may look into it
("forbidden"); and it is back as it was.

=cut

my %taken;

# who removes a test's directories must be able to
END
{
	chmod 0700, $_ foreach grep { $taken{$_} eq 'forbidden' } keys %taken;
}

sub take_away
{
	my ($path, $how) = @_;

	die "\"$path\" is away" if $taken{$path};
	if ($how eq 'forbidden')
	{
		chmod 0, $path or die "could not chmod \"$path\": $!";
	}
	else
	{
		rename($path, "$path.away") or die "could not rename \"$path\": $!";
		if ($how eq 'mountpoint')
		{
			mkdir($path, 0700) or die "could not make \"$path\": $!";
		}
	}
	$taken{$path} = $how;
	return;
}

sub give_back
{
	my ($path) = @_;
	my $how = delete $taken{$path} or die "\"$path\" is not away";

	if ($how eq 'forbidden')
	{
		chmod 0700, $path or die "could not chmod \"$path\": $!";
		return;
	}
	if ($how eq 'mountpoint')
	{
		# fails if somebody has put something there
		rmdir($path) or die "could not remove \"$path\": $!";
	}
	die "there is something in place of \"$path\"" if -e $path;
	rename("$path.away", $path) or die "could not rename \"$path\": $!";
	return;
}

=pod

=back

=cut

1;
