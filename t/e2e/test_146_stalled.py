# SPDX-License-Identifier: Apache-2.0
"""Twenty of five hundred clients stop reading. The others get everything, publishers are never
blocked, the hub's memory stays bounded, and each of the twenty is cut for its reason."""

import re
import time

import psutil
import pytest

import sse
from crowd import Crowd, Http1, connect_many
from harness import MPM, SANITIZE, TLS_CA, WAIT, wait_until
from publish import Publisher, item

CONF = {"prefork": "StartServers 8\nServerLimit 20\nMinSpareServers 4\nMaxSpareServers 20\n"
                   "MaxRequestWorkers 20\n"}
THREADS = ("StartServers 2\nServerLimit 4\nThreadsPerChild 25\nThreadLimit 25\n"
           "MinSpareThreads 25\nMaxSpareThreads 100\nMaxRequestWorkers 100\n")
STREAMS, STALLED = 500, 20
LAG = 262144
TLS = sse.tls(TLS_CA)
FILL = "x" * 1950


def make(make_httpd, origin, name, *lines):
    server = make_httpd(name)
    server.mpm_conf = CONF.get(MPM, THREADS)
    for line in lines:
        server.add(line)
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port)
    server.publisher()
    return server.start()


def large(n):
    """An event of 2 kB that Readers understand."""
    return f": {FILL}\n\nid: {n}\ndata: {n}\n\n"


def narrow(server, kind, path):
    """A stream that holds little in its socket, and that nobody will read."""
    port, wrap = (server.port(), None) if kind == "plain" else (server.port("tls"), TLS)
    return Http1(port, path, client=sse.Client(port, wrap=wrap, rcvbuf=4096), kind=kind).wait_head()


def wait_cut(server, before, reason, count, go_on=lambda: None):
    def cut():
        go_on()
        ended = server.status()["ended"]
        return ended[reason] - before["ended"][reason] >= count

    wait_until(cut, lambda: f"{count} cut for {reason}: {server.status()['ended']}", 2 * WAIT)


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_stalled_while_much_is_published(make_httpd, origin, channel, kind):
    """They fall behind EventStreamMaxLag: reason lag."""
    server = make(make_httpd, origin, f"146_lag_{kind}", f"EventStreamMaxLag {LAG}")
    server.always_allowed.append(r"ES0201.*ended: lag|ES0304|ES02\d\d.*more")
    path = origin.hold(channel, b":\n\n")
    with Crowd() as crowd:
        join = crowd.plain if kind == "plain" else crowd.tls
        join(server.port("main" if kind == "plain" else "tls"), path, STREAMS - STALLED)
        stalled = connect_many(STALLED, lambda: narrow(server, kind, path))
        before = server.wait_status(streams=STREAMS, reserved=0)
        hub = psutil.Process(server.hub_pid())
        memory = hub.memory_full_info().uss
        numbers, slowest, highest = 0, 0.0, 0
        with Publisher(server.port("publish")) as p:
            def more():
                nonlocal numbers, slowest, highest
                assert numbers < 5000, "10 MB were published, and stalled streams are still there"
                for _ in range(50):
                    numbers += 1
                    began = time.monotonic()
                    p.send(item(channel, large(numbers)))
                    slowest = max(slowest, time.monotonic() - began)
                crowd.wait_number(numbers, timeout=2 * WAIT)
                highest = max(highest, hub.memory_full_info().uss)

            wait_cut(server, before, "lag", STALLED, more)
            more()
        assert not crowd.faults(), crowd.faults()
        assert not [r for r in crowd.readers if r.eof]
        server.wait_status(streams=STREAMS - STALLED)
        server.wait_ended(before, lag=STALLED)
        assert slowest < 10, f"a publisher waited {slowest:.1f} s"
        if not SANITIZE:
            # one log serves everybody: not 20 times the lag
            assert highest - memory < 8 * LAG + (4 << 20), (memory, highest)
        said = re.findall(r"ES0201: stream to 127\.0\.0\.1:\d+ .*ended: lag", server.log_text())
        assert said, "no line of a stream that was cut"
        for c in stalled:
            assert c.seen == 0 and not c.doubled
            c.close()
    server.wait_status(streams=0)
    server.close()


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_stalled_while_little_is_published(make_httpd, origin, channel, kind):
    """Far from the lag limit, but their sockets take nothing: reason timeout."""
    server = make(make_httpd, origin, f"146_time_{kind}", "EventStreamSendTimeout 3s",
                  "EventStreamMaxLag 16777216")
    server.always_allowed.append(r"ES0201.*ended: timeout|ES0304|ES02\d\d.*more")
    path = origin.hold(channel, b":\n\n")
    with Crowd() as crowd:
        join = crowd.plain if kind == "plain" else crowd.tls
        join(server.port("main" if kind == "plain" else "tls"), path, STREAMS - STALLED)
        stalled = connect_many(STALLED, lambda: narrow(server, kind, path))
        before = server.wait_status(streams=STREAMS, reserved=0)
        numbers = 0
        with Publisher(server.port("publish")) as p:
            def more():
                nonlocal numbers
                if numbers < 1500:  # 3 MB: more than the kernel takes for a client that is stalled
                    for _ in range(50):
                        numbers += 1
                        p.send(item(channel, large(numbers)))
                crowd.wait_number(numbers, timeout=2 * WAIT)

            wait_cut(server, before, "timeout", STALLED, more)
        assert not crowd.faults(), crowd.faults()
        assert not [r for r in crowd.readers if r.eof]
        server.wait_ended(before, timeout=STALLED)
        assert re.search(r"ES0201: stream to 127\.0\.0\.1:\d+ .*ended: timeout", server.log_text())
        for c in stalled:
            c.close()
    server.wait_status(streams=0)
    server.close()
