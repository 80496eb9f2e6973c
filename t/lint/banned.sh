#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Functions that nobody should call, comments and conditions that nobody should write, and the line
# that each file opens with.
. "$(dirname "$0")/lib/lint.sh"

# code FILE: the file without comments, strings and characters; line numbers stay. A // comment is
# kept, for it to be found.
code()
{
    awk '
        {
            line = $0
            out = ""
            while (line != "") {
                if (comment) {
                    end = index(line, "*/")
                    if (!end) { line = ""; break }
                    line = substr(line, end + 2)
                    comment = 0
                }
                else if (match(line, /^"(\\.|[^"\\])*"/)) {
                    out = out "\"\""
                    line = substr(line, RLENGTH + 1)
                }
                else if (match(line, /^\047(\\.|[^\047\\])+\047/)) {
                    out = out "0"
                    line = substr(line, RLENGTH + 1)
                }
                else if (substr(line, 1, 2) == "/*") {
                    line = substr(line, 3)
                    comment = 1
                }
                else {
                    out = out substr(line, 1, 1)
                    line = substr(line, 2)
                }
            }
            print out
        }' "$1"
}

# search TEXT REGEX: complains of each line of code that matches.
search()
{
    for file in $files; do
        code "$file" | grep -nE "$2" | sed "s,^,$file:," | sed "s,\$,   <- $1,"
    done | complain_lines
}

files=$(c_files)
[ -n "$files" ] || complain "no C files found"
search "banned function" \
    '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|alloca|strncpy|strncat)[[:blank:]]*\('
result "no banned functions"

search "use /* */" '//'
result "block comments only"

search "assignment inside a condition" \
    '\b(if|while)[[:blank:]]*\(.*[^=!<>+*/&|^%-]=[^=].*\)[[:blank:]]*\{?[[:blank:]]*$'
result "no assignment inside a condition"

for file in $files; do
    head -n 1 "$file" | grep -qxF '/* SPDX-License-Identifier: Apache-2.0 */' ||
        complain "$file:1: does not open with /* SPDX-License-Identifier: Apache-2.0 */"
done
result "each file opens with its licence"

finish
