# Copyright (c) 2026, the Coffer authors

# The manual's examples, run in their order as they are printed, but for the
# places of files: a reader who pastes them must get what the page says.
#
# In pages listed here every fenced block marked "sql" goes to psql and every
# one marked "sh" to a shell; others are not run.  A page's name may be followed
# by what its last words must show.

use strict;
use warnings FATAL => 'all';

use Cwd 'abs_path';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Test files in a build are links into the repository, which has the manual.
my $doc = dirname(abs_path(__FILE__)) . '/../../../../doc';
plan skip_all => 'the manual is not beside the source'
  unless -e "$doc/quick-start.md";

my $root = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
$ENV{PGPORT} = $port;
$ENV{PGHOST} = $root;
$ENV{PGDATABASE} = 'postgres';

my $database = 'postgres';
my %names;					# other names than in the page

# Blocks of a page: [ language, text ]
sub blocks
{
	my ($page) = @_;
	my @blocks;
	my $text = slurp_file("$doc/$page.md");

	push @blocks, [ $1, $2 ] while $text =~ /^ *```(\w+)\n(.*?)^ *```$/msg;
	return @blocks;
}

# Files lie below the test's directory, and the server listens there alone.
sub adapted
{
	my ($text) = @_;

	$text =~ s/\b$_\b/$names{$_}/g foreach keys %names;
	$text =~ s{/var/lib/coffer}{$root}g;
	$text =~ s{-w (re)?start}{-o "-k '$root' -c listen_addresses= -p $port" -w @{[$1 // '']}start}g;
	return $text;
}

sub run_block
{
	my ($page, $n, $language, $text) = @_;
	my @command =
	  $language eq 'sql'
	  ? ('psql', '-X', '-v', 'ON_ERROR_STOP=1', '-At', '-d', $database)
	  : ('bash', '-e', '-o', 'pipefail');
	my ($out, $err) = ('', '');

	$text = adapted($text);
	my $ok = IPC::Run::run(\@command, '<', \$text, '>', \$out, '2>', \$err);
	ok($ok, "$page, block $n ($language)") or diag("$text\n$out\n$err");
	return $out . $err;
}

sub run_page
{
	my ($page) = @_;
	my %result;
	my $n = 0;

	foreach my $block (blocks($page))
	{
		my ($language, $text) = @$block;
		next unless $language eq 'sql' || $language eq 'sh';
		$n++;
		$result{$n} = run_block($page, $n, $language, $text);
		$database = 'app' if $text =~ /createdb app/;
	}
	cmp_ok($n, '>', 2, "$page has examples");
	return %result;
}

# Every link inside the manual leads somewhere.
sub anchors
{
	my ($file) = @_;
	my %anchors;

	foreach my $heading (slurp_file($file) =~ /^#+ +(.*?)\s*$/mg)
	{
		my $anchor = lc $heading;
		$anchor =~ s/\[([^\]]*)\]\([^)]*\)/$1/g;
		$anchor =~ s/[^\w\- ]//g;
		$anchor =~ tr/ /-/;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

my @broken;
foreach my $page (glob("$doc/*.md $doc/programs/*.md"))
{
	my $text = slurp_file($page);

	$text =~ s/^```.*?^```$//msg;
	foreach my $link ($text =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($file, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $file eq '' ? $page : dirname($page) . "/$file";

		push @broken, basename($page) . ": $link"
		  unless -e $target && (!defined $anchor || anchors($target)->{$anchor});
	}
}
is(join("\n", @broken), '', 'links of the manual');

# A program's page tells of each of its options, and becomes a man page.
my $man = "$root/man";
my $lowdown = system('command -v lowdown >/dev/null') == 0;
system_or_bail("$doc/../tools/man", $man) if $lowdown;
foreach my $page (glob("$doc/programs/pg_*.md"))
{
	my $program = basename($page, '.md');
	my $text = slurp_file($page);
	my ($help) = run_command([ $program, '--help' ]);
	my @missing = grep { $text !~ /\Q$_\E\b/ } $help =~ /(?<!\w)(--[a-z][a-z-]+)/g;

	# PostgreSQL's own under a second name: its page says so, and has them
	unless ($text =~ /The same program as \*\*pg_/)
	{
		is("@missing", '', "page of $program has all options");
		# What only the server gives is not in --help.
		$help .= ' --keys-on-stdin' if $text =~ /^: .*\bFor the use of the library/m;
		my ($options) = $text =~ /^## Options\n(.*?)^## /ms;
		is( join(' ', grep { $help !~ /\Q$_\E\b/ }
				  ($options // '') =~ /^(?:.*, )?\*\*(--[a-z][a-z-]+)/mg),
			'',
			'... and no others');
	}
  SKIP:
	{
		skip 'lowdown, which makes man pages, is not installed', 1
		  unless $lowdown;
		like(slurp_file("$man/man1/$program.1"),
			qr/^\.TH "\Q$program\E" "1".*^\.SH\s+NAME\s+\.LP\s+\Q$program\E - /ms,
			"man page of $program");
	}
}

my %quick = run_page('quick-start');
my $all = join('', map { $quick{$_} } sort { $a <=> $b } keys %quick);
like($quick{3}, qr/^t$/m, 'quick start: the table is encrypted');
like($all, qr/^not found$/m, 'quick start: it is not on disk in clear');
like($all, qr/^key_02\|keyring$/m, 'quick start: the key is rotated');
like($all, qr/Top secret info.*Top secret info.*principal key "key_02" cannot be had from key provider "keyring"/s,
	'quick start: readable after a restart, not without the key');

my %file = run_page('provider-file');
like(join('', values %file), qr/^app-2026\|own$/m, 'provider file: own key');

run_page('monitoring');
run_page('troubleshooting');
run_page('provider-kmip');

# Here the provider and the keys are others than in the pages before.
%names = (kms => 'keyring', key_02 => 'key_03');
run_block('operations', 0, 'sql',
	"SELECT pg_tde_create_key_using_global_key_provider('app_02', 'keyring')");
my %operations = run_page('operations');
like($operations{1}, qr/^key_03\|keyring/m, 'operations: the key is rotated');

# All that there is to know of is in the manual: settings have a section, and
# functions and views of the extension are named.
sub names
{
	my ($query) = @_;
	my ($out) = run_command([ 'psql', '-XAt', '-d', 'app', '-c', $query ]);
	return split /\n/, $out;
}
my $settings = slurp_file("$doc/settings.md");
my @names = names(q{SELECT name FROM pg_settings
	WHERE name LIKE 'pg\_tde.%' OR name = 'lock_memory'});
cmp_ok(scalar @names, '>', 5, 'there are settings');
is(join(' ', grep { $settings !~ /^### \Q$_\E$/m } @names),
	'', 'all settings are in the manual');

my $reference = slurp_file("$doc/functions.md") . slurp_file("$doc/monitoring.md");
@names = names(q{SELECT DISTINCT coalesce(p.proname, c.relname)
	FROM pg_depend d
	LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
	WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tde')
	AND coalesce(p.proname, c.relname) !~ '^(pg_stat_get_tde_|pg_tdeam_handler)'});
cmp_ok(scalar @names, '>', 40, 'there are functions and views');
is(join(' ', grep { $reference !~ /\b\Q$_\E\b/ } @names),
	'', 'all functions and views are in the manual');

# And the other way round: what the manual names is there.
my $manual = join('', map { slurp_file($_) }
	  glob("$doc/*.md $doc/programs/*.md $doc/../README.md"));
my %there = map { $_ => 1 } names(q{SELECT name FROM pg_settings UNION
	SELECT proname FROM pg_proc UNION SELECT relname FROM pg_class UNION
	SELECT evtname FROM pg_event_trigger UNION SELECT amname FROM pg_am});
my ($bindir) = run_command([ 'pg_config', '--bindir' ]);
$there{$_} = 1 foreach slurp_dir($bindir);

# A file, and beginnings of names ("pg_tde_verify_*", "pg_tde_set_key...")
my %named = map { $_ => 1 } $manual =~ /\b(pg_tde\.[a-z_]+)\b/g;
delete @named{qw(pg_tde.so pg_tde.control)};
$named{$_} = 1 foreach $manual =~ /\b(pg_tde_[a-z0-9_]*[a-z0-9])\b(?!\w|\.\.\.)/g;
cmp_ok(scalar keys %named, '>', 60, 'the manual names things');
is(join(' ', grep { !$there{$_} } sort keys %named),
	'', 'all settings, functions, views and programs of the manual exist');

# What README and the page about installation print
%names = ();
my ($readme) = slurp_file("$doc/../README.md") =~ /^((?: {4}.*\n)*? {4}CREATE EXTENSION.*\n(?: {4}.*\n)*)/m;
$readme =~ s{/secure/place/keyring}{$root/readme.keys};
$readme =~ s/'keyring'/'readme'/g;
$readme =~ s/key_01/readme_01/g;
system_or_bail('createdb', 'readme');
$database = 'readme';
run_block('README', 1, 'sql',
	"$readme INSERT INTO secrets (body) VALUES ('x'); SELECT * FROM secrets");

system_or_bail('pg_ctl', '-D', "$root/data", '-m', 'fast', '-w', 'stop');
%names = (data => 'installed');
my $n = 0;
foreach my $block (blocks('install'))
{
	run_block('install', ++$n, @$block) if $block->[0] eq 'sh';
}
is($n, 1, 'the page about installation makes a cluster');
like(
	slurp_file("$root/installed/postgresql.conf"),
	qr/^shared_preload_libraries = 'pg_tde'$/m,
	'... with the library');
done_testing();
