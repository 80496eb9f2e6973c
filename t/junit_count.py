# SPDX-License-Identifier: Apache-2.0
"""Reads pytest's JUnit report and prints "PASSED FAILED", then what failed: its name and the last
lines of its report. A skipped test counts as failed; so does a report without tests. What is no
report at all ends with status 1 and a sentence."""

import sys
import xml.etree.ElementTree as ElementTree

LINES = 12   # of a failure's report that are told
FAILURES = 5 # that are told with their lines; of the others the names


def told(case, lines):
    """A failed test in words; none of one that passed."""
    for bad in case:
        if bad.tag not in ("failure", "error", "skipped"):
            continue
        text = bad.text or bad.get("message", "")
        yield f"{bad.tag}: {case.get('classname', '')}::{case.get('name', '')}"
        yield from (f"    {line[:200]}" for line in text.splitlines()[-lines:] if lines)


def main(path):
    try:
        root = ElementTree.parse(path).getroot()
        suites = list(root.iter("testsuite"))
        numbers = [[int(s.get(k, "0")) for k in ("tests", "errors", "failures", "skipped")]
                   for s in suites]
        cases = [c for c in root.iter("testcase") if len(list(told(c, 0)))]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        print(f"no usable report of pytest in {path}: {error}")
        return 1
    tests, *kinds_of_bad = (sum(column) for column in zip(*numbers)) if numbers else (0,)
    bad = sum(kinds_of_bad)
    print(max(tests - bad, 0), bad if tests else max(bad, 1))
    for i, case in enumerate(cases):
        print("\n".join(told(case, LINES if i < FAILURES else 0)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
