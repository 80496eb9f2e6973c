#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every directive of the module is in README.md and in docs/directives.md, and nothing else is.
. "$(dirname "$0")/lib/lint.sh"

table='src/httpd/config.c src/httpd/native_commands.h'
# shellcheck disable=SC2086 # a list of files
need $table README.md docs/directives.md
# shellcheck disable=SC2086
names=$(cat $table 2>/dev/null | tr -d '\134' | tr '\n' ' ' |
    grep -oE '\bAP_INIT_[A-Z0-9_]+\( *"[A-Za-z]+"' | sed -E 's/.*"([A-Za-z]+)"/\1/' | sort -u)
[ -n "$names" ] || complain "$table: no AP_INIT_*(\"Name\") found"
result "the table of directives is there"

for name in $names; do
    for page in README.md docs/directives.md; do
        grep -qwF "$name" "$page" 2>/dev/null || complain "$page: nothing about $name"
    done
done
result "each directive is documented"

for page in README.md docs/directives.md conf/*; do
    grep -ohE '\bEventStream[A-Z][A-Za-z]*' "$page" 2>/dev/null | sort -u |
        while IFS= read -r word; do
            printf '%s\n' "$names" | grep -qxF "$word" ||
                echo "$page: $word is no directive of $table"
        done
done | complain_lines
result "each documented directive exists"

finish
