#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The C code looks as .clang-format says.
. "$(dirname "$0")/lib/lint.sh"

need .clang-format
files=$(c_files)
[ -n "$files" ] || complain "no C files found"
# shellcheck disable=SC2086
if ! said=$("${CLANG_FORMAT:-clang-format}" --dry-run -Werror --style=file $files 2>&1); then
    printf '%s\n' "$said" | grep -E ': error:|not found' |
        awk -F: '{ if (!n[$1]++) first[$1] = $0 } END { for (f in n) print first[f] " (" n[f] ")" }' |
        sort | complain_lines
    complain "run: clang-format -i FILE"
fi
result "clang-format changes nothing"

finish
