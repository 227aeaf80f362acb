# Copyright (c) 2026, the Coffer authors

# Base backups that run while principal keys are rotated, and providers added,
# deleted and moved.  A backup copies the list of providers, the scopes of the
# server and those of databases one after the other, in any order, so any
# states of them may come together.  Each backup restores, and all rows are
# there.
#
# One backup is taken by hand, from the primary and from a standby.  The key
# store is copied after each step; put together from these copies, it is what
# the backup would have if it had come to its files between the steps.  Then
# pg_basebackup, while the steps go round and round.

use strict;
use warnings FATAL => 'all';

use File::Copy;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeTest;
use TdeWal;

my $canary = 'CANARY-0123456789-abcdefgh';
my $t = '(a int, b text) USING tde_heap';

my $primary = life_node(
	'primary',
	allows_streaming => 1,
	extra => ['--wal-segsize=1']);
$primary->append_conf('postgresql.conf', q{
wal_keep_size = 1GB
min_wal_size = 2MB
});
$primary->start;
my $rings = $primary->basedir;

# A statement in both databases; with "own" for the one that has providers and
# a principal key of its own.
sub sql { return $primary->safe_psql($_[1] || 'postgres', $_[0]); }

# Add file providers, make keys in them, and rotate all scopes to those.
sub add_providers
{
	my ($global, $own) = @_;
	sql("SELECT pg_tde_add_global_key_provider_file('$global', '$rings/$global')");
	sql("SELECT pg_tde_add_database_key_provider_file('$own', '$rings/$own')",
		'own');
	return;
}

sub rotate
{
	my ($global, $own, $key) = @_;
	sql(qq{
		SELECT pg_tde_create_key_using_global_key_provider('$_-$key', '$global');
		SELECT pg_tde_set_${_}_key_using_global_key_provider('$_-$key', '$global')})
	  foreach qw(default server);
	sql(qq{
		SELECT pg_tde_create_key_using_database_key_provider('own-$key', '$own');
		SELECT pg_tde_set_key_using_database_key_provider('own-$key', '$own')},
		'own');
	return;
}

sub delete_providers
{
	my ($global, $own) = @_;
	sql("SELECT pg_tde_delete_global_key_provider('$global')");
	sql("SELECT pg_tde_delete_database_key_provider('$own')", 'own');
	return;
}

# Copy the keyrings of the providers to another place, and change these.
sub move_providers
{
	my ($global, $own) = @_;
	copy_keyring("$rings/$_", "$rings/$_.moved") foreach $global, $own;
	sql("SELECT pg_tde_change_global_key_provider_file('$global', '$rings/$global.moved')");
	sql("SELECT pg_tde_change_database_key_provider_file('$own', '$rings/$own.moved')",
		'own');
	return;
}

# Rows in an old table and in a new one, in both databases.
my $rows = 0;

sub write_rows
{
	my ($label) = @_;
	foreach my $db ('postgres', 'own')
	{
		sql("CREATE TABLE new_$label $t;"
			  . fill_sql("new_$label", $canary, 1, 20)
			  . fill_sql('live', $canary, $rows + 1, $rows + 20), $db);
	}
	$rows += 20;
	return;
}

sub all_rows
{
	my ($node) = @_;
	my $result = '';

	foreach my $db ('postgres', 'own')
	{
		my @tables = split /\n/,
		  $node->safe_psql($db,
			q{SELECT relname FROM pg_class WHERE relname ~ '^(live|new_)'});

		$result .= $node->safe_psql($db,
			join(' UNION ALL ',
				map { "SELECT '$db', '$_', * FROM (" . rows_sql($_) . ')' }
				  @tables)
			  . ' ORDER BY 2')
		  . "\n";
	}
	return $result;
}

# What a copy of the key store consists of, in parts that are copied together.
my %parts = (
	list => qr/^pg_tde\/[^\/]+\/provider_config$/,
	global => qr/^pg_tde\/global\/(?!provider_config$)/,
	database => qr/^pg_tde\/\d+\/(?!provider_config$)/);

sub copy_files
{
	my ($node, $to, $pattern) = @_;
	PostgreSQL::Test::RecursiveCopy::copypath(
		$node->data_dir,
		$to,
		filterfn => sub {
			return 0 if $_[0] =~ /^(postmaster\.(pid|opts)|pg_replslot\/.+)$/;
			return $_[0] eq '' || $_[0] =~ $pattern;
		});
	return;
}

# Put the key store together: a hash of parts, to the state that each is from.
sub write_key_store
{
	my ($dir, $states, $choice) = @_;

	foreach my $part (keys %parts)
	{
		my $files = $states->[ $choice->{$part} ];

		foreach my $path (grep { $_ =~ $parts{$part} } keys %$files)
		{
			my ($parent) = $path =~ /^(.*)\//;
			mkdir $_ foreach grep { !-d $_ } "$dir/pg_tde", "$dir/$parent";
			append_to_file("$dir/$path", $files->{$path});
		}
	}
	return;
}

sql('CREATE DATABASE own');
sql('CREATE EXTENSION pg_tde', $_) foreach 'postgres', 'own';
add_providers('ring', 'mine');
rotate('ring', 'mine', 0);
sql("CREATE TABLE live $t", $_) foreach 'postgres', 'own';
encrypt_wal($primary);
$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

# The steps.  Three in a row are how the manual moves keys from a file into a
# KMS.  The last one makes keys that are only where the provider has moved to.
my $round = 0;

sub steps
{
	my $from = $round++;
	my ($g1, $o1) = $from ? ("ring$from", "mine$from") : ('ring', 'mine');
	my ($g2, $o2) = ("ring$round", "mine$round");

	return (
		[ rotation => sub { rotate($g1, $o1, "$round-1"); } ],
		[
			'new provider' => sub {
				add_providers($g2, $o2);
				rotate($g2, $o2, "$round-2");
			}
		],
		[ deletion => sub { delete_providers($g1, $o1); } ],
		[ move => sub { move_providers($g2, $o2); } ],
		[ 'rotation after the move' => sub { rotate($g2, $o2, "$round-3"); } ]);
}

# Which states come together: of each step the one before and the one after, in
# all ways where providers come, go or have moved; else, and where more steps
# are between them, of the list and of all else.
sub choices
{
	my ($last) = @_;
	my @spans = (
		(map { [ $_ - 1, $_ ] } 1 .. $last),
		[ 0, 3 ], [ 1, 3 ], [ 3, $last ], [ 0, $last ]);
	my @choices;

	foreach my $span (@spans)
	{
		my $all = $span->[1] - $span->[0] == 1 && grep { $span->[1] == $_ } 2, 3, 5;

		foreach my $n ($all ? 1 .. 6 : (1, 6))
		{
			push @choices,
			  {
				list => $span->[ $n & 1 ],
				global => $span->[ $n >> 1 & 1 ],
				database => $span->[ $n >> 2 & 1 ]
			  };
		}
	}
	return @choices;
}

sub take_backup
{
	my ($node) = @_;
	my $name = 'by_hand_' . $node->name;
	my $backup = $node->backup_dir . "/$name";
	my $data = qr/^(?!pg_wal\/.|pg_tde)/;
	my @states;
	my @labels;

	mkdir $node->backup_dir;
	my $session = $node->background_psql('postgres');
	$session->query_safe("SELECT pg_backup_start('$name', fast => true)");
	copy_files($node, $backup, $data);
	foreach my $step ([ start => sub { } ], steps())
	{
		my ($label, $action) = @$step;

		$action->();
		write_rows($round . '_' . scalar @states);
		wait_replayed($primary, $standby);
		push @states, key_files($node);
		push @labels, $label;
	}

	# files of databases that are copied late
	copy_files($node, "$backup.late", $data);
	my $label = $session->query_safe(
		'SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)');
	$session->quit;
	foreach my $copy ($backup, "$backup.late")
	{
		copy($node->data_dir . '/global/pg_control', "$copy/global/pg_control")
		  or die "could not copy: $!"
		  if $node == $standby;
		rmdir "$copy/pg_wal" or die;
		PostgreSQL::Test::RecursiveCopy::copypath(
			$node->data_dir . '/pg_wal', "$copy/pg_wal");
		append_to_file("$copy/backup_label", "$label\n");
	}
	return ($name, \@states, \@labels);
}

# A node for all restored copies, one after the other.  They are to hold all rows
# that were committed before the backup ended; with "follow", when they have
# followed the primary, all.
my $restored = PostgreSQL::Test::Cluster->new('restored');
my $expected;

sub restore
{
	my ($node, $name, $label, $follow, $prepare) = @_;
	my $dir = $restored->data_dir;

	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $dir);
	$restored->init_from_backup($node, $name);
	unlink "$dir/standby.signal";
	$restored->enable_streaming($primary) if $follow;
	$prepare->($dir) if $prepare;
	my ($out, $err);
	my $keys = IPC::Run::run([ 'pg_tde_check_keys', '-q', $dir ],
		'>', \$out, '2>', \$err);
	ok($keys, "$label: keys can be had") or diag $err;
	my $started = $restored->start(fail_ok => 1);
	ok($started, "$label: starts");
	return unless $started;
	wait_replayed($primary, $restored) if $follow;
	is(all_rows($restored), $follow ? all_rows($primary) : $expected,
		"$label: all rows");
	my ($ours, $theirs) = map { key_files($_) } $restored, $primary;
	delete $_->{'pg_tde/global/wal_epochs'} foreach $ours, $theirs;
	is_deeply([ differing_files($ours, $theirs) ],
		[], "$label: the key store is that of the primary");
	$restored->stop;
	return;
}

foreach my $node ($primary, $standby)
{
	my ($name, $states, $labels) = take_backup($node);
	my $last = $#$states;
	my $n = 0;

	$expected = all_rows($primary);

	foreach my $choice (choices($last))
	{
		# of a standby, every third
		$n++;
		next if $node == $standby && $n % 3 != 0;
		restore(
			$node,
			$n % 2 ? $name : "$name.late",
			$node->name . ': '
			  . join(', ',
				map { "$_ after $labels->[$choice->{$_}] ($choice->{$_})" }
				sort keys %$choice)
			  . ($n % 2 ? ', data early' : ', data late'),
			0,
			sub { write_key_store($_[0], $states, $choice); });
	}
}

# With pg_basebackup, which is made to take its time.
foreach my $node ($primary, $standby)
{
	my $name = 'tool_' . $node->name;
	my ($out, $err) = ('', '');
	my $tool = IPC::Run::start(
		[
			'pg_basebackup', '--no-sync', '--checkpoint' => 'fast',
			'--max-rate' => '8M',
			'--pgdata' => $node->backup_dir . "/$name",
			'--host' => $node->host, '--port' => $node->port
		],
		'>', \$out, '2>', \$err);
	my $done = 0;

	while ($tool->pumpable)
	{
		foreach my $step (steps())
		{
			$step->[1]->();
			write_rows($round . '_tool_' . $done++);
			eval { $tool->pump_nb };    # dies when the program has ended
		}
	}
	ok($tool->finish, 'pg_basebackup of the ' . $node->name) or diag $err;
	note "$done steps during pg_basebackup";
	restore($node, $name, 'pg_basebackup of the ' . $node->name, 1);
}

$standby->stop;
$primary->stop;
done_testing();
