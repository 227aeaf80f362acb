# Copyright (c) 2026, the Coffer authors

=pod

=head1 NAME

TdeKms - a real key management server on loopback

=head1 SYNOPSIS

  use TdeKms;

  plan skip_all => $_ foreach grep { $_ } TdeKms->missing('pykmip');
  my $kms = TdeKms->new('pykmip', $dir);  # 'cosmian', 'vault'
  $kms->start;
  $node->safe_psql('postgres', $kms->provider_sql('kms_provider'));
  $kms->pause;                            # and resume, stop, kill9, start again

=head1 DESCRIPTION

Makes certificates and a configuration in a directory of its own, starts and
stops the server there, and says how to reach it.  What the server keeps
outlives a stop and a crash of it, at the same port.  A server ends with the
process that started it, unless it was to be kept (tools/kms does that).

It needs nothing of PostgreSQL's test modules, so that tools/kms can use it.

The kinds:

  pykmip    KMIP 1.0 to 1.4 (and 2.0), TLS 1.2: Debian's python3-pykmip
  cosmian   Cosmian KMS, KMIP 1.0 to 2.1, TLS 1.2 and 1.3: COSMIAN_KMS_BIN
  vault     HashiCorp Vault, KV version 2: VAULT_BIN

The two variables name programs that are ready to run; without them, those that
tools/kms has built for this user are taken.

=cut

package TdeKms;

use strict;
use warnings FATAL => 'all';

use Cwd ();
use File::Path ();
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();

# Nothing is waited for longer than this many seconds.
our $timeout = 60;

my %kinds = (
	pykmip => {
		program => '/usr/bin/pykmip-server',
		prepare => \&_prepare_pykmip,
		command => sub {
			my ($self) = @_;
			return ('/usr/bin/python3', '-W', 'ignore', $self->{program},
				'-f', "$self->{dir}/server.conf",
				'-l', "$self->{dir}/server.log");
		},
		stop => 'INT',
	},
	cosmian => {
		program => _ready('COSMIAN_KMS_BIN', 'cosmian-5.28.0/cosmian_kms'),
		prepare => \&_prepare_cosmian,
		command => sub {
			my ($self) = @_;
			return ($self->{program}, '-c', "$self->{dir}/kms.toml");
		},
		stop => 'TERM',
	},
	vault => {
		program => _ready('VAULT_BIN', 'vault-1.12.2/vault'),
		prepare => \&_prepare_vault,
		command => sub {
			my ($self) = @_;
			return ($self->{program}, 'server',
				"-config=$self->{dir}/vault.hcl");
		},
		started => \&_unseal,
		stop => 'TERM',
	});

my @running;

# The program that the variable names, or that tools/kms has built
sub _ready
{
	my ($variable, $cached) = @_;
	my $home = $ENV{HOME} // '/nonexistent';
	my $cache = $ENV{COFFER_CACHE}
	  // ($ENV{XDG_CACHE_HOME} // "$home/.cache") . '/coffer';

	return $ENV{$variable} || "$cache/kms/$cached";
}

=pod

=head1 CLASS METHODS

=over

=item TdeKms->missing(kind, ...)

Why servers of these kinds cannot be started here, a string for each that
cannot.

=cut

sub missing
{
	my ($class, @kinds) = @_;
	my @reasons;

	foreach my $kind (@kinds)
	{
		my $k = $kinds{$kind} or die "no such kind of KMS: $kind";
		push @reasons,
		  "no $kind server here ($k->{program}); \"tools/kms build $kind\" gets one"
		  unless -x $k->{program};
	}
	return @reasons;
}

=item TdeKms->new(kind, directory, %options)

A server that is not running yet.  The directory is made, with certificates and
configuration; one that another object made before is taken as it is.  Options:
"port" (a free one by default), "keep" (1: the server does not end with this
process).

Its fields say how to reach it:

  kind host port ca cert key      paths of PEM files; host is "localhost"
  url mount token                 vault: token is the path of a token file
  log                             what the server printed
  pid                             defined while it runs

The client certificate's CN is "coffer".

=cut

sub new
{
	my ($class, $kind, $dir, %options) = @_;
	my $k = $kinds{$kind} or die "no such kind of KMS: $kind";

	# The servers want absolute paths, and the keys in them are nobody else's.
	my $umask = umask(0077);
	File::Path::make_path("$dir/data");
	$dir = Cwd::abs_path($dir);
	my $self = bless {
		%$k,
		kind => $kind,
		dir => $dir,
		host => 'localhost',
		log => "$dir/log",
		keep => $options{keep},
		ca => "$dir/ca_cert.pem",
		cert => "$dir/client_cert.pem",
		key => "$dir/client_key.pem"
	}, $class;

	if (-e "$dir/facts")
	{
		%$self = (%$self, %{ JSON::PP::decode_json(_slurp("$dir/facts")) });
		die "the KMS in $dir is of another kind, $self->{kind}"
		  if $self->{kind} ne $kind;
		die "the KMS in $dir has port $self->{port}"
		  if $options{port} && $options{port} != $self->{port};
	}
	else
	{
		$self->{port} = $options{port} || _free_port();
		$self->{http_port} = _free_port() if $kind eq 'cosmian';
		$self->_authority;
		$self->certificate('server', 'localhost', usage => 'serverAuth');
		$self->certificate('client', 'coffer');
		$k->{prepare}->($self);
		_write("$dir/facts",
			JSON::PP->new->canonical->pretty->encode(
				{ map { $_ => $self->{$_} } qw(kind port http_port) }));
	}
	if ($kind eq 'vault')
	{
		delete $self->{cert};
		delete $self->{key};
		$self->{url} = "https://localhost:$self->{port}";
		$self->{mount} = 'coffer';
		$self->{token} = "$dir/token";
	}
	$self->{pid} = _slurp("$dir/pid") + 0 if -e "$dir/pid";
	delete $self->{pid} unless $self->running;
	umask($umask);
	return $self;
}

=pod

=back

=head1 METHODS

=over

=item $kms->start

Start the server; returns when it answers, and dies if it does not.

=cut

sub start
{
	my ($self) = @_;
	my @command = $self->{command}->($self);

	die "the KMS is running" if $self->running;
	my $pid = fork() // die "could not fork: $!";
	if ($pid == 0)
	{
		# A group of its own: PyKMIP has children that do not end with it.
		$self->{keep} ? POSIX::setsid() : POSIX::setpgid(0, 0);
		chdir $self->{dir};
		umask 0077;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $self->{log});
		open(STDERR, '>&', \*STDOUT);
		# What a test sets for its own OpenSSL is not for this server.
		delete $ENV{OPENSSL_CONF};
		# The one that was built in looks for them where it was built.
		$ENV{OPENSSL_MODULES} //= (_run('openssl', 'version', '-m'))[1] =~
		  /"(.*)"/ ? $1 : '';
		{ no warnings; exec @command; }
		POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	$self->{owner} = $$;
	$self->_guard unless $self->{keep};
	push @running, $self;
	_write("$self->{dir}/pid", "$pid\n");

	my $until = time + $timeout;
	until ($self->answers)
	{
		die "the KMS ended at its start:\n" . $self->log_end
		  unless $self->running;
		die "the KMS does not answer after $timeout s:\n" . $self->log_end
		  if time > $until;
		select(undef, undef, undef, 0.1);
	}
	$self->{started}->($self) if $self->{started};
	return;
}

# Even if this process is killed, the server ends: another process of its group
# waits for the end of a pipe that nobody but we could write to.
sub _guard
{
	my ($self) = @_;

	POSIX::setpgid($self->{pid}, $self->{pid});
	pipe(my $read, my $write) or die "could not make a pipe: $!";
	my $pid = fork() // die "could not fork: $!";
	if ($pid == 0)
	{
		POSIX::setpgid(0, $self->{pid});
		close($write);
		delete $_->{guarded} foreach @running;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', '/dev/null');
		open(STDERR, '>', '/dev/null');
		sysread($read, my $nothing, 1);
		kill('KILL', -$self->{pid});
		POSIX::_exit(0);
	}
	$self->{guarded} = $write;
	$self->{guard} = $pid;
	return;
}

=item $kms->stop and $kms->kill9

End the server, in order or not.  Nothing happens if it is not running.

=cut

sub stop
{
	my ($self) = @_;
	return $self->_end($self->{stop});
}

sub kill9
{
	my ($self) = @_;
	return $self->_end('KILL');
}

sub _end
{
	my ($self, $signal) = @_;
	my $until = time + 10;
	my $group = $self->{guard} || $self->running ? $self->{pid} : undef;

	while ($self->running)
	{
		kill($signal, $self->{pid});
		kill('CONT', $self->{pid});
		for (1 .. 20)
		{
			last unless $self->running;
			select(undef, undef, undef, 0.05);
		}
		$signal = 'KILL' if time > $until;
		die "could not end the KMS, process $self->{pid}"
		  if time > $until + $timeout;
	}
	kill('KILL', -$group) if $group;
	waitpid(delete $self->{guard}, 0) if $self->{guard};
	delete $self->{guarded};
	delete $self->{pid};
	@running = grep { $_ != $self } @running;
	unlink "$self->{dir}/pid";
	return;
}

=item $kms->pause and $kms->resume

A paused server takes connections, since the kernel does, and never answers.

=cut

sub pause
{
	my ($self) = @_;
	kill('STOP', $self->{pid}) or die "could not stop the KMS: $!";
	return;
}

sub resume
{
	my ($self) = @_;
	kill('CONT', $self->{pid}) or die "could not continue the KMS: $!";
	return;
}

=item $kms->running and $kms->answers

Is there a process?  Does it finish a TLS handshake?

=cut

sub running
{
	my ($self) = @_;
	my $pid = $self->{pid} or return 0;

	# Our own child, unless it has ended
	return waitpid($pid, POSIX::WNOHANG) == 0
	  if ($self->{owner} // 0) == $$;
	# Somebody else's child.  The number may be another process's by now; one
	# that has ended has no directory any more.
	return (readlink("/proc/$pid/cwd") // '') eq $self->{dir};
}

sub answers
{
	my ($self) = @_;
	my @client =
	  $self->{cert} ? ('-cert', $self->{cert}, '-key', $self->{key}) : ();

	# The other port of this one is ready last.
	return 0
	  if $self->{http_port}
	  && !IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $self->{http_port},
		Timeout => 5);
	my ($status) = _run('timeout', 10, 'openssl', 's_client', '-connect',
		"127.0.0.1:$self->{port}", '-servername', 'localhost', '-CAfile',
		$self->{ca}, '-verify_return_error', '-brief', @client);
	return $status == 0;
}

=item $kms->provider_sql(name, scope, %options)

The statement that adds the server as a key provider of that name, "global" or
"database".  Options "cert" and "key" name another client certificate, "ca"
another authority; "verb" is "change" instead of "add".

=cut

sub provider_sql
{
	my ($self, $name, $scope, %options) = @_;
	my $function =
	  'pg_tde_' . ($options{verb} // 'add') . '_' . ($scope // 'global')
	  . '_key_provider_';
	my %is = (%$self, %options);
	my @arguments =
	  $self->{kind} eq 'vault'
	  ? ($name, @is{qw(url mount token ca)})
	  : ($name, @is{qw(host port cert key ca)});

	$function .= $self->{kind} eq 'vault' ? 'vault_v2' : 'kmip';
	return "SELECT $function("
	  . join(', ',
		map { /^\d+$/ ? $_ : "'" . s/'/''/gr . "'" } @arguments) . ')';
}

=item $kms->certificate(name, cn, %options)

Make NAME_cert.pem and NAME_key.pem, EC P-256, under the server's authority, or
that in the option "authority" (a name given to _authority()).  Options: "usage"
("clientAuth" by default), "days" (negative: expired), "san" (names, like
"DNS:localhost,IP:127.0.0.1", which is the default).  Returns both paths.

=cut

sub certificate
{
	my ($self, $name, $cn, %options) = @_;
	my $dir = $self->{dir};
	my $ca = $options{authority} // 'ca';
	my $days = $options{days} // 30;
	my @new = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
		'-nodes', '-keyout', "$dir/${name}_key.pem");
	my $umask = umask(0077);

	_write(
		"$dir/openssl.cnf", join "\n",
		'[req]', 'distinguished_name=dn', 'prompt=no', '[dn]', "CN=$cn",
		'[authority]', 'basicConstraints=critical,CA:TRUE',
		'keyUsage=critical,keyCertSign,cRLSign',
		'subjectKeyIdentifier=hash',
		'[leaf]', 'basicConstraints=critical,CA:FALSE',
		'keyUsage=critical,digitalSignature',
		'extendedKeyUsage=' . ($options{usage} // 'clientAuth'),
		'subjectAltName='
		  . ($options{san} // 'DNS:localhost,IP:127.0.0.1'),
		'');
	if ($options{authority_itself})
	{
		_do('openssl', 'req', '-x509', '-config', "$dir/openssl.cnf",
			'-extensions', 'authority', '-days', $days, @new,
			'-out', "$dir/${name}_cert.pem");
	}
	else
	{
		_do('openssl', 'req', '-new', '-config', "$dir/openssl.cnf", @new,
			'-out', "$dir/$name.csr");
		_do('openssl', 'x509', '-req', '-in', "$dir/$name.csr",
			'-CA', "$dir/${ca}_cert.pem", '-CAkey', "$dir/${ca}_key.pem",
			'-CAcreateserial', '-extfile', "$dir/openssl.cnf",
			'-extensions', 'leaf', '-days', $days,
			'-out', "$dir/${name}_cert.pem");
		unlink "$dir/$name.csr";
	}
	umask($umask);
	return ("$dir/${name}_cert.pem", "$dir/${name}_key.pem");
}

sub _authority
{
	my ($self, $name) = @_;
	$name //= 'ca';
	return $self->certificate($name, "Test authority $name",
		authority_itself => 1);
}

=item $kms->authority(name)

Another authority, one that the server does not know; returns the path of its
certificate.

=cut

sub authority
{
	my ($self, $name) = @_;
	return ($self->_authority($name))[0];
}

=item $kms->vault(argument, ...)

Run Vault's own client with the rights of root, and return its output; dies if
it fails.  For example, $kms->vault('kv', 'metadata', 'delete', '-mount=coffer',
'key').

=cut

sub vault
{
	my ($self, @arguments) = @_;
	local $ENV{VAULT_ADDR} = $self->{url};
	local $ENV{VAULT_CACERT} = $self->{ca};
	local $ENV{VAULT_TOKEN} = $self->_secrets->{root_token} // '';
	local $ENV{HOME} = $self->{dir};
	my ($status, $output) = _run($self->{program}, @arguments);

	die "vault @arguments: $output" if $status != 0;
	return $output;
}

=item $kms->new_token(argument, ...)

Put a new token into the token file, which lets its owner create and read keys
and nothing else.  The arguments go to "vault token create", for example
"-ttl=2s".

=cut

sub new_token
{
	my ($self, @arguments) = @_;
	my $answer = JSON::PP::decode_json(
		$self->vault('token', 'create', '-format=json', '-policy=coffer',
			'-no-default-policy', @arguments));
	my $umask = umask(0077);

	_write("$self->{token}.new", "$answer->{auth}{client_token}\n");
	rename("$self->{token}.new", $self->{token})
	  or die "could not rename $self->{token}.new: $!";
	umask($umask);
	return;
}

=item $kms->log_end

The end of what the server printed.

=cut

sub log_end
{
	my ($self) = @_;
	my $log = -e $self->{log} ? _slurp($self->{log}) : '';
	my @lines = split /\n/, $log;

	return join "\n", @lines > 30 ? @lines[ -30 .. -1 ] : @lines;
}

=pod

=back

=cut

#
# The kinds
#

sub _prepare_pykmip
{
	my ($self) = @_;
	my $dir = $self->{dir};

	File::Path::make_path("$dir/policy");
	_write(
		"$dir/server.conf", qq{[server]
hostname=127.0.0.1
port=$self->{port}
certificate_path=$dir/server_cert.pem
key_path=$dir/server_key.pem
ca_path=$dir/ca_cert.pem
auth_suite=TLS1.2
policy_path=$dir/policy
enable_tls_client_auth=True
logging_level=INFO
database_path=$dir/data/pykmip.db
});
	return;
}

sub _prepare_cosmian
{
	my ($self) = @_;
	my $dir = $self->{dir};

	_do('openssl', 'pkcs12', '-export', '-in', "$dir/server_cert.pem",
		'-inkey', "$dir/server_key.pem", '-certfile', "$dir/ca_cert.pem",
		'-passout', 'pass:test', '-out', "$dir/server.p12");
	_write(
		"$dir/kms.toml", qq{default_username = "admin"

[db]
database_type = "sqlite"
sqlite_path = "$dir/data"

[tls]
tls_p12_file = "$dir/server.p12"
tls_p12_password = "test"
clients_ca_cert_file = "$dir/ca_cert.pem"

[socket_server]
socket_server_start = true
socket_server_port = $self->{port}
socket_server_hostname = "127.0.0.1"

[http]
port = $self->{http_port}
hostname = "127.0.0.1"
});
	return;
}

sub _prepare_vault
{
	my ($self) = @_;
	my $dir = $self->{dir};

	_write(
		"$dir/vault.hcl", qq{storage "file" {
  path = "$dir/data"
}
listener "tcp" {
  address = "127.0.0.1:$self->{port}"
  tls_cert_file = "$dir/server_cert.pem"
  tls_key_file = "$dir/server_key.pem"
}
disable_mlock = true
});
	_write(
		"$dir/policy.hcl", q{path "coffer/data/*" {
  capabilities = ["create", "read"]
}
});
	return;
}

# The key that unseals it and the token of root
sub _secrets
{
	my ($self) = @_;
	my $file = "$self->{dir}/secrets.json";

	return -e $file ? JSON::PP::decode_json(_slurp($file)) : {};
}

# A Vault starts sealed; the first time it is empty.
sub _unseal
{
	my ($self) = @_;
	my $first = !-e "$self->{dir}/secrets.json";
	my $umask = umask(0077);

	_write(
		"$self->{dir}/secrets.json",
		$self->vault(
			'operator', 'init', '-format=json', '-key-shares=1',
			'-key-threshold=1')) if $first;
	umask($umask);
	$self->unseal;
	if ($first)
	{
		$self->vault('secrets', 'enable', "-path=$self->{mount}",
			'-version=2', 'kv');
		$self->vault('policy', 'write', 'coffer', "$self->{dir}/policy.hcl");
		$self->new_token;
	}
	return;
}

=pod

=head1 MORE OF VAULT

$kms->seal and $kms->unseal do what "vault operator" does.

=cut

sub seal
{
	my ($self) = @_;
	$self->vault('operator', 'seal');
	return;
}

sub unseal
{
	my ($self) = @_;
	my $until = time + $timeout;

	$self->vault('operator', 'unseal',
		$self->_secrets->{unseal_keys_b64}[0]);
	# It takes a moment until it has taken its place.
	until (eval { $self->vault('token', 'lookup'); 1 })
	{
		die $@ if time > $until;
		select(undef, undef, undef, 0.1);
	}
	return;
}

#
# Small things
#

# A port that nobody listens at, below those that the system gives to clients:
# a client of a server that is down must not meet itself.
sub _free_port
{
	# It knows of other tests that run now.
	return PostgreSQL::Test::Cluster::get_free_port()
	  if defined &PostgreSQL::Test::Cluster::get_free_port;
	for (1 .. 100)
	{
		my $port = 20000 + int(rand(12000));
		return $port
		  if IO::Socket::INET->new(
			LocalAddr => '127.0.0.1',
			LocalPort => $port,
			Listen => 1,
			ReuseAddr => 1);
	}
	die 'found no free port';
}

sub _slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "could not open $file: $!";
	local $/;
	my $content = <$fh>;
	close($fh);
	return $content;
}

sub _write
{
	my ($file, $content) = @_;
	open(my $fh, '>', $file) or die "could not open $file: $!";
	print $fh $content;
	close($fh) or die "could not write $file: $!";
	return;
}

# Exit status and output, error output included, of a command without input
sub _run
{
	my (@command) = @_;
	my $pid = open(my $out, '-|') // die "could not fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDERR, '>&', \*STDOUT);
		{ no warnings; exec @command; }
		POSIX::_exit(127);
	}
	local $/;
	my $output = <$out> // '';
	{ no warnings; close($out); }
	return ($?, $output);
}

sub _do
{
	my (@command) = @_;
	my ($status, $output) = _run(@command);
	die "@command: $output" if $status != 0;
	return;
}

END
{
	my $status = $?;
	local $@;
	foreach my $kms (@running)
	{
		eval { $kms->kill9 } unless $kms->{keep} || $kms->{owner} != $$;
	}
	$? = $status;
}

1;
