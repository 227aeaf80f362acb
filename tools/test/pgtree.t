#!/bin/bash
# Test of tools/pgtree, in TAP: the workflow, and that "check" fails for each
# rule that is broken.
#
# Works on a copy of the repository, over the source that pgtree itself finds
# (a small, made-up PostgreSQL would not notice what git does to the real one).
set -u

here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/coffer-pgtree-XXXXXX")
trap 'rm -rf "$work"' EXIT
repo=$work/repo
tree=$repo/build/tree
pgtree=$repo/tools/pgtree
n=0
failed=0

export COFFER_CACHE=${COFFER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coffer}
unset COFFER_TREE

# ok NAME STATUS: one test; what the last command printed explains a failure
ok() {
	n=$((n + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		sed 's/^/# /' "$work/out"
		failed=$((failed + 1))
	fi
}

run() { "$@" >"$work/out" 2>&1; }

# expect_fail NAME PATTERN COMMAND...: it must fail and say PATTERN
expect_fail() {
	local name=$1 pattern=$2
	shift 2
	if run "$@"; then
		ok "$name" 1
	else
		grep -q -- "$pattern" "$work/out"
		ok "$name" $?
	fi
}

message() {
	cat <<-END
	Subject of $1

	What it does: nothing of use.

	Why a patch: this is a test.

	With TDE unused: nothing happens.

	How it could go away: at the end of the test.

	Patch: $1
	END
}

# add_line FILE PATTERN TEXT: append TEXT as a line after the first PATTERN
add_line() { sed -i "0,/$2/s//&\n$3/" "$tree/$1"; }

commit() { git -C "$repo" add -A && git -C "$repo" -c user.name=t \
	-c user.email=t@t commit -q -m "$1"; }
reset() {
	git -C "$repo" reset -q --hard start && git -C "$repo" clean -qfd &&
		run "$pgtree" prepare --force
}

mkdir -p "$repo"
(cd "$here" && git -c safe.directory='*' ls-files -z -co --exclude-standard |
	xargs -0 tar -cf - --ignore-failed-read 2>/dev/null) | tar -xf - -C "$repo"
git -C "$repo" init -q -b main

run "$pgtree" prepare
ok "prepare a tree" $?
run "$pgtree" check
ok "check passes on the repository" $?
before=$(cat "$repo"/patches/18/*.patch | sha256sum)
run "$pgtree" export
[ "$before" = "$(cat "$repo"/patches/18/*.patch | sha256sum)" ]
ok "export changes no byte" $?
commit start && git -C "$repo" tag start

# The workflow.
touch -d '2001-01-01' "$tree/src/backend/main/main.c"
message 0005-first >"$work/msg"
add_line src/backend/commands/vacuum.c '#include "postgres.h"' '#include "tde\/a.h"'
run "$pgtree" edit 0005-first -F "$work/msg"
ok "a new patch in front of the others" $?
[ "$(head -n 1 "$repo/patches/18/series")" = 0005-first.patch ]
ok "it comes first in the series" $?
[ "$(stat -c %Y "$tree/src/backend/main/main.c")" = "$(date -d 2001-01-01 +%s)" ]
ok "files of other patches keep their times" $?

message 9000-last >"$work/msg"
add_line src/backend/commands/vacuum.c '#include "tde\/a.h"' '#include "tde\/b.h"'
run "$pgtree" edit 9000-last -F "$work/msg"
ok "a second patch that touches neighbouring lines" $?
add_line src/backend/commands/vacuum.c '#include "access\/clog.h"' '#include "tde\/c.h"'
run "$pgtree" edit 0005
ok "a change folded into the first patch, named by its number" $?
grep -q 'tde/c.h' "$repo/patches/18/0005-first.patch" &&
	! grep -q '^+.*tde/c.h' "$repo/patches/18/9000-last.patch"
ok "it went into that patch only" $?
run "$pgtree" check
ok "check passes after the edits" $?
rm -rf "$work/other" && run "$pgtree" --tree "$work/other" prepare &&
	diff -rq -x .git "$tree" "$work/other" >"$work/out"
ok "a tree prepared anew is the same" $?

echo "/* a change */" >>"$tree/src/backend/main/main.c"
expect_fail "export refuses uncommitted changes" "uncommitted changes" \
	"$pgtree" export
rm "$repo/patches/18/9000-last.patch" "$repo/patches/18/series"
(cd "$repo/patches/18" && ls *.patch >series)
expect_fail "edit refuses a series that the tree has not seen" "prepare" \
	"$pgtree" edit 0005
run "$pgtree" prepare && ! grep -q tde/b.h "$tree/src/backend/commands/vacuum.c"
ok "prepare follows a changed series" $?
grep -q "a change" "$tree/src/backend/main/main.c"
ok "and keeps uncommitted changes" $?
git -C "$tree" -c user.name=t -c user.email=t@t commit -qam "by hand"
rm "$repo/patches/18/0005-first.patch"
(cd "$repo/patches/18" && ls *.patch >series)
expect_fail "but throws no commit away" "force" "$pgtree" prepare
run "$pgtree" prepare --force
ok "unless forced to" $?

mkdir -p "$repo/src/common/tde/deep/er" && echo >"$repo/src/common/tde/deep/er/x.c"
run "$pgtree" sync && [ -L "$tree/src/common/tde/deep/er/x.c" ]
ok "sync links a new overlay file" $?
[ -z "$(git -C "$tree" status --porcelain)" ]
ok "git does not see overlay files in the tree" $?
rm -r "$repo/src/common/tde/deep"
run "$pgtree" sync && [ ! -e "$tree/src/common/tde/deep" ]
ok "sync removes the link and its directories" $?
echo >"$tree/src/common/tde/stray.c"
echo >"$work/msg"
expect_fail "a new upstream file is no patch" "belong into the overlay" \
	"$pgtree" edit 0010
rm "$tree/src/common/tde/stray.c"

# Moving to another minor release, with the series to be merged.
reset
message 9000-last >"$work/msg"
add_line src/backend/commands/vacuum.c '#include "postgres.h"' '#include "tde\/b.h"'
run "$pgtree" edit 9000-last -F "$work/msg"
mkdir "$work/next"
git -C "$tree" archive upstream | tar -xf - -C "$work/next"
sed -i "s/^  version: '18\.[0-9]*',/  version: '18.99',/" "$work/next/meson.build"
sed -i '1i /* a line more upstream */' "$work/next/src/backend/commands/vacuum.c"
run "$pgtree" rebase "$work/next"
ok "rebase to another minor release" $?
grep -q "version: '18.99'" "$tree/meson.build" &&
	grep -q tde/b.h "$tree/src/backend/commands/vacuum.c" &&
	run "$pgtree" check
ok "the series is on it, and check passes" $?

# Each rule, broken once.
reset
cp "$tree/src/common/md5_common.c" "$repo/src/common/md5_common.c"
expect_fail "rule: an overlay path exists upstream" "exists upstream" \
	"$pgtree" check
reset
cp "$tree/src/common/md5_common.c" "$repo/src/common/tde/md5.c"
expect_fail "rule: upstream's text in the overlay" "are upstream's" \
	"$pgtree" check
reset
echo 9999-none.patch >>"$repo/patches/18/series"
expect_fail "rule: series and files agree" "does not exist\|in the series" \
	"$pgtree" check
reset
sed -i "s/^ subdir('tcop')/ subdir('tcup')/" "$repo/patches/18/0010-build.patch"
expect_fail "rule: a changed context line is no fuzz" "does not apply" \
	"$pgtree" check
expect_fail "prepare says so too" "does not apply" "$pgtree" prepare
reset
sed -i 's/^@@ -71,3 +71,7 @@/@@ -70,3 +70,7 @@/' "$repo/patches/18/0010-build.patch"
expect_fail "rule: byte-identical export" "byte for byte" "$pgtree" check
reset
for para in 'What it does:' 'Why a patch:' 'With TDE unused:' \
	'How it could go away:'; do
	message 0600-rule | sed "s/^$para.*/$para/" >"$work/msg"
	add_line src/backend/commands/vacuum.c '#include "postgres.h"' '#include "tde\/b.h"'
	run "$pgtree" edit 0600-rule -F "$work/msg"
	expect_fail "rule: paragraph \"$para\"" "no paragraph" "$pgtree" check
	reset
done
message 0600-rule >"$work/msg"
for i in 1 2 3 4 5 6; do
	sed -i "1i /* $i */" "$tree/src/backend/commands/vacuum.c"
done
run "$pgtree" edit 0600-rule -F "$work/msg"
expect_fail "rule: six added lines in a row" "in a row" "$pgtree" check
reset
for f in $(cd "$tree" && ls src/backend/commands/*.c src/backend/utils/adt/*.c |
	head -n 61); do
	sed -i '1i /* x */' "$tree/$f"
done
run "$pgtree" edit 0600-rule -F "$work/msg"
expect_fail "rule: number of files" "the budget is 60" "$pgtree" check
reset
sed -i '0~20i /* x */' "$tree/src/backend/access/heap/heapam.c"
sed -i '0~20i /* x */' "$tree/src/backend/utils/adt/ruleutils.c"
run "$pgtree" edit 0600-rule -F "$work/msg"
expect_fail "rule: number of added lines" "the budget is 450" "$pgtree" check
reset
git -C "$tree" rm -q src/backend/commands/vacuum.c
run "$pgtree" edit 0600-rule -F "$work/msg"
expect_fail "rule: a patch deletes no file" "adds or deletes" "$pgtree" check

echo "1..$n"
exit $((failed > 0))
