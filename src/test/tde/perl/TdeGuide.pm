# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeGuide - the life of a server as the guide has it

=head1 SYNOPSIS

  use TdeGuide;

  guide_life('main', $kms);

=head1 DESCRIPTION

Runs the command blocks of the guide (src/test/tde/guide), in its order and as
printed but for host name, port and paths, on a new server whose keys are in a
KMIP server, with crashes, restarts and an outage of the KMS in between, and
makes the errors happen that the guide has solutions for.  When the principal key
has been rotated the old one is destroyed in the KMS, as the guide says that it
can be: backup, crash, standby and recovery to a point in time do without.

=cut

package TdeGuide;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Copy ();
use File::Path ();
use FindBin;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use TdeTest;
use Test::More;

our @EXPORT = qw(guide_life openssl_with_tls);

# Each block: name, kind, text as run, lines that are left out, why it is not
# run at all
sub blocks
{
	my ($file) = @_;
	my @blocks;

	foreach my $line (split /^/, slurp_file($file))
	{
		if ($line !~ /^%%/)
		{
			next unless @blocks;
			my $block = $blocks[-1];
			if (my ($left_out) =
				grep { index($line, $_) >= 0 } keys %{ $block->{without} })
			{
				$block->{left_out}++;
			}
			else
			{
				$block->{text} .= $line;
			}
		}
		elsif ($line =~ /^%% not run: (.+)/)
		{
			$blocks[-1]{not_run} = $1;
		}
		elsif ($line =~ /^%% without (.+?): (.+)/)
		{
			$blocks[-1]{without}{$1} = $2;
		}
		elsif ($line =~ /^%% (\S+) (conf|restart|sql|sql-exists|sh)$/)
		{
			push @blocks,
			  { name => $1, kind => $2, text => '', without => {} };
		}
		else
		{
			die "$file: $line" if @blocks;
		}
	}
	return @blocks;
}

# All that is in clear on disk though it should not be
sub in_clear
{
	my ($node) = @_;
	return files_with($node->data_dir, 'Top secret info', 'Test data');
}

# What "key revoke/destroy operations" are on the KMS: the key is gone for good
sub _destroy_key
{
	my ($kms, $name) = @_;
	my $options = JSON::PP->new->canonical->encode(
		{
			host => $kms->{host},
			port => $kms->{port} + 0,
			certPath => $kms->{cert},
			keyPath => $kms->{key},
			caPath => $kms->{ca}
		});

	foreach my $operation ('revoke', 'destroy')
	{
		my ($out) = run_command(
			[
				"$ENV{top_builddir}/src/test/tde/keyring/kmip_admin",
				$options, $operation, $name
			]);
		is($out, 'OK', "KMS: $operation $name");
	}
	return;
}

# A standby that begins after the rotation: it follows through a crash, and
# takes over
sub _check_standby
{
	my ($node) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($node->name . '_standby');

	$node->backup('standby');
	$standby->init_from_backup($node, 'standby', has_streaming => 1);
	$standby->start;
	$node->safe_psql('postgres', 'CREATE TABLE followed USING tde_heap AS SELECT 1 AS a');
	$node->wait_for_replay_catchup($standby);
	tde_crash($standby);
	$standby->start;
	$node->safe_psql('postgres', 'INSERT INTO followed VALUES (2)');
	$node->wait_for_replay_catchup($standby);
	$standby->promote;
	$standby->restart;
	is( $standby->safe_psql('postgres',
			'SELECT sum(a), pg_tde_is_wal_encrypted() FROM followed'),
		'3|t',
		'standby: crashed, promoted, restarted');
	$standby->stop;
	return;
}

# Recovery to a point in time, from the archive
sub _check_pitr
{
	my ($node) = @_;
	my $restored = PostgreSQL::Test::Cluster->new($node->name . '_pitr');

	$node->backup('pitr');
	$node->safe_psql('postgres', 'CREATE TABLE target USING tde_heap AS SELECT 1 AS a');
	my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$node->safe_psql('postgres',
		'INSERT INTO target VALUES (2); SELECT pg_switch_wal()');
	$node->poll_query_until('postgres',
		"SELECT last_archived_wal >= pg_walfile_name('$lsn') FROM pg_stat_archiver")
	  or die 'nothing was archived';
	$restored->init_from_backup($node, 'pitr', has_restoring => 1, standby => 0);
	$restored->append_conf('postgresql.conf',
		"recovery_target_lsn = '$lsn'\nrecovery_target_action = promote\n");
	$restored->start;
	$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
	  or die 'recovery did not end';
	is($restored->safe_psql('postgres', 'SELECT sum(a) FROM target'),
		'1', 'recovery to a point in time');
	$restored->stop;
	return;
}

# A base backup is whole, has nothing in clear, and its server has the rows
sub _check_backup
{
	my ($node, $dir) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($node->name . '_copy');

	command_ok([ 'pg_verifybackup', $dir ], 'pg_verifybackup, WAL included');
	is_deeply([ files_with($dir, 'Top secret info', 'Test data') ],
		[], 'nothing in clear in the backup');
	PostgreSQL::Test::RecursiveCopy::copypath($dir, $copy->data_dir);
	chmod 0700, $copy->data_dir or die;
	unlink $copy->data_dir . '/standby.signal' or die;
	$copy->append_conf('postgresql.conf',
		"port = " . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'\n");
	$copy->start;
	is($copy->safe_psql('postgres', 'SELECT * FROM sensitive_data'),
		'1|Top secret info', 'the server of the backup has the rows');
	$copy->stop;
	return;
}

=pod

=head1 FUNCTIONS

=over

=item guide_life(name, kms, %options)

Run all of it on a node of that name.  The KMS, a
TdeKms, runs, and does so at the end.  Options: "env", a hash of environment
variables for the server; "options", a hash of provider options that the
guide's function does not have, given as soon as the provider is there.

=cut

sub guide_life
{
	my ($name, $kms, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	local %ENV = (%ENV, %{ $options{env} // {} });
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $paths = $node->basedir . '/path';
	my $certs = $node->basedir . '/kmip-certs';
	my $install = $node->basedir . '/install';
	my ($libdir) = run_command([ 'pg_config', '--pkglibdir' ]);

	$node->init(allows_streaming => 1, has_archiving => 1);
	$node->append_conf('postgresql.conf', "log_min_messages = info\n");
	$node->start;

	# What the guide calls /path/to
	mkdir $paths or die;
	foreach my $file (
		[ 'client_cert', $kms->{cert} ],
		[ 'client_key', $kms->{key} ],
		[ 'ca_cert', $kms->{ca} ])
	{
		my $to = "$paths/$file->[0].pem";
		File::Copy::copy($file->[1], $to) or die "could not copy $file->[1]: $!";
		chmod 0600, $to or die;
	}
	mkdir $install or die;
	symlink($libdir, "$install/lib") or die;

	my $here = sub {
		my ($text) = @_;
		return $text =~ s{/path/to/}{$paths/}gr =~
		  s{/etc/postgresql/kmip-certs}{$certs}gr =~
		  s{kms-host\.example\.com}{$kms->{host}}gr =~ s{\b5696\b}{$kms->{port}}gr;
	};
	my $sql = sub { return $node->safe_psql('postgres', $_[0]); };
	my $rows = sub {
		is($sql->('SELECT * FROM sensitive_data'), '1|Top secret info', $_[0]);
	};

	my %run = (
		conf => sub {
			$node->append_conf('postgresql.conf', $_[0]);
			return '';
		},
		restart => sub {
			$node->restart;
			return '';
		},
		sql => sub {
			return $sql->($_[0]);
		},
		'sql-exists' => sub {
			my ($ret, $out, $err) = $node->psql('postgres', $_[0],
				on_error_stop => 0, on_error_die => 0);
			my @other = grep { /ERROR/ && !/already exists/ } split /\n/, $err;
			die join("\n", @other) if @other;
			return $out;
		},
		sh => sub {
			my ($out, $err) = ('', '');
			local $ENV{PGDATA} = $node->data_dir;
			local $ENV{PGHOST} = $node->host;
			local $ENV{PGPORT} = $node->port;
			local $ENV{PGINSTALL} = $install;
			# The files are the server's user's already.
			IPC::Run::run(
				[ 'bash', '-e', '-o', 'pipefail', '-c',
					'sudo() { [ "$1" = chown ] || "$@"; };' . "\n" . $_[0] ],
				'<', \'', '>', \$out, '2>', \$err) or die $err;
			return $out;
		});

	# What must hold after a block
	my $provider = qr/-\d+\|kms_provider\|kmip\|\{.*localhost.*\}/;
	my %after = (
		'3-provider' => sub {
			return unless $options{options};
			my $json = $sql->(
				'SELECT options::jsonb FROM pg_tde_list_all_global_key_providers()');
			my %all = (
				%{ JSON::PP::decode_json($json) },
				%{ $options{options} });
			$json = JSON::PP->new->canonical->encode(\%all);
			$sql->("SELECT pg_tde_change_global_key_provider('kmip', 'kms_provider', '$json')"
			);
			return;
		},
		'4-keys' => sub {
			# The default key came last: both names are of one key.
			is( $sql->(
					'SELECT key_name, provider_name FROM pg_tde_default_key_info()
					 UNION ALL SELECT key_name, provider_name FROM pg_tde_server_key_info()'
				),
				"key_01|kms_provider\nkey_01|kms_provider",
				'key_01 is set');
		},
		'7-table' => sub {
			# A crash now must not lose the key that was just made.
			tde_crash($node);
			$node->start;
			my ($ret, $out, $err) =
			  $node->psql('postgres', 'CREATE TABLE plain (a int) USING heap');
			isnt($ret, 0, 'a table that is not encrypted is refused');
		},
		'8-is-encrypted' => sub { is($_[0], 't', 'encrypted') },
		'9-insert' => sub {
			is($_[0], '1|Top secret info', 'rows');
			tde_crash($node);
			$node->start;
			$rows->('rows after a crash');
			$sql->('CHECKPOINT');
			is_deeply([ in_clear($node) ], [], 'nothing in clear on disk');
		},
		'10-settings' => sub {
			is($_[0], "on\non\non", 'settings');
		},
		'monitor-keys' => sub {
			like(
				$_[0],
				qr/\A(\(key_01,kms_provider,-1,.*\)\n){3}$provider\z/,
				'keys and providers');
		},
		'verify-setup' => sub {
			like($_[0], qr/\npg_tde,\s*percona_pg_telemetry\non\non\n/, 'settings');
			like($_[0], qr/\n$provider\n/, 'provider');
			like($_[0], qr/\nt\n1\|Test data\z/, 'a table');
		},
		'verify-wal' => sub {
			like($_[0], qr/\Aon\nt\n[0-9A-F]{24}/, 'write-ahead log');
		},
		'trouble-start' => sub {
			like($_[0], qr/pg_tde\.so/, 'library and certificates are there');
		},
		'trouble-tls' => sub {
			like($_[0], qr/client_cert\.pem: OK/, 'certificates');
		},
		'certificates-3' => sub {
			like($_[0], qr/\AnotAfter=/, 'certificates in their new place');
			$sql->(
				$kms->provider_sql(
					'kms_provider', 'global',
					verb => 'change',
					ca => "$certs/ca_cert.pem",
					cert => "$certs/client_cert.pem",
					key => "$certs/client_key.pem"));
			$sql->('SELECT pg_tde_verify_key()');
			File::Path::remove_tree($paths);
			$sql->('SELECT pg_tde_verify_key()');
			like(
				$sql->('SELECT * FROM pg_tde_list_all_global_key_providers()'),
				qr/\A$provider\z/, 'the provider has the new paths');

			# A table to migrate.  To make one takes a superuser's will.
			$sql->(
				'SET pg_tde.enforce_encryption = off;
				 CREATE TABLE t_old USING heap AS SELECT g AS a FROM generate_series(1, 1000) g'
			);
		},
		'migrate-1' => sub {
			is($sql->("SELECT pg_tde_is_encrypted('t_old'), sum(a) FROM t_old"),
				't|500500', 'migrated, method 1');
			$sql->(
				'DROP TABLE t_old; SET pg_tde.enforce_encryption = off;
				 CREATE TABLE t_old USING heap AS SELECT g AS a FROM generate_series(1, 1000) g'
			);
		},
		'migrate-2' => sub {
			is($sql->("SELECT pg_tde_is_encrypted('t_old'), sum(a) FROM t_old"),
				't|500500', 'migrated, method 2');
		},
		'rotate' => sub {
			like($_[0], qr/\(key_02,kms_provider,-1,.*\)\z/, 'key_02 is set');
			is($sql->('SELECT key_name FROM pg_tde_key_info()'),
				'key_02', '... for the database, too');
			is($sql->('SELECT key_name FROM pg_tde_server_key_info()'),
				'key_02', '... and for the server');
			_destroy_key($kms, 'key_01');
			$rows->('rows after rotation');
			tde_crash($node);
			$node->start;
			$rows->('rows after rotation and a crash');
			$node->restart;
			$rows->('rows after rotation and a restart');
			$sql->('SELECT pg_tde_verify_key(), pg_tde_verify_default_key(), pg_tde_verify_server_key()'
			);
		},
		'rotate-internal-1' => sub { $rows->('rows after VACUUM FULL') },
		'rotate-internal-2' => sub {
			is($_[0], 't', 'encrypted anew');
			$rows->('rows after CREATE TABLE AS');
		},
		'backup-1' => sub {
			_check_backup($node, "$paths/backup");
			File::Path::remove_tree("$paths/backup");
			# The standby comes last: it goes on in the same archive.
			_check_pitr($node);
			_check_standby($node);
		},
		'backup-2' => sub {
			ok(-f "$paths/backup/backup_manifest", 'a backup without WAL');
		});

	foreach my $block (blocks("$FindBin::RealBin/../guide/blocks"))
	{
		if ($block->{not_run})
		{
			note "$name, $block->{name}: not run: $block->{not_run}";
			next;
		}
		note "$name, $block->{name}: without \"$_\": $block->{without}{$_}"
		  foreach sort keys %{ $block->{without} };
		my $output = eval { $run{ $block->{kind} }->($here->($block->{text})) };
		is($@, '', "$name, $block->{name}");
		last if $@;
		# Functions that return nothing print an empty line.
		$output =~ s/^\n+//gm;
		$after{ $block->{name} }->($output) if $after{ $block->{name} };
		delete $after{ $block->{name} };
	}
	is(join(' ', sort keys %after), '', 'all blocks were there');

	_errors($node, $kms, $sql, $rows, $certs);
	is_deeply([ in_clear($node) ], [], 'nothing in clear on disk');
	$node->stop;
	return;
}

# Another content for a file, of mode 0400
sub _replace
{
	my ($file, $content) = @_;

	unlink $file or die "could not remove $file: $!";
	append_to_file($file, $content);
	chmod 0400, $file or die;
	return;
}

=pod

=item openssl_with_tls(directory, version)

Path of a configuration of OpenSSL, made in that directory, that allows only
this version of TLS, "1.2" or "1.3".  It is for OPENSSL_CONF.

=cut

sub openssl_with_tls
{
	my ($dir, $version) = @_;
	my $file = "$dir/openssl-$version.cnf";

	append_to_file(
		$file, qq{openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = versions
[versions]
MinProtocol = TLSv$version
MaxProtocol = TLSv$version
}) unless -e $file;
	return $file;
}

# The errors of the guide's section "Troubleshooting", and an outage
sub _errors
{
	my ($node, $kms, $sql, $rows, $certs) = @_;
	my ($ret, $out, $err);

	#
	# TLS certificate verification failed
	#
	my $other = $kms->authority('other');
	($ret, $out, $err) = $node->psql('postgres',
		$kms->provider_sql('misled', 'global', ca => $other));
	like(
		$err,
		qr/ERROR:  .*certificate verification failed.*\nDETAIL:  .*(self[- ]signed|unable to get)/s,
		'wrong authority');
	is($sql->('SELECT count(*) FROM pg_tde_list_all_global_key_providers()'),
		'1', '... and the provider was not added');

	#
	# Key not found, or access denied
	#
	my $failed =
	  qr/ERROR:  failed to retrieve principal key "(\w+)" from key provider "kms_provider"\nDETAIL:  .*(not found|no .*key|does not exist|denied)/i;
	($ret, $out, $err) = $node->psql('postgres',
		q{SELECT pg_tde_set_default_key_using_global_key_provider('key_03', 'kms_provider')}
	);
	like($err, $failed, 'a key that is not there');

	# The keys are of the client that made them.
	my ($cert, $key) = $kms->certificate('stranger', 'stranger');
	($ret, $out, $err) = $node->psql(
		'postgres',
		$kms->provider_sql(
			'kms_provider', 'global',
			verb => 'change',
			cert => $cert,
			key => $key));
	like(
		$err,
		qr/ERROR:  key provider "kms_provider" does not return principal key "key_0\d", which is in use\nDETAIL:  ./,
		'a change to a client that may not have the keys');
	my %files = (
		"$certs/client_cert.pem" => $cert,
		"$certs/client_key.pem" => $key);
	my %were = map { $_ => slurp_file($_) } keys %files;
	_replace($_, slurp_file($files{$_})) foreach keys %files;
	($ret, $out, $err) = $node->psql('postgres', 'SELECT pg_tde_verify_key()');
	like($err, $failed, 'a client that may not have the key');
	$rows->('... and rows');
	_replace($_, $were{$_}) foreach keys %files;
	$sql->('SELECT pg_tde_verify_key()');

	#
	# Could not connect
	#
	my $refused = qr/could not connect to KMIP server "localhost[^\n]*(port \d+)?/;
	$kms->kill9;
	($ret, $out, $err) = $node->psql('postgres', 'SELECT pg_tde_verify_key()');
	like($err, $refused, 'KMS down: an error says so');
	$rows->('KMS down: rows');
	$sql->('CREATE TABLE outage USING tde_heap AS SELECT 1 AS a');

	$node->append_conf('postgresql.conf', 'pg_tde.key_wait_timeout = 1s');
	$node->stop;
	my $from = -s $node->logfile;
	is($node->start(fail_ok => 1), 0, 'KMS down: no start where WAL is encrypted');
	my $log = slurp_file($node->logfile, $from);
	like($log, $refused, '... and the log says why');
	like(
		$log,
		qr/FATAL:  [^\n]*principal key "key_0\d" cannot be had from key provider "kms_provider"/,
		'... and for which key');

	$kms->start;
	$node->start;
	$rows->('KMS up again: rows');
	is($sql->('SELECT a FROM outage'), '1', '... and what was made meanwhile');
	$sql->('CHECKPOINT');
	return;
}

=pod

=back

=cut

1;
