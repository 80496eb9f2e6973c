#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# C files and scripts of at most 500 lines, functions of at most 100.
. "$(dirname "$0")/lib/lint.sh"

project_files | grep -E '\.(c|h|sh)$' | while IFS= read -r file; do
    lines=$(wc -l <"$file")
    [ "$lines" -le 500 ] || echo "$file: $((lines)) lines, at most 500"
done | complain_lines
result "files"

# A function's braces are the only ones that stand alone in the first column.
for file in $(c_files); do
    awk -v file="$file" '
        /^{$/ { start = NR }
        /^}$/ {
            if (start && NR - start - 1 > 100)
                print file ":" start ": a function of " NR - start - 1 " lines, at most 100"
            start = 0
        }' "$file"
done | complain_lines
result "functions"

finish
