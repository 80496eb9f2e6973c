# SPDX-License-Identifier: Apache-2.0
"""stop, restart, graceful, graceful-stop: in bounded time, every stream ended properly, no process
left (the harness looks for them after each stop)."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import sse
from harness import HTTP2, VERSIONS, unique, wait_until
from publish import Publisher, Push, item
from scenario import HUB_ALONE, ended_or_alive, may_end, no_answered_publish_is_lost

LONG = 25.0  # seconds that a stop with streams may take


@pytest.fixture
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    server.start()
    yield server
    server.close()


def streams(httpd, origin, channel, count=100):
    """So many, and one of the oldest HTTP that the transport has."""
    path = origin.hold(channel, b"open.")
    pool = sse.open_many(httpd.port(), [path] * count)
    pool.add(sse.Stream.opened(httpd.port(), path, version=VERSIONS[-1]))
    pool.wait_all(lambda s: s.body == b"open.", "the initial body")
    httpd.wait_status(streams=count + 1)
    return pool


def works(httpd, origin):
    channel = unique()
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s, \
            Publisher(httpd.port("publish")) as pub:
        pub.text(channel, "works")
        s.wait_body(b"works")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGWINCH],
                         ids=["stop", "graceful-stop"])
def test_stop(httpd, origin, channel, number):
    with streams(httpd, origin, channel) as pool:
        with Publisher(httpd.port("publish")) as pub:
            pub.send(*[item(channel, f"{n};") for n in range(50)])
        with ThreadPoolExecutor(1) as executor:
            stopped = executor.submit(httpd.stop, number)
            while not stopped.done():
                pool.pump(0.05)
                pool.close_ended()  # under worker an HTTP/2 connection keeps its child till then
        assert stopped.result() < LONG, stopped.result()
        pool.wait_all(lambda s: s.eof, "the end of their connection")
        want = b"open." + "".join(f"{n};" for n in range(50)).encode()
        politely = number != signal.SIGTERM
        unclean = [s for s in pool.streams if not may_end(s, politely)]
        assert not unclean, f"{len(unclean)} of {len(pool.streams)} were cut"
        bodies = {s.body for s in pool.streams if s.ended or politely or not HTTP2}
        assert bodies <= {want}
        assert all(want.startswith(s.body) for s in pool.streams)


def test_stop_without_streams(httpd):
    assert httpd.stop() < LONG


def test_start_again(httpd, origin):
    """The same ports, the same files, at once."""
    for _ in range(2):
        httpd.stop()
        httpd.start()
        works(httpd, origin)


def one_hub(httpd):
    wait_until(lambda: len(hubs(httpd)) == 1, lambda: f"one hub, {hubs(httpd)}")


@pytest.mark.parametrize("how", ["graceful", "restart"])
def test_streams_go_on(httpd, origin, channel, how):
    """The new configuration answers at once; nothing is cut, again and again. The hub's own streams
    all go on."""
    with streams(httpd, origin, channel) as pool:
        for _ in range(3):
            getattr(httpd, how)()
            works(httpd, origin)
        if HUB_ALONE:
            httpd.wait_status(streams=len(pool.streams), reserved=0)
        alive = ended_or_alive(httpd, pool, channel, b"open.", politely=how == "graceful")
        assert not HUB_ALONE or len(alive) == len(pool.streams)
    httpd.wait_status(streams=0, reserved=0)
    one_hub(httpd)


def hubs(httpd):
    """Pids of all processes of the server whose title is the hub's."""
    found = []
    for p in httpd.processes():
        try:
            title = " ".join(p.cmdline()) + " " + p.name()
        except Exception:
            continue
        if "eventstream" in title and "httpd.conf" not in title:
            found.append(p.pid)
    return found


def test_many_restarts(httpd, origin, channel):
    """Ten reloads in a row, with publishes in between: one hub at the end, ZeroMQ included."""
    for n in range(10):
        (httpd.graceful if n % 3 else httpd.restart)()
    works(httpd, origin)
    one_hub(httpd)
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s, \
            Push(httpd.endpoint) as push:
        push.bare(item(channel, "zmq"))
        s.wait_body(b"zmq")


@pytest.mark.parametrize("how", ["graceful", "restart"])
def test_no_answered_publish_is_lost(httpd, origin, channel, how):
    """A restart drops the connections of requests in flight; a graceful one does not even that."""
    no_answered_publish_is_lost(httpd, origin, channel, getattr(httpd, how), rounds=3,
                                broken=how == "restart", clean=True)


def test_new_configuration_is_used(httpd, origin):
    """A reload gives the hub its new settings."""
    assert httpd.status()["hub"]["threads"] != 5
    httpd.add("EventStreamThreads 5")
    httpd.write_config()
    httpd.graceful()
    wait_until(lambda: httpd.status()["hub"]["threads"] == 5, "five threads")


def children(httpd):
    try:
        return len(psutil.Process(httpd.process.pid).children())
    except (psutil.Error, AttributeError):
        return 0  # it has stopped already


def test_stop_during_the_initial_body(httpd, origin, channel):
    """A stop while an application is in the middle of its answer: the answer is still taken, and
    everything ends without waiting for httpd's SIGKILL."""
    go = threading.Event()

    def handler(request, write):
        write(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: " + channel.encode()
              + b"\r\nContent-Length: 3\r\n\r\na")
        go.wait(60)
        write(b"bc")

    httpd.allow(r"AH00045", r"\[eventstream:\w+\]", r"\[proxy\w*:error\]")
    s = sse.Stream(httpd.port(), origin.add(handler))
    took = []
    stopper = threading.Thread(target=lambda: took.append(httpd.stop()))
    try:
        httpd.wait_status(reserved=1)
        before = children(httpd)
        stopper.start()
        wait_until(lambda: children(httpd) < before, "the first child to end")
    finally:
        go.set()
        stopper.join(60)
    assert took and took[0] < LONG
    s.wait_end()
    s.close()


def test_parent_is_killed(httpd, origin, channel):
    """SIGKILL for the parent, which no cleanup survives: the hub notices and ends by itself once
    the children are gone."""
    with streams(httpd, origin, channel, count=5) as pool:
        httpd.remember_processes()
        children = httpd.children()
        os.kill(httpd.process.pid, signal.SIGKILL)
        httpd.process.wait(20)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not httpd.processes(), lambda: f"the hub to end, {httpd.processes()}")
        pool.wait_all(lambda s: s.eof, "the end of their connection")
    httpd.process = None
    httpd.start()  # and the next start finds nothing in its way
    works(httpd, origin)
