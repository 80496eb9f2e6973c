#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every log line has its own number, ES0000 to ES9999, that stands in exactly one place.
. "$(dirname "$0")/lib/lint.sh"

sources=$(project_files | grep -E '^(src/.*|mod_eventstream)\.[ch]$')
[ -n "$sources" ] || complain "no sources found"
# In layers 1 and 2 a number is written "ES0123", in httpd's part ESLOGNO(0123).
# shellcheck disable=SC2086
used=$(grep -oE '\bES[0-9]{4}\b|\bESLOGNO\([0-9]{4}\)' $sources /dev/null |
    sed -E 's/ESLOGNO\(([0-9]+)\)/ES\1/')
[ -n "$used" ] || complain "not a single log number found"
printf '%s\n' "$used" | awk -F: '
    { where[$2] = where[$2] " " $1; n[$2]++ }
    END {
        for (number in n)
            if (n[number] > 1)
                print number " is used more than once:" where[number]
    }' | sort | complain_lines
# ES256 is an algorithm of tokens.
# shellcheck disable=SC2086
grep -nE '"ES([0-9]{1,3}|[0-9]{5,})(:| |")|ESLOGNO\(([0-9]{0,3}|[0-9]{5,})\)' $sources \
    /dev/null | grep -v '"ES256"' | complain_lines
result "numbers are unique and have four digits"

# A call goes on to its semicolon. The bridge between es_log() and httpd's log passes on an `id`;
# es_log()'s own definition and declaration have no string.
for file in $sources; do
    awk -v file="$file" '
        !call && /[^_a-z](es_log|ap_log_error|ap_log_rerror|ap_log_cerror|ap_log_perror) *\(/ &&
            !/es_err_t|void es_log|const es_log_t/ {
            call = 1
            line = NR
            text = ""
        }
        call {
            text = text " " $0
            if (/;[ \t]*$/) {
                if (text !~ /ES(LOGNO\()?[0-9][0-9][0-9][0-9]/ && text !~ /DEBUG|TRACE/ &&
                    text ~ /"/ && text !~ /, id, /)
                    print file ":" line ": a log line above debug without a number"
                call = 0
            }
        }' "$file"
done | complain_lines
result "lines above debug have a number"

finish
