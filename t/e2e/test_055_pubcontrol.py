# SPDX-License-Identifier: Apache-2.0
"""pypubcontrol and gripcontrol as publishers: over HTTP in batches of ten on one connection, with
keys, and over ZeroMQ PUSH."""

import threading

import pytest
from gripcontrol import GripPubControl, HttpStreamFormat, parse_grip_uri
from pubcontrol import Item, PubControlClient, ZmqPubControlClient

import sse
from harness import no_stream, wait_until


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.publisher("keyed", "EventStreamPublishKey realm1 base64:Y2hhbmdlbWU=")
    server.publisher("bearer", "EventStreamPublishKey changeme")
    server.endpoint = server.pull()
    return server.start()


def held(httpd, origin, channel):
    return sse.Stream.opened(httpd.port(), origin.hold(channel, b""))


def uri(httpd, name="publish"):
    return f"http://127.0.0.1:{httpd.port(name)}"


def test_batches_on_one_connection(httpd, origin, channel):
    """Two hundred asynchronous publishes: all succeed, in order; the access log shows one
    connection whose keep-alive count goes up."""
    log = len(httpd.access())
    client = PubControlClient(uri(httpd))
    results, done = [], threading.Event()

    def callback(ok, text):
        results.append((ok, text))
        if len(results) == 200:
            done.set()

    with held(httpd, origin, channel) as s:
        for n in range(200):
            client.publish(channel, Item(HttpStreamFormat(f"{n};")), callback=callback)
        assert done.wait(30)
        s.wait_body("".join(f"{n};" for n in range(200)).encode())
    client.close()
    assert results == [(True, "")] * 200
    wait_until(lambda: len(httpd.access()) - log >= 20, "the access log")
    lines = [line.split() for line in httpd.access()[log:]]
    assert {line[3] for line in lines} == {"/publish/"}
    assert {line[4] for line in lines} == {"200"}
    assert len({line[0] for line in lines}) == 1, "more than one connection"
    assert [int(line[1]) for line in lines] == list(range(len(lines)))
    assert 20 <= len(lines) < 200


def test_blocking(httpd, origin, channel):
    client = PubControlClient(uri(httpd))
    with held(httpd, origin, channel) as s:
        for n in range(20):
            client.publish(channel, Item(HttpStreamFormat(f"{n};"), id=str(n + 1),
                                         prev_id=str(n)), blocking=True)
            s.wait_for(f"{n};".encode())
        s.wait_body("".join(f"{n};" for n in range(20)).encode())
    client.close()


def test_binary_and_close(httpd, origin, channel):
    client = PubControlClient(uri(httpd))
    with held(httpd, origin, channel) as s:
        # pygripcontrol hands bytes to json.dumps for binary content, so it is text that it can send
        client.publish(channel, Item(HttpStreamFormat("text \u2713")), blocking=True)
        client.publish(channel, Item(HttpStreamFormat(close=True)), blocking=True)
        s.wait_clean_end()
        assert s.body == "text \u2713".encode()
    client.close()


@pytest.mark.parametrize("url", ["keyed?iss=realm1&key=base64:Y2hhbmdlbWU=",
                                 "keyed/?iss=realm1&key=changeme", "bearer?key=changeme"])
def test_grip_url(httpd, origin, channel, url):
    """GRIP_URLs as settings have them."""
    name = url.split("?")[0].rstrip("/")
    control = GripPubControl()
    control.apply_grip_config(parse_grip_uri(url.replace(name, uri(httpd, name), 1)))
    with held(httpd, origin, channel) as s:
        control.publish_http_stream(channel, "hello", blocking=True)
        s.wait_body(b"hello")
    control.close()


@no_stream
def test_wrong_key(httpd, channel):
    client = PubControlClient(uri(httpd, "keyed"), {"iss": "realm1"}, "wrong")
    with pytest.raises(ValueError, match="401"):
        client.publish(channel, Item(HttpStreamFormat("x")), blocking=True)
    client.close()
    httpd.allow(r"eventstream:\w+\].*(token|Authorization|Bearer)")


def test_zeromq_push(httpd, origin, channel):
    client = ZmqPubControlClient(None, push_uri=httpd.endpoint)
    with held(httpd, origin, channel) as s:
        for n in range(300):
            client.publish(channel, Item(HttpStreamFormat(f"{n};")), blocking=True)
        s.wait_body("".join(f"{n};" for n in range(300)).encode())
    client.close()


def test_http_and_zeromq_together(httpd, origin, channel):
    """What one publisher sends stays in its order, however the two interleave."""
    http, zeromq = PubControlClient(uri(httpd)), ZmqPubControlClient(None,
                                                                     push_uri=httpd.endpoint)
    with held(httpd, origin, channel) as s:
        for n in range(100):
            http.publish(channel, Item(HttpStreamFormat(f"h{n};")))
            zeromq.publish(channel, Item(HttpStreamFormat(f"z{n};")), blocking=True)
        s.wait(lambda: s.body.count(b";") >= 200, "200 events")
        events = s.body.decode().split(";")[:-1]
        assert [e for e in events if e[0] == "h"] == [f"h{n}" for n in range(100)]
        assert [e for e in events if e[0] == "z"] == [f"z{n}" for n in range(100)]
        assert len(events) == 200
    http.close()
    zeromq.close()
