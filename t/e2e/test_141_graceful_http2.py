# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 streams over reloads. They cannot move, so each ends properly, with a `retry:` as its last
event, within EventStreamDrain; until then it misses nothing. mod_http2 does not run under prefork,
and neither does this file."""

import pytest

import h2
from crowd import Crowd, Ticker
from harness import MPM, TLS_CA, wait_until

__test__ = MPM != "prefork"

# Any child has room for all connections, however they are spread.
CONF = ("StartServers 2\nServerLimit 16\nThreadsPerChild 64\nThreadLimit 64\n"
        "MinSpareThreads 64\nMaxSpareThreads 128\nMaxRequestWorkers 320\n")
CONNECTIONS, EACH = 50, 6
RATE = 100
RELOADS = 5
KINDS = {"h2": h2.tls(TLS_CA), "h2c": None}


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd(modules=["http2"])
    server.mpm_conf = CONF
    server.add("EventStreamDrain 2s\nH2MaxWorkers 384\nH2MinWorkers 8")
    server.tls_proxy(origin.port, "h2", server="Protocols h2 http/1.1")
    server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1")
    server.publisher()
    server.endpoint = server.pull()
    return server.start()


@pytest.mark.parametrize("by", ["http", "zmq"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_five_reloads(httpd, origin, channel, kind, by):
    """All streams of a generation end at its reload; the next ones are there before and after."""
    path = origin.hold(channel, b":\n\n")
    count = CONNECTIONS * EACH
    httpd.wait_status(streams=0, reserved=0)
    with Crowd() as crowd, Ticker(httpd, channel, RATE, by=by) as ticker:
        for _ in range(RELOADS):
            crowd.http2(httpd.port(kind), path, CONNECTIONS, EACH, wrap=KINDS[kind])
            readers = crowd.readers
            httpd.wait_status(streams=count, reserved=0)
            ticker.wait_more(20)
            before = ticker.sent
            crowd.wait_number(before)
            httpd.graceful()
            crowd.wait_all(lambda r: r.eof, "its end", readers)
            for r in readers:
                assert r.ended and r.reset is None, f"cut: ended {r.ended}, reset {r.reset}"
                assert r.retry_is_last and not r.torn, f"no retry at the end: {r.retry}"
                assert 1000 <= r.retry <= 3000, r.retry
                assert r.last >= before
            assert not crowd.faults(), crowd.faults()
            for c in list(crowd.connections):
                crowd.forget(c)
                c.close()
            httpd.wait_status(streams=0, reserved=0)
        ticker.stop()


def test_old_children_go(httpd, origin, channel):
    """The children that were told to end are gone once their streams have ended, although the
    clients keep their connections; under worker once these are closed too."""
    path = origin.hold(channel, b":\n\n")
    old = set(httpd.children())
    with Crowd() as crowd:
        crowd.http2(httpd.port("h2"), path, 10, 2, wrap=KINDS["h2"])
        httpd.wait_status(streams=20, reserved=0)
        old |= set(httpd.children())
        httpd.graceful()
        crowd.wait_all(lambda r: r.ended, "its end")
        if MPM == "worker":  # a connection has its thread there until it ends
            for c in list(crowd.connections):
                c.close()
        wait_until(lambda: not old & set(httpd.children()), "the old children to end")
    httpd.wait_status(streams=0, reserved=0)
