# Copyright (c) 2026, the Coffer authors

# CREATE DATABASE ... STRATEGY FILE_COPY encrypts the copy under keys of its
# own: what it makes of each kind of file and page, on a primary and in replay,
# when it is interrupted, and when a standby starts again before, in the middle
# and after it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeLife;
use TdeStorage;
use TdeTest;

plan skip_all => 'Injection points not supported by this build'
  unless $ENV{enable_injection_points} eq 'yes';

my $canary = 'CANARY-0123456789-abcdefgh';
my $primary = life_node('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'wal_keep_size = 1GB');
$primary->start;
tde_setup($primary);
sub sql { return $primary->safe_psql('postgres', $_[0]); }
sub db { return $primary->safe_psql(@_); }
sql('CREATE EXTENSION pg_buffercache; CREATE EXTENSION injection_points');
sql(q{CREATE TABLESPACE ts1 LOCATION ''});
my $segment = sql(
	q{SELECT setting FROM pg_settings WHERE name = 'segment_size'});

$primary->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'start', has_streaming => 1);
$standby->start;

# A block of a relation on disk, of whatever segment
sub file_of_block
{
	my ($node, $path, $block) = @_;
	my $n = int($block / $segment);
	return ($node->data_dir . "/$path" . ($n ? ".$n" : ''),
		8192 * ($block % $segment));
}

sub block
{
	my ($file, $at) = file_of_block(@_);
	return substr(slurp_bytes($file), $at, 8192);
}

sub write_block
{
	my ($node, $path, $block, $page) = @_;
	my ($file, $at) = file_of_block($node, $path, $block);
	open(my $fh, '+<:raw', $file) or die "could not open $file: $!";
	seek($fh, $at, 0);
	print $fh $page;
	close($fh) or die $!;
	return;
}

# Of all pages of two files that should be copies: how many have the same
# header but for the checksum, how many 16-byte blocks behind it are the same.
# Pages of zeros do not count.
sub compare_copies
{
	my ($ours, $theirs) = @_;
	my ($pages, $headers, $blocks) = (0, 0, 0);

	for (my $at = 0; $at + 8192 <= length $ours; $at += 8192)
	{
		my ($p, $q) = map { substr($_, $at, 8192) } $ours, $theirs;
		next if $p !~ /[^\0]/;
		$pages++;
		$headers++
		  if substr($p, 0, 8) eq substr($q, 0, 8)
		  && substr($p, 10, 14) eq substr($q, 10, 14);
		for (my $b = 32; $b < 8192; $b += 16)
		{
			$blocks++ if substr($p, $b, 16) eq substr($q, $b, 16);
		}
		$blocks++ if substr($p, 24, 8) eq substr($q, 24, 8);
	}
	return ($pages, $headers, $blocks);
}

# The files of a database in its own tablespace, by name
sub files_of
{
	my ($node, $db) = @_;
	my $oid =
	  sql("SELECT oid FROM pg_database WHERE datname = '$db'");
	return map { (m{([^/]+)$})[0] => slurp_bytes($_) }
	  grep { -f $_ } glob($node->data_dir . "/base/$oid/*");
}

sub keys_of
{
	my ($node, $db) = @_;
	my $oid = sql("SELECT oid FROM pg_database WHERE datname = '$db'");
	return map { (m{([^/]+)$})[0] => slurp_bytes($_) }
	  glob($node->data_dir . "/pg_tde/$oid/[0-9]*.key");
}

sub is_wanted_number
{
	my ($db) = @_;
	my $sql = is_wanted_sql();
	return map { ($_->{path} =~ m{/(\d+)$})[0] => $_->{name} }
	  grep { $_->{wanted} eq 't' }
	  storage_state(db($db, $sql));
}

# Source and copy are under other keys, on this node, as the files are now.
# That the copy's page cannot be read with the source's key follows.
sub check_keys_differ
{
	my ($node, $src, $dst, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %encrypted = is_wanted_number($src);
	my %ours = files_of($node, $src);
	my %theirs = files_of($node, $dst);
	my ($pages, $headers, $blocks, $plain) = (0, 0, 0, 0);

	is(join(' ', grep { !/^pg_internal/ } sort keys %theirs),
		join(' ', grep { !/^pg_internal/ } sort keys %ours),
		"$label: the same files");
	foreach my $name (sort keys %ours)
	{
		my ($number) = $name =~ /^(\d+)/ or next;
		is(length $theirs{$name}, length $ours{$name}, "$label: size of $name")
		  if length $theirs{$name} != length $ours{$name};
		if (!exists $encrypted{$number})
		{
			next if $number < 16384;
			$plain++ if $ours{$name} eq $theirs{$name};
			next;
		}
		my @counts = compare_copies($ours{$name}, $theirs{$name});
		$pages += $counts[0];
		$headers += $counts[1];
		$blocks += $counts[2];
		my ($clear, $marked) = plain_and_marked(
			substr($theirs{$name}, 0, length($theirs{$name}) & ~8191));
		is("$clear $marked", "0 $counts[0]", "$label: pages of $name")
		  if $clear != 0 || $marked != $counts[0];
	}
	cmp_ok($pages, '>', 40, "$label: pages compared");
	cmp_ok($plain, '>', 0, "$label: files of plain tables are the same");
	is($headers, $pages, "$label: the same headers");
	is($blocks, 0, "$label: no equal block of ciphertext");
	return;
}

my $state = q{
	SET enable_seqscan = off;
	SELECT (SELECT count(*) || ' ' || md5(string_agg(b || c, '' ORDER BY a)) FROM t),
		(SELECT count(*) FROM t WHERE b ^@ 'row 1'),
		(SELECT count(*) FROM plain),
		(SELECT sum(avail) FROM pg_freespace('t')),
		(SELECT count(*) FROM pg_visibility_map('t') WHERE all_visible),
		(SELECT count(*) FROM pg_check_visible('t'))};
sub check_state
{
	my ($node, $db, $expected, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', 'SELECT FROM pg_buffercache_evict_all()');
	is($node->safe_psql($db, $state), $expected, "$label: rows and maps");
	is( $node->safe_psql(
			$db, q{
			SELECT bt_index_check('t_pkey', true), bt_index_check('t_b_idx', true);
			SELECT count(*) FROM verify_heapam('t')}),
		"|\n0",
		"$label: amcheck");
	return;
}

#
# Each kind of file
#
sql('CREATE DATABASE src');
tde_setup($primary, 'src');
db( 'src', qq{
	CREATE EXTENSION amcheck;
	CREATE EXTENSION pg_freespacemap;
	CREATE EXTENSION pg_visibility;
	CREATE TABLE plain AS SELECT g AS a, '$canary' || g AS b
		FROM generate_series(1, 100) g;
	SET pg_tde.cipher = aes_256_xts;
	CREATE TABLE t (a serial PRIMARY KEY, b text COLLATE "C", c text) USING tde_heap;
	ALTER TABLE t ALTER c SET STORAGE EXTERNAL;
	RESET pg_tde.cipher;
	INSERT INTO t (b, c) SELECT 'row ' || g || '$canary', repeat('$canary', g % 100)
		FROM generate_series(1, 2000) g;
	CREATE INDEX ON t (b);
	DELETE FROM t WHERE a % 7 = 0;
	CREATE UNLOGGED TABLE u (a int PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO u SELECT g, '$canary' FROM generate_series(1, 100) g;
	CREATE TABLE zeros (b text) USING tde_heap;
	INSERT INTO zeros VALUES ('$canary');
	CREATE TABLE empty (b text) USING tde_heap;
	CREATE TABLE torn (b text) USING tde_heap;
	INSERT INTO torn VALUES ('$canary');
	VACUUM FREEZE});
my %path = map { $_ => relation_path($primary, 'src', $_) }
  qw(t u zeros empty torn);

# A page of zeros, and the rest of a file that was torn
write_all($primary);
$primary->stop;
write_block($primary, $path{zeros}, 1, "\0" x 8192);
write_block($primary, $path{torn}, 1, 'torn' x 100);
$primary->start;
my $expected = db('src', $state);
like($expected, qr/^1715 \w+\|/, 'rows of the source');
write_all($primary);

# Keys that wait for their removal are none of the copy's
my $backup = $primary->background_psql('postgres');
$backup->query_safe(q{SELECT pg_backup_start('keep old keys', true)});
db('src', 'CREATE TABLE gone (b text) USING tde_heap; DROP TABLE gone');
sql('CREATE DATABASE copy TEMPLATE src STRATEGY file_copy');
check_keys_differ($primary, 'src', 'copy', 'primary');
my %src_keys = keys_of($primary, 'src');
my %copy_keys = keys_of($primary, 'copy');
my %encrypted = is_wanted_number('copy');
is(join(' ', sort keys %copy_keys),
	join(' ', map { "$_.key" } sort keys %encrypted),
	'a key for each encrypted relation, and no others');
cmp_ok(scalar keys %src_keys, '>', scalar keys %copy_keys,
	'... while the source has an old one');
is( join(' ', map { ord(substr($copy_keys{$_}, 104, 1)) } sort keys %copy_keys),
	join(' ', map { ord(substr($src_keys{$_}, 104, 1)) } sort keys %copy_keys),
	'the ciphers of the source');
like(join(' ', map { ord(substr($copy_keys{$_}, 104, 1)) } keys %copy_keys),
	qr/1.*2|2.*1/, '... of which there are two');
$backup->query('SELECT pg_backup_stop(false)');
$backup->quit;

my $copy_zeros = relation_path($primary, 'copy', 'zeros');
is(block($primary, $copy_zeros, 1), "\0" x 8192, 'zeros are zeros');
is(block($primary, relation_path($primary, 'copy', 'torn'), 1),
	'torn' x 100, 'the rest of a torn file');
is(db('copy', 'SELECT b FROM zeros UNION ALL SELECT b FROM torn'),
	"$canary\n$canary", '... and the rows before them');
db($_, 'DROP TABLE torn; CHECKPOINT') foreach qw(src copy);

wait_replayed($primary, $standby);
check_state($primary, 'copy', $expected, 'copy');
check_state($primary, 'src', $expected, 'source');
$standby->safe_psql('postgres', 'CHECKPOINT');
check_state($standby, 'copy', $expected, 'copy on the standby');
check_state($standby, 'src', $expected, 'source on the standby');
check_storage($_, 'copy', 'copy: ' . $_->name,
	no_checkpoint => 1, canary => $canary, control => ['plain'])
  foreach $primary, $standby;
my %standby_keys = keys_of($standby, 'copy');
%encrypted = is_wanted_number('copy');
is( join(' ', grep { $standby_keys{"$_.key"} ne $copy_keys{"$_.key"} }
		  sort keys %encrypted),
	'', 'the same keys on the standby');

# Control: a database that only moves keeps its ciphertext
my $t_before = (pages_of($primary, relation_path($primary, 'copy', 't')))[2];
sql('ALTER DATABASE copy SET TABLESPACE ts1');
my $t_moved = (pages_of($primary, relation_path($primary, 'copy', 't')))[2];
ok($t_before eq $t_moved, 'control: SET TABLESPACE keeps the pages');
check_state($primary, 'copy', $expected, 'moved copy');
wait_replayed($primary, $standby);
check_state($standby, 'copy', $expected, 'moved copy on the standby');
sql('ALTER DATABASE copy SET TABLESPACE pg_default');

# Unlogged tables: the rows are copied, and after a crash the init fork is.
db('src', "TRUNCATE u; INSERT INTO u VALUES (1, '$canary')");
sql('CREATE DATABASE copy2 TEMPLATE src STRATEGY file_copy');
is(db('copy2', 'SELECT count(*) FROM u'), '1', 'unlogged rows are copied');
$primary->stop('immediate');
$primary->start;
is(db($_, qq{SELECT count(*) FROM u; INSERT INTO u VALUES (2, '$canary');
		SET enable_seqscan = off; SELECT count(*) FROM u WHERE a = 2}),
	"0\n1", "unlogged table after a crash in $_") foreach qw(src copy2);
check_storage($primary, 'copy2', 'copy after a crash',
	canary => $canary, control => ['plain']);
check_state($primary, 'copy2', $expected, 'copy after a crash');

#
# Damage stays
#
db('src', fill_sql('empty', $canary, 1, 200) =~ s/SELECT g, /SELECT /r);
write_all($primary);
$primary->stop;
my $page = block($primary, $path{empty}, 3);
substr($page, 4000, 1) = chr(ord(substr($page, 4000, 1)) ^ 1);
write_block($primary, $path{empty}, 3, $page);
$page = block($primary, $path{empty}, 4);
substr($page, 18, 1) = chr(4);	# the mark
write_block($primary, $path{empty}, 4, $page);
$primary->start;
sql('CREATE DATABASE damaged TEMPLATE src STRATEGY file_copy');
foreach my $db (qw(src damaged))
{
	my ($ret, $out, $err) = $primary->psql($db, 'SELECT count(*) FROM empty');
	like($err, qr/invalid page in block [34] of relation/,
		"a damaged page is damaged in $db");
	is( db( $db, q{
			SET zero_damaged_pages = on; SET client_min_messages = error;
			SELECT count(*) < 200 AND count(*) > 100 FROM empty}),
		't',
		"... and can be zeroed");
}
$primary->stop;
my ($out, $err) =
  run_command([ 'pg_checksums', '--check', $primary->data_dir ]);
is(join(' ', sort $err =~ /file "[^"]*base[^"]*", block (\d+)/g),
	'3 3 4 4', 'pg_checksums finds it in both') or diag($err);
$primary->start;
sql("DROP DATABASE damaged");
db('src', 'TRUNCATE empty; CHECKPOINT');

#
# Tenants: source and copy with principal keys of their own, which change
#
my $ring = tde_keyring($primary) . '.own';
sql('CREATE DATABASE tenant');
db( 'tenant', qq{
	CREATE EXTENSION pg_tde;
	SELECT pg_tde_add_database_key_provider_file('own', '$ring');
	SELECT pg_tde_create_key_using_database_key_provider('k1', 'own');
	SELECT pg_tde_create_key_using_database_key_provider('k2', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('k1', 'own');
	CREATE TABLE plain (a int);
	INSERT INTO plain VALUES (1);
	CREATE TABLE t (a int, b text) USING tde_heap;} . fill_sql('t', $canary, 1, 1000));
write_all($primary);
sql('CREATE DATABASE other TEMPLATE tenant STRATEGY file_copy');
check_keys_differ($primary, 'tenant', 'other', 'tenants');
db('tenant', q{SELECT pg_tde_set_key_using_database_key_provider('k2', 'own')});
my $rows = db('tenant', rows_sql('t'));
sql('DROP DATABASE tenant; CHECKPOINT; CHECKPOINT');
$primary->restart;
is(db('other', rows_sql('t')), $rows, 'the copy needs nothing of its source');
wait_replayed($primary, $standby);
is($standby->safe_psql('other', rows_sql('t')), $rows, '... on the standby');

#
# The standby starts again while the primary copies: the keys are not there
# yet, so that there are none to lose.  The table was empty when it was copied.
#
sub restartpoint
{
	sql('CHECKPOINT');
	wait_replayed($primary, $standby);
	$standby->safe_psql('postgres', 'CHECKPOINT');
	return;
}
sub oid_of
{
	return sql("SELECT oid FROM pg_database WHERE datname = '$_[0]'");
}
my $next_oid = 70000;
attach($primary, 'tde-database-keys-copied', 'wait');
my $session = parked($primary, 'postgres', 'tde-database-keys-copied',
	"CREATE DATABASE slow OID $next_oid TEMPLATE src STRATEGY file_copy");
ok(glob($primary->data_dir . "/pg_tde/$next_oid/*.key"),
	'keys on the primary');
restartpoint() foreach 1 .. 2;
$standby->restart;
restartpoint();
is(join(' ', glob($standby->data_dir . "/pg_tde/$next_oid/[0-9]*.key")),
	'', 'no keys on the standby before the copy is logged');
release($primary, 'tde-database-keys-copied');
$session->quit;
wait_replayed($primary, $standby);
check_state($standby, 'slow', $expected, 'standby that started meanwhile');
db('slow', fill_sql('empty', $canary, 1, 200) =~ s/SELECT g, /SELECT /r);
restartpoint();
check_storage($standby, 'slow', 'standby that started meanwhile',
	no_checkpoint => 1, canary => $canary, control => ['plain']);
is($standby->safe_psql('slow', 'SELECT count(*) FROM empty'),
	'200', '... rows of a table that was copied empty');

#
# The primary crashes in the middle, and the command is given again.
#
attach($primary, 'tde-database-file-copied', 'wait');
$session = parked($primary, 'postgres', 'tde-database-file-copied',
	'CREATE DATABASE crashed TEMPLATE src STRATEGY file_copy');
$primary->stop('immediate');
eval { $session->quit };
$primary->start;
sql('CREATE DATABASE crashed TEMPLATE src STRATEGY file_copy');
check_state($primary, 'crashed', $expected, 'copy after a crashed one');
wait_replayed($primary, $standby);
check_state($standby, 'crashed', $expected,
	'copy after a crashed one, on the standby');

# Cancelled: nothing is left but what the next checkpoint removes
attach($primary, 'tde-database-file-copied', 'wait');
$session = parked($primary, 'postgres', 'tde-database-file-copied',
	'CREATE DATABASE cancelled OID 70001 TEMPLATE src STRATEGY file_copy');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE wait_event = 'tde-database-file-copied'});
detach($primary, 'tde-database-file-copied');
$session->quit;
is(oid_of('cancelled'), '', 'the copy was cancelled');
sql('CHECKPOINT') foreach 1 .. 2;
ok(!-e $primary->data_dir . '/pg_tde/70001', 'no keys are left');
ok(!-e $primary->data_dir . '/base/70001', 'nor files');

# A key that cannot be read while a record is written: what cleans up after the
# error writes records, too.
attach($primary, 'tde-find-created-key', 'error');
my ($status, undef, $error) =
  $primary->psql('postgres', 'CREATE DATABASE failed TEMPLATE src STRATEGY wal_log');
is($status, 3, 'an error in the middle of a copy');
like($error, qr/ERROR:  error triggered for injection point/, '... is just that');
detach($primary, 'tde-find-created-key');
sql('CREATE DATABASE failed TEMPLATE src STRATEGY wal_log');
isnt(oid_of('failed'), '', '... after which copies are made');
sql('DROP DATABASE failed');

#
# The standby crashes in the middle.
#
restartpoint();
attach($standby, 'tde-database-file-copied', 'wait');
sql('CREATE DATABASE twice TEMPLATE src STRATEGY file_copy');
$standby->wait_for_event('startup', 'tde-database-file-copied');
$standby->stop('immediate');
$standby->start;
wait_replayed($primary, $standby);
check_state($standby, 'twice', $expected, 'standby that crashed in the middle');
check_storage($standby, 'twice', 'standby that crashed in the middle',
	no_checkpoint => 1, canary => $canary, control => ['plain']);

#
# It starts again from before the copy, when the source has later files.
#
restartpoint();
my $redo = redo_lsn($standby);
sql('CREATE DATABASE before TEMPLATE src STRATEGY file_copy');
db('src', 'CREATE TABLE later (a int, b text) USING tde_heap;'
	. fill_sql('later', $canary, 1, 200));
db('before', 'CREATE TABLE t2 (a int, b text) USING tde_heap;'
	. fill_sql('t2', $canary, 1, 200));
wait_replayed($primary, $standby);
my ($later) = relation_path($primary, 'src', 'later') =~ m{/(\d+)$};
ok(-e $standby->data_dir . '/' . relation_path($primary, 'src', 'later'),
	'a later file of the source is on the disk of the standby');
is(redo_lsn($standby), $redo, '... which has made no restartpoint');
$standby->stop('immediate');
$standby->start;
wait_replayed($primary, $standby);
check_state($standby, 'before', $expected, 'replayed again');
ok(!-e $standby->data_dir . '/base/' . oid_of('before') . "/$later",
	'a later file of the source is not copied');
is($standby->safe_psql('before', rows_sql('t2')),
	db('before', rows_sql('t2')), 'rows written after the copy');
is($standby->safe_psql('src', rows_sql('later')),
	db('src', rows_sql('later')), 'rows of the later table of the source');
check_storage($standby, 'before', 'replayed again',
	no_checkpoint => 1, canary => $canary, control => ['plain']);

#
# A key of the copy, then one of the source, vanishes on the standby: it stops
# and says why, and goes on when the key is back, the copy's by itself.
#
sub expect_stop
{
	my ($pattern, $offset) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$standby->wait_for_log(qr/database system is shut down/, $offset);
	my $log = slurp_file($standby->logfile, $offset);
	like($log, $pattern, 'the standby stops');
	$standby->{_pid} = undef;
	return;
}
restartpoint();
attach($standby, 'tde-redo-database-keys', 'wait');
sql('CREATE DATABASE vanished TEMPLATE src STRATEGY file_copy');
$standby->wait_for_event('startup', 'tde-redo-database-keys');
my ($t) = $path{t} =~ m{/(\d+)$};
my $key = 'pg_tde/' . oid_of('vanished') . "/$t.key";
my $offset = -s $standby->logfile;
unlink $standby->data_dir . "/$key" or die $!;
release($standby, 'tde-redo-database-keys');
expect_stop(
	qr/FATAL:  could not get the encryption key of relation "base.*\n.*DETAIL:  Key file "\Q$key\E": the file does not exist/,
	$offset);
$standby->start;
wait_replayed($primary, $standby);
check_state($standby, 'vanished', $expected, 'key of the copy vanished');

restartpoint();
$standby->stop;
$key = 'pg_tde/' . oid_of('src') . "/$t.key";
rename($standby->data_dir . "/$key", $standby->data_dir . '/away') or die $!;
$offset = -s $standby->logfile;
$standby->start;
my $lsn = $primary->lsn('insert');
sql('CREATE DATABASE vanished2 TEMPLATE src STRATEGY file_copy');
expect_stop(
	qr/FATAL:  could not get the encryption key of relation "\Q$path{t}\E"\n.*DETAIL:  Key file "\Q$key\E": the file does not exist/,
	$offset);
rename($standby->data_dir . '/away', $standby->data_dir . "/$key") or die $!;
$standby->start;
wait_replayed($primary, $standby);
check_state($standby, 'vanished2', $expected, 'key of the source vanished');

# On the primary it is an error; the failure leaves nothing.
$primary->stop;
rename($primary->data_dir . "/$key", $primary->data_dir . '/away') or die $!;
$primary->start;
my ($ret, $o, $e) = $primary->psql('postgres',
	'CREATE DATABASE vanished3 TEMPLATE src STRATEGY file_copy');
like($e, qr/could not get the encryption key of relation "\Q$path{t}\E"/,
	'no copy of a relation whose key is lost');
rename($primary->data_dir . '/away', $primary->data_dir . "/$key") or die $!;

# Readers of the record that know nothing of the keys
my ($wal) = run_command(
	[
		'pg_waldump', '--rmgr' => 'Database',
		'--path' => $primary->data_dir . '/pg_wal',
		'--start' => $lsn
	]);
like($wal, qr/desc: CREATE_FILE_COPY copy dir \S+ to \S+$/m, 'pg_waldump');

$standby->promote;
check_state($standby, 'vanished2', $expected, 'promoted standby');

# All pages of both nodes have the checksum that they should have.
$primary->stop;
$standby->stop;
command_ok([ 'pg_checksums', '--check', $_->data_dir ],
	'checksums: ' . $_->name) foreach $primary, $standby;

done_testing();
