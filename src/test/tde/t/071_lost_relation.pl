# Copyright (c) 2026, the Coffer authors

# The key file of one relation is lost, and WAL that changes the relation must
# be replayed.  The server stops and says how to go on without this relation;
# all others are as they should be, and it stays lost when the file is back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeLife;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $node = tde_node('main');
$node->append_conf('postgresql.conf', "autovacuum = off\ncheckpoint_timeout = 1h\npg_tde.give_up_databases = ''\n");
$node->start;
tde_setup($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

my $db = sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
my (%file, %name);
foreach my $t ('missing', 'damaged', 'kept')
{
	sql("CREATE TABLE $t (a int PRIMARY KEY, b text) USING tde_heap;
		INSERT INTO $t SELECT g, '$canary' || g FROM generate_series(1, 1000) g");
	$file{$t} = $node->data_dir . '/' . key_of($node, 'postgres', $t);
	$name{$t} = "$db/" . sql("SELECT pg_relation_filenode('$t')");
}
# of this one the index
sql("CREATE TABLE indexed (a int, b text) USING tde_heap;
	CREATE INDEX ix ON indexed (a);
	INSERT INTO indexed SELECT g, '$canary' FROM generate_series(1, 1000) g");
$file{ix} = $node->data_dir . '/' . key_of($node, 'postgres', 'ix');
$name{ix} = "$db/" . sql("SELECT pg_relation_filenode('ix')");
sql('CHECKPOINT');
# pages with and without a full image, new ones, and a truncation
sql("UPDATE $_ SET b = b || 'x';
	INSERT INTO $_ SELECT g, '$canary' || g FROM generate_series(1001, 3000) g;
	DELETE FROM $_ WHERE a > 2500;
	VACUUM $_") foreach ('missing', 'damaged', 'kept');
sql('UPDATE indexed SET a = a + 1');
tde_crash($node);

my %content = map { $_ => slurp_bytes($file{$_}) } keys %file;
unlink $file{missing} or die "$!";
unlink $file{ix} or die "$!";
unlink $file{damaged} or die "$!";
open(my $damaged, '>:raw', $file{damaged}) or die "$!";
print $damaged substr($content{damaged}, 0, 99);
close($damaged);

sub setting
{
	$node->adjust_conf('postgresql.conf', 'pg_tde.give_up_databases', "'$_[0]'");
	return;
}

sub fails_to_start
{
	my ($t, $what) = @_;
	my $from = -s $node->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->start(fail_ok => 1), 0, "$what: no start");
	like(slurp_file($node->logfile, $from),
		qr/FATAL:  could not get the encryption key of relation "base\/\Q$name{$t}\E"\n.*\n.*HINT:  Restore the key file from a backup\. To lose the relation instead, start the server with "pg_tde\.give_up_databases" set to '\Q$name{$t}\E'\./,
		"$what: the hint names the relation");
	return;
}

fails_to_start('missing', 'nothing set');
setting($name{kept});
fails_to_start('missing', 'another relation set');
setting($name{missing});
my $begin = -s $node->logfile;
fails_to_start('damaged', 'one of the two set');
foreach my $bad ("$db/", "$db/0", "$db/x", '/5', "$db/5/5")
{
	setting($bad);
	my $from = -s $node->logfile;
	is($node->start(fail_ok => 1), 0, "\"$bad\" is refused");
	like(slurp_file($node->logfile, $from),
		qr/invalid value for parameter "pg_tde\.give_up_databases"/, '... by name');
}
setting("$name{missing} , $name{damaged}, $name{kept},$name{ix}");
$node->start;
my $log = slurp_file($node->logfile, $begin);
foreach my $t ('missing', 'damaged', 'ix')
{
	my ($number) = $name{$t} =~ m{/(\d+)$};
	like($log, qr/WARNING:  giving up relation $number of database $db\n/, "$t: the log says so");
}
my ($kept) = $name{kept} =~ m{/(\d+)$};
unlike($log, qr/giving up relation $kept /, 'one whose key is there is not given up');

sub lost
{
	my ($what, @tables) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $t (@tables)
	{
		foreach my $sql ("SELECT count(*) FROM $t", "SELECT b FROM $t WHERE a = 1",
			"INSERT INTO $t VALUES (-1, '$canary')", "VACUUM $t")
		{
			my (undef, undef, $err) = $node->psql('postgres', "SET enable_seqscan = off; $sql");
			like($err, qr/ERROR:  relation "base\/\Q$name{$t}\E" is lost, because it was given up in recovery/,
				"$what: $sql");
		}
		like(sql("SELECT problem FROM pg_tde_relations WHERE relname = '$t'"),
			qr/The relation was given up in recovery\.$/, "$what: the view shows $t");
	}
	is(sql('SELECT count(*), max(a), sum(length(b)) FROM kept'),
		sql("SELECT 2500, 2500, sum(length('$canary' || g || CASE WHEN g <= 1000 THEN 'x' ELSE '' END)) FROM generate_series(1, 2500) g"),
		"$what: all others are replayed");
	return;
}
lost('given up', 'missing', 'damaged');
my $by_index = 'SET enable_seqscan = off; SELECT a FROM indexed WHERE a = 1001';
my (undef, undef, $err) = $node->psql('postgres', $by_index);
like($err, qr/ERROR:  relation "base\/\Q$name{ix}\E" is lost, because it was given up/, 'an index');
sql('REINDEX INDEX ix');
is(sql($by_index), 1001, 'an index made anew');
is(sql('SELECT count(*) FROM indexed'), 1000, '... and all rows of its table');
sql('CHECKPOINT');

# It is remembered
setting('');
$node->restart;
lost('restarted', 'missing', 'damaged');
sql('UPDATE kept SET b = b');
tde_crash($node);
$node->start;
lost('after another crash', 'missing', 'damaged');

# The files are back: the pages are of different ages
$node->stop;
foreach my $t ('missing', 'damaged')
{
	open(my $back, '>:raw', $file{$t}) or die "$!";
	print $back $content{$t};
	close($back);
}
$node->start;
lost('the files are back', 'missing', 'damaged');

# What is made anew is as any other
sql("TRUNCATE missing; INSERT INTO missing VALUES (1, '$canary');
	DROP TABLE damaged; CREATE TABLE damaged (a int) USING tde_heap; INSERT INTO damaged VALUES (2)");
tde_crash($node);
$node->start;
is(sql('SELECT count(*) FROM missing'), 1, 'truncated: usable');
is(sql('SELECT a FROM damaged'), 2, 'made anew: usable');
is(sql('SELECT count(*) FROM pg_tde_relations WHERE problem IS NOT NULL'), 0, 'no problem is left');
$node->stop;
is(join(' ', grep { !m{^pg_wal/} } files_with($node->data_dir, $canary)), '', 'nothing in clear');

done_testing();
