# Copyright (c) 2026, the Coffer authors

# Reading and writing encrypted relations of every persistence and cipher with
# every io_method: whole scans, index scans, several blocks in one read, reads that
# come back short, and pages that must not be accepted.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeStorage;
use TdeTest;
use Test::More;

my $injection = ($ENV{enable_injection_points} // '') eq 'yes';

# Rows that are the same in every table: long enough that few fit into a page,
# and some go to TOAST.
my $rows = q{
	SELECT g AS id, md5(g::text) AS word, repeat(md5(g::text), 8) AS more,
		CASE WHEN g % 50 = 0 THEN repeat(md5(g::text), 500) END AS big
	FROM generate_series(1, 4000) g};
my $digest =
  q{count(*), md5(string_agg(id || word || more || coalesce(big, ''), '' ORDER BY id))};

my $node = tde_node('main');
# Many buffers for each of few connections, or reads would be of single blocks;
# what is to be read from disk is evicted before.
$node->append_conf(
	'postgresql.conf', q{
	shared_buffers = '16MB'
	max_connections = 20
	temp_buffers = '800kB'
	io_workers = 2
	autovacuum = off
});
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_tde, test_aio'\n")
  if $injection;
$node->start;
tde_setup($node);
$node->safe_psql(
	'postgres', qq{
	CREATE EXTENSION test_tde_storage;
	CREATE TABLE control AS $rows;
});
$node->safe_psql('postgres', 'CREATE EXTENSION test_aio') if $injection;
my $expected = $node->safe_psql('postgres', "SELECT $digest FROM control");
my $build_has_uring = $node->safe_psql('postgres',
	q{SELECT 'io_uring' = ANY(enumvals) FROM pg_settings WHERE name = 'io_method'});
my $no_uring =
  $build_has_uring eq 't' ? '' : 'this build has no support for io_uring';

# SQL that makes and fills table $name
sub create_sql
{
	my ($kind, $name) = @_;

	return qq{
		CREATE $kind TABLE $name (id int, word text, more text, big text)
			USING tde_heap WITH (autovacuum_enabled = off);
		ALTER TABLE $name ALTER more SET STORAGE PLAIN;
		ALTER TABLE $name ALTER big SET STORAGE EXTERNAL;
		INSERT INTO $name $rows;
		CREATE INDEX ON $name (id);
		CREATE INDEX ON $name USING hash (word);
		CREATE INDEX ON $name USING brin (id);
		CREATE INDEX ON $name USING gin (string_to_array(word, 'a'));
		CREATE INDEX ON $name USING spgist (word);
		CREATE INDEX ON $name USING gist (point(id, id));
		UPDATE $name SET word = word WHERE id % 9 = 0;
		DELETE FROM $name WHERE id % 10 = 0;
		VACUUM $name;
		INSERT INTO $name SELECT * FROM control WHERE id % 10 = 0;
	};
}

# A background session's answer must be what is expected, without complaints.
sub answers
{
	my ($session, $sql, $answer, $label) = @_;
	my $stdout = $session->query($sql);

	is($stdout, $answer, $label);
	is($session->{stderr}, '', "$label: no complaints");
	$session->{stderr} = '';
	return;
}

sub complains
{
	my ($session, $sql, $pattern, $label) = @_;

	$session->query($sql);
	like($session->{stderr}, $pattern, $label);
	$session->{stderr} = '';
	return;
}

sub raw_page
{
	my ($session, $path, $blkno) = @_;
	return $session->query_safe(
		"SELECT encode(pg_read_binary_file('$path', $blkno * 8192, 8192), 'hex')");
}

# Wrong pages in a table; the session is one that sees it.
sub test_wrong_pages
{
	my ($session, $name, $label) = @_;
	my $temp = $name eq 'temporary_t';
	my $path = $session->query_safe("SELECT pg_relation_filepath('$name')");
	my $db = $session->query_safe(
		'SELECT oid FROM pg_database WHERE datname = current_database()');
	my ($file) = $path =~ m{([^/]+)$};
	my $detail = $temp ? '' : qr{.*\nDETAIL:  The relation has its key in file "pg_tde/$db/$file\.key"}s;
	my $log = -s $node->logfile;

	# One of several pages that are read together lacks the mark.  Of two
	# neighbours at most one is the first of a read.
	my ($page, $unmarked);
	for my $blkno (5, 6)
	{
		my $where = "$label, block $blkno";

		$page = raw_page($session, $path, $blkno);
		($unmarked = $page) =~ s/^(.{36})05/${1}04/;
		isnt($unmarked, $page, "$where: page bears the mark");
		$session->query_safe(
			"SELECT write_file('$name', 'main', $blkno, decode('$unmarked', 'hex'))");
		for my $setting ('off', 'on')
		{
			$session->query_safe("SET zero_damaged_pages = $setting");
			complains(
				$session,
				"SELECT count(more) FROM $name",
				qr{ERROR:  block $blkno of encrypted relation "\Q$path\E" is not encrypted$detail},
				"$where: unmarked page, zero_damaged_pages = $setting");
		}
		$session->query_safe('RESET zero_damaged_pages');
		is($session->query_safe("SELECT count(*) > 0 FROM $name WHERE ctid BETWEEN '(0,1)' AND '(4,200)'"),
			't', "$where: the pages before it can be read");
		is($session->query_safe("SELECT count(*) > 0 FROM $name WHERE ctid BETWEEN '(7,1)' AND '(9,200)'"),
			't', "$where: and those after it");
		is(substr(raw_page($session, $path, $blkno), 20),
			substr($unmarked, 20), "$where: nobody overwrote it");
		$session->query_safe(
			"SELECT write_file('$name', 'main', $blkno, decode('$page', 'hex'))");
		answers($session, "SELECT $digest FROM $name",
			$expected, "$where: the page is restored");
	}

	# the same in a map, which is read with RBM_ZERO_ON_ERROR
	if (!$temp)
	{
		$page = raw_page($session, "${path}_vm", 0);
		($unmarked = $page) =~ s/^(.{36})05/${1}04/;
		isnt($unmarked, $page, "$label: visibility map bears the mark");
		$session->query_safe(
			"SELECT write_file('$name', 'vm', 0, decode('$unmarked', 'hex'))");
		complains(
			$session,
			"VACUUM $name",
			qr{ERROR:  block 0 of encrypted relation "\Q${path}_vm\E" is not encrypted},
			"$label: unmarked visibility map");
		is($session->query_safe("SELECT get_byte(pg_read_binary_file('${path}_vm'), 18)"),
			4, "$label: visibility map was not zeroed");
		$session->query_safe(
			"SELECT write_file('$name', 'vm', 0, decode('$page', 'hex'))");
		answers($session, "VACUUM $name", '',
			"$label: visibility map is restored");
	}

	ok($node->log_contains(
			qr{LOG:  block 5 of encrypted relation "\Q$path\E" is not encrypted},
			$log),
		"$label: the log says it too, whoever completed the read");
	return;
}

sub test_short_reads
{
	my ($session, $name, $label) = @_;
	my $invalidate =
	  join('', map { "SELECT invalidate_rel_block('$name', $_);" } 0 .. 8);

	for my $bytes (8192, 2 * 8192, 8192 + 512)
	{
		$session->query_safe($invalidate);
		$session->query_safe("SELECT inj_io_short_read_attach($bytes)");
		answers($session, "SELECT $digest FROM $name",
			$expected, "$label: reads of at most $bytes bytes are continued");
		$session->query_safe('SELECT inj_io_short_read_detach()');
	}
	$session->query_safe($invalidate);
	$session->query_safe('SELECT inj_io_short_read_attach(17)');
	complains($session, "SELECT count(more) FROM $name",
		qr{ERROR:  could not read blocks .* read only 0 of},
		"$label: nothing was read");
	$session->query_safe('SELECT inj_io_short_read_detach()');
	answers($session, "SELECT $digest FROM $name", $expected,
		"$label: and then it was");
	return;
}

# Each method with each persistence, and each of these with some cipher
my @ciphers = ('aes_128_xts', 'aes_256_xts', 'aes_128_cbc', 'aes_256_cbc');
my $turn = 0;

foreach my $method ('sync', 'worker', 'io_uring')
{
  SKIP: {
		skip $no_uring, 1 if $method eq 'io_uring' && $no_uring;

		$node->stop;
		$node->append_conf('postgresql.conf', "io_method = $method\n");
		if (!$node->start(fail_ok => $method eq 'io_uring'))
		{
			skip 'the kernel does not let us use io_uring', 1
			  if $node->log_contains('could not setup io_uring queue');
			BAIL_OUT("server does not start with io_method = $method");
		}

		my $session =
		  $node->background_psql('postgres', on_error_stop => 0);
		$session->query_safe('SET client_min_messages = warning');

		foreach my $kind ('permanent', 'unlogged', 'temporary')
		{
			my $name = $kind . '_t';
			my $label = "$method, $kind";
			my $forget =
			  $kind eq 'temporary' ? 'SELECT 1' : "SELECT evict('$name')";

			$session->query_safe(
				"SET pg_tde.cipher = " . $ciphers[ $turn++ % @ciphers ]);
			# one by one: VACUUM wants no transaction around it
			$session->query_safe($_ . ';')
			  foreach grep { /\S/ }
			  split(/;/, create_sql($kind eq 'permanent' ? '' : $kind, $name));
			$session->query_safe('SELECT evict(oid) FROM pg_class WHERE relname ~ '
				  . "'^${name}_' AND relkind = 'i'")
			  if $kind ne 'temporary';

			$session->query_safe($forget);
			answers($session, "SELECT $digest FROM $name",
				$expected, "$label: sequential scan");
			$session->query_safe($forget);
			$session->query_safe('SET enable_seqscan = off');
			answers(
				$session, qq{
				SELECT count(*) FROM $name WHERE id BETWEEN 1000 AND 1999;
				SELECT id FROM $name WHERE word = md5('777');
				SELECT count(*) FROM $name WHERE string_to_array(word, 'a') \@> ARRAY['b'];
				SELECT count(*) FROM $name WHERE word ^\@ 'ab';
				SELECT count(*) FROM $name WHERE point(id, id) <\@ box '((1,1),(10,10))';},
				$node->safe_psql(
					'postgres', q{
					SELECT count(*) FROM control WHERE id BETWEEN 1000 AND 1999;
					SELECT id FROM control WHERE word = md5('777');
					SELECT count(*) FROM control WHERE string_to_array(word, 'a') @> ARRAY['b'];
					SELECT count(*) FROM control WHERE word ^@ 'ab';
					SELECT count(*) FROM control WHERE point(id, id) <@ box '((1,1),(10,10))';}),
				"$label: index scans");
			$session->query_safe('RESET enable_seqscan');

			# check_storage() below cannot see another session's tables
			if ($kind eq 'temporary')
			{
				my ($plain, $marked) = (0, 0);
				my $path =
				  $session->query_safe("SELECT pg_relation_filepath('$name')");

				foreach my $file (relation_files($node, $path))
				{
					my ($p, $m) = plain_and_marked(slurp_bytes($file));
					$plain += $p;
					$marked += $m;
				}
				is($plain, 0, "$label: no page on disk is in clear");
				cmp_ok($marked, '>', 20, "$label: and some are encrypted");
			}

			test_short_reads($session, $name, $label) if $injection;
			test_wrong_pages($session, $name, $label);
		}

		# what other processes than the backend wrote is right too
		check_storage($node, 'postgres', $method,
			canary => md5_of(777), control => ['control']);

		$session->query_safe('DROP TABLE permanent_t, unlogged_t, temporary_t');
		$session->quit;
	}
}

sub md5_of
{
	my ($what) = @_;
	return $node->safe_psql('postgres', "SELECT md5('$what')");
}

# The checksums on disk are those of the encrypted pages: no key is needed to
# verify them.
$node->safe_psql('postgres',
	$_ . ';')
  foreach grep { /\S/ } split(/;/, create_sql('', 'permanent_t'));
$node->stop;
command_ok([ 'pg_checksums', '--check', '--pgdata', $node->data_dir ],
	'checksums on disk');

done_testing();
