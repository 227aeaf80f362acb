# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeStorage - is the right storage encrypted, and is it so on disk?

=head1 SYNOPSIS

  use TdeStorage;

  check_storage($node, 'postgres', 'after VACUUM FULL',
	  canary => 'canary', control => ['plain']);

=head1 DESCRIPTION

The measure of "who gets encrypted".  What should be encrypted is worked out
here from the catalogs, by other means than in the server; it is compared with
what pg_tde_is_encrypted() says and with every page of every file.

=cut

package TdeStorage;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename ();
use PostgreSQL::Test::Utils;
use Test::More;
use TdeTest;

our @EXPORT = qw(check_storage storage_state relation_files plain_and_marked
  is_wanted_sql write_all);

# Relations that have storage, with what they are and what they should be.
# Other sessions' temporary relations are not ours to look at.
my $state_sql = q{
	WITH enc AS (
		SELECT a.oid FROM pg_am a JOIN pg_proc p ON p.oid = a.amhandler
		WHERE p.prosrc = 'pg_tdeam_handler'),
	owned AS (
		SELECT d.objid, t.relam, t.relkind FROM pg_depend d
		JOIN pg_class t ON t.oid = d.refobjid
		WHERE d.classid = 'pg_class'::regclass
		  AND d.refclassid = 'pg_class'::regclass
		  AND d.deptype IN ('a', 'i'))
	SELECT c.oid::regclass,
		pg_tde_is_encrypted(c.oid),
		CASE c.relkind
		WHEN 'i' THEN EXISTS (
			SELECT FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid
			JOIN enc ON enc.oid = t.relam WHERE x.indexrelid = c.oid)
		WHEN 'S' THEN EXISTS (
			SELECT FROM owned JOIN enc ON enc.oid = owned.relam
			WHERE owned.objid = c.oid)
			-- partitioned, access method left open: may be either
			OR EXISTS (SELECT FROM owned WHERE owned.objid = c.oid
				AND owned.relkind = 'p' AND owned.relam = 0
				AND pg_tde_is_encrypted(c.oid))
		ELSE c.relam IN (SELECT oid FROM enc) END,
		pg_relation_filepath(c.oid)
	FROM pg_class c
	WHERE c.relkind IN ('r', 'm', 't', 'i', 'S')
	  AND NOT pg_is_other_temp_schema(c.relnamespace)
	ORDER BY 1};

=pod

=head1 FUNCTIONS

=over

=item is_wanted_sql()

A query of (relation, is encrypted, should be, path), for tests that run it in
a session of their own.

=cut

sub is_wanted_sql { return $state_sql; }

=item storage_state(rows)

The result of that query, as a list of hashes (name, is, wanted, path).

=cut

sub storage_state
{
	my ($rows) = @_;
	return map {
		my ($name, $is, $wanted, $path) = split /\|/, $_;
		+{ name => $name, is => $is, wanted => $wanted, path => $path }
	} split /\n/, $rows;
}

=item relation_files(node, path)

The files of all forks and segments of a relation.

=cut

sub relation_files
{
	my ($node, $path) = @_;
	my $base = $node->data_dir . '/' . $path;

	return
	  grep { /^\Q$base\E(_(fsm|vm|init))?(\.\d+)?$/ && -f $_ }
	  (glob("$base $base.* ${base}_*"));
}

=item plain_and_marked(content)

How many pages that are not all zero lack, and how many bear, the mark of an
encrypted page.

=cut

sub plain_and_marked
{
	my ($content) = @_;
	my ($plain, $marked) = (0, 0);

	for (my $at = 0; $at < length($content); $at += 8192)
	{
		my $page = substr($content, $at, 8192);
		next if $page !~ /[^\0]/;
		if ((unpack('v', substr($page, 18, 2)) & 0xff) == 5)
		{
			$marked++;
		}
		else
		{
			$plain++;
		}
	}
	return ($plain, $marked);
}

=item write_all(node)

Write all of shared buffers, those of unlogged relations, which a checkpoint
leaves alone, too; and forget them, so that what is read next is read from
disk.  A standby has the extension that it takes from its primary.

=cut

sub write_all
{
	my ($node) = @_;
	$node->safe_psql('postgres',
		'CREATE EXTENSION IF NOT EXISTS pg_buffercache')
	  if $node->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f';
	$node->safe_psql('postgres',
		'SELECT FROM pg_buffercache_evict_all(); CHECKPOINT');
	return;
}

=item check_storage(node, database, label, %options)

Three tests: pg_tde_is_encrypted() is right about every relation of the
database; when all is written every page on disk is what it should be; and the
option "canary", a string, is in files of no encrypted relation, but in those
of each of the plain relations in the option "control".

Options "state", a list of rows from a session of the caller's own, and
"no_checkpoint".

=cut

sub check_storage
{
	my ($node, $db, $label, %opt) = @_;
	my %has_canary;
	my (@wrong, @pages, @leaks);

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	write_all($node) unless $opt{no_checkpoint};
	my @state = storage_state(
		defined $opt{state} ? $opt{state} : $node->safe_psql($db, $state_sql));

	foreach my $rel (@state)
	{
		my ($plain, $marked) = (0, 0);

		push @wrong, "$rel->{name} is '$rel->{is}', not '$rel->{wanted}'"
		  if $rel->{is} ne $rel->{wanted};

		foreach my $file (relation_files($node, $rel->{path}))
		{
			my $content = slurp_bytes($file);
			my ($p, $m) = plain_and_marked($content);
			$plain += $p;
			$marked += $m;
			if (defined $opt{canary} && index($content, $opt{canary}) >= 0)
			{
				$has_canary{ $rel->{name} } = 1;
				push @leaks, File::Basename::basename($file) . " of $rel->{name}"
				  if $rel->{wanted} eq 't';
			}
		}
		push @pages, "$rel->{name} has $plain plain, $marked encrypted pages"
		  if $rel->{wanted} eq 't' ? $plain > 0 : $marked > 0;
	}
	push @leaks, "not found in the control $_"
	  foreach grep { !$has_canary{$_} } @{ $opt{control} || [] };

	is(join("\n", @wrong), '', "$label: the right relations have a key");
	is(join("\n", @pages), '', "$label: pages on disk");
	is(join("\n", @leaks), '', "$label: canary")
	  if defined $opt{canary};
	return @state;
}

=pod

=back

=cut

1;
