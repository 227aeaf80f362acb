# Copyright (c) 2026, the Coffer authors

# Databases with encrypted tables as templates, moved to other tablespaces and
# dropped, on a primary and on its standby; commands that fail half-way.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeStorage;
use TdeTest;

my $canary = 'CANARY-0123456789-abcdefgh';
my $node = tde_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
allow_in_place_tablespaces = on
wal_keep_size = 1GB
});
$node->start;
tde_setup($node);
$node->safe_psql('postgres', qq{CREATE TABLESPACE ts$_ LOCATION ''})
  foreach 1 .. 3;

# The standby has the keyring in the place where the primary has it.
$node->backup('start');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'start', has_streaming => 1);
$standby->start;

sub db { return $node->safe_psql(@_); }

my $read = q{SELECT 'plain', count(*), sum(hashtext(p::text)) FROM plain p
	UNION ALL SELECT 'enc', count(*), sum(hashtext(e::text)) FROM enc e
	UNION ALL SELECT 'moved', count(*), sum(hashtext(m::text)) FROM moved m
	UNION ALL SELECT 'unlogged', count(*), NULL FROM unlogged
	UNION ALL SELECT 'seq', (last_value >= 300)::int, NULL FROM enc_a_seq
	UNION ALL SELECT 'index', count(*), NULL FROM enc WHERE b LIKE '%9'
	ORDER BY 1};

sub check_db
{
	my ($db, $expected, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	check_storage($node, $db, $label,
		canary => $canary, control => ['plain']);
	is(db($db, $read), $expected, "$label: rows");

	$node->wait_for_catchup($standby);
	my $standby_read = $read =~ s/UNION ALL SELECT 'unlogged'.*?\n//r;
	is($standby->safe_psql($db, $standby_read),
		join("\n", grep { !/^unlogged/ } split /\n/, $expected),
		"$label: rows on the standby");
	# What the primary wrote as encrypted, the standby did too.
	$standby->safe_psql('postgres', 'CHECKPOINT');
	check_storage($standby, $db, "$label, on the standby",
		canary => $canary, control => ['plain']);
	return;
}

# Each encrypted relation of a database has a key file, and no others are left.
sub check_keys
{
	my ($server, $db, $label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# The first removes files, the second is later than what the first logs.
	$node->safe_psql('postgres', 'CHECKPOINT') foreach 1 .. 2;
	if ($server != $node)
	{
		$node->wait_for_catchup($server);
		$server->safe_psql('postgres', 'CHECKPOINT');
	}
	my ($oid, $count) = split /\|/, $server->safe_psql($db, q{
		SELECT d.oid, count(*) FROM pg_class c, pg_database d
		WHERE datname = current_database() AND pg_tde_is_encrypted(c.oid)
		GROUP BY 1});
	my @keys = grep { /\d\.key$/ } glob($server->data_dir . "/pg_tde/$oid/*");
	is(scalar @keys, $count, "$label: key files")
	  or diag(join("\n", @keys));
	return;
}

db('postgres', 'CREATE DATABASE src');
tde_setup($node, 'src');
db('src', qq{
	CREATE TABLE plain AS SELECT g AS a, '$canary' || g AS b
		FROM generate_series(1, 100) g;
	CREATE TABLE enc (a serial PRIMARY KEY, b text, c text) USING tde_heap;
	ALTER TABLE enc ALTER c SET STORAGE EXTERNAL;
	INSERT INTO enc (b, c) SELECT '$canary' || g, repeat('$canary', 200)
		FROM generate_series(1, 300) g;
	CREATE INDEX ON enc USING hash (b);
	CREATE TABLE moved (a int, b text) USING tde_heap TABLESPACE ts3;
	INSERT INTO moved SELECT g, '$canary' || g FROM generate_series(1, 100) g;
	CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO unlogged VALUES (1, '$canary');
	VACUUM enc, moved});
my $expected = db('src', $read);
check_db('src', $expected, 'template');

foreach my $strategy ('wal_log', 'file_copy')
{
	my $copy = "copy_$strategy";

	# The crash below empties it.
	db('src', qq{TRUNCATE unlogged; INSERT INTO unlogged VALUES (1, '$canary')});

	db('postgres', "CREATE DATABASE $copy TEMPLATE src STRATEGY $strategy");
	check_db($copy, $expected, "STRATEGY $strategy");

	# After a crash, without any checkpoint in between
	db('postgres', "CREATE DATABASE ${copy}2 TEMPLATE src TABLESPACE ts1
		STRATEGY $strategy");
	$node->stop('immediate');
	$node->start;
	my $after_crash = $expected =~ s/unlogged\|1/unlogged|0/r;
	check_storage($node, "${copy}2",
		"STRATEGY $strategy, other tablespace, crash",
		canary => $canary, control => ['plain']);
	is( db("${copy}2", $read),
		$after_crash,
		"STRATEGY $strategy, other tablespace, crash: rows");

	# The copy is nobody else's: it can be written, moved and dropped.
	db($copy, qq{INSERT INTO enc (b) VALUES ('$canary');
		CREATE TABLE more (a serial, b text) USING tde_heap;
		INSERT INTO more (b) VALUES ('$canary');
		TRUNCATE plain; DELETE FROM unlogged});
}

# Moved, with a failure first: a file that cannot be read stops the copy
# half-way.
my $oid = db('postgres', q{SELECT oid FROM pg_database WHERE datname = 'src'});
my $stray = $node->data_dir . "/base/$oid/zzz";
my $moved = $expected =~ s/unlogged\|1/unlogged|0/r;
append_to_file($stray, 'x');
chmod 0, $stray or die;
my ($ret, $out, $err) =
  $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE ts2');
like($err, qr/could not open file.*zzz/, 'ALTER DATABASE fails half-way');
unlink $stray or die;
check_db('src', $moved, 'after the failed move');
check_keys($node, 'src', 'after the failed move');
db('postgres', 'ALTER DATABASE src SET TABLESPACE ts2');
check_db('src', $moved, 'moved');
check_keys($node, 'src', 'moved');
check_keys($standby, 'src', 'moved, on the standby');
db('src', qq{INSERT INTO enc (b) VALUES ('$canary');
	INSERT INTO unlogged VALUES (2, '$canary')});
$node->stop('immediate');
$node->start;
$expected = db('src', $read);
like($expected, qr/^enc\|301\|/m, 'row after the move survived a crash');
check_db('src', $expected, 'moved, after a crash');
db('postgres', 'ALTER DATABASE src SET TABLESPACE pg_default');
check_db('src', $expected, 'moved back');

# A copy that fails half-way, with each strategy, then again with success
foreach my $strategy ('wal_log', 'file_copy')
{
	my $dir = $node->data_dir . '/pg_tblspc/'
	  . db('postgres', q{SELECT oid FROM pg_tablespace WHERE spcname = 'ts3'});
	my ($version_dir) = glob("$dir/PG_*");

	# ts3 is copied after the database's own tablespace
	chmod 0500, $version_dir or die;
	($ret, $out, $err) = $node->psql('postgres',
		"CREATE DATABASE again_$strategy TEMPLATE src STRATEGY $strategy");
	like($err, qr/could not create/, "STRATEGY $strategy fails half-way");
	chmod 0700, $version_dir or die;
	db('postgres',
		"CREATE DATABASE again_$strategy TEMPLATE src STRATEGY $strategy");
	check_db("again_$strategy", $expected,
		"STRATEGY $strategy after a failure");
}

# Dropped, and a new database under the same OID
$oid = db('postgres',
	q{SELECT oid FROM pg_database WHERE datname = 'copy_file_copy'});
db('postgres', 'DROP DATABASE copy_file_copy');
db('postgres', "CREATE DATABASE reborn TEMPLATE src OID $oid");
check_db('reborn', $expected, 'new database with the OID of a dropped one');
db('postgres', 'DROP DATABASE reborn');
db('postgres', "CREATE DATABASE reborn TEMPLATE template0 OID $oid");
tde_setup($node, 'reborn');
db('reborn', qq{CREATE TABLE t (b text) USING tde_heap;
	INSERT INTO t VALUES ('$canary')});
check_storage($node, 'reborn', 'and another one', canary => $canary);

# That waits while a base backup may still need the old keys.
my $session = $node->background_psql('postgres');
$session->query_safe(q{SELECT pg_backup_start('old keys', true)});
db('postgres', 'DROP DATABASE reborn');
($ret, $out, $err) =
  $node->psql('postgres', "CREATE DATABASE reborn TEMPLATE src OID $oid");
like($err, qr/still in use by the encryption keys of a dropped database/,
	'no new database with an OID whose keys a backup may need');
$session->query('SELECT pg_backup_stop(false)');
$session->quit;
db('postgres', "CREATE DATABASE reborn TEMPLATE src OID $oid");
check_db('reborn', $expected, 'nor longer than the backup');

# A template with a provider and principal key of its own hands them on.
my $ring = $node->basedir . '/ring_of_own';
db('postgres', 'CREATE DATABASE own TEMPLATE template0');
db('own', qq{CREATE EXTENSION pg_tde;
	SELECT pg_tde_add_database_key_provider_file('own', '$ring');
	SELECT pg_tde_create_key_using_database_key_provider('k', 'own');
	SELECT pg_tde_set_key_using_database_key_provider('k', 'own');
	CREATE TABLE t (b text) USING tde_heap;
	INSERT INTO t VALUES ('$canary')});
my $info = q{SELECT key_name, provider_name, name, options
	FROM pg_tde_key_info(), pg_tde_list_all_database_key_providers()};
foreach my $strategy ('wal_log', 'file_copy')
{
	db('postgres', "CREATE DATABASE own_$strategy TEMPLATE own
		STRATEGY $strategy");
	is(db("own_$strategy", $info), db('own', $info),
		"STRATEGY $strategy hands on the principal key");
	db("own_$strategy", "CREATE TABLE t2 USING tde_heap AS TABLE t");
	check_storage($node, "own_$strategy",
		"STRATEGY $strategy with its own principal key", canary => $canary);
	check_keys($node, "own_$strategy", "STRATEGY $strategy");
}
db('postgres', 'DROP DATABASE own');
is(db('own_wal_log', 'SELECT count(*) FROM t, t2'),
	'1', 'the copy needs nothing of its template');

# The template is plain, and the copy is made while it has no key
db('postgres', 'CREATE DATABASE plain_copy TEMPLATE template0');
is(db('plain_copy', q{SELECT count(*) > 0 FROM pg_class}),
	't', 'copy of a plain template');

# Nothing is left of databases that are gone.
my $copies = db('postgres', q{SELECT string_agg(datname, ',' ORDER BY 1)
	FROM pg_database WHERE datname ~ 'copy_|again|own_|reborn'});
db('postgres', "DROP DATABASE $_") foreach split /,/, $copies;
db('postgres', 'CHECKPOINT') foreach 1 .. 2;
my @known = split /\n/, db('postgres', 'SELECT oid FROM pg_database');
my @left = grep { my $d = $_; !grep { $_ eq $d } @known }
  map { /(\d+)$/ ? $1 : () } glob($node->data_dir . '/pg_tde/*');
is("@left", '', 'no keys of dropped databases');

$node->wait_for_catchup($standby);
$standby->promote;
is($standby->safe_psql('src', $read =~ s/UNION ALL SELECT 'unlogged'.*?\n//r),
	join("\n", grep { !/^unlogged/ } split /\n/, $expected),
	'rows on the promoted standby');
$standby->safe_psql('src',
	qq{CREATE TABLE after (a serial, b text) USING tde_heap;
	   INSERT INTO after (b) VALUES ('$canary')});
check_storage($standby, 'src', 'promoted standby',
	canary => $canary, control => ['plain']);

$standby->stop;
$node->stop;
done_testing();
