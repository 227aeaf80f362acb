# Copyright (c) 2026, the Coffer authors

# pg_rewind of a server with encrypted WAL: it is read in all its epochs, and
# the keys of what was written on the branch that is given up are kept, though
# their key provider was known on that branch only and its number means another
# one now.

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5_hex);
use File::Copy qw(copy move);
use File::Find qw(find);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TdeTest;
use TdeWal;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';
my $shown = uc join(' ', unpack('(H2)*', $canary));
my $rows = q{SELECT count(*), md5(string_agg(b, '' ORDER BY a)) FROM t};

# The epochs in a data directory's file
sub epochs { return epochs_in(epochs_path($_[0])); }

# What is in each file of a data directory
sub contents
{
	my ($node) = @_;
	my $dir = $node->data_dir;
	my %contents;

	find(
		{
			no_chdir => 1,
			wanted => sub {
				$contents{$_} = -f $_ ? md5_hex(slurp_bytes($_)) : 'directory';
			}
		},
		$dir);
	return \%contents;
}

# Run pg_rewind while one byte of a node's file of epochs is wrong: it says so,
# and changes nothing.
sub fails_with_damage
{
	my ($rewind, $damaged, $target, $name, $error) = @_;
	my $path = epochs_path($damaged);
	my $whole = slurp_bytes($path);
	my $bytes = $whole;

	substr($bytes, 100, 1) ^= "\1";
	set_bytes($path, $bytes);
	my $before = contents($target);
	command_fails_like($rewind, $error, $name);
	is_deeply(contents($target), $before, "$name: nothing was changed");
	set_bytes($path, $whole);
	return;
}

sub set_bytes
{
	my ($path, $bytes) = @_;

	open(my $fh, '>:raw', $path) or die "could not open \"$path\": $!";
	print $fh $bytes;
	close($fh) or die;
	return;
}

# How many of the first are among the second?
sub common
{
	my ($some, $all) = @_;
	my %all = map { $_ => 1 } @$all;
	return scalar grep { $all{$_} } @$some;
}

sub fill
{
	my ($node, $from, $to) = @_;
	$node->safe_psql('postgres',
		"INSERT INTO t SELECT g, '$canary' || g FROM generate_series($from, $to) g");
	return;
}

sub run_case
{
	my ($mode) = @_;

	my $old = tde_node("old_$mode", allows_streaming => 1);
	$old->append_conf('postgresql.conf',
		"autovacuum = off\nwal_keep_size = 1GB\nwal_log_hints = on\n");
	$old->start;
	tde_setup($old);
	$old->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
	$old->restart;
	$old->safe_psql('postgres',
		'CREATE TABLE t (a int, b text) USING tde_heap; CREATE TABLE plain (a int, b text)');
	fill($old, 1, 1000);
	$old->backup('start');
	my $new = PostgreSQL::Test::Cluster->new("new_$mode");
	$new->init_from_backup($old, 'start', has_streaming => 1);
	$new->start;
	$old->restart;				# an epoch that both read
	fill($old, 1001, 2000);
	$old->wait_for_catchup($new);
	$new->promote;

	# The old one writes three more epochs, the last two under a server key that
	# nobody else has, of a provider that nobody else knows.
	fill($old, 2001, 2500);
	my $ring = tde_keyring($old);
	$old->safe_psql('postgres', qq{
		SELECT pg_tde_add_global_key_provider_file('dead', '$ring.dead');
		SELECT pg_tde_create_key_using_global_key_provider('server', 'dead');
		SELECT pg_tde_set_server_key_using_global_key_provider('server', 'dead')});
	$old->restart;
	fill($old, 2501, 2600);
	my $from = $old->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$old->safe_psql('postgres',
		"SELECT pg_logical_emit_message(true, 'test', '$canary')");
	tde_crash($old);
	$old->start;
	fill($old, 2601, 2700);
	my $to = $old->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$old->stop;
	my $archive = $old->basedir . '/archive';
	mkdir $archive or die;
	copy($_, $archive) or die
	  foreach glob($old->data_dir . '/pg_wal/00000001????????????????');

	fill($new, 2001, 2300);
	$new->safe_psql('postgres', qq{
		SELECT pg_tde_add_global_key_provider_file('new', '$ring.new');
		SELECT pg_tde_create_key_using_global_key_provider('server', 'new');
		SELECT pg_tde_set_server_key_using_global_key_provider('server', 'new')});
	my $numbers = q{SELECT min(id) FROM pg_tde_list_all_global_key_providers()};
	is($new->safe_psql('postgres', $numbers),
		-2, "$mode: the same number on both branches");
	$new->restart;
	fill($new, 2301, 2400);

	my @old = epochs($old);
	my @new = epochs($new);
	cmp_ok(scalar(@old) - common(\@old, \@new),
		'>=', 2, "$mode: target has epochs of its own");
	cmp_ok(scalar(@new) - common(\@new, \@old),
		'>=', 2, "$mode: source has epochs of its own");

	my @source = ('--source-server' => $new->connstr('postgres'));
	if ($mode eq 'local')
	{
		$new->stop;
		@source = ('--source-pgdata' => $new->data_dir);
	}
	my @rewind = (
		$mode eq 'local' ? 'pg_tde_rewind' : 'pg_rewind',
		'--target-pgdata' => $old->data_dir,
		@source, '--no-sync');
	my $conf = slurp_file($old->data_dir . '/postgresql.conf');

	foreach my $file ($ring, "$ring.dead")
	{
		move($file, "$file.away") or die;
	}
	command_fails_like(
		\@rewind,
		qr{error: key [0-9A-F]{8} of WAL page at .* of timeline 1 is not available: could not open keyring file "\Q$ring\E(\.dead)?"},
		"$mode: refused without the principal key");
	foreach my $file ($ring, "$ring.dead")
	{
		move("$file.away", $file) or die;
	}
	is(slurp_file($old->data_dir . '/postgresql.conf'), $conf,
		"$mode: ... and nothing was changed");

	foreach my $options ([], ['--dry-run'])
	{
		fails_with_damage(
			[ @rewind, @$options ],
			$new, $old,
			"$mode: the source's file of epochs is damaged (@$options)",
			qr{error: could not use file "pg_tde/global/wal_epochs" of the source: checksum does not match\n.*detail: .*The target was not changed\.\n.*hint: .*pg_tde_rebuild_epochs}
		);
	}
	fails_with_damage(\@rewind, $old, $old,
		"$mode: that of the target is damaged",
		qr{error: .*could not use file "\S*pg_tde/global/wal_epochs": checksum does not match});

	command_ok([ @rewind, '--dry-run' ], "$mode: pg_rewind --dry-run");
	is(common(\@new, [ epochs($old) ]),
		common(\@new, \@old), "$mode: ... adds nothing");
	command_ok(\@rewind, "$mode: pg_rewind");

	my @union = epochs($old);
	is(common(\@old, \@union), scalar(@old), "$mode: epochs of the target are kept");
	is(common(\@new, \@union), scalar(@new), "$mode: those of the source are there");
	my %once = map { $_ => 1 } @union;
	is(scalar(@union), scalar(keys %once), "$mode: none is there twice");

	$new->start if $mode eq 'local';
	unlink $old->data_dir . '/postgresql.conf';
	append_to_file($old->data_dir . '/postgresql.conf', $conf);

	# What the target wrote and archived on its branch can be read still, though
	# the server's scope file is the source's now.
	my ($stdout, $stderr) = run_command(
		[
			'pg_waldump', '-p' => $archive, '-s' => $from, '-e' => $to,
			'-k' => $old->data_dir . '/pg_tde'
		]);
	like($stdout, qr/\Q$shown\E/, "$mode: WAL of the branch that was given up");
	is($stderr, '', "$mode: ... is read without an error");

	command_ok([ 'pg_tde_check_keys', '-q', $old->data_dir ],
		"$mode: all keys can be had");
	$old->enable_streaming($new);
	$old->set_standby_mode;
	$old->start;
	fill($new, 2401, 2500);
	$new->wait_for_catchup($old);
	is( $old->safe_psql('postgres', $rows),
		$new->safe_psql('postgres', $rows),
		"$mode: the same rows");
	is(common(\@old, [ epochs($old) ]),
		scalar(@old), "$mode: the server keeps these epochs");
	$old->promote;
	fill($old, 2501, 2600);
	is($old->safe_psql('postgres', 'SELECT count(*) FROM t'),
		'2600', "$mode: rows after promotion");
	is(join(' ', files_with($old->data_dir . '/pg_wal', $canary)),
		'', "$mode: no canary in WAL");
	$old->stop;
	$new->stop;
	command_ok([ 'pg_tde_check_keys', '-q', $old->data_dir ],
		"$mode: ... and still can in the end");
	return;
}

run_case('remote');
run_case('local');
done_testing();
