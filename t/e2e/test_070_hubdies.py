# SPDX-License-Identifier: Apache-2.0
"""The hub is killed: the parent starts another within a second, clients come back, and no publish
that was answered with 200 is lost to a client that was there."""

import os
import signal
import time

import psutil
import pytest

import sse
from harness import SANITIZE, unique, wait_until
from publish import Publisher, Push, body, item
from scenario import no_answered_publish_is_lost

BACK = 5.0 if SANITIZE else 1.0  # seconds, the best of several deaths
DIED = r"\[eventstream:\w+\].*\bhub\b"  # the lines about a hub that died


@pytest.fixture
def httpd(make_httpd, origin):
    """A server for each test: a parent grows cautious when its hub dies too often."""
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    yield server.start()
    server.close()


def kill_hub(httpd):
    """SIGKILL; returns the seconds until the process table shows another hub."""
    old = httpd.find_hub()
    assert old == httpd.status()["hub"]["pid"]
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: httpd.find_hub() not in (None, old), "another hub", interval=0.002)
    return time.monotonic() - began


def wait_hub(httpd, old):
    def back():
        with sse.Client(httpd.port("control")) as c:
            answer = c.get("/status?json")
        if answer.code == 200:
            return httpd.status()["hub"]["pid"] != old
        assert answer.code == 503, answer
        return False

    wait_until(back, "the new hub's status")


def test_500_streams(httpd, origin, channel):
    httpd.allow(DIED)
    path = origin.hold(channel, b"open.")
    old = httpd.find_hub()
    with sse.open_many(httpd.port(), [path] * 500, timeout=60) as pool:
        httpd.wait_status(streams=500)
        since = httpd.log_mark()
        kill_hub(httpd)
        httpd.wait_log(DIED + ".*9", since)
        pool.wait_all(lambda s: s.eof, "the end of their connection")
        assert all(s.body == b"open." for s in pool.streams)
    wait_hub(httpd, old)
    with sse.open_many(httpd.port(), [path] * 500, timeout=60) as pool, \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=500)
        pub.text(channel, "again")
        pool.wait_all(lambda s: s.body == b"open.again", "the message after the reconnect")
    httpd.wait_status(streams=0)


def test_three_times(httpd, origin, channel):
    """It is no luck: three deaths, each time back in time, with all ways in working."""
    httpd.allow(DIED)
    took = []
    for _ in range(3):
        old = httpd.find_hub()
        took.append(kill_hub(httpd))
        wait_hub(httpd, old)
        with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s, \
                Push(httpd.endpoint) as push:
            with Publisher(httpd.port("publish")) as pub:
                pub.text(channel, "http.")
            s.wait_for(b"http.")
            push.bare(item(channel, "zmq."))
            s.wait_body(b"http.zmq.")
    assert min(took) < BACK, f"the hub was back after {took} s"


def test_no_answered_publish_is_lost(httpd, origin, channel):
    httpd.allow(DIED)
    no_answered_publish_is_lost(httpd, origin, channel,
                                lambda: os.kill(httpd.find_hub(), signal.SIGKILL), rounds=2,
                                broken=False, clean=False)


def test_children_are_not_disturbed(httpd, origin):
    """Ordinary requests go on while the hub is away; no child dies with it."""
    httpd.allow(DIED)
    children = set(httpd.children())
    plain = origin.answer(b"plain")
    old = httpd.find_hub()
    with sse.Client(httpd.port()) as c:
        os.kill(old, signal.SIGKILL)
        for _ in range(50):
            assert c.get(plain).body == b"plain"
    wait_until(lambda: httpd.find_hub() not in (None, old), "another hub")
    wait_hub(httpd, old)
    assert children <= set(httpd.children())


@pytest.mark.parametrize("then", ["graceful", "restart", "stop"])
def test_reload_after_a_death(make_httpd, origin, then):
    """A hub that was replaced is the configuration's hub like the first one: the next reload ends
    it and starts another, the next stop leaves nothing."""
    server = make_httpd("again")
    server.grip_proxy(origin.port)
    server.publisher()
    server.start()
    server.allow(DIED)
    for _ in range(2):
        old = server.find_hub()
        os.kill(old, signal.SIGKILL)
        wait_hub(server, old)
    second = server.hub_pid()
    getattr(server, then)()
    if then == "stop":
        return
    wait_hub(server, second)
    channel = unique()
    with sse.Stream.opened(server.port(), origin.hold(channel, b"")) as s, \
            Publisher(server.port("publish")) as pub:
        pub.text(channel, "well")
        s.wait_body(b"well")


def test_hub_that_stops_answering_holds_nobody_up(httpd, origin, channel):
    """A hub that hangs (SIGSTOP): holds and publishes are answered with 503 in bounded time,
    ordinary requests as ever; when it runs again, all is well."""
    httpd.allow(DIED, r"\[eventstream:\w+\]")
    hub = psutil.Process(httpd.find_hub())
    plain = origin.answer(b"plain")
    hub.suspend()
    try:
        began = time.monotonic()
        with sse.Client(httpd.port("publish"), timeout=60) as p, \
                sse.Client(httpd.port(), timeout=60) as c:
            p.request("/publish/", method="POST", body=body([item(channel, "x")]))
            c.request(origin.hold(channel, b"body"))
            with sse.Client(httpd.port()) as ordinary:
                assert ordinary.get(plain).body == b"plain"
            assert p.read_head().code == 503
            assert c.read_head().code == 503
        assert time.monotonic() - began < 45
    finally:
        hub.resume()
    wait_until(lambda: httpd.hub_pid() is not None, "the hub's answer")
    httpd.wait_status(streams=0, reserved=0)
    other = unique()
    with sse.Stream.opened(httpd.port(), origin.hold(other, b"")) as s, \
            Publisher(httpd.port("publish")) as pub:
        pub.text(other, "well")
        s.wait_body(b"well")
