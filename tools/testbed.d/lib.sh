# shellcheck shell=bash
# Common to the checks of the testbed; read with ".".
#
# Sets OURS and STOCK, the directories of Coffer's and Debian's programs, and
# RUN, a fresh directory for the data directories, sockets and logs of one
# check.  Starts the check anew as an unprivileged user where we are root.

[ -x /coffer/tools/testbed ] || { echo "use tools/testbed check"; exit 2; }
. /coffer/tools/lib.sh

OURS=${OURS:-/coffer/build/install/bin}
STOCK=/usr/lib/postgresql/18/bin
RUN=/coffer/build/run/${0##*/}

if [ "$(id -u)" -eq 0 ]; then
	server_user
	rm -rf "$RUN"
	mkdir -p "$RUN"
	give_to_user "$RUN"
	as_user env OURS="$OURS" "$0" "$@"
	exit
fi
cd "$RUN" || exit 2
export PGHOST=$RUN PGDATABASE=postgres PGCONNECT_TIMEOUT=30
export PGOPTIONS='-c statement_timeout=180s'
unset PGPORT

# Results, in TAP's words.
tests=0
bad=0
pass() { tests=$((tests + 1)); echo "ok $tests - $1"; }
fail() {
	tests=$((tests + 1))
	bad=$((bad + 1))
	echo "not ok $tests - $1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | tail -n 20 | sed 's/^/#   /'
}
note() { printf '# %s\n' "$*"; }

# is NAME GOT WANTED: are they equal?
is() {
	if [ "$2" = "$3" ]; then pass "$1"; else
		fail "$1" "got:    $2
wanted: $3"
	fi
}

# succeeds NAME COMMAND..., fails_with NAME PATTERN COMMAND...: run the command,
# whose output is then in $output
succeeds() {
	local name=$1
	shift
	if output=$("$@" 2>&1 </dev/null); then pass "$name"; else
		fail "$name" "failed: $*
$output"
	fi
}
fails_with() {
	local name=$1 pattern=$2
	shift 2
	if output=$("$@" 2>&1 </dev/null); then
		fail "$name" "succeeded: $*
$output"
	elif [[ $output =~ $pattern ]]; then pass "$name"; else
		fail "$name" "not the expected error: $output"
	fi
}

# contains NAME TEXT PATTERN
contains() {
	if [[ $2 =~ $3 ]]; then pass "$1"; else
		fail "$1" "no \"$3\" in: $2"
	fi
}

# finish: the exit of each check
finish() {
	echo "1..$tests"
	[ $bad -eq 0 ]
	exit
}

# must COMMAND...: what the check cannot go on without
must() {
	if ! output=$("$@" 2>&1 </dev/null); then
		fail "needed: $*" "$output"
		finish
	fi
}

# Servers.  A data directory DIR has its log in DIR.log; all listen on a socket
# in $RUN, at PGPORT if that is set.
start() {	# start BINDIR DIR [OPTION...]
	local bin=$1 dir=$2
	shift 2
	"$bin/pg_ctl" -s -w -t 120 -D "$dir" -l "$dir.log" \
		-o "-k $RUN -c listen_addresses= $*" start >"$RUN/pg_ctl.out" 2>&1 && return
	cat "$RUN/pg_ctl.out"
	tail -n 15 "$dir.log"
	return 1
}
stop() {	# stop BINDIR DIR [MODE]
	"$1/pg_ctl" -s -w -t 120 -D "$2" -m "${3:-fast}" stop
}
restart() { must stop "$1" "$2"; must start "$1" "$2"; }

# new_cluster BINDIR DIR: initdb, with settings read from standard input
new_cluster() {
	local settings
	settings=$(cat)
	must "$1/initdb" -D "$2" -A trust --no-sync -U postgres
	cat >>"$2/postgresql.conf" <<END
fsync = off
max_connections = 40
shared_buffers = 32MB
autovacuum = off	# statistics are a catalog, and catalogs are in clear
log_line_prefix = '%d[%p] '
$settings
END
}

# sql DATABASE COMMANDS: through Debian's psql; the rows, one a line
sql() {
	"$STOCK/psql" -XAtq -v ON_ERROR_STOP=1 -U postgres -d "$1" -c "$2" 2>&1
}

# script DATABASE: commands from standard input, which must succeed
script() {
	local out
	if ! out=$("$STOCK/psql" -XAtq -v ON_ERROR_STOP=1 -U postgres -d "$1" 2>&1); then
		fail "commands in database $1" "$out"
		return 1
	fi
}

# until_true QUERY: wait until it says "t"
until_true() {
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$(sql postgres "$1")" != t ] || return 0
		sleep 0.1
	done
	fail "waited for: $1" "$(sql postgres "$1")"
	finish
}

# keyring DATABASE DIR: the extension, a file keyring beside the data directory,
# and a default key
keyring() {
	script "$1" <<END
CREATE EXTENSION pg_tde;
SELECT pg_tde_add_global_key_provider_file('ring', '$2.keyring');
SELECT pg_tde_create_key_using_global_key_provider('key', 'ring');
SELECT pg_tde_set_default_key_using_global_key_provider('key', 'ring');
END
}

# encrypt_wal DIR: a key for WAL, from what keyring made, and WAL under it from
# now on
encrypt_wal() {
	must sql postgres "SELECT pg_tde_set_server_key_using_global_key_provider('key', 'ring')"
	echo 'pg_tde.wal_encrypt = on' >>"$1/postgresql.conf"
	restart "$OURS" "$1"
	is "$1: WAL is encrypted" "$(sql postgres 'SELECT pg_tde_is_wal_encrypted()')" t
}

# add_rows NUMBER: to table t (id int, what text), with "canary" in them; $n is
# how many were acknowledged.  all_rows: what is there, as one line
n=0
add_rows() {
	must sql postgres "INSERT INTO t SELECT i, 'canary-' || i || repeat('x', i % 500) FROM generate_series($n + 1, $n + $1) i"
	n=$((n + $1))
}
all_rows() { sql postgres "SELECT count(*), max(id), md5(string_agg(what, '' ORDER BY id)) FROM t"; }

# holding TEXT FILE-OR-DIR...: files that hold it in clear
holding() {
	local text=$1
	shift
	grep -rlaF -- "$text" "$@" | sort
}

# plain_files DIR TEXT: files of relations below DIR that hold TEXT in clear
plain_files() {
	(cd "$1" && holding "$2" base global pg_tblspc)
}
