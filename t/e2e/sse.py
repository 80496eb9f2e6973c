# SPDX-License-Identifier: Apache-2.0
"""A raw-socket HTTP client: the tests see exactly the bytes that came, and when.

No library stands between a test and the wire. Heads are kept as received, in order. A chunked body
is parsed by hand and strictly: a size line that is not hexadecimal, a missing CRLF, a byte after
the terminating chunk raise FramingError. Each piece of a body has the time at which it arrived.

  Client   one connection; several requests in a row, answers of a known length
  Stream   one answer that has no end yet: an event stream
  Pool     many Streams, read together

The same tests run over every transport (ES_TRANSPORT, see harness.py): `hosts` says which ports
speak another one than plain HTTP/1.1, and Client and Stream are made accordingly, over HTTP/2 those
of http2.py. What differs between transports is said once, by these:

  Head.says(code, reason)   the status; HTTP/2 has no reasons
  Head.open_ended           the end of the body is told when it comes: chunked, or HTTP/2's way
  Stream.eof                nothing more will come
  Stream.ended              the body's end was told: by the terminating chunk, by END_STREAM; when
                            neither is there to tell it (HTTP/1.0), by the end of the connection
  Stream.reset              it was cut: by RST, over TLS also without close_notify; over HTTP/2 by
                            RST_STREAM, or because the connection ended first
  Stream.cut                it ended without `ended`. So does every HTTP/1.1 stream whose hub died:
                            the socket closes, over TLS after close_notify. Over HTTP/2 nobody can
                            tell: whoever lives on ends the stream with END_STREAM
"""

import re
import selectors
import socket
import ssl
import struct
import time

WAIT = 30.0

hosts = {}  # port: (Client's class, wrap) of a host that does not speak plain HTTP/1.1


class FramingError(Exception):
    """The bytes break HTTP's framing, or the connection ended inside a message."""


class Head:
    """A response head: the status line and the header lines as they came."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw.split(b"\r\n")
        m = re.fullmatch(rb"HTTP/(\d\.\d) (\d{3})(?: (.*))?", lines[0])
        if not m:
            raise FramingError(f"status line {lines[0]!r}")
        self.version = m[1].decode()
        self.code = int(m[2])
        self.reason = (m[3] or b"").decode("latin-1")
        self.headers = []
        for line in lines[1:]:
            m = re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line)
            if not m or re.search(rb"[\r\n\0]", line):
                raise FramingError(f"header line {line!r}")
            self.headers.append((m[1].decode(), m[2].decode("latin-1")))

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name):
        """The value of a header that may come once; None: absent."""
        values = self.all(name)
        if len(values) > 1:
            raise FramingError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None

    def names(self):
        return [n.lower() for n, _ in self.headers]

    def without(self, *names):
        """The headers but for these, names in lower case."""
        return [(n.lower(), v) for n, v in self.headers if n.lower() not in names]

    def says(self, code, reason):
        return (self.code, self.reason) == (code, reason)

    @property
    def open_ended(self):
        return self.chunked and self.get("Content-Length") is None

    @property
    def chunked(self):
        coding = self.get("Transfer-Encoding")
        if coding is None:
            return False
        if coding.lower() != "chunked":
            raise FramingError(f"Transfer-Encoding: {coding}")
        return True


class Answer:
    """A whole response."""

    def __init__(self, head, body):
        self.head = head
        self.body = body
        self.code = head.code
        self.reason = head.reason

    def get(self, name):
        return self.head.get(name)

    def __repr__(self):
        return f"<Answer {self.head.raw!r} {self.body[:300]!r}>"


class Dechunker:
    """Strict incremental parser of the chunked coding. What comes after the terminating chunk
    stays in `buffer`: another response's bytes, or an error; the user decides."""

    def __init__(self):
        self.buffer = b""
        self.ended = False
        self.chunks = 0
        self._left = None  # bytes left of the chunk that is being read; None: at a size line

    def feed(self, data):
        self.buffer += data
        out = []
        while not self.ended and self._step(out):
            pass
        return b"".join(out)

    def _step(self, out):
        if self._left is None:
            return self._size_line()
        if self._left > 0:
            if not self.buffer:
                return False
            part = self.buffer[: self._left]
            self.buffer = self.buffer[len(part):]
            self._left -= len(part)
            out.append(part)
            return True
        if len(self.buffer) < 2:
            return False
        if self.buffer[:2] != b"\r\n":
            raise FramingError(f"chunk not followed by CRLF but by {self.buffer[:80]!r}")
        self.buffer = self.buffer[2:]
        self._left = None
        return True

    def _size_line(self):
        end = self.buffer.find(b"\r\n")
        if end < 0:
            if len(self.buffer) > 64:
                raise FramingError(f"no chunk size in {self.buffer[:80]!r}")
            return False
        line = self.buffer[:end]
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", line):
            raise FramingError(f"chunk size line {line!r}")
        size = int(line, 16)
        if size == 0:
            if len(self.buffer) < end + 4:
                return False
            if self.buffer[end: end + 4] != b"\r\n\r\n":
                raise FramingError(f"trailer after the last chunk: {self.buffer[end:end + 80]!r}")
            self.buffer = self.buffer[end + 4:]
            self.ended = True
            return True
        self.chunks += 1
        self.buffer = self.buffer[end + 2:]
        self._left = size
        return True


def request_bytes(target, method="GET", headers=(), version=None, body=b"", host="main.test",
                  behind=b""):
    """`behind`: what goes into the same packet."""
    version = version or "1.1"
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None and not any(n.lower() == "host" for n, _ in headers):
        lines.append(f"Host: {host}")
    lines += [f"{n}: {v}" for n, v in headers]
    if body and not any(n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body + behind


def tls_context(ca):
    """For a client that takes an end without close_notify for what it is; Python's do not."""
    context = ssl.create_default_context(cafile=ca)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def is_cut(error):
    """Is this what reading from a connection says that was reset, or whose TLS had no end?"""
    return isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)) \
        or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


class Resuming:
    """A `wrap` whose connections resume the session of one that was closed before, which takes half
    of the time of a whole handshake."""

    def __init__(self, context, version):
        self.context, self.version, self.session = context, version, None

    def __call__(self, sock):
        return tls(None, self.version, session=self.session, context=self.context)(sock)

    def closing(self, sock):
        self.session = sock.session or self.session


def tls(ca, version=None, name="localhost", session=None, context=None):
    """What Client's `wrap` takes for TLS, of one version or of any. The end of a connection without
    close_notify is an error, as it should be. Keep the result: it holds the context."""
    context = context or tls_context(ca)
    if version:
        context.minimum_version = context.maximum_version = version

    def wrap(sock):
        sock = context.wrap_socket(sock, server_hostname=name, session=session,
                                   suppress_ragged_eofs=False)
        assert not version or sock.version() == version.name.replace("_", "."), sock.version()
        return sock

    return wrap


class Client:
    """One connection to 127.0.0.1."""

    wrap = None

    def __new__(cls, port=None, *args, wrap=None, **more):
        if cls is Client and wrap is None and port in hosts:
            cls = hosts[port][0]
        return super().__new__(cls)

    def __init__(self, port, timeout=WAIT, rcvbuf=None, host="127.0.0.1", wrap=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect((host, port))
        if wrap is None and port in hosts:
            wrap = hosts[port][1]
        self.wrap = wrap
        if wrap:
            self.sock = wrap(self.sock)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.eof = False

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        if isinstance(self.wrap, Resuming):
            self.wrap.closing(self.sock)
        self.sock.close()

    def reset(self):
        """Ends the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self):
        """Ends the sending half of the TCP connection; TLS is told nothing."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def send(self, data):
        self.sock.sendall(data)

    def request(self, target, **args):
        self.send(request_bytes(target, **args))

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            self.eof = True
            raise FramingError(f"the connection ended after {self.buffer[:200]!r}")
        self.buffer += data

    def read_head(self):
        """The next head that is not 1xx."""
        while True:
            head = self.read_any_head()
            if head.code >= 200:
                return head

    def read_any_head(self):
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > 200000:
                raise FramingError(f"no end of head in {self.buffer[:200]!r}")
            self._more()
        raw, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return Head(raw)

    def read_answer(self, method="GET"):
        """A whole response, however it is framed."""
        head = self.read_head()
        if method == "HEAD" or head.code in (204, 304):
            return Answer(head, b"")
        if head.chunked:
            return Answer(head, self._read_chunked())
        length = head.get("Content-Length")
        if length is None:
            return Answer(head, self.read_to_end())
        while len(self.buffer) < int(length):
            self._more()
        body, self.buffer = self.buffer[: int(length)], self.buffer[int(length):]
        return Answer(head, body)

    def _read_chunked(self):
        d, out = Dechunker(), []
        while True:
            data, self.buffer = self.buffer, b""
            out.append(d.feed(data))
            if d.ended:
                self.buffer = d.buffer
                return b"".join(out)
            self._more()

    def read_to_end(self):
        """Everything until the other side closes."""
        out, self.buffer = self.buffer, b""
        while True:
            data = self.sock.recv(65536)
            if not data:
                self.eof = True
                return out
            out += data

    def at_end(self, timeout=WAIT):
        """Waits for the other side's end of the connection; False: bytes came instead."""
        if self.buffer:
            return False
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return True
        self.buffer += data
        self.eof = not data
        return not data

    def get(self, target, **args):
        return self.ask(target, "GET", **args)

    def post(self, target, body=b"", **args):
        headers = list(args.pop("headers", ()))
        if not body and not any(n.lower() == "content-length" for n, _ in headers):
            headers.append(("Content-Length", "0"))
        return self.ask(target, "POST", body=body, headers=headers, **args)

    def ask(self, target, method="GET", **args):
        self.request(target, method=method, **args)
        return self.read_answer(method)


class Stream:
    """One response that goes on: the head at once, then the body as it comes."""

    def __new__(cls, port=None, target=None, *, client=None, **args):
        if cls is Stream and args.get("wrap") is None:
            cls = client.Stream if client else hosts[port][0].Stream if port in hosts else cls
        return super().__new__(cls)

    def __init__(self, port, target, *, client=None, **args):
        rcvbuf, wrap = args.pop("rcvbuf", None), args.pop("wrap", None)
        self.client = client or Client(port, rcvbuf=rcvbuf, wrap=wrap)
        self._open(target, args)

    def _open(self, target, args):
        self.client.request(target, **args)
        self.head = None
        self.body = b""
        self.marks = []  # (time, length of the body after that piece)
        self.eof = False
        self.reset = False
        self._chunks = None

    @classmethod
    def opened(cls, port, target, **args):
        """Opens a stream and waits for its head, which must be a held answer's: 200."""
        stream = cls(port, target, **args)
        stream.read_head()
        if stream.head.code != 200:
            rest = stream.client.buffer
            stream.close()
            raise AssertionError(f"{target} is not held: {stream.head.raw!r} {rest!r}")
        return stream

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.client.close()

    @property
    def chunked(self):
        return self._chunks is not None

    @property
    def ended(self):
        return self._chunks.ended if self._chunks is not None else self.eof and not self.reset

    @property
    def cut(self):
        return self.eof and not self.ended

    @property
    def chunks(self):
        return self._chunks.chunks

    @property
    def source(self):
        """Whose receive() a Pool calls when the socket is readable."""
        return self

    def read_head(self):
        self._set_head(self.client.read_head())
        return self.head

    def _set_head(self, head):
        self.head = head
        if head.chunked:
            if head.get("Content-Length") is not None:
                raise FramingError("both Content-Length and Transfer-Encoding")
            self._chunks = Dechunker()
        data, self.client.buffer = self.client.buffer, b""
        if data:
            self._take(data)

    def _take(self, data):
        if self._chunks is not None:
            data = self._chunks.feed(data)
            if self._chunks.ended and self._chunks.buffer:
                raise FramingError(f"bytes after the last chunk: {self._chunks.buffer[:80]!r}")
        if data:
            self.body += data
            self.marks.append((time.monotonic(), len(self.body)))

    def receive(self, size=262144):
        """Reads once what the socket has; False: nothing more will come."""
        try:
            data = self.client.sock.recv(size)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return True
        except OSError as e:
            if not is_cut(e):
                raise
            self.eof = self.reset = True
            return False
        if not data:
            self.eof = True
            return False
        if self.head is None:
            self.client.buffer += data
            if b"\r\n\r\n" in self.client.buffer:
                self._set_head(self.client.read_head())
        else:
            self._take(data)
        return True

    def pump(self, seconds, until=None):
        """Reads for so long, or until the condition holds, or the connection has ended."""
        deadline = time.monotonic() + seconds
        while not self.eof and not (until and until()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.client.sock.settimeout(max(left, 0.001))
            self.receive()
        return self

    def wait(self, until, what, timeout=WAIT):
        self.pump(timeout, until)
        if not until():
            state = "connection ended" if self.eof else f"{timeout:g} s"
            raise AssertionError(f"waited for {what} ({state}); body {self.body[-2000:]!r}")
        return self

    def wait_for(self, data, timeout=WAIT):
        """Waits until the body contains `data`."""
        return self.wait(lambda: data in self.body, repr(data)[:200], timeout)

    def wait_body(self, data, timeout=WAIT):
        """Waits until the body is as long as `data`, then compares: nothing else may have come."""
        self.pump(timeout, lambda: len(self.body) >= len(data))
        if self.body != data:
            raise AssertionError(difference(self.body, data))
        return self

    def wait_end(self, timeout=WAIT):
        """Waits for the end of the connection, over HTTP/2 of the stream."""
        self.pump(timeout)
        if not self.eof:
            raise AssertionError(f"the stream goes on after {timeout:g} s; {self.body[-300:]!r}")
        return self

    def wait_clean_end(self, timeout=WAIT):
        """The same, and the body must have been ended properly before."""
        self.wait_end(timeout)
        if not self.ended:
            how = "reset" if self.reset else "closed"
            raise AssertionError(f"{how} before the body's end was told; {self.body[-300:]!r}")
        return self

    def wait_body_end(self, timeout=WAIT):
        """Waits until the body's end is told, whether or not the connection goes on."""
        return self.wait(lambda: self.ended, "the body's end", timeout)

    def time_of(self, data, start=0):
        """When the last byte of `data` arrived."""
        at = self.body.index(data, start) + len(data)
        return next(t for t, length in self.marks if length >= at)

    def times_of(self, data, start=0):
        times, at = [], self.body.find(data, start)
        while at >= 0:
            times.append(self.time_of(data, at))
            at = self.body.find(data, at + len(data))
        return times

    def events(self):
        return parse_events(self.body)


def parse_events(body):
    """The complete events of an event stream, as EventSource would dispatch them: a list of
    dictionaries with `event`, `data` and, when given, `id`."""
    out = []
    for block in re.split(rb"\r\n\r\n|\n\n|\r\r", body)[:-1]:
        event, data = {"event": "message"}, []
        for line in re.split(rb"\r\n|\n|\r", block):
            name, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if name == b"data":
                data.append(value.decode())
            elif name in (b"event", b"id"):
                event[name.decode()] = value.decode()
        if data:
            event["data"] = "\n".join(data)
            out.append(event)
    return out


def difference(got, want):
    """A sentence on where two byte strings part."""
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    return (f"{len(got)} bytes instead of {len(want)}, the first difference at {at}: "
            f"got {got[max(0, at - 60):at + 100]!r}, want {want[max(0, at - 60):at + 100]!r}")


Client.Stream = Stream
Client.SHARE = 1  # how many streams open_many puts on one connection


class Pool:
    """Many streams, read together by one thread."""

    def __init__(self, streams=()):
        self.streams = []
        self.selector = selectors.DefaultSelector()
        for s in streams:
            self.add(s)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def add(self, stream):
        sock = stream.client.sock
        sock.setblocking(False)
        self.streams.append(stream)
        if not stream.eof and sock.fileno() not in self.selector.get_map():
            self.selector.register(sock, selectors.EVENT_READ, stream.source)
        return stream

    def close(self):
        self.selector.close()
        for s in self.streams:
            s.close()

    def drop(self, stream):
        """Forgets a stream on a connection of its own, which the caller then closes."""
        if stream.client.sock.fileno() in self.selector.get_map():
            self.selector.unregister(stream.client.sock)
        self.streams.remove(stream)

    def close_ended(self):
        """Closes streams that have ended, and with the last one of a connection the connection."""
        for s in self.streams:
            sock, fd = s.client.sock, s.client.sock.fileno()
            if s.eof and fd >= 0:
                s.close()
                if sock.fileno() < 0 and fd in self.selector.get_map():
                    self.selector.unregister(fd)

    def pump(self, seconds, until=None):
        deadline = time.monotonic() + seconds
        while not (until and until()):
            left = deadline - time.monotonic()
            if left <= 0 or not self.selector.get_map():
                break
            for key, _ in self.selector.select(left):
                if not key.data.receive():
                    self.selector.unregister(key.fileobj)
        return self

    def wait_all(self, condition, what, timeout=WAIT):
        """Waits until condition(stream) holds for every stream."""
        waiting = set(self.streams)

        def done():
            waiting.difference_update([s for s in waiting if condition(s)])
            return not waiting

        self.pump(timeout, done)
        if not done():
            s = next(iter(waiting))
            raise AssertionError(
                f"{len(waiting)} of {len(self.streams)} streams wait for {what}; one of them: head "
                f"{s.head.raw if s.head else s.client.buffer!r}, eof {s.eof}, {s.body[-300:]!r}")
        return self

    def wait_heads(self, timeout=WAIT):
        return self.wait_all(lambda s: s.head is not None, "their head", timeout)


def open_many(port, targets, timeout=WAIT, **args):
    """Opens one stream for each target and waits until all of them are held. Over HTTP/2 many of
    them share a connection, as a browser's do."""
    pool = Pool()
    share = hosts[port][0].SHARE if port in hosts else 1
    client = None
    try:
        for n, target in enumerate(targets):
            if share > 1 and n % share == 0:
                client = Client(port)
            pool.add(Stream(port, target, client=client, **args))
            pool.pump(0)
        pool.wait_heads(timeout)
        bad = [s for s in pool.streams if s.head.code != 200]
        if bad:
            raise AssertionError(f"{len(bad)} streams are not held; one: {bad[0].head.raw!r}")
    except BaseException:
        pool.close()
        raise
    return pool
