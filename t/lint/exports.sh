#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The module shows httpd one symbol, its record. Anything else could clash with another module.
. "$(dirname "$0")/lib/lint.sh"

module=${ES_MODULE:-$ES_BUILDDIR/.libs/mod_eventstream.so}
for file in "$module" "$ES_BUILDDIR/t/asan/.libs/mod_eventstream.so"; do
    if [ "$file" != "$module" ] && [ ! -e "$file" ]; then
        continue # built for the end-to-end run under sanitizers only
    fi
    if ! symbols=$("${NM:-nm}" -D --defined-only "$file" 2>&1); then
        complain "$symbols"
        continue
    fi
    # The sanitizers' instrumentation exports names of its own.
    names=$(printf '%s\n' "$symbols" | awk '{ print $NF }' | grep -vE '^__(asan|odr_asan)' |
        tr '\n' ' ')
    [ "$names" = "eventstream_module " ] ||
        complain "$file: exports '$names', should be eventstream_module alone"
done
result "eventstream_module is the only exported symbol"

finish
