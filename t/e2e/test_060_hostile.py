# SPDX-License-Identifier: Apache-2.0
"""Hostile input: it gets a clear error, costs no memory, floods no log, and disturbs nobody."""

import json
import random
import re

import pytest
import tnetstring

import sse
from harness import SANITIZE, only_http1, unique
from publish import Publisher, Push, body, close_item, item, publish, to_bytes

GROWTH = (64 if SANITIZE else 8) * 1024 * 1024  # bytes that the hub may grow by, at most


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    return server.start()


@pytest.fixture(autouse=True)
def still_works(httpd, origin):
    """After each attack: the same hub, an old stream and a new one, a publish on both ways in."""
    channel = unique("control")
    pid = httpd.status()["hub"]["pid"]
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as old:
        yield
        with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as new, \
                Push(httpd.endpoint) as push:
            publish(httpd.port("publish"), item(channel, "http."))
            new.wait_for(b"http.")
            push.bare(item(channel, "zmq."))
            new.wait_body(b"http.zmq.")
            old.wait_body(b"http.zmq.")
    assert httpd.status()["hub"]["pid"] == pid
    httpd.wait_status(streams=0, reserved=0, channels=0)


def post(httpd, *items):
    with sse.Client(httpd.port("publish")) as c:
        return c.post("/publish/", body(items))


def bad(answer, *parts):
    assert answer.code == 400, answer
    text = answer.body.decode()
    assert text.startswith("Invalid format: ") and text.endswith("\n") and text.count("\n") == 1
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"


@pytest.mark.parametrize("evil", ["\r\n", "\n", "\r", "\0", "a\r\nevent: x\r\n\r\n"])
@pytest.mark.parametrize("field", ["channel", "id", "prev-id"])
def test_control_bytes_in_names(httpd, evil, field):
    made = item(unique(), "x", id="1", prev_id="0")
    made[field] = f"a{evil}b"
    bad(post(httpd, made), f"'{field}'")


def test_control_bytes_in_meta_split_nothing(httpd, origin, channel):
    """Publish meta is compared, never written: it cannot reach a stream."""
    with sse.Stream.opened(httpd.port(), origin.hold(f"{channel}; filter=skip-users", b"",
                                                     headers=[("Grip-Set-Meta", "user=u")])) as s:
        answer = post(httpd, item(channel, "x", meta={"skip_users": "a\r\n\r\nevil"}))
        assert answer.code in (200, 400)
        publish(httpd.port("publish"), item(channel, "end"))
        s.wait_body(b"xend" if answer.code == 200 else b"end")


def test_content_cannot_break_the_framing(httpd, origin, channel):
    """Content that looks like chunks and heads stays content."""
    evil = "0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s:
        publish(httpd.port("publish"), item(channel, evil), close_item(channel))
        s.wait_clean_end()
        assert s.body == evil.encode()


def test_long_names(httpd, origin):
    """4096 bytes of channel name are accepted, and matched; one more is refused."""
    name = unique() + "x"
    name += "y" * (4096 - len(name))
    with sse.Stream.opened(httpd.port(), origin.hold(name, b"")) as s:
        assert post(httpd, item(name, "long")).code == 200
        s.wait_body(b"long")
    bad(post(httpd, item(name + "y", "x")), "'channel'", "4096")
    bad(post(httpd, item("c", "x", id="i" * 4097)), "'id'", "4096")
    since = httpd.log_mark()
    with sse.Client(httpd.port()) as c:
        assert c.get(origin.hold(name + "y", b"")).code == 502
    httpd.wait_log(r"\[eventstream:\w+\].*channel.*4096", since)


def test_oversized_response_header(httpd, origin):
    """A header line that mod_proxy does not take is its business; nothing is held."""
    path = origin.hold(["x" * 2000 + str(n) for n in range(20)], b"")
    httpd.allow(r"AH\d+", r"ES\d+")
    with sse.Client(httpd.port()) as c:
        c.request(path)
        assert c.read_head().code in (200, 502)


def test_meta_caps(httpd):
    bad(post(httpd, item("c", "x", meta={f"k{n}": "v" for n in range(65)})), "meta", "64")
    bad(post(httpd, item("c", "x", meta={"k": "v" * 20000})), "meta")


def test_deep_json(httpd):
    for data in (b"[" * 100000, b'{"items": ' + b"[" * 100000, b'{"a":' * 50000):
        with sse.Client(httpd.port("publish")) as c:
            answer = c.post("/publish/", data)
            assert (answer.code, answer.body) == (400, b"Body is not valid JSON.\n"), answer


def test_many_items(httpd):
    """As many items as a body can hold."""
    data = b'{"items": [' + b",".join([b'{"channel":"c","http-stream":{"content":""}}'] * 22000) \
        + b"]}"
    assert len(data) < 1000000
    with sse.Client(httpd.port("publish")) as c:
        answer = c.post("/publish/", data)
        assert answer.code == 200, answer


@only_http1("bytes on the wire")
def test_oversized_requests(httpd):
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
                 b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 500 + b"\r\n",
                 b"\0\1\2\3\r\n\r\n", b"POST /publish/ HTTP/1.1\r\n\r\n"):
        for name in ("publish", "main"):
            with sse.Client(httpd.port(name)) as c:
                c.send(data)
                assert 400 <= c.read_head().code < 500


@pytest.fixture
def flat(httpd):
    """The hub's memory and the log must be where they were."""
    httpd.allow(r"ES030[45]")
    before = httpd.status()["refused"]
    with Push(httpd.endpoint) as warm:
        for _ in range(2000):  # what the allocator keeps is there before it is measured
            warm.raw(b"warm")
    httpd.wait_status(refused=before + 2000)
    rss, lines = httpd.hub_rss(), len(httpd.log_text().splitlines())
    yield
    grown = httpd.hub_rss() - rss
    assert grown < GROWTH, f"the hub grew by {grown} bytes"
    said = [x for x in httpd.log_text().splitlines()[lines:]
            if not re.search(r"\[\w+:(debug|info)\]", x)]
    assert len(said) < 100, f"{len(said)} lines, for example:\n" + "\n".join(said[:20])


def garbage(seed, count):
    """Broken messages of many kinds, the same ones each time."""
    r = random.Random(seed)
    good = [tnetstring.dumps(to_bytes(item(f"g{n}", "x" * n, id=str(n)))) for n in range(40)]
    good += [b"J" + json.dumps(item("j", "y")).encode(), b"T" + good[0]]
    for _ in range(count):
        kind = r.randrange(5)
        if kind == 0:
            yield r.randbytes(r.randrange(200))
        elif kind == 1:
            whole = r.choice(good)
            yield whole[:r.randrange(len(whole))]
        elif kind == 2:
            whole = bytearray(r.choice(good))
            whole[r.randrange(len(whole))] = r.randrange(256)
            yield bytes(whole)
        elif kind == 3:
            yield b"%d:%s" % (r.choice([0, 1, 99, 2 ** 31, 2 ** 63, 2 ** 64]), r.randbytes(9))
        else:
            yield b"J" + r.choice([b"{}", b"[]", b"null", b'{"channel":1}', b'{"channel":"a"',
                                   b"{\"channel\":\"\\u0000\"}"])


def test_garbage_over_zeromq(httpd, origin, channel, flat):
    """A hundred thousand broken messages; what is good among them and after them arrives."""
    before = httpd.status()
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s, \
            Push(httpd.endpoint) as push:
        for n, data in enumerate(garbage(1, 100000)):
            push.raw(data)
            if n % 10000 == 0:
                push.bare(item(channel, f"{n};"))
        push.bare(item(channel, "end"))
        s.wait_body("".join(f"{n};" for n in range(0, 100000, 10000)).encode() + b"end",
                    timeout=60)
    after = httpd.status()
    assert (after["refused"] - before["refused"]) + (after["published"] - before["published"]) \
        == 100011
    assert after["refused"] - before["refused"] > 70000


def test_garbage_over_http(httpd, origin, channel, flat):
    """Five thousand broken posts, pipelined as far as the server goes on reading: each gets its
    400, in order."""
    r = random.Random(2)
    kinds = [b"{", b"[]", b"{}", b'{"items":[{}]}', b'{"items":[{"channel":"a"}]}', b"\xff\xfe",
             b'{"items":[{"channel":"a\\u0000","http-stream":{"content":"x"}}]}', b"",
             b'{"items":[{"channel":"a","http-stream":{"action":"fly"}}]}']
    bodies = [r.choice(kinds) if r.random() < 0.7 else r.randbytes(r.randrange(300))
              for _ in range(5000)]
    # httpd ends a connection with its first 400: what was pipelined behind it is not looked at
    at = connections = 0
    while at < len(bodies):
        connections += 1
        with sse.Client(httpd.port("publish")) as c:
            c.send(b"".join(
                f"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: {len(b)}\r\n\r\n".encode()
                + b for b in bodies[at:at + 10]))
            for b in bodies[at:at + 10]:
                answer = c.read_answer()
                assert answer.code == 400 and answer.body.endswith(b"\n"), (b, answer)
                at += 1
                if (answer.get("Connection") or "").lower() == "close":
                    break
    with Publisher(httpd.port("publish")) as p:
        p.send()
    assert connections <= len(bodies)


def test_publishing_to_nobody(httpd, flat):
    """A hundred thousand messages on a hundred thousand channels that nobody is on: nothing is
    kept."""
    before = httpd.status()
    with sse.Client(httpd.port("publish")) as c:
        for n in range(100):
            items = [item(f"nobody-{n}-{m}", "x" * 50) for m in range(1000)]
            assert c.post("/publish/", body(items)).code == 200
    after = httpd.status()
    assert after["published"] - before["published"] == 100000
    assert after["channels"] == before["channels"]


def test_streams_come_and_go(httpd, origin, flat):
    """Two thousand streams, each on channels of its own, two hundred at a time."""
    for _ in range(10):
        paths = [origin.hold([unique(), unique()], b"x") for _ in range(200)]
        with sse.open_many(httpd.port(), paths):
            pass
    httpd.wait_status(streams=1, reserved=0)


@only_http1("bytes on the wire")
def test_client_floods_its_held_connection(httpd, origin, channel, flat):
    """Eight megabytes into a held connection: read away or refused, never kept."""
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s:
        publish(httpd.port("publish"), item(channel, "held."))
        s.wait_body(b"held.")
        s.client.sock.settimeout(2)
        try:
            for _ in range(128):
                s.client.send(b"x" * 65536)
        except (TimeoutError, ConnectionError):
            pass
        s.client.sock.settimeout(30)
        publish(httpd.port("publish"), item(channel, "still here"))
        s.pump(30, lambda: b"still here" in s.body)
        assert s.body == b"held.still here" or s.eof


@only_http1("bytes on the wire")
def test_half_requests(httpd, origin):
    """Connections that stop in the middle of a request hold no stream."""
    clients = [sse.Client(httpd.port()) for _ in range(4)]
    for c in clients:
        c.send(b"GET /o/1 HTTP/1.1\r\nHost: main.test\r\nX-")
    httpd.wait_status(reserved=0)
    for c in clients:
        c.close()
