# Copyright (c) 2026, the Coffer authors

# Commands and states in which event triggers see nothing; transactions that
# roll back, fail or are prepared; and that nothing is left behind by them
# that would make the next relation encrypted, or plain.

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
my $node = tde_node('main');
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub check
{
	my ($label, %is) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %state = map { $_->{name} => $_->{is} }
	  check_storage($node, 'postgres', $label, canary => $canary);
	is($state{$_}, $is{$_}, "$label: $_") foreach sort keys %is;
	return;
}

# Elements of CREATE SCHEMA
sql(qq{
	CREATE SCHEMA s
		CREATE TABLE t (a serial PRIMARY KEY, b text UNIQUE) USING tde_heap
		CREATE INDEX t_b ON t (b)
		CREATE TABLE p (a serial PRIMARY KEY, b text);
	INSERT INTO s.t (b) SELECT '$canary' || g FROM generate_series(1, 100) g;
	SET default_table_access_method = tde_heap;
	CREATE SCHEMA d
		CREATE TABLE t (a serial PRIMARY KEY, b text)
		CREATE TABLE p (a serial PRIMARY KEY, b text) USING heap;
	INSERT INTO d.t (b) VALUES ('$canary')});
check('CREATE SCHEMA with elements',
	's.t' => 't', 's.t_pkey' => 't', 's.t_b' => 't', 's.t_a_seq' => 't',
	's.p' => 'f', 's.p_pkey' => 'f', 's.p_a_seq' => 'f',
	'd.t' => 't', 'd.t_pkey' => 't', 'd.t_a_seq' => 't',
	'd.p' => 'f', 'd.p_a_seq' => 'f');

# Without event triggers
sql(qq{SET event_triggers = off;
	CREATE TABLE silent (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO silent (b) VALUES ('$canary');
	ALTER TABLE s.p SET ACCESS METHOD tde_heap;
	ALTER TABLE d.t SET ACCESS METHOD heap; TRUNCATE d.t});
check('event_triggers = off',
	'silent' => 't', 'silent_pkey' => 't', 'silent_a_seq' => 't',
	's.p' => 't', 's.p_pkey' => 't', 's.p_a_seq' => 't',
	'd.t' => 'f', 'd.t_pkey' => 'f', 'd.t_a_seq' => 'f');

# Rolled back, and the same name plain, and the other way round
sql(qq{
	BEGIN;
	CREATE TABLE r (a serial PRIMARY KEY) USING tde_heap;
	ROLLBACK;
	CREATE TABLE r (a serial PRIMARY KEY);
	BEGIN;
	SAVEPOINT one;
	CREATE TABLE sub (a serial PRIMARY KEY) USING tde_heap;
	ROLLBACK TO one;
	CREATE TABLE sub (a serial PRIMARY KEY);
	SAVEPOINT two;
	ALTER TABLE sub SET ACCESS METHOD tde_heap;
	ROLLBACK TO two;
	SAVEPOINT three;
	CREATE TABLE sub2 (a serial PRIMARY KEY);
	ROLLBACK TO three;
	CREATE TABLE sub2 (a serial PRIMARY KEY) USING tde_heap;
	SAVEPOINT four;
	ALTER TABLE sub2 SET ACCESS METHOD heap;
	ROLLBACK TO four;
	SAVEPOINT five;
	ALTER TABLE sub2 SET ACCESS METHOD heap;
	RELEASE five;
	SAVEPOINT six;
	ALTER TABLE sub2 SET ACCESS METHOD tde_heap;
	RELEASE six;
	COMMIT;
	INSERT INTO r DEFAULT VALUES;
	INSERT INTO sub DEFAULT VALUES;
	INSERT INTO sub2 DEFAULT VALUES});
check('rollback',
	'r' => 'f', 'r_pkey' => 'f', 'r_a_seq' => 'f',
	'sub' => 'f', 'sub_pkey' => 'f', 'sub_a_seq' => 'f',
	'sub2' => 't', 'sub2_pkey' => 't', 'sub2_a_seq' => 't');

# An access method changed and rolled back at the top: the old files again
sql(q{BEGIN; ALTER TABLE s.t SET ACCESS METHOD heap; ROLLBACK;
	  INSERT INTO s.t (b) VALUES ('after rollback')});
check('SET ACCESS METHOD rolled back', 's.t' => 't', 's.t_a_seq' => 't');
is(sql('SELECT count(*), max(a) FROM s.t'), '101|101', 'rows are there');

# Prepared transactions
sql(qq{
	BEGIN;
	CREATE TABLE prepared (a serial PRIMARY KEY, b text) USING tde_heap;
	INSERT INTO prepared (b) VALUES ('$canary');
	PREPARE TRANSACTION 'commit';
	BEGIN;
	CREATE TABLE gone (a serial PRIMARY KEY) USING tde_heap;
	PREPARE TRANSACTION 'rollback';
	BEGIN;
	CREATE TABLE midway (a serial PRIMARY KEY);
	COMMIT});
$node->stop('immediate');
$node->start;
sql(q{COMMIT PREPARED 'commit'; ROLLBACK PREPARED 'rollback'});
check('prepared transactions after a crash',
	'prepared' => 't', 'prepared_pkey' => 't', 'prepared_a_seq' => 't',
	'midway' => 'f');
is(sql('SELECT a, b FROM prepared'), "1|$canary", 'its row is there');

# An error between the decision and the file
SKIP:
{
	skip 'injection points are not built in', 1
	  if ($ENV{enable_injection_points} || '') ne 'yes';

	sql(q{CREATE EXTENSION injection_points});
	sql(q{
		SELECT injection_points_set_local();
		SELECT injection_points_attach('tde-prepare-storage', 'error');
		DO $$
		BEGIN
			BEGIN
				CREATE TABLE failed (a int) USING tde_heap;
				RAISE 'the injection point was not met';
			EXCEPTION WHEN internal_error THEN NULL;
			END;
			PERFORM injection_points_detach('tde-prepare-storage');
			CREATE TABLE failed (a serial PRIMARY KEY);
			PERFORM injection_points_attach('tde-prepare-storage', 'error');
			BEGIN
				CREATE TABLE failed2 (a int);
				RAISE 'the injection point was not met';
			EXCEPTION WHEN internal_error THEN NULL;
			END;
			PERFORM injection_points_detach('tde-prepare-storage');
			CREATE TABLE failed2 (a serial PRIMARY KEY) USING tde_heap;
		END $$});
	check('error before the file is made',
		'failed' => 'f', 'failed_pkey' => 'f', 'failed_a_seq' => 'f',
		'failed2' => 't', 'failed2_pkey' => 't', 'failed2_a_seq' => 't');
}

# Single-user mode
$node->stop;
my $script = "$PostgreSQL::Test::Utils::tmp_check/single.sql";
append_to_file($script, qq{CREATE TABLE single (a serial PRIMARY KEY, b text) USING tde_heap
INSERT INTO single (b) SELECT '$canary' FROM generate_series(1, 100)
CREATE TABLE single_plain (a serial PRIMARY KEY)
ALTER TABLE silent SET ACCESS METHOD heap
TRUNCATE silent
ALTER TABLE r SET ACCESS METHOD tde_heap
});
my $result =
  run_log([ 'postgres', '--single', '-F', '-D', $node->data_dir, 'postgres' ],
	'<' => $script);
ok($result, 'single-user mode');
$node->start;
check('single-user mode',
	'single' => 't', 'single_pkey' => 't', 'single_a_seq' => 't',
	'single_plain' => 'f', 'silent' => 'f', 'silent_a_seq' => 'f',
	'r' => 't', 'r_pkey' => 't', 'r_a_seq' => 't');
is(sql('SELECT count(*) FROM single'), '100', 'rows of single-user mode');

$node->stop;
done_testing();
