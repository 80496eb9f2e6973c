# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ PULL: the three encodings, multipart and broken messages, a port that is taken."""

import socket

import pytest
import tnetstring
import zmq

import sse
from harness import free_port, no_stream, unique, wait_until
from publish import Push, close_item, item, publish, to_bytes


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    server.second = f"tcp://127.0.0.1:{server.port('second')}"
    server.add(f"EventStreamPull {server.second}")
    return server.start()


@pytest.fixture
def push(httpd):
    with Push(httpd.endpoint) as p:
        yield p


def held(httpd, origin, channel):
    return sse.Stream.opened(httpd.port(), origin.hold(channel, b""))


@pytest.mark.parametrize("form", ["bare", "tnet", "json"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "formats"])
def test_encodings(httpd, origin, push, channel, form, flat):
    with held(httpd, origin, channel) as s:
        send = getattr(push, form)
        send(item(channel, "one.", flat=flat))
        send(item(channel, "tw\u00f6.", id="1", meta={"a": "b"}, flat=flat))
        send(close_item(channel, flat=flat))
        s.wait_clean_end()
        assert s.body == "one.tw\u00f6.".encode()


def test_binary_in_tnetstring(httpd, origin, push, channel):
    blob = bytes(range(256))
    with held(httpd, origin, channel) as s:
        push.raw(tnetstring.dumps({b"channel": channel.encode(),
                                   b"formats": {b"http-stream": {b"content": blob}}}))
        s.wait_body(blob)


def test_pypubcontrol_frame(httpd, origin, push):
    """The very bytes that pypubcontrol sends."""
    with held(httpd, origin, "events-test") as s:
        push.raw(b"125:7:formats,86:11:http-stream,67:15:content-filters,0:]7:content,31:event: "
                 b"message\ndata: {\"n\": 0}\n\n,}}7:channel,11:events-test,}")
        s.wait_body(b'event: message\ndata: {"n": 0}\n\n')


def test_order_of_one_publisher(httpd, origin, push, channel):
    with held(httpd, origin, channel) as s:
        for n in range(2000):
            push.bare(item(channel, f"{n};"))
        s.wait_body("".join(f"{n};" for n in range(2000)).encode())


def test_two_endpoints(httpd, origin, push, channel):
    with held(httpd, origin, channel) as s, Push(httpd.second) as other:
        push.bare(item(channel, "a"))
        s.wait_for(b"a")
        other.bare(item(channel, "b"))
        s.wait_body(b"ab")


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "length-too-long": b"99:7:channel,1:a,}",
    "no-type": b"3:abc",
    "list": b"0:]",
    "no-channel": tnetstring.dumps({b"http-stream": {b"content": b"x"}}),
    "no-format": tnetstring.dumps({b"channel": b"a"}),
    "channel-number": tnetstring.dumps({b"channel": 5, b"http-stream": {b"content": b"x"}}),
    "channel-newline": tnetstring.dumps({b"channel": b"a\r\nb", b"http-stream": {b"content": b""}}),
    "T-alone": b"T",
    "J-alone": b"J",
    "J-text": b"Jhello",
    "J-envelope": b'J{"items": []}',
    "huge-length": b"99999999999999999999:x,",
    "deep": b"".join(b"%d:" % n for n in range(9999, 0, -3)),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_message(httpd, origin, push, channel, name):
    """A message that is no item is counted and skipped, and the next one arrives."""
    httpd.allow(r"ES030[45]")
    refused = httpd.status()["refused"]
    with held(httpd, origin, channel) as s:
        push.raw(BROKEN[name])
        push.bare(item(channel, "next"))
        s.wait_body(b"next")
    assert httpd.status()["refused"] == refused + 1


@no_stream
def test_broken_message_is_logged(make_httpd, origin):
    """The first one is told with the endpoint and the reason."""
    server = make_httpd("zmqlog")
    endpoint = server.pull()
    server.start()
    with Push(endpoint) as p:
        p.raw(b"hello")
        line = server.wait_log(r"\[eventstream:warn\].*refused.*")[0]
    assert endpoint in line and "tnetstring" in line


def test_multipart_is_refused(httpd, origin, push, channel):
    httpd.allow(r"ES030[45]")
    refused = httpd.status()["refused"]
    with held(httpd, origin, channel) as s:
        push.raw(channel.encode(), tnetstring.dumps(to_bytes(item(channel, "no"))))
        push.bare(item(channel, "yes"))
        s.wait_body(b"yes")
    assert httpd.status()["refused"] == refused + 1


def test_oversized_message(httpd, origin, channel):
    """ZeroMQ drops a peer that sends more than a packet may have; others are not disturbed."""
    httpd.allow(r"ES\d+")
    with held(httpd, origin, channel) as s:
        with Push(httpd.endpoint) as big:
            big.socket.setsockopt(zmq.LINGER, 0)
            big.raw(b"x" * 3000000)
            with Push(httpd.endpoint) as p:
                p.bare(item(channel, "next"))
                s.wait_body(b"next")


def test_endpoint_is_taken(make_httpd, origin):
    """A port that is taken is said once and tried again; everything else works meanwhile."""
    server = make_httpd("taken")
    server.grip_proxy(origin.port)
    server.publisher()
    port, channel = free_port(), unique()
    endpoint = f"tcp://127.0.0.1:{port}"
    server.add(f"EventStreamPull {endpoint}")
    with socket.create_server(("127.0.0.1", port)):
        server.start()
        line = server.wait_log(r"\[eventstream:warn\].*cannot be bound.*")[0]
        assert endpoint in line and "in use" in line
        with held(server, origin, channel) as s:
            publish(server.port("publish"), item(channel, "http"))
            s.wait_body(b"http")
    with held(server, origin, channel) as s, Push(endpoint) as p:
        p.bare(item(channel, "zmq"))
        s.wait_body(b"zmq")
    said = [x for x in server.log_text().splitlines() if "cannot be bound" in x]
    assert len(said) == 1


def test_many_publishers(httpd, origin, channel):
    with held(httpd, origin, channel) as s:
        pushes = [Push(httpd.endpoint) for _ in range(20)]
        for n, p in enumerate(pushes):
            p.bare(item(channel, f"<{n}>"))
        s.wait(lambda: s.body.count(b"<") == 20, "20 events")
        for p in pushes:
            p.__exit__()
    wait_until(lambda: sorted(s.body.decode().strip("<>").split("><"), key=int)
               == [str(n) for n in range(20)], "each event once")
