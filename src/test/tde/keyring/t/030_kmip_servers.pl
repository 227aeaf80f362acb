# Copyright (c) 2026, the Coffer authors

# The KMIP client with real servers: in each version that they speak, a key's
# life from its creation to its destruction; names that several keys have; many
# that create a key of one name at once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../../perl";
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use TdeKms;
use Test::More;

my @kinds = grep { !TdeKms->missing($_) } qw(pykmip cosmian);
plan skip_all => join('; ', TdeKms->missing('pykmip', 'cosmian'))
  unless @kinds;
note $_ foreach TdeKms->missing('pykmip', 'cosmian');

# What differs between them.
my %highest = (pykmip => '2.0', cosmian => '2.1');
my %versions = (
	pykmip => [qw(1.0 1.1 1.2 1.3 1.4 2.0)],
	cosmian => [qw(1.0 1.1 1.2 1.3 1.4 2.0 2.1)]);
my %key_of_revoked = (
	pykmip => qr/^OK\n[0-9a-f]{64}\n/,
	cosmian => qr/^DENIED\nKMIP server refused operation Get: /);

# PyKMIP cannot read names beyond ASCII.
my %letter = (pykmip => 'u', cosmian => "\xc3\xbc");

my $kms;
my $kind;

# The provider's options.
sub options
{
	my ($version) = @_;
	return JSON::PP->new->canonical->latin1->encode(
		{
			host => $kms->{host},
			port => $kms->{port} + 0,
			certPath => $kms->{cert},
			keyPath => $kms->{key},
			caPath => $kms->{ca},
			$version ? (kmipVersion => $version) : ()
		});
}

sub keyring
{
	my ($version, @command) = @_;
	my ($out) = run_command(
		[ 'test_keyring', '-T', 'kmip', options($version), @command ]);
	return $out;
}

sub admin
{
	my ($version, @command) = @_;
	my ($out) = run_command([ 'kmip_admin', options($version), @command ]);
	return $out;
}

sub life_of_a_key
{
	my ($version) = @_;
	my $name = "key_${kind}_$version-s$letter{$kind}";
	my $what = "$kind $version";

	is(admin($version, 'version'), "$version\nOK", "$what: agreed on");
	is(keyring($version, 'validate'), 'OK', "$what: validated");
	like(keyring($version, 'fetch', $name),
		qr/^NOT_FOUND\nKMIP server has no key with the name "\Q$name\E"\n/,
		"$what: no such key");

	foreach my $length (16, 24, 32)
	{
		my $created = keyring($version, 'create', "$name-$length", $length);

		like($created, qr/^OK\n[0-9a-f]{@{[2 * $length]}}$/,
			"$what: created with $length bytes");
		is(keyring($version, 'fetch', "$name-$length"),
			$created, "$what: and fetched");
		is(keyring(undef, 'fetch', "$name-$length"),
			$created, "$what: and in the highest version");
	}
	like(keyring($version, 'create', "$name-32"),
		qr/^EXISTS\nKMIP server already has a key with the name "\Q$name\E-32"\n/,
		"$what: name is taken");

	is(admin($version, 'register', $name), 'OK', "$what: registered");
	like(keyring($version, 'fetch', $name),
		qr/^DENIED\nkey "\Q$name\E" on the KMIP server is not active yet\n/,
		"$what: not active yet");
	is(admin($version, 'activate', $name), 'OK', "$what: activated");
	my $key = keyring($version, 'fetch', $name);
	like($key, qr/^OK\n[0-9a-f]{64}$/, "$what: active");
	isnt(admin($version, 'destroy', $name), 'OK',
		"$what: an active key is not destroyed");
	is(keyring($version, 'fetch', $name), $key, "$what: and is there");

	is(admin($version, 'register', $name), 'OK', "$what: registered again");
	like(
		keyring($version, 'fetch', $name),
		qr/^BAD_DATA\nKMIP server has 2 keys with the name "\Q$name\E", with the unique identifiers "[^"]+", "[^"]+"\n/,
		"$what: two keys of a name");
	like(keyring($version, 'create', $name), qr/^EXISTS\n/,
		"$what: two keys of a name, create");

	is(admin($version, 'compromise', "$name-16"), 'OK', "$what: compromised");
	like(keyring($version, 'fetch', "$name-16"), qr/^OK\n/,
		"$what: a compromised key is fetched");
	is(admin($version, 'revoke', "$name-32"), 'OK', "$what: revoked");
	like(keyring($version, 'fetch', "$name-32") . "\n",
		$key_of_revoked{$kind}, "$what: a revoked key");
	is(admin($version, 'destroy', "$name-32"), 'OK', "$what: destroyed");
	like(keyring($version, 'fetch', "$name-32"),
		qr/^(NOT_FOUND|DESTROYED)\n/, "$what: a destroyed key");
	return;
}

# Of several that create a key of one name at once, at most one gets it, and
# whoever does finds it again.
sub race
{
	my $winners = 0;

	foreach my $round (1 .. 5)
	{
		my @out = ('') x 4;
		my @run = map {
			IPC::Run::start(
				[
					'test_keyring', '-T',
					'kmip', options(),
					'create', "race_$round"
				],
				'>',
				\$out[$_])
		} 0 .. $#out;
		$_->finish foreach @run;

		my @won = grep { /^OK\n/ } @out;
		$winners += @won;
		ok(@won <= 1, "$kind: race $round: not two keys");
		is(scalar(grep { !/^(OK|EXISTS)\n/ } @out),
			0, "$kind: race $round: the others are told so")
		  or diag(@out);
		is(keyring(undef, 'fetch', "race_$round") . "\n",
			$won[0], "$kind: race $round: the key is there")
		  if @won;
		like(keyring(undef, 'fetch', "race_$round"),
			qr/^NOT_FOUND\n/, "$kind: race $round: the name is free")
		  unless @won;
	}
	note "$kind: $winners of 5 races were won";
	return;
}

foreach (@kinds)
{
	$kind = $_;
	$kms =
	  TdeKms->new($kind, PostgreSQL::Test::Utils::tempdir_short() . "/$kind");
	$kms->start;
	is(admin(undef, 'version'), "$highest{$kind}\nOK",
		"$kind: highest version");
	life_of_a_key($_) foreach @{ $versions{$kind} };
	race();

	$kms->stop;
}

done_testing();
