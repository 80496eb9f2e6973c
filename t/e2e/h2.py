# SPDX-License-Identifier: Apache-2.0
"""A raw HTTP/2 client: the frames as they come, one connection, many streams.

Frames are read and written here, strictly: what may not come fails the test. Heads are hpack's. For
tests that are about HTTP/2; http2.py has the client that is like those of sse.py.
"""

import ssl
import struct
import time

import hpack

import sse

WAIT = 30.0
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = \
    0, 1, 3, 4, 6, 7, 8, 9
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4  # settings
FRAME_MAX = 16384
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8


def tls(ca):
    """For `wrap`: TLS with HTTP/2 agreed upon by ALPN."""
    context = sse.tls_context(ca)
    context.set_alpn_protocols(["h2"])
    return sse.tls(ca, context=context)


class Stream:
    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.head = None        # the final one's headers, a list of pairs of str
        self.body = b""
        self.marks = []         # (time, length of the body after that frame)
        self.ended = False      # by END_STREAM
        self.reset = None       # the error code of the server's RST_STREAM
        self.reads = True       # its flow-control window is kept open
        self.window = connection.their_window  # bytes that may be sent
        self._owed = 0          # bytes that were consumed and not yet given back

    @property
    def held(self):
        return self.head is not None and self.head[0] == (":status", "200")

    def wait_for(self, data):
        return self.wait(lambda: data in self.body, data)

    def wait_body(self, data):
        self.wait(lambda: len(self.body) >= len(data), f"{len(data)} bytes")
        assert self.body == data, sse.difference(self.body, data)
        return self

    def wait_end(self):
        """Its proper end, and no other."""
        self.wait(lambda: self.ended or self.reset is not None, "its end")
        assert self.ended and self.reset is None, f"reset with {self.reset}"
        return self

    def wait(self, condition, what):
        self.connection.wait(condition, what)
        return self

    def cancel(self):
        self.connection.frame(RST_STREAM, 0, self.number, struct.pack("!I", CANCEL))


class Connection:
    def __init__(self, port, wrap=None, window=1 << 24, timeout=WAIT, client=None):
        self.client = client or sse.Client(port, wrap=wrap, timeout=timeout)
        self.sock = self.client.sock
        self.scheme = "https" if isinstance(self.sock, ssl.SSLSocket) else "http"
        self.streams, self.next, self.buffer = {}, 1, b""
        self.eof, self.goaway = False, None
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.window = window                   # of each stream, for what comes
        self.their_window = self.left = 65535  # of each stream and in all, for what is sent
        self._block = None  # (stream, flags, header block so far): CONTINUATION must follow
        self._owed = 0
        self._out = b""     # what a socket that does not block did not take yet
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                    + _frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, window))
                    + _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1 << 28)))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.close()

    def frame(self, kind, flags, number, payload=b""):
        self._write(_frame(kind, flags, number, payload))

    def _write(self, data):
        """Sends; from a socket that does not block, the rest goes with the next call."""
        self._out += data
        while self._out:
            try:
                self._out = self._out[self.sock.send(self._out):]
            except (BlockingIOError, ssl.SSLWantWriteError):
                return

    def get(self, target, host="main.test"):
        """Sends a request; returns its Stream."""
        return self.request(target, host=host)

    def request(self, target, method="GET", headers=(), body=b"", host="main.test"):
        s = self.streams[self.next] = Stream(self, self.next)
        self.next += 2
        head = [(":method", method), (":scheme", self.scheme), (":path", target)]
        if host is not None:
            head.append((":authority", host))
        head += [(n.lower(), v) for n, v in headers]
        block = self.encoder.encode([(n.encode("latin-1"), v.encode("latin-1")) for n, v in head])
        end = 0 if body else END_STREAM
        self.frame(HEADERS, end | (0 if len(block) > FRAME_MAX else END_HEADERS), s.number,
                   block[:FRAME_MAX])
        for at in range(FRAME_MAX, len(block), FRAME_MAX):
            last = at + FRAME_MAX >= len(block)
            self.frame(CONTINUATION, END_HEADERS if last else 0, s.number,
                       block[at:at + FRAME_MAX])
        if body:
            self._send_body(s, body)
        return s

    def _send_body(self, s, body):
        while body:
            if min(s.window, self.left) <= 0:
                self.wait(lambda: min(s.window, self.left) > 0 or s.ended or s.reset is not None,
                          "room for the request's body")
            if s.ended or s.reset is not None:
                return  # it was answered without the rest
            part = body[:min(s.window, self.left, FRAME_MAX)]
            body = body[len(part):]
            s.window -= len(part)
            self.left -= len(part)
            self.frame(DATA, 0 if body else END_STREAM, s.number, part)

    def opened(self, target):
        """A request that must be held."""
        s = self.get(target)
        s.wait(lambda: s.head is not None or s.reset is not None, "its head")
        assert s.held, (s.head, s.reset, s.body)
        return s

    def wait(self, condition, what, timeout=WAIT):
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.eof:
                state = "connection ended" if self.eof else f"{timeout:g} s"
                raise AssertionError(f"waited for {what} ({state}, GOAWAY {self.goaway})")
            self.sock.settimeout(left)
            self.receive()

    def wait_eof(self, timeout=WAIT):
        self.wait(lambda: self.eof, "the end of the connection", timeout)

    def receive(self, size=262144):
        """Reads once what the socket has."""
        try:
            self._write(b"")
            data = self.sock.recv(size)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return
        except OSError as e:
            if not sse.is_cut(e):
                raise
            data = b""
        self.eof = not data
        self.buffer += data
        try:
            self._frames()
        except OSError:
            self.eof = True  # it ended while frames of before were answered

    def _frames(self):
        at = 0
        while len(self.buffer) >= at + 9:
            end = at + 9 + int.from_bytes(self.buffer[at:at + 3], "big")
            if len(self.buffer) < end:
                break
            kind, flags, number = struct.unpack("!BBI", self.buffer[at + 3:at + 9])
            payload, at = self.buffer[at + 9:end], end
            self._on_frame(kind, flags, number & 0x7fffffff, payload)
        self.buffer = self.buffer[at:]

    def _on_frame(self, kind, flags, number, payload):
        assert len(payload) <= FRAME_MAX, f"a frame of {len(payload)} bytes"
        assert (self._block is None) == (kind != CONTINUATION), f"type {kind} in a header block"
        assert not (flags & 0x8 and kind in (DATA, HEADERS)), "padding, which nobody asked for"
        s = self.streams.get(number)
        if kind == DATA:
            self._on_data(s, flags, payload)
        elif kind == HEADERS:
            assert not s.ended, "a head after the stream's end"
            self._on_block(s, flags & END_STREAM, flags, payload)
        elif kind == CONTINUATION:
            self._on_block(self._block[0], self._block[1], flags, self._block[2] + payload)
        elif kind == RST_STREAM:
            s.reset = struct.unpack("!I", payload)[0]
        elif kind == GOAWAY:
            self.goaway = payload
        elif kind == WINDOW_UPDATE:
            self._on_window(s, number, struct.unpack("!I", payload)[0])
        elif kind == SETTINGS and not flags & ACK:
            self._on_settings(payload)
            self.frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.frame(PING, ACK, 0, payload)

    def _on_block(self, s, end, flags, block):
        if not flags & END_HEADERS:
            self._block = (s, end, block)
            return
        self._block = None
        headers = [(n.decode("latin-1"), v.decode("latin-1"))
                   for n, v in self.decoder.decode(block, raw=True)]
        assert s.head is None, f"trailers, which nobody sent: {headers}"
        assert headers[0][0] == ":status", headers
        s.ended = bool(end)
        if headers[0][1][0] != "1":  # not an interim one
            s.head = headers

    def _on_data(self, s, flags, payload):
        assert not s.ended, "data after the stream's end"
        assert s.head is not None, "a body without a head"
        s.ended = bool(flags & END_STREAM)
        if payload:
            s.body += payload
            s.marks.append((time.monotonic(), len(s.body)))
            self._consumed(s, len(payload))

    def _on_window(self, s, number, more):
        if not number:
            self.left += more
        elif s:
            s.window += more

    def _on_settings(self, payload):
        for what, value in struct.iter_unpack("!HI", payload):
            if what == INITIAL_WINDOW_SIZE:
                for s in self.streams.values():
                    s.window += value - self.their_window
                self.their_window = value
            elif what == HEADER_TABLE_SIZE:
                self.encoder.header_table_size = min(value, 4096)

    def _consumed(self, s, size):
        """Gives windows back, in pieces of some size."""
        out = b""
        self._owed += size
        if self._owed >= 1 << 20:
            out += _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", self._owed))
            self._owed = 0
        if s.reads:
            s._owed += size
            if s._owed >= self.window // 4 and not s.ended:
                out += _frame(WINDOW_UPDATE, 0, s.number, struct.pack("!I", s._owed))
                s._owed = 0
        if out:
            self._write(out)


def _frame(kind, flags, number, payload=b""):
    return (struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, number)
            + payload)
