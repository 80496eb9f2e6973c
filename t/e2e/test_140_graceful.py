# SPDX-License-Identifier: Apache-2.0
"""Reloads in the middle of everything: held streams stay on the same connection and get each event
once, in order; keepers stay no longer than their streams. HTTP/2: test_141."""

import contextlib
import os
import re
import shutil
import ssl
import threading

import psutil
import pytest

import sse
from crowd import Crowd, Ticker
from harness import MPM, TLS_CA, WAIT, env_path, unique, wait_until
from publish import Publisher, close_item, item

THREADS = ("StartServers 2\nServerLimit 16\nThreadsPerChild 25\nThreadLimit 25\n"
           "MinSpareThreads 25\nMaxSpareThreads 50\nMaxRequestWorkers 50\n")
CONF = {"prefork": "StartServers 6\nServerLimit 20\nMinSpareServers 4\nMaxSpareServers 20\n"
                   "MaxRequestWorkers 20\n"}
STREAMS = 300
TLS_STREAMS = 300 if MPM != "prefork" else 100
RATE = 100
RELOADS = 5


def make(make_httpd, origin, name=None, modules=(), conf=None, lines=()):
    server = make_httpd(name, modules=list(modules))
    server.mpm_conf = conf or CONF.get(MPM, THREADS)
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port, server="Protocols h2 http/1.1" if "http2" in modules else "")
    server.publisher()
    server.endpoint = server.pull()
    for line in lines:
        server.add(line)
    return server.start()


@pytest.fixture(scope="module")
def shared(make_httpd, origin):
    return make(make_httpd, origin)


@pytest.fixture
def httpd(shared):
    """Idle at the start and at the end."""
    shared.wait_status(streams=0, reserved=0)
    yield shared
    shared.wait_status(streams=0, reserved=0)
    wait_until(lambda: not shared.keepers(), lambda: f"no keeper, {shared.keepers()}")


def numbered(origin, channel, **args):
    return origin.hold(channel, b":\n\n", **args)


def join(crowd, httpd, path, kind, count):
    if kind == "plain":
        return crowd.plain(httpd.port(), path, count)
    return crowd.tls(httpd.port("tls"), path, count, ssl.TLSVersion.TLSv1_3)


def stayed(crowd, ticker, first=1):
    """Every number from the first to the last, once, and nobody had to connect again."""
    last = ticker.stop()
    crowd.wait_number(last)
    assert not crowd.faults(), crowd.faults()
    for r in crowd.readers:
        assert not r.eof, f"a {r.kind} stream ended: {r.reset}"
        assert first is None or r.seen == last - first + 1, (r.kind, r.seen, last)


@pytest.mark.parametrize("by", ["http", "zmq"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_five_reloads(httpd, origin, channel, kind, by):
    """Hundreds of streams, a hundred publishes a second, five reloads in a row."""
    count = STREAMS if kind == "plain" else TLS_STREAMS
    with Crowd() as crowd:
        join(crowd, httpd, numbered(origin, channel), kind, count)
        httpd.wait_status(streams=count, reserved=0)
        with Ticker(httpd, channel, RATE, by=by) as ticker:
            ticker.wait_more(50)
            for _ in range(RELOADS):
                httpd.graceful()
                ticker.wait_more(50)
            stayed(crowd, ticker)
        httpd.wait_status(streams=count, reserved=0)


@pytest.mark.parametrize("by", ["http", "zmq"])
def test_five_restarts(httpd, origin, channel, by):
    """`restart` cuts requests in progress: a post may be lost without an answer; nothing else."""
    httpd.allow(r"AH00045")
    with Crowd() as crowd:
        join(crowd, httpd, numbered(origin, channel), "plain", STREAMS)
        with Ticker(httpd, channel, RATE, by=by, broken=True) as ticker:
            ticker.wait_more(50)
            for _ in range(RELOADS):
                httpd.restart()
                ticker.wait_more(50)
            last = ticker.stop()
            crowd.wait_number(last)
            assert not crowd.faults(ticker.maybe), crowd.faults(ticker.maybe)
            assert not [r for r in crowd.readers if r.eof]


def pattern(n, size=900000):
    """Bytes in which every place is different."""
    return (b"".join(b"%d:%07d " % (n, i) for i in range(size // 10)))[:size]


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_in_the_middle_of_a_message(httpd, origin, channel, kind):
    """A reader that is blocked within a big message over two reloads gets the rest of it, and what
    came after, byte for byte."""
    path = origin.hold(channel, b"")
    where = {"plain": (httpd.port(), None), "tls": (httpd.port("tls"), sse.tls(TLS_CA))}[kind]
    with sse.Stream.opened(where[0], path, rcvbuf=4096, wrap=where[1]) as s:
        want = b""
        for n in range(2):
            with Publisher(httpd.port("publish")) as p:
                p.text(channel, pattern(n).decode())
                want += pattern(n)
                s.wait(lambda: len(s.body) >= len(want) - 700000, "the first part of it")
                assert len(s.body) < len(want), "nothing is left to be sent after the reload"
            httpd.graceful()
            with Publisher(httpd.port("publish")) as p:
                p.text(channel, f"after {n};")
                want += f"after {n};".encode()
        s.wait_body(want)
        with Publisher(httpd.port("publish")) as p:
            p.send(close_item(channel))
        s.wait_clean_end()
        assert s.body == want, sse.difference(s.body, want)


def test_filters_and_ids(httpd, origin):
    """What a stream asked for is still done for it by the next hub: filters, meta, the id of the
    newest item."""
    a, b = unique(), unique()
    path = origin.hold([f"{a}; filter=skip-users", f"{b}; prev-id=7"], b"open;",
                       headers=[("Grip-Set-Meta", "user=me")])
    with sse.open_many(httpd.port(), [path] * 20) as pool:
        want = b"open;"

        def send(*items):
            with Publisher(httpd.port("publish")) as p:
                p.send(*items)

        for n in range(3):
            # the item that the application's answer had already; then the same of the last round
            send(item(b, "known;", id=str(7 + n)),
                 item(a, "not for me;", meta={"skip_users": "me"}),
                 item(a, f"for me {n};", meta={"skip_users": "you"}),
                 item(b, f"new {n};", id=str(8 + n)))
            want += f"for me {n};new {n};".encode()
            pool.wait_all(lambda s: len(s.body) >= len(want), "its messages")
            httpd.graceful()
        send(close_item(a))
        pool.wait_all(lambda s: s.eof, "the end")
        for s in pool.streams:
            assert s.body == want, sse.difference(s.body, want)


def test_build_id_goes_on(httpd, origin, channel):
    """build-id: the format and the ids are still the same."""
    path = origin.hold(f"{channel}; prev-id=1; filter=build-id", b"",
                       headers=[("Grip-Set-Meta", f'id_format="{channel}:%({channel})s"')])
    with sse.Stream.opened(httpd.port(), path) as s:
        for n in range(2, 5):
            with Publisher(httpd.port("publish")) as p:
                p.send(item(channel, "id: %I\ndata: x\n\n", id=str(n),
                            filters=["build-id"]))
            s.wait(lambda: s.body.count(b"data: x") == n - 1, "the event")
            httpd.graceful()
        ids = re.findall(rb"id: ([^\n]*)\ndata: x", s.body)
        assert [i.decode() for i in ids] == [f"{channel}:{n}" for n in range(2, 5)]


def test_keep_alives_go_on(httpd, origin, channel):
    path = origin.hold(channel, b"", headers=[("Grip-Keep-Alive", "KA; timeout=1; mode=interval")])
    with sse.Stream.opened(httpd.port(), path) as s:
        for n in range(3):
            s.wait(lambda: s.body.count(b"KA") >= 2 * n + 1, "keep-alives")
            httpd.graceful()
            s.wait(lambda: s.body.count(b"KA") >= 2 * n + 2, "keep-alives after the reload")


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_initial_body_over_a_reload(httpd, origin, channel, kind):
    """The application is still writing its answer: what is published before and after the reload
    comes behind it. Its child lives until then, although it was told to end."""
    go = threading.Event()

    def handler(request, write):
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\n"
              b"Grip-Channel: " + channel.encode() + b"\r\nContent-Length: 8\r\n\r\nini")
        assert go.wait(WAIT)
        write(b"tial;")

    port, wrap = {"plain": (httpd.port(), None), "tls": (httpd.port("tls"), sse.tls(TLS_CA))}[kind]
    path = origin.add(handler)
    try:
        with sse.Stream(port, path, wrap=wrap) as s:
            httpd.wait_status(reserved=1)
            for n in range(3):
                with Publisher(httpd.port("publish")) as p:
                    p.text(channel, f"{n};")
                httpd.graceful()
            httpd.wait_status(reserved=1, streams=0)
            go.set()
            s.wait_body(b"initial;0;1;2;")
            with Publisher(httpd.port("publish")) as p:
                p.text(channel, "3;")
                s.wait_body(b"initial;0;1;2;3;")
                p.send(close_item(channel))
            s.wait_clean_end()
    finally:
        go.set()


def test_another_number_of_threads(make_httpd, origin, channel):
    """The streams of one thread come to three, then to two, and to one; while numbers are sent."""
    server = make(make_httpd, origin, "140_threads", lines=["EventStreamThreads 1"])
    with Crowd() as crowd:
        crowd.plain(server.port(), numbered(origin, channel), 200)
        with Ticker(server, channel, RATE) as ticker:
            ticker.wait_more(20)
            for threads in (3, 2, 1, 4):
                server.lines[-1] = f"EventStreamThreads {threads}"
                server.write_config()
                server.graceful()
                wait_until(lambda: server.status()["hub"]["threads"] == threads, "the threads")
                ticker.wait_more(20)
            stayed(crowd, ticker)
        server.wait_status(streams=200)
    server.wait_status(streams=0, reserved=0)
    server.close()


def loaded(pid, path):
    """Does the process have this very file mapped? A file that was replaced is `(deleted)`."""
    real = os.path.realpath(path)
    with open(f"/proc/{pid}/maps") as f:
        return any(line.rstrip().endswith(real) for line in f)


@pytest.mark.parametrize("how", ["other-path", "same-path"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_another_version_of_the_module(make_httpd, origin, channel, kind, how):
    """LoadModule names a newer file, or a newer file was renamed over the old one: after a reload
    the newer one runs, and the streams are still there. Then the way back."""
    files = [env_path("ES_MODULE"), env_path("ES_MODULE_NEXT")]
    with open(files[0], "rb") as one, open(files[1], "rb") as two:
        assert one.read() != two.read()
    server = make_httpd(f"140_{kind}_{how[:5]}")
    mine = server.root / "mod_eventstream.so"

    def use(path):
        if how == "other-path":
            server.module = path
        else:
            new = server.root / "mod_eventstream.so.new"
            shutil.copy(path, new)
            new.chmod(0o644)
            new.rename(mine)
            server.module = mine
        server.write_config()

    use(files[0])
    server.mpm_conf = CONF.get(MPM, THREADS)
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    server.start()
    with Crowd() as crowd:
        join(crowd, server, numbered(origin, channel), kind, 100)
        with Ticker(server, channel, RATE) as ticker:
            ticker.wait_more(20)
            for n in range(1, 4):
                use(files[n % 2])
                old = server.hub_pid()
                server.graceful()
                wait_until(lambda: server.hub_pid() not in (None, old), "the next hub")
                assert loaded(server.hub_pid(), server.module)
                ticker.wait_more(20)
            stayed(crowd, ticker)
    server.wait_status(streams=0, reserved=0)
    wait_until(lambda: not server.keepers(), "no keeper")
    server.close()


def tls_connections(process):
    """Established TCP connections that a process has."""
    with contextlib.suppress(psutil.Error):
        return len([c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"])
    return 0


def test_keepers_of_twenty_reloads(httpd, origin, channel):
    """200 TLS streams. The children of the first reload leave a keeper each, later ones, which have
    no stream, none; and when the streams leave, the keepers do."""
    count = 200 if MPM != "prefork" else 100
    children = len(httpd.children())
    with Crowd() as crowd:
        join(crowd, httpd, numbered(origin, channel), "tls", count)
        children = max(children, len(httpd.children()))
        with Ticker(httpd, channel, 50) as ticker:
            for _ in range(20):
                httpd.graceful()
                keepers = httpd.keepers()
                assert len(keepers) <= children, f"{len(keepers)} keepers of {children} children"
            wait_until(lambda: sum(map(tls_connections, httpd.keepers())) == count,
                       lambda: f"{count}: {list(map(tls_connections, httpd.keepers()))}")
            assert all(tls_connections(k) for k in httpd.keepers())
            stayed(crowd, ticker)
        httpd.wait_status(streams=count)
        for c in list(crowd.connections)[:count // 2]:
            c.close()
        httpd.wait_status(streams=count - count // 2)
        wait_until(lambda: all(tls_connections(k) for k in httpd.keepers()), "no idle keeper")


def test_streams_that_come_and_go_over_reloads(httpd, origin, channel):
    """At each reload some leave and some join, so there are keepers of many generations: each has
    streams, and nobody who stays misses anything."""
    path = numbered(origin, channel)
    step = 10
    with Crowd() as crowd:
        with Ticker(httpd, channel, 50) as ticker:
            join(crowd, httpd, path, "tls", 5 * step)
            for _ in range(8):
                httpd.graceful()
                join(crowd, httpd, path, "tls", step)
                for c in list(crowd.connections)[:step]:
                    crowd.forget(c)
                    c.close()
            httpd.wait_status(streams=5 * step, reserved=0)
            ticker.wait_more(20)
            wait_until(lambda: all(tls_connections(k) for k in httpd.keepers()), "no idle keeper")
            stayed(crowd, ticker, first=None)
