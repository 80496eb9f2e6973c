# SPDX-License-Identifier: Apache-2.0
"""sse.py's Client and Stream over HTTP/2, made on h2.py's frames.

A Client is a connection. Its requests run side by side; read_head() and read_answer() are about the
latest. Streams may share a Client: each that closes is cancelled, the last one takes the connection
along. What only HTTP/1.1 has (bytes as they are on the wire, versions, connection headers) is
refused with an error: tests that need it are marked, see conftest.py.
"""

import contextlib
import ssl

import h2
import sse

HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}


class Head(sse.Head):
    """The header list as it came, names in lower case."""

    def __init__(self, headers):
        self.raw = b"\r\n".join(f"{n}: {v}".encode("latin-1") for n, v in headers)
        self.version = "2"
        self.code = int(headers[0][1])
        self.reason = None
        self.headers = headers[1:]
        wrong = [n for n in self.names() if n in HOP or n.startswith(":")]
        if wrong or any(n != n.lower() for n, _ in headers):
            raise sse.FramingError(f"headers that HTTP/2 does not have: {headers}")

    def says(self, code, reason):
        return self.code == code

    @property
    def open_ended(self):
        return self.get("Content-Length") is None

    @property
    def chunked(self):
        return False


class Client(sse.Client):
    SHARE = 6  # mod_http2 starts with so many at a time and allows more when some have ended

    def __init__(self, port, timeout=sse.WAIT, rcvbuf=None, host="127.0.0.1", wrap=None):
        self.streams = set()
        super().__init__(port, timeout, rcvbuf, host, wrap)
        assert not isinstance(self.sock, ssl.SSLSocket) \
            or self.sock.selected_alpn_protocol() == "h2", "HTTP/2 was not agreed upon"
        window = 65535 if rcvbuf else 1 << 24
        self.timeout = timeout
        self.connection = h2.Connection(port, window=window, client=self)
        self.latest = None

    @property
    def eof(self):
        return self.connection.eof

    @eof.setter
    def eof(self, value):
        assert not value

    def send(self, data):
        raise NotImplementedError("bytes on the wire: not over HTTP/2; mark the test")

    def request(self, target, method="GET", version=None, headers=(), body=b"", **args):
        if version not in (None, "2") or any(n.lower() in HOP for n, _ in headers):
            raise NotImplementedError(f"{version} {headers}: not over HTTP/2; mark the test")
        self.sock.settimeout(self.timeout)
        if body and not any(n.lower() == "content-length" for n, _ in headers):
            headers = [*headers, ("content-length", str(len(body)))]
        self.latest = self.connection.request(target, method, headers, body, **args)
        return self.latest

    def _wait(self, condition):
        raw = self.latest
        self.connection.wait(lambda: condition(raw) or raw.reset is not None or self.eof,
                             "the answer", self.timeout)
        if not condition(raw):
            how = "the connection ended" if raw.reset is None else f"RST_STREAM {raw.reset}"
            raise sse.FramingError(f"{how} after {raw.head} {raw.body[:200]!r}")

    def read_head(self):
        self._wait(lambda raw: raw.head is not None)
        return Head(self.latest.head)

    def read_answer(self, method="GET"):
        self._wait(lambda raw: raw.ended)
        head, body = Head(self.latest.head), self.latest.body
        length = head.get("Content-Length")
        if (method == "HEAD" or head.code in (204, 304)) and body:
            raise sse.FramingError(f"a body: {body[:200]!r}")
        if method != "HEAD" and head.code != 304 and length not in (None, str(len(body))):
            raise sse.FramingError(f"{len(body)} bytes instead of {length}")
        return sse.Answer(head, body)

    def at_end(self, timeout=sse.WAIT):
        self.connection.wait_eof(timeout)
        return True

    def receive(self, size=262144):
        """Reads once, for all its streams; False: the connection has ended."""
        self.connection.receive(size)
        return not self.eof


class Stream(sse.Stream):
    chunked = False

    def _open(self, target, args):
        self.raw = self.client.request(target, **args)
        self.client.streams.add(self)
        self._head = None

    def close(self):
        client = self.client
        client.streams.discard(self)
        if not client.streams:
            client.close()
        elif not self.eof:
            with contextlib.suppress(OSError):  # it may be gone
                self.raw.cancel()

    def __init__(self, port, target, *, client=None, **args):
        rcvbuf = args.pop("rcvbuf", None)
        self.client = client or Client(port, rcvbuf=rcvbuf)
        self._open(target, args)

    @property
    def head(self):
        if self._head is None and self.raw.head is not None:
            self._head = Head(self.raw.head)
        return self._head

    @property
    def body(self):
        return self.raw.body

    @property
    def marks(self):
        return self.raw.marks

    @property
    def ended(self):
        return self.raw.ended

    @property
    def eof(self):
        return self.raw.ended or self.raw.reset is not None or self.client.eof

    @property
    def reset(self):
        return self.eof and not self.ended

    @property
    def source(self):
        return self.client

    def read_head(self):
        self.pump(sse.WAIT, lambda: self.head is not None)
        if self.head is None:
            raise sse.FramingError(f"no head: RST_STREAM {self.raw.reset}, {self.eof=}")
        return self.head

    def receive(self, size=262144):
        self.client.receive(size)
        return not self.eof


Client.Stream = Stream
