# SPDX-License-Identifier: Apache-2.0
"""Thousands of TLS streams on a server with few workers: none of them takes one."""

import re
import ssl
import time

import pytest

import sse
from crowd import Crowd, Http1, connect_many, event
from harness import MPM, TLS_CA, WAIT, wait_until
from publish import Publisher, item

CONF = {"prefork": "StartServers 8\nServerLimit 20\nMinSpareServers 4\nMaxSpareServers 20\n"
                   "MaxRequestWorkers 20\n"}
THREADS = ("StartServers 2\nServerLimit 4\nThreadsPerChild 25\nThreadLimit 25\n"
           "MinSpareThreads 25\nMaxSpareThreads 100\nMaxRequestWorkers 100\n")
STREAMS = 500 if MPM == "prefork" else 4000
AT_ONCE = 10.0  # seconds in which an ordinary request is answered: one without a worker waits for ever


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.mpm_conf = CONF.get(MPM, THREADS)
    server.tls_proxy(origin.port)
    server.vhost("mpm", "<Location />\nSetHandler server-status\n</Location>\n")
    server.publisher()
    return server.start()


def scoreboard(server):
    """Workers that are busy besides the one that says so, and connections that the MPM counts."""
    with sse.Client(server.port("mpm")) as c:
        said = c.get("/?auto").body.decode()
    total = re.search(r"^ConnsTotal: (\d+)", said, re.M)
    return int(re.search(r"^BusyWorkers: (\d+)", said, re.M)[1]) - 1, int(total[1] if total else 0)


def idle(server):
    wait_until(lambda: scoreboard(server)[0] == 0, lambda: f"idle: {scoreboard(server)}")


def ordinary_requests(server, path, wrap):
    """Each is answered, and none of them has to wait."""
    for _ in range(20):
        with sse.Client(server.port("tls"), wrap=wrap, timeout=AT_ONCE) as c:
            assert c.get(path).body == b"plain"


def test_thousands_of_tls_streams(httpd, origin, channel):
    path, plain = origin.hold(channel, b":\n\n"), origin.answer(b"plain")
    context = ssl.create_default_context(cafile=TLS_CA)
    with sse.Client(httpd.port("tls"), wrap=sse.tls(TLS_CA, context=context)) as c:
        c.get(plain)
        session = c.sock.session  # a full handshake once; the others resume
    assert session is not None
    wrap = sse.tls(TLS_CA, context=context, session=session)
    children = set(httpd.children())
    with Crowd() as crowd:
        began = time.monotonic()
        for c in connect_many(STREAMS, lambda: Http1(httpd.port("tls"), path, wrap).wait_head()):
            crowd.add(c)
        took = time.monotonic() - began
        httpd.wait_status(streams=STREAMS, reserved=0)
        print(f"{STREAMS} streams opened in {took:.1f} s")
        idle(httpd)
        connections = scoreboard(httpd)[1]
        assert connections <= 4, f"the MPM counts {connections} connections"
        ordinary_requests(httpd, plain, wrap)
        with Publisher(httpd.port("publish")) as p:
            for n in range(1, 6):
                p.send(item(channel, event(n), id=str(n)))
                ordinary_requests(httpd, plain, wrap)
            crowd.wait_number(5, timeout=2 * WAIT)
        assert not crowd.faults(), crowd.faults()
        assert not [r for r in crowd.readers if r.eof]
        assert children <= set(httpd.children()), "a child has ended"
        idle(httpd)
    httpd.wait_status(streams=0, reserved=0, channels=0)
    idle(httpd)
