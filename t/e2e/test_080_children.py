# SPDX-License-Identifier: Apache-2.0
"""Several children with very few workers: what is published to one of them reaches everybody, and
held streams keep no worker."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import sse
from harness import HTTP2, MPM, MPM_HTTP2, only_http1, unique, wait_until
from publish import Publisher, item
from scenario import HUB_ALONE, ended_or_alive, reopen

FEW = {
    "prefork": "StartServers 3\nServerLimit 3\nMinSpareServers 1\nMaxSpareServers 3\n"
               "MaxRequestWorkers 3\n",
}
FEW_THREADS = ("StartServers 3\nServerLimit 3\nThreadsPerChild 2\nThreadLimit 2\n"
               "MinSpareThreads 2\nMaxSpareThreads 6\nMaxRequestWorkers 6\n")
if HTTP2:  # where each connection with streams keeps a thread
    FEW_THREADS = ("StartServers 3\nServerLimit 3\nThreadsPerChild 50\nThreadLimit 50\n"
                   "MinSpareThreads 50\nMaxSpareThreads 150\nMaxRequestWorkers 150\n")


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.mpm_conf = FEW.get(MPM, FEW_THREADS)
    server.grip_proxy(origin.port, server='CustomLog logs/main_log "%P %s %U"')
    server.publisher()
    server.add("KeepAlive Off")
    return server.start()


def open_at_once(port, paths, threads=6):
    """Opens streams from several threads, so that several children take them."""
    streams, failed = [], []

    def run(mine):
        try:
            streams.extend(sse.open_many(port, mine).streams)
        except Exception as e:
            failed.append(e)

    runners = [threading.Thread(target=run, args=(paths[n::threads],)) for n in range(threads)]
    for t in runners:
        t.start()
    for t in runners:
        t.join()
    if failed:
        raise failed[0]
    return sse.Pool(streams)


def test_once_each(httpd, origin):
    """600 streams in three children; each message is published to one and reaches every stream
    exactly once."""
    channel = unique()
    path = origin.hold(channel, b"open.")
    with open_at_once(httpd.port(), [path] * 600) as pool:
        httpd.wait_status(streams=600, reserved=0)
        want = b"open."
        for n in range(10):
            with Publisher(httpd.port("publish")) as pub:
                pub.text(channel, f"event {n};")
            want += f"event {n};".encode()
        pool.wait_all(lambda s: len(s.body) >= len(want), "ten messages")
        assert {s.body for s in pool.streams} == {want}
        published_by = {line.split()[-1] for line in httpd.access("publish")}

        # the server is as free as before: ordinary requests with 600 streams held
        plain = origin.answer(b"plain")
        for _ in range(50):
            with sse.Client(httpd.port()) as c:
                assert c.get(plain).body == b"plain"
    wait_until(lambda: len(httpd.access("main")) >= 650, "the access log")
    assert {line.split()[1] for line in httpd.access("main")} == {"200"}
    held_by = {line.split()[0] for line in httpd.access("main")}
    assert len(held_by) >= 2, "one child took everything: this test saw nothing"
    assert published_by
    httpd.wait_status(streams=0, reserved=0, channels=0)


@only_http1("over HTTP/2 a held stream keeps a worker: what does not fit waits")
def test_all_workers_at_once(httpd, origin):
    """More holds in flight than workers: they queue, and all are held."""
    channel = unique()
    go, waiting = threading.Event(), threading.Semaphore(0)

    def handler(request, write):
        waiting.release()
        assert go.wait(30)
        write(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: " + channel.encode()
              + b"\r\nContent-Length: 2\r\n\r\nok")

    path = origin.add(handler)
    with ThreadPoolExecutor(30) as executor:  # over TLS it takes a worker to connect
        opened = [executor.submit(sse.Stream.opened, httpd.port(), path) for _ in range(30)]
        try:
            for _ in range(3):
                assert waiting.acquire(timeout=30)
        finally:
            go.set()
    with sse.Pool(f.result() for f in opened) as pool:
        with Publisher(httpd.port("publish")) as pub:
            pub.text(channel, "x")
        pool.wait_all(lambda s: s.body == b"okx", "the message")
    httpd.wait_status(streams=0)


def test_children_retire(make_httpd, origin):
    """MaxConnectionsPerChild: children come and go, the streams that they took stay, or are ended
    properly where they need the child, or the child waits for them."""
    server = make_httpd("retire")
    server.mpm_conf = FEW.get(MPM, FEW_THREADS) + "MaxConnectionsPerChild 20\n"
    if HTTP2:  # a child that retires may keep its slot
        server.mpm_conf = MPM_HTTP2 + "MaxConnectionsPerChild 20\n"
    server.add("KeepAlive Off")
    server.grip_proxy(origin.port)
    server.publisher()
    server.start()
    channel = unique()
    path = origin.hold(channel, b"")
    first = set(server.children())
    with sse.Pool() as pool:
        while len(pool.streams) < 200:
            try:
                pool.add(sse.Stream.opened(server.port(), path))
            except (sse.FramingError, ConnectionError):
                pass  # a retiring child drops a connection now and then, without the module too
        if HUB_ALONE:
            server.wait_status(streams=200)

        def retired():
            pool.pump(0.01)
            now = set(server.children())
            # a child with HTTP/2 streams may stay as long as they do
            return now - first if HTTP2 else not first & now

        wait_until(retired, "the first children to retire")
        alive = ended_or_alive(server, pool, channel, b"")
        assert len(alive) == 200 or not HUB_ALONE
        with Publisher(server.port("publish")) as pub:
            pub.send(*[item(channel, f"{n};") for n in range(3)])
        pool.wait_all(lambda s: s.eof or s.body == b"after0;1;2;", "three messages")
        assert not [s for s in pool.streams if s.eof] or not HUB_ALONE
    server.wait_status(streams=0, reserved=0)


def test_child_is_killed(make_httpd, origin):
    """A child that dies takes no stream with it, or only those that need it, which the hub then
    forgets; and nothing stays reserved for it."""
    import os
    import signal
    server = make_httpd("killed")
    server.grip_proxy(origin.port)
    server.publisher()
    server.start()
    channel = unique()
    go = threading.Event()

    def handler(request, write):
        write(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: x\r\n"
              b"Content-Length: 9\r\n\r\na")
        go.wait(30)
        return False

    with sse.open_many(server.port(), [origin.hold(channel, b"")] * 20) as pool:
        slow = [sse.Stream(server.port(), origin.add(handler)) for _ in range(3)]
        try:
            server.wait_status(streams=20, reserved=3)
            server.allow(r"AH00052.*exit signal Killed", r"AH00051.*exit signal Killed",
                         r"\[eventstream:\w+\]")
            for pid in server.children():
                os.kill(pid, signal.SIGKILL)
            server.wait_status(streams=20 if HUB_ALONE else 0, reserved=0)
        finally:
            go.set()
        if not HUB_ALONE:
            pool.wait_all(lambda s: s.reset, "the end of its connection")
            pool.add(reopen(server.port(), origin.hold(channel, b"")))
        with Publisher(server.port("publish")) as pub:
            pub.text(channel, "x")
        pool.wait_all(lambda s: s.reset or s.body == b"x", "the message")
        for s in slow:
            s.close()
