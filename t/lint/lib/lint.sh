# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the lints share. A lint collects complaints, one a line, with complain(); result() turns them
# into one line of TAP. ES_SRCDIR and ES_BUILDDIR come from `make check`; run by hand in a source
# tree, a lint takes the tree it is in.

ES_SRCDIR=${ES_SRCDIR:-$(cd "$(dirname "$0")/../.." && pwd)}
ES_BUILDDIR=${ES_BUILDDIR:-$ES_SRCDIR/build}
export LC_ALL=C
cd "$ES_SRCDIR" || exit 1
lint_said=$(mktemp) || exit 1
trap 'rm -f "$lint_said"' EXIT
lint_number=0
lint_bad=0

complain()
{
    printf '%s\n' "$*" >>"$lint_said"
}

# Complaints by a pipe: their lines are added.
complain_lines()
{
    cat >>"$lint_said"
}

# result NAME: ends one check. Passed if nobody complained since the last one.
result()
{
    lint_number=$((lint_number + 1))
    if [ -s "$lint_said" ]; then
        lint_bad=1
        printf 'not ok %d - %s\n' "$lint_number" "$1"
        sed 's/^/# /' "$lint_said"
    else
        printf 'ok %d - %s\n' "$lint_number" "$1"
    fi
    : >"$lint_said"
}

# The end of a lint: the plan, and the exit status.
finish()
{
    printf '1..%d\n' "$lint_number"
    exit "$lint_bad"
}

# need FILE...: a lint without its input has not passed.
need()
{
    for lint_file in "$@"; do
        [ -e "$lint_file" ] || complain "$lint_file: missing"
    done
}

# Every file of the project, without what building makes. In a checkout git knows; a tarball holds
# little else than the project.
project_files()
{
    if [ -e .git ] && git rev-parse --git-dir >/dev/null 2>&1; then
        # A file that is deleted but not committed is still listed.
        git ls-files --cached --others --exclude-standard | while IFS= read -r lint_file; do
            [ ! -f "$lint_file" ] || printf '%s\n' "$lint_file"
        done
    else
        find . '(' -name .git -o -name build -o -path './build-[!a]*' -o -name node_modules -o -name venv -o -name .libs \
            -o -name .deps -o -name __pycache__ -o -name autom4te.cache -o -name m4 \
            -o -name check-logs -o -name _build -o -name _inst ')' -prune -o -type f \
            ! -name '*.o' ! -name '*.l[ao]' ! -name '*~' ! -name 'config.*' ! -name configure \
            ! -name 'Makefile' ! -name 'Makefile.in' ! -name libtool ! -name aclocal.m4 \
            ! -name 'ltmain.sh' ! -name install-sh ! -name depcomp ! -name compile \
            ! -name missing ! -name ar-lib ! -name test-driver ! -name 'stamp-*' -print |
            sed 's,^\./,,'
    fi | sort
}

# c_files: the project's C files. Fails when there are none.
c_files()
{
    project_files | grep -E '\.[ch]$' || complain "no C files found in $ES_SRCDIR"
}
