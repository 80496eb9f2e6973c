# SPDX-License-Identifier: Apache-2.0
"""EventStreamMaxStreams and EventStreamMaxStreamsPerClient: who is refused, what he is told, what
the log says, and that there is room again when streams leave."""

import re

import h2
import sse
from harness import MPM, TLS_CA, wait_until
from publish import Publisher


def make(make_httpd, origin, name, directives):
    server = make_httpd(name, modules=["remoteip"] + (["http2"] if MPM != "prefork" else []))
    server.add(directives)
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port)
    server.grip_proxy(origin.port, "behind", server="RemoteIPHeader X-Forwarded-For\n"
                                                    "RemoteIPInternalProxy 127.0.0.1")
    if MPM != "prefork":
        server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1")
    server.publisher()
    return server.start()


def refused(server, path, name="main", **args):
    """A request that finds no room: 503, and when to come again. An answer that needs no room is
    served all the same."""
    wrap = sse.tls(TLS_CA) if name == "tls" else None
    with sse.Client(server.port(name), wrap=wrap) as c:
        answer = c.get(path, **args)
    assert answer.code == 503, answer
    assert answer.get("Retry-After") == "5"
    assert answer.get("Content-Type") != "text/event-stream"


def test_max_streams(make_httpd, origin, channel):
    """All ways of holding count together. The log names the directive and the numbers."""
    server = make(make_httpd, origin, "130_max", "EventStreamMaxStreams 30")
    path = origin.hold(channel, b"open.")
    with sse.open_many(server.port(), [path] * 15) as plain, \
            sse.open_many(server.port("tls"), [path] * 15, wrap=sse.tls(TLS_CA)) as tls, \
            Publisher(server.port("publish")) as pub:
        server.wait_status(streams=30, reserved=0)
        since = server.log_mark()
        for name in ("main", "tls", "behind"):
            refused(server, path, name)
        server.wait_log(r"\[eventstream:warn\].*ES0340: a stream is refused: 30 streams are held; "
                        r"EventStreamMaxStreams 30 is reached", since)
        with sse.Client(server.port()) as c:  # what is not held needs no room
            assert c.get(origin.answer(b"plain")).body == b"plain"
        pub.text(channel, "x")
        for pool in (plain, tls):
            pool.wait_all(lambda s: s.body == b"open.x", "the message")
        for _ in range(5):  # one leaves, one comes
            for pool, name in ((plain, "tls"), (tls, "main")):
                gone = pool.streams[0]
                pool.drop(gone)
                gone.close()
                server.wait_status(streams=29, reserved=0)
                wrap = sse.tls(TLS_CA) if name == "tls" else None
                pool.add(sse.Stream.opened(server.port(name), path, wrap=wrap))
                server.wait_status(streams=30, reserved=0)
                refused(server, path)
        pub.text(channel, "y")
        for pool in (plain, tls):
            pool.wait_all(lambda s: s.body.endswith(b"y"), "the message")
    server.wait_status(streams=0, reserved=0, channels=0)
    with sse.open_many(server.port(), [path] * 30):
        server.wait_status(streams=30)
        refused(server, path)


def test_max_streams_under_attack(make_httpd, origin, channel):
    """A hundred requests too many: the log has a few lines at warn, none at error."""
    server = make(make_httpd, origin, "130_attack", "EventStreamMaxStreams 5")
    path = origin.hold(channel, b"")
    with sse.open_many(server.port(), [path] * 5):
        server.wait_status(streams=5)
        since = server.log_mark()
        server.allow(r"ES0340|ES0304")
        for _ in range(100):
            refused(server, path)
        said = server.log_text()[since:]
        assert 1 <= len(re.findall(r"ES0340", said)) <= 20
        assert len(re.findall(r"\[eventstream:info\].*ES0090: the hub is full: 5 streams", said)) \
            == 100
        assert server.status()["streams"] == 5


def test_max_streams_per_client(make_httpd, origin, channel):
    """Addresses as mod_remoteip makes them; other clients are not concerned."""
    server = make(make_httpd, origin, "130_client", "EventStreamMaxStreamsPerClient 3")
    path = origin.hold(channel, b"")
    server.allow(r"ES0341.*EventStreamMaxStreamsPerClient 3")
    addresses = ["203.0.113.7", "203.0.113.70", "2001:db8::7", "2001:db8::70"]
    with sse.Pool() as pool:
        def come(address):
            return pool.add(sse.Stream.opened(server.port("behind"), path,
                                              headers=[("X-Forwarded-For", address)]))

        for address in addresses:
            mine = [come(address) for _ in range(3)]
            since = server.log_mark()
            refused(server, path, "behind", headers=[("X-Forwarded-For", address)])
            server.wait_log(rf"ES0341: a stream is refused: 3 streams of the client "
                            rf"{re.escape(address)} are held; EventStreamMaxStreamsPerClient 3",
                            since)
            # one leaves, one comes
            pool.drop(mine[0])
            mine[0].close()
            server.wait_status(streams=len(pool.streams), reserved=0)
            come(address)
            refused(server, path, "behind", headers=[("X-Forwarded-For", address)])
        # the proxy's own address is another client, whatever the way
        for name in ["main", "tls", "main"]:
            wrap = sse.tls(TLS_CA) if name == "tls" else None
            pool.add(sse.Stream.opened(server.port(name), path, wrap=wrap))
        for name in ["main", "tls"]:
            refused(server, path, name)
        assert server.wait_status(reserved=0)["streams"] == 15
        with Publisher(server.port("publish")) as pub:
            pub.text(channel, "x")
        pool.wait_all(lambda s: s.body == b"x", "the message")
    server.wait_status(streams=0)
    for _ in range(3):  # counts do not drift
        with sse.open_many(server.port(), [path] * 3):
            refused(server, path)
        server.wait_status(streams=0)


def test_reserved_streams_count(make_httpd, origin, channel):
    """A stream whose initial body is still being written has its place already."""
    server = make(make_httpd, origin, "130_reserved", "EventStreamMaxStreams 1")
    go_on = []

    def slowly(request, write):
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\n"
              b"Grip-Channel: %s\r\nContent-Length: 10\r\n\r\nhello" % channel.encode())
        wait_until(lambda: go_on, "the test")
        write(b"world")

    server.allow(r"ES0340")
    with sse.Stream(server.port(), origin.add(slowly)) as s:
        server.wait_status(reserved=1, streams=0)
        refused(server, origin.hold(channel, b""))
        go_on.append(True)
        s.read_head()
        s.wait_body(b"helloworld")
        server.wait_status(reserved=0, streams=1)


def http2(make_httpd, origin, channel):
    """A stream of a connection that has others: it alone gets the 503."""
    server = make(make_httpd, origin, "130_h2", "EventStreamMaxStreams 2")
    path = origin.hold(channel, b"")
    server.allow(r"ES0340")
    with h2.Connection(server.port("h2c")) as c:
        a, b = c.opened(path), c.opened(path)
        server.wait_status(streams=2)
        third = c.get(path)
        third.wait(lambda: third.head is not None, "its head")
        assert not third.held
        third.wait_end()
        a.cancel()
        server.wait_status(streams=1, reserved=0)
        c.opened(path)
        assert b.reset is None


if MPM != "prefork":  # mod_http2 does not run there
    test_http2 = http2
