#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shell scripts pass shellcheck, Python files compile.
. "$(dirname "$0")/lib/lint.sh"

scripts=$(project_files | while IFS= read -r file; do
    case $file in
    *.sh) echo "$file" ;;
    *.*/* | *.*) [ "$file" != .ci/run ] || echo "$file" ;;
    *) head -n 1 "$file" 2>/dev/null | grep -qE '^#!.*\b(sh|bash)\b' && echo "$file" ;;
    esac
done)
[ -n "$scripts" ] || complain "no shell scripts found"
# shellcheck disable=SC2086
if ! said=$("${SHELLCHECK:-shellcheck}" -x -P SCRIPTDIR $scripts 2>&1); then
    printf '%s\n' "$said" | complain_lines
fi
result "shellcheck"

python_files=$(project_files | grep '\.py$')
[ -n "$python_files" ] || complain "no Python files found"
python=${ES_PYTHON:-}
[ -x "$python" ] || python=/usr/bin/python3
# Compiled in memory: nothing is written beside the sources.
# shellcheck disable=SC2086
if ! said=$("$python" -c '
import sys
bad = 0
for name in sys.argv[1:]:
    try:
        with open(name, "rb") as f:
            compile(f.read(), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        print(f"{name}: {error}")
        bad = 1
sys.exit(bad)' $python_files 2>&1); then
    printf '%s\n' "$said" | complain_lines
fi
result "Python files compile"

finish
