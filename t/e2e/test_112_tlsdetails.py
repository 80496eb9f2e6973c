# SPDX-License-Identifier: Apache-2.0
"""What TLS allows a client to do to a connection that httpd has given away: bytes sent early,
records in pieces, new keys, renegotiation, resumption; client certificates; every way to leave."""

import os
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

import sse
from harness import TLS_CA, WAIT, unique, wait_until
from publish import close_item, item, publish

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def openssl(*args, cwd):
    done = subprocess.run(["openssl", *args], cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout


def certify(where, name):
    """A CA, and below it a key and a certificate for `name`: ca.pem, NAME.key, NAME.pem."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    if not (where / "ca.pem").exists():
        openssl("req", "-x509", *new_key, "-days", "30", "-subj", "/CN=Test CA",
                "-keyout", "ca.key", "-out", "ca.pem", cwd=where)
    openssl("req", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", cwd=where)
    (where / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
            cwd=where)


@pytest.fixture(scope="module")
def httpd(make_httpd, origin, tmp_path_factory):
    server = make_httpd()
    server.certs = tmp_path_factory.mktemp("certs")
    certify(server.certs, "client")
    certify(server.certs, "other.test")
    server.tls_proxy(origin.port)
    server.add(f"""
        <VirtualHost 127.0.0.1:{server.port("tls")}>
            ServerName other.test
            SSLEngine On
            SSLCertificateFile {server.certs}/other.test.pem
            SSLCertificateKeyFile {server.certs}/other.test.key
            Header always set X-Host other
            <Location "/">
                ProxyPass "http://127.0.0.1:{origin.port}/" retry=0
                EventStreamGrip On
            </Location>
        </VirtualHost>
    """)
    server.tls_proxy(origin.port, "cert", server=f"""
        SSLCACertificateFile {server.certs}/ca.pem
        SSLVerifyClient require
        RequestHeader set X-Client "expr=%{{SSL_CLIENT_S_DN_CN}}"
    """)
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


def send(httpd, *items):
    publish(httpd.port("publish"), *items)


def held(httpd, tls, path):
    client = sse.Client(httpd.port("tls"), wrap=sse.tls(TLS_CA, tls))
    return sse.Stream.opened(None, path, client=client)


class Raw:
    """A TLS client whose records can be looked at, held back and cut before they are sent. Has what
    sse.Client and sse.Stream use of a socket."""

    def __init__(self, port, tls):
        context = sse.tls_context(TLS_CA)
        context.minimum_version = context.maximum_version = tls
        self.tcp = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.came, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.came, self.out, server_hostname="localhost")
        self.by_byte = False
        self._run(self.tls.do_handshake)
        self.settimeout, self.close = self.tcp.settimeout, self.tcp.close

    def _run(self, call, *args):
        while True:
            try:
                result = call(*args)
                self.push(self.out.read())
                return result
            except ssl.SSLWantReadError:
                self.push(self.out.read())
                data = self.tcp.recv(65536)
                if data:
                    self.came.write(data)
                else:
                    self.came.write_eof()

    def push(self, data):
        """Sends bytes as they are on the wire."""
        for n in range(len(data) if self.by_byte else bool(data)):
            self.tcp.sendall(data[n:n + 1] if self.by_byte else data)

    def records(self, data):
        """The records that carry `data`, not sent."""
        self.tls.write(data)
        return self.out.read()

    def sendall(self, data):
        self.push(self.records(data))

    def recv(self, size):
        return self._run(self.tls.read, size)

    def unwrap(self):
        self._run(self.tls.unwrap)


def raw_stream(httpd, tls, send_request):
    """A Stream whose request send_request(raw) sends."""
    client = sse.Client.__new__(sse.Client)
    client.sock, client.buffer, client.eof = Raw(httpd.port("tls"), tls), b"", False
    client.request = lambda target, **args: send_request(client.sock)
    return sse.Stream.opened(None, "", client=client)


def goes_on_and_ends(httpd, channel, s, initial=b"open."):
    """The stream gets messages, and its end as it should be."""
    send(httpd, item(channel, "one."))
    s.wait_for(b"one.")
    send(httpd, item(channel, "x" * 100000), close_item(channel))
    s.wait_clean_end()
    assert s.body == initial + b"one." + b"x" * 100000


# ---- what the client sends ----------------------------------------------------------------------

def test_second_request_in_the_same_record(httpd, origin, channel, tls):
    """It is never answered; the stream goes on."""
    path, plain = origin.hold(channel, b"open."), origin.answer(b"plain")
    both = sse.request_bytes(path) + sse.request_bytes(plain)
    with raw_stream(httpd, tls, lambda raw: raw.sendall(both)) as s:
        goes_on_and_ends(httpd, channel, s)
    assert not origin.seen(plain)


def test_second_request_in_the_next_record(httpd, origin, channel, tls):
    """In the same packet: httpd's filters may have read it before the connection was held."""
    path, plain = origin.hold(channel, b"open."), origin.answer(b"plain")

    def both(raw):
        raw.push(raw.records(sse.request_bytes(path)) + raw.records(sse.request_bytes(plain)))

    with raw_stream(httpd, tls, both) as s:
        goes_on_and_ends(httpd, channel, s)
    assert not origin.seen(plain)


@pytest.mark.parametrize("cut", [1, 5, 6, -1])
def test_record_begun_before_and_ended_after(httpd, origin, channel, tls, cut):
    """A part of a record comes with the request, the rest of it while the stream is held."""
    path = origin.hold(channel, b"open.")
    rest = []

    def begin(raw):
        request, more = raw.records(sse.request_bytes(path)), raw.records(b"bytes of the client")
        rest.append(more[cut:])
        raw.push(request + more[:cut])

    with raw_stream(httpd, tls, begin) as s:
        s.wait_body(b"open.")
        send(httpd, item(channel, "x."))
        s.wait_body(b"open.x.")
        s.client.sock.push(rest[0])
        goes_on_and_ends(httpd, channel, s, b"open.x.")


def test_bytes_while_held(httpd, origin, channel, tls):
    """They are read away, however many; the stream goes on."""
    with held(httpd, tls, origin.hold(channel, b"open.")) as s:
        s.wait_body(b"open.")
        for _ in range(40):
            s.client.send(b"x" * 50000)
        goes_on_and_ends(httpd, channel, s)


def test_byte_by_byte(httpd, origin, channel, tls):
    """Each byte of the client's records in a packet of its own."""
    path = origin.hold(channel, b"open.")

    def slowly(raw):
        raw.by_byte = True
        raw.sendall(sse.request_bytes(path))

    with raw_stream(httpd, tls, slowly) as s:
        s.client.send(b"more")
        s.wait_body(b"open.")
        s.client.send(b"and more")
        goes_on_and_ends(httpd, channel, s)


class SClient:
    """openssl s_client, which can ask for new keys and for a renegotiation."""

    def __init__(self, port, *args):
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(TLS_CA), *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said = b""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return
            self.said += data

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait(10)
        self.thread.join(10)
        self.process.stdin.close()
        self.process.stdout.close()

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait(self, data, times=1):
        wait_until(lambda: self.said.count(data) >= times, lambda: f"{data} in {self.said!r}")

    def opened(self, path):
        self.wait(b"Verify return code: 0")
        self.send(sse.request_bytes(path))
        self.wait(b"open.")
        return self


def test_key_update(httpd, origin, channel):
    """The client changes its keys (k), and asks the server to do so too (K), again and again."""
    with SClient(httpd.port("tls"), "-tls1_3") as c:
        c.opened(origin.hold(channel, b"open."))
        for n, command in enumerate("kKKkK"):
            c.send(command.encode() + b"\n")
            c.wait(b"KEYUPDATE", n + 1)
            send(httpd, item(channel, f"message {n}."))
            c.wait(f"message {n}.".encode())
        c.send(b"bytes under the new key\n")
        send(httpd, item(channel, "y" * 50000), close_item(channel))
        c.wait(b"\r\n0\r\n\r\n")
        assert c.process.wait(WAIT) == 0


def test_renegotiation(httpd, origin, channel):
    """It is refused; this client then leaves. Another one's stream sees nothing of it."""
    path = origin.hold(channel, b"open.")
    with held(httpd, VERSIONS["1.2"], path) as other:
        before = httpd.wait_status(streams=1)
        with SClient(httpd.port("tls"), "-tls1_2") as c:
            c.opened(path)
            httpd.wait_status(streams=2)
            c.send(b"R\n")
            c.wait(b"RENEGOTIATING")
            assert c.process.wait(WAIT) != 0
            c.wait(b"no renegotiation")
        httpd.wait_status(streams=1)
        httpd.wait_ended(before, client=1)
        goes_on_and_ends(httpd, channel, other)


# ---- sessions, names, certificates --------------------------------------------------------------

def test_resumption(httpd, origin, channel, tls):
    """A held connection's session can be resumed, also after the stream has ended."""
    context = sse.tls_context(TLS_CA)
    path = origin.hold(channel, b"open.")
    session = None
    for n in range(4):
        client = sse.Client(httpd.port("tls"),
                            wrap=sse.tls(TLS_CA, tls, session=session, context=context))
        with sse.Stream.opened(None, path, client=client) as s:
            assert client.sock.session_reused == (n > 0)
            goes_on_and_ends(httpd, channel, s)
            session = client.sock.session


def test_names(httpd, origin, channel, tls):
    """Two virtual hosts on one port, told apart by the name in the handshake."""
    path = origin.hold(channel, b"open.")
    other = sse.Client(httpd.port("tls"),
                       wrap=sse.tls(httpd.certs / "ca.pem", tls, name="other.test"))
    with sse.Stream.opened(None, path, client=other, host="other.test") as s, \
            held(httpd, tls, path) as first:
        assert s.head.get("X-Host") == "other" and first.head.get("X-Host") is None
        send(httpd, item(channel, "both"))
        for stream in (s, first):
            stream.wait_body(b"open.both")
        send(httpd, close_item(channel))
        s.wait_clean_end()
        first.wait_clean_end()


def test_client_certificate(httpd, origin, channel, tls):
    path = origin.hold(channel, b"open.")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client = sse.Client(httpd.port("cert"), wrap=sse.tls(TLS_CA, tls))
        with client:
            client.get(path)
    assert not origin.seen(path)
    context = sse.tls_context(TLS_CA)
    context.load_cert_chain(httpd.certs / "client.pem", httpd.certs / "client.key")
    client = sse.Client(httpd.port("cert"), wrap=sse.tls(TLS_CA, tls, context=context))
    with sse.Stream.opened(None, path, client=client) as s:
        assert origin.seen(path)[0].get("X-Client") == "client"
        goes_on_and_ends(httpd, channel, s)


# ---- leaving ------------------------------------------------------------------------------------

def leave_reset(s):
    s.client.reset()


def leave_close(s):
    s.client.close()


def leave_close_notify(s):
    """close_notify, which the server answers with its own; nothing else comes."""
    s.client.sock.settimeout(WAIT)
    s.client.sock.unwrap().close()


def leave_half_closed(s):
    """FIN without close_notify, the other direction stays open."""
    fd = socket.socket(fileno=os.dup(s.client.sock.fileno()))
    fd.shutdown(socket.SHUT_WR)
    fd.close()


def leave_with_garbage(s):
    """Bytes that are no TLS record."""
    os.write(s.client.sock.fileno(), b"GET / HTTP/1.1\r\n\r\n" * 10)


@pytest.mark.parametrize("leave", [leave_reset, leave_close, leave_close_notify, leave_half_closed,
                                   leave_with_garbage])
def test_client_leaves(httpd, origin, channel, tls, leave):
    """At once noticed, counted as the client's doing; others are not concerned."""
    path = origin.hold(channel, b"open.")
    with held(httpd, tls, path) as stays:
        leaving = [held(httpd, tls, path) for _ in range(5)]
        before = httpd.wait_status(streams=6)
        for s in leaving:
            s.wait_body(b"open.")
            leave(s)
        began = time.monotonic()
        httpd.wait_status(streams=1)
        assert time.monotonic() - began < 20  # the first keep-alive is due after 55 s
        httpd.wait_ended(before, client=5)
        for s in leaving:
            s.close()
        goes_on_and_ends(httpd, channel, stays)


def test_close_notify_with_the_request(httpd, origin, channel, tls):
    """Read by httpd before the connection was held: the stream ends all the same, while the TCP
    connection stays open."""
    path = origin.hold(channel, b"open.")

    def both(raw):
        request = raw.records(sse.request_bytes(path))
        with pytest.raises(ssl.SSLWantReadError):
            raw.tls.unwrap()
        raw.push(request + raw.out.read())

    client = Raw(httpd.port("tls"), tls)
    try:
        both(client)
        client.tcp.settimeout(WAIT)
        while client.tcp.recv(65536):
            pass
        httpd.wait_status(streams=0, reserved=0)
    finally:
        client.close()


def test_leave_before_the_answer(httpd, origin, tls):
    """The client is gone when the application answers."""
    go, asked = threading.Event(), threading.Semaphore(0)
    channel = unique()

    def handler(request, write):
        asked.release()
        assert go.wait(WAIT)
        write(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: " + channel.encode()
              + b"\r\nContent-Length: 2\r\n\r\nok")

    path = origin.add(handler)
    try:
        for n in range(3):
            client = sse.Client(httpd.port("tls"), wrap=sse.tls(TLS_CA, tls))
            client.request(path)
            assert asked.acquire(timeout=WAIT)
            if n == 1:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            client.close()
    finally:
        go.set()
    httpd.wait_status(streams=0, reserved=0)
