#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts the demo: Apache with the module and the Django dashboard, and the command that sends events.
# It runs until Ctrl-C (or TERM), then ends what it started, by process id, and nothing else.
#
# `make demo` sets the first five:
#   ES_MODULE             the module to load, absolute
#   ES_HTTPD              the httpd program
#   ES_HTTPD_LIBEXECDIR   directory of httpd's modules, mod_wsgi.so among them
#   ES_SRCDIR             the source tree, absolute
#   ES_BUILDDIR           the build directory, absolute; venv/ in it has the Python packages
# The user may set:
#   ES_DEMO_PORT          the site, default 7999
#   ES_DEMO_PUBLISH_PORT  where events are published, default 5561
#   ES_DEMO_USER          the user Apache runs as when started by root, default www-data

set -euo pipefail

: "${ES_DEMO_PORT:=7999}" "${ES_DEMO_PUBLISH_PORT:=5561}" "${ES_DEMO_USER:=www-data}"

say()  { printf 'demo: %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

stage=''

# ---------------------------------------------------------------- the end

# shellcheck disable=SC2317 # reached by the trap below
stop_all() {
    local status=$? started
    trap '' INT TERM HUP
    trap - EXIT
    started=$(jobs -p)
    if [ -n "$started" ]; then
        printf '\n'
        say 'stopping'
        # service.py also sees to the descendants; where it cannot run, the tree being gone, TERM must do
        # shellcheck disable=SC2086 # one or two process ids
        service stop $started || { status=1; kill -TERM $started 2>/dev/null && wait; }
    fi
    [ -z "$stage" ] || rm -rf -- "$stage"
    exit "$status"
}

trap stop_all EXIT
trap 'exit 0' INT TERM HUP

# ---------------------------------------------------------------- what is needed

for name in ES_MODULE ES_HTTPD ES_HTTPD_LIBEXECDIR ES_SRCDIR ES_BUILDDIR; do
    [ -n "${!name:-}" ] || fail "$name is not set; start the demo with: make demo"
done
[ -f "$ES_MODULE" ] || fail "ES_MODULE: no file $ES_MODULE; run: make"
command -v "$ES_HTTPD" >/dev/null || fail "ES_HTTPD: no program $ES_HTTPD"
[ -f "$ES_HTTPD_LIBEXECDIR/mod_wsgi.so" ] ||
    fail "no mod_wsgi.so in $ES_HTTPD_LIBEXECDIR; on Debian: apt-get install libapache2-mod-wsgi-py3"
[ -x "$ES_BUILDDIR/venv/bin/python" ] ||
    fail "no Python packages in $ES_BUILDDIR/venv; start the demo with: make demo"

ES_DEMO_APP=$ES_SRCDIR/demo
ES_DEMO_VENV=$ES_BUILDDIR/venv
ES_DEMO_RUN=$ES_BUILDDIR/demo-run/$ES_DEMO_PORT
python=$ES_DEMO_VENV/bin/python
export PYTHONDONTWRITEBYTECODE=1

service() { "$python" "$ES_DEMO_APP/service.py" "$@"; }

[ "$ES_DEMO_PORT" != "$ES_DEMO_PUBLISH_PORT" ] ||
    fail "ES_DEMO_PORT and ES_DEMO_PUBLISH_PORT are both $ES_DEMO_PORT; they must differ"
service free "$ES_DEMO_PORT" ES_DEMO_PORT
service free "$ES_DEMO_PUBLISH_PORT" ES_DEMO_PUBLISH_PORT

# ---------------------------------------------------------------- where, and as whom

defines=()
as_user=()
if service ipv6; then
    defines+=(-D ES_DEMO_IPV6)
fi
if [ "$(id -u)" -eq 0 ]; then
    id "$ES_DEMO_USER" >/dev/null 2>&1 ||
        fail "ES_DEMO_USER: no user $ES_DEMO_USER; name one that Apache may run as, not root"
    ES_DEMO_GROUP=$(id -gn "$ES_DEMO_USER")
    defines+=(-D ES_DEMO_ROOT)
    as_user=(setpriv "--reuid=$ES_DEMO_USER" "--regid=$ES_DEMO_GROUP" --init-groups --)
    export ES_DEMO_GROUP
    umask 022
fi

# Apache's user must reach the application, and a socket's path must be short: where the tree offers
# neither (a home directory closed to others, a deep path), a directory under /tmp does.
make_stage() { stage=$(mktemp -d "${TMPDIR:-/tmp}/eventstream-demo.XXXXXX"); chmod 755 "$stage"; }

if [ "${#as_user[@]}" -gt 0 ] &&
    ! "${as_user[@]}" "$python" "$ES_DEMO_APP/manage.py" version >/dev/null 2>&1; then
    say "$ES_DEMO_USER cannot read $ES_SRCDIR and $ES_BUILDDIR: using a copy under ${TMPDIR:-/tmp}"
    make_stage
    cp -R "$ES_DEMO_APP" "$stage/demo"
    cp -R "$ES_DEMO_VENV" "$stage/venv"
    chmod -R a+rX "$stage/demo" "$stage/venv"
    ES_DEMO_APP=$stage/demo
    ES_DEMO_VENV=$stage/venv
    python=$ES_DEMO_VENV/bin/python
elif [ "${#ES_DEMO_RUN}" -gt 70 ]; then
    make_stage
fi
[ -z "$stage" ] || ES_DEMO_RUN=$stage/run

rm -rf -- "$ES_DEMO_RUN"
mkdir -p "$ES_DEMO_RUN"
[ "${#as_user[@]}" -eq 0 ] || chown "$ES_DEMO_USER:$ES_DEMO_GROUP" "$ES_DEMO_RUN"

ES_DEMO_KEY=$("$python" -c 'import secrets; print(secrets.token_urlsafe(48))')
GRIP_URL=http://localhost:$ES_DEMO_PUBLISH_PORT
no_proxy=localhost,127.0.0.1,::1${no_proxy:+,$no_proxy}
NO_PROXY=$no_proxy
export ES_DEMO_PORT ES_DEMO_PUBLISH_PORT ES_DEMO_USER ES_DEMO_APP ES_DEMO_VENV ES_DEMO_RUN ES_DEMO_KEY
export ES_MODULE ES_HTTPD_LIBEXECDIR GRIP_URL no_proxy NO_PROXY

manage() { "${as_user[@]}" "$python" "$ES_DEMO_APP/manage.py" "$@"; }

# ---------------------------------------------------------------- start

show_log() {
    [ -s "$ES_DEMO_RUN/error.log" ] || return 0
    say "the end of Apache's error log:"
    tail -n 15 "$ES_DEMO_RUN/error.log"
} >&2

cd "$ES_DEMO_RUN"
say 'preparing the database and the static files'
manage migrate --verbosity 0
manage collectstatic --noinput --verbosity 0 --ignore 'plotly*' --ignore 'datatables*'

say 'starting Apache with mod_eventstream'
httpd=("$ES_HTTPD" -f "$ES_DEMO_APP/httpd.conf" "${defines[@]}")
check=$("${httpd[@]}" -t 2>&1) ||
    fail "Apache refuses the configuration: $check"
"${httpd[@]}" -D FOREGROUND &
httpd_pid=$!
service ready "http://127.0.0.1:$ES_DEMO_PORT/" "$httpd_pid" || { show_log; exit 1; }
service answers "http://127.0.0.1:$ES_DEMO_PUBLISH_PORT/" "$httpd_pid" || { show_log; exit 1; }

say "sending events to $GRIP_URL"
"${as_user[@]}" "$python" "$ES_DEMO_APP/manage.py" send_sse &
sender_pid=$!

printf '\nDashboard: http://127.0.0.1:%s/  (Ctrl-C stops everything)\n' "$ES_DEMO_PORT"
printf 'Nothing gets lost: http://127.0.0.1:%s/native  (kill the hub, and see)\n' "$ES_DEMO_PORT"

status=0
wait -n "$httpd_pid" "$sender_pid" || status=$?
if kill -0 "$httpd_pid" 2>/dev/null; then
    printf 'demo: send_sse ended by itself (status %s)\n' "$status" >&2
else
    printf 'demo: Apache ended by itself (status %s)\n' "$status" >&2
    show_log
fi
exit 1
