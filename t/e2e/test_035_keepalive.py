# SPDX-License-Identifier: Apache-2.0
"""Keep-alives: what they say and when they come. Times are those at which bytes arrived here."""

import base64
import time

import pytest

import sse
from harness import VERSIONS, unique, wait_until
from publish import Publisher

EARLY = 0.3  # seconds before its time that a keep-alive may come: timers have a grain
LATE = 1.5   # and after it, for the best of several: on a loaded machine any of them may be late


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


def held(httpd, origin, channel, keep_alive, **args):
    path = origin.hold(channel, b"", headers=[("Grip-Keep-Alive", keep_alive)])
    return sse.Stream.opened(httpd.port(), path, **args)


def on_time(times, every, began):
    """None before its time, counted from a moment that was surely before the first began to be
    waited for; and at least one when it was due."""
    after = [t - began for t in times]
    assert all(t >= n * every - EARLY for n, t in enumerate(after, 1)), after
    gaps = [b - a for a, b in zip([began] + times, times)]
    assert min(gaps) <= every + LATE, gaps


def test_contents(httpd, origin):
    """raw, cstring and base64, side by side on chunked and on raw framing."""
    cases = {
        "ping; timeout=1": b"ping",
        ": x\\r\\n\\n\\\\\\x41; format=cstring; timeout=1": b": x\r\n\n\\A",
        "event: keep-alive\\ndata:\\n\\n; format=cstring; timeout=1":
            b"event: keep-alive\ndata:\n\n",
        "a, b; format=raw; timeout=1": b"a, b",
        base64.b64encode(b"\0\xff;").decode() + "; format=base64; timeout=1": b"\0\xff;",
        "mode; mode=interval; timeout=1": b"mode",
    }
    with sse.Pool() as pool:
        for n, (header, want) in enumerate(cases.items()):
            s = held(httpd, origin, unique(), header, version=VERSIONS[n % len(VERSIONS)])
            s.want = want
            pool.add(s)
        pool.wait_all(lambda s: len(s.body) >= 2 * len(s.want), "two keep-alives")
        for s in pool.streams:
            assert s.body == s.want * (len(s.body) // len(s.want)), s.body


def test_idle(httpd, origin, channel):
    """An idle keep-alive comes so long after the last bytes, and never between messages."""
    began = time.monotonic()
    with held(httpd, origin, channel, "KA; timeout=2") as s, \
            Publisher(httpd.port("publish")) as pub:
        s.wait_for(b"KA")
        assert s.time_of(b"KA") >= began + 2 - EARLY
        sent = []
        for n in range(1, 9):  # four seconds of messages, half a second apart
            sent.append(time.monotonic())
            pub.text(channel, ".")
            s.wait_for(b"KA" + b"." * n)
            s.pump(0.5)
        came = s.times_of(b".")
        if max(b - a for a, b in zip(sent, came[1:])) < 2 - EARLY:  # this test was not held up
            assert s.body.startswith(b"KA" + b"." * 8), s.body
        before = s.body.rindex(b".")
        s.wait(lambda: s.body.count(b"KA", before) >= 2, "more keep-alives")
        on_time(s.times_of(b"KA", before), 2, sent[-1])


def test_interval(httpd, origin, channel):
    """An interval keep-alive comes at its time whatever is published meanwhile."""
    began = time.monotonic()
    with held(httpd, origin, channel, "KA; mode=interval; timeout=1") as s, \
            Publisher(httpd.port("publish")) as pub:
        while s.body.count(b"KA") < 4:
            pub.text(channel, ".")
            s.pump(0.2)
        on_time(s.times_of(b"KA"), 1, began)
        assert s.body.count(b".") > 4


def test_default_is_not_soon(httpd, origin, channel):
    """Without timeout= it is 55 seconds: nothing comes in the first three."""
    with held(httpd, origin, channel, "KA") as s:
        s.pump(3)
        assert s.body == b"" and not s.eof


def test_keep_alives_are_counted(httpd, origin, channel):
    before = httpd.status()["keep_alives"]
    with held(httpd, origin, channel, "KA; timeout=1") as s:
        s.wait_for(b"KAKA")
    wait_until(lambda: httpd.status()["keep_alives"] >= before + 2, "two counted keep-alives")


def test_many_streams(httpd, origin):
    """Three hundred streams with a keep-alive each second: nobody is left out, nobody early."""
    path = origin.hold(unique(), b"", headers=[("Grip-Keep-Alive", "k; timeout=1")])
    began = time.monotonic()
    with sse.open_many(httpd.port(), [path] * 300) as pool:
        pool.wait_all(lambda s: len(s.body) >= 4, "four keep-alives")
        for s in pool.streams:
            assert s.body.strip(b"k") == b""
            # Late readers see several at once; but none before its time.
            after = [t - began for t in s.times_of(b"k")]
            assert all(t >= n - EARLY for n, t in enumerate(after, 1)), after
