# SPDX-License-Identifier: Apache-2.0
"""EventStreamLog: one line for each stream that was held, when it ends, whichever way it was held
and whyever it ended. Nothing that a client sends can break a line or forge a part of one."""

import base64
import hashlib
import re
import time

import pytest

import h2
import sse
from harness import MPM, TLS_CA, unique, wait_until
from publish import Publisher, close_item, item, publish

LINE = re.compile(r'(?P<address>\S+) - (?P<user>\S+) \[(?P<time>[^\]]+)\] '
                  r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+) '
                  r'"(?P<host>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)" '
                  r'(?P<seconds>\d+\.\d{3}) '
                  r'(?P<end>client|action|lag|timeout|error|shutdown|expired)')
SEEN_BY_ALL = re.compile(r'\S+ \S+ \S+ \[[\w:/]+\s[+-]\d{4}\] "\S+ \S+\s*\S+\s*" \d{3} \S+')


def make(make_httpd, origin, name=None, log="logs/streams_log"):
    http2 = ["http2"] if MPM != "prefork" else []
    server = make_httpd(name, modules=[*http2, "auth_basic", "authn_core", "authn_file",
                                       "authz_user", "remoteip"])
    server.add(f'EventStreamLog "{log}"\nEventStreamMaxLag 262144\nEventStreamSendTimeout 2s')
    server.grip_proxy(origin.port, server="RemoteIPHeader X-Forwarded-For\n"
                                          "RemoteIPInternalProxy 127.0.0.1")
    server.tls_proxy(origin.port)
    if http2:
        server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1")
    (server.root / "users").write_text("".join(
        f"{name}:{{SHA}}{base64.b64encode(hashlib.sha1(b'secret').digest()).decode()}\n"
        for name in ("jane", 'ja ne" x')))
    server.grip_proxy(origin.port, "auth", extra="AuthType Basic\nAuthName x\n"
                                                 "AuthUserFile users\nRequire valid-user")
    server.publisher()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    return make(make_httpd, origin)


def parsed(server, name="streams_log"):
    lines = server.access(name.removesuffix("_log"))
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), [line for line, m in zip(lines, found) if not m]
    assert all(SEEN_BY_ALL.match(line) for line in lines), "not what readers of access logs know"
    return [m.groupdict() for m in found]


def about(server, path, count=1, name="streams_log"):
    """Waits until that many streams of this path have ended, and returns their lines."""
    def there():
        mine = [m for m in parsed(server, name) if path in re.split(r"[ ?]", m["request"])]
        return mine if len(mine) >= count else None

    mine = wait_until(there, f"{count} lines about {path}")
    assert len(mine) == count, mine
    return mine if count > 1 else mine[0]


def ended(server, path, s, channel):
    """Publishes a message to an open stream, closes it, and returns its line."""
    publish(server.port("publish"), item(channel, "hello"))
    s.wait_for(b"hello")
    s.close()
    return about(server, path)


def test_line(httpd, origin, channel):
    """All that it has, for a plain stream."""
    path = origin.hold(channel, b"open.", status="203 Fine")
    began = time.time()
    s = sse.Stream(httpd.port(), path + "?a=b&c", headers=[("User-Agent", "agent/1 (x; y)")])
    assert s.read_head().code == 203
    httpd.wait_status(streams=1)
    time.sleep(1.2)  # what the duration is compared with
    line = ended(httpd, path, s, channel)
    took = time.time() - began
    assert line["request"] == f"GET {path}?a=b&c HTTP/1.1"
    assert (line["address"], line["user"], line["status"]) == ("127.0.0.1", "-", "203")
    assert line["bytes"] == str(len(b"5\r\nhello\r\n"))
    assert (line["host"], line["agent"], line["end"]) == ("main.test", "agent/1 (x; y)", "client")
    assert 1.2 <= float(line["seconds"]) <= took + 0.002  # both ends are rounded
    stamp = time.mktime(time.strptime(line["time"][:20], "%d/%b/%Y:%H:%M:%S"))
    assert began - 1.1 <= stamp <= began + took
    assert line["time"][20:] == time.strftime(" %z")


@pytest.mark.parametrize("version,written", [("1.1", 10), ("1.0", 5)])
@pytest.mark.parametrize("way", ["main", "tls"])
def test_ways(httpd, origin, channel, way, version, written):
    path = origin.hold(channel, b"")
    wrap = sse.tls(TLS_CA) if way == "tls" else None
    s = sse.Stream.opened(httpd.port(way), path, wrap=wrap, version=version)
    line = ended(httpd, path, s, channel)
    assert line["request"] == f"GET {path} HTTP/{version}"
    assert (line["host"], line["bytes"], line["end"]) == (f"{way}.test", str(written), "client")
    assert line["agent"] == "-"


def http2(httpd, origin, channel):
    path = origin.hold(channel, b"")
    with h2.Connection(httpd.port("h2c")) as c:
        a, b = c.opened(path), c.opened(path)
        httpd.wait_status(streams=2)
        publish(httpd.port("publish"), item(channel, "hello"))
        for s in (a, b):
            s.wait_body(b"hello")
        a.cancel()
        line = about(httpd, path)
        assert line["request"] == f"GET {path} HTTP/2.0"
        assert (line["host"], line["bytes"], line["end"]) == ("h2c.test", "5", "client")
        publish(httpd.port("publish"), close_item(channel))
        b.wait_end()
    assert [m["end"] for m in about(httpd, path, 2)] == ["client", "action"]


if MPM != "prefork":  # mod_http2 does not run there
    test_http2 = http2


@pytest.mark.parametrize("way", ["main", "tls"])
def test_ends(httpd, origin, channel, way):
    """A publisher's close, too far behind, and a client that takes nothing."""
    wrap = sse.tls(TLS_CA) if way == "tls" else None
    httpd.allow(r"ES0201.*ended: (lag|timeout)")
    path = origin.hold(channel, b"")
    with sse.Stream.opened(httpd.port(way), path, wrap=wrap) as s:
        httpd.wait_status(streams=1, reserved=0)
        publish(httpd.port("publish"), close_item(channel))
        s.wait_end()
    line = about(httpd, path)
    assert (line["end"], line["bytes"]) == ("action", "5")
    path = origin.hold(channel, b"")
    with sse.Stream.opened(httpd.port(way), path, wrap=wrap, rcvbuf=4096), \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=1, reserved=0)
        while httpd.status()["streams"]:
            for _ in range(50):
                pub.text(channel, "x" * 20000)
    line = about(httpd, path)
    assert line["end"] == "lag" and int(line["bytes"]) > 0
    path = origin.hold(channel, b"")
    with sse.Stream.opened(httpd.port(way), path, wrap=wrap, rcvbuf=2048), \
            Publisher(httpd.port("publish")) as pub:
        httpd.wait_status(streams=1, reserved=0)
        for _ in range(4):
            pub.text(channel, "x" * 20000)
        line = about(httpd, path)
    assert line["end"] == "timeout"
    assert 2.0 <= float(line["seconds"])


def test_shutdown(make_httpd, origin):
    """The server stops: each stream has its line before the hub is gone."""
    server = make(make_httpd, origin, "134_shutdown")
    path = origin.hold(unique(), b"")
    with sse.open_many(server.port(), [path] * 30), \
            sse.open_many(server.port("tls"), [path] * 5, wrap=sse.tls(TLS_CA)):
        server.wait_status(streams=35, reserved=0)
        server.stop()
        lines = about(server, path, 35)
    # TLS streams may go with their child, which may be faster
    assert [m["end"] for m in lines if m["host"] == "main.test"] == ["shutdown"] * 30
    assert {m["end"] for m in lines} <= {"shutdown", "client"}


def test_not_held(httpd, origin, channel):
    """What was not held has no line."""
    before = len(parsed(httpd))
    plain = origin.answer(b"plain")
    with sse.Client(httpd.port()) as c:
        assert c.get(plain).body == b"plain"
        assert c.get("/o/none").code == 404
        assert c.ask(origin.hold(channel, b""), "HEAD").code == 200
    path = origin.hold(channel, b"")
    sse.Stream.opened(httpd.port(), path).close()
    about(httpd, path)
    assert len(parsed(httpd)) == before + 1


HOSTILE = [b'"', b'\\', b'\\"', b'" 200 0 "x" "y" 0.000 client', b"\xff\xfe\x80", "é€".encode(),
           b"\\n\\x0a", b"%0a%0d%22", b"\x7f", b"\\" * 7]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes(httpd, origin, channel, text):
    """In the request line and in the user agent: escaped as httpd's own logs do it."""
    path = origin.hold(channel, b"")
    target = text.replace(b" ", b"+").replace(b"\x7f", b"~")  # which httpd refuses there itself
    c = Sent(httpd.port())
    c.send(b"GET " + path.encode() + b"?" + target + b" HTTP/1.1\r\nHost: main.test\r\n"
           b"User-Agent: a" + text.replace(b"\x7f", b"\t") + b"b\r\nX-End: x\r\n\r\n")
    s = sse.Stream(None, "/", client=c)
    assert s.read_head().code == 200, s.head.raw
    line = ended(httpd, path, s, channel)
    assert unescaped(line["request"]) == b"GET " + path.encode() + b"?" + target + b" HTTP/1.1"
    assert unescaped(line["agent"]) == b"a" + text.replace(b"\x7f", b"\t") + b"b"
    assert line["end"] == "client" and line["bytes"] == "10"


class Sent(sse.Client):
    """A client whose request is on its way already."""

    def request(self, target, **args):
        pass


def unescaped(text):
    """What ap_escape_logitem made of it, back again."""
    assert text.isascii() and text.isprintable()
    plain = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "v": "\v", '"': '"', "\\": "\\"}
    out = re.sub(r"\\(x[0-9a-f]{2}|.)", lambda m: chr(int(m[1][1:], 16)) if m[1][0] == "x"
                 else plain[m[1]], text)
    return out.encode("latin-1")


def test_long_parts_are_cut(httpd, origin, channel):
    """A pipe takes 4096 bytes as a whole, so a line has no more; each part tells where it is cut."""
    path = origin.hold(channel, b"")
    for text in ("a" * 5000, '"' * 5000, "\u00ff" * 5000):
        s = sse.Stream.opened(httpd.port(), f"{path}?{text}", headers=[("User-Agent", text)])
        httpd.wait_status(streams=1)
        s.close()
        httpd.wait_status(streams=0)
    lines = about(httpd, path, 3)
    for line, text in zip(lines, ("a", '"', "\u00ff")):
        assert line["request"].endswith("...") and 2000 < len(line["request"]) <= 2051
        assert line["agent"].endswith("...") and 1000 < len(line["agent"]) <= 1027
        assert set(unescaped(line["agent"][:-3]).decode("latin-1")) == {text}
    assert all(len(x) < 4096 for x in httpd.access("streams"))


@pytest.mark.parametrize("user,logged", [("jane", "jane"), ('ja ne" x', 'ja+ne\\"+x')])
def test_user(httpd, origin, channel, user, logged):
    path = origin.hold(channel, b"")
    token = base64.b64encode(f"{user}:secret".encode()).decode()
    s = sse.Stream.opened(httpd.port("auth"), path, headers=[("Authorization", f"Basic {token}")])
    assert ended(httpd, path, s, channel)["user"] == logged


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7"])
def test_address_of_remoteip(httpd, origin, channel, address):
    path = origin.hold(channel, b"")
    s = sse.Stream.opened(httpd.port(), path, headers=[("X-Forwarded-For", address)])
    assert ended(httpd, path, s, channel)["address"] == address


def test_many_at_once(httpd, origin, channel):
    """Lines of several threads do not mix."""
    paths = [origin.hold(channel, b"") for _ in range(4)]
    with sse.open_many(httpd.port(), paths * 100):
        httpd.wait_status(streams=400, reserved=0)
        publish(httpd.port("publish"), close_item(channel))
        httpd.wait_status(streams=0)
    for path in paths:
        assert {m["end"] for m in about(httpd, path, 100)} == {"action"}
    assert httpd.status()["log_lost"] == 0


def test_graceful_opens_anew(make_httpd, origin):
    """As logrotate does it: the file is renamed, then a graceful restart. What ends after that is in
    the new file; a stream that was open has one line, in one of them."""
    server = make(make_httpd, origin, "134_graceful")
    logs, channel = server.root / "logs", unique()
    over, after = origin.hold(channel, b""), origin.hold(channel, b"")
    held = sse.Stream.opened(server.port(), over)
    server.wait_status(streams=1)
    for n in range(3):
        (logs / "streams_log").rename(logs / f"streams{n}_log")
        server.graceful()
        wait_until(lambda: (logs / "streams_log").exists(), "a new file")
        s = sse.Stream.opened(server.port(), after)
        server.wait_status(reserved=0)
        s.close()
        line = about(server, after)
        assert line["end"] == "client"
    held.close()

    def lines():
        return [x for n in ("streams0", "streams1", "streams2", "streams")
                for x in server.access(n) if over in x]

    wait_until(lines, "the line of the stream that was open")
    server.stop()
    assert len(lines()) == 1, lines()


def test_piped(make_httpd, origin, channel):
    server = make(make_httpd, origin, "134_piped", log="|$exec cat >>logs/piped_log")
    # httpd says so of each piped log's program that ends with its configuration
    server.always_allowed.append(r"long lost child came home")
    path = origin.hold(channel, b"")
    with sse.open_many(server.port(), [path] * 50):
        server.wait_status(streams=50)
    assert {m["end"] for m in about(server, path, 50, "piped_log")} == {"client"}
    server.graceful()
    path = origin.hold(channel, b"")
    s = sse.Stream.opened(server.port(), path)
    server.wait_status(reserved=0)
    s.close()
    assert about(server, path, 1, "piped_log")["end"] == "client"


def test_pipe_that_nobody_reads(make_httpd, origin, channel):
    """The command hangs: messages go on at once, what the pipe does not take is counted and told."""
    server = make(make_httpd, origin, "134_stuck", log="|$exec sleep 1000")
    agent = [("User-Agent", "u" * 1000)]
    path = origin.hold(channel, b"")
    server.always_allowed.append(r"ES0206: a line of EventStreamLog is lost|ES0207")
    with sse.Stream.opened(server.port(), path) as stays:
        for n in range(3):
            with sse.open_many(server.port(), [path] * 60, headers=agent):
                server.wait_status(streams=61)
            server.wait_status(streams=1)
            publish(server.port("publish"), item(channel, f"{n}."))
            stays.wait_for(b"%d." % n)
        status = server.status()
        assert status["ended"]["client"] == 180
        assert 60 < status["log_lost"] < 180  # 64 KiB of some 1100 bytes each were taken
        server.wait_log(r"\[eventstream:warn\].*ES0206: a line of EventStreamLog is lost: "
                        r"Resource temporarily unavailable")


def test_cannot_be_opened(make_httpd):
    """httpd does not start, and says why."""
    server = make_httpd("134_wrong")
    server.add("EventStreamLog nowhere/streams_log")
    with pytest.raises(AssertionError, match="httpd ended with"):
        server.start()
    text = server.log_text() + server.stderr_text()
    server.always_allowed.append(r"ES0091|AH00019|httpd has ended")
    server.process = None
    assert re.search(r"No such file or directory.*ES0091: EventStreamLog: cannot open "
                     r"\S+/nowhere/streams_log", text), text


def test_no_line_without_the_directive(make_httpd, origin, channel):
    server = make_httpd("134_none")
    server.grip_proxy(origin.port)
    server.publisher()
    server.start()
    path = origin.hold(channel, b"")
    sse.Stream.opened(server.port(), path).close()
    server.wait_status(streams=0, reserved=0)
    assert sorted(p.name for p in (server.root / "logs").iterdir()) \
        == ["error_log", "publish_log", "stderr"]
