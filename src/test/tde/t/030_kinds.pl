# Copyright (c) 2026, the Coffer authors

# Every kind of relation, and every command that gives a relation new storage.

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
$node->append_conf('postgresql.conf', 'allow_in_place_tablespaces = on');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub check
{
	my ($label) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return check_storage($node, 'postgres', $label,
		canary => $canary, control => ['plain', 'plain_b_idx']);
}

sql(q{CREATE TABLESPACE ts LOCATION ''});

# Rows with the canary in the heap, in TOAST (where it is not compressed) and
# in an index of each access method.
sub fill_table
{
	my ($name, $create) = @_;
	return qq{
		$create;
		ALTER TABLE $name ALTER toasted SET STORAGE EXTERNAL;
		INSERT INTO $name (b, toasted, words, box)
			SELECT '$canary' || g, repeat('$canary', 500), '$canary',
				   box(point(g, g), point(g + 1, g + 1))
			FROM generate_series(1, 200) g;};
}
my $columns = q{(a serial, ident int GENERATED ALWAYS AS IDENTITY, b text,
	toasted text, words text, box box, PRIMARY KEY (a))};
my %index = (
	btree => 'USING btree (b)',
	hash => 'USING hash (b)',
	gin => q{USING gin (to_tsvector('simple', words))},
	gist => 'USING gist (box) INCLUDE (b)',
	spgist => 'USING spgist (b)',
	brin => 'USING brin (b)',
	expression => q{((b || 'x')) WHERE a > 0});

sql(fill_table('plain', "CREATE TABLE plain $columns")
	  . 'CREATE INDEX plain_b_idx ON plain (b); VACUUM plain');
check('plain tables only');

# Created with the command's USING clause, by the default access method, from
# a query, like another table.
sql(fill_table('t', "CREATE TABLE t $columns USING tde_heap"));
sql("CREATE INDEX t_$_ ON t $index{$_}") foreach sort keys %index;
sql("CREATE INDEX CONCURRENTLY t_conc ON t (b)");
sql(qq{SET default_table_access_method = tde_heap;
	CREATE TABLE by_default AS SELECT '$canary' || g AS b
		FROM generate_series(1, 1000) g;
	CREATE TABLE like_plain (LIKE plain INCLUDING ALL);
	INSERT INTO like_plain (b) VALUES ('$canary');
	SELECT * INTO selected FROM by_default;});
sql('CREATE TABLE like_t (LIKE t INCLUDING ALL)');
sql("INSERT INTO like_t (b) VALUES ('$canary')");
sql('VACUUM t, by_default');
my %state = map { $_->{name} => $_->{is} } check('created');
is($state{$_}, 't', "$_ is encrypted")
  foreach qw(t t_pkey t_btree t_hash t_gin t_gist t_spgist t_brin
  t_expression t_conc t_a_seq t_ident_seq by_default like_plain
  like_plain_pkey like_plain_ident_seq selected);
is($state{$_}, 'f', "$_ is plain")
  foreach qw(plain plain_pkey plain_a_seq plain_ident_seq like_t
  like_t_pkey pg_class pg_class_oid_index);
my $toast = sql(q{SELECT reltoastrelid::regclass FROM pg_class
				  WHERE relname = 't'});
is($state{$toast}, 't', 'the TOAST table is encrypted');
is($state{"${toast}_index"}, 't', 'so is its index');
like(
	sql(q{SELECT string_agg(pg_relation_size('t', f)::text, ' ')
		  FROM unnest('{main,fsm,vm}'::text[]) f}),
	qr/^[1-9]\d* [1-9]\d* [1-9]\d*$/,
	'three forks were looked at');

# Everything that gives new storage to some or all of it.
foreach my $command (
	'VACUUM FULL t', 'CLUSTER t USING t_pkey',
	'REINDEX TABLE t', 'REINDEX TABLE CONCURRENTLY t',
	'REINDEX INDEX t_hash',
	"REINDEX TABLE $toast", "REINDEX INDEX CONCURRENTLY ${toast}_index",
	'ALTER TABLE t ALTER a TYPE bigint',
	"ALTER TABLE t ADD COLUMN volatile float DEFAULT random()",
	'ALTER TABLE t SET TABLESPACE ts',
	'ALTER INDEX t_btree SET TABLESPACE ts',
	'ALTER TABLE t SET TABLESPACE pg_default',
	'REINDEX (TABLESPACE ts) TABLE t',
	'VACUUM (FULL) t',
	'ALTER TABLE t SET UNLOGGED', 'ALTER TABLE t SET LOGGED',
	'ALTER SEQUENCE t_a_seq INCREMENT BY 2',
	'ALTER SEQUENCE t_a_seq AS bigint RESTART',
	'VACUUM FULL pg_class', 'VACUUM FULL pg_proc',
	'REINDEX SYSTEM postgres')
{
	sql($command);
	check($command);
}

# No rewrite, so the indexes keep their files.
sql('CREATE TABLE keeps (a int PRIMARY KEY, v varchar(10)) USING tde_heap;
	 CREATE INDEX keeps_v ON keeps (v)');
my $before = sql(q{SELECT pg_relation_filenode('keeps_v')});
sql('ALTER TABLE keeps ALTER v TYPE varchar(20)');
is(sql(q{SELECT pg_relation_filenode('keeps_v')}),
	$before, 'ALTER TYPE without a rewrite keeps the index file');
check('ALTER TYPE without a rewrite');

# The same with a change of access method beside it.  The index must not stay.
sql('ALTER TABLE keeps ALTER v TYPE varchar(30), SET ACCESS METHOD heap');
check('ALTER TYPE and SET ACCESS METHOD heap');
sql('ALTER TABLE keeps ALTER v TYPE varchar(40), SET ACCESS METHOD tde_heap');
check('ALTER TYPE and SET ACCESS METHOD tde_heap');

# Both ways, with what hangs on the table.
sql('ALTER TABLE t SET ACCESS METHOD heap');
%state = map { $_->{name} => $_->{is} } check('SET ACCESS METHOD heap');
is($state{$_}, 'f', "$_ is plain")
  foreach qw(t t_pkey t_gin t_brin t_a_seq t_ident_seq);
sql('ALTER TABLE t SET ACCESS METHOD tde_heap');
%state = map { $_->{name} => $_->{is} } check('SET ACCESS METHOD tde_heap');
is($state{$_}, 't', "$_ is encrypted")
  foreach qw(t t_pkey t_gin t_brin t_a_seq t_ident_seq);
sql('ALTER TABLE plain SET ACCESS METHOD tde_heap');
check_storage($node, 'postgres', 'plain table made encrypted');
sql('ALTER TABLE plain SET ACCESS METHOD DEFAULT');
sql('ALTER TABLE t SET UNLOGGED, SET ACCESS METHOD heap');
check('SET ACCESS METHOD heap and UNLOGGED');
sql('ALTER TABLE t SET LOGGED, SET ACCESS METHOD tde_heap');
check('SET ACCESS METHOD tde_heap and LOGGED');
is(sql('SELECT count(*), count(DISTINCT b), min(length(toasted)) FROM t'),
	'200|200|13000', 'no row was lost');

sql('TRUNCATE t RESTART IDENTITY');
check('TRUNCATE');
is( sql("INSERT INTO t (b) VALUES ('$canary') RETURNING a, ident"),
	'1|1', 'sequences start again');
check('row after TRUNCATE');

# Materialised views, and what a concurrent refresh makes on the side: an event
# trigger writes down the temporary tables that it sees.  (The commands are
# hidden from it, the tables are not.)
sql(q{CREATE TABLE made (name text, am text);
	CREATE FUNCTION note_made() RETURNS event_trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.made SELECT c.relname, a.amname
			FROM pg_class c JOIN pg_am a ON a.oid = c.relam
			WHERE c.relname ~ '^pg_temp_' AND c.relkind = 'r';
	END $$;
	CREATE EVENT TRIGGER note_made ON ddl_command_end
		WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION note_made()});
sql(qq{CREATE MATERIALIZED VIEW mv USING tde_heap AS
		SELECT g, '$canary' || g || clock_timestamp() AS b
		FROM generate_series(1, 500) g;
	CREATE UNIQUE INDEX mv_g ON mv (g); VACUUM mv});
check('CREATE MATERIALIZED VIEW');
sql('REFRESH MATERIALIZED VIEW mv');
check('REFRESH MATERIALIZED VIEW');
sql('REFRESH MATERIALIZED VIEW CONCURRENTLY mv');
check('REFRESH MATERIALIZED VIEW CONCURRENTLY');
is(sql('SELECT count(DISTINCT name), string_agg(DISTINCT am, $$ $$) FROM made'),
	'2|tde_heap', 'both its temporary tables were encrypted');
is(sql('SHOW default_table_access_method'),
	'heap', 'the setting was used inside the command only');
sql('ALTER MATERIALIZED VIEW mv SET ACCESS METHOD heap');
check('ALTER MATERIALIZED VIEW SET ACCESS METHOD heap');
sql('TRUNCATE made; REFRESH MATERIALIZED VIEW CONCURRENTLY mv');
is(sql('SELECT count(DISTINCT name), string_agg(DISTINCT am, $$ $$) FROM made'),
	'2|heap', 'plain matview, plain temporary tables');
sql('DROP EVENT TRIGGER note_made');

# Partitions by their own access method; their indexes and sequences too.
sql(qq{
	CREATE TABLE parent (id int GENERATED BY DEFAULT AS IDENTITY, k int,
		v text) PARTITION BY RANGE (k) USING tde_heap;
	CREATE TABLE c1 PARTITION OF parent FOR VALUES FROM (0) TO (10);
	CREATE TABLE c2 PARTITION OF parent FOR VALUES FROM (10) TO (20) USING heap;
	CREATE INDEX ON parent (v);
	CREATE UNIQUE INDEX ON parent (k, id);
	CREATE TABLE c3 (id int NOT NULL, k int, v text);
	CREATE INDEX ON c3 (v);
	ALTER TABLE parent ATTACH PARTITION c3 FOR VALUES FROM (20) TO (30);
	INSERT INTO parent (k, v) SELECT k, '$canary' FROM generate_series(0, 29) k
});
%state = map { $_->{name} => $_->{is} } check('partitions');
is($state{$_}, 't', "$_ is encrypted")
  foreach qw(c1 c1_v_idx c1_k_id_idx parent_id_seq);
is($state{$_}, 'f', "$_ is plain")
  foreach qw(c2 c2_v_idx c2_k_id_idx c3 c3_v_idx c3_k_id_idx);
sql('ALTER TABLE parent DETACH PARTITION c1');
check('DETACH PARTITION');
sql('ALTER TABLE parent SET ACCESS METHOD heap');
check('partitioned table SET ACCESS METHOD');

# Unlogged
sql(fill_table('u', "CREATE UNLOGGED TABLE u $columns USING tde_heap"));
sql("CREATE INDEX u_$_ ON u $index{$_}") foreach sort keys %index;
check('unlogged');
like(join(' ', glob($node->data_dir . '/'
		. sql(q{SELECT pg_relation_filepath('u_gin')}) . '_init')),
	qr/_init$/, 'an init fork was looked at');

# Temporary, larger than its buffers, looked at from inside its session
my $session = $node->background_psql('postgres');
$session->query_safe(q{SET temp_buffers = '800kB'});
$session->query_safe(
	fill_table('temp', "CREATE TEMP TABLE temp $columns USING tde_heap"));
$session->query_safe(
	"CREATE INDEX temp_$_ ON temp $index{$_}") foreach sort keys %index;
$session->query_safe(
	fill_table('temp_plain', "CREATE TEMP TABLE temp_plain $columns"));
$session->query_safe('CREATE TABLE filler AS SELECT repeat(md5(g::text), 50)
	FROM generate_series(1, 2000) g');
$session->query_safe('CREATE TEMP TABLE temp_filler AS TABLE filler');
check_storage($node, 'postgres', 'temporary tables',
	state => $session->query_safe(is_wanted_sql()),
	canary => $canary, control => ['temp_plain']);
$session->query_safe('ALTER TABLE temp SET ACCESS METHOD heap;
	ALTER TABLE temp_plain SET ACCESS METHOD tde_heap;
	TRUNCATE temp_filler; INSERT INTO temp_filler TABLE filler');
check_storage($node, 'postgres', 'temporary tables the other way',
	state => $session->query_safe(is_wanted_sql()),
	canary => $canary, control => ['temp']);
is($session->query_safe('SELECT count(*), count(DISTINCT b) FROM temp_plain'),
	'200|200', 'rows of the encrypted temporary table');
$session->quit;

# Another access method made with the same handler
sql(q{CREATE ACCESS METHOD mine TYPE TABLE HANDLER pg_tdeam_handler});
sql(fill_table('my_table', "CREATE TABLE my_table $columns USING mine"));
%state = map { $_->{name} => $_->{is} } check('access method of the user');
is($state{$_}, 't', "$_ is encrypted") foreach qw(my_table my_table_pkey);

$node->stop;
done_testing();
