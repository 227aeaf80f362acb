# shellcheck shell=bash
# Common to all shell programs of the repository; read with ".".
#
# Sets ROOT, and an environment for building that does not depend on what the
# caller's PATH holds (a private Python or Perl in front of Debian's would be
# found by Meson and built into the server).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TREE=$ROOT/build/tree
JOBS=${COFFER_JOBS:-$(nproc)}
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL=C.UTF-8
unset MAKEFLAGS MAKELEVEL

# With ccache, the same source compiles once for all build directories.
if [ -d /usr/lib/ccache ]; then
	PATH=/usr/lib/ccache:$PATH
	export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$ROOT}
	export CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}
fi

say() { printf '== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# step LOG COMMAND...: run quietly; show the log's end only on failure
step() {
	local log=$1
	shift
	mkdir -p "$(dirname "$log")"
	if ! "$@" >"$log" 2>&1 </dev/null; then
		echo "failed: $*" >&2
		tail -n 40 "$log" >&2
		echo "(all of it: $log)" >&2
		return 1
	fi
}

# PostgreSQL refuses to run as root.  server_user sets SERVER_USER to the
# unprivileged user that runs servers and tests: $COFFER_USER, "postgres", or
# "coffer", which is made if need be.  Empty where the caller is not root.
server_user() {
	SERVER_USER=
	[ "$(id -u)" -eq 0 ] || return 0
	SERVER_USER=${COFFER_USER:-postgres}
	if ! id "$SERVER_USER" >/dev/null 2>&1; then
		SERVER_USER=${COFFER_USER:-coffer}
		id "$SERVER_USER" >/dev/null 2>&1 ||
			useradd --system --user-group --no-create-home \
				--home-dir /nonexistent --shell /bin/sh "$SERVER_USER" ||
			die "could not make the user $SERVER_USER"
	fi
	[ "$(id -u "$SERVER_USER")" -ne 0 ] || die "user $SERVER_USER is root"
}

# as_user COMMAND...: run as SERVER_USER, or just run where not root
as_user() {
	if [ -z "$SERVER_USER" ]; then
		"$@"
	else
		setpriv --reuid="$SERVER_USER" --regid="$(id -g "$SERVER_USER")" \
			--init-groups env HOME="${COFFER_HOME:-/tmp}" \
			USER="$SERVER_USER" LOGNAME="$SERVER_USER" "$@"
	fi
}

# give_to_user DIR...: make directories and what is in them SERVER_USER's
give_to_user() {
	if [ -n "$SERVER_USER" ]; then
		chown -R -h "$SERVER_USER:" "$@"
	fi
}

# reachable DIR: can SERVER_USER read what is below DIR?
reachable() { as_user test -r "$1" -a -x "$1"; }

# run_suites BUILDDIR NAME SUITE...: run suites of a build as SERVER_USER, with
# progress, and keep the log as meson-logs/NAME.json
run_suites() {
	local dir=$1 name=$2 suites=() s
	shift 2
	for s in "$@"; do
		suites+=(--suite "$s")
	done
	as_user env TMPDIR=/tmp meson test -C "$dir" --no-rebuild \
		--num-processes "$JOBS" --logbase "$name" "${suites[@]}" </dev/null
}

# our_suites BUILDDIR: names of our own suites in a build
our_suites() {
	meson test -C "$1" --no-rebuild --list 2>/dev/null |
		sed -nE 's%^postgresql:((pg_)?tde[a-z0-9_]*|percona_pg_telemetry) / .*%\1%p' | sort -u
}
