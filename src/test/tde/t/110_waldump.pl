# Copyright (c) 2026, the Coffer authors

# pg_waldump of encrypted WAL: beside a running server and on a stopped one, of
# several epochs, with the key store given and found; and what it says where a
# key is missing.

use strict;
use warnings FATAL => 'all';

use Cwd;
use File::Copy qw(copy move);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

my $canary = 'CANARY-0123456789-abcdefgh';

# as pg_waldump shows the content of a logical message
my $shown = uc join(' ', unpack('(H2)*', $canary));

my $node = tde_node('main');
$node->append_conf('postgresql.conf',
	"autovacuum = off\nwal_keep_size = 1GB\n");
$node->start;
tde_setup($node);
my $data = $node->data_dir;

# Emit the canary; returns where WAL was before and after.
sub emit
{
	my $start = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$node->safe_psql('postgres',
		"SELECT pg_logical_emit_message(true, 'test', '$canary')");
	return ($start,
		$node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()'));
}

sub shows
{
	my ($name, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($stdout, $stderr) = run_command([ 'pg_waldump', @args ]);
	like($stdout, qr/\Q$shown\E/, "$name: the message is shown");
	is($stderr, '', "$name: no error");
	return;
}

# It must end with an error about the key, and no other.
sub refuses
{
	my ($name, $reason, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'pg_waldump', @args ], '>' => \$out, '2>' => \$err);
	is($? >> 8, 1, "$name: exit status");
	like(
		$err,
		qr{^pg_waldump: error: key [0-9A-F]{8} of WAL page at [0-9A-F]+/[0-9A-F]+ of timeline 1 is not available: $reason$},
		"$name: which key is missing, and why");
	unlike($out, qr/\Q$shown\E/, "$name: nothing is shown");
	return;
}

# In clear, for control; no provider is asked then.
my ($start, $end) = emit();
shows('in clear', '-p' => $data, '-s' => $start, '-e' => $end);
isnt(join(' ', files_with("$data/pg_wal", $canary)), '',
	 'control: in clear, the message is in pg_wal');
my $ring = tde_keyring($node);
move($ring, "$ring.away") or die;
shows('in clear, without a key', '-p' => $data, '-s' => $start, '-e' => $end);
move("$ring.away", $ring) or die;

$node->append_conf('postgresql.conf', "pg_tde.wal_encrypt = on\n");
$node->restart;
my $before = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
my $first = $node->safe_psql('postgres',
	"SELECT pg_walfile_name(pg_current_wal_lsn())");
foreach my $file (glob "$data/pg_wal/0*")
{
	unlink $file if $file =~ /([0-9A-F]{24})$/ && $1 lt $first;
}

# Several epochs, under two generations of the server's key
my @epochs;
push @epochs, [emit()];
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
push @epochs, [emit()];
tde_crash($node);
$node->start;
push @epochs, [emit()];
$node->safe_psql('postgres', q{
	SELECT pg_tde_create_key_using_global_key_provider('second', 'ring');
	SELECT pg_tde_set_server_key_using_global_key_provider('second', 'ring')});
$node->restart;
push @epochs, [emit()];
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->safe_psql('postgres', 'CHECKPOINT');

sub all_epochs
{
	my ($name, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $i (0 .. $#epochs)
	{
		my ($from, $to) = @{ $epochs[$i] };
		shows("$name, $i", @args, '-s' => $from, '-e' => $to);
	}
	return;
}

# the first segment has the message in clear, too
is_deeply([ grep { $_ gt $first } files_with("$data/pg_wal", $canary) ],
	[], 'no canary in encrypted WAL');
all_epochs('server runs', '-p' => $data);
my ($all) = run_command(
	[ 'pg_waldump', '-p' => $data, '-s' => $before, '-e' => $epochs[-1][1] ]);
my $count = () = $all =~ /\Q$shown\E/g;
is($count, 4, 'all epochs are read in one run');
$count = () = $all =~ /WAL_EPOCH/g;
cmp_ok($count, '>=', 2, '... and their records are shown');

# Full-page images come out in clear.
$node->safe_psql('postgres', qq{
	CREATE TABLE plain AS SELECT '$canary' AS t; CHECKPOINT});
my $fpi = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
$node->safe_psql('postgres', q{UPDATE plain SET t = t || 'x'});
my $fpi_end = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
my $images = $node->basedir . '/images';
command_ok(
	[
		'pg_waldump', '-q', '-p' => $data, '-s' => $fpi, '-e' => $fpi_end,
		'--save-fullpage' => $images
	],
	'full-page images are saved');
isnt(join(' ', files_with($images, $canary)), '', '... in clear');

# WAL in another place
my $archive = $node->basedir . '/archive';
mkdir $archive or die;
copy($_, $archive) or die foreach grep { -f } glob("$data/pg_wal/0*");
refuses(
	'archive', qr{file "\Q${\$node->basedir}\E/pg_tde/global/wal_epochs" does not exist},
	'-p' => $archive, '-s' => $epochs[0][0], '-n' => 1);
all_epochs('archive, -k', '-k' => "$data/pg_tde", '-p' => $archive);
{
	my ($stdout) = run_command(
		[
			'pg_tde_waldump', "--keyring-path=$data/pg_tde",
			'-s' => $epochs[0][0], '-e' => $epochs[0][1],
			'-p' => $archive
		]);
	like($stdout, qr/\Q$shown\E/, 'pg_tde_waldump --keyring-path');
}
PostgreSQL::Test::RecursiveCopy::copypath("$data/pg_tde",
	$node->basedir . '/keys');
all_epochs('a copy of the key store', '-k' => $node->basedir . '/keys',
	'-p' => $archive);

# Without the list, epochs are known whose records the reader has met.
my $keys = $node->basedir . '/keys';
unlink "$keys/global/wal_epochs" or die;
refuses(
	'without a list of epochs', qr{file "\Q$keys\E/global/wal_epochs" does not exist},
	'-k' => $keys, '-p' => $archive, '-s' => $epochs[2][0]);
my ($last) = $node->safe_psql('postgres', "SELECT pg_walfile_name('$epochs[-1][1]')");
($all) = run_command(
	[ 'pg_waldump', '-k' => $keys, '-p' => $archive, $first, $last ]);
$count = () = $all =~ /\Q$shown\E/g;
cmp_ok($count, '>=', 4, '... all epochs, from where they begin');

# Followed through a restart: the next epoch's key comes with its record.  There
# are many messages because the output is not flushed after each.
{
	my ($out, $err) = ('', '');
	my $many =
	  "SELECT pg_logical_emit_message(false, 'test', '$canary', true) FROM generate_series(1, 200)";
	my $timer = IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default);
	my ($start) = emit();
	my $follow = IPC::Run::start(
		[ 'pg_waldump', '-f', '-p' => $data, '-s' => $start ],
		'>' => \$out, '2>' => \$err, $timer);

	$node->safe_psql('postgres', $many);
	ok(pump_until($follow, $timer, \$out, qr/\Q$shown\E/), 'followed');
	$node->restart;
	$node->safe_psql('postgres', $many);
	ok( pump_until(
			$follow, $timer, \$out, qr/WAL_EPOCH.*\Q$shown\E/s),
		'... through a restart');
	$follow->signal('INT');
	$follow->finish;
	is($err, '', '... without an error');
}

$node->stop;
all_epochs('server is stopped', '-p' => $data);
all_epochs('directory of WAL', '-p' => "$data/pg_wal");
{
	my $dir = Cwd::getcwd();
	chdir "$data/pg_wal" or die;
	all_epochs('in the directory of WAL', '-t' => 1);
	chdir $data or die;
	all_epochs('in the data directory', '-t' => 1);
	chdir $dir or die;
}

# pg_wal as a link
move("$data/pg_wal", $node->basedir . '/wal') or die;
symlink($node->basedir . '/wal', "$data/pg_wal") or die;
all_epochs('linked directory of WAL', '-p' => "$data/pg_wal");
all_epochs('linked directory of WAL, from the data directory', '-p' => $data);
unlink "$data/pg_wal" or die;
move($node->basedir . '/wal', "$data/pg_wal") or die;

command_ok([ 'pg_tde_check_keys', '-q', $data ], 'pg_tde_check_keys');

# Lost keys.  The copy of the server's scope in an epoch names the principal key
# of then, and its provider.
my $server_key = "$data/pg_tde/global/server_key.key";
my @range = ('-p' => $data, '-s' => $epochs[0][0], '-e' => $epochs[0][1]);
move($server_key, "$server_key.away") or die;
all_epochs('server_key.key is lost', '-p' => $data);
append_to_file($server_key, 'garbage');
all_epochs('server_key.key is damaged', '-p' => $data);
move("$server_key.away", $server_key) or die;

move($ring, "$ring.away") or die;
refuses('keyring is lost',
	qr{could not open keyring file "\Q$ring\E": No such file or directory},
	@range);
move("$ring.away", $ring) or die;

my $providers = "$data/pg_tde/global/provider_config";
move($providers, "$providers.away") or die;
all_epochs('list of providers is lost', '-p' => $data);
move($server_key, "$server_key.away") or die;
all_epochs('list of providers and server_key.key are lost', '-p' => $data);
move("$server_key.away", $server_key) or die;
move("$providers.away", $providers) or die;

my $epochs = "$data/pg_tde/global/wal_epochs";
my $bytes = slurp_bytes($epochs);
open(my $fh, '>:raw', $epochs) or die;
print $fh substr($bytes, 0, 100) . chr(ord(substr($bytes, 100, 1)) ^ 1)
  . substr($bytes, 101);
close $fh;
refuses('list of epochs is damaged',
	qr{could not use file "\Q$epochs\E": checksum does not match}, @range);

command_checks_all(
	[ 'pg_tde_check_keys', '-q', $data ],
	2, [qr/^$/],
	[qr/keys of WAL: could not use file "pg_tde\/global\/wal_epochs": checksum does not match/],
	'... and pg_tde_check_keys says so');

done_testing();
