# Copyright (c) 2026, the Coffer authors

# Key files are lost at random: at rest, in a crash, and under a server that
# runs, whose caches then are lost too.  What an encrypted table has never
# reaches a disk in clear, not even where its file is empty, so that nothing on
# disk says what it is; who uses it gets an error; and with the key files all
# rows are back.  COFFER_SEED repeats a run.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeFaults;
use TdeLife;
use TdeStorage;
use TdeTest;
use Test::More;

my $seed = $ENV{COFFER_SEED} || time;
srand($seed);
note "COFFER_SEED=$seed";

my $canary = 'CANARY-0123456789-abcdefgh';
my $control = 'CONTROL-0123456789-abcdefgh';
my $tables = 12;

my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
restart_after_crash = on
});
$node->start;
tde_setup($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE TABLE control (a int, b text);
	CREATE EXTENSION pg_buffercache');
my $dir = $node->data_dir;
my $away = $node->basedir . '/away';
mkdir $away or die;

# A third of the tables is empty on disk, a third was filled and truncated.
# Their indexes have a page in any case.
my %rows;
foreach my $i (1 .. $tables)
{
	sql("CREATE TABLE t$i (a int, b text, c serial) USING tde_heap");
	sql("CREATE INDEX ON t$i (b)") if $i % 2;
	sql("CREATE SEQUENCE s$i OWNED BY t$i.a") if $i % 5 == 0;
	sql(fill_sql("t$i (a, b)", $canary, 1, 100)) if $i % 3;
	sql("TRUNCATE t$i") if $i % 3 == 1;
	$rows{"t$i"} = sql(rows_sql("t$i"));
}
sql("CREATE TABLE small (a int, b text) USING tde_heap;
	INSERT INTO small VALUES (1, '$canary')");
$rows{small} = sql(rows_sql('small'));
sql('CHECKPOINT');

# The key files of relations, and the tables whose own they are
sub table_keys
{
	return map { key_of($node, 'postgres', $_) => $_ } sort keys %rows;
}

# Lose some of the keys, or those of the tables given; returns the tables that
# have none.
sub lose_keys
{
	my ($keys, %only) = @_;
	my %keys = %$keys;
	my @lost;

	foreach my $file (sort { $a cmp $b } keys %{ key_files($node, 1) })
	{
		next if %only ? !$only{ $keys{$file} // '' } : rand() < 0.5;
		rename("$dir/$file", "$away/" . ($file =~ s{/}{:}gr)) or die "$file: $!";
		push @lost, $keys{$file} if $keys{$file};
	}
	return sort @lost;
}

sub give_back_keys
{
	foreach my $file (glob("$away/*"))
	{
		my $to = "$dir/" . (substr($file, length($away) + 1) =~ s{:}{/}gr);
		rename($file, $to) or die "$file: $!";
	}
	return;
}

sub nothing_in_clear
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# all but WAL, which is not encrypted here
	is(join(' ', grep { !/^pg_wal/ } files_with($dir, $canary)),
		'', "$what: nothing in clear");
	return;
}

# Use all tables, of which some have lost their keys.
sub use_tables
{
	my ($what, @lost) = @_;
	my %lost = map { $_ => 1 } @lost;
	my (@accepted, @silent);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $table (sort keys %rows)
	{
		my ($ret, $out, $err) =
		  $node->psql('postgres', fill_sql("$table (a, b)", $canary, 1001, 1100));
		push @accepted, $table if $ret == 0 && $lost{$table};
		push @silent, "$table: $err"
		  if $ret != 0
		  && $err !~ /could not get the encryption key of relation.*\n.*Key file/;
		$rows{$table} = undef if $ret == 0;
	}
	is("@accepted", '', "$what: no row for a table whose key is lost");
	is("@silent", '', "$what: errors name relation and key file");
	$node->psql('postgres', 'CHECKPOINT; SELECT FROM pg_buffercache_evict_all()');
	nothing_in_clear($what);
	return;
}

# All keys are there again, and so are all rows.
sub all_is_there
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->stop('immediate', fail_ok => 1) if -e "$dir/postmaster.pid";
	$node->{_pid} = undef;
	give_back_keys();
	$node->start;
	is( join(' ',
			grep { defined $rows{$_} && sql(rows_sql($_)) ne $rows{$_} }
			  sort keys %rows),
		'', "$what: with the keys the rows are back");
	sql(fill_sql('control', $control, 1, 100) . 'CHECKPOINT');
	nothing_in_clear("$what, in the end");
	isnt(join(' ', grep { !/^pg_wal/ } files_with($dir, $control)),
		'', "$what: the control is found");
	sql('TRUNCATE control');
	foreach my $table (sort keys %rows)
	{
		$rows{$table} //= sql(rows_sql($table));
	}
	sql('CHECKPOINT');
	return;
}

# Empty once more what shall be empty
sub empty_tables
{
	sql("TRUNCATE t$_") foreach grep { $_ % 3 != 2 } 1 .. $tables;
	sql('CHECKPOINT');
	$rows{$_} = sql(rows_sql($_)) foreach keys %rows;
	return;
}

foreach my $round (1 .. 2)
{
	# at rest
	my %keys = table_keys();
	$node->stop;
	my @lost = lose_keys(\%keys);
	$node->start;
	use_tables("lost at rest ($round)", @lost);
	all_is_there("lost at rest ($round)");
	empty_tables();

	# Under a server whose backend is killed, in which all caches are lost.
	# Other processes have used the relations before, and do so again.
	%keys = table_keys();
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	@lost = lose_keys(\%keys);
	my $offset = -s $node->logfile;
	kill 'KILL', $pid or die;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	eval { $session->quit };
	$node->poll_query_until('postgres', 'SELECT true') or die;
	use_tables("lost under a server ($round)", @lost);
	all_is_there("lost under a server ($round)");
	empty_tables();

	# In a crash, after which rows are replayed that are not on disk.  Replay
	# may stop at them, or never write them; no more.  A table with a page that
	# cannot be read when replay asks what it is, and which replay itself need
	# not read; and any that are not empty on disk.
	foreach my $case ('unreadable', 'any')
	{
		my $what = "lost in a crash ($case, $round)";
		my @only = 'small';

		%keys = table_keys();
		with_faults(sub { $node->restart }) if $case eq 'unreadable';
		sql(fill_sql("$_ (a, b)", $canary, 3001, 3001)) foreach sort keys %rows;
		sql('CHECKPOINT');
		sql(fill_sql("$_ (a, b)", $canary, 2001, 2100))
		  foreach $case eq 'unreadable' ? () : sort keys %rows;
		sql("INSERT INTO small VALUES (1, '$canary')");
		$rows{$_} = sql(rows_sql($_)) foreach keys %rows;
		set_faults(map { "EIO 100 read $dir/" . relation_path($node, 'postgres', $_) . '$' }
			  @only)
		  if $case eq 'unreadable';
		$node->stop('immediate');
		lose_keys(\%keys, $case eq 'any' ? () : map { $_ => 1 } @only);
		if (with_faults(sub { $node->start(fail_ok => 1) }))
		{
			$node->psql('postgres', 'CHECKPOINT');
			$node->psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
		}
		else
		{
			note 'replay stopped: ' . join ' ', grep { /FATAL|PANIC/ }
			  split /\n/, slurp_file($node->logfile);
		}
		nothing_in_clear($what);
		set_faults();
		all_is_there($what);
		empty_tables();
	}
}

$node->stop;
done_testing();
