# SPDX-License-Identifier: Apache-2.0
"""The servers that the browser visits are those of the end-to-end tests: t/e2e/harness.py."""

import os
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(os.environ["ES_SRCDIR"]) / "t" / "e2e"))

import harness  # noqa: E402
from chromium import Browser  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.failed:
        harness.Httpd.keep = True  # the ServerRoot is what explains a failure


@pytest.fixture(autouse=True)
def trouble():
    """Fails a test for crashes and log lines that it did not name."""
    yield
    for server in list(harness.Httpd.live):
        server.check()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture
def channel():
    return harness.unique()
