# SPDX-License-Identifier: Apache-2.0
"""Reads pytest's JUnit report and prints "PASSED FAILED". A skipped test counts as failed; so does
a report without tests. What is no report at all ends with status 1 and a sentence."""

import sys
import xml.etree.ElementTree as ElementTree


def main(path):
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
        numbers = [[int(s.get(k, "0")) for k in ("tests", "errors", "failures", "skipped")]
                   for s in suites]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        print(f"no usable report of pytest in {path}: {error}")
        return 1
    tests, *kinds_of_bad = (sum(column) for column in zip(*numbers)) if numbers else (0,)
    bad = sum(kinds_of_bad)
    print(max(tests - bad, 0), bad if tests else max(bad, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
