# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 streams cannot outlive their child. One that stops gracefully ends them over
EventStreamDrain, each between two events and with a `retry:`. mod_http2 does not run under prefork,
and neither does this file."""

import re
import signal
import threading
import time

import psutil
import pytest

import h2
import sse
from harness import MPM, TLS_CA, unique, wait_until
from publish import Push, item

__test__ = MPM != "prefork"

KINDS = {"h2": h2.tls(TLS_CA), "h2c": None}
LONG = 25.0  # seconds that a stop may take which waits for no drain
RETRY = rb"retry: (\d+)\n\n"
RETIRE = ("StartServers 2\nServerLimit 6\nThreadsPerChild 8\nThreadLimit 8\nMinSpareThreads 8\n"
          "MaxSpareThreads 48\nMaxRequestWorkers 48\nMaxConnectionsPerChild 30\n")


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def server_of(make_httpd, origin):
    made = []

    def make(drain, mpm_conf=None):
        server = make_httpd(unique("drain"), modules=["http2"])
        server.mpm_conf = mpm_conf or server.mpm_conf
        server.add(f"{drain}\nH2MaxWorkers 32\nGracefulShutdownTimeout 60")
        server.tls_proxy(origin.port, "h2", server="Protocols h2 http/1.1")
        server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1")
        server.endpoint = server.pull()
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.close()


def connect(server, kind):
    return h2.Connection(server.port(kind), wrap=KINDS[kind])


class Stopping:
    """A stop in the background: signal.SIGWINCH is graceful-stop, during which the hub lives. The
    connections close before its end is waited for: under worker, mod_http2 keeps a connection, and
    so the child, until the client has closed it."""

    def __init__(self, server, number=signal.SIGWINCH):
        self.took = []
        self.thread = threading.Thread(target=lambda: self.took.append(server.stop(number, 90)))

    def __enter__(self):
        return self

    def begin(self):
        self.thread.start()

    def __exit__(self, *exc):
        if self.thread.ident:
            self.thread.join(100)
        assert exc[0] or self.took, "the stop failed"


def ended_with_retry(stream, body):
    """Its proper end, and a reconnection time of 1 to 3 s as the last word."""
    stream.wait_end()
    found = re.fullmatch(re.escape(body) + RETRY, stream.body)
    assert found, stream.body
    assert 1000 <= int(found[1]) <= 3000


def test_graceful_stop(server_of, origin, channel, kind):
    """Streams on several connections, with events and without: all end, properly, by themselves."""
    server = server_of("EventStreamDrain 2")
    path, silent = origin.hold(channel, b"open:\n\n"), origin.hold(unique(), b"")
    with Stopping(server) as stopping, connect(server, kind) as a, connect(server, kind) as b, \
            Push(server.endpoint) as push:
        streams = [c.opened(path) for c in (a, b, a, b)]
        others = [c.opened(silent) for c in (a, b)]
        server.wait_status(streams=6)
        for n in range(3):
            push.bare(item(channel, f"data: {n}\n\n"))
        want = b"open:\n\ndata: 0\n\ndata: 1\n\ndata: 2\n\n"
        for s in streams:
            s.wait_body(want)
        stopping.begin()
        for s in streams:
            ended_with_retry(s, want)
        for s in others:
            ended_with_retry(s, b"")
        assert a.goaway and b.goaway


def test_child_retires(server_of, origin, channel, kind):
    """MaxConnectionsPerChild: its streams end, and the next child takes them."""
    server = server_of("EventStreamDrain 2s", RETIRE)
    path = origin.hold(channel, b":\n\n")
    hub = server.find_hub()
    parent = psutil.Process(server.process.pid)

    def children():
        return {p.pid for p in parent.children() if p.pid != hub}

    old = children()
    with connect(server, kind) as c, Push(server.endpoint) as push:
        streams = [c.opened(path) for _ in range(4)]
        server.wait_status(streams=4)
        push.bare(item(channel, "data: 0\n\n"))
        for s in streams:
            s.wait_body(b":\n\ndata: 0\n\n")
        done = threading.Event()

        def knock():
            while not done.is_set():
                server.answers()
                done.wait(0.005)

        knocking = threading.Thread(target=knock)
        knocking.start()
        try:
            for s in streams:
                ended_with_retry(s, b":\n\ndata: 0\n\n")
        finally:
            done.set()
            knocking.join()
    wait_until(lambda: server.answers() and not old & children(), "the old children to end")


def test_half_an_event(server_of, origin):
    """A stream that is in the middle of an event gets its rest before it ends, however its lines
    end."""
    server = server_of("EventStreamDrain 15000ms")
    blanks = {unique(): blank for blank in ("\n\n", "\r\n\r\n", "\r\r", "\n\r\n")}
    with Stopping(server) as stopping, connect(server, "h2c") as c, Push(server.endpoint) as push:
        streams = {channel: c.opened(origin.hold(channel, b"")) for channel in blanks}
        server.wait_status(streams=4)
        for channel, s in streams.items():
            push.bare(item(channel, "data: the first half"))
            s.wait_body(b"data: the first half")
        stopping.begin()
        c.wait(lambda: c.goaway, "GOAWAY")
        for channel, s in streams.items():
            push.bare(item(channel, " and" + blanks[channel][:-1]))
            s.wait_for(b" and" + blanks[channel][:-1].encode())
            push.bare(item(channel, blanks[channel][-1]))
        for channel, s in streams.items():
            ended_with_retry(s, b"data: the first half and" + blanks[channel].encode())


def test_half_an_event_without_rest(server_of, origin, channel, kind):
    """Nobody waits longer than the drain lasts; nothing is put into the event."""
    server = server_of("EventStreamDrain 1")
    with Stopping(server) as stopping, connect(server, kind) as c, Push(server.endpoint) as push:
        s = c.opened(origin.hold(channel, b""))
        server.wait_status(streams=1)
        push.bare(item(channel, "data: half\n"))
        s.wait_body(b"data: half\n")
        stopping.begin()
        s.wait_end()
        assert s.body == b"data: half\n"


def test_no_drain(server_of, origin, channel, kind):
    server = server_of("EventStreamDrain 0")
    with Stopping(server) as stopping, connect(server, kind) as c:
        s = c.opened(origin.hold(channel, b":\n\n"))
        server.wait_status(streams=1)
        stopping.begin()
        ended_with_retry(s, b":\n\n")
    assert stopping.took[0] < LONG


def test_other_types(server_of, origin, channel, kind):
    """What is no event stream just ends."""
    server = server_of("EventStreamDrain 1")
    with Stopping(server) as stopping, connect(server, kind) as c:
        streams = [c.opened(origin.hold(channel, b"open.", type=t))
                   for t in ("text/plain", "text/event-stream-not", "application/json")]
        typed = c.opened(origin.hold(channel, b":\n\n", type="Text/Event-Stream; charset=utf-8"))
        server.wait_status(streams=4)
        stopping.begin()
        for s in streams:
            s.wait_end()
            assert s.body == b"open."
        ended_with_retry(typed, b":\n\n")


@pytest.mark.parametrize("how", ["stop", "restart"])
def test_no_drain_at_once(server_of, origin, channel, kind, how):
    """An ungraceful end waits for nothing."""
    server = server_of("EventStreamDrain 1h")
    with connect(server, kind) as c:
        streams = [c.opened(origin.hold(channel, b"open.")) for _ in range(3)]
        server.wait_status(streams=3)
        began = time.monotonic()
        getattr(server, how)()
        assert time.monotonic() - began < LONG
        for s in streams:
            c.wait(lambda: s.ended or s.reset is not None or c.eof, "its end")
            assert s.body == b"open."


def test_reload(server_of, origin, channel, kind):
    """The hub goes on, the child ends: END_STREAM for each, a `retry:` behind the body."""
    server = server_of("EventStreamDrain 2")
    old = set(server.children())
    with connect(server, kind) as c:
        streams = [c.opened(origin.hold(channel, b":\n\n")) for _ in range(4)]
        server.wait_status(streams=4)
        server.graceful()
        for s in streams:
            s.wait_end()
            assert re.fullmatch(rb":\n\n" + RETRY, s.body), s.body
    wait_until(lambda: not old & set(server.children()), "the old children to end")
    server.wait_status(streams=0, reserved=0)


def test_pipelining_client(server_of, origin, channel):
    """Over TLS without HTTP/2, in chunks of the hub's: it ends, and the server stops."""
    server = server_of("EventStreamDrain 1")
    path = origin.hold(channel, b"open.")
    client = sse.Client(server.port("h2"), wrap=sse.tls(TLS_CA))
    client.send(sse.request_bytes(path) + sse.request_bytes(origin.answer(b"plain")))
    client.request = lambda target, **args: None
    with Stopping(server) as stopping, sse.Stream.opened(None, path, client=client) as s:
        server.wait_status(streams=1)
        stopping.begin()
        s.wait_end()
        assert s.body == b"open." and not s.reset
