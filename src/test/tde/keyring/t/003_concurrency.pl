# Copyright (c) 2026, the Coffer authors

# Many writers and readers of one keyring file, some of them killed.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $WRITERS = 8;
my $KEYS = 50;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $file = "$dir/keyring";
my $options = qq({"path":"$file"});

sub fetch
{
	my $name = shift;
	my ($out, $err) = ('', '');

	IPC::Run::run [ 'test_keyring', $options, 'fetch', $name ],
	  '>' => \$out, '2>' => \$err;
	return $out;
}

# Start writers, each making keys under its own prefix.
sub start_writers
{
	my ($prefix, $count) = @_;
	my @writers;

	for my $n (1 .. $count)
	{
		my $out = "$dir/$prefix$n.out";
		my $pid = fork // die "could not fork: $!";
		if ($pid == 0)
		{
			open STDOUT, '>', $out or die;
			exec 'test_keyring', '-t', '120000', $options, 'many',
			  "$prefix$n", $KEYS
			  or die;
		}
		push @writers, { pid => $pid, out => $out };
	}
	return @writers;
}

# Has the writer ended?  Waits for it unless told otherwise.
sub ended
{
	my ($w, $flags) = @_;

	if (!defined $w->{status})
	{
		return 0 if waitpid($w->{pid}, $flags // 0) != $w->{pid};
		$w->{status} = $?;
	}
	return 1;
}

note 'everybody finishes';

my @writers = start_writers('w', $WRITERS);
my ($reads, $bad) = (0, 0);
while (grep { !ended($_, WNOHANG) } @writers)
{
	# a reader never sees half a file
	my $out = fetch('w1-1');
	$reads++;
	$bad++ if $out !~ /^(OK|UNREACHABLE|NOT_FOUND)\n/;
}
is($bad, 0, "$reads reads saw a whole file");
cmp_ok($reads, '>', 10, 'there were some reads');

my %key;
for my $w (@writers)
{
	is($w->{status}, 0, 'writer succeeded') or diag slurp_file($w->{out});
	for (split /\n/, slurp_file($w->{out}))
	{
		my ($name, $hex) = split / /;
		$key{$name} = $hex;
	}
}
is(scalar(keys %key), $WRITERS * $KEYS, 'all keys were reported');
my %distinct = map { $_ => 1 } values %key;
is(scalar(keys %distinct), $WRITERS * $KEYS, 'all are different');

# The file's lines against what the writers were told.
sub missing_keys
{
	my %in_file;
	for (split /\n/, slurp_file($file))
	{
		$in_file{$1} = $2 if /^key (\S+) \S+ (\S+) \S+$/;
	}
	return grep { ($in_file{$_} // '') ne $key{$_} } sort keys %key;
}
is_deeply([ missing_keys() ], [], 'every key is in the file');
my ($some) = sort keys %key;
is(fetch($some), "OK\n$key{$some}\n", 'and the file is in order');
ok(!-e "$file.tmp", 'nothing is left beside it');

note 'some are killed';

srand(20260131);
my $kills = 0;
for my $round (1 .. 10)
{
	@writers = start_writers("k$round-", 4);
	my @victims = @writers[ 0, 1 ];
	usleep(1000 + rand 150_000);
	for my $w (@victims)
	{
		next if ended($w, WNOHANG);
		kill 'KILL', $w->{pid};
		$kills++;
	}
	for my $w (@writers)
	{
		ended($w);
		for (split /^/m, slurp_file($w->{out}))
		{
			$key{$1} = $2 if /^(\S+) ([0-9a-f]{64})\n$/;
		}
	}
	for my $w (@writers[ 2, 3 ])
	{
		is($w->{status}, 0, "round $round: survivor succeeded")
		  or diag slurp_file($w->{out});
	}
}
cmp_ok($kills, '>', 5, "$kills writers were killed at work");
is_deeply([ missing_keys() ], [],
	'no key that a writer was told of is lost');
is(fetch($some), "OK\n$key{$some}\n", 'and the file is in order');

done_testing();
