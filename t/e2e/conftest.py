# SPDX-License-Identifier: Apache-2.0
"""Fixtures. After every test each server that runs is searched for traces of trouble."""

import faulthandler
import os
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
from origin import Origin  # noqa: E402

faulthandler.enable()


def pytest_report_header():
    module = os.environ.get("ES_MODULE", "not set")
    return (f"mod_eventstream: {module}, mpm {harness.MPM}, transport {harness.TRANSPORT}, "
            f"sanitizers {harness.SANITIZE}")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "transports(*names, why): the test runs over these only, because `why`")
    if harness.TRANSPORT not in harness.TRANSPORTS:
        raise pytest.UsageError(f"ES_TRANSPORT is {harness.TRANSPORT!r}; there are: "
                                + " ".join(harness.TRANSPORTS))
    if harness.HTTP2 and harness.MPM == "prefork":
        raise pytest.UsageError("mod_http2 does not run under prefork")


def pytest_collection_modifyitems(config, items):
    """Leaves out what makes no sense over this run's transport; it is no skipped test. The files
    up to 100 are what GRIP promises over each, those from 200 to 209 what the native endpoint does;
    the others choose their transports themselves."""
    there, elsewhere = [], []
    for item in items:
        name = item.path.name
        here = (harness.TRANSPORT == "plain" or name < "test_101"
                or "test_200" <= name < "test_210")
        for mark in item.iter_markers("transports"):
            if not mark.args or set(mark.args) - set(harness.TRANSPORTS) \
                    or not mark.kwargs.get("why"):
                raise pytest.UsageError(f"{item.nodeid}: transports{mark.args} {mark.kwargs}")
            here = here and harness.TRANSPORT in mark.args
        (there if here else elsewhere).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = there


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.failed:
        harness.Httpd.keep = True  # the ServerRoot is what explains a failure


@pytest.fixture(autouse=True)
def trouble():
    """Fails a test for crashes, sanitizer reports and log lines that it did not name."""
    yield
    for server in list(harness.Httpd.live):
        server.check()


@pytest.fixture(scope="module")
def make_httpd(request):
    """Makes servers that end with the module's tests."""
    made = []

    def make(name=None, **args):
        name = name or request.module.__name__.replace("test_", "")[:24]
        server = harness.Httpd(name, **args)
        made.append(server)
        return server

    yield make
    problems = []
    for server in made:
        try:
            server.close()
        except AssertionError as e:
            problems.append(str(e))
    if problems:
        raise AssertionError("\n".join(problems))


@pytest.fixture(scope="module")
def origin():
    o = Origin()
    yield o
    o.close()
    assert not o.errors, o.errors


@pytest.fixture
def channel():
    return harness.unique()
