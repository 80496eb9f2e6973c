# SPDX-License-Identifier: Apache-2.0
"""GRIP streams over TLS, 1.2 and 1.3: what a client of a plain stream sees, and TLS's own ends."""

import ssl
import time

import psutil
import pytest

import sse
from harness import TLS_CA, unique
from publish import Publisher, close_item, item, publish

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.add("EventStreamMaxLag 262144")
    server.tls_proxy(origin.port)
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


@pytest.fixture(params=list(VERSIONS))
def tls(request):
    return VERSIONS[request.param]


@pytest.fixture(autouse=True)
def nobody_left(httpd):
    httpd.wait_status(streams=0, reserved=0)
    yield
    httpd.wait_status(streams=0, reserved=0, channels=0)


def connect(httpd, tls, **args):
    client = sse.Client(httpd.port("tls"), wrap=sse.tls(TLS_CA, tls), **args)
    assert client.sock.version() == {v: f"TLSv{k}" for k, v in VERSIONS.items()}[tls]
    return client


def held(httpd, tls, path, **args):
    return sse.Stream.opened(None, path, client=connect(httpd, tls), **args)


def send(httpd, *items):
    publish(httpd.port("publish"), *items)


def test_held_stream(httpd, origin, channel, tls):
    """Head, initial body, events, close; then close_notify."""
    path = origin.hold(channel, b"event: stream-open\ndata:\n\n")
    before = httpd.status()
    with held(httpd, tls, path) as s:
        s.wait_body(b"event: stream-open\ndata:\n\n")
        send(httpd, item(channel, "data: one\n\n"))
        s.wait_for(b"data: one\n\n")
        send(httpd, item(channel, "data: two w\u00f6rld\n\n"))
        s.wait_for("data: two w\u00f6rld\n\n".encode())
        send(httpd, close_item(channel))
        s.wait_clean_end()
    assert s.body == "event: stream-open\ndata:\n\ndata: one\n\ndata: two w\u00f6rld\n\n".encode()
    assert (s.head.version, s.head.code, s.head.reason) == ("1.1", 200, "OK")
    assert s.head.chunked and s.head.get("Content-Type") == "text/event-stream"
    httpd.wait_status(streams=0)
    httpd.wait_ended(before, action=1)


def test_same_head_as_without_tls(httpd, origin, channel, tls):
    path = origin.hold(channel, b"x", headers=[
        ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; HttpOnly"), ("Vary", "Cookie"),
        ("Cache-Control", "no-cache"), ("grip-set-meta", 'user="1"'), ("ETag", '"v1"')])
    with held(httpd, tls, path) as s, sse.Stream.opened(httpd.port(), path) as plain:
        s.wait_body(b"x")
        plain.wait_body(b"x")
        hop = {"date"}
        assert [h for h in s.head.headers if h[0].lower() not in hop] \
            == [h for h in plain.head.headers if h[0].lower() not in hop]
    assert s.head.all("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
    assert not [n for n in s.head.names() if n.startswith("grip-")]


def test_http10(httpd, origin, channel, tls):
    """No chunks; the end of the body is close_notify."""
    with held(httpd, tls, origin.hold(channel, b"open."), version="1.0") as s:
        send(httpd, item(channel, "one."), close_item(channel))
        s.wait_clean_end()
    assert not s.chunked and s.body == b"open.one."


def test_large_initial_body(httpd, origin, channel, tls):
    body = b"".join(b"%07d " % n for n in range(131072))
    with held(httpd, tls, origin.hold(channel, body)) as s:
        s.wait_body(body)
        send(httpd, item(channel, "after"))
        s.wait_body(body + b"after")


def test_bursts(httpd, origin, channel, tls):
    """200 messages in one publish, and 200 one after the other."""
    with held(httpd, tls, origin.hold(channel, b"")) as s, \
            Publisher(httpd.port("publish")) as p:
        p.send(*[item(channel, f"{n};") for n in range(200)])
        for n in range(200, 400):
            p.text(channel, f"{n};")
        s.wait_body("".join(f"{n};" for n in range(400)).encode())


def test_large_messages(httpd, origin, channel, tls):
    """Messages larger than a TLS record, than the relay's buffer and than what sockets take."""
    with held(httpd, tls, origin.hold(channel, b"")) as s, \
            Publisher(httpd.port("publish")) as p:
        want = b""
        for n in range(8):
            text = f"<{n}>" * 100000
            p.text(channel, text)
            want += text.encode()
            s.wait_body(want)
        send(httpd, item(channel, "z" * 300000), close_item(channel))
        s.wait_clean_end()
        assert s.body == want + b"z" * 300000


def test_keep_alive(httpd, origin, channel, tls):
    path = origin.hold(channel, b"", headers=[("Grip-Keep-Alive", ":ka\\n\\n; format=cstring; "
                                                                  "timeout=1")])
    with held(httpd, tls, path) as s:
        s.wait_body(b":ka\n\n" * 2)


def test_application_data_before_the_stream(httpd, origin, channel, tls):
    """Ordinary answers on the connection first, the held one last."""
    plain, path = origin.answer(b"plain"), origin.hold(channel, b"open.")
    with connect(httpd, tls) as client:
        for _ in range(3):
            assert client.get(plain).body == b"plain"
        with sse.Stream.opened(None, path, client=client) as s:
            send(httpd, item(channel, "x"))
            s.wait_body(b"open.x")


def test_slow_reader_that_catches_up(httpd, origin, channel, tls):
    """The relay keeps what TLS does not take, in order, and goes on when the client reads."""
    message = "x" * 19990
    with sse.Stream.opened(None, origin.hold(channel, b""),
                           client=connect(httpd, tls, rcvbuf=4096)) as s, \
            Publisher(httpd.port("publish")) as p:
        for half in range(2):
            for n in range(12):
                p.text(channel, f"<{half * 12 + n:08}>{message}")
            s.wait_body(b"".join(b"<%08d>" % n + message.encode() for n in range(half * 12 + 12)))


def test_stalled_reader_is_cut(httpd, origin, channel, tls):
    """It does not delay the others, is cut for lag, and costs nothing while it does not read on."""
    path = origin.hold(channel, b"")
    message = "y" * 19990
    stalled = sse.Stream.opened(None, path, client=connect(httpd, tls, rcvbuf=4096))
    before = httpd.wait_status(streams=1)
    rss = httpd.hub_rss()
    httpd.allow(r"ES0201.*ended: lag")
    sent = 0
    with sse.open_many(httpd.port("tls"), [path] * 20, wrap=sse.tls(TLS_CA, tls)) as pool, \
            Publisher(httpd.port("publish")) as p:
        while httpd.status()["ended"]["lag"] == before["ended"]["lag"]:
            assert sent < 2000, "40 MB were published and the stalled reader is still there"
            p.send(*[item(channel, f"<{sent + n:08}>{message}") for n in range(10)])
            sent += 10
            pool.wait_all(lambda s: len(s.body) >= sent * 20000, "each message")
        whole = "".join(f"<{n:08}>{message}" for n in range(sent)).encode()
        assert {s.body for s in pool.streams} == {whole}
        httpd.wait_status(streams=20)
        httpd.wait_ended(before, lag=1)
        assert httpd.hub_rss() - rss < 16 << 20
        used = cpu(httpd)
        time.sleep(1)  # what the processor time of this second is compared with
        assert cpu(httpd) - used < 0.4, "a child works although nothing happens"
    stalled.wait_end()
    assert whole.startswith(stalled.body) and len(stalled.body) < len(whole)
    stalled.close()


def cpu(httpd):
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in httpd.children())
