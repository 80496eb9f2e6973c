#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Includes point down only: src/grip knows libc, jansson and libjwt; src/wire and src/hub know no
# httpd; src/httpd and mod_eventstream.c know no ZeroMQ, LMDB or jansson.
. "$(dirname "$0")/lib/lint.sh"

# includes FILE...: lines "FILE:NUMBER HEADER", HEADER with its <> or "".
includes()
{
    grep -nE '^[[:blank:]]*#[[:blank:]]*include' "$@" /dev/null 2>/dev/null |
        sed -E 's/^([^:]*:[0-9]+):[[:blank:]]*#[[:blank:]]*include[[:blank:]]*(<[^>]*>|"[^"]*").*/\1 \2/'
}

# forbid DIRECTORY REGEX: headers that match REGEX may not be used there.
forbid()
{
    includes "$1"/*.[ch] | awk -v regex="$2" -v room="$1" '
        substr($2, 2, length($2) - 2) ~ regex { print $1 ": " $2 " is not for " room }' |
        complain_lines
}

# own DIRECTORY REGEX: headers in "" are of the directory itself or match REGEX.
own()
{
    includes "$1"/*.[ch] | while read -r where header; do
        file=${header#?}
        file=${file%?}
        case $header in
        '"'*)
            if [ ! -f "$1/$file" ] && ! printf '%s\n' "$file" | grep -qE "^($2)\$"; then
                echo "$where: $header is not for $1"
            fi
            ;;
        esac
    done | complain_lines
}

httpd_headers='^(httpd|http_|ap_|util_|scoreboard|mpm_|mod_|unixd)'

need src/grip src/wire src/hub src/httpd include mod_eventstream.c
result "the rooms are there"

includes src/grip/*.[ch] | awk '
    BEGIN {
        n = split("assert ctype errno inttypes limits math stdalign stdarg stdbool stddef stdint " \
            "stdio stdlib string strings", libc, " ")
        for (i = 1; i <= n; i++)
            ok["<" libc[i] ".h>"] = 1
        ok["<jansson.h>"] = ok["<jwt.h>"] = 1
    }
    $2 ~ /^</ && !($2 in ok) { print $1 ": " $2 " is not for src/grip" }' | complain_lines
own src/grip 'es_(base|grip|sse|token)\.h'
result "src/grip: libc, jansson, libjwt and its own headers alone"

forbid src/wire "$httpd_headers|^apr_|^apu|^zmq|^lmdb"
own src/wire 'es_(base|grip|sse|token|wire)\.h'
result "src/wire: no httpd, no APR, no ZeroMQ"

forbid src/hub "$httpd_headers"
own src/hub 'es_(base|grip|sse|token|wire|hub)\.h'
result "src/hub: no httpd"

forbid src/httpd '^(zmq|lmdb|jansson|jwt)'
# Its other headers are httpd's, and httpd has many: only those of other rooms are wrong.
forbid src/httpd '^(\.|src/)'
for header in src/grip/*.h src/wire/*.h src/hub/*.h; do
    [ ! -f "$header" ] || forbid src/httpd "^$(basename "$header" .h)[.]h\$"
done
includes mod_eventstream.c | grep -E '[<"](zmq|lmdb|jansson|jwt|src/(grip|wire|hub))' |
    complain_lines
result "src/httpd, mod_eventstream.c: no ZeroMQ, LMDB, jansson, libjwt"

for header in include/es_*.h; do
    includes "$header" | grep -E "[<\"](httpd|http_|ap_|zmq|lmdb|jansson|jwt)" | complain_lines
done
includes include/es_grip.h include/es_sse.h include/es_token.h | grep -E '"es_(wire|hub)' | complain_lines
includes include/es_wire.h | grep -E '"es_hub' | complain_lines
result "include/es_*.h: no httpd, nothing of a higher layer"

finish
