# SPDX-License-Identifier: Apache-2.0
"""Many TLS streams on few workers, thousands that come and go, and what happens to them when
children and the hub end."""

import os
import re
import signal

import psutil
import pytest

import sse
from harness import MPM, TLS_CA, WAIT, unique, wait_until
from publish import Publisher, close_item, item, publish

THREADS = ("StartServers 2\nServerLimit 4\nThreadsPerChild 25\nThreadLimit 25\n"
           "MinSpareThreads 25\nMaxSpareThreads 100\nMaxRequestWorkers 100\n")
CONF = {"prefork": "StartServers 8\nServerLimit 20\nMinSpareServers 4\nMaxSpareServers 20\n"
                   "MaxRequestWorkers 20\n"}
STREAMS = {"event": 1000, "worker": 400, "prefork": 200}[MPM]
CYCLES = 300
ONE_CHILD = {"prefork": "StartServers 1\nServerLimit 1\nMinSpareServers 1\nMaxSpareServers 1\n"
                        "MaxRequestWorkers 1\n"}
ONE_CHILD_THREADS = ("StartServers 1\nServerLimit 1\nThreadsPerChild 4\nThreadLimit 4\n"
                     "MinSpareThreads 1\nMaxSpareThreads 4\nMaxRequestWorkers 4\n")


def make(make_httpd, origin, conf, name=None):
    server = make_httpd(name)
    server.mpm_conf = conf
    server.tls_proxy(origin.port)
    server.vhost("mpm", "<Location />\nSetHandler server-status\n</Location>\n")
    server.publisher()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    return make(make_httpd, origin, CONF.get(MPM, THREADS))


@pytest.fixture(scope="module")
def small(make_httpd, origin):
    """One child: its descriptors can be counted."""
    return make(make_httpd, origin, ONE_CHILD.get(MPM, ONE_CHILD_THREADS), "113_small")


@pytest.fixture(scope="module")
def wrap():
    return sse.tls(TLS_CA)  # one context for all


def busy_workers(server):
    """What mod_status counts as busy besides the worker that says so, and open connections."""
    with sse.Client(server.port("mpm")) as c:
        said = c.get("/?auto").body.decode()
    busy = int(re.search(r"^BusyWorkers: (\d+)", said, re.M)[1]) - 1
    total = re.search(r"^ConnsTotal: (\d+)", said, re.M)
    return busy, int(total[1]) if total else 0


def idle(server):
    """Waits until no worker but the asked one is busy."""
    wait_until(lambda: busy_workers(server)[0] == 0, lambda: f"idle: {busy_workers(server)}")


def test_many_streams_and_no_worker(httpd, origin, wrap):
    channel = unique()
    path, plain = origin.hold(channel, b""), origin.answer(b"plain")
    with sse.Pool() as pool:
        for _ in range(STREAMS):
            pool.add(sse.Stream.opened(httpd.port("tls"), path, wrap=wrap))
        httpd.wait_status(streams=STREAMS, reserved=0)
        idle(httpd)
        busy, connections = busy_workers(httpd)
        assert connections <= 4, f"httpd counts {connections} connections"
        for _ in range(20):
            with sse.Client(httpd.port("tls"), wrap=wrap, timeout=10) as c:
                assert c.get(plain).body == b"plain"
        with Publisher(httpd.port("publish")) as p:
            for n in range(3):
                p.text(channel, f"{n};")
                pool.wait_all(lambda s: len(s.body) >= 2 * n + 2, "the message")
            p.send(close_item(channel))
        pool.wait_all(lambda s: s.eof, "the end")
        assert {s.body for s in pool.streams} == {b"0;1;2;"}
        assert all(s.ended and not s.reset for s in pool.streams)
    httpd.wait_status(streams=0, reserved=0, channels=0)
    idle(httpd)


def descriptors(server):
    [child] = server.children()
    return psutil.Process(child).num_fds(), psutil.Process(server.hub_pid()).num_fds()


def come_and_go(server, path, wrap, times):
    """Each way to leave in turn."""
    for n in range(times):
        s = sse.Stream.opened(server.port("tls"), path, wrap=wrap)
        if n % 3 == 0:
            s.client.reset()
        elif n % 3 == 1:
            s.client.sock.unwrap().close()
        s.close()
    server.wait_status(streams=0, reserved=0)


def test_connect_and_leave(small, origin, wrap):
    """Descriptors and workers afterwards are as they were."""
    path = origin.hold(unique(), b"open.")
    come_and_go(small, path, wrap, 20)  # links and connections to the origin are open now
    idle(small)
    child = small.children()
    before = descriptors(small)
    come_and_go(small, path, wrap, CYCLES)
    idle(small)
    assert small.children() == child
    wait_until(lambda: all(now <= then + 1 for now, then in zip(descriptors(small), before)),
               lambda: f"descriptors {before}, now {descriptors(small)}", timeout=10)


def test_hub_dies(small, origin, wrap):
    """Each stream ends with close_notify; a new one is held by the next hub."""
    channel = unique()
    path = origin.hold(channel, b"open.")
    old = small.hub_pid()
    small.allow(r"ES0\d\d\d")
    with sse.open_many(small.port("tls"), [path] * 20, wrap=wrap) as pool:
        small.wait_status(streams=20)
        os.kill(old, signal.SIGKILL)
        pool.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in pool.streams if s.reset]
        assert {s.body for s in pool.streams} == {b"open."}
    wait_until(lambda: small.hub_pid() not in (None, old), "the next hub")
    with sse.Stream.opened(small.port("tls"), path, wrap=wrap) as s:
        publish(small.port("publish"), item(channel, "one."), close_item(channel))
        s.wait_clean_end()
        assert s.body == b"open.one."
    small.wait_status(streams=0, reserved=0)
    small.allow(r"ES0\d\d\d")


@pytest.mark.parametrize("how", ["graceful", "restart"])
def test_restart(small, origin, wrap, how):
    """The streams of a child that ends go on; the child goes. prefork ends a child in a signal
    handler when the restart is not graceful: there they end, with close_notify."""
    channel = unique()
    path = origin.hold(channel, b"open.")
    children = set(small.children())
    goes_on = how == "graceful" or MPM != "prefork"
    with sse.open_many(small.port("tls"), [path] * 20, wrap=wrap) as pool:
        small.wait_status(streams=20)
        getattr(small, how)()
        wait_until(lambda: not children & set(small.children()), "the old child to end", timeout=10)
        if goes_on:
            publish(small.port("publish"), item(channel, "one."), close_item(channel))
        pool.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in pool.streams if s.reset]
        assert {s.body for s in pool.streams} == {b"open.one." if goes_on else b"open."}
    small.wait_status(streams=0, reserved=0)


def test_children_retire(make_httpd, origin, wrap):
    """MaxConnectionsPerChild: what a child held goes on; no slot stays taken."""
    server = make(make_httpd, origin, CONF.get(MPM, THREADS) + "MaxConnectionsPerChild 40\n",
                  "113_retire")
    channel = unique()
    path = origin.hold(channel, b"open.")
    first = set(server.children())
    with sse.Pool() as pool:
        while first & set(server.children()):
            assert len(pool.streams) < 2000, "2000 streams, and the first children are still there"
            for _ in range(20):
                try:
                    pool.add(sse.Stream.opened(server.port("tls"), path, wrap=wrap))
                except (OSError, sse.FramingError):
                    pass  # a retiring child drops a connection now and then
            pool.pump(0.02)
        publish(server.port("publish"), item(channel, "one."))
        pool.wait_all(lambda s: s.body == b"open.one." or s.eof, "the message")
        assert not [s for s in pool.streams if s.eof]
        server.wait_status(streams=len(pool.streams))
        idle(server)
    server.wait_status(streams=0, reserved=0)
    server.close()
