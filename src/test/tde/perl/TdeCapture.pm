# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeCapture - what goes over a server's connections, recorded

=head1 SYNOPSIS

  use TdeCapture;

  my $conninfo = capture_start($node, $file);   # instead of $node->connstr
  ...
  capture_stop($file);

=cut

package TdeCapture;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(capture_start capture_stop);

my %processes;

=pod

=head1 FUNCTIONS

=over

=item capture_start(node, file)

Starts a process that passes connections on to the node, and appends to the file
what the node sends through them.  Returns what to connect to, as a conninfo
string without a database.  The node may be stopped and started meanwhile.

=cut

sub capture_start
{
	my ($node, $file) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $port = $node->port;
	my $listener = IO::Socket::UNIX->new(
		Local => "$dir/.s.PGSQL.$port",
		Listen => 10) or die "could not listen: $!";
	my $pid = fork();
	die "could not fork: $!" unless defined $pid;

	if ($pid == 0)
	{
		$SIG{TERM} = $SIG{INT} = 'DEFAULT';
		$SIG{PIPE} = 'IGNORE';
		forward($listener, $node->host . "/.s.PGSQL.$port", $file);
	}
	close($listener);
	$processes{$file} = $pid;
	return "host=$dir port=$port";
}

=item capture_stop(file)

Ends that process, and the connections through it.

=cut

sub capture_stop
{
	my ($file) = @_;
	my $pid = delete $processes{$file};

	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

# Pass on what arrives, until killed.
sub forward
{
	my ($listener, $server_path, $file) = @_;
	my $select = IO::Select->new($listener);
	my (%peer, %is_server);

	open(my $log, '>>:raw', $file) or POSIX::_exit(1);
	while (1)
	{
		foreach my $from ($select->can_read)
		{
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $server_path);
				next unless $server;
				$peer{$client} = $server;
				$peer{$server} = $client;
				$is_server{$server} = 1;
				$select->add($client, $server);
				next;
			}

			my $to = $peer{$from} or next;
			my $n = sysread($from, my $data, 65536);
			syswrite($log, $data) if $n && $is_server{$from};
			if (!$n || !pass_on($to, $data))
			{
				$select->remove($from, $to);
				delete @peer{ $from, $to };
				delete @is_server{ $from, $to };
				close($from);
				close($to);
			}
		}
	}
}

sub pass_on
{
	my ($to, $data) = @_;
	my $at = 0;

	while ($at < length $data)
	{
		my $n = syswrite($to, $data, length($data) - $at, $at);
		return 0 unless $n;
		$at += $n;
	}
	return 1;
}

END
{
	my $status = $?;
	capture_stop($_) foreach keys %processes;
	$? = $status;
}

=pod

=back

=cut

1;
