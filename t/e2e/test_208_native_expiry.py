# SPDX-License-Identifier: Apache-2.0
"""A token's `exp` ends the stream: on plain connections, behind TLS and over HTTP/2; after a reload
too."""

import time

import jwt
import pytest

import h2
import sse
from harness import MPM, TLS_CA, unique, wait_until
from publish import item, publish

KEY = "a secret of more than thirty-two bytes"
LOCATION = f"""
    <Location /events/>
        SetHandler eventstream
        EventStreamSubscribeKey "{KEY}"
        EventStreamRetry 100ms
    </Location>
"""
LONG = 1000  # seconds that no test takes
FIRST = 2    # seconds; when they were too few the test begins again with more
LAST = 256


@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd(modules=["http2"] if MPM != "prefork" else [])
    server.add("EventStreamLog logs/streams_log")
    server.publisher()
    server.vhost("main", LOCATION)
    server.vhost("tls", server._tls() + LOCATION)
    if MPM != "prefork":
        server.vhost("h2c", "Protocols h2c http/1.1" + LOCATION)
    return server.start()


def token(exp):
    return jwt.encode({"exp": exp, "channels": ["*"]}, KEY, "HS256")


def target(channel, exp):
    return f"/events/{channel}?token={token(exp)}"


def connect(httpd, kind):
    if kind == "tls":
        return sse.Client(httpd.port("tls"), wrap=sse.tls(TLS_CA))
    return sse.Client(httpd.port("main"))


def held(httpd, kind, path, **args):
    """The stream, once its beginning is there; None: the token has expired on the way."""
    stream = sse.Stream(None, path, client=connect(httpd, kind), **args)
    if stream.read_head().code == 401:
        stream.close()
        return None
    assert stream.head.code == 200, stream.head.raw
    return stream.wait_for(b"retry: 100\n\n")


def is_refused(httpd, kind, path):
    with connect(httpd, kind) as c:
        answer = c.get(path)
        assert answer.code == 401 and "expired" in answer.body.decode(), answer


def lives():
    seconds = FIRST
    while seconds <= LAST:
        yield seconds
        seconds *= 2
    raise AssertionError(f"not even {LAST} s are enough here")


def expires(httpd, channel, kind, meanwhile=None, **args):
    """Opens a stream, does something, publishes, and sees the stream end when its token does."""
    before = httpd.status()
    others = [held(httpd, kind, target(channel, exp), **args)
              for exp in (int(time.time()) + LONG, 2 ** 62)]
    for seconds in lives():
        exp = int(time.time()) + seconds
        stream = held(httpd, kind, target(channel, exp), **args)
        if stream is None:
            continue
        if meanwhile:
            meanwhile()
        text = f"data: {unique()}\n\n"
        publish(httpd.port("publish"), item(channel, text))
        for other in others:
            other.wait_for(text.encode())
        if time.time() < exp:
            break
        stream.close()
    with stream:
        stream.wait_for(text.encode())
        stream.wait_clean_end()
        assert time.time() >= exp
        is_refused(httpd, kind, target(channel, exp))
    wait_until(lambda: httpd.status()["ended"]["expired"] > before["ended"]["expired"],
               "the end to be counted")
    for other in others:
        later = f"data: {unique()}\n\n"
        publish(httpd.port("publish"), item(channel, later))
        other.wait_for(later.encode())
        other.close()
    httpd.wait_status(streams=0)
    return stream


def logged(httpd, channel):
    """The reasons that EventStreamLog has for the channel's streams."""
    path = httpd.root / "logs" / "streams_log"
    return [s.split()[-1] for s in path.read_text().splitlines() if f"/events/{channel}" in s]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_a_stream_ends_with_its_token(httpd, channel, kind, version):
    stream = expires(httpd, channel, kind, version=version)
    assert stream.chunked == (version == "1.1")
    wait_until(lambda: len(logged(httpd, channel)) >= 3, "a line for each stream")
    assert "expired" in logged(httpd, channel)


if MPM != "prefork":  # where mod_http2 does not run

    def test_over_http2(httpd, channel):
        """END_STREAM, and the connection is good for the next request."""
        for seconds in lives():
            exp = int(time.time()) + seconds
            with h2.Connection(httpd.port("h2c")) as c:
                s = c.get(target(channel, exp))
                s.wait(lambda: s.head is not None, "its head")
                if not s.held:
                    continue
                s.wait_for(b"retry: 100\n\n")
                text = f"data: {unique()}\n\n".encode()
                publish(httpd.port("publish"), item(channel, text.decode()))
                if time.time() >= exp:
                    continue
                s.wait_end()
                assert time.time() >= exp and text in s.body
                refused = c.get(target(channel, exp)).wait_end()
                assert b"expired" in refused.body
                break
        httpd.wait_status(streams=0)


@pytest.mark.parametrize("reloads", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_a_stream_that_was_handed_over_ends_with_its_token(httpd, channel, kind, reloads):
    def reload():
        for _ in range(reloads):
            hub = httpd.hub_pid()
            httpd.graceful()
            wait_until(lambda: httpd.find_hub() not in (None, hub), "the next hub")

    expires(httpd, channel, kind, meanwhile=reload)
