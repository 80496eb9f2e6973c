# SPDX-License-Identifier: Apache-2.0
"""GRIP streams over HTTP/2, with TLS and without. mod_http2 does not run under prefork, and neither
does this file."""

import os
import signal
import subprocess
import threading

import pytest

import h2
import sse
from harness import MPM, TLS_CA, unique, wait_until
from publish import Publisher, close_item, item, publish

__test__ = MPM != "prefork"

KINDS = {"h2": h2.tls(TLS_CA), "h2c": None}


def make(make_httpd, origin, name=None):
    server = make_httpd(name, modules=["http2"])
    server.add("EventStreamMaxLag 262144\nH2MaxWorkers 32")
    server.tls_proxy(origin.port, "h2", server="Protocols h2 http/1.1")
    server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1", own=True)
    server.publisher()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    return make(make_httpd, origin)


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def nobody_left(httpd):
    httpd.wait_status(streams=0, reserved=0)
    yield
    httpd.wait_status(streams=0, reserved=0, channels=0)


def connect(httpd, kind, **args):
    c = h2.Connection(httpd.port(kind), wrap=KINDS[kind], **args)
    assert kind == "h2c" or c.sock.selected_alpn_protocol() == "h2"
    return c


def send(httpd, *items):
    publish(httpd.port("publish"), *items)


def test_held_stream(httpd, origin, channel, kind):
    """Initial body, events, close: END_STREAM. The connection is then good for the next request."""
    with connect(httpd, kind) as c:
        for _ in range(2):
            s = c.opened(origin.hold(channel, b"open."))
            s.wait_body(b"open.")
            send(httpd, item(channel, "one."))
            s.wait_body(b"open.one.")
            send(httpd, item(channel, "two w\u00f6rld."), close_item(channel))
            s.wait_end()
            assert s.body == "open.one.two w\u00f6rld.".encode()
            httpd.wait_status(streams=0)
        plain = c.get(origin.answer(b"plain"))
        plain.wait_end()
        assert plain.body == b"plain"


def test_as_curl_sees_it(httpd, origin, channel, kind):
    """The head of a held answer, and a body that ends properly."""
    path = origin.hold(channel, b"open.", headers=[
        ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; HttpOnly"), ("Vary", "Cookie"),
        ("grip-set-meta", 'user="1"'), ("Cache-Control", "no-cache")])
    how = {"h2": ["--http2", "--cacert", str(TLS_CA)], "h2c": ["--http2-prior-knowledge"]}[kind]
    scheme = {"h2": "https", "h2c": "http"}[kind]
    curl = subprocess.Popen(["curl", "-sS", "-N", "-i", *how, "--max-time", "60",
                             f"{scheme}://localhost:{httpd.port(kind)}{path}"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    httpd.wait_status(streams=1)
    send(httpd, item(channel, "one."), close_item(channel))
    said = curl.communicate(timeout=90)[0]
    assert curl.returncode == 0, said
    raw, body = said.split(b"\r\n\r\n", 1)
    lines = raw.decode().split("\r\n")
    assert lines[0].split() == ["HTTP/2", "200"] and body == b"open.one."
    head = [tuple(line.split(": ", 1)) for line in lines[1:]]
    assert [v for n, v in head if n == "set-cookie"] == ["a=1; Path=/", "b=2; HttpOnly"]
    assert ("content-type", "text/event-stream") in head and ("vary", "Cookie") in head
    names = {n for n, _ in head}
    assert not names & {"transfer-encoding", "content-length", "connection"}
    assert not [n for n in names if n.startswith("grip-")]


def test_several_on_one_connection(httpd, origin, kind):
    """Each gets what is for it and no more; each ends by itself."""
    names = [unique() for _ in range(5)]
    common = unique()
    with connect(httpd, kind) as c, Publisher(httpd.port("publish")) as p:
        streams = [c.opened(origin.hold([name, common], name.encode() + b";")) for name in names]
        httpd.wait_status(streams=5)
        want = [name.encode() + b";" for name in names]
        for n in range(20):
            for i, name in enumerate(names):
                p.text(name, f"{i}.{n};")
                want[i] += f"{i}.{n};".encode()
            p.text(common, "all;")
            want = [w + b"all;" for w in want]
        for s, w in zip(streams, want):
            s.wait(lambda: len(s.body) >= len(w), "its messages")
            assert sorted(s.body.split(b";")) == sorted(w.split(b";"))
        for i, s in enumerate(streams):
            p.send(close_item(names[i]))
            s.wait_end()
            httpd.wait_status(streams=4 - i)
        assert not c.eof and c.goaway is None


def test_large(httpd, origin, channel, kind):
    """1 MB of initial body, messages of 300 KB, bursts of 200: every byte, in order."""
    body = b"".join(b"%07d " % n for n in range(131072))
    with connect(httpd, kind, window=65535) as c, Publisher(httpd.port("publish")) as p:
        s = c.opened(origin.hold(channel, body))
        s.wait_body(body)
        for n in range(4):
            text = f"<{n}>" * 100000
            p.text(channel, text)
            body += text.encode()
            s.wait_body(body)
        p.send(*[item(channel, f"{n};") for n in range(200)])
        body += "".join(f"{n};" for n in range(200)).encode()
        s.wait_body(body)
        p.send(close_item(channel))
        s.wait_end()
        assert s.body == body


def test_keep_alive(httpd, origin, channel, kind):
    path = origin.hold(channel, b"", headers=[("Grip-Keep-Alive", "KA; timeout=1")])
    with connect(httpd, kind) as c:
        c.opened(path).wait_body(b"KA")


def test_one_is_cancelled(httpd, origin, channel, kind):
    """RST_STREAM of the client ends that stream alone."""
    path = origin.hold(channel, b"open.")
    with connect(httpd, kind) as c:
        streams = [c.opened(path) for _ in range(4)]
        before = httpd.wait_status(streams=4)
        gone = streams.pop(1)
        gone.cancel()
        httpd.wait_status(streams=3)
        httpd.wait_ended(before, client=1)
        send(httpd, item(channel, "x" * 50000))
        for s in streams:
            s.wait_body(b"open." + b"x" * 50000)
        again = c.opened(path)
        send(httpd, close_item(channel))
        for s in [*streams, again]:
            s.wait_end()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_connection_ends(httpd, origin, channel, kind, how):
    path = origin.hold(channel, b"open.")
    with connect(httpd, kind) as stays, connect(httpd, kind) as c:
        s = stays.opened(path)
        for _ in range(3):
            c.opened(path)
        before = httpd.wait_status(streams=4)
        getattr(c.client, how)()
        httpd.wait_status(streams=1)
        httpd.wait_ended(before, client=3)
        send(httpd, close_item(channel))
        s.wait_end()


def test_stalled_stream_is_cut(httpd, origin, channel, kind):
    """A stream whose client opens no window does not delay the others of its connection."""
    path = origin.hold(channel, b"")
    message = "x" * 19990
    httpd.allow(r"ES0201.*ended: lag")
    with connect(httpd, kind, window=65535) as c, Publisher(httpd.port("publish")) as p:
        stalled = c.get(path)
        stalled.reads = False
        stalled.wait(lambda: stalled.held, "its head")
        others = [c.opened(path) for _ in range(3)]
        before = httpd.wait_status(streams=4)
        sent = 0
        while httpd.status()["ended"]["lag"] == before["ended"]["lag"]:
            assert sent < 1000, "20 MB were published and the stalled stream is still there"
            p.send(*[item(channel, f"<{sent + n:08}>{message}") for n in range(5)])
            sent += 5
            for s in others:
                s.wait(lambda: len(s.body) >= sent * 20000, "each message")
        whole = "".join(f"<{n:08}>{message}" for n in range(sent)).encode()
        assert [s.body for s in others] == [whole] * 3
        httpd.wait_status(streams=3)
        httpd.wait_ended(before, lag=1)
        assert whole.startswith(stalled.body) and len(stalled.body) <= 65535
        p.send(close_item(channel))
        for s in others:
            s.wait_end()


def test_hub_dies(make_httpd, origin, kind):
    """Every stream ends, and the same connection can open new ones."""
    server = make(make_httpd, origin, f"hub-{kind}")
    channel = unique()
    path = origin.hold(channel, b"open.")
    with connect(server, kind) as c:
        streams = [c.opened(path) for _ in range(3)]
        for s in streams:
            s.wait_body(b"open.")
        server.allow(r"ES0\d\d\d")
        old = server.hub_pid()
        os.kill(old, signal.SIGKILL)
        for s in streams:
            s.wait(lambda: s.ended or s.reset is not None, "its end")
        wait_until(lambda: server.hub_pid() not in (None, old), "the next hub")
        s = c.opened(path)
        send(server, item(channel, "one."), close_item(channel))
        s.wait_end()
        assert s.body == b"open.one."
    server.wait_status(streams=0, reserved=0)
    server.allow(r"ES0\d\d\d")
    server.close()


def test_hub_dies_before_the_hold(make_httpd, origin, kind):
    """After the head, while the initial body is on its way: the stream ends there."""
    server = make(make_httpd, origin, f"early-{kind}")
    channel, go = unique(), threading.Event()

    def handler(request, write):
        write(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: " + channel.encode()
              + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nopen.\r\n")
        assert go.wait(30)
        write(b"0\r\n\r\n")  # no byte more that would take the end along

    with connect(server, kind) as c:
        s = c.opened(origin.add(handler))
        server.allow(r"ES0\d\d\d")
        old = server.hub_pid()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: server.hub_pid() not in (None, old), "the next hub")
        go.set()
        s.wait(lambda: s.ended or s.reset is not None, "its end")
    server.wait_status(streams=0, reserved=0)
    server.allow(r"ES0\d\d\d")
    server.close()


def test_graceful(make_httpd, origin, kind):
    """Streams end, and no child of the old generation stays."""
    server = make(make_httpd, origin, f"graceful-{kind}")
    path = origin.hold(unique(), b"open.")
    children = set(server.children())
    with connect(server, kind) as c:
        streams = [c.opened(path) for _ in range(3)]
        server.graceful()
        for s in streams:
            c.wait(lambda: s.ended or s.reset is not None or c.eof, "its end")
    # under worker the connection keeps its thread, and so its child, until the client closes it
    wait_until(lambda: not children & set(server.children()), "the old children to end")
    server.wait_status(streams=0, reserved=0)
    server.close()
