# Copyright (c) 2026, the Coffer authors

# Key files that are missing, truncated, changed, or another relation's: an
# error that names the relation and the file, never plaintext on disk, never a
# crash.  The rest of the cluster works, the damaged table can be dropped, and
# the data is back with the file.  So too for the files that protect the key
# files, and for a server that crashed.

use strict;
use warnings FATAL => 'all';

use File::Copy;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

my $node = tde_node('main');
$node->append_conf(
	'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
restart_after_crash = off
});
$node->start;
tde_setup($node);
$node->safe_psql('postgres', 'CREATE DATABASE other');
tde_setup($node, 'other');

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $make = qq{
	CREATE TABLE %s (a serial PRIMARY KEY, b text, c text) USING tde_heap;
	ALTER TABLE %s ALTER c SET STORAGE EXTERNAL;
	INSERT INTO %s (b, c) SELECT '$canary' || g,
		CASE WHEN g % 100 = 0 THEN repeat('$canary', 200) END
		FROM generate_series(1, 1000) g;
	VACUUM %s};

sub make_table
{
	my ($db, $table) = @_;
	$node->safe_psql($db, $_) foreach split /;/, $make =~ s/%s/$table/gr;
	return;
}

# What a table holds
sub rows
{
	my ($table, $db) = @_;
	return $node->safe_psql($db // 'postgres',
		"SELECT count(*), sum(a), md5(string_agg(b || coalesce(c, ''), '' ORDER BY a)) FROM $table");
}

make_table('postgres', $_) foreach ('victim', 'sibling');
make_table('other', 'stranger');
sql('CREATE TABLE plain AS SELECT g AS a, g::text AS b, NULL::text AS c FROM generate_series(1, 1000) g');
sql('CHECKPOINT');

my %rows = map { $_ => rows($_) } ('victim', 'sibling', 'plain');
$rows{stranger} = rows('stranger', 'other');

# Path of a relation's file, and of its key file
sub paths
{
	my ($relation, $db) = @_;
	my $path = $node->safe_psql($db // 'postgres',
		"SELECT pg_relation_filepath('$relation')");
	my ($dboid, $number) = $path =~ m{base/(\d+)/(\d+)$} or die $path;
	return ($path, "pg_tde/$dboid/$number.key");
}

my ($path, $key) = paths('victim');
my (undef, $sibling_key) = paths('sibling');
my (undef, $stranger_key) = paths('stranger', 'other');
my ($pkey_path, $pkey_key) = paths('victim_pkey');
my ($dboid) = $key =~ m{/(\d+)/};
my ($other_oid) = $stranger_key =~ m{/(\d+)/};

my $dir = $node->data_dir;
my $saved = $node->basedir . '/saved';
system_or_bail('cp', '-r', "$dir/pg_tde", $saved);

sub saved { return slurp_bytes("$saved/" . $_[0] =~ s{^pg_tde/}{}r); }

sub write_bytes
{
	my ($file, $bytes) = @_;
	open(my $fh, '>:raw', "$dir/$file") or die "could not open \"$file\": $!";
	print $fh $bytes;
	close($fh) or die;
	return;
}

sub restore
{
	foreach my $file (@_)
	{
		rmdir "$dir/$file" if -d "$dir/$file";
		unlink "$dir/$file";
		write_bytes($file, saved($file));
	}
	return;
}

# Nothing of the canary is on disk, WAL apart, which is not encrypted.
sub no_plaintext
{
	my ($what) = @_;
	my @found = grep { !m{^pg_wal/} } files_with($dir, $canary);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("@found", '', "$what: nothing in clear on disk");
	return;
}

sub nobody_died
{
	my ($what, $from) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike(slurp_file($node->logfile, $from),
		qr/terminated by signal|PANIC|TRAP:/,
		"$what: nobody died");
	return;
}

# A statement must fail in a way that names relation and file, of any relation
# if none is given.
sub fails
{
	my ($sql, $relation_path, $file, $reason, $what, $db) = @_;
	my ($ret, $out, $err) = $node->psql($db // 'postgres', $sql);

	$relation_path = defined $relation_path ? quotemeta $relation_path : qr{base/\d+/\d+};
	$file = defined $file ? quotemeta $file : qr{pg_tde/\d+/\d+\.key};
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(
		$err,
		qr/ERROR:  could not get the encryption key of relation "$relation_path"\nDETAIL:  Key file "$file": $reason\.\nHINT:  Restore the key file/,
		$what);
	is($out, '', "$what: no rows");
	return;
}

my @statements = (
	'TABLE victim',
	'SELECT count(*) FROM victim',
	"INSERT INTO victim (b) VALUES ('$canary')",
	"UPDATE victim SET b = '$canary'",
	'DELETE FROM victim',
	"COPY victim (b) FROM PROGRAM 'echo $canary'",
	'VACUUM victim',
	'VACUUM FULL victim',
	'ALTER TABLE victim SET ACCESS METHOD heap',
	'CREATE TABLE copied AS TABLE victim');

# The rest of the cluster, with writes
sub others_work
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(rows($_), $rows{$_}, "$what: $_ can be read") foreach ('sibling', 'plain');
	is(rows('stranger', 'other'), $rows{stranger},
		"$what: another database can be read");
	sql(qq{
		CREATE TABLE fresh (b text) USING tde_heap;
		INSERT INTO fresh VALUES ('$canary');
		CHECKPOINT;
		DROP TABLE fresh});
	return;
}

#
# One key file
#
sub truncated
{
	my ($len) = @_;
	return sub { write_bytes($key, substr(saved($key), 0, $len)) };
}

sub flipped
{
	my ($at, $bit) = @_;
	return sub {
		my $bytes = saved($key);
		substr($bytes, $at, 1) ^= chr(1 << $bit);
		write_bytes($key, $bytes);
	};
}

my $size = length saved($key);
my $mismatch = qr/it belongs to another relation/;
my @cases = (
	[ 'missing', sub { unlink "$dir/$key" or die }, qr/the file does not exist/ ],
	[ 'empty', truncated(0), qr/file is truncated/ ],
	[ 'cut in the middle', truncated($size / 2), qr/file is truncated/ ],
	[ 'one byte short', truncated($size - 1), qr/file is truncated/ ],
	[ 'one byte too long', sub { write_bytes($key, saved($key) . "\0") }, qr/[^\n]+/ ],
	[ 'zeros', sub { write_bytes($key, "\0" x $size) }, qr/[^\n]+/ ],
	[ 'key of a sibling', sub { write_bytes($key, saved($sibling_key)) }, $mismatch ],
	[ 'key of another database', sub { write_bytes($key, saved($stranger_key)) }, $mismatch ],
	[ 'directory', sub { unlink "$dir/$key"; mkdir "$dir/$key" or die }, qr/could not be read: Is a directory/ ]);
push @cases, [ 'not readable', sub { chmod 0, "$dir/$key" or die }, qr/could not be read: Permission denied/ ]
  if $> != 0;
push @cases, [ "bit flipped at $_", flipped($_, $_ % 8), qr/[^\n]+/ ]
  foreach (0, 9, 16, 22, 40, 60, 77, 100, 150, $size - 1);

foreach my $case (@cases)
{
	my ($what, $damage, $reason) = @$case;
	my $from = -s $node->logfile;

	$node->stop;
	$damage->();
	$node->start;
	fails($_, $path, $key, $reason, "$what: $_")
	  foreach $what eq 'missing' ? @statements : @statements[ 0, 2 ];
	others_work($what);
	restore($key);
	no_plaintext($what);
	is(rows('victim'), $rows{victim}, "$what: restored, without a restart");
	nobody_died($what, $from);
}

# Every bit, as the reader of the file judges it: tests of the core do that.
# Here it is the server that reads some.

#
# Exchanged with a sibling's
#
$node->stop;
write_bytes($key, saved($sibling_key));
write_bytes($sibling_key, saved($key));
$node->start;
my ($sibling_path) = paths('sibling');
fails('TABLE victim', $path, $key, $mismatch, 'exchanged');
fails('TABLE sibling', $sibling_path, $sibling_key, $mismatch,
	'exchanged, the other');
restore($key, $sibling_key);
is(rows($_), $rows{$_}, "exchanged back: $_") foreach ('victim', 'sibling');

#
# Key of an index, which can be made anew.  (The planner looks into it, so that
# until then the table cannot be read.)
#
$node->stop;
unlink "$dir/$pkey_key" or die;
$node->start;
fails('SET enable_seqscan = off; SELECT * FROM victim WHERE a = 5',
	$pkey_path, $pkey_key, qr/the file does not exist/, 'index');
fails('INSERT INTO victim (b) VALUES (1)', $pkey_path, $pkey_key,
	qr/the file does not exist/, 'index, insert');
sql('REINDEX TABLE victim');
is(rows('victim'), $rows{victim}, 'index: the table is as it was');
is( sql('SET enable_seqscan = off; SELECT count(*) FROM victim WHERE a BETWEEN 1 AND 1000'),
	1000, 'index: made anew');
sql('CHECKPOINT');
system_or_bail('rm', '-rf', $saved);
system_or_bail('cp', '-r', "$dir/pg_tde", $saved);

#
# A running server does not need the files of keys it has
#
sql('SELECT count(*) FROM victim');
unlink "$dir/$key" or die;
sql('BEGIN; UPDATE victim SET b = b; ROLLBACK; CHECKPOINT');
is(rows('victim'), $rows{victim}, 'file removed under a running server');
no_plaintext('file removed under a running server');
restore($key);

#
# Damaged pages are one thing, lost keys another
#
foreach my $method ('sync', 'worker', 'io_uring')
{
	my $from = -s $node->logfile;

	$node->append_conf('postgresql.conf', "io_method = '$method'\n");
	$node->stop;
	unlink "$dir/$key" or die;
	if (!$node->start(fail_ok => 1))
	{
	  SKIP:
		{
			like(slurp_file($node->logfile, $from), qr/io_uring|io_method/,
				"$method is the reason");
			skip "io_method $method does not work here", 1;
		}
		restore($key);
		$node->append_conf('postgresql.conf', "io_method = 'worker'\n");
		$node->start;
		next;
	}
	foreach my $setting ('zero_damaged_pages = on',
		'ignore_checksum_failure = on',
		'zero_damaged_pages = on; SET ignore_checksum_failure = on')
	{
		fails("SET $setting; $_", $path, $key, qr/the file does not exist/,
			"$method, $setting: $_")
		  foreach ('SELECT count(*) FROM victim', 'VACUUM victim',
			"INSERT INTO victim (b) VALUES ('$canary')");
	}
	sql('CHECKPOINT');
	restore($key);
	is(rows('victim'), $rows{victim}, "$method: no page was zeroed");

	# free space and visibility map too
	$node->stop;
	$node->start;
	is( sql('SET enable_seqscan = off; SELECT count(a) FROM victim'),
		1000, "$method: maps are as they were");
	is( sql(q{SELECT pg_relation_size('victim', 'vm') > 0}),
		't', "$method: there is a visibility map");
	nobody_died($method, $from);
}
$node->append_conf('postgresql.conf', "io_method = 'worker'\n");
$node->restart;

#
# Scope file of a database
#
my $scope = "pg_tde/$dboid/database_key.key";
foreach my $case (
	[ 'missing', sub { unlink "$dir/$scope" or die }, qr/could not use key file "\Q$scope\E": the file does not exist, but there are keys that it protects/ ],
	[ 'truncated', sub { write_bytes($scope, substr(saved($scope), 0, 100)) }, qr/could not use key file "\Q$scope\E": / ],
	[ 'flipped', sub { my $b = saved($scope); substr($b, 70, 1) ^= "\x10"; write_bytes($scope, $b) }, qr/could not use key file "\Q$scope\E": / ],
	[ 'of another database', sub { write_bytes($scope, saved("pg_tde/$other_oid/database_key.key")) }, qr/could not use key file "\Q$scope\E": it belongs to another database/ ])
{
	my ($what, $damage, $warning) = @$case;
	my $from = -s $node->logfile;

	$what = "scope file $what";
	$node->stop;
	$damage->();
	$node->start;
	like(slurp_file($node->logfile, $from), $warning, "$what: said at start");
	foreach my $query ('TABLE victim', "INSERT INTO victim (b) VALUES ('$canary')")
	{
		my ($ret, $out, $err) = $node->psql('postgres', $query);
		like($err, qr/ERROR:  encryption key of relation "[^"]+" is not available\nDETAIL:  The reason is: key file "\Q$scope\E" cannot be used: /,
			"$what: $query");
	}
	is(rows('plain'), $rows{plain}, "$what: plain tables can be read");
	is(rows('stranger', 'other'), $rows{stranger}, "$what: another database can be read");

	# A new scope in its place would make the old one impossible to restore.
	foreach my $query ('CREATE TABLE fresh (a int) USING tde_heap',
		q{SELECT pg_tde_set_key_using_global_key_provider('default', 'ring')})
	{
		my ($ret, $out, $err) = $node->psql('postgres', $query);
		like($err, qr/ERROR:.*\Q$scope\E/s, "$what: $query");
	}
	no_plaintext($what);
	sql('CREATE TABLE also_plain (a int); INSERT INTO also_plain VALUES (1); CHECKPOINT; DROP TABLE also_plain');
	nobody_died($what, $from);
	$node->stop;
	restore($scope);
	$node->start;
	is(rows('victim'), $rows{victim}, "$what: restored");
	others_work("$what: restored");
}

#
# Crash with WAL to replay, and a key is lost.  (Pages that are replayed from
# their images are written without having been read.)
#
foreach my $what ('key file missing', 'key file damaged', 'scope file missing', 'directory missing')
{
	my $from;
	my $result;

	sql(qq{
		CHECKPOINT;
		UPDATE victim SET b = b;
		INSERT INTO victim (b) SELECT '$canary' FROM generate_series(1, 1000)});
	my $expected = rows('victim');

	tde_crash($node);
	unlink "$dir/$key" or die if $what eq 'key file missing';
	truncated(99)->() if $what eq 'key file damaged';
	unlink "$dir/$scope" or die if $what eq 'scope file missing';
	rename "$dir/pg_tde", $node->basedir . '/away' or die
	  if $what eq 'directory missing';

	$from = -s $node->logfile;
	$result = $node->start(fail_ok => 1);
	is($result, 0, "crash, $what: recovery stops");
	like(
		slurp_file($node->logfile, $from),
		$what =~ /^scope file/
		? qr/FATAL:  encryption key of relation "\Q$path\E" is not available\n.*DETAIL:  The reason is: key file "\Q$scope\E" cannot be used: the file does not exist/
		: qr/FATAL:  could not get the encryption key of relation "\Q$path\E"\n.*DETAIL:  Key file "\Q$key\E": .*\n.*HINT:  Restore the key file from a backup\. To lose the relation instead, start the server with "pg_tde\.give_up_databases" set to /,
		"crash, $what: names relation and file");
	unlike(slurp_file($node->logfile, $from), qr/TRAP:|PANIC/, "crash, $what: no other death");
	no_plaintext("crash, $what");

	restore($key) if $what =~ /^key file/;
	restore($scope) if $what =~ /^scope file/;
	if ($what eq 'directory missing')
	{
		ok(!-e "$dir/pg_tde", "crash, $what: none was made");
		rename $node->basedir . '/away', "$dir/pg_tde" or die;
	}
	$node->start;
	is(rows('victim'), $expected, "crash, $what: restored, recovered");
	$rows{victim} = $expected;
}

#
# The end of it: lost for good, and dropped
#
foreach my $what ('missing', 'damaged')
{
	make_table('postgres', "lost_$_") foreach ('dropped', 'truncated');
	sql('CHECKPOINT');
	my (undef, $dropped_key) = paths('lost_dropped');
	my (undef, $truncated_key) = paths('lost_truncated');

	$node->stop;
	foreach my $file ($dropped_key, $truncated_key)
	{
		if ($what eq 'missing') { unlink "$dir/$file" or die }
		else { write_bytes($file, 'damaged') }
	}
	$node->start;
	sql('DROP TABLE lost_dropped');
	sql("TRUNCATE lost_truncated; INSERT INTO lost_truncated (b) VALUES ('$canary')");
	is(sql('SELECT count(*) FROM lost_truncated'), 1, "$what: truncated, and used again");
	sql('DROP TABLE lost_truncated; CHECKPOINT');
	others_work("$what: dropped");
	$node->restart;
	sql('CHECKPOINT');
	ok(!-e "$dir/$dropped_key", "$what: no key file of the dropped table");
	ok(!-e "$dir/$truncated_key", "$what: no key file of the truncated table's old file");
}
no_plaintext('at the end');

# A whole database whose scope is lost
unlink "$dir/pg_tde/$other_oid/database_key.key" or die;
$node->restart;
$node->safe_psql('postgres', 'DROP DATABASE other');
is(rows('victim'), $rows{victim}, 'a database without scope is dropped');
$node->stop;

done_testing();
