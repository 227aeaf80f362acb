# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeMemory - what is in the memory of a server's processes, and whether it is
locked

=head1 SYNOPSIS

  use TdeMemory;

  my %processes = processes_of($node);            # pid => kind
  my @unlocked = unlocked_key_memory($pid);
  my %keys = (name => $bytes, ...);
  foreach my $place (find_keys($pid, \%keys)) ... # name, locked, private

=head1 DESCRIPTION

Reads /proc, so Linux only.  The mappings for keys are known by the mark that
they have no place in a core dump, which nothing else in the server sets.

=cut

package TdeMemory;

use strict;
use warnings FATAL => 'all';
no warnings 'portable';		# addresses are of 64 bits

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT =
  qw(memory_can_be_searched processes_of unless_gone unlocked_key_memory
  find_keys);

# Of a key as it is at the beginning, or end, of a key schedule
use constant PIECE => 16;

=pod

=head1 FUNCTIONS

=over

=item memory_can_be_searched()

Why not, or the empty string.

=cut

sub memory_can_be_searched
{
	return 'there is no /proc/PID/smaps' unless -r "/proc/$$/smaps";
	return 'memory is not locked under the address sanitizer'
	  if (run_command(['pg_config']))[0] =~ /-fsanitize=\S*address/;
	return 'the memory of another process cannot be read (kernel.yama.ptrace_scope)'
	  if -r '/proc/sys/kernel/yama/ptrace_scope'
	  && slurp_file('/proc/sys/kernel/yama/ptrace_scope') >= 1;
	return '';
}

=item processes_of(node)

The processes of a running server, with what pg_stat_activity calls them; also
"postmaster" and "logger".

=cut

sub processes_of
{
	my ($node) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my %processes = ($postmaster => 'postmaster');

	# The backend that answers is gone when its memory could be looked at.
	my %known = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
		q{SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()});
	foreach my $dir (glob '/proc/[0-9]*')
	{
		my ($pid) = $dir =~ /(\d+)$/;
		open my $stat, '<', "$dir/stat" or next;
		my $line = <$stat> // '';
		close $stat;
		next unless $line =~ /^\d+ \(.*\) \S (\d+) / && $1 == $postmaster;
		open my $command, '<', "$dir/cmdline" or next;
		my $title = <$command> // '';
		close $command;
		if ($known{$pid}) { $processes{$pid} = $known{$pid}; }
		elsif ($title =~ /: logger/) { $processes{$pid} = 'logger'; }
	}
	return %processes;
}

=item unless_gone(pid, code)

Runs code that looks at a process.  False if the process has ended meanwhile;
then it may have seen anything.

=cut

sub unless_gone
{
	my ($pid, $code) = @_;
	my $done = eval { $code->(); 1 };
	my $problem = $@;
	my $state = '';

	if (open my $stat, '<', "/proc/$pid/stat")
	{
		($state) = (<$stat> // '') =~ /^\d+ \(.*\) (\S) /;
		close $stat;
	}
	return 0 if ($state // '') !~ /^[RSDTtI]$/;
	die $problem unless $done;
	return 1;
}

# The mappings of a process that have something in memory.
sub mappings
{
	my ($pid) = @_;
	my @mappings;

	open my $smaps, '<', "/proc/$pid/smaps"
	  or die "could not open \"/proc/$pid/smaps\": $!";
	while (my $line = <$smaps>)
	{
		if ($line =~ /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$/)
		{
			push @mappings,
			  {
				start => hex($1),
				end => hex($2),
				private => substr($3, 3, 1) eq 'p',
				name => $4
			  };
		}
		elsif ($line =~ /^(\w+): +(.*?) *$/)
		{
			$mappings[-1]{$1} = $2;
		}
	}
	close $smaps;
	foreach my $m (@mappings)
	{
		$m->{locked} = $m->{VmFlags} =~ /\blo\b/ ? 1 : 0;
		$m->{for_keys} = $m->{VmFlags} =~ /\bdd\b/ && $m->{VmFlags} =~ /\bwr\b/;
	}
	return grep { $_->{Rss} !~ /^0 kB/ } @mappings;
}

=item unlocked_key_memory(pid)

Descriptions of the mappings for keys that a process has touched and that are
not locked.  In list context, their total number in the process comes first.

=cut

sub unlocked_key_memory
{
	my ($pid) = @_;
	my @for_keys = grep { $_->{for_keys} } mappings($pid);

	return (
		scalar(@for_keys),
		map {
			sprintf('%x-%x %s %s', $_->{start}, $_->{end},
				$_->{private} ? 'private' : 'shared', $_->{Rss})
		} grep { !$_->{locked} } @for_keys);
}

=item find_keys(pid, keys)

Looks for the keys of a hash (name => bytes; of a key that is two AES keys,
both count) in all memory that a process can write to.  Returns a hash for each
place: key, locked, private.

=cut

sub find_keys
{
	my ($pid, $keys) = @_;
	my @found;
	my %pieces;

	while (my ($name, $bytes) = each %$keys)
	{
		my @halves =
		  $name =~ /^relation/
		  ? unpack('(a' . length($bytes) / 2 . ')2', $bytes)
		  : $bytes;
		$pieces{ substr($_, 0, PIECE) } = $name foreach @halves;
	}
	my $pattern = join '|', map { quotemeta } keys %pieces;

	open my $mem, '<:raw', "/proc/$pid/mem"
	  or die "could not open \"/proc/$pid/mem\": $!";
	foreach my $m (mappings($pid))
	{
		next unless $m->{VmFlags} =~ /\bwr\b/;
		my $tail = '';
		sysseek($mem, $m->{start}, 0) or die "could not seek: $!";
		for (my $at = $m->{start}; $at < $m->{end};)
		{
			my $n = sysread($mem, my $data, min_of(1 << 20, $m->{end} - $at));
			die "could not read memory of process $pid: $!"
			  unless $n;
			$at += $n;
			$data = $tail . $data;
			while ($data =~ /($pattern)/gs)
			{
				push @found,
				  {
					key => $pieces{$1},
					locked => $m->{locked},
					private => $m->{private},
					name => $m->{name}
				  };
			}
			$tail = substr($data, -(PIECE - 1));
		}
	}
	close $mem;
	return @found;
}

sub min_of { return $_[0] < $_[1] ? $_[0] : $_[1]; }

=pod

=back

=cut

1;
