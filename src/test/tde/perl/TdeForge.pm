# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeForge - WAL and files that no server wrote

=head1 DESCRIPTION

What somebody can make who has a user's files and no key: pages of WAL in clear
with valid records, and files whose checksum fits.

=cut

package TdeForge;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(crc32c wal_pages wal_page_header epoch_page epoch_of
  forged_record forged_page forged_message);

use constant PAGE => 8192;

my @table = map {
	my $crc = $_;
	$crc = $crc >> 1 ^ ($crc & 1 ? 0x82F63B78 : 0) foreach 1 .. 8;
	$crc;
} 0 .. 255;

=pod

=head1 FUNCTIONS

=over

=item crc32c(data)

=cut

sub crc32c
{
	my ($data) = @_;
	my $crc = 0xFFFFFFFF;

	$crc = $crc >> 8 ^ $table[ ($crc ^ $_) & 0xFF ] foreach unpack('C*', $data);
	return $crc ^ 0xFFFFFFFF;
}

=item wal_pages(segment)

The pages of a segment's content.

=item wal_page_header(page)

A hash of the fields of a page's header.

=cut

sub wal_pages
{
	return unpack('(a8192)*', $_[0]);
}

sub wal_page_header
{
	my %header;

	@header{qw(magic info tli addr rem_len key_id)} = unpack('vvVQ<VV', $_[0]);
	$header{size} = $header{info} & 2 ? 40 : 24;
	return \%header;
}

=item epoch_page(pages)

The number of the last of some pages that begins with the record of an epoch.

=item epoch_of(page)

The epoch's record on such a page, without the padding: what begins with its
magic number.

=cut

sub epoch_page
{
	my @pages = @_;
	my @found = grep { defined epoch_of($pages[$_]) } 0 .. $#pages;

	return $found[-1];
}

sub epoch_of
{
	my ($page) = @_;
	my $header = wal_page_header($page);
	my ($rmid) = unpack('C', substr($page, $header->{size} + 17, 1));
	my $at = index($page, 'CFWE', $header->{size} + 24);

	return undef if $header->{key_id} != 0 || $rmid != 222 || $at < 0;
	return substr($page, $at, unpack('V', substr($page, $at + 8, 4)));
}

=item forged_record(resource manager, info, prev, data, size)

A record with those data and nothing else, filled with zeros to that size if one
is given.

=cut

sub forged_record
{
	my ($rmid, $info, $prev, $data, $size) = @_;
	my $body;

	$size //= 24 + (length($data) > 255 ? 5 : 2) + length($data);
	$body =
		$size - 26 > 255
	  ? pack('CV', 254, $size - 29)
	  : pack('CC', 255, $size - 26);
	$body .= $data;
	$body .= "\0" x ($size - 24 - length($body));

	my $head = pack('VVQ<CCv', $size, 0, $prev, $info, $rmid, 0);
	return $head . pack('V', crc32c($body . $head)) . $body;
}

=item forged_page(page, key id, prev, [resource manager, info, data], ...)

A page in clear in the place of another one, with those records, the first of which
follows the record at "prev".

=cut

sub forged_page
{
	my ($page, $key_id, $prev, @records) = @_;
	my $header = wal_page_header($page);
	my $at = $header->{addr} + $header->{size};
	my $all = substr($page, 0, $header->{size});

	substr($all, 2, 2) = pack('v', $header->{info} & ~1);
	substr($all, 16, 8) = pack('VV', 0, $key_id);

	foreach (@records)
	{
		my $record = forged_record($_->[0], $_->[1], $prev, $_->[2]);

		$prev = $at;
		$record .= "\0" x (-length($record) % 8);
		$all .= $record;
		$at += length($record);
	}
	die 'too much for a page' if length($all) > PAGE;
	return $all . "\0" x (PAGE - length($all));
}

=item forged_message(text)

The data of a restore point with that name, which replay writes to the log.

=cut

sub forged_message
{
	return [ 0, 0x70, pack('q<a64', 0, $_[0]) ];
}

=pod

=back

=cut

1;
