# SPDX-License-Identifier: Apache-2.0
"""A raw HTTP/2 client: the frames as they come, one connection, many streams.

Request heads are HPACK literals. Response heads are kept undecoded but for a status of 200, which
is one byte (RFC 7541, static table, 8); curl is there for the names and values.
"""

import ssl
import struct
import time

import sse

WAIT = 30.0
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8


def tls(ca):
    """For `wrap`: TLS with HTTP/2 agreed upon by ALPN."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return sse.tls(ca, context=context)


class Stream:
    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.head, self.body = None, b""
        self.ended = False      # by END_STREAM
        self.reset = None       # the error code of the server's RST_STREAM
        self.reads = True       # its flow-control window is kept open

    @property
    def held(self):
        return self.head is not None and self.head.lstrip(b"\x20\x3f\xe1\x1f")[:1] == b"\x88"

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
    def __init__(self, port, wrap=None, window=1 << 24, timeout=WAIT):
        self.client = sse.Client(port, wrap=wrap, timeout=timeout)
        self.sock = self.client.sock
        self.scheme = b"\x87" if wrap else b"\x86"
        self.streams, self.next, self.buffer = {}, 1, b""
        self.eof, self.goaway = False, None
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.frame(SETTINGS, 0, 0, struct.pack("!HI", 4, window))
        self.frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1 << 28))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.close()

    def frame(self, kind, flags, number, payload=b""):
        self.sock.sendall(struct.pack("!I", len(payload))[1:]
                          + struct.pack("!BBI", kind, flags, number) + payload)

    def get(self, target, host="main.test"):
        """Sends a request; returns its Stream."""
        s = self.streams[self.next] = Stream(self, self.next)
        self.next += 2
        block = b"\x82" + self.scheme
        for index, text in ((4, target), (1, host)):
            assert len(text) < 127
            block += bytes([index, len(text)]) + text.encode()
        self.frame(HEADERS, END_STREAM | END_HEADERS, s.number, block)
        return s

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

    def receive(self):
        try:
            data = self.sock.recv(262144)
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.eof = not data
        self.buffer += data
        while len(self.buffer) >= 9:
            end = 9 + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < end:
                return
            kind, flags, number = struct.unpack("!BBI", self.buffer[3:9])
            payload, self.buffer = self.buffer[9:end], self.buffer[end:]
            self._on_frame(kind, flags, number & 0x7fffffff, payload)

    def _on_frame(self, kind, flags, number, payload):
        s = self.streams.get(number)
        assert not (flags & 0x8 and kind in (DATA, HEADERS)), "padding, which nobody asked for"
        if kind in (DATA, HEADERS):
            assert not s.ended, f"a frame of type {kind} after the stream's end"
            s.ended = bool(flags & END_STREAM)
        if kind == DATA:
            assert s.head is not None, "a body without a head"
            s.body += payload
            self._consumed(s, len(payload))
        elif kind == HEADERS:
            assert s.head is None, "trailers, which nobody sent"
            s.head = payload
        elif kind == RST_STREAM:
            s.reset = struct.unpack("!I", payload)[0]
        elif kind == GOAWAY:
            self.goaway = payload
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.frame(kind, ACK, 0, b"" if kind == SETTINGS else payload)

    def _consumed(self, s, size):
        if size:
            self.frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", size))
            if s.reads and not s.ended:
                self.frame(WINDOW_UPDATE, 0, s.number, struct.pack("!I", size))
