# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeLife - tests of when a key is made, and when it goes

=head1 SYNOPSIS

  use TdeLife;

  my $key = key_of($node, 'postgres', 't');     # pg_tde/5/16400.key
  my $all = key_files($node);                   # path => content

  attach($node, 'tde-key-logged', 'wait');
  my $session = parked($node, 'postgres', 'tde-key-logged', 'CREATE TABLE ...');
  release($node, 'tde-key-logged');

=head1 DESCRIPTION

Key files as they are on disk, and servers stopped in the middle.

=cut

package TdeLife;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Find ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;

our @EXPORT = qw(life_node key_of key_files key_id differing_files
  relation_path pages_of attach detach release parked insert_lsn redo_lsn
  wait_replayed replay_until replay_on rows_sql fill_sql);

=pod

=head1 FUNCTIONS

=over

=item life_node(name, %params)

A node of tde_node() where nothing happens by itself: no timed checkpoint, no
autovacuum.  Injection points can be used in it, in critical sections too.

=cut

sub life_node
{
	my ($name, %params) = @_;
	my $node = tde_node($name, %params);

	$node->append_conf(
		'postgresql.conf', q{
shared_preload_libraries = 'pg_tde, injection_points'
wal_level = replica
checkpoint_timeout = 1h
wal_retrieve_retry_interval = 100ms
autovacuum = off
max_prepared_transactions = 10
allow_in_place_tablespaces = on
});
	return $node;
}

=item relation_path(node, database, relation)

Path of a relation's main fork, relative to the data directory.

=cut

sub relation_path
{
	my ($node, $db, $relation) = @_;
	return $node->safe_psql($db,
		"SELECT pg_relation_filepath('$relation')");
}

=item key_of(node, database, relation)

Path of a relation's key file, relative to the data directory.

=cut

sub key_of
{
	my ($node, $db, $relation) = @_;
	return $node->safe_psql(
		$db, qq{
		SELECT 'pg_tde/' || d.oid || '/' || pg_relation_filenode('$relation')
			|| coalesce('_' || nullif(coalesce(nullif(c.reltablespace, 0),
				d.dattablespace), 1663), '') || '.key'
		FROM pg_database d, pg_class c
		WHERE d.datname = current_database() AND c.oid = '$relation'::regclass});
}

=item key_files(node)

All files under pg_tde, as a hash from path to content, without the lists of
relations, in which each node has its own history.  Key files only, that is
without scopes and providers, with a true second argument.

=cut

sub key_files
{
	my ($node, $only_relations) = @_;
	my $dir = $node->data_dir;
	my %files;

	return {} unless -d "$dir/pg_tde";
	File::Find::find(
		{
			no_chdir => 1,
			wanted => sub {
				return if !-f $_ || /\/relations$/;
				return if $only_relations && !/\/\d+(_\d+)?\.key$/;
				my $content = eval { slurp_bytes($_) };
				die $@ if !defined $content && -e $_;
				$files{ substr($_, length($dir) + 1) } = $content
				  if defined $content;
			}
		},
		"$dir/pg_tde");
	return \%files;
}

=item differing_files(ours, theirs)

The paths in two results of key_files() that are not the same in both.

=cut

sub differing_files
{
	my ($ours, $theirs) = @_;
	my %all = (%$ours, %$theirs);

	return grep {
			 !exists $ours->{$_}
		  || !exists $theirs->{$_}
		  || $ours->{$_} ne $theirs->{$_}
	} sort keys %all;
}

=item key_id(node, path)

The id of the key in a key file, in hexadecimal; the empty string if there is
no such file.

=cut

sub key_id
{
	my ($node, $path) = @_;
	my $file = $node->data_dir . "/$path";

	return '' unless -e $file;
	return unpack('H*', substr(slurp_bytes($file), 64, 16));
}

=item pages_of(node, path)

How many pages of a relation, all its forks, are in clear on disk, how many
are encrypted, and all their bytes.

=cut

sub pages_of
{
	my ($node, $path) = @_;
	my ($plain, $marked, $bytes) = (0, 0, '');

	foreach my $file (relation_files($node, $path))
	{
		my $content = slurp_bytes($file);
		my ($p, $m) = plain_and_marked($content);
		$plain += $p;
		$marked += $m;
		$bytes .= $content;
	}
	return ($plain, $marked, $bytes);
}

=item attach(node, point, action) and detach(node, point)

Set what happens at an injection point: "wait", "error" or "notice".  The
extension is made in database "postgres".

=cut

sub attach
{
	my ($node, $point, $action) = @_;
	$node->safe_psql('postgres',
		"SET client_min_messages = warning;
		 CREATE EXTENSION IF NOT EXISTS injection_points")
	  if $node->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f';
	$node->safe_psql('postgres',
		"SELECT injection_points_attach('$point', '$action')");
	return;
}

sub detach
{
	my ($node, $point) = @_;
	$node->safe_psql('postgres', "SELECT injection_points_detach('$point')");
	return;
}

=item parked(node, database, point, statement)

A background session whose statement has come to the injection point, which
was attached with "wait".

=cut

sub parked
{
	my ($node, $db, $point, $statement) = @_;
	my $session = $node->background_psql($db, on_error_stop => 0);

	$session->query_until(qr/begun/, "\\echo begun\n$statement;\n");
	$node->wait_for_event('client backend', $point);
	return $session;
}

=item release(node, point)

Detach a point that somebody waits at, and wake him.

=cut

sub release
{
	my ($node, $point) = @_;
	$node->safe_psql(
		'postgres', qq{
		SELECT injection_points_detach('$point');
		SELECT injection_points_wakeup('$point')});
	return;
}

=item insert_lsn(node) and redo_lsn(node)

Where WAL is, and the redo pointer in pg_control, as numbers.

=cut

sub insert_lsn
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		q{SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn});
}

sub redo_lsn
{
	my ($node) = @_;
	my ($out) = run_command([ 'pg_controldata', $node->data_dir ]);

	$out =~ /REDO location:\s+([0-9A-F]+)\/([0-9A-F]+)/
	  or die "no redo location in: $out";
	return hex($1) * 2**32 + hex($2);
}

=item wait_replayed(primary, standby, upstream)

Wait until a standby, which may follow another standby, has replayed all that
the primary has written.

=cut

sub wait_replayed
{
	my ($primary, $standby, $upstream) = @_;

	$upstream = $primary unless defined $upstream;
	$upstream->wait_for_catchup($standby, 'replay',
		$primary->lsn('insert'));
	return;
}

=item replay_until(node, lsn, restore_command) and replay_on(node)

Start a node that has crashed, or a stopped standby, so that it stops replay
before the record at this LSN, writes buffers out as it goes since it has few,
and stops; its files then show what replay has written so far.  replay_on()
starts it again without all that.  WAL is what the node has, and what the
command, if one is given, finds.

=cut

sub replay_until
{
	my ($node, $lsn, $restore_command) = @_;
	my $dir = $node->data_dir;
	my $standby = -e "$dir/standby.signal";

	$restore_command = 'false' unless defined $restore_command;
	rename("$dir/standby.signal", "$dir/standby.signal.away") if $standby;
	append_to_file("$dir/recovery.signal", '');
	$node->append_conf(
		'postgresql.conf', qq{
# replay_until
restore_command = '$restore_command'
recovery_target_lsn = '$lsn'
recovery_target_inclusive = off
recovery_target_action = shutdown
shared_buffers = 512kB
# end
});

	# It ends by itself, with an error if it is not consistent at that point.
	system_log('pg_ctl', '--wait', '--pgdata' => $dir,
		'--log' => $node->logfile, 'start');
	for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return unless -e "$dir/postmaster.pid";
		select(undef, undef, undef, 0.1);
	}
	die 'replay_until: the server did not stop';
}

sub replay_on
{
	my ($node) = @_;
	my $dir = $node->data_dir;
	my $conf = slurp_file("$dir/postgresql.conf");

	unlink "$dir/recovery.signal";
	rename("$dir/standby.signal.away", "$dir/standby.signal")
	  if -e "$dir/standby.signal.away";
	$conf =~ s/# replay_until.*?# end\n//s or die 'replay_until was not called';
	unlink "$dir/postgresql.conf";
	append_to_file("$dir/postgresql.conf", $conf);
	$node->start;
	return;
}

=item fill_sql(table, canary, first, last) and rows_sql(table)

Statements that fill a table (a int, b text), and a query that says what is
in it.

=cut

sub fill_sql
{
	my ($table, $canary, $first, $last) = @_;
	return "INSERT INTO $table SELECT g, '$canary' || g || repeat('.', 400)
		FROM generate_series($first, $last) g;";
}

sub rows_sql
{
	my ($table) = @_;
	return "SELECT count(*), sum(a), md5(string_agg(b, '' ORDER BY a))
		FROM $table";
}

=pod

=back

=cut

1;
