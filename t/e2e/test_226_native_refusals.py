# SPDX-License-Identifier: Apache-2.0
"""What a hostile client may send to the native endpoint. Each gets a clear answer, a status and a
sentence, and the server goes on. (What tests 200 to 206 have is not here again.)"""

import base64
import hashlib
import hmac
import json
import re
import socket
import struct
import subprocess
import time
import zlib

import pytest

import sse
from harness import unique, wait_until

EVENTSOURCE = [("Accept", "text/event-stream")]
PLAIN = [("Content-Type", "text/plain")]


def openssl(*args, data=b""):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=True).stdout


class Keys:
    """Key pairs in PEM files that the server reads, and tokens that they sign."""

    def __init__(self, root):
        self.root = root
        for name, options in [("rsa", ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
                              ("ec", ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"])]:
            openssl("genpkey", "-algorithm", *options, "-out", str(root / f"{name}.key"))
            openssl("pkey", "-in", str(root / f"{name}.key"), "-pubout", "-out",
                    str(root / f"{name}.pem"))

    def sign(self, alg, claims, key=None):
        head = {"alg": alg, "typ": "JWT"}
        text = part(json.dumps(head).encode()) + "." + part(json.dumps(claims).encode())
        if alg == "none":
            return text + "."
        if alg == "HS256":
            signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
        else:
            name = "rsa" if alg == "RS256" else "ec"
            signature = openssl("dgst", "-sha256", "-sign", str(self.root / f"{name}.key"),
                                data=text.encode())
            if alg == "ES256":
                signature = raw_signature(signature)
        return text + "." + part(signature)


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw_signature(der):
    """SEQUENCE of two INTEGERs: each of 32 bytes, behind one another."""
    at, out = 2, b""
    for _ in range(2):
        n = der[at + 1]
        out += der[at + 2:at + 2 + n].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + n
    return out


@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd()
    server.keys = Keys(server.root)
    server.add("EventStreamHistory run/history")
    host = """
        LimitRequestLine {line}
        LimitRequestFieldSize {line}
        <Location /events/>
            SetHandler eventstream
            EventStreamPublish On
        </Location>
        <Location /some/>
            SetHandler eventstream
            EventStreamAllowChannels news user-*
        </Location>
        <Location /rsa/>
            SetHandler eventstream
            EventStreamSubscribeKey mysite file:rsa.pem
            EventStreamPublish On
            EventStreamPublishKey mysite file:rsa.pem
        </Location>
        <Location /ec/>
            SetHandler eventstream
            EventStreamSubscribeKey mysite file:ec.pem
            EventStreamPublish On
            EventStreamPublishKey mysite file:ec.pem
        </Location>
    """
    server.vhost("main", host.format(line=8190))
    server.vhost("wide", host.format(line=200000))
    server.vhost("hurried", "RequestReadTimeout body=1\n" + host.format(line=8190))
    return server.start()


@pytest.fixture(autouse=True)
def goes_on(httpd):
    """After each test the same children serve a stream, a publish and the status."""
    hub = httpd.hub_pid()
    yield
    assert httpd.hub_pid() == hub
    channel = unique()
    with sse.Stream.opened(httpd.port("main"), f"/events/{channel}") as stream:
        stream.wait_for(b"retry: 3000\n\n")
        with sse.Client(httpd.port("main")) as c:
            assert c.post(f"/events/{channel}", b"well", headers=PLAIN).code == 200
        stream.wait_for(b"data: well\n\n")


def ask(httpd, target, method="GET", port="main", **args):
    with sse.Client(httpd.port(port)) as c:
        return c.ask(target, method, **args)


def refused(answer, code, *parts):
    """By the module: a sentence."""
    assert answer.code == code, answer
    assert answer.get("Content-Type") == "text/plain; charset=utf-8", answer
    text = answer.body.decode()
    assert text.endswith("\n") and text.count("\n") == 1 and len(text) < 9000, answer
    for p in parts:
        assert p in text, answer
    assert not re.search(r"[\0-\x09\x0b-\x1f]", text), answer


# ---- channels -------------------------------------------------------------------------------------

@pytest.mark.parametrize("target", ["/events/", "/some/"])
def test_ten_thousand_channels(httpd, target):
    names = ",".join(f"c{i}" for i in range(10000))
    refused(ask(httpd, f"{target}?channel={names}", port="wide"), 400, "over 20 channels")
    names = "&".join(f"channel=c{i}" for i in range(10000))
    refused(ask(httpd, f"{target}?{names}", port="wide"), 400, "the URL is too long")
    refused(ask(httpd, f"{target}?{names[:60000]}", port="wide"), 400, "over 20 channels")
    assert ask(httpd, f"{target}?{names}").code == 414


def test_one_channel_ten_thousand_times(httpd, channel):
    """A name counts once."""
    names = ",".join([channel] * 2000)
    with sse.Stream.opened(httpd.port("wide"), f"/events/?channel={names}") as stream:
        stream.wait_for(b"retry: 3000\n\n")
        with sse.Client(httpd.port("main")) as c:
            answer = c.post(f"/events/{channel}", b"once", headers=PLAIN)
        assert json.loads(answer.body)["receivers"] == 1
        stream.wait_for(b"data: once\n\n")


@pytest.mark.parametrize("name,parts", [
    ("x" * 4097, ["4097 bytes", "4096"]), ("%C3%A4" * 2049, ["4098 bytes", "4096"]),
    ("a%00b", ["CR, LF or NUL"]), ("a%0d%0ab", ["CR, LF or NUL"]), ("%0d", ["CR, LF or NUL"]),
    ("%c3%28", ["UTF-8"]), ("%ed%a0%80", ["UTF-8"]), ("%c0%80", ["UTF-8"]),
    ("%f4%90%80%80", ["UTF-8"]), ("%", ["percent-encoding"]), ("%1", ["percent-encoding"]),
])
def test_names(httpd, name, parts):
    for method in ("GET", "HEAD", "POST", "DELETE"):
        answer = ask(httpd, f"/events/?channel={name}", method, port="wide",
                     headers=[*EVENTSOURCE, *PLAIN], **({"body": b"x"} if method == "POST" else {}))
        if method == "HEAD":
            assert answer.code == 400
        else:
            refused(answer, 400, *parts)


@pytest.mark.parametrize("name", ["a%00b", "a%0d%0ab", "%ff", "%zz"])
def test_names_in_the_path(httpd, name):
    """httpd refuses some by itself (NUL, broken percent-encoding)."""
    httpd.allow("AH10244|AH00026")
    answer = ask(httpd, f"/events/{name}")
    if answer.code == 400 and answer.get("Content-Type").startswith("text/plain"):
        refused(answer, 400)
    else:
        assert answer.code in (400, 404), answer


def test_unknown_channels(httpd):
    refused(ask(httpd, "/some/?channel=secret"), 403, "Permission denied to channels: secret")
    refused(ask(httpd, "/some/?channel=" + ",".join(f"s{i}" for i in range(20))), 403, "s0, s1, s2")
    answer = ask(httpd, "/some/?channel=%22%5C%C3%A4%3Cb%3E", headers=EVENTSOURCE)
    lines = answer.body.decode().split("\n")
    assert lines[0] == "event: stream-error"
    assert json.loads(lines[2].removeprefix("data: "))["channels"] == ['"\\\u00e4<b>']


# ---- positions ------------------------------------------------------------------------------------

def decoded(id):
    raw = base64.urlsafe_b64decode(id + "=")
    return struct.unpack(">QQI", raw)


def made_id(instance, number):
    """As the hub makes them: CRC-32 from a start of its own."""
    raw = struct.pack(">QQ", instance, number)
    crc = zlib.crc32(raw, 0x45534944 ^ 0xffffffff)
    return part(raw + struct.pack(">I", crc))


def told(httpd, channel, last, target=None):
    with sse.Stream.opened(httpd.port("wide"), target or f"/events/{channel}",
                           headers=[("Last-Event-ID", last)] if last is not None else []) as s:
        s.wait_for(b"retry: 3000\n\n")
        mark = unique("mark")
        with sse.Client(httpd.port("main")) as c:
            assert c.post(f"/events/{channel}", mark.encode(), headers=PLAIN).code == 200
        s.wait_for(f"data: {mark}\n\n".encode())
        return [e["data"] for e in s.events() if e["event"] == "message"][:-1], \
            b"event: stream-reset\n" in s.body


def test_ids_that_were_never_given(httpd, channel):
    with sse.Client(httpd.port("main")) as c:
        first, last = [json.loads(c.post(f"/events/{channel}", t, headers=PLAIN).body)["id"]
                       for t in (b"one", b"two")]
    instance, number, _ = decoded(last)
    assert made_id(instance, number) == last
    assert told(httpd, channel, first) == (["two"], False)
    for id in [made_id(instance, number + 10**6), made_id(instance, 2**62),
               made_id(instance, 2**64 - 1), made_id(instance ^ 1, number),
               made_id(0, 0), made_id(2**64 - 1, 1)]:
        assert told(httpd, channel, id) == ([], True), id
    # an id from before the first one is one: all is replayed, unless something is known to be gone
    assert told(httpd, channel, made_id(instance, number - 1))[0][0] == "two"


def test_huge_ids(httpd, channel):
    assert told(httpd, channel, "A" * 100000) == ([], True)
    assert told(httpd, channel, None, f"/events/?channel={channel}&lastEventId=" + "%41" * 20000) \
        == ([], True)
    for id in ("%00", "%zz", "%ff", "%0d%0a"):
        assert told(httpd, channel, None, f"/events/?channel={channel}&lastEventId={id}") \
            == ([], True), id
    answer = ask(httpd, f"/events/{channel}", headers=[("Last-Event-ID", "A" * 9000)])
    assert answer.code == 400  # httpd's own limit


@pytest.mark.parametrize("query", ["since=-1", "since=99999999999999999999", "since=1e9",
                                   "since=2026-13-01T00:00:00Z", "since=%00", "rewind=1.5",
                                   "rewind=99999999999999999999", "rewind=%31%00",
                                   "since=%ff"])
def test_positions(httpd, channel, query):
    answer = ask(httpd, f"/events/?channel={channel}&{query}", headers=[("Accept", "*/*")])
    refused(answer, 400)


# ---- tokens ---------------------------------------------------------------------------------------

def claims(**more):
    return {"iss": "mysite", "exp": int(time.time()) + 600, "channels": ["*"], **more}


def carried(where, token):
    """Target's query and headers."""
    return {"header": ("", [("Authorization", f"Bearer {token}")]),
            "query": (f"&token={token}", []),
            "cookie": ("", [("Cookie", f"eventstream_token={token}")])}[where]


@pytest.mark.parametrize("where", ["header", "query", "cookie"])
@pytest.mark.parametrize("path,alg", [("/rsa/", "RS256"), ("/ec/", "ES256")])
def test_signed_by_a_private_key(httpd, channel, path, alg, where):
    token = httpd.keys.sign(alg, claims(channels=[channel]))
    query, headers = carried(where, token)
    target = f"{path}?channel={channel}{query}"
    with sse.Stream.opened(httpd.port("main"), target, headers=headers) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        answer = ask(httpd, f"{path}{channel}", "POST", body=b"signed",
                     headers=[*PLAIN, ("Authorization", f"Bearer {token}")])
        assert answer.code == 200, answer
        stream.wait_for(b"data: signed\n\n")
    refused(ask(httpd, f"{path}?channel=other{query}", headers=headers), 403,
            "Permission denied to channels: other")


def bad_tokens(keys):
    good = keys.sign("RS256", claims())
    head, body, signature = good.split(".")
    pem = (keys.root / "rsa.pem").read_bytes()
    return {
        "alg none": (keys.sign("none", claims()), "its algorithm is not RS256"),
        "public key as a secret": (keys.sign("HS256", claims(), pem), "algorithm is not RS256"),
        "its end cut": (keys.sign("HS256", claims(), pem.strip()), "algorithm is not RS256"),
        "another kind of key": (keys.sign("ES256", claims()), "algorithm is not RS256"),
        "expired": (keys.sign("RS256", claims(exp=int(time.time()) - 1)), "expired"),
        "not yet": (keys.sign("RS256", claims(nbf=int(time.time()) + 600)), "not valid yet"),
        "other issuer": (keys.sign("RS256", claims(iss="x")), "'iss'"),
        "claims changed": (head + "." + part(json.dumps(claims(channels=["*", "x"])).encode())
                           + "." + signature, "signature"),
        "no signature": (head + "." + body + ".", "signature"),
        "half a signature": (good[:-100], "signature"),
        "two parts": (head + "." + body, "signature"),
        "four parts": (good + ".x", ""),
        "dots": ("...", "not a JWT"),
        "header no object": (part(b"7") + "." + body + "." + signature, "header"),
        "crit": (part(b'{"alg":"RS256","crit":["x"]}') + "." + body + "." + signature, "crit"),
        "huge": (good + "A" * 100000, "bytes long, at most 8192"),
        "huge and signed": (keys.sign("RS256", claims(fill="x" * 20000)), "at most 8192"),
        "claims of a list": (keys.sign("RS256", [1]), ""),
        "deep": (keys.sign("RS256", json.loads("[" * 500 + "]" * 500)), ""),
        "exp a text": (keys.sign("RS256", claims(exp="soon")), "'exp'"),
        "exp too large": (keys.sign("RS256", claims(exp=10**30)), ""),
    }


@pytest.mark.parametrize("where", ["header", "query", "cookie"])
def test_bad_tokens(httpd, channel, where):
    for what, (token, why) in bad_tokens(httpd.keys).items():
        query, headers = carried(where, token)
        answer = ask(httpd, f"/rsa/?channel={channel}{query}", port="wide", headers=headers)
        refused(answer, 401, "Not authorized", why)
        assert 'error="invalid_token"' in answer.get("WWW-Authenticate"), what
        if where == "header":
            answer = ask(httpd, f"/rsa/{channel}", "POST", port="wide", body=b"x",
                         headers=[*headers, *PLAIN])
            refused(answer, 401, "Not authorized", why)


# ---- methods and bodies ---------------------------------------------------------------------------

def test_trace(httpd, channel):
    """httpd's own: what it echoes is no stream."""
    answer = ask(httpd, f"/events/{channel}", "TRACE")
    assert answer.code in (200, 405) and b"stream-open" not in answer.body, answer


def raw(httpd, data, port="main"):
    """Whatever comes until the connection ends, or one answer."""
    with sse.Client(httpd.port(port)) as c:
        c.send(data)
        return c.read_answer("POST")


@pytest.mark.parametrize("length", ["-1", "abc", "99999999999999999999999", "1, 2", "0x10", ""])
def test_broken_lengths(httpd, channel, length):
    answer = raw(httpd, sse.request_bytes(f"/events/{channel}", "POST",
                                          headers=[("Content-Length", length), *PLAIN]))
    assert answer.code in (400, 413), answer


def test_two_lengths(httpd, channel):
    answer = raw(httpd, sse.request_bytes(
        f"/events/{channel}", "POST", headers=[("Content-Length", "3"), ("Content-Length", "5")])
        + b"hello")
    assert answer.code == 400, answer


@pytest.mark.parametrize("body", [b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
                                  b"ffffffffffffffffff\r\nx", b"-5\r\nhello\r\n0\r\n\r\n"])
def test_broken_chunks(httpd, channel, body):
    answer = raw(httpd, sse.request_bytes(
        f"/events/{channel}", "POST", headers=[("Transfer-Encoding", "chunked"), *PLAIN]) + body)
    assert answer.code in (400, 413), answer
    info = ask(httpd, f"/events/{channel}", headers=[("Accept", "application/json")])
    assert json.loads(info.body)["channels"][0]["stored"] == 0


def test_a_body_that_ends_early(httpd, channel):
    with sse.Client(httpd.port("main")) as c:
        c.send(sse.request_bytes(f"/events/{channel}", "POST",
                                 headers=[("Content-Length", "100"), *PLAIN]) + b"half")
        c.sock.shutdown(socket.SHUT_WR)
        data = c.read_to_end()
    assert data == b"" or data.startswith(b"HTTP/1.1 400"), data
    info = ask(httpd, f"/events/{channel}", headers=[("Accept", "application/json")])
    assert json.loads(info.body)["channels"][0]["stored"] == 0


def test_a_slow_body(httpd, channel):
    """Refused once httpd's own patience is at its end; others are served meanwhile."""
    httpd.allow("AH01382|AH00567|AH01075")
    clients = []
    for _ in range(4):
        c = sse.Client(httpd.port("hurried"))
        c.send(sse.request_bytes(f"/events/{channel}", "POST",
                                 headers=[("Content-Length", "1000"), *PLAIN]) + b"slow")
        clients.append(c)
    assert ask(httpd, f"/events/{channel}", "POST", body=b"quick", headers=PLAIN).code == 200
    for c in clients:
        answer = c.read_answer("POST")
        assert answer.code in (400, 408), answer
        c.close()
    info = ask(httpd, f"/events/{channel}", headers=[("Accept", "application/json")])
    assert json.loads(info.body)["channels"][0]["stored"] == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_endless_bodies(httpd, channel, chunked):
    """More than the cap is not read: 413 while it is still coming."""
    headers = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", "99000000")]
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if chunked else b"x" * 65536
    with sse.Client(httpd.port("main")) as c:
        c.send(sse.request_bytes(f"/events/{channel}", "POST", headers=[*headers, *PLAIN]))
        c.sock.settimeout(5)
        try:
            for _ in range(16):
                c.send(piece)
        except OSError:
            pass
        refused(c.read_answer("POST"), 413, "more than 1000000 bytes")


@pytest.mark.parametrize("target", ["/events/?" + "channel=&" * 400, "/events/?" + "&" * 4000,
                                    "/events/?channel", "/events/?=x", "/events/////"])
def test_no_channel(httpd, target):
    refused(ask(httpd, target), 400, "No channels specified")


def test_many_at_once(httpd):
    """Refusals leave nothing behind: no stream, no reservation."""
    for _ in range(200):
        ask(httpd, "/some/?channel=secret")
    httpd.wait_status(reserved=0)
    wait_until(lambda: httpd.status()["streams"] == 0, "no stream")
