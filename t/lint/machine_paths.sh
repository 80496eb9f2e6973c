#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No path of somebody's machine, and no download address in a lock file.
. "$(dirname "$0")/lib/lint.sh"

files=$(project_files)
[ -n "$files" ] || complain "no files found"
# Brackets keep these lines from finding themselves.
# shellcheck disable=SC2086
printf '%s\n' "$files" | tr '\n' '\0' |
    xargs -0 grep -InE '(^|[^A-Za-z0-9_.-])/(wor[k]|roo[t]|far[m]|hom[e]/[a-z]+|tmp/bash_job[s])(/|\b$)' |
    complain_lines
result "no machine's paths"

need build-aux/package-lock.json
grep -nE '"resolve[d]"|https?://' build-aux/package-lock.json | complain_lines
grep -nE '^(-i|-f|--|.*@ |.*https?://)' build-aux/requirements.txt | complain_lines
grep -vE '^(#|$)' build-aux/requirements.txt | grep -vE '^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$' |
    complain_lines
result "packages are pinned by name and version alone"

finish
