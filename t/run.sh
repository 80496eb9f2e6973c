#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every check and counts. Started by `make check`, which hands over where things are (the
# variables ES_*). Writes below ES_BUILDDIR alone.
#
# Nothing passes by not running: a program that ends early, a runner that is missing, a part without
# a single test, a skipped test: each counts as failed. The last line of standard output is always
# "N passed, N failed"; the exit status is 0 only if nothing failed.
set -u

: "${ES_SRCDIR:?is not set; run this by make check}" "${ES_BUILDDIR:?}" "${ES_MAKE:?}"
: "${ES_PYTHON:?}" "${ES_MODULE:?}" "${ES_HTTPD:?}"

parts="unit tsan fuzz lint e2e-event e2e-worker e2e-prefork"
parts="$parts e2e-tls12 e2e-tls13 e2e-h2 e2e-h2c e2e-asan browser"
mpms=${MPMS:-event worker prefork} # that the parts e2e-TRANSPORT loop over
logs=$ES_BUILDDIR/check-logs
seconds_per_program=120 # a unit test or fuzz replay that takes longer hangs
seconds_per_e2e_test=180
total_passed=0
total_failed=0
failed_parts=
began=$(date +%s)

elapsed()
{
    now=$(date +%s)
    printf '[%4d s]' $((now - began))
}

# heading PART TEXT
heading()
{
    printf '\n%s == %s: %s\n' "$(elapsed)" "$1" "$2"
}

# count WHAT PASSED FAILED LOG: adds to the tally and prints a line.
count()
{
    total_passed=$((total_passed + $2))
    total_failed=$((total_failed + $3))
    part_count=$((part_count + $2 + $3))
    part_failed=$((part_failed + $3))
    if [ "$3" -eq 0 ]; then
        printf '%s    %s: %s passed\n' "$(elapsed)" "$1" "$2"
    else
        printf '%s  * %s: %s passed, %s FAILED\n' "$(elapsed)" "$1" "$2" "$3"
        printf '* %s: %s failed\n' "$1" "$3" >>"$logs/failed"
    fi
}

# remember LOG: a little of its end, for the end of all.
remember()
{
    tail -n 12 "$1" | sed 's/^/    /' >>"$logs/failed"
}

# show LOG: its end, and where the rest is.
show()
{
    tail -n 40 "$1" | sed 's/^/        | /'
    printf '        (all of it: %s)\n' "$1"
}

# build TARGET: makes what a part runs; what does not build is one failure.
build()
{
    build_log=$logs/build-$1.log
    if $ES_MAKE --no-print-directory "$1" >"$build_log" 2>&1; then
        return 0
    fi
    count "make $1" 0 1
    remember "$build_log"
    show "$build_log"
    return 1
}

# tap WHAT LOG COMMAND...: runs a program that speaks TAP and counts its lines.
tap()
{
    what=$1
    log=$2
    shift 2
    timeout --foreground -k 5 "$seconds_per_program" "$@" >"$log" 2>&1 </dev/null
    status=$?
    # shellcheck disable=SC2046
    set -- $(awk -v status="$status" '
        /^(not )?ok .*# *SKIP/ { bad++; seen++; next }
        /^ok( |$)/ { ok++; seen++ }
        /^not ok( |$)/ { bad++; seen++ }
        /^1\.\.[0-9]+/ { plan += substr($1, 4) }
        END {
            if (plan > seen)
                bad += plan - seen
            if (!bad && (status != 0 || !ok))
                bad = 1
            print ok + 0, bad + 0
        }' "$log")
    count "$what" "$1" "$2"
    if [ "$2" -ne 0 ]; then
        case $status in
        0 | 1) ;;
        124 | 137) printf '        stopped after %s s\n' "$seconds_per_program" ;;
        *) printf '        exit status %s\n' "$status" ;;
        esac
        remember "$log"
        show "$log"
    fi
}

# Sanitizers want addresses where the kernel's randomization may put something else.
steady=
if setarch "$(uname -m)" -R true >/dev/null 2>&1; then
    steady="setarch $(uname -m) -R"
fi
# In front of a program of ours; words, to be split.
sanitized="env CMOCKA_MESSAGE_OUTPUT=TAP UBSAN_OPTIONS=print_stacktrace=1
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
    TSAN_OPTIONS=second_deadlock_stack=1:suppressions=$ES_SRCDIR/t/tsan.supp $steady"

# programs PART PROGRAM...
programs()
{
    part=$1
    shift
    for program in "$@"; do
        name=$(basename "$program")
        # shellcheck disable=SC2086
        tap "$name" "$logs/$part-$name.log" $sanitized "$ES_BUILDDIR/$program"
    done
}

part_unit()
{
    heading unit "unit tests under the address and undefined behaviour sanitizers"
    build build-unit || return
    # shellcheck disable=SC2086
    programs unit ${ES_UNIT_TESTS-}
}

part_tsan()
{
    heading tsan "unit tests with threads under the thread sanitizer"
    build build-tsan || return
    # shellcheck disable=SC2086
    programs tsan ${ES_TSAN_TESTS-}
}

part_fuzz()
{
    heading fuzz "fuzz targets over their corpora"
    build build-fuzz || return
    for program in ${ES_FUZZ_TARGETS-}; do
        name=$(basename "$program")
        # shellcheck disable=SC2086
        tap "$name" "$logs/fuzz-$name.log" $sanitized "$ES_BUILDDIR/$program" \
            "$ES_SRCDIR/t/fuzz/corpus/${name#fuzz_}"
    done
}

part_lint()
{
    heading lint "lints"
    build all || return
    for lint in "$ES_SRCDIR"/t/lint/*.sh; do
        name=$(basename "$lint" .sh)
        tap "$name" "$logs/lint-$name.log" sh "$lint"
    done
}

# pytest_run RUN DIRECTORY [NAME=VALUE...]: pytest with a report that tally reads.
pytest_run()
{
    run=$1
    directory=$2
    shift 2
    rm -f "$logs/$run.xml"
    env "$@" "$ES_PYTHON" -B -m pytest --rootdir "$directory" -p no:cacheprovider --no-header \
        --tb=short --timeout "$seconds_per_e2e_test" --basetemp "$logs/tmp-$run" \
        --junitxml "$logs/$run.xml" "$directory" </dev/null 2>&1 ||
        echo "pytest ended with status $?"
}

# tally RUN: counts what pytest_run reported; its output is in RUN.log.
tally()
{
    log=$logs/$1.log
    "$ES_PYTHON" -B "$ES_SRCDIR/t/junit_count.py" "$logs/$1.xml" >"$logs/$1.count" 2>&1
    run_passed='' run_bad=''
    read -r run_passed run_bad <"$logs/$1.count"
    case "${run_passed-}/${run_bad-}" in
    [0-9]*/[0-9]*) ;;
    *)
        cat "$logs/$1.count"
        run_passed=0 run_bad=1
        ;;
    esac
    # A run that broke off after its last test (an interrupt, a crash of pytest) is no success.
    if [ "$run_bad" -eq 0 ] && tail -n 1 "$log" | grep -q '^pytest ended with status'; then
        run_bad=1
    fi
    count "$1" "$run_passed" "$run_bad"
    if [ "$run_bad" -ne 0 ]; then
        sed '1d; s/^/    /' "$logs/$1.count" >>"$logs/failed"
        printf '        (the whole log: %s)\n' "$log"
    fi
}

# pytests RUN DIRECTORY [NAME=VALUE...]: pytest alone; shows its output.
pytests()
{
    if ! build all || ! build venv || ! build build-next-module; then
        return
    fi
    pytest_run "$@" | tee "$logs/$1.log"
    tally "$1"
}

# e2e MPM
e2e()
{
    heading "e2e-$1" "end to end, httpd with the $1 MPM"
    pytests "e2e-$1" "$ES_SRCDIR/t/e2e" ES_MPM="$1" ES_TRANSPORT=plain ES_SANITIZE=0
}

# e2e_over TRANSPORT: what GRIP promises to a client, over that transport, with each MPM. They run
# side by side: most of the time goes into waiting for keep-alives and restarts.
e2e_over()
{
    if ! build all || ! build venv || ! build build-next-module; then
        return
    fi
    runs=
    for mpm in $mpms; do
        case $1-$mpm in
        h2*-prefork) continue ;; # mod_http2 does not run under prefork
        esac
        heading "e2e-$1" "end to end over $1, httpd with the $mpm MPM"
        runs="$runs e2e-$1-$mpm"
        pytest_run "e2e-$1-$mpm" "$ES_SRCDIR/t/e2e" ES_MPM="$mpm" ES_TRANSPORT="$1" \
            ES_SANITIZE=0 >"$logs/e2e-$1-$mpm.log" &
    done
    wait
    for run in $runs; do
        tally "$run"
        if [ "$run_bad" -ne 0 ]; then
            show "$log"
        fi
    done
}

part_e2e_asan()
{
    heading e2e-asan "end to end, event MPM, the module under sanitizers"
    build build-asan-module || return
    if [ -z "${ES_PRELOAD-}" ]; then
        count "configure found no sanitizer run-time library to preload" 0 1
        return
    fi
    # shellcheck disable=SC2086
    pytests e2e-asan "$ES_SRCDIR/t/e2e" ES_MPM=event ES_SANITIZE=1 ES_PRELOAD="$ES_PRELOAD" \
        ES_MODULE="$ES_BUILDDIR/t/asan/.libs/mod_eventstream.so" $steady
}

part_browser()
{
    heading browser "a real browser"
    build node || return
    pytests browser "$ES_SRCDIR/t/browser" ES_MPM=event ES_SANITIZE=0
}

rm -rf "$logs"
mkdir -p "$logs" && : >"$logs/failed" || exit 1
export PYTHONDONTWRITEBYTECODE=1

for part in ${ONLY:-$parts}; do
    case " $parts " in
    *" $part "*) ;;
    *)
        echo "ONLY: no part '$part'; there are: $parts" >&2
        total_failed=$((total_failed + 1))
        failed_parts="$failed_parts $part"
        continue
        ;;
    esac
    part_count=0
    part_failed=0
    case $part in
    e2e-asan) part_e2e_asan ;;
    e2e-tls12 | e2e-tls13 | e2e-h2 | e2e-h2c) e2e_over "${part#e2e-}" ;;
    e2e-*) e2e "${part#e2e-}" ;;
    *) "part_$part" ;;
    esac
    if [ "$part_count" -eq 0 ]; then
        count "$part: not a single test" 0 1
    fi
    if [ "$part_failed" -ne 0 ]; then
        failed_parts="$failed_parts $part"
    fi
done

# Whoever sees only the end of the output sees what failed, and how.
if [ -s "$logs/failed" ]; then
    printf '\nWhat failed:\n'
    tail -n 120 "$logs/failed"
fi
printf '\n%s done' "$(elapsed)"
if [ -n "$failed_parts" ]; then
    printf '; FAILED:%s (logs in %s)' "$failed_parts" "$logs"
fi
if [ -n "${ONLY-}" ]; then
    printf '; only: %s' "$ONLY"
fi
printf '\n%s passed, %s failed\n' "$total_passed" "$total_failed"
[ "$total_failed" -eq 0 ]
