#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what building, checking and the demo need, and only what is missing:
#
#   setup.sh packages GROUP...  Debian packages of these groups of debian-packages.txt
#   setup.sh venv DIR           a Python virtual environment with requirements.txt
#   setup.sh node DIR           npm packages of package.json; DIR is called node_modules
#
# Each is quick and silent when there is nothing to do, so make runs it every time. The virtual
# environment and the npm packages carry a stamp with the checksum of what they were made from.
# ES_SYSTEM_PYTHON: the Python of the virtual environment. Not the first python3 on PATH: the demo's
# mod_wsgi, Debian's, is linked with the system's Python and can load no other one's packages.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${ES_SYSTEM_PYTHON:-/usr/bin/python3}

say()
{
    echo "setup: $*"
}

die()
{
    echo "setup: $*" >&2
    exit 1
}

# Runs a command with its output in a file, which is shown when the command fails.
logged() # FILE COMMAND...
{
    log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "failed: $* (all of its output: $log)"
    fi
}

checksum() # FILE...
{
    cat "$@" | cksum | tr -d ' '
}

# ---- Debian packages ---------------------------------------------------------------------------

# Prints the packages of the named groups that are neither installed nor stood in for.
missing_packages() # GROUP...
{
    awk -v groups=" $* " '
        /^[ \t]*(#|$)/ { next }
        /^\[/ { wanted = index(groups, " " substr($0, 2, length($0) - 2) " "); next }
        wanted { print }
    ' "$here/debian-packages.txt" | while read -r package instead; do
        case $instead in
        command:*)
            if command -v "${instead#command:}" >/dev/null 2>&1; then
                continue
            fi
            ;;
        esac
        state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || state=
        if [ "$state" != installed ]; then
            echo "$package"
        fi
    done
}

apt_get()
{
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

packages() # GROUP...
{
    for group in "$@"; do
        grep -qx "\[$group\]" "$here/debian-packages.txt" ||
            die "packages: no group [$group] in $here/debian-packages.txt"
    done
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "this is no Debian system: what is listed in $here/debian-packages.txt is up to you"
        return
    fi
    missing=$(missing_packages "$@" | tr '\n' ' ')
    if [ -z "$missing" ]; then
        return
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
        command -v sudo >/dev/null 2>&1 ||
            die "missing packages, and neither root nor sudo to install them with. As root, run:
    apt-get install --no-install-recommends $missing"
    fi
    say "installing missing Debian packages: $missing"
    # A list of names, one argument each.
    # shellcheck disable=SC2086
    { apt_get update && apt_get install -y --no-install-recommends $missing; } ||
        die "apt-get could not install: $missing"
    missing=$(missing_packages "$@" | tr '\n' ' ')
    if [ -n "$missing" ]; then
        die "still missing after apt-get install: $missing"
    fi
}

# ---- Python ------------------------------------------------------------------------------------

venv() # DIR
{
    dir=$1
    [ -x "$python" ] || die "no Python at $python: install python3 and python3-venv, or set ES_SYSTEM_PYTHON"
    want="$("$python" --version) $(checksum "$here/requirements.txt")"
    if [ -x "$dir/bin/python" ] && [ "$(cat "$dir/stamp" 2>/dev/null)" = "$want" ]; then
        return
    fi
    say "making the Python environment $dir"
    mkdir -p "$(dirname "$dir")"
    rm -rf "$dir"
    logged "$dir.log" "$python" -m venv "$dir"
    logged "$dir.log" "$dir/bin/python" -m pip install --no-input --progress-bar off --no-deps \
        --disable-pip-version-check -r "$here/requirements.txt"
    printf '%s\n' "$want" >"$dir/stamp"
}

# ---- npm ---------------------------------------------------------------------------------------

node() # DIR
{
    dir=$1
    parent=$(dirname "$dir")
    [ "$(basename "$dir")" = node_modules ] || die "node: $dir is not called node_modules"
    command -v npm >/dev/null 2>&1 || die "npm not found: install nodejs and npm"
    want=$(checksum "$here/package.json" "$here/package-lock.json")
    if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$want" ]; then
        return
    fi
    say "installing the npm packages into $dir"
    mkdir -p "$parent"
    cp "$here/package.json" "$here/package-lock.json" "$parent/"
    chmod u+w "$parent/package.json" "$parent/package-lock.json"
    logged "$dir.log" npm --prefix "$parent" ci --ignore-scripts --no-audit --no-fund
    printf '%s\n' "$want" >"$dir/.stamp"
}

case ${1-} in
packages)
    [ $# -ge 2 ] || die "usage: setup.sh packages GROUP..."
    shift
    packages "$@"
    ;;
venv | node)
    [ $# -eq 2 ] || die "usage: setup.sh $1 DIR"
    "$1" "$2"
    ;;
*)
    die "usage: setup.sh packages GROUP... | venv DIR | node DIR (not '${1-}')"
    ;;
esac
