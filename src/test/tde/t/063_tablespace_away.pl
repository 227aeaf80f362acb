# Copyright (c) 2026, the Coffer authors

# Starts, checkpoints and crashes while the storage of a tablespace is away:
# moved, not mounted, forbidden, unreadable, or one file of it moved aside.  No
# key is removed, of a table there or of a database that lives there, and with
# the storage all rows are back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeFaults;
use TdeLife;
use TdeTest;
use Test::More;

my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
restart_after_crash = on
});
with_faults(sub { $node->start });
tde_setup($node);

my $ts = $node->basedir . '/ts';
my $ring = tde_keyring($node);
mkdir $ts, 0700 or die;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql("CREATE TABLESPACE ts LOCATION '$ts'");
sql('CREATE DATABASE lives TABLESPACE ts');
sql('CREATE DATABASE follows TABLESPACE ts');
tde_setup($node, $_) foreach qw(lives follows);
$node->safe_psql(
	'lives', qq{
	SELECT pg_tde_add_database_key_provider_file('own', '$ring.own');
	SELECT pg_tde_create_key_using_database_key_provider('own', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('own', 'own')});
my @tables = (
	[ 'postgres', 't' ],
	[ 'postgres', 'home' ],
	[ 'lives', 't' ],
	[ 'follows', 't' ]);
sub read_all
{
	return join "\n", map {
		$node->safe_psql($_->[0],
			"SELECT '@$_', count(*), sum(a), md5(string_agg(b, '' ORDER BY a)), max(nextval('$_->[1]_a_seq')) > 0
			 FROM $_->[1]")
	} @tables;
}

foreach (@tables)
{
	my ($db, $table) = @$_;
	my $where = $db eq 'postgres' && $table eq 't' ? 'TABLESPACE ts' : '';

	# a table that is empty, too
	$node->safe_psql(
		$db, qq{
		CREATE TABLE $table (a serial PRIMARY KEY, b text) USING tde_heap $where;
		CREATE TABLE ${table}_empty (a int, b text) USING tde_heap $where;
		INSERT INTO $table (b) SELECT 'row' || g FROM generate_series(1, 1000) g});
}
my $one_file = $node->data_dir . '/' . relation_path($node, 'postgres', 't');
my $oid = sql(q{SELECT oid FROM pg_database WHERE datname = 'lives'});
sql('CHECKPOINT');
my $rows = read_all();
my $keys = key_files($node);
delete $keys->{'pg_tde/global/wal_epochs'};
cmp_ok(scalar(grep { m{^pg_tde/$oid/\d+(_\d+)?\.key$} } keys %$keys),
	'>', 1, 'a database in the tablespace has keys');
ok(exists $keys->{"pg_tde/$oid/database_key.key"}, 'and a scope');

sub keys_are_there
{
	my ($what) = @_;
	my $now = key_files($node);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( join(' ', grep { ($now->{$_} // '') ne $keys->{$_} } sort keys %$keys),
		'', "$what: each key file is as it was");
	return;
}

# The storage is back; tables made and dropped meanwhile are of no interest.
sub all_is_there
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	keys_are_there($what);
	$node->start unless $node->{_pid};
	is(read_all(), $rows, "$what: all rows are there");
	$node->restart;
	sql('CHECKPOINT');
	is(read_all(), $rows, "$what: and after a restart and a checkpoint");
	$node->safe_psql($_->[0],
		"INSERT INTO $_->[1]_empty VALUES (1, 'x'); TRUNCATE $_->[1]_empty")
	  foreach @tables;
	sql('CHECKPOINT');
	$keys = key_files($node);
	delete $keys->{'pg_tde/global/wal_epochs'};
	return;
}

#
# Away at a start, over a checkpoint, one of a shutdown, and one more start
#
foreach my $how ('moved', 'mountpoint', 'forbidden')
{
	foreach my $path ($ts, $one_file)
	{
		my $what = ($path eq $ts ? 'tablespace' : 'one file') . " $how";

		next if $path ne $ts && $how eq 'mountpoint';
		with_faults(sub { $node->restart });
		$node->stop;
		take_away($path, $how);
		$node->start;
		sql('CHECKPOINT');
		keys_are_there("$what, started");
		isnt( $node->psql('postgres', 'SELECT count(*) FROM t'),
			0, "$what: the table there cannot be read");
		is(sql('SELECT count(*) FROM home'),
			'1000', "$what: one elsewhere can");
		$node->restart;
		$node->stop;
		give_back($path);
		all_is_there($what);
	}
}

# Whatever errno it is that the storage gives
foreach my $errno (qw(EACCES EIO ENOENT ENOTDIR EMFILE ESTALE ENOTCONN))
{
	$node->stop;
	set_faults("$errno 100 * $ts/", "$errno 100 * " . $node->data_dir . '/base/');
	note with_faults(sub { $node->start(fail_ok => 1) }) ? 'started' : 'not started';
	$node->psql('postgres', 'CHECKPOINT');
	keys_are_there("$errno at a start");
	$node->stop('immediate', fail_ok => 1);
	set_faults();
	$node->{_pid} = undef;
	all_is_there("$errno at a start");
}

#
# Away under a running server, one of whose backends is killed.  (Not
# "forbidden": upstream's recovery stops at such a tablespace.)
#
foreach my $how ('moved', 'mountpoint')
{
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $offset = -s $node->logfile;

	sql('CHECKPOINT');
	take_away($ts, $how);
	kill 'KILL', $pid or die;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	eval { $session->quit };
	$node->poll_query_until('postgres', 'SELECT true') or die;
	sql('CHECKPOINT');
	sql('CREATE TABLE x (a int) USING tde_heap; DROP TABLE x; CHECKPOINT');
	keys_are_there("running server, volume $how");
	$node->restart;
	give_back($ts);
	all_is_there("running server, volume $how");
}

#
# Away in a crash recovery that changes plain relations there before any
# other: that their files are missing does not make them encrypted.
#
$node->safe_psql('lives', 'CREATE TABLE plain (a int) USING heap');
sql('CHECKPOINT');
$keys = key_files($node);
$node->safe_psql('lives', 'INSERT INTO plain VALUES (1)');
$node->stop('immediate');
take_away($ts, 'moved');
note $node->start(fail_ok => 1) ? 'started' : 'not started';
$node->stop('immediate', fail_ok => 1);
$node->{_pid} = undef;
is( join(' ', grep { /\.key$/ && !exists $keys->{$_} } sort keys %{ key_files($node) }),
	'', 'recovery without a tablespace: no relation has got a key');
give_back($ts);
$node->start;
is($node->safe_psql('lives', 'SELECT count(*) FROM t'),
	'1000', '... rows are there');
is($node->safe_psql('lives', 'SELECT count(*) FROM plain'),
	1, '... plain relations are plain');

$node->stop;
done_testing();
