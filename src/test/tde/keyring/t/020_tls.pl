# Copyright (c) 2026, the Coffer authors

# The provider kmip, and the TLS below it, against servers that may do anything:
# what is believed, how long it takes, and what is said about the rest.

use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $python = $ENV{PYTHON} || 'python3';
plan skip_all => "no \"$python\" with the module ssl to run the server"
  if system("$python -c 'import ssl' 2>/dev/null") != 0;
plan skip_all => 'no program "openssl" to make certificates'
  if system('openssl version >/dev/null 2>&1') != 0;

my $dir = PostgreSQL::Test::Utils::tempdir_short();

# the key of all misbehaviour
my $the_key = join '', map { sprintf '%02x', $_ } 0x40 .. 0x5f;

note 'certificates';

sub write_file
{
	my ($name, $content, $mode) = @_;
	open(my $fh, '>', "$dir/$name") or die "could not write $name: $!";
	print $fh $content;
	close($fh);
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

sub make_ca
{
	my ($ca) = @_;
	system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec',
		'-pkeyopt' => 'ec_paramgen_curve:P-256', '-nodes',
		'-keyout' => "$dir/$ca.key", '-out' => "$dir/$ca.pem",
		'-subj' => "/CN=$ca", '-days' => 2);
	return;
}

# A certificate that a CA signs; @more are for "openssl x509".
sub make_cert
{
	my ($name, $ca, $extensions, @more) = @_;
	write_file("$name.ext", $extensions);
	system_or_bail('openssl', 'req', '-newkey', 'ec',
		'-pkeyopt' => 'ec_paramgen_curve:P-256', '-nodes',
		'-keyout' => "$dir/$name.key", '-out' => "$dir/$name.csr",
		'-subj' => "/CN=$name");
	system_or_bail('openssl', 'x509', '-req', '-in' => "$dir/$name.csr",
		'-CA' => "$dir/$ca.pem", '-CAkey' => "$dir/$ca.key",
		'-CAcreateserial', '-extfile' => "$dir/$name.ext",
		'-out' => "$dir/$name.pem", @more ? @more : ('-days' => 2));
	chmod 0600, "$dir/$name.key";
	return;
}

make_ca($_) for qw(ca otherca);
my $local = 'subjectAltName=DNS:localhost,IP:127.0.0.1';
make_cert('server', 'ca', $local);
make_cert('byname', 'ca', 'subjectAltName=DNS:localhost');
make_cert('byip', 'ca', 'subjectAltName=IP:127.0.0.1');
make_cert('elsewhere', 'ca', 'subjectAltName=DNS:kms.example,IP:192.0.2.1');
make_cert('wild', 'ca', 'subjectAltName=DNS:local*');
make_cert('localhost', 'ca', 'basicConstraints=CA:FALSE');
make_cert('expired', 'ca', $local, '-days' => -1);
make_cert('stranger', 'otherca', $local);
make_cert('clientonly', 'ca', "$local\nextendedKeyUsage=clientAuth");
make_cert('client', 'ca', 'extendedKeyUsage=clientAuth');
make_cert('badclient', 'otherca', 'extendedKeyUsage=clientAuth');
system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec',
	'-pkeyopt' => 'ec_paramgen_curve:P-256', '-nodes',
	'-keyout' => "$dir/selfsigned.key", '-out' => "$dir/selfsigned.pem",
	'-subj' => '/CN=localhost', '-addext' => $local, '-days' => 2);

# A CRL of "ca" that revokes what is named
sub make_crl
{
	my ($name, $ca, @revoked) = @_;
	my $conf = write_file("$name.cnf", "[ca]\ndefault_ca = c\n[c]\n"
		  . "database = $dir/$name.idx\ncrlnumber = $dir/$name.num\n"
		  . "default_md = sha256\ndefault_crl_days = 2\n");
	write_file("$name.idx", '');
	write_file("$name.num", "01\n");
	my @ca = ('openssl', 'ca', '-config' => $conf, '-cert' => "$dir/$ca.pem",
		'-keyfile' => "$dir/$ca.key");
	system_or_bail(@ca, '-revoke' => "$dir/$_.pem") foreach @revoked;
	system_or_bail(@ca, '-gencrl', '-out' => "$dir/$name.crl");
	return "$dir/$name.crl";
}
my $crl = make_crl('crl', 'ca', 'byname');
my $other_crl = make_crl('othercrl', 'otherca');
mkdir "$dir/crls" or die;
system_or_bail('cp', $crl, "$dir/crls/crl.pem");
system_or_bail('openssl', 'rehash', "$dir/crls");
system_or_bail('openssl', 'pkey', '-in' => "$dir/client.key", '-aes256',
	'-passout' => 'pass:open sesame', '-out' => "$dir/locked.key");
chmod 0600, "$dir/locked.key";

note 'servers';

my @kinds = qw(tls12 old silent closes hangs_up);
my @certs = qw(byname byip elsewhere wild localhost expired stranger
  clientonly selfsigned);
my @listeners = (
	(map { "$_=good:$dir/server.pem:$dir/server.key:$dir/ca.pem" } qw(good second)),
	(map { "$_=$_:$dir/server.pem:$dir/server.key:$dir/ca.pem" } @kinds),
	(map { "$_=good:$dir/$_.pem:$dir/$_.key:$dir/ca.pem" } @certs),
	"refuses=good:$dir/server.pem:$dir/server.key:$dir/otherca.pem",
	"refuses12=tls12:$dir/server.pem:$dir/server.key:$dir/otherca.pem",
	map { "$_=$_" } qw(plain stall resets drips down blackhole));
my $server = IPC::Run::start(
	[ $python, "$FindBin::RealBin/../kmip_server.py", $dir, @listeners ],
	'<pipe', \*TO_SERVER);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e "$dir/ports";
	select(undef, undef, undef, 0.1);
}
my %port = map { split / / } split /\n/, slurp_file("$dir/ports");

sub options
{
	my %o = (
		host => 'localhost',
		port => $port{good},
		certPath => "$dir/client.pem",
		keyPath => "$dir/client.key",
		caPath => "$dir/ca.pem",
		@_);
	return '{' . join(',', map { "\"$_\":\"$o{$_}\"" }
		  grep { defined $o{$_} } sort keys %o) . '}';
}

# Run the test program; returns status, key or message, hint, details.
sub keyring
{
	my @args = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run [ 'test_keyring', '-T' => 'kmip', @args ],
	  '>' => \$out, '2>' => \$err;
	is($err, '', 'no complaints') or diag(join ' ', @args);
	unlike($out, qr/$the_key.+|.$the_key/i, 'no key in a message');
	my ($status, $text, $hint, @detail) = split /\n/, $out;
	return ($status, $text // '', $hint // '', join("\n", @detail));
}

# Expect a failure, its message and detail, within so many seconds.
sub fails
{
	my ($args, $status, $message, $detail, $what, $seconds) = @_;
	my $start = time;
	my ($s, $m, $h, $d) = keyring(@$args);
	my $took = time - $start;

	is($s, $status, "$what: status") or diag("$m\n$d");
	like($m, $message, "$what: message");
	like($d, $detail, "$what: detail");
	cmp_ok($took, '<', $seconds // 10, "$what: in time");
	return;
}

# The same for the fetching of a key that the server misbehaves for.
sub refused
{
	my ($name, $status, $message, $seconds, @options) = @_;
	return fails([ '-t' => 1500, options(@options), 'fetch', $name ],
		$status, $message, qr//, $name, $seconds);
}

sub accepted
{
	my ($name, @options) = @_;
	my ($s, $k) = keyring('-t' => 20000, options(@options), 'fetch', $name);
	is($s, 'OK', $name) or diag($k);
	return $k;
}

sub requests { return -e "$dir/requests" ? slurp_file("$dir/requests") : '' }

note 'options of TLS';

# whom to trust
is((keyring(options(caPath => "$dir/server.pem"), 'validate'))[0], 'OK',
	'the certificate itself may be the one that is trusted');
isnt((keyring(options(caPath => "$dir/byname.pem"), 'validate'))[0], 'OK',
	'... and another of the same CA is not, then');

# the name in it
is((keyring(options(port => $port{elsewhere}, serverName => 'kms.example'), 'validate'))[0],
	'OK', 'another name than the host');
is((keyring(options(port => $port{elsewhere}, serverName => '192.0.2.1'), 'validate'))[0],
	'OK', 'another address');
isnt((keyring(options(serverName => 'kms.example'), 'validate'))[0], 'OK',
	'a certificate without that name');

# what was revoked
foreach my $path ($crl, "$dir/crls")
{
	is((keyring(options(crlPath => $path), 'validate'))[0], 'OK', "not revoked: $path");
	fails([ options(port => $port{byname}, crlPath => $path), 'validate' ],
		'FAILED', qr/certificate/, qr/revoked/, "revoked: $path");
}
fails([ options(crlPath => $other_crl), 'validate' ], 'FAILED', qr/certificate/,
	qr/unable to get certificate CRL/, 'CRL of another CA');
fails([ options(crlPath => "$dir/ca.pem"), 'validate' ], 'BAD_DATA',
	qr/^could not load CRL/, qr/./, 'no CRL');
fails([ options(crlPath => "$dir/none"), 'validate' ], 'UNREACHABLE',
	qr/^could not stat CRL/, qr/^/, 'CRL that is not there');

# the passphrase of our key
my @locked = (keyPath => "$dir/locked.key");
is((keyring(options(@locked,
			keyPassphrasePath => write_file('pass', "open sesame\n")), 'validate'))[0],
	'OK', 'passphrase from a file');
fails([ options(@locked, keyPassphrasePath => write_file('badpass', "open barley\n")), 'validate' ],
	'BAD_DATA', qr/has another passphrase/, qr/^/, 'wrong passphrase');
fails([ options(@locked, keyPassphrasePath => write_file('openpass', "open sesame\n", 0644)), 'validate' ],
	'BAD_DATA', qr/passphrase file ".*" has group or world access/, qr/^/,
	'a passphrase that others can read');

note 'a server that behaves';

is((keyring(options(), 'validate'))[0], 'OK', 'validate');
my (undef, $key) = keyring(options(), 'create', 'a');
like($key, qr/^[0-9a-f]{64}$/, 'create');
is(accepted('a'), $key, 'fetch');
fails([ options(), 'create', 'a' ], 'EXISTS', qr/already has a key/, qr//,
	'create again');
fails([ options(), 'fetch', 'b' ], 'NOT_FOUND', qr/no key with the name "b"/,
	qr//, 'no such key');
is(accepted('a', port => $port{tls12}), $key, 'TLS 1.2');
is(accepted('a', host => '127.0.0.1'), $key, 'address in the certificate');
is(accepted('a', port => $port{localhost}),
	$key, 'name in the common name, without a subjectAltName');
is((keyring('-e', options(), 'fetch', 'slow'))[1],
	$the_key, 'system calls that are interrupted');

note 'a list of servers';

is(accepted('a', host => "127.0.0.1:$port{resets},localhost"),
	$key, 'the first one resets connections');
is(accepted('a', host => "localhost:$port{down}, localhost:$port{second}"),
	$key, 'the first one is down');
is(accepted('a', host => "nosuch.invalid,localhost"),
	$key, 'the first one has no address');
is(accepted('a', host => "localhost:$port{expired},localhost"),
	$key, 'the certificate of the first one has expired');
foreach my $silent (qw(stall silent blackhole drips))
{
	my $start = time;
	is((keyring('-t' => 3000,
				options(host => "localhost:$port{$silent},localhost"),
				'fetch', 'a'))[1],
		$key, "the first one: $silent");
	cmp_ok(time - $start, '<', 3.5, 'in time');
}
fails(
	[ options(host => "localhost:$port{down},nosuch.invalid"), 'validate' ],
	'UNREACHABLE',
	qr/^could not connect to KMIP server "localhost:$port{down}"$/,
	qr/\Alocalhost:$port{down} \(127\.0\.0\.1\): Connection refused\nnosuch\.invalid:$port{good}: could not resolve host name: /m,
	'all are down');

# A definite answer is one, whoever else there may be.
foreach my $case (
	[ 'nosuch', 'NOT_FOUND', qr/no key with the name/ ],
	[ 'denied', 'DENIED', qr// ],
	[ 'gone', 'DESTROYED', qr// ])
{
	my ($name, $status, $message) = @$case;
	refused($name, $status, $message, 10,
		host => "localhost:$port{good},localhost:$port{second}");
	unlike(requests(), qr/^second \w+ (id-)?$name$/m, 'no other server is asked');
}

# Where the connection is lost, the other one is asked; but not for what may
# have been done already.
refused('nothing', 'UNREACHABLE', qr/^lost connection to KMIP server/, 10,
	host => "localhost:$port{good},localhost:$port{second}");
like(requests(), qr/^second Get id-nothing$/m, 'the other server is asked');
foreach my $name (qw(lost_before lost_after))
{
	my ($s, $k) = keyring(options(), 'create', $name);
	is($s, 'OK', "$name: a key is created though the answer was lost") or diag($k);
	is(accepted($name), $k, 'it is the one');
	my $n = () = requests() =~ /^good Register $name$/mg;
	is($n, $name eq 'lost_before' ? 2 : 1, 'registered as often as needed');
}

note 'framing';

is(accepted($_), $the_key, 'is understood') for qw(bytewise trailing);
refused($_, 'UNREACHABLE', qr/^lost connection to KMIP server "localhost:$port{good}"$/)
  for qw(nothing eof_header eof_after_header eof_body eof_padding);
refused($_, 'BAD_DATA', qr/KMIP (server|response)/, 3)
  for qw(length_0 length_1 length_cap length_7fffffff length_80000000
  length_ffffffff length_less length_more garbage http wrong_root nested
  crowd);
refused($_, 'UNREACHABLE', qr/^KMIP server "localhost:$port{good}" did not answer in time$/, 2.5)
  for qw(silence half_silence);

note 'meaning';

refused($_, 'BAD_DATA', qr/KMIP server/)
  for qw(count_0 count_2 no_payload other_operation other_batch_id other_id
  other_type pending undone disagrees no_material text_material lying_material
  not_aes len0 len1 len15 len17 len31 len33 len64 len4096);
refused('rude', 'FAILED', qr/^KMIP server refused operation Get: general failure: "[ -~]{1,210}"$/);

note 'TLS';

sub unverified
{
	my ($what, $reason, @options) = @_;
	return fails([ options(@options), 'validate' ], 'FAILED',
		qr/^SSL\/TLS certificate verification failed for KMIP server "[^"]+"$/,
		qr/^certificate verify failed: $reason/i, $what);
}
unverified('unknown CA', 'unable to get local issuer certificate|self[- ]signed',
	caPath => "$dir/otherca.pem");
unverified('stranger', '', port => $port{stranger});
unverified('self-signed', 'self[- ]signed certificate', port => $port{selfsigned});
unverified('expired', 'certificate has expired', port => $port{expired});
unverified('other name', 'hostname mismatch', port => $port{elsewhere});
unverified('other address', 'IP address mismatch',
	host => '127.0.0.1', port => $port{elsewhere});
unverified('address asked for, name certified', 'IP address mismatch',
	host => '127.0.0.1', port => $port{byname});
unverified('name asked for, address certified', 'hostname mismatch',
	port => $port{byip});
unverified('half a wildcard', 'hostname mismatch', port => $port{wild});
unverified('not for servers', 'unsuitable certificate purpose|unsupported certificate purpose',
	port => $port{clientonly});
unverified('the CAs of the system', '', caPath => undef);

foreach my $port (qw(refuses refuses12))
{
	fails([ options(port => $port{$port}), 'validate' ], 'DENIED',
		qr/^KMIP server "localhost:$port{$port}" refused the client certificate$/,
		qr/alert unknown ca/, "$port: our certificate");
}
fails([ options(certPath => "$dir/badclient.pem", keyPath => "$dir/badclient.key"), 'validate' ],
	'DENIED', qr/refused the client certificate$/, qr/alert unknown ca/,
	'certificate of another CA');
fails([ options(port => $port{old}), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server/, qr/^TLS error: .*(protocol|version)/,
	'TLS 1.1');
fails([ options(port => $port{plain}), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server/, qr/^TLS error: wrong version number$/,
	'no TLS');
fails([ options(port => $port{$_}), 'validate' ], 'UNREACHABLE',
	qr/^lost connection to KMIP server/,
	qr/^(server closed the connection|Connection reset by peer|Broken pipe)$/, $_)
  for qw(closes hangs_up);

note 'network';

fails([ options(port => $port{down}), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server "localhost:$port{down}"$/,
	qr/^Connection refused$/, 'refused');
fails([ options(port => $port{resets}), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server/,
	qr/^(Connection reset by peer|Broken pipe)$/, 'reset');
fails([ options(host => 'nosuch.invalid'), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server "nosuch.invalid:$port{good}"$/,
	qr/^could not resolve host name: /, 'no such host');
fails([ '-t' => 1500, options(port => $port{$_}), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server/, qr/^timeout expired$/, $_, 2.5)
  for qw(stall blackhole drips);
fails([ '-t' => 1500, options(port => $port{silent}), 'validate' ],
	'UNREACHABLE', qr/did not answer in time$/, qr//, 'silent', 2.5);

foreach my $port (qw(stall blackhole drips silent))
{
	fails([ '-C' => 500, options(port => $port{$port}), 'validate' ],
		'CANCELLED', qr/^canceled while (connecting to|waiting for) KMIP server/,
		qr//, "$port: canceled", 1.5);
}
# A name that takes two seconds to look up: nobody waits for it longer than
# told, and what comes of it late does no harm.
fails([ '-t' => 1000, options(host => 'slow.invalid'), 'validate' ],
	'UNREACHABLE', qr/^could not connect to KMIP server "slow.invalid:$port{good}"$/,
	qr/^could not resolve host name: timeout expired$/, 'slow resolver', 1.8);
fails([ '-C' => 300, options(host => 'slow.invalid'), 'validate' ],
	'CANCELLED', qr/^canceled while connecting/, qr//, 'slow resolver: canceled', 1.3);
is((keyring('-t' => 2000, options(host => 'slow.invalid,localhost'), 'fetch', 'a'))[1],
	$key, 'slow resolver: the next server is asked');
fails([ '-t' => 3000, options(host => "slow.invalid,localhost:$port{stall}"), 'validate' ],
	'UNREACHABLE', qr/^could not connect to KMIP server/, qr/timeout expired/,
	'slow resolver, too late', 4);
fails([ options(host => 'slow.invalid'), 'validate' ], 'UNREACHABLE',
	qr/^could not connect to KMIP server/, qr/^could not resolve host name: (?!timeout)/,
	'slow resolver: in time after all', 3);

fails([ '-c', options(), 'validate' ], 'CANCELLED', qr/^canceled while/, qr//,
	'canceled at once', 1);

note 'files';

write_file('empty', '');
write_file('junk', "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
write_file('open.key', slurp_file("$dir/client.key"), 0640);
system_or_bail('openssl', 'ec', '-in' => "$dir/client.key", '-aes128',
	'-passout' => 'pass:secret', '-out' => "$dir/locked.key");
chmod 0600, "$dir/locked.key";
foreach my $case (
	[ certPath => 'nosuch', 'UNREACHABLE', qr/^could not open client certificate file "\Q$dir\E\/nosuch": / ],
	[ certPath => 'empty', 'BAD_DATA', qr/^could not load client certificate file/ ],
	[ certPath => 'client.key', 'BAD_DATA', qr/^could not load client certificate file/ ],
	[ certPath => '', 'BAD_DATA', qr/^client certificate file ".*" is not a regular file$/ ],
	[ certPath => 'server.pem', 'BAD_DATA', qr/^private key file ".*client\.key" does not match client certificate file ".*server\.pem"$/ ],
	[ keyPath => 'nosuch', 'UNREACHABLE', qr/^could not open private key file "\Q$dir\E\/nosuch": / ],
	[ keyPath => 'empty', 'BAD_DATA', qr/^could not load private key file/ ],
	[ keyPath => 'junk', 'BAD_DATA', qr/^could not load private key file/ ],
	[ keyPath => 'open.key', 'BAD_DATA', qr/has group or world access$/ ],
	[ keyPath => 'locked.key', 'BAD_DATA', qr/is protected by a passphrase$/ ],
	[ keyPath => 'server.key', 'BAD_DATA', qr/ does not match / ],
	[ caPath => 'nosuch', 'UNREACHABLE', qr/^could not open CA certificate file/ ],
	[ caPath => 'empty', 'BAD_DATA', qr/^could not load CA certificate file/ ])
{
	my ($option, $file, $status, $message) = @$case;
	fails([ options($option => "$dir/$file"), 'validate' ], $status, $message,
		qr//, "$option $file");
}
(my $relative = options()) =~ s/\Q$dir\E\///g;
is((keyring('-D' => $dir, $relative, 'validate'))[0],
	'OK', 'relative paths start from the data directory');

note 'options';

foreach my $case (
	[ { host => undef }, qr/option "host" .* is missing/ ],
	[ { host => 'a,,b' }, qr/not a valid list of hosts/ ],
	[ { host => 'a:b' }, qr/not a valid list of hosts/ ],
	[ { host => 'a:0' }, qr/not a valid list of hosts/ ],
	[ { host => '[::1' }, qr/not a valid list of hosts/ ],
	[ { host => '[::1]5696' }, qr/not a valid list of hosts/ ],
	[ { host => 'kmip://a' }, qr/not a valid list of hosts/ ],
	[ { host => 'a' x 256 }, qr/not a valid list of hosts/ ],
	[ { host => "a\x01b" }, qr/could not parse options/ ],
	[ { port => 65536 }, qr/between 1 and 65535/ ],
	[ { verify => 'no' }, qr/unrecognized option "verify"/ ])
{
	fails([ options(%{ $case->[0] }), 'check' ], 'BAD_OPTIONS', $case->[1],
		qr//, 'options');
}
is((keyring(options(host => $_), 'check'))[0], 'OK', "host $_")
  for '::1', '[::1]', '[::1]:5697', '192.0.2.1:5697, b.example', 'fe80::1%eth0';

note 'what is left in memory';

# The dynamic loader, when it first meets a function, would save registers
# with parts of keys.
SKIP:
{
	my ($out, $err) = ('', '');
	local $ENV{LD_BIND_NOW} = '1';
	IPC::Run::run [ 'test_keyring', '-T' => 'kmip', options(), 'residue', 'a' ],
	  '>' => \$out, '2>' => \$err;
	skip $out, 1 if $out =~ /address sanitizer/;
	is($out . $err, "0 copies left\n", 'no keys');
}

close(TO_SERVER);
$server->finish;
done_testing();
