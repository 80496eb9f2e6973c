# SPDX-License-Identifier: Apache-2.0
"""Readers that do not read: they cost the others nothing, and never miss a message unnoticed."""

import pytest

import sse
from harness import VERSIONS, WAIT, unique
from publish import Publisher, item

MESSAGE = "x" * 19990


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.add("EventStreamMaxLag 262144")
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


def numbered(n):
    return f"<{n:08}>{MESSAGE}".encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_stalled_reader_is_cut(httpd, origin, channel, version):
    """One client stops reading. Five others get everything. The stalled one gets a prefix of it
    without a gap and then the end of its connection, is counted, and logged with the reason."""
    path = origin.hold(channel, b"")
    stalled = sse.Stream.opened(httpd.port(), path, rcvbuf=4096, version=version)
    before = httpd.wait_status(streams=1)
    since = httpd.log_mark()
    httpd.allow(r"ES0201.*ended: lag")
    sent = 0
    with sse.open_many(httpd.port(), [path] * 5) as pool, Publisher(httpd.port("publish")) as pub:
        while httpd.status()["ended"]["lag"] == before["ended"]["lag"]:
            assert sent < 4000, "80 MB were published and the stalled reader is still there"
            pub.send(*[item(channel, numbered(sent + n).decode()) for n in range(10)])
            sent += 10
            pool.wait_all(lambda s: len(s.body) >= sent * 20000, "each message")
        pub.text(channel, "end")
        pool.wait_all(lambda s: s.body.endswith(b"end"), "the last message")
        whole = b"".join(numbered(n) for n in range(sent)) + b"end"
        for s in pool.streams:
            assert s.body == whole
        after = httpd.wait_status(streams=5)
        assert after["ended"]["lag"] - before["ended"]["lag"] == 1
        httpd.wait_log(r"\[eventstream:warn\].*ended: lag.*EventStreamMaxLag", since)
    stalled.wait_end()
    assert whole.startswith(stalled.body), "the stalled reader saw a gap"
    assert len(stalled.body) < len(whole)
    stalled.close()


def test_slow_reader_that_catches_up(httpd, origin, channel):
    """A pause that stays below the limit costs nothing: everything arrives, in order."""
    path = origin.hold(channel, b"")
    with sse.Stream.opened(httpd.port(), path, rcvbuf=4096) as slow, \
            Publisher(httpd.port("publish")) as pub:
        for n in range(12):
            pub.text(channel, numbered(n).decode())
        slow.wait_body(b"".join(numbered(n) for n in range(12)))
        for n in range(12, 24):
            pub.text(channel, numbered(n).decode())
        slow.wait_body(b"".join(numbered(n) for n in range(24)))


def test_tiny_windows(httpd, origin, channel):
    """A client that takes a few bytes at a time gets every byte once: partial writes are resumed
    where they stopped, keep-alives do not get in between."""
    path = origin.hold(channel, b"", headers=[("Grip-Keep-Alive", "KA; timeout=1; mode=interval")])
    with sse.Stream.opened(httpd.port(), path, rcvbuf=2048) as s, \
            Publisher(httpd.port("publish")) as pub:
        for n in range(8):
            pub.text(channel, numbered(n).decode())
        want = b"".join(numbered(n) for n in range(8))
        s.client.sock.settimeout(WAIT)
        while len(s.body.replace(b"KA", b"")) < len(want):
            assert s.receive(997), s.body[-100:]
        assert s.body.replace(b"KA", b"") == want


def test_stalled_reader_leaves(httpd, origin, channel):
    """A client that stalls and then goes is gone, whatever was queued for it."""
    path = origin.hold(channel, b"")
    stalled = sse.Stream.opened(httpd.port(), path, rcvbuf=4096)
    with Publisher(httpd.port("publish")) as pub:
        for n in range(12):
            pub.text(channel, numbered(n).decode())
    httpd.wait_status(streams=1)
    stalled.client.reset()
    httpd.wait_status(streams=0)


def test_one_large_message(httpd, origin):
    """A message larger than the lag limit still reaches those who read."""
    channel = unique()
    with sse.open_many(httpd.port(), [origin.hold(channel, b"")] * 3) as pool, \
            Publisher(httpd.port("publish")) as pub:
        pub.text(channel, "y" * 900000)
        pool.wait_all(lambda s: len(s.body) >= 900000, "the message")
        pub.text(channel, "z")
        pool.wait_all(lambda s: s.body.endswith(b"z"), "the next message")
        assert all(len(s.body) == 900001 for s in pool.streams)
