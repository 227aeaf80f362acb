# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeTorture - a pair of servers for the torture of keys, their load, their checks

=head1 SYNOPSIS

  my $pair = TdeTorture->new;
  $pair->start_load($seed);
  ...                               # anything may happen to the servers
  $pair->stop_load;
  $pair->check($label);             # dies if something is wrong

=head1 DESCRIPTION

Two servers, "one" and "two", of which one is the primary, each with two
tablespaces of its own; databases under load, "own" with a principal key of its
own in the first tablespace and "def" under the default key in the second; and
"src_own" and "src_def", which are copied and moved.

What is encrypted bears one canary, what is not another.  Sessions write down
what they were told to be committed.

=cut

package TdeTorture;

use strict;
use warnings FATAL => 'all';

use File::Path ();
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeFaults;
use TdeLife qw(key_id);
use TdeTest;
use Test::More;
use Time::HiRes qw(sleep);

# Never as one string in a statement: a log has statements.
my ($enc_canary, $plain_canary) = ('CANARY-ENC-0123456789', 'CANARY-PLAIN-0123456789');
my $enc_sql = "('CANARY-' || 'ENC-0123456789')";
my $plain_sql = "('CANARY-' || 'PLAIN-0123456789')";
my @loaded = qw(own def);
my @sources = qw(src_own src_def);

=pod

=head1 METHODS

=over

=item new()

The pair, running.

=cut

sub new
{
	my ($class) = @_;
	my $one = tde_node('one', allows_streaming => 1, extra => [ '--wal-segsize' => 4 ]);
	my $self = bless {
		primary => $one,
		standby => PostgreSQL::Test::Cluster->new('two'),
		dir => PostgreSQL::Test::Utils::tempdir(),
		acks => { map { $_ => {} } @loaded },
		keys => {},
		copies => 0,
		jobs => [],
	}, $class;

	$one->append_conf(
		'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 30s
max_wal_size = 64MB
wal_keep_size = 512MB
shared_buffers = 4MB
maintenance_work_mem = 64MB
work_mem = 32MB
restart_after_crash = on
max_connections = 40
wal_retrieve_retry_interval = 100ms
max_standby_streaming_delay = 1s
lock_timeout = 5s
log_min_messages = warning
log_min_error_statement = panic
});
	mkdir $one->basedir . "/ts$_", 0700 foreach 1, 2;
	with_faults(sub { $one->start });
	tde_setup($one);
	$one->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
	$one->safe_psql('postgres', q{
		SELECT pg_tde_create_key_using_global_key_provider('server', 'ring');
		SELECT pg_tde_set_server_key_using_global_key_provider('server', 'ring')});
	with_faults(sub { $one->restart });
	$self->make_databases;
	$self->rebuild_standby;
	return $self;
}

sub make_databases
{
	my ($self) = @_;
	my $one = $self->{primary};
	my $ring = tde_keyring($one);

	$one->safe_psql('postgres',
		"CREATE TABLESPACE ts$_ LOCATION '" . $one->basedir . "/ts$_'")
	  foreach 1, 2;
	foreach my $db (@loaded, @sources)
	{
		my $own = $db =~ /own/;
		my $where = $own ? 'ts1' : 'ts2';

		$one->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE $where");
		$one->safe_psql($db, 'CREATE EXTENSION pg_tde; CREATE EXTENSION amcheck');
		$one->safe_psql(
			$db, qq{
			SELECT pg_tde_add_database_key_provider_file('p', '$ring.$db');
			SELECT pg_tde_create_key_using_database_key_provider('$db', 'p');
			SELECT pg_tde_set_key_using_database_key_provider('$db', 'p')})
		  if $own;
		$one->safe_psql(
			$db, qq{
			CREATE TABLE ack (id bigint PRIMARY KEY, b text, c text) USING tde_heap;
			ALTER TABLE ack ALTER c SET STORAGE EXTERNAL;
			CREATE TABLE never_filled (a int, b text) USING tde_heap;
			CREATE TABLE elsewhere (a serial PRIMARY KEY, b text)
				USING tde_heap TABLESPACE pg_default;
			CREATE TABLE plain (a serial PRIMARY KEY, b text) USING heap;
			INSERT INTO elsewhere (b) SELECT $enc_sql || g FROM generate_series(1, 200) g;
			INSERT INTO plain (b) SELECT $plain_sql || g FROM generate_series(1, 200) g;
			INSERT INTO ack SELECT -g, $enc_sql || -g FROM generate_series(1, 200) g});
	}
	$self->{src_digest} = { map { $_ => $self->digest($one, $_) } @sources };
	return;
}

=item primary(), standby(), nodes()

=item is_up(node), start(node), stop(node, mode), crash(node)

A server may end by itself at any time here.  start() returns whether it did.

=cut

sub primary { return $_[0]->{primary}; }
sub standby { return $_[0]->{standby}; }
sub nodes { return ($_[0]->{primary}, $_[0]->{standby}); }

sub is_up
{
	my ($self, $node) = @_;
	my $file = $node->data_dir . '/postmaster.pid';

	open(my $fh, '<', $file) or return 0;
	my $pid = <$fh>;
	close $fh;
	return 0 unless defined $pid && $pid =~ /^(\d+)/;
	return kill(0, $1);
}

sub start
{
	my ($self, $node) = @_;

	return 1 if $self->is_up($node);
	# what is left of the one that ended must not hold its memory any more
	$node->{_pid} = undef;
	foreach my $try (1 .. 100)
	{
		my $from = -e $node->logfile ? -s $node->logfile : 0;
		return 1 if with_faults(sub { tde_try_start($node) });
		return 0
		  unless slurp_file($node->logfile, $from) =~
		  /pre-existing shared memory block|lock file .* already exists/;
		sleep(0.1);
	}
	return 0;
}

sub stop
{
	my ($self, $node, $mode) = @_;

	return unless $self->is_up($node);
	$node->_update_pid(-1);
	$node->stop($mode, fail_ok => 1, timeout => 60)
	  or $node->stop('immediate', fail_ok => 1);
	$node->{_pid} = undef;
	return;
}

sub crash
{
	my ($self, $node) = @_;

	return unless $self->is_up($node);
	$node->_update_pid(-1);
	my $pid = $node->{_pid};
	$node->kill9;
	$node->{_pid} = undef;

	# pg_rewind's server looks whether it is there, and init may be slow
	foreach my $try (1 .. 300)
	{
		last unless kill(0, $pid);
		sleep(0.1);
	}
	return;
}

=item answers(node)

Can one connect to it, in a while?

=cut

sub answers
{
	my ($self, $node) = @_;

	foreach my $try (1 .. 100)
	{
		return 0 unless $self->is_up($node);
		return 1 if ($self->query($node, 'postgres', 'SELECT'))[0] == 0;
		sleep(0.1);
	}
	return 0;
}

=item query(node, database, sql)

What psql() gives: status, output, errors.  A server that goes down is no reason
to die, also where psql ends before it was given the query.

=cut

sub query
{
	my ($self, $node, $db, $sql) = @_;
	my @result = eval { $node->psql($db, $sql, timeout => 120) };

	return @result ? @result : (2, '', $@);
}

=item sql(node, database, sql)

Runs SQL that may fail; returns whether it did not.

=item job(command, ...)

Something that goes on in the background until finish_jobs(): a command line,
or the SQL of one statement that is run in database "postgres".

=cut

sub sql
{
	my ($self, $node, $db, $sql) = @_;
	my ($ret, $out, $err) = $self->query($node, $db, $sql);

	push @{ $self->{errors} }, split(/\n(?=psql:|ERROR|FATAL)/, $err) if $err ne '';
	return $ret == 0;
}

sub job
{
	my ($self, @command) = @_;
	my $node = $self->{primary};
	my %job = (out => '');

	@command = (
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p',
		$node->port, '-d', 'postgres', '-c', $command[0]) if @command == 1;
	$job{run} = IPC::Run::start(\@command, '<', \'', '>', \$job{out}, '2>', \$job{out});
	push @{ $self->{jobs} }, \%job;
	return \%job;
}

sub finish_jobs
{
	my ($self) = @_;

	foreach my $job (@{ $self->{jobs} })
	{
		$job->{ok} = $job->{run}->finish;
		push @{ $self->{errors} }, split(/\n(?=psql:|ERROR|FATAL)/, $job->{out})
		  if !$job->{ok};
	}
	$self->{jobs} = [];
	return;
}

=item start_load(name), stop_load()

Sessions on the primary: two a database write rows and note them, two a database
make, rewrite and drop relations, as the random generator has it.

=cut

# Statements for a relation that may or may not be there
sub random_ddl
{
	my ($t) = @_;
	my $am = rand() < 0.75 ? 'tde_heap' : 'heap';
	my $spc = (qw(ts1 ts2 pg_default))[ rand 3 ];
	my $value = $am eq 'heap' ? 1 : $enc_sql;
	my @choices = (
		"DROP TABLE IF EXISTS $t; CREATE TABLE $t (a serial PRIMARY KEY, b text, c text) USING $am TABLESPACE $spc;
		 INSERT INTO $t (b) SELECT $value || g FROM generate_series(1, 300) g;",
		"DROP TABLE IF EXISTS $t; CREATE UNLOGGED TABLE $t (a serial PRIMARY KEY, b text, c text) USING $am;
		 INSERT INTO $t (b) SELECT $value || g FROM generate_series(1, 300) g;",
		"DROP TABLE IF EXISTS $t;",
		"TRUNCATE $t;",
		"BEGIN; TRUNCATE $t; INSERT INTO $t (b) SELECT g FROM generate_series(1, 50) g; ROLLBACK;",
		"BEGIN; SAVEPOINT s; DROP TABLE $t; ROLLBACK TO s; INSERT INTO $t (b) VALUES (1); COMMIT;",
		"BEGIN; CREATE TABLE ${t}_x (b text) USING tde_heap; INSERT INTO ${t}_x VALUES ($enc_sql);
		 SAVEPOINT s; CREATE INDEX ON ${t}_x (b); ROLLBACK TO s; ROLLBACK;",
		"VACUUM FULL $t;",
		"ALTER TABLE $t SET TABLESPACE $spc;",
		"ALTER TABLE $t SET ACCESS METHOD tde_heap;",
		"ALTER TABLE $t SET LOGGED;",
		"CREATE INDEX ON $t (b);",
		"REINDEX TABLE $t;",
		"VACUUM $t;",
		"INSERT INTO $t (c) SELECT repeat(md5(g::text), 200) FROM generate_series(1, 5) g;",
		"DELETE FROM $t WHERE a % 3 = 0;",
		"UPDATE $t SET c = 'x' WHERE a % 7 = 0;",
		"SELECT count(*) FROM $t;");
	return $choices[ rand @choices ] . "\n";
}

sub start_load
{
	my ($self, $name) = @_;
	my $node = $self->{primary};
	my $dir = "$self->{dir}/$name";

	$self->{load} = { dir => $dir, stop => "$dir/stop", runs => [] };
	mkdir $dir or die "could not make \"$dir\": $!";
	foreach my $db (@loaded)
	{
		my $row = "(random() * 9e15)::bigint AS id OFFSET 0";
		my $insert = "INSERT INTO ack SELECT id, $enc_sql || id,
			CASE WHEN id % 10 = 0 THEN repeat(md5(id::text), 100) END FROM (SELECT $row)";

		foreach my $n (0 .. 3)
		{
			my $script = '';

			if ($n < 2)
			{
				$script .= "$insert RETURNING 'ack ' || id;\n" x 8;
				$script .= "BEGIN; $insert; SAVEPOINT s; $insert; ROLLBACK TO s;
					$insert RETURNING id \\gset\nCOMMIT;
					SELECT 'ack ' || id FROM ack WHERE id = :id;
					INSERT INTO plain (b) VALUES ($plain_sql);\n";
				$script .= "\\unset id\n";
			}
			else
			{
				$script .= random_ddl('d' . $n . int(rand 5)) foreach 1 .. 14;
				$script .= (
					'VACUUM FULL ack;', 'REINDEX TABLE ack;', 'VACUUM ack;',
					'ALTER TABLE elsewhere SET TABLESPACE ts1;',
					'ALTER TABLE elsewhere SET TABLESPACE pg_default;')[ rand 5 ]
				  if $n == 2;
			}
			append_to_file("$dir/$db$n.sql", $script);
			my $psql = join ' ', 'psql -XAtq -h', $node->host, '-p', $node->port,
			  '-d', $db, '-f', "$dir/$db$n.sql";
			push @{ $self->{load}{runs} }, IPC::Run::start(
				[
					'sh', '-c',
					"while [ ! -e $dir/stop ] && kill -0 $$; do $psql >>$dir/$db$n.out 2>>$dir/$db$n.err || sleep 0.1; done"
				]);
		}
	}
	return;
}

sub stop_load
{
	my ($self) = @_;
	my $load = delete $self->{load} or return;

	append_to_file($load->{stop}, '');
	$_->finish foreach @{ $load->{runs} };
	$self->read_acks($load);
	foreach my $file (glob("$load->{dir}/*.err"))
	{
		push @{ $self->{errors} }, split(/\n(?=psql:)/, slurp_file($file));
	}
	File::Path::remove_tree($load->{dir});
	return;
}

# What was acknowledged so far, a database each
sub read_acks
{
	my ($self, $load) = @_;

	$load //= $self->{load};
	foreach my $db (@loaded)
	{
		foreach my $file (glob("$load->{dir}/$db*.out"))
		{
			my $out = slurp_file($file);
			$self->{acks}{$db}{$1} = 1 while $out =~ /^ack (\d+)$/mg;
		}
	}
	return;
}

=item copy_acks()

What was acknowledged up to now.

=cut

sub copy_acks
{
	my ($self) = @_;
	$self->read_acks if $self->{load};
	return { map { $_ => { %{ $self->{acks}{$_} } } } @loaded };
}

=item rebuild_standby(), rewind_standby()

The other server becomes a standby of the primary, by a base backup or by
pg_rewind; and is started.

=cut

sub follow_primary
{
	my ($self) = @_;
	my ($primary, $standby) = $self->nodes;

	$standby->append_conf('postgresql.conf',
		"port = " . $standby->port . "\nprimary_conninfo = '"
		  . $primary->connstr . " application_name=" . $standby->name . "'\n");
	$standby->set_standby_mode;
	$self->start($standby) or die 'the standby does not start';
	return;
}

sub backup_to
{
	my ($self, $dir) = @_;
	my $primary = $self->{primary};

	return (
		'pg_basebackup', '--no-sync', '--checkpoint' => 'fast',
		'--pgdata' => "$dir/pgdata", '--host' => $primary->host,
		'--port' => $primary->port,
		map { ('-T', $primary->basedir . "/ts$_=$dir/ts$_") } 1, 2);
}

sub rebuild_standby
{
	my ($self) = @_;
	my $standby = $self->{standby};

	File::Path::remove_tree($standby->data_dir,
		map { $standby->basedir . "/ts$_" } 1, 2);
	system_or_bail($self->backup_to($standby->basedir));
	$self->follow_primary;
	return;
}

sub rewind_standby
{
	my ($self) = @_;
	my ($primary, $standby) = $self->nodes;

	# conninfo and timeline are in its control file only after a checkpoint
	$primary->safe_psql('postgres', 'CHECKPOINT');
	my @command = (
		'pg_rewind', '--no-sync', '--target-pgdata' => $standby->data_dir,
		'--source-server' => $primary->connstr('postgres'));
	my ($done, $out);

	# PostgreSQL's own: a crash right after the creation of an unlogged table was
	# rolled back leaves its main fork, truncated, while replay brings its init
	# fork back, and the first recovery does not overwrite the one with the other.
	# The second one does.
	foreach my $try (1 .. 2)
	{
		$done = IPC::Run::run(\@command, '>&', \$out);
		last if $done || $out !~ /FATAL:  could not create file "[^"]*": File exists/;
	}
	ok($done, 'pg_rewind') or diag($out);
	$self->follow_primary;
	return;
}

=item promote(how)

The servers change roles: "planned", the primary being stopped first, or
"crashed", under load, where what was acknowledged last may be lost.

=cut

sub promote
{
	my ($self, $how) = @_;
	my ($old, $new) = $self->nodes;
	my $sure;

	if ($how eq 'crashed')
	{
		$sure = $self->copy_acks;
		$self->wait_replayed;
		sleep(rand(0.3));
		$self->crash($old);
		$self->stop_load;
	}
	else
	{
		$self->stop($old, 'fast');
		$sure = $self->copy_acks;
	}
	$new->promote;
	$new->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die;
	@$self{qw(primary standby)} = ($new, $old);
	$self->check_acks($new, $sure, "after promotion ($how)");
	# file numbers are given out again
	$self->{keys} = {};
	foreach my $db (@loaded)
	{
		$self->{acks}{$db} = { map { $_ => 1 } split /\n/,
			$new->safe_psql($db, 'SELECT id FROM ack WHERE id > 0') };
	}
	return;
}

sub wait_replayed
{
	my ($self) = @_;
	my ($primary, $standby) = $self->nodes;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	return;
}

=back

=head1 CHECKS

=over

=item check(label), check_node(node, acks, label)

All of it: on both servers after they have come to rest, or on one that was
restored from a backup.

=cut

sub wrong
{
	my ($self, $what) = @_;
	die "$what\n";
}

# Rows of every relation; those that are not logged, if it is a primary.  (A
# sequence is not at the same number on a standby.)
sub digest
{
	my ($self, $node, $db, $unlogged) = @_;
	my $persistence = $unlogged ? "'p', 'u'" : "'p'";

	return $node->safe_psql(
		$db, qq{
SELECT format(CASE relkind WHEN 'S' THEN 'SELECT %L, last_value > 0 FROM %s'
	ELSE 'SELECT %L, count(*), sum(hashtext(t::text)) FROM %s t' END, oid::regclass, oid::regclass)
FROM pg_class WHERE relnamespace = 'public'::regnamespace
	AND relkind IN ('r', 'm', 'S') AND relpersistence IN ($persistence)
ORDER BY relname
\\gexec
}, timeout => 120);
}

sub check_acks
{
	my ($self, $node, $acks, $label) = @_;

	foreach my $db (@loaded)
	{
		my %there = map { $_ => 1 } split /\n/, $node->safe_psql($db,
			"SELECT id FROM ack WHERE b = $enc_sql || id
			 AND (id % 10 <> 0 OR id < 0 OR c = repeat(md5(id::text), 100))");
		my @lost = grep { !$there{$_} } sort keys %{ $acks->{$db} };
		$self->wrong("$label: " . @lost . " committed rows of database \"$db\" are lost: @lost[0 .. ($#lost > 5 ? 5 : $#lost)]")
		  if @lost;
		$self->wrong("$label: the first rows of database \"$db\" are lost")
		  if grep { !$there{ -$_ } } 1 .. 200;
	}
	return;
}

sub databases
{
	my ($self, $node) = @_;
	return split /\n/, $node->safe_psql('postgres',
		q{SELECT datname FROM pg_database WHERE datallowconn AND datname !~ '^(postgres|template)'
		  AND datconnlimit <> -2 ORDER BY 1});
}

sub check_node
{
	my ($self, $node, $acks, $label, $writable) = @_;

	$self->check_acks($node, $acks, $label);
	foreach my $db ($self->databases($node))
	{
		my $digest = $self->digest($node, $db, $writable);

		if ($db =~ /(src_own|src_def)/)
		{
			$self->wrong("$label: rows of database \"$db\" are not those of its source")
			  if $digest ne $self->{src_digest}{$1};
		}
		$node->safe_psql(
			$db, q{
			SELECT bt_index_check(c.oid, true) FROM pg_class c
			WHERE relkind = 'i' AND relam = 403
			  AND relnamespace IN ('public'::regnamespace, 'pg_toast'::regnamespace)
			  AND c.oid >= 16384}
			  . ($writable ? '' : q{ AND relpersistence = 'p'}),
			timeout => 120);
		my $heap = $node->safe_psql(
			$db, q{
			SELECT c.oid::regclass, v.* FROM pg_class c, verify_heapam(c.oid) v
			WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace}
			  . ($writable ? '' : q{ AND relpersistence = 'p'}),
			timeout => 120);
		$self->wrong("$label: heap of database \"$db\": $heap") if $heap ne '';
	}
	return;
}

# No canary of what is encrypted on a server's disk, and the control is there
sub check_canaries
{
	my ($self, $dir, $label) = @_;
	my @where = grep { -d $_ } map { "$dir/$_" } qw(pgdata ts1 ts2);
	my ($found) = run_command([ 'grep', '-rlaF', $enc_canary, @where ]);
	my ($control) = run_command([ 'grep', '-rlaF', $plain_canary, @where ]);

	$self->wrong("$label: in clear: $found") if $found ne '';
	$self->wrong("$label: the control was not found") if $control eq '';
	return;
}

# Path and id of the keys of all encrypted relations
sub key_ids
{
	my ($self, $node) = @_;
	my %ids;

	foreach my $db ($self->databases($self->{primary}))
	{
		foreach my $path (
			split /\n/,
			$self->{primary}->safe_psql(
				$db, q{
				SELECT 'pg_tde/' || d.oid || '/' || pg_relation_filenode(c.oid)
					|| coalesce('_' || nullif(coalesce(nullif(c.reltablespace, 0),
						d.dattablespace), 1663), '') || '.key'
				FROM pg_database d, pg_class c
				WHERE d.datname = current_database() AND c.relpersistence <> 't'
				  AND c.relkind IN ('r', 'm', 't', 'i', 'S')
				  AND (SELECT pg_tde_is_encrypted(c.oid))}))
		{
			$ids{$path} = key_id($node, $path);
		}
	}
	return \%ids;
}

sub check
{
	my ($self, $label) = @_;
	my ($primary, $standby) = $self->nodes;
	my $acks = $self->{acks};

	$primary->safe_psql('postgres', 'CHECKPOINT');
	$self->wait_replayed;
	$standby->safe_psql('postgres', 'CHECKPOINT');
	$self->check_node($primary, $acks, "$label, primary", 1);
	$self->check_node($standby, $acks, "$label, standby", 0);
	foreach my $db ($self->databases($primary))
	{
		$self->wrong("$label: the standby has other rows in database \"$db\"")
		  if $self->digest($primary, $db) ne $self->digest($standby, $db);
	}
	$self->check_canaries($_->basedir, "$label, " . $_->name)
	  foreach $primary, $standby;

	my $ids = $self->key_ids($primary);
	my $theirs = $self->key_ids($standby);
	foreach my $path (sort keys %$ids)
	{
		$self->wrong("$label: no key $path of a live relation") if $ids->{$path} eq '';
		$self->wrong("$label: the standby has another key $path")
		  if $ids->{$path} ne $theirs->{$path};
		$self->wrong("$label: key $path has changed")
		  if exists $self->{keys}{$path} && $self->{keys}{$path} ne $ids->{$path};
	}
	$self->{keys} = $ids;
	return;
}

=item forget_keys(database)

Its relations may get other keys under the same names: a database that is moved
to another tablespace and back does.

=cut

sub forget_keys
{
	my ($self, $db) = @_;
	my ($ret, $oid) = $self->query($self->{primary}, 'postgres',
		"SELECT oid FROM pg_database WHERE datname = '$db'");

	delete @{ $self->{keys} }{ grep { $ret != 0 || m{^pg_tde/$oid/} } keys %{ $self->{keys} } };
	return;
}

=item forget_acks()

Empty the tables of acknowledged rows, so that rounds stay short.

=cut

sub forget_acks
{
	my ($self) = @_;

	foreach my $db (@loaded)
	{
		$self->{primary}->safe_psql($db,
			"BEGIN; TRUNCATE ack, plain; INSERT INTO ack SELECT -g, $enc_sql || -g FROM generate_series(1, 200) g;
			 INSERT INTO plain (b) SELECT $plain_sql || g FROM generate_series(1, 200) g; COMMIT");
		$self->{acks}{$db} = {};
	}
	return;
}

=pod

=back

=cut

1;
