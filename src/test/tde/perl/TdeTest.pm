# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeTest - a server with encryption, for TAP tests

=head1 SYNOPSIS

  use FindBin;
  use lib "$FindBin::RealBin/../perl";
  use TdeTest;

  my $node = tde_node('main');          # initialised, not started
  $node->start;
  tde_setup($node);                     # extension, file keyring, default key

  my @files = files_with($node->data_dir, 'canary');

=head1 DESCRIPTION

What tests of encryption need over and over.  The keyring of a node stands
beside its data directory, not in it, as it should anywhere.

=cut

package TdeTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Copy ();
use File::Find ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(tde_node tde_setup tde_keyring tde_crash files_with slurp_bytes
  copy_keyring tde_try_start);

=pod

=head1 FUNCTIONS

=over

=item tde_node(name, %params)

A new node that preloads pg_tde.  The parameters are those of init() of
PostgreSQL::Test::Cluster.

=cut

sub tde_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%params);
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'pg_tde'\n");
	return $node;
}

=item tde_keyring(node)

Path of the node's keyring file.

=cut

sub tde_keyring
{
	my ($node) = @_;
	return $node->basedir . '/keyring';
}

=item copy_keyring(from, to)

Copy a keyring file, with the permissions that it must have, and at once: a
server may be looking for it.

=cut

sub copy_keyring
{
	my ($from, $to) = @_;

	File::Copy::copy($from, "$to.copy") or die "could not copy \"$from\": $!";
	chmod 0600, "$to.copy" or die "could not chmod \"$to.copy\": $!";
	rename("$to.copy", $to) or die "could not rename \"$to.copy\": $!";
	return;
}

=item tde_setup(node, database)

Creates the extension in a database ("postgres" if none is given) and, unless
there is one, global key provider "ring" and default principal key "default".

=cut

sub tde_setup
{
	my ($node, $db) = @_;
	my $keyring = tde_keyring($node);
	$db = 'postgres' unless defined $db;

	$node->safe_psql($db, 'CREATE EXTENSION pg_tde');
	return
	  if $node->safe_psql($db,
		'SELECT key_name IS NOT NULL FROM pg_tde_default_key_info()') eq 't';
	$node->safe_psql(
		$db, qq{
		SELECT pg_tde_add_global_key_provider_file('ring', '$keyring');
		SELECT pg_tde_create_key_using_global_key_provider('default', 'ring');
		SELECT pg_tde_set_default_key_using_global_key_provider('default', 'ring');
	});
	return;
}

=item tde_try_start(node)

$node->start() for a server that may not start, or end again at once.  The
module's own would end the whole test where pg_ctl saw the server and its
postmaster.pid is gone by now; or where a standby that had been shut down does
not start, which pg_ctl takes for the end of a recovery.  Returns whether it was
there.

=cut

sub tde_try_start
{
	my ($node) = @_;

	no warnings 'redefine';
	local *PostgreSQL::Test::Cluster::BAIL_OUT = sub { die "$_[0]\n" };
	my $started = eval { $node->start(fail_ok => 1) };
	die $@ if $@ && $@ !~ /postmaster\.pid unexpectedly not present/;
	return $started;
}

=item tde_crash(node)

Kills the postmaster with SIGKILL and waits until its children have noticed
and are gone, so that the node can be started again.

=cut

sub tde_crash
{
	my ($node) = @_;
	my @children = split /\n/,
	  $node->safe_psql('postgres',
		'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');

	$node->kill9;
	for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return unless kill(0, @children);
		select(undef, undef, undef, 0.1);
	}
	die 'children of a killed postmaster did not exit';
}

=item slurp_bytes(path)

The content of a file, untranslated.

=cut

sub slurp_bytes
{
	my ($path) = @_;
	open(my $fh, '<:raw', $path) or die "could not open \"$path\": $!";
	local $/;
	my $content = <$fh>;
	close($fh);
	return $content;
}

=item files_with(directory, bytes, ...)

The files below a directory, tablespaces included, that contain one of the
byte strings; sorted, relative to the directory.

=cut

sub files_with
{
	my ($dir, @needles) = @_;
	my @found;

	File::Find::find(
		{
			no_chdir => 1,
			follow_fast => 1,
			follow_skip => 2,
			wanted => sub {
				return unless -f $_;
				my $content = eval { slurp_bytes($_) };
				if (!defined $content)
				{
					# a running server removes files
					die $@ if -e $_;
					return;
				}
				push @found, substr($_, length($dir) + 1)
				  if grep { index($content, $_) >= 0 } @needles;
			}
		},
		$dir);
	return sort @found;
}

=pod

=back

=cut

1;
