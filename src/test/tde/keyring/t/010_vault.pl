# Copyright (c) 2026, the Coffer authors

# The provider vault-v2 against a server that may say and do anything: what is
# asked of it, what is believed, and what is said about the rest.

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
my $token = 's.ThisIsTheTokenOfTheTest';

# No proxy that the environment names may come between.
$ENV{$_} = 'http://127.0.0.1:1' for qw(http_proxy https_proxy ALL_PROXY);
delete $ENV{no_proxy};
delete $ENV{NO_PROXY};

sub write_file
{
	my ($name, $content, $mode) = @_;
	open(my $fh, '>', "$dir/$name") or die "could not write $name: $!";
	print $fh $content;
	close($fh);
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

note 'certificates';

sub openssl
{
	system_or_bail('openssl', @_);
	return;
}

# A CA, and certificates that it signs.
sub make_ca
{
	my $ca = shift;
	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt',
		'ec_paramgen_curve:P-256', '-nodes', '-keyout' => "$dir/$ca.key",
		'-out' => "$dir/$ca.pem", '-subj' => "/CN=$ca", '-days' => 2);
	return;
}

sub make_cert
{
	my ($name, $ca, $san, @more) = @_;
	write_file("$name.ext", "subjectAltName=$san\n");
	openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
		'-nodes', '-keyout' => "$dir/$name.key", '-out' => "$dir/$name.csr",
		'-subj' => "/CN=$name");
	openssl('x509', '-req', '-in' => "$dir/$name.csr", '-CA' => "$dir/$ca.pem",
		'-CAkey' => "$dir/$ca.key", '-CAcreateserial', '-extfile',
		"$dir/$name.ext", '-out' => "$dir/$name.pem",
		@more ? @more : ('-days' => 2));
	return "$name=$dir/$name.pem:$dir/$name.key";
}

make_ca('ca');
make_ca('otherca');
my @listeners = (
	'plain',
	'stall=stall',
	make_cert('tls', 'ca', 'DNS:localhost,IP:127.0.0.1'),
	make_cert('otherhost', 'ca', 'DNS:vault.example,IP:192.0.2.1'),
	make_cert('expired', 'ca', 'DNS:localhost,IP:127.0.0.1', '-days' => -1),
	make_cert('stranger', 'otherca', 'DNS:localhost,IP:127.0.0.1'),
	make_cert('old', 'ca', 'DNS:localhost,IP:127.0.0.1') . ':old');

my $server = IPC::Run::start(
	[ $python, "$FindBin::RealBin/../vault_server.py", $dir, @listeners ],
	'<pipe', \*TO_SERVER);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e "$dir/ports";
	select(undef, undef, undef, 0.1);
}
my %port = map { split / / } split /\n/, slurp_file("$dir/ports");

note 'calls';

my $token_file = write_file('token', "$token\n");

# JSON text of options, by default those of the server that behaves.
sub options
{
	my %o = (
		url => "https://localhost:$port{tls}",
		mountPath => 'good',
		tokenPath => $token_file,
		caPath => "$dir/ca.pem",
		@_);
	return '{' . join(',',
		map { my $v = $o{$_}; $v =~ s/([\\"])/\\$1/g; qq("$_":"$v") }
		  grep { defined $o{$_} } sort keys %o) . '}';
}

# Run the test program; returns status, key or message, hint.
sub keyring
{
	my @args = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run [ 'test_keyring', '-T' => 'vault-v2', @args ],
	  '>' => \$out, '2>' => \$err;
	is($err, '', 'no complaints') or diag(join ' ', @args);
	unlike($out, qr/\Q$token\E/, 'no token in a message');
	my ($status, $text, $hint) = split /\n/, $out;
	return ($status, $text // '', $hint // '');
}

# Expect a failure and its message; a hint where one is given.
sub fails
{
	my ($args, $status, $message, $what, $hint) = @_;
	my ($s, $m, $h) = keyring(@$args);

	is($s, $status, "$what: status") or diag($m);
	like($m, $message, "$what: message");
	like($h, $hint, "$what: hint") if $hint;
	return;
}

# The same for the reading of a key from a mount that misbehaves.
sub refused
{
	my ($mount, $status, $message, $hint) = @_;
	return fails([ '-t' => 20000, options(mountPath => $mount), 'fetch', 'k' ],
		$status, $message, $mount, $hint);
}

sub accepted
{
	my ($mount) = @_;
	my ($s, $k) = keyring(options(mountPath => $mount), 'fetch', 'k');
	is($s, 'OK', $mount) or diag($k);
	return $k;
}

sub requests { return -e "$dir/requests" ? slurp_file("$dir/requests") : '' }

my $url = "https://localhost:$port{tls}";
my $the_key = join '', map { sprintf '%02x', $_ } 0 .. 31;

note 'a server that behaves';

is((keyring(options(), 'validate'))[0], 'OK', 'validate');
my (undef, $key) = keyring(options(), 'create', 'a');
like($key, qr/^[0-9a-f]{64}$/, 'create');
is((keyring(options(), 'fetch', 'a'))[1], $key, 'fetch');
fails([ options(), 'create', 'a' ], 'EXISTS',
	qr/^key "a" already exists on server "\Q$url\E" \("good\/data\/a"\)$/,
	'create again', qr/deleted versions/);
is((keyring(options(), 'fetch', 'a'))[1], $key, 'it is still the same');
fails([ options(), 'fetch', 'b' ], 'NOT_FOUND',
	qr/^key "b" does not exist on server "\Q$url\E" \("good\/data\/b"\)$/,
	'no such key');
for my $len (16, 24)
{
	my (undef, $k) = keyring(options(), 'create', "len-$len", $len);
	is(length $k, 2 * $len, "$len bytes");
	is((keyring(options(), 'fetch', "len-$len"))[1], $k, 'come back');
}

# Names, and that they are not what they look like.
my %keys;
for my $name (' ', 'a b', '%', '%41', 'A', 'a?b', 'a#b', 'x/y/z', 'a+b', "caf\xc3\xa9",
	"line\nfeed", '"', '\\', '...', '.a', 'n' x 255, '%2e%2e', '..%2f', '~', 'a;b', 'a&b=c')
{
	my ($s, $k) = keyring(options(), 'create', $name);
	is($s, 'OK', 'a name of any bytes');
	ok(!exists $keys{$k}, 'has a key of its own');
	$keys{$k} = $name;
}
is((keyring(options(), 'fetch', $keys{$_}))[1], $_, 'that comes back')
  for keys %keys;
for my $name ('..', '.', '../x', 'x/..', 'x/../y', 'x/./y', '/x', 'x/', 'x//y')
{
	my $before = requests();
	fails([ options(), 'fetch', $name ], 'FAILED',
		qr/^key name "\Q$name\E" cannot be used/, 'a name that wanders off');
	is(requests(), $before, 'and is not asked for');
}

# What is sent.
like(requests(), qr/^POST \/v1\/good\/data\/a \Q$token\E -$/m, 'token is sent');
(undef, $key) = keyring(options(namespace => 'team/one'), 'create', 'a');
like(requests(), qr/^POST \/v1\/good\/data\/a \Q$token\E team\/one$/m, 'namespace too');
is((keyring(options(namespace => 'team/one'), 'fetch', 'a'))[1], $key,
	'a namespace is another world');
keyring(options(namespace => ''), 'fetch', 'a');
like(requests(), qr/ \Q$token\E -\n\z/, 'an empty namespace is none');
keyring(options(mountPath => '/good/'), 'fetch', 'a');
like(requests(), qr/^GET \/v1\/good\/data\/a .*\n\z/m, 'slashes around the mount path');
keyring(options(mountPath => 'a b/c%'), 'validate');
like(requests(), qr/^GET \/v1\/sys\/internal\/ui\/mounts\/a%20b\/c%25 .*\n\z/m,
	'a mount path is encoded');
keyring(options(url => "$url/"), 'fetch', 'a');
like(requests(), qr/^GET \/v1\/good\/data\/a .*\n\z/m, 'a slash after the URL');
keyring(options(url => "$url/prefix/x"), 'fetch', 'a');
like(requests(), qr/^GET \/prefix\/x\/v1\/good\/data\/a .*\n\z/m, 'a path in the URL');

# The machine itself may be spoken to in clear.
is((keyring(options(url => "http://$_:$port{plain}", caPath => undef),
			'fetch', 'a'))[0], 'OK', "http://$_")
  for 'localhost', '127.0.0.1', 'LOCALHOST';

note 'options';

sub bad_option
{
	my ($message, %o) = @_;
	return fails([ options(%o), 'check' ], 'BAD_OPTIONS', $message,
		join ',', map { $_ // 'nothing' } %o);
}

is((keyring(options(caPath => ''), 'check'))[0], 'OK', 'an empty caPath is none');
bad_option(qr/^option "$_" of key provider "p" is missing$/, $_ => undef)
  for qw(url mountPath tokenPath);
bad_option(qr/^unrecognized option "token"/, token => $token);
bad_option(qr/"url" of key provider "p" does not begin with "https:/, url => $_)
  for 'localhost:8200', 'ftp://localhost', 'file:///etc/passwd', 'HTTPS://localhost', '//x', 'https:/x';
bad_option(qr/"url" of key provider "p" is not a scheme, host, port and path/, url => $_)
  for 'https://', 'https:///x', 'https://:8200', 'https://user:pw@host', 'https://host/?q=1',
  'https://host/#f', 'https://host/a b', "https://host/\xc3\xa9", 'https://host\\@evil';
bad_option(qr/begins with "http:\/\/", but its host is not this machine$/, url => $_)
  for 'http://vault:8200', 'http://127.0.0.1.example:8200', 'http://localhost.example',
  'http://127.256.0.1', 'http://10.0.0.1', 'http://[::2]:8200', 'http://[::1', 'http://128.0.0.1',
  'http://[::1].example/';
is((keyring(options(url => $_), 'check'))[0], 'OK', $_)
  for 'http://127.9.9.9:1', 'http://[::1]:8200', 'https://[2001:db8::1]:8200/v', 'http://localhost';
bad_option(qr/"mountPath" of key provider "p" is not a path$/, mountPath => $_)
  for '/', '..', 'a/../b', 'a//b', '.';
bad_option(qr/"tokenPath" of key provider "p" is not an absolute path$/, tokenPath => 'token');
bad_option(qr/"caPath" of key provider "p" is not an absolute path$/, caPath => 'ca.pem');
bad_option(qr/"namespace" of key provider "p" contains a space/, namespace => $_)
  for 'a b', 'a\\r\\nX-Evil: 1';

note 'revoked certificates';

# A CRL of "ca" that revokes what is named
sub make_crl
{
	my ($name, @revoked) = @_;
	write_file("$name.cnf", "[ca]\ndefault_ca = c\n[c]\n"
		  . "database = $dir/$name.idx\ncrlnumber = $dir/$name.num\n"
		  . "default_md = sha256\ndefault_crl_days = 2\n");
	write_file("$name.idx", '');
	write_file("$name.num", "01\n");
	my @ca = ('ca', '-config' => "$dir/$name.cnf", '-cert' => "$dir/ca.pem",
		'-keyfile' => "$dir/ca.key");
	openssl(@ca, '-revoke' => "$dir/$_.pem") foreach @revoked;
	openssl(@ca, '-gencrl', '-out' => "$dir/$name.crl");
	return "$dir/$name.crl";
}
is((keyring(options(crlPath => make_crl('others', 'otherhost')), 'validate'))[0],
	'OK', 'not revoked');
fails([ options(crlPath => make_crl('revoked', 'tls')), 'validate' ], 'FAILED',
	qr/certificate verification failed.*revoked/, 'revoked');
fails([ options(crlPath => "$dir/none"), 'validate' ], 'FAILED',
	qr/^could not load CRL file/, 'no CRL');
bad_option(qr/"crlPath" of key provider "p" is not an absolute path$/, crlPath => 'x.crl');

note 'the token file';

sub bad_token
{
	my ($what, $status, $message, $path) = @_;
	my $before = requests();
	fails([ options(tokenPath => $path), 'fetch', 'a' ], $status, $message, $what);
	is(requests(), $before, 'nothing is sent');
	return;
}

bad_token('missing', 'UNREACHABLE', qr/^could not open token file ".*": No such file/, "$dir/none");
bad_token('a directory', 'BAD_DATA', qr/is not a regular file$/, $dir);
bad_token('readable by all', 'BAD_DATA', qr/has group or world access$/,
	write_file('token1', $token, 0644));
bad_token('readable by a group', 'BAD_DATA', qr/has group or world access$/,
	write_file('token2', $token, 0640));
bad_token('empty', 'BAD_DATA', qr/does not contain a token$/, write_file('token3', ''));
bad_token('white space', 'BAD_DATA', qr/does not contain a token$/, write_file('token4', " \n \n"));
bad_token('a header in it', 'BAD_DATA', qr/does not contain a token$/,
	write_file('token5', "$token\r\nX-Evil: 1"));
bad_token('a zero byte', 'BAD_DATA', qr/does not contain a token$/,
	write_file('token6', "$token\0"));
bad_token('too large', 'BAD_DATA', qr/is larger than 8192 bytes$/,
	write_file('token7', 'x' x 8193));
SKIP:
{
	require POSIX;
	skip 'no FIFO here', 4 unless POSIX::mkfifo("$dir/fifo", 0600);
	bad_token('a FIFO', 'BAD_DATA', qr/is not a regular file$/, "$dir/fifo");
}
is((keyring(options(tokenPath => write_file('token8', " \t$token \r\n\n")), 'fetch', 'a'))[0],
	'OK', 'white space around a token');
symlink "$dir/token", "$dir/link";
is((keyring(options(tokenPath => "$dir/link"), 'fetch', 'a'))[0], 'OK', 'a symbolic link');
fails([ options(tokenPath => write_file('token9', 's.Another')), 'fetch', 'a' ],
	'DENIED',
	qr/^server "\Q$url\E" denies access to "good\/data\/a" with the token from file ".*\/token9": permission denied$/,
	'a bad token', qr/expired/);

note 'what is mounted there';

for my $mount (qw(m_kv1 m_old m_generic m_pki m_number))
{
	fails([ options(mountPath => $mount), 'validate' ], 'FAILED',
		qr/^there is no KV secrets engine of version 2 at "$mount" on server "\Q$url\E"$/,
		$mount, qr/vault secrets enable/);
}
fails([ options(mountPath => 'm_denied'), 'validate' ], 'DENIED', qr/preflight capability/, 'no right');
fails([ options(mountPath => $_->[0]), 'validate' ], $_->[1], $_->[2], "validate, $_->[0]")
  for [ 'sealed', 'UNREACHABLE', qr/is sealed or down for maintenance: Vault is sealed$/ ],
  [ 'redirect', 'FAILED', qr/redirects/ ], [ 'notjson', 'BAD_DATA', qr/not valid JSON/ ],
  [ 'nodata', 'BAD_DATA', qr/lacks what it should contain/ ],
  [ 'nopage', 'FAILED', qr/does not know path "nopage": no reason given/ ],
  [ 'hangup', 'UNREACHABLE', qr/^connection to server/ ];

note 'content that is believed';

is(accepted($_), $the_key, $_)
  for qw(len32 deep escapes latin1 limit slowly untilclosed);
is(length accepted($_), 2 * $_ =~ s/len//r, $_) for qw(len16 len24);

note 'content that is not';

my $lacks = qr/^answer of server "\Q$url\E" for "\w+\/data\/k" lacks what it should contain$/;
my $not_json = qr/^answer of server "\Q$url\E" for "\w+\/data\/k" is not valid JSON$/;
my $no_key = qr/^secret "\w+\/data\/k" on server "\Q$url\E" has no field "key" that is a string$/;
my $no_base64 = qr/^field "key" of secret "\w+\/data\/k" on server "\Q$url\E" is not a key in base64$/;

refused($_, 'BAD_DATA', $not_json)
  for qw(notjson empty trailing nul nesting deeper twice compressed);
refused($_, 'BAD_DATA', $lacks) for qw(nodata datanull datatext dataarray toplevel);
refused($_, 'BAD_DATA', $no_key)
  for qw(nokey keynumber keynull keyobject elsewhere slashes);
refused($_, 'BAD_DATA', $no_base64) for qw(badbase64 emptykey len65);
refused("len$_", 'BAD_DATA', qr/^key "k" of key provider "p" has an unexpected length of $_ bytes$/)
  for 1, 15, 17, 31, 33, 64;

note 'statuses';

refused('sealed', 'UNREACHABLE', qr/is sealed or down for maintenance: Vault is sealed$/, qr/Unseal/);
refused('denied', 'DENIED', qr/denies access to "denied\/data\/k" .* 1 error occurred: \* permission denied$/, qr/policy/);
refused('missing', 'NOT_FOUND', qr/^key "k" does not exist on server/);
refused('noroute', 'FAILED', qr/does not know path "noroute\/data\/k": no handler for route/, qr/mountPath/);
refused('nopage', 'FAILED', qr/does not know path/);
refused('deleted', 'DESTROYED', qr/^newest version of key "k" is deleted on server/, qr/undelete/);
refused('destroyed', 'DESTROYED', qr/^newest version of key "k" is destroyed on server/, qr/backup/);
refused("status$_", 'FAILED', qr/redirects to another URL \(status $_\)$/, qr/not followed/)
  for 301, 302, 303, 307, 308;
refused("status$_", 'UNREACHABLE', qr/cannot answer now \(status $_\): status $_$/)
  for 412, 429, 472, 473, 500, 501, 502, 504;
refused("status$_", 'FAILED', qr/answers status $_ for "status$_\/data\/k"/)
  for 204, 206, 400, 405, 418, 999;
refused('status401', 'DENIED', qr/status 401$/);
refused('rude', 'UNREACHABLE', qr/: \?\[31mred\? FATAL: caf\? x+$/);
refused('echo', 'DENIED', qr/: no reason given$/);
refused('echopart', 'DENIED', qr/: no reason given$/);
refused('errorsnumber', 'DENIED', qr/: third$/);

note 'nobody is followed';

{
	my $before = length requests();
	refused('redirect', 'FAILED', qr/redirects to another URL \(status 307\)$/);
	is(substr(requests(), $before), "GET /v1/redirect/data/k $token -\n",
		'one request, and none to the target');
}

note 'too much, too little, too slow';

my $too_large = qr/^answer of server "\Q$url\E" is larger than 65536 bytes$/;
refused($_, 'BAD_DATA', $too_large) for qw(big chunks headers continue overlimit);
refused('longheader', 'FAILED', qr/"\Q$url\E" sent too long a header line$/);
refused($_, 'UNREACHABLE', qr/^connection to server "\Q$url\E" was lost: /)
  for qw(truncated hangup reset);
refused($_, 'UNREACHABLE', qr/^connection to server "\Q$url\E" was lost: /) for 'truncatedchunk';
refused($_, 'BAD_DATA', qr/"\Q$url\E"/) for qw(garbage http09 badstatus badlength hugelength);
refused('badchunk', 'UNREACHABLE', qr/"\Q$url\E"/);

sub in_time
{
	my ($what, $least, $most, $sub) = @_;
	my $start = time;
	$sub->();
	my $took = time - $start;
	cmp_ok($took, '>=', $least, "$what: not too early");
	cmp_ok($took, '<', $most, "$what: not too late");
	return;
}

my $late = qr/^server ".*" did not answer within 700 ms$/;
for my $mount (qw(silence drip dripheaders))
{
	in_time($mount, 0.7, 1.7, sub {
		fails([ '-t' => 700, options(mountPath => $mount), 'fetch', 'k' ],
			'UNREACHABLE', $late, $mount);
	});
}
in_time('stalled handshake', 0.7, 1.7, sub {
	fails([ '-t' => 700, options(url => "https://127.0.0.1:$port{stall}"), 'fetch', 'k' ],
		'UNREACHABLE', $late, 'stalled handshake');
});
in_time('no route', 0, 1.7, sub {
	fails([ '-t' => 700, options(url => 'https://192.0.2.1:8200'), 'fetch', 'k' ],
		'UNREACHABLE', qr/did not answer within|could not connect to server/, 'a black hole');
});
in_time("cancelled, $_->[0]", 0.3, 1.3, sub {
	fails([ '-C' => 300, options(@$_[1 .. 2]), 'fetch', 'k' ],
		'CANCELLED', qr/was canceled$/, 'cancelled');
}) for [ 'silence', mountPath => 'silence' ], [ 'drip', mountPath => 'drip' ],
  [ 'handshake', url => "https://127.0.0.1:$port{stall}" ];
fails([ '-c', options(), 'fetch', 'a' ], 'CANCELLED', qr/was canceled$/, 'cancelled at once');
fails([ options(url => 'https://localhost:1'), 'fetch', 'a' ], 'UNREACHABLE',
	qr/^could not connect to server "https:\/\/localhost:1": /, 'refused');
fails([ '-t' => 3000, options(url => 'https://no-such-host.invalid'), 'fetch', 'a' ], 'UNREACHABLE',
	qr/^could not connect to server|did not answer/, 'unknown host');

note 'making a key';

fails([ options(mountPath => 'kv1'), 'create', 'k' ], 'FAILED', qr/answers status 204/, 'KV version 1');
fails([ options(mountPath => $_), 'create', 'k' ], 'BAD_DATA', $lacks, "create, $_")
  for qw(version2 versiontext versionhuge nodata);
fails([ options(mountPath => 'sealed'), 'create', 'k' ], 'UNREACHABLE', qr/is sealed/, 'create, sealed');
fails([ options(mountPath => 'redirect'), 'create', 'k' ], 'FAILED', qr/redirects/, 'create, redirect');
fails([ options(mountPath => 'echokey'), 'create', 'k' ], 'FAILED', qr/: no reason given$/,
	'create, key said back');
fails([ options(mountPath => 'lost'), 'create', 'k' ], 'UNREACHABLE', qr/^connection to server/,
	'an answer that is lost');
is((keyring(options(mountPath => 'lost'), 'fetch', 'k'))[0], 'OK', 'the key is there all the same');

note 'whom to believe';

my $unverified = qr/^SSL\/TLS certificate verification failed for server ".*": /;
fails([ options(url => "https://localhost:$port{stranger}"), 'fetch', 'a' ], 'FAILED',
	qr/${unverified}SSL certificate problem: unable to get local issuer certificate$/,
	'another CA', qr/CA certificate/);
fails([ options(url => "https://localhost:$port{expired}"), 'fetch', 'a' ], 'FAILED',
	qr/${unverified}SSL certificate problem: certificate has expired$/, 'expired');
fails([ options(url => "https://$_:$port{otherhost}"), 'fetch', 'a' ], 'FAILED',
	qr/${unverified}.*does not match|no alternative certificate subject name matches/,
	"certificate for another host, $_")
  for 'localhost', '127.0.0.1';
fails([ options(caPath => undef), 'fetch', 'a' ], 'FAILED', $unverified,
	'the system does not know the CA');
fails([ options(url => "https://localhost:$port{old}"), 'fetch', 'a' ], 'UNREACHABLE',
	qr/^could not connect to server ".*": .*(version|alert)/i, 'TLS 1.1');
fails([ options(url => "https://localhost:$port{plain}"), 'fetch', 'a' ], 'UNREACHABLE',
	qr/^could not connect to server/, 'no TLS');
fails([ options(url => "http://localhost:$port{tls}"), 'fetch', 'a' ], 'UNREACHABLE',
	qr/was lost/, 'TLS where none is expected');
fails([ options(caPath => "$dir/none"), 'fetch', 'a' ], 'FAILED',
	qr/^could not load CA certificates from "\Q$dir\E\/none"/, 'no CA file');
fails([ options(caPath => write_file('junk', "junk\n")), 'fetch', 'a' ], 'FAILED',
	qr/^could not load CA certificates from/, 'junk as CA file');
is((keyring(options(url => "https://127.0.0.1:$port{tls}"), 'fetch', 'a'))[0],
	'OK', 'by IP address');

# A directory of certificates; and no other authority than the given ones.
mkdir "$dir/cas";
write_file('cas/ca.pem', slurp_file("$dir/ca.pem"));
openssl('rehash', "$dir/cas");
is((keyring(options(caPath => "$dir/cas"), 'fetch', 'a'))[0], 'OK', 'a directory of CAs');
fails([ options(caPath => "$dir/cas", url => "https://localhost:$port{stranger}"), 'fetch', 'a' ],
	'FAILED', $unverified, 'another CA than those in the directory');

note 'what stays in memory';

SKIP:
{
	my $tell = write_file('tell', $token);
	my ($out, $err) = ('', '');
	local $ENV{LD_BIND_NOW} = '1';
	IPC::Run::run [ 'test_keyring', '-T' => 'vault-v2', options(), 'residue', 'a', $tell ],
	  '>' => \$out, '2>' => \$err;
	skip $out, 1 if $out =~ /address sanitizer/;
	is($out . $err, "0 copies left\n", 'neither keys nor the token');
}

close(TO_SERVER);
$server->finish;
done_testing();
