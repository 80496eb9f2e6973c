# SPDX-License-Identifier: Apache-2.0
"""Clients of the native endpoint that come back, as EventSource does, many at once.

  Follower   one client. It drops its connection at moments that nobody chose, in the middle of an
             event too, and comes back with the id of the last event that came whole; so it does
             when it is refused, cut or ended. It knows what it has seen, by content.
  Company    many Followers, read by one thread

Every other Follower speaks HTTP/1.0, so that both framings are read.
"""

import contextlib
import random
import selectors
import socket
import struct
import time
from urllib.parse import quote

import sse
from harness import wait_until

RETRY = (0.02, 0.25)  # seconds before it connects again


class Follower:
    """`first`: what it asks for on its first connection, a Last-Event-ID or None; `bytes`: between
    two drops, at most."""

    def __init__(self, port, channels, *, first=None, bytes=20000, seed=0, path="/events/"):
        self.port = port
        self.channels = list(channels)
        self.target = path + "?channel=" + ",".join(quote(c, safe="") for c in self.channels)
        self.last_id = first
        self.version = "1.0" if seed % 2 else "1.1"
        self.chance = random.Random(seed)
        self.bytes = bytes
        self.restless = True    # does it drop by itself?
        self.seen = []          # the data of each event, in order
        self.named = []         # (name, data) of those that have a name
        self.connects = self.drops = self.refused = self.ends = 0
        self.in_event = 0       # drops in the middle of an event
        self.held = False       # is the stream open now?
        self.sock = None
        self.due = 0.0          # when to connect next

    def connect(self):
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", self.port))
        self.connects += 1
        self.held = False
        self._sent = False
        self._head = None
        self._raw = b""
        self._rest = b""
        self._chunks = None
        self._left = self.chance.randrange(2500, self.bytes)

    def close(self, pause=True):
        if self.sock:
            with contextlib.suppress(OSError):
                if self.chance.random() < 0.5:  # RST
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                         struct.pack("ii", 1, 0))
            self.sock.close()
        self.sock = None
        self.held = False
        self.due = time.monotonic() + (self.chance.uniform(*RETRY) if pause else 0)

    def drop(self):
        self.drops += 1
        self.in_event += self._rest != b""
        self.close()

    def write(self):
        """The connection is there, or was refused."""
        headers = [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")]
        if self.last_id is not None:
            headers.append(("Last-Event-ID", self.last_id))
        try:
            self.sock.sendall(sse.request_bytes(self.target, headers=headers,
                                                version=self.version))
        except OSError:
            self.ends += 1
            self.close()
            return False
        self._sent = True
        return True

    def read(self):
        """False: this connection is over."""
        try:
            data = self.sock.recv(16384)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self.ends += 1
            self.close()
            return False
        if self._head is None:
            data = self._take_head(data)
            if data is None:
                return self.sock is not None
        if self._chunks:
            data = self._chunks.feed(data)
        if self.restless:
            data = data[:self._left]  # what would have come behind it is not read any more
        self._take(data)
        self._left -= len(data)
        if self.restless and self._left <= 0:
            self.drop()
            return False
        return True

    def _take_head(self, data):
        self._raw += data
        if b"\r\n\r\n" not in self._raw:
            return None
        raw, _, rest = self._raw.partition(b"\r\n\r\n")
        self._head = sse.Head(raw)
        if self._head.code != 200:
            assert self._head.code == 503, raw
            self.refused += 1
            self.close()
            return None
        if self._head.chunked:
            self._chunks = sse.Dechunker()
        return rest

    def _take(self, data):
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for e in events:
            if e.startswith(b"id: "):
                id, _, text = e.partition(b"\n")
                assert text.startswith(b"data: "), e
                self.last_id = id[4:].decode()
                self.seen.append(text[6:].decode())
            elif e.startswith(b"event: "):
                name, _, text = e.partition(b"\n")
                if name == b"event: stream-open":
                    self.held = True
                else:
                    self.named.append((name[7:].decode(), text.decode()))
            else:
                assert e.startswith((b":", b"retry: ")), e

    @property
    def resets(self):
        return [d for n, d in self.named if n == "stream-reset"]


class Company:
    """Many Followers and the selector that reads them."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.all = []
        self.away = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.selector.close()
        for f in self.all:
            if f.sock:
                f.sock.close()

    def add(self, *followers):
        self.all += followers
        self.away += followers
        return self

    def _start(self):
        now = time.monotonic()
        due = [f for f in self.away if f.due <= now]
        for f in due[:20]:
            self.away.remove(f)
            f.connect()
            self.selector.register(f.sock, selectors.EVENT_WRITE, f)

    def pump(self, seconds=0.02):
        self._start()
        if not self.selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self.selector.select(seconds):
            f, sock = key.data, key.fileobj
            fd = sock.fileno()
            on = f.read() if f._sent else f.write()
            if not on:
                self.selector.unregister(fd if fd >= 0 else sock)
                self.away.append(f)
            elif f._sent and key.events & selectors.EVENT_WRITE:
                self.selector.modify(sock, selectors.EVENT_READ, f)

    def wait(self, condition, what, timeout=60):
        """Reads on until the condition holds for each, or raises."""
        waiting = set(self.all)

        def done():
            self.pump()
            waiting.difference_update([f for f in waiting if condition(f)])
            return not waiting

        def say():
            f = min(waiting, key=lambda f: len(f.seen))
            return (f"{len(waiting)} of {len(self.all)} followers to have {what}; one of them: "
                    f"{f.target[:200]} held {f.held}, {len(f.seen)} seen, {f.connects} connects, "
                    f"{f.refused} refused, {f.ends} ends, last {f.seen[-2:]} {f.last_id}")

        wait_until(done, say, timeout, interval=0)
        return self


def follow(port, channels, first, until, *, what="what was published", timeout=30, **args):
    """One client that stays: reads from `first` on until the condition holds, and returns it."""
    f = Follower(port, channels, first=first, **args)
    f.restless = False
    with Company().add(f) as company:
        company.wait(until, what, timeout)
    return f
