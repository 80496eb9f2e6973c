#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is in the tree is in Makefile.am: a test that nobody builds passes unseen.
. "$(dirname "$0")/lib/lint.sh"

need Makefile.am

# words VARIABLE: what Makefile.am assigns to it.
words()
{
    awk -v name="$1" '
        $1 == name && ($2 == "=" || $2 == "+=") { on = 1; sub(/^[^=]*=/, "") }
        on {
            more = sub(/\\$/, "")
            print
            on = more
        }' Makefile.am | tr -s '[:blank:]' '\n' | grep .
}

# listed VARIABLE FILE...: each file without .c is a word of the variable.
listed()
{
    variable=$1
    shift
    for file in "$@"; do
        if [ ! -e "$file" ]; then
            complain "$file: no such files"
            continue
        fi
        words "$variable" | grep -qxF "${file%.c}" || complain "$file: is not in $variable"
    done
    for word in $(words "$variable"); do
        [ -e "$word.c" ] || complain "$variable: there is no $word.c"
    done
}

listed UNIT_TESTS t/unit/test_*.c
result "unit tests"

grep -lE '"hub_fixture\.h"|pthread_create' t/unit/test_*.c | while IFS= read -r file; do
    words TSAN_TESTS | grep -qxF "t/tsan/$(basename "$file" .c)" ||
        complain "$file: t/tsan/$(basename "$file" .c) is not in TSAN_TESTS"
done
[ -n "$(words TSAN_TESTS)" ] || complain "TSAN_TESTS is empty"
result "unit tests with threads, under the thread sanitizer too"

listed FUZZ_TARGETS t/fuzz/fuzz_*.c
for file in t/fuzz/fuzz_*.c; do
    corpus=t/fuzz/corpus/$(basename "$file" .c | sed 's/^fuzz_//')
    [ -n "$(find "$corpus" -type f 2>/dev/null | head -n 1)" ] || complain "$corpus: no inputs"
done
result "fuzz targets and their corpora"

for layer in grip wire hub; do
    for file in src/"$layer"/*.[ch]; do
        words "${layer}_sources" | grep -qxF "$file" || complain "$file: is not in ${layer}_sources"
    done
done
for file in mod_eventstream.c src/httpd/*.[ch]; do
    words module_sources | grep -qxF "$file" || complain "$file: is not in module_sources"
done
for file in include/*.h; do
    words include_headers | grep -qxF "$file" || complain "$file: is not in include_headers"
done
result "sources"

finish
