# SPDX-License-Identifier: Apache-2.0
"""Many streams of numbered events, each judged while it is read, and who publishes the numbers.

  Reader   one stream; knows at every moment what it has seen, and what was wrong with that
  Crowd    many Readers, plain, TLS or HTTP/2, read by a thread of their own
  Ticker   publishes 1, 2, 3, ... at a rate, by HTTP or ZeroMQ

An event is what Ticker sends: `id: N`, `data: N`, an empty line. A Reader keeps no body, so that an
hour of them can be read. The first number that it sees may be any; after it each must be one more.
"""

import contextlib
import re
import selectors
import socket
import ssl
import struct
import threading
import time

import h2
import sse
from harness import TLS_CA, WAIT, wait_until
from publish import Push, body, item

EVENT = re.compile(rb"id: (\d+)\ndata: (\d+)\Z")


def event(n):
    return f"id: {n}\ndata: {n}\n\n"


class Reader:
    """What came on one stream, event by event."""

    def __init__(self, kind):
        self.kind = kind
        self.code = None        # the status, once the head is there
        self.last = None        # the newest number
        self.seen = 0           # numbers
        self.comments = 0       # keep-alives and the initial comment
        self.gaps = []          # (number before, number after)
        self.doubled = []       # numbers that came again
        self.strange = []       # anything else
        self.retry = None       # the milliseconds of a `retry:`
        self.retry_is_last = False
        self.ended = False      # the response ended as its framing says
        self.eof = False        # nothing more will come
        self.reset = None       # RST, or the end of TLS without close_notify, or RST_STREAM's code
        self.paused = False
        self._rest = b""

    def feed(self, data):
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for e in events:
            self.retry_is_last = False
            m = EVENT.match(e)
            if m and m[1] == m[2]:
                self._number(int(m[1]))
            elif e.startswith(b"retry: "):
                self.retry, self.retry_is_last = int(e[7:]), True
            elif e.startswith(b":"):
                self.comments += 1
            else:
                self.strange.append(e[:100])

    def _number(self, n):
        self.seen += 1
        if self.last is not None and n <= self.last:
            self.doubled.append(n)
            return
        if self.last is not None and n != self.last + 1:
            self.gaps.append((self.last, n))
        self.last = n

    def lost(self, maybe=()):
        """Numbers that did not come, but for those that may be missing."""
        return [n for a, b in self.gaps for n in range(a + 1, b) if n not in maybe]

    @property
    def torn(self):
        """Did it end in the middle of an event?"""
        return bool(self._rest)

    def faults(self, maybe=()):
        """What was wrong, as a text; empty: nothing."""
        said = []
        for what, value in (("lost", self.lost(maybe)), ("doubled", self.doubled),
                            ("strange", self.strange)):
            if value:
                said.append(f"{what} {len(value)}: {value[:5]}")
        return ", ".join(said)


class Http1(Reader):
    """On a connection of its own, plain or TLS."""

    def __init__(self, port, path, wrap=None, kind=None, client=None, headers=()):
        super().__init__(kind or ("tls" if wrap else "plain"))
        self.client = client or sse.Client(port, wrap=wrap)
        self.sock = self.client.sock
        self.client.request(path, headers=headers)
        self._chunks = None

    def wait_head(self):
        """Reads the head, before the reader joins a crowd."""
        head = self.client.read_head()
        self._head(head)
        return self

    def _head(self, head):
        self.code = head.code
        self._chunks = sse.Dechunker() if head.chunked else None
        data, self.client.buffer = self.client.buffer, b""
        if data:
            self._take(data)

    def _take(self, data):
        if self._chunks:
            data = self._chunks.feed(data)
            self.ended = self._chunks.ended
        self.feed(data)

    def receive(self):
        try:
            data = self.sock.recv(262144)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return
        except (ConnectionResetError, ssl.SSLError) as e:
            self.eof, self.reset = True, repr(e)
            return
        if not data:
            self.eof = True
        elif self.code is None:
            self.client.buffer += data
            if b"\r\n\r\n" in self.client.buffer:
                self._head(self.client.read_head())
        else:
            self._take(data)

    def readers(self):
        return [self]

    def close(self, how="close"):
        """`close` as a kernel does for a program that ends; `rst`; `notify`: TLS's polite way."""
        self.eof = True
        if how == "rst":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "notify":
            self.sock.setblocking(False)
            try:
                self.sock.unwrap()
            except (OSError, ValueError):
                pass  # it was sent; the answer is not waited for
        self.sock.close()


class Http2(Reader):
    def __init__(self, connection, path):
        super().__init__("h2" if isinstance(connection.sock, ssl.SSLSocket) else "h2c")
        self.stream = connection.get(path)

    def look(self):
        """Takes over what the connection has received for this stream."""
        s = self.stream
        if self.code is None and s.head is not None:
            self.code = 200 if s.held else 0
        if s.body:
            data, s.body = s.body, b""
            s.marks.clear()
            self.feed(data)
        self.ended, self.reset = s.ended, s.reset
        self.eof = s.ended or s.reset is not None or s.connection.eof


class Connection2:
    """An HTTP/2 connection with its streams, to a Crowd one thing to read."""

    def __init__(self, port, wrap):
        self.connection = h2.Connection(port, wrap=wrap)
        self.connection.frame = self._frame
        self.sock = self.connection.sock
        self.streams = []
        self.eof = False

    def open(self, path):
        reader = Http2(self.connection, path)
        self.streams.append(reader)
        return reader

    def _frame(self, *args):
        """What we send may find the connection closed; what came before that still counts."""
        with contextlib.suppress(OSError):
            h2.Connection.frame(self.connection, *args)

    def wait_heads(self):
        self.connection.wait(lambda: all(r.stream.head is not None for r in self.streams),
                             "the heads of its streams")
        for r in self.streams:
            r.look()
        return self

    def receive(self):
        try:
            self.connection.receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            self.connection.eof = True
        for r in self.streams:
            r.look()
        self.eof = self.connection.eof

    def readers(self):
        return self.streams

    def close(self, how="close"):
        for r in self.streams:
            r.eof = True
        self.connection.client.reset() if how == "rst" else self.connection.client.close()


class Crowd:
    """Connections that a thread reads. Counts who has which number without asking everybody."""

    def __init__(self):
        self.connections = []
        self.failed = None
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop = True
        self._thread.join(30)
        for c in self.connections:
            c.close()
        self._selector.close()

    # ---- who is in it ----------------------------------------------------------------------

    def add(self, connection):
        connection.sock.setblocking(False)
        with self._lock:
            self.connections.append(connection)
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        return connection

    def forget(self, connection):
        with self._lock:
            self._unregister(connection)
            self.connections.remove(connection)

    def _unregister(self, connection):
        try:
            self._selector.unregister(connection.sock)
        except (KeyError, ValueError):
            pass

    def pause(self, connection):
        """It is not read any more."""
        with self._lock:
            self._unregister(connection)
        for r in connection.readers():
            r.paused = True

    def resume(self, connection):
        with self._lock:
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        for r in connection.readers():
            r.paused = False

    def plain(self, port, path, count):
        return [self.add(c) for c in connect_many(count, lambda: Http1(port, path).wait_head())]

    def tls(self, port, path, count, version=None):
        wrap = sse.tls(TLS_CA, version)
        return [self.add(c) for c in
                connect_many(count, lambda: Http1(port, path, wrap).wait_head())]

    def http2(self, port, path, connections, streams, wrap=None):
        def connect():
            c = Connection2(port, wrap)
            for _ in range(streams):
                c.open(path)
            return c.wait_heads()

        return [self.add(c) for c in connect_many(connections, connect)]

    @property
    def readers(self):
        return [r for c in list(self.connections) for r in c.readers()]

    # ---- reading ---------------------------------------------------------------------------

    def _run(self):
        try:
            while not self._stop:
                if not self._selector.get_map():
                    time.sleep(0.01)
                    continue
                for key, _ in self._selector.select(0.1):
                    if not key.data.eof:
                        key.data.receive()
                    if key.data.eof:
                        with self._lock:
                            self._unregister(key.data)
        except Exception as e:
            self.failed = e

    def wait_all(self, condition, what, readers=None, timeout=WAIT):
        waiting = list(self.readers if readers is None else readers)
        count = len(waiting)

        def done():
            assert self.failed is None, repr(self.failed)
            waiting[:] = [r for r in waiting if not condition(r)]
            return not waiting

        def say():
            r = waiting[0]
            return (f"{what}: {len(waiting)} of {count} have not; one: {r.kind}, last {r.last}, "
                    f"eof {r.eof}, ended {r.ended}, reset {r.reset}, {r.faults()}")

        wait_until(done, say, timeout, 0.02)

    def wait_number(self, n, readers=None, timeout=WAIT):
        """Waits until each has seen number n, or more."""
        def there(r):
            assert not r.eof or (r.last or 0) >= n, \
                f"a {r.kind} stream ended after number {r.last}: {r.reset or 'no reset'}"
            return (r.last or 0) >= n

        self.wait_all(there, f"number {n}", readers, timeout)

    def faults(self, maybe=()):
        """The first few streams on which something was wrong."""
        bad = [f"{r.kind}: {said}" for r in self.readers if (said := r.faults(maybe))]
        return f"{len(bad)} of {len(self.readers)} streams: {bad[:5]}" if bad else ""


def connect_many(count, connect, threads=4):
    """What `connect` returned, count times, from several threads."""
    made, failed = [], []

    def run(share):
        try:
            for _ in range(share):
                made.append(connect())
        except BaseException as e:
            failed.append(e)

    shares = [count // threads + (1 if n < count % threads else 0) for n in range(threads)]
    running = [threading.Thread(target=run, args=(n,)) for n in shares if n]
    for t in running:
        t.start()
    for t in running:
        t.join()
    if failed:
        for c in made:
            c.close()
        raise failed[0]
    return made


class Ticker:
    """Publishes numbers, with ids, until it is stopped. `maybe` are those whose post broke off:
    they may or may not have been published. Anything else but 200 is in `wrong`."""

    def __init__(self, httpd, channel, rate=100, *, by="http", broken=False, first=1):
        self.httpd, self.channel, self.rate, self.by = httpd, channel, rate, by
        self.broken = broken
        self.sent = first - 1   # the newest number that was published
        self.maybe = set()
        self.wrong = []
        self.slowest = 0.0      # seconds of the longest post
        self.before = None      # called with a number before it is published
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        """Stops it; returns the newest number that was published."""
        self._stop.set()
        self._thread.join(60)
        assert not self.wrong, self.wrong[:5]
        return self.sent

    def wait_more(self, count, timeout=WAIT):
        """Waits until so many more numbers are published."""
        want = self.sent + count
        wait_until(lambda: self.sent >= want or self.wrong or not self._thread.is_alive(),
                   lambda: f"number {want}; it is at {self.sent}", timeout)
        assert not self.wrong, self.wrong[:5]
        assert self.sent >= want, "the publisher has stopped"

    def made(self, n):
        return item(self.channel, event(n), id=str(n), prev_id=str(n - 1))

    def _run(self):
        try:
            if self.by == "zmq":
                with Push(self.httpd.endpoint) as push:
                    self._loop(lambda n: self._push(push, n))
            else:
                self._loop(self._post)
        except BaseException as e:
            self.wrong.append(repr(e))

    def _loop(self, send):
        n, due = self.sent, time.monotonic()
        while not self._stop.is_set():
            n += 1
            if self.before:
                self.before(n)
            began = time.monotonic()
            send(n)
            self.slowest = max(self.slowest, time.monotonic() - began)
            due = max(due + 1 / self.rate, time.monotonic() - 1)  # late: catches up a little
            self._stop.wait(max(0, due - time.monotonic()))

    def _push(self, push, n):
        push.bare(self.made(n))
        self.sent = n

    def _post(self, n):
        try:
            with sse.Client(self.httpd.port("publish")) as c:
                answer = c.post("/publish/", body([self.made(n)]))
        except (OSError, sse.FramingError) as e:
            if not self.broken:
                self.wrong.append(f"{n}: {e!r}")
            self.maybe.add(n)
            return
        if answer.code == 200:
            self.sent = n
        else:
            self.wrong.append(f"{n}: {answer!r}")
