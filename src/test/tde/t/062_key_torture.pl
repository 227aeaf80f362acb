# Copyright (c) 2026, the Coffer authors

# Torture for keys: a primary and its standby under load, with DDL, rotations,
# copies, moves and drops of databases, backups that are restored, restarts,
# kills and promotions; and storage taken away meanwhile, below keys and below
# data.  After each round, with the storage whole again: no committed row is
# lost, everything can be read and is intact, each key is what it was and the
# same on both servers, and no canary is in clear on any disk.
#
# COFFER_TORTURE_ROUNDS rounds, 30 if it is not set.  A round does what its seed
# says, which is COFFER_TORTURE_SEED for the first and one more for each.  Where
# that is not set the seeds are always the same: a failure then comes from what was
# changed.  tools/check --full tries seeds that nobody has seen yet.  What fails
# leaves its directories.

use strict;
use warnings FATAL => 'all';

use File::Path ();
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeFaults;
use TdeTest;
use TdeTorture;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{COFFER_TORTURE_ROUNDS} || 30;
my $seed = $ENV{COFFER_TORTURE_SEED} || 45000000;

$ENV{PGCTLTIMEOUT} = 60;
$ENV{PGCONNECT_TIMEOUT} = 10;

my $pair = TdeTorture->new;
my (@done, @rules, %taken, @backups, %counts);
my ($round_seed, $storage_failed, %moved, %may_have_orphans);

sub pick { return $_[ rand @_ ]; }
sub primary { return $pair->primary; }

#
# What can happen.  Each sub returns what is to be said about it.
#
sub restart
{
	my ($node) = @_;
	my $how = pick('fast', 'immediate', 'kill');

	$how eq 'kill' ? $pair->crash($node) : $pair->stop($node, $how);
	sleep(rand(0.3));
	$pair->start($node);
	return $node->name . " $how";
}

sub kill_backend
{
	my $node = pick($pair->nodes);
	my ($ret, $out) = $pair->query($node, 'postgres',
		'SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	my ($pid, $type) = split /\|/, pick(split /\n/, $out) // '';

	return 'nobody' unless defined $pid;
	kill 'KILL', $pid;
	return $node->name . " $type";
}

sub rotate
{
	my $key = 'k' . int(rand(1e9));

	return pick(
		sub {
			$pair->sql(primary, 'postgres', qq{
				SELECT pg_tde_create_key_using_global_key_provider('$key', 'ring');
				SELECT pg_tde_set_default_key_using_global_key_provider('$key', 'ring')});
			return 'default';
		},
		sub {
			$pair->sql(primary, 'postgres', qq{
				SELECT pg_tde_create_key_using_global_key_provider('$key', 'ring');
				SELECT pg_tde_set_server_key_using_global_key_provider('$key', 'ring')});
			return 'server';
		},
		sub {
			my $db = pick(qw(own src_own));
			# half of them with a new provider
			my $provider = pick('p', $key);
			$pair->sql(primary, $db,
				"SELECT pg_tde_add_database_key_provider_file('$key', '$pair->{dir}/$key')")
			  if $provider ne 'p';
			$pair->sql(primary, $db, qq{
				SELECT pg_tde_create_key_using_database_key_provider('$key', '$provider');
				SELECT pg_tde_set_key_using_database_key_provider('$key', '$provider')});
			return $db . ($provider ne 'p' ? ', new provider' : '');
		})->();
}

sub copy_database
{
	my $db = pick(qw(src_own src_def));
	my $strategy = $may_have_orphans{$db} ? 'wal_log' : pick(qw(file_copy wal_log));
	my $where = pick('', ' TABLESPACE ts1', ' TABLESPACE ts2', ' TABLESPACE pg_default');
	my $name = "${db}_" . int(rand(1e9));

	$pair->job("CREATE DATABASE $name TEMPLATE $db STRATEGY $strategy$where");
	return "$db, $strategy$where";
}

# Not in a round with a backup.  One that misses both directories has neither:
# where the source is missing, upstream's replay copies an empty directory.
sub move_database
{
	return 'not while a backup runs' if @backups;
	my $db = pick(grep { /^src/ } eval { $pair->databases(primary) }) // 'src_def';
	my $where = pick(qw(ts1 ts2 pg_default));

	$moved{$db} = 1;
	$pair->forget_keys($db);
	$pair->job("ALTER DATABASE $db SET TABLESPACE $where");
	return "$db to $where";
}

sub drop_database
{
	my $db = pick(grep { /^src_\w+_/ } eval { $pair->databases(primary) })
	  // return 'none';

	$pair->sql(primary, 'postgres', "DROP DATABASE $db WITH (FORCE)");
	return $db;
}

sub backup
{
	return 'not while a database is moved' if %moved;
	my $dir = primary->basedir . '/backup' . @backups;

	mkdir $dir or die "could not make \"$dir\": $!";
	push @backups,
	  {
		dir => $dir,
		acks => $pair->copy_acks,
		job => $pair->job($pair->backup_to($dir))
	  };
	return 'begun';
}

sub checkpoint
{
	my $node = pick($pair->nodes);
	$pair->sql($node, 'postgres', 'CHECKPOINT');
	return $node->name;
}

#
# Storage taken away
#
sub fail_calls
{
	my $node = pick($pair->nodes);
	my $dir = $node->data_dir;
	my $below = pick(
		"$dir/pg_tde/", "$dir/pg_tde/", "$dir/pg_tde/global/", "$dir/base/",
		$node->basedir . '/ts1/', $node->basedir . '/ts2/',
		"$dir/pg_tblspc/");
	my $errno = pick(qw(EACCES EIO ENOSPC EMFILE ESTALE));
	my $calls =
	  $errno eq 'ENOSPC'
	  ? pick('write', 'create', 'create,write,rename')
	  : pick('*', 'open,create', 'stat', 'stat,open', 'opendir', 'read', 'write',
		'fsync', 'unlink', 'rename', 'read,write,fsync');
	my $rule = join ' ', $errno, pick(5, 30, 100), $calls, $below;

	$storage_failed = 1;
	push @rules, $rule;
	set_faults(@rules);
	return $rule;
}

sub heal_calls
{
	@rules = ();
	set_faults();
	return 'healed';
}

# A tablespace, now or while the server is down.  Nothing is mounted in its
# place only where nothing will be replayed: upstream's recovery would write
# into the empty directory.
sub lose_tablespace
{
	my $node = pick($pair->nodes);
	my $path = $node->basedir . '/' . pick(qw(ts1 ts2));
	my $how = pick('moved', 'forbidden');
	my $when = pick('running', 'stopped', 'crashed');

	return 'already away' if $taken{$path};
	$storage_failed = 1;
	if ($when eq 'stopped')
	{
		$pair->stop($node, 'fast');
		# A clean end: nothing to replay, which would make directories in the
		# mount point; and a standby would replay later.
		my ($control) = run_command([ 'pg_controldata', $node->data_dir ]);
		$how = pick('moved', 'forbidden', 'mountpoint')
		  if $node == primary && $control =~ /cluster state: +shut down$/m;
	}
	$pair->crash($node) if $when eq 'crashed';
	$taken{$path} = $how;
	take_away($path, $how);
	$pair->start($node) unless $when eq 'running';
	give_tablespace($path) if $how eq 'mountpoint';
	return "$path $how, $when";
}

sub give_tablespace
{
	my ($path) = @_;
	$path //= pick(sort keys %taken) // return 'none is away';
	delete $taken{$path};
	give_back($path);
	return $path;
}

my %events = (
	restart_primary => [ 2, sub { restart(primary) } ],
	restart_standby => [ 4, sub { restart($pair->standby) } ],
	kill_backend => [ 3, \&kill_backend ],
	rotate => [ 4, \&rotate ],
	copy_database => [ 4, \&copy_database ],
	move_database => [ 4, \&move_database ],
	drop_database => [ 3, \&drop_database ],
	backup => [ 2, \&backup ],
	checkpoint => [ 5, \&checkpoint ],
	fail_calls => [ 5, \&fail_calls ],
	heal_calls => [ 2, \&heal_calls ],
	lose_tablespace => [ 3, \&lose_tablespace ],
	give_tablespace => [ 2, sub { give_tablespace() } ],
);

#
# The end of a round
#
sub heal
{
	heal_calls();
	give_tablespace($_) foreach sort keys %taken;
	foreach my $node ($pair->nodes)
	{
		# One more try, as an administrator would; also where a postmaster is
		# up whose startup process has ended, as upstream's may be.
		$pair->start($node);
		next if $pair->answers($node);
		$pair->stop($node, 'immediate');
		$counts{'servers to be started by hand'}++;
		$pair->start($node) && $pair->answers($node)
		  or die $node->name . " does not start\n";
	}
	return;
}

# A backup that was completed can be restored, and has what was there when it
# began.
sub check_backup
{
	my ($backup, $label) = @_;

	if ($backup->{job}{ok})
	{
		my $node = PostgreSQL::Test::Cluster->new('restored' . $counts{restored}++);
		my $dir = $node->basedir;

		File::Path::remove_tree($dir);
		rename($backup->{dir}, $dir) or die "could not rename: $!";
		foreach my $spc (1, 2)
		{
			# the links are absolute
			foreach my $link (glob("$dir/pgdata/pg_tblspc/*"))
			{
				next unless readlink($link) =~ m{/ts$spc$};
				unlink $link;
				symlink("$dir/ts$spc", $link) or die;
			}
		}
		mkdir "$dir/backup";
		$node->append_conf('postgresql.conf', 'port = ' . $node->port . "\n");
		unlink "$dir/pgdata/standby.signal";
		$pair->start($node) or die "$label: a restored backup does not start\n";
		$pair->check_node($node, $backup->{acks}, "$label, restored", 1);
		$node->safe_psql('postgres', 'CHECKPOINT');
		$pair->check_canaries($dir, "$label, restored");
		$pair->stop($node, 'immediate');
		File::Path::remove_tree($dir);
		$counts{backups}++;
	}
	File::Path::remove_tree($backup->{dir});
	return;
}

# Nobody was told nonsense, and nobody died of it.  What a fault may lead to is
# allowed where there was one.
my %log_read;

sub check_errors
{
	my ($label) = @_;
	my $never = qr/TRAP:|terminated by signal (11|7|4|8):|is not encrypted|holds another key|could not decrypt|invalid page in block|page verification failed|cache lookup failed/;
	my $keys = qr/could not get the encryption key|could not use key file|PANIC/;
	my @lines = map { s/\n/ /gr } splice @{ $pair->{errors} // [] };

	foreach my $node ($pair->nodes)
	{
		my $from = $log_read{ $node->name } // 0;
		push @lines, split /\n(?=\d{4}-\d\d-\d\d )/,
		  slurp_file($node->logfile, $from);
		$log_read{ $node->name } = -s $node->logfile;
	}

	# PostgreSQL's own: whoever rolls back a transaction that has made storage
	# asks smgrexists() for it, and an error of that, as EACCES, is one in
	# the rollback itself.
	# (What it says before may be followed by a line of another process.)
	my $rollback_failed = grep { /AbortTransaction while in ABORT state/ } @lines;
	my $rollback = qr/TRAP: failed Assert\("TransactionIdIsValid\(proc->xid\)"\)/;
	# And whose postmaster dies while it waits for its I/O to end.
	my $shutdown =
	  qr/TRAP: failed Assert\("!IsTransactionOrTransactionBlock\(\)"\), File: "[^"]*pgstat\.c"/;
	my @wrong = grep {
		($_ =~ $never && !($storage_failed && $rollback_failed && $_ =~ $rollback) && $_ !~ $shutdown)
		  || (!$storage_failed && $_ =~ $keys)
	} @lines;
	die "$label: nonsense was said:\n" . join("\n", @wrong[0 .. ($#wrong > 4 ? 4 : $#wrong)]) . "\n"
	  if @wrong;
	return;
}

sub torture
{
	my $n = 3 + int(rand(5));
	my $label = "seed $round_seed";
	my @bag = map { ($_) x $events{$_}[0] } sort keys %events;

	# PostgreSQL's own: a crash while a database is moved leaves a directory
	# that only the primary has.  A later copy of files takes it along, and
	# ends the standby.
	@may_have_orphans{ keys %moved } = values %moved
	  if $storage_failed || grep { /kill|immediate|crash/ } @done;
	($storage_failed, @done, @backups) = (0);
	%moved = ();
	$pair->start_load("load$round_seed");
	sleep(0.2);
	foreach (1 .. $n)
	{
		my $event = pick(@bag);
		push @done, "$event: ";
		$done[-1] .= $events{$event}[1]->();
		$counts{$event}++;
		sleep(rand(0.4));
	}
	my $promotion = rand() < 0.12 ? pick('planned', 'crashed') : '';
	heal();
	$pair->stop_load unless $promotion eq 'crashed';
	if ($promotion)
	{
		my $how = pick('rewind_standby', 'rebuild_standby');

		push @done, "promotion: $promotion, $how";
		$pair->wait_replayed;
		$pair->promote($promotion);
		$pair->finish_jobs;
		$pair->$how();
		$counts{"promotions, $promotion, $how"}++;
	}
	$pair->finish_jobs;
	$pair->check($label);
	check_backup($_, $label) foreach @backups;
	check_errors($label);

	# leave the next one a pair of a size that does not grow
	my @copies = grep { /^src_\w+_/ } $pair->databases(primary);
	primary->safe_psql('postgres', 'DROP DATABASE ' . shift @copies)
	  while @copies > 2;
	$pair->forget_acks if rand() < 0.3;
	return;
}

note "COFFER_TORTURE_SEED=$seed COFFER_TORTURE_ROUNDS=$rounds";
foreach my $round (1 .. $rounds)
{
	my $begun = time;

	$round_seed = $seed + $round - 1;
	srand($round_seed);
	my $ok = eval { torture(); 1 };
	my $why = $@;
	note sprintf("round %d, seed %d, %.1f s: %s", $round, $round_seed,
		time - $begun, join('; ', @done));
	ok($ok, "round with seed $round_seed");
	next if $ok;
	diag("COFFER_TORTURE_SEED=$round_seed: $why" . join("\n", @done));
	set_faults();
	last;
}
note 'happened: ' . join ', ', map { "$counts{$_} $_" } sort keys %counts;
$pair->stop($_, 'immediate') foreach $pair->nodes;
done_testing();
