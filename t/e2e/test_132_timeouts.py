# SPDX-License-Identifier: Apache-2.0
"""Clients that stop reading: EventStreamSendTimeout cuts them, each is counted and logged, and the
others notice nothing of it."""

import re
import time

import pytest

import sse
from harness import TLS_CA, wait_until
from publish import Publisher, item

MESSAGE = "x" * 19990
STREAMS, STALLED = 200, 20
MANY = {"prefork": "StartServers 8\nServerLimit 48\nMinSpareServers 8\nMaxSpareServers 48\n"
                   "MaxRequestWorkers 48\n"}


def make(make_httpd, origin, name=None, timeout=2):
    server = make_httpd(name)
    # no reader is far enough behind to be cut for lag
    server.add(f"EventStreamSendTimeout {timeout}s\nEventStreamMaxLag 1073741824")
    server.mpm_conf = MANY.get(server.mpm, server.mpm_conf)
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port)
    server.publisher()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    return make(make_httpd, origin)


def wrap_of(way):
    return sse.tls(TLS_CA) if way == "tls" else None


def port_of(httpd, way):
    return httpd.port("tls" if way == "tls" else "main")


def numbered(n):
    return f"<{n:08}>{MESSAGE}".encode()


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_stalled_readers_are_cut(make_httpd, origin, channel, way):
    """20 of 200 stop reading. The 180 get every message, each publish is answered, and the 20 are
    cut, counted and logged with their addresses."""
    httpd = make(make_httpd, origin, f"132_{way}")
    path = origin.hold(channel, b"")
    before = httpd.wait_status(streams=0, reserved=0)
    since = httpd.log_mark()
    httpd.allow(r"ES0201.*ended: timeout", r"ES0205")
    wrap, port = wrap_of(way), port_of(httpd, way)
    stalled = sse.open_many(port, [path] * STALLED, rcvbuf=4096, wrap=wrap)
    addresses = {"{}:{}".format(*s.client.sock.getsockname()) for s in stalled.streams}
    sent = 0
    with stalled, sse.open_many(port, [path] * (STREAMS - STALLED), wrap=wrap) as pool, \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=STREAMS, reserved=0)
        while httpd.status()["ended"]["timeout"] - before["ended"]["timeout"] < STALLED:
            assert sent < 3000, "60 MB to each were published and stalled readers are still there"
            pub.send(*[item(channel, numbered(sent + n).decode()) for n in range(2)])
            sent += 2
            pool.wait_all(lambda s: len(s.body) >= sent * 20000, "each message")
        pub.text(channel, "end")
        pool.wait_all(lambda s: s.body.endswith(b"end"), "the last message")
        whole = b"".join(numbered(n) for n in range(sent)) + b"end"
        assert {s.body for s in pool.streams} == {whole}
        httpd.wait_status(streams=STREAMS - STALLED)
        httpd.wait_ended(before, timeout=STALLED)
        said = httpd.log_text()[since:]
        named = re.findall(r"\[eventstream:warn\].*ES0201: stream to (\S+) for \S+ ended: timeout, "
                           r"after \d+ bytes in \d+\.\d{3} s, \d+ bytes behind; it took nothing "
                           r"for EventStreamSendTimeout", said)
        assert set(named) <= addresses and len(set(named)) == len(named)
        # each thread of the hub writes ten of them in ten seconds, and the number of the others
        assert len(named) >= 10
        if len(named) < STALLED:
            httpd.wait_log(r"ES0205: \d+ more streams were cut", since)

            def accounted():
                more = re.findall(r"ES0205: (\d+) more streams were cut and left out here, within "
                                  r"10 s: lag 0, timeout (\d+), error 0", httpd.log_text()[since:])
                return sum(int(n) for n, of in more if n == of) == STALLED - len(named)

            wait_until(accounted, "the number of those that are not named")
        for s in stalled.streams:
            s.client.sock.settimeout(30)
            s.wait_end()
            assert whole.startswith(s.body) and len(s.body) < len(whole), "a gap"
    httpd.wait_status(streams=0, channels=0)
    httpd.wait_ended(before, timeout=STALLED, client=STREAMS - STALLED)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_little_that_waits(httpd, origin, channel, way):
    """What waits fits into the sockets' buffers, so the hub has nothing left to write: then the
    kernel gives the client up, and the reason is the same."""
    path = origin.hold(channel, b"")
    before = httpd.wait_status(streams=0, reserved=0)
    httpd.allow(r"ES0201.*ended: timeout")
    with sse.Stream.opened(port_of(httpd, way), path, rcvbuf=2048, wrap=wrap_of(way)) as s, \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=1)
        for n in range(3):
            pub.text(channel, numbered(n).decode())
        httpd.wait_ended(before, timeout=1)
        httpd.wait_status(streams=0)
        s.wait_end()


@pytest.fixture(scope="module")
def patient(make_httpd, origin):
    """To a window that was shut the kernel sends only now and then: after 0.2 s, 0.4 s, 0.8 s ..."""
    return make(make_httpd, origin, "132_patient", timeout=6)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_slow_reader_is_not_cut(patient, origin, channel, way):
    """It takes a little all the time, for twice EventStreamSendTimeout."""
    httpd = patient
    path = origin.hold(channel, b"")
    before = httpd.wait_status(streams=0, reserved=0)
    with sse.Stream.opened(port_of(httpd, way), path, rcvbuf=4096, wrap=wrap_of(way)) as s, \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=1)
        for n in range(200):
            pub.text(channel, numbered(n).decode())
        sock = s.client.sock
        sock.settimeout(30)
        began = time.monotonic()
        while time.monotonic() - began < 13:
            s._take(sock.recv(4096))  # 1 of 4 MB in this time
            time.sleep(0.05)
        s.wait_body(b"".join(numbered(n) for n in range(200)))
        assert httpd.status()["streams"] == 1
    httpd.wait_ended(before, client=1)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_silence_is_no_stall(httpd, origin, channel, way):
    """Nothing is published for longer than EventStreamSendTimeout: the stream stays."""
    path = origin.hold(channel, b"open.")
    waits = sse.Stream.opened(port_of(httpd, way), path, wrap=wrap_of(way))
    clock = sse.Stream.opened(httpd.port(), origin.hold(
        channel + "-k", b"", headers=[("Grip-Keep-Alive", "k; timeout=1; mode=interval")]))
    with waits, clock, Publisher(httpd.port("publish")) as pub:
        clock.wait_body(b"kkkk")
        pub.text(channel, "x")
        waits.wait_body(b"open.x")


def test_options_of_the_socket(httpd, origin, channel):
    """The kernel looks after a client that is silent, plain or TLS."""
    path = origin.hold(channel, b"")
    with sse.Stream.opened(httpd.port(), path) as plain, \
            sse.Stream.opened(httpd.port("tls"), path, wrap=sse.tls(TLS_CA)) as tls:
        httpd.wait_status(streams=2, reserved=0)
        for s in (plain, tls):
            assert keep_alive_timer(s.client.sock, httpd), "no keep-alive timer is running"


def keep_alive_timer(sock, httpd):
    """Does the server's end of this connection have its keep-alive timer on? /proc/net/tcp says it
    by its timer's kind (2) and when it fires, in hundredths of a second."""
    def address(pair):
        host = "".join(f"{int(b):02X}" for b in reversed(pair[0].split(".")))
        return f"{host}:{pair[1]:04X}"

    local, remote = address(sock.getpeername()), address(sock.getsockname())

    def timer():
        with open("/proc/net/tcp", encoding="ascii") as f:
            for line in f:
                field = line.split()
                if field[1:3] == [local, remote]:
                    kind, when = field[5].split(":")
                    return kind == "02" and 0 < int(when, 16) <= 6000
        return False

    return wait_until(timer, "the keep-alive timer")
