# Makes write_wal() of PostgreSQL's test nodes encrypt what it writes where the
# page that it writes into is encrypted, so that the bytes that recovery's test
# 039 forges at the end of WAL are what the server decrypts there.  Loaded into
# each test by PERL5OPT.
#
# Encryption is an XOR with key stream, which is what decrypting a page of
# known bytes gives away.

package EncryptWrittenWal;

use strict;
use warnings FATAL => 'all';

use File::Basename;

my $PAGE = 8192;
my $FILL = "\xa5";

# Key stream for a segment's bytes from $from to $to; zeros where they are in
# clear, as a page's header is (but for its key id, which no test writes).
sub key_stream
{
	my ($datadir, $path, $from, $to) = @_;
	my $copy = "$datadir/written_wal";
	my $filled = PostgreSQL::Test::Utils::slurp_file($path);

	for (my $page = $from - $from % $PAGE; $page < $to; $page += $PAGE)
	{
		my $header = $page == 0 ? 40 : 24;
		substr($filled, $page + $header, $PAGE - $header) =
		  $FILL x ($PAGE - $header);
	}
	open my $fh, '>:raw', $copy or die "$copy: $!";
	print $fh $filled;
	close $fh or die "$copy: $!";

	my $program = sprintf 'pg_tde_archive_decrypt -D "%s" %s "%s"',
	  $datadir, basename($path), $copy;
	my $clear = qx($program);
	die "\"$program\" failed" if $? != 0;
	unlink $copy;
	return substr($clear, $from, $to - $from)
	  ^ substr($filled, $from, $to - $from);
}

# Not before the test itself has loaded PostgreSQL::Test::Cluster, if it does.
INIT
{
	my $write_wal = PostgreSQL::Test::Cluster->can('write_wal');

	no warnings 'redefine';
	*PostgreSQL::Test::Cluster::write_wal = sub {
		my ($node, $tli, $lsn, $segment_size, $data) = @_;
		my $from = $lsn % $segment_size;
		my $path = $write_wal->(@_);
		my $stream =
		  key_stream($node->data_dir, $path, $from, $from + length $data);

		return $write_wal->($node, $tli, $lsn, $segment_size, $data ^ $stream);
	} if $write_wal;
}

1;
