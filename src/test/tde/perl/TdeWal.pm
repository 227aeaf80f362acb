# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeWal - what tests of encrypted WAL need

=cut

package TdeWal;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

our @EXPORT = qw(wal_node encrypt_wal record_key_stream key_stream_is_used_once
  follow wait_archived wait_stopped from_lsn to_lsn segment_name write_up_to
  forget_old_wal wal_canaries drop_wal_canaries canaries_in epochs_path epochs_in
  write_epochs other_epochs crc32c);

# of a node of wal_node()
my $page = 8192;
my $segment = 1024 * 1024;

=pod

=head1 FUNCTIONS

=over

=item wal_node(name, %params)

A node of tde_node() with segments of 1 MB, an archive and standbys, where
nothing happens by itself and no WAL is removed.

=cut

sub wal_node
{
	my ($name, %params) = @_;
	my $node = tde_node(
		$name,
		allows_streaming => 1,
		has_archiving => 1,
		extra => [ '--wal-segsize' => 1 ],
		%params);

	$node->append_conf(
		'postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1h
wal_keep_size = 1GB
wal_retrieve_retry_interval = 100ms
log_min_messages = log
});
	return $node;
}

=item encrypt_wal(node, ...)

Restart the first node with encryption of WAL; the others are its standbys and
will encrypt when they are promoted.

=cut

sub encrypt_wal
{
	my ($node, @standbys) = @_;

	$_->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n")
	  foreach $node, @standbys;
	$node->restart;
	return;
}

=item follow(node, upstream)

From now on the node is a standby of the other one.

=cut

sub follow
{
	my ($node, $upstream) = @_;
	my $name = $node->name;
	my $conninfo = $upstream->connstr;

	$node->append_conf('postgresql.conf',
		"primary_conninfo = '$conninfo application_name=$name'\n");
	$node->set_standby_mode unless -e $node->data_dir . '/standby.signal';
	$node->reload if $node->{_pid};
	return;
}

=item wait_archived(node, segment)

Wait until a segment is in the archive.

=item wait_stopped(node)

Wait until a server has ended by itself.

=cut

sub wait_archived
{
	my ($node, $file) = @_;
	$node->poll_query_until('postgres',
		"SELECT last_archived_wal >= '$file' FROM pg_stat_archiver")
	  or die "not archived: $file";
	return;
}

sub wait_stopped
{
	my ($node) = @_;

	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return unless -e $node->data_dir . '/postmaster.pid';
		select(undef, undef, undef, 0.1);
	}
	die $node->name . ' did not stop';
}

=item from_lsn(string), to_lsn(number), segment_name(timeline, number)

A position in WAL as a number, as a string, and the segment it is in.

=cut

sub from_lsn
{
	my ($high, $low) = split '/', $_[0];
	return hex($high) * 2**32 + hex($low);
}

sub to_lsn
{
	my ($n) = @_;
	return sprintf('%X/%X', $n >> 32, $n & 0xFFFFFFFF);
}

sub segment_name
{
	my ($tli, $lsn) = @_;
	my $no = int($lsn / $segment);
	my $per_id = int(2**32 / $segment);
	return sprintf('%08X%08X%08X', $tli, int($no / $per_id), $no % $per_id);
}

=item write_up_to(node, pages, distance)

Messages up to a position, where a record ends exactly; returns it.  The
position is the given distance before the end of a page, which is so many
pages before the end of the segment.  Nothing but these messages may be
written meanwhile.

=cut

sub write_up_to
{
	my ($node, $pages, $distance) = @_;
	my $overhead = 54;			# of a record of a message of this length
	my $emit = sub {
		return $node->safe_psql('postgres',
			"SELECT pg_logical_emit_message(false, '', repeat('a', $_[0]), true) - '0/0'");
	};

	while (1)
	{
		my $at = $emit->(1);
		my $target =
		  int($at / $segment) * $segment + $segment - $pages * $page - $distance;

		$target += $segment while $target < $at + 3 * $page;
		$at = $emit->(20000) while $target - $at > 5 * $page;
		$at = $emit->(1000) while $target - $at > $page / 2;
		return $target if $emit->($target - $at - $overhead) == $target;
	}
}

=item forget_old_wal(node)

Sees to it that pg_wal has nothing of what was written before: the segments are
finished and a checkpoint made, and files recycled for later are removed.

=cut

sub forget_old_wal
{
	my ($node) = @_;
	my $wal = $node->data_dir . '/pg_wal';

	$node->safe_psql('postgres',
		"SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")
	  foreach (1, 2);
	my $current = $node->safe_psql('postgres',
		'SELECT pg_walfile_name(pg_current_wal_lsn())');
	foreach my $file (grep { /^[0-9A-F]{24}$/ } slurp_dir($wal))
	{
		next unless $file gt $current;
		unlink "$wal/$file" or die "could not remove \"$wal/$file\": $!";
	}
	return;
}

=item wal_canaries(node, tag)

Writes WAL of each kind that has bytes of a user's choice in it.  Returns a hash
from a kind to byte strings, one or more, that occur in its records only.  They
contain the tag, "ON" or "OFF".  What the end of a page cuts is written more than
once.  The node needs wal_level = logical, prepared transactions and what
tde_setup() makes.

=item drop_wal_canaries(node)

Removes the databases and tablespaces made there.  A tablespace is the same
directory for all servers, so standbys must have replayed all before.

=cut

my $calls = 0;
my (@databases, @tablespaces);

sub wal_canaries
{
	my ($node, $tag) = @_;
	my $text = "CANARY-$tag";
	my $lower = lc $text;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $keyring = tde_keyring($node);
	my ($a, $b, @oids) = map { unpack('V', "$_$tag.") } qw(A B D E);
	my $number = unpack('Q<', "COUNT$tag.");
	my $sql = sub { return $node->safe_psql('postgres', $_[0]) };
	my %canaries = map { $_ => ["$text-$_-"] } qw(
	  insert multi-insert update toast generic message prefix
	  transactional-message gid restore-point table comment publication
	  provider tablespace);

	# in tables in small letters, in their indexes in capitals
	$canaries{$_} = [ uc "$text-$_-" ] foreach qw(image btree gin brin spgist);
	$canaries{sequence} = [ pack('Q<', $number) ];
	$canaries{truncate} = [ pack('V2', $a, $b) ];
	$canaries{database} = [ map { pack('V2', $_, 1663) } @oids ];
	$canaries{'relation-map'} = [ map { pack('V3', $_, 1663, 524) } @oids ];

	$calls++;
	$sql->('CREATE EXTENSION IF NOT EXISTS test_tde_storage');
	$sql->(
		qq{
		SELECT set_next_oid($a); CREATE TABLE "a-$tag" ();
		SELECT set_next_oid($b); CREATE TABLE "b-$tag" ()})
	  if $sql->(qq{SELECT to_regclass('"a-$tag"') IS NULL}) eq 't';
	$sql->(
		qq{
		DROP TABLE IF EXISTS canaries, indexed, gin, brin, spgist;
		CREATE TABLE canaries (a bigserial, b text) USING tde_heap;
		ALTER TABLE canaries ALTER b SET STORAGE EXTERNAL;
		INSERT INTO canaries (b) SELECT '$text-insert-' || g FROM generate_series(1, 3) g;
		COPY canaries (b) FROM PROGRAM 'for i in 1 2 3; do echo $text-multi-insert-\$i; done';
		INSERT INTO canaries (b) SELECT g FROM generate_series(1, 3) g;
		UPDATE canaries SET b = '$text-update-' || b WHERE length(b) = 1;
		INSERT INTO canaries (b) VALUES (repeat('$text-toast-', 1000));

		CREATE TABLE indexed (b text) USING tde_heap;
		INSERT INTO indexed SELECT '$lower-image-' || g FROM generate_series(1, 3) g;
		CREATE INDEX ON indexed (upper(b));
		INSERT INTO indexed SELECT '$lower-btree-' || g FROM generate_series(1, 3) g;
		CREATE TABLE gin (b text) USING tde_heap;
		CREATE INDEX ON gin USING gin ((ARRAY[upper(b)]));
		INSERT INTO gin SELECT '$lower-gin-' || g FROM generate_series(1, 3) g;
		CREATE TABLE spgist (b text) USING tde_heap;
		CREATE INDEX ON spgist USING spgist (upper(b));
		INSERT INTO spgist SELECT '$lower-spgist-' || g FROM generate_series(1, 3) g;
		CREATE TABLE brin (b text) USING tde_heap;
		INSERT INTO brin VALUES ('$lower-brin-8'), ('$lower-brin-9');
		CREATE INDEX ON brin USING brin (upper(b));
		INSERT INTO brin SELECT '$lower-brin-' || 8 - g FROM generate_series(1, 3) g;

		SELECT generic_record('canaries', '$text-generic-' || g) FROM generate_series(1, 3) g;
		SELECT pg_logical_emit_message(false, '$text-prefix-', '$text-message-'),
			pg_logical_emit_message(true, '', '$text-transactional-message-'),
			pg_create_restore_point('$text-restore-point-'),
			setval('canaries_a_seq', $number)
		FROM generate_series(1, 3);
		TRUNCATE "a-$tag", "b-$tag";
		TRUNCATE "a-$tag", "b-$tag"});

	foreach my $i (1 .. 3)
	{
		my $suffix = "-$calls-$i";
		my $location = "$dir/$text-tablespace$suffix";
		my $gid = "$text-gid$suffix";

		$sql->(
			qq{
			CREATE TABLE "$text-table$suffix" ();
			COMMENT ON TABLE "$text-table$suffix" IS '$text-comment-';
			CREATE PUBLICATION "$text-publication$suffix";
			SELECT pg_tde_add_database_key_provider_file('$text-provider$suffix', '$keyring')});
		foreach my $end ('COMMIT', 'ROLLBACK')
		{
			my $xid = $sql->(
				qq{
				BEGIN; INSERT INTO canaries (a) VALUES (1); SELECT pg_current_xact_id();
				PREPARE TRANSACTION '$gid'});

			$sql->("$end PREPARED '$gid'");
			push @{ $canaries{ lc $end } }, pack('V', $xid) . $gid;
		}
		mkdir $location or die;
		$sql->(qq{CREATE TABLESPACE "$text$suffix" LOCATION '$location'});
		push @tablespaces, "$text$suffix";
	}

	foreach my $oid (@oids)
	{
		my $name = "$text-database-$oid";

		$sql->(qq{CREATE DATABASE "$name" OID = $oid STRATEGY = file_copy});
		$node->safe_psql($name, 'VACUUM FULL pg_type');
		push @databases, $name;
	}
	return %canaries;
}

sub drop_wal_canaries
{
	my ($node) = @_;

	$node->safe_psql('postgres', qq{DROP DATABASE "$_"}) foreach splice @databases;
	$node->safe_psql('postgres', qq{DROP TABLESPACE "$_"}) foreach splice @tablespaces;
	return;
}

=item canaries_in(directory, canaries)

Which kinds of such a hash are found in files below a directory, sorted.

=cut

sub canaries_in
{
	my ($dir, %canaries) = @_;
	my %found;

	foreach my $file (files_with($dir, map { @$_ } values %canaries))
	{
		my $content = slurp_bytes("$dir/$file");
		foreach my $kind (keys %canaries)
		{
			$found{$kind} = 1
			  if grep { index($content, $_) >= 0 } @{ $canaries{$kind} };
		}
	}
	return sort keys %found;
}

=item record_key_stream(node), key_stream_is_used_once()

From the next start on servers record what key stream is used for; and a test
that none was used for two things, when they are stopped.

=cut

my $recorder;

sub record_key_stream
{
	my ($node) = @_;

	$recorder = $node->basedir . '/recorder';
	mkdir $recorder or die "could not create \"$recorder\": $!";
	$ENV{COFFER_WAL_RECORDER} = $recorder;
	return;
}

sub key_stream_is_used_once
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($pieces, $reused) = key_stream_uses($recorder);

	cmp_ok($pieces, '>', 1000, 'pieces of WAL were recorded');
	is($reused, 0, 'no key stream was used for two plaintexts');
	return;
}

# How many pieces were encrypted, as recorded in a directory, and how many of
# them meet key stream that was used for something else.
sub key_stream_uses
{
	my ($dir) = @_;
	my @pieces;
	my $reused = 0;

	foreach my $file (grep { /^\d+$/ } slurp_dir($dir))
	{
		my $data = slurp_bytes("$dir/$file");
		my $at = 0;

		# a process that was killed may have left the last one unfinished
		while ($at + 24 <= length $data)
		{
			my ($key, $lsn, $len) = unpack('Q<Q<Q<', substr($data, $at, 24));
			push @pieces, [ $key, $lsn, substr($data, $at + 24, $len) ];
			$at += 24 + $len;
		}
	}

	my $last = [ 0, 0, '' ];
	foreach my $piece (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @pieces)
	{
		my $overlap =
		  $piece->[0] == $last->[0]
		  ? $last->[1] + length($last->[2]) - $piece->[1]
		  : 0;
		if ($overlap > 0)
		{
			my $n = length $piece->[2];
			$n = $overlap if $n > $overlap;
			$reused++
			  if substr($piece->[2], 0, $n) ne
			  substr($last->[2], $piece->[1] - $last->[1], $n);
			next if $n < $overlap;
		}
		$last = $piece;
	}
	return (scalar @pieces, $reused);
}

=pod

=item epochs_path(node), epochs_in(path)

A node's file of epochs; the records in one.

=cut

sub epochs_path
{
	return $_[0]->data_dir . '/pg_tde/global/wal_epochs';
}

sub epochs_in
{
	my $file = slurp_bytes($_[0]);
	my @found;

	for (my $at = 16; $at < length($file) - 4;)
	{
		my $len = unpack('V', substr($file, $at + 8, 4));
		push @found, substr($file, $at, $len);
		$at += $len;
	}
	return @found;
}

=item write_epochs(path, record, ...)

Make a file of epochs.

=cut

sub write_epochs
{
	my ($path, @records) = @_;
	my $body = join '', @records;
	my $file =
	  'CFWS' . pack('vvVV', 1, 0, length($body) + 20, scalar(@records)) . $body;

	unlink $path;
	open(my $fh, '>:raw', $path) or die "could not open \"$path\": $!";
	print $fh $file . pack('V', crc32c($file));
	close($fh) or die "could not write \"$path\": $!";
	chmod 0600, $path or die "could not chmod \"$path\": $!";
	return;
}

=item other_epochs(record, n)

Records of n epochs like this one, but with other ids.

=cut

sub other_epochs
{
	my ($record, $n) = @_;
	my @others;

	foreach my $i (1 .. $n)
	{
		my $other = substr($record, 0, -4);
		substr($other, 12, 4) = pack('V', (0x10000000 + $i * 7919) & 0x7FFFFFFF);
		push @others, $other . pack('V', crc32c($other));
	}
	return @others;
}

=item crc32c(bytes)

Their CRC-32C.

=cut

my @crc_table;

sub crc32c
{
	my $crc = 0xFFFFFFFF;

	unless (@crc_table)
	{
		foreach my $i (0 .. 255)
		{
			my $c = $i;
			$c = $c & 1 ? ($c >> 1) ^ 0x82F63B78 : $c >> 1 foreach 1 .. 8;
			push @crc_table, $c;
		}
	}
	$crc = $crc_table[ ($crc ^ $_) & 255 ] ^ ($crc >> 8)
	  foreach unpack('C*', $_[0]);
	return $crc ^ 0xFFFFFFFF;
}

=pod

=back

=cut

1;
