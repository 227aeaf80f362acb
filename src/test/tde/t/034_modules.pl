# Copyright (c) 2026, the Coffer authors

# Modules and programs that know heap's pages work on encrypted tables, and
# say the same there as on plain ones.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

my $node = tde_node('main');
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
tde_setup($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("CREATE EXTENSION $_")
  foreach qw(amcheck pageinspect pg_freespacemap pg_prewarm pg_surgery
  pg_visibility pgrowlocks pgstattuple);

foreach my $t (['e', 'tde_heap'], ['p', 'heap'])
{
	sql(qq{CREATE TABLE $t->[0] (a serial PRIMARY KEY, b text, big text)
			USING $t->[1];
		ALTER TABLE $t->[0] ALTER big SET STORAGE EXTERNAL;
		CREATE INDEX $t->[0]_gin ON $t->[0]
			USING gin (to_tsvector('simple', b));
		INSERT INTO $t->[0] (b, big) SELECT 'row ' || g, repeat('x', 3000)
			FROM generate_series(1, 1000) g;
		DELETE FROM $t->[0] WHERE a % 10 = 0;
		CREATE MATERIALIZED VIEW $t->[0]_mv USING $t->[1] AS TABLE $t->[0];
		VACUUM $t->[0], $t->[0]_mv});
}

# Ask of both tables; TABLE stands for their name.
sub same
{
	my ($what, $query) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $encrypted = sql($query =~ s/TABLE/e/gr);
	is($encrypted, sql($query =~ s/TABLE/p/gr), $what);
	isnt($encrypted, '', "$what: something");
	return;
}

is(sql(q{SELECT count(*) FROM verify_heapam('e', check_toast => true)}),
	'0', 'verify_heapam');
is(sql(q{SELECT count(*) FROM verify_heapam('e_mv')}),
	'0', 'verify_heapam, matview');
is(sql(q{SELECT count(*) FROM verify_heapam('e_a_seq')}),
	'0', 'verify_heapam, sequence');
sql(q{SELECT bt_index_parent_check('e_pkey', true, true, true)});
sql(q{SELECT gin_index_check('e_gin')});
same('pgstattuple', q{SELECT * FROM pgstattuple('TABLE')});
same('pgstattuple, sequence', q{SELECT * FROM pgstattuple('TABLE_a_seq')});
same('pgstattuple_approx', q{SELECT * FROM pgstattuple_approx('TABLE')});
same('pgstattuple_approx, matview',
	q{SELECT * FROM pgstattuple_approx('TABLE_mv')});
same('pgstatindex', q{SELECT * FROM pgstatindex('TABLE_pkey')});
same('tuple_data_split',
	q{SELECT (tuple_data_split('TABLE'::regclass, t_data, t_infomask,
			t_infomask2, t_bits))[1:2]
	  FROM heap_page_items(get_raw_page('TABLE', 0)) LIMIT 20});
same('heap_page_item_attrs',
	q{SELECT lp, lp_off, t_attrs[1:2]
	  FROM heap_page_item_attrs(get_raw_page('TABLE', 0), 'TABLE'::regclass)
	  LIMIT 20});
same('page_header', q{SELECT lower, upper, special, pagesize, version
	  FROM page_header(get_raw_page('TABLE', 0))});
same('bt_page_items', q{SELECT ctid, data FROM bt_page_items('TABLE_pkey', 1)});
same('pg_visibility', q{SELECT * FROM pg_visibility_map('TABLE')});
same('pg_visibility_map_summary',
	q{SELECT * FROM pg_visibility_map_summary('TABLE')});
is(sql(q{SELECT count(*) FROM pg_check_frozen('e')}) . '|'
	  . sql(q{SELECT count(*) FROM pg_check_visible('e')}),
	'0|0', 'pg_check_frozen, pg_check_visible');
same('pg_freespacemap', q{SELECT * FROM pg_freespace('TABLE')});
same("pg_prewarm, $_", qq{SELECT pg_prewarm('TABLE', '$_')})
  foreach qw(buffer read prefetch);

# pgrowlocks looks at another session's locks
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe("SELECT a FROM $_ WHERE a = 3 FOR UPDATE")
  foreach qw(e p);
same('pgrowlocks', q{SELECT locked_row, multi, modes FROM pgrowlocks('TABLE')});
$session->query_safe('COMMIT');
$session->quit;

# pg_surgery
sql(q{SELECT heap_force_kill('e', ARRAY['(0,1)']::tid[]);
	  SELECT heap_force_freeze('e', ARRAY['(0,2)']::tid[])});
is(sql(q{SELECT count(*) FROM e WHERE a <= 2}), '1', 'pg_surgery');
sql('VACUUM e');
sql('REINDEX TABLE e');

# pg_amcheck looks at encrypted tables, with whatever hangs on them.  Which
# relations it asks about is read from the server's log.
my $toast = sql(q{SELECT reltoastrelid::regclass FROM pg_class
				  WHERE relname = 'e'});
my @rels = (qw(e p e_mv e_pkey p_pkey), $toast);

sub amcheck
{
	my ($label, @args) = @_;
	my $offset = -s $node->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->command_ok([ 'pg_amcheck', @args, '--database' => 'postgres' ],
		"pg_amcheck, $label");
	my $log = slurp_file($node->logfile, $offset);
	my %asked = map { $_ => 1 }
	  $log =~ /(?:verify_heapam|bt_index_check)\([^;]*?c\.oid = (\d+)/g;
	return map { $_ => $asked{ sql("SELECT '$_'::regclass::oid") } || 0 } @rels;
}

sql(q{ALTER SYSTEM SET log_statement = 'all'});
$node->reload;
my %asked = amcheck('everything');
is($asked{$_}, 1, "$_ was checked") foreach @rels;
%asked = amcheck('one table', '--table' => 'e');
is($asked{$_}, 1, "$_ was checked") foreach ('e', 'e_pkey', $toast);
is($asked{$_}, 0, "$_ was not") foreach qw(p e_mv);
%asked = amcheck('all but one', '--exclude-table' => 'e');
is($asked{$_}, 1, "$_ was checked") foreach qw(p e_mv);
is($asked{$_}, 0, "$_ was not") foreach ('e', 'e_pkey', $toast);
%asked = amcheck('a relation', '--relation' => 'e_mv');
is($asked{e_mv}, 1, 'e_mv was checked');

# And it finds what is wrong there.
sql(q{UPDATE pg_class SET relfrozenxid = (txid_current() + 1000)::text::xid
	  WHERE relname = 'e'});
$node->command_checks_all(
	[ 'pg_amcheck', '--table' => 'e', 'postgres' ],
	2, [qr/heap table "postgres\.public\.e"/],
	[], 'pg_amcheck reports what is wrong with an encrypted table');

$node->stop;
done_testing();
