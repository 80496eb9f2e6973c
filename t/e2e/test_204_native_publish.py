# SPDX-License-Identifier: Apache-2.0
"""POST to a native endpoint: what becomes of the body, who may, what is refused."""

import json
import time

import jwt
import pytest

import sse
from harness import only_http1, unique

KEY = "a secret of more than thirty-two bytes"
JSON = [("Content-Type", "application/json")]
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd()
    server.site("main", f"""
        <Location /events/>
            SetHandler eventstream
            EventStreamPublish On
            EventStreamAllowOrigin https://friend.test
        </Location>
        <Location /events/closed/>
            EventStreamPublish Off
        </Location>
        <Location /keyed/>
            SetHandler eventstream
            EventStreamPublish On
            EventStreamPublishKey mysite "{KEY}"
        </Location>
    """)
    return server.start()


@pytest.fixture
def client(httpd):
    with sse.Client(httpd.port("main")) as c:
        yield c


def published(answer):
    assert answer.code == 200 and answer.get("Content-Type") == "application/json", answer
    assert set(json.loads(answer.body)) == {"id", "receivers"}, answer


def refused(answer, code, *parts):
    assert answer.code == code, answer
    for part in parts:
        assert part in answer.body.decode(), answer


def without_ids(body):
    """What came after the begin, without the ids of the hub or the publisher."""
    text = body.partition(b"retry: 3000\n\n")[2].decode()
    return "".join(line for line in text.splitlines(True) if not line.startswith("id:"))


def arrives(httpd, channel, target, body, event, **args):
    with sse.Stream.opened(httpd.port("main"), f"/events/{channel}") as stream:
        stream.wait_for(b"retry: 3000\n\n")
        with sse.Client(httpd.port("main")) as c:
            published(c.post(target, body, **args))
        stream.wait(lambda: len(without_ids(stream.body)) >= len(event), event)
        assert without_ids(stream.body) == event


@pytest.mark.parametrize("body,query,headers,event", [
    (b"hello", "", [], "data: hello\n\n"),
    (b"hello", "?event=greeting", [], "event: greeting\ndata: hello\n\n"),
    (b"hello", "", [("X-Event", "greeting")], "event: greeting\ndata: hello\n\n"),
    (b"hello", "?event=a+%C3%A4", [("X-Event", "b")], "event: a \u00e4\ndata: hello\n\n"),
    (b"hello", "?id=7", [], "data: hello\n\n"),
    (b"one\ntwo\r\nthree", "", [], "data: one\ndata: two\ndata: three\n\n"),
    (b"data: looks like SSE\n\nid: 5", "", [],
     "data: data: looks like SSE\ndata:\ndata: id: 5\n\n"),
    ("\u00e4 \U0001f389".encode(), "", [], "data: \u00e4 \U0001f389\n\n"),
    (b'{"text": "hi"}', "", JSON, 'data: {"text": "hi"}\n\n'),
    (b"7", "?event=n", [("Content-Type", "application/json; charset=utf-8")],
     "event: n\ndata: 7\n\n"),
    (b"data=a+%26+b&event=e&id=9", "", FORM, "event: e\ndata: a & b\n\n"),
    (b"data=&event=empty", "", FORM, "event: empty\ndata:\n\n"),
    (b"what curl -d sends: 1 + 1", "", FORM, "data: what curl -d sends: 1 + 1\n\n"),
])
def test_published(httpd, channel, body, query, headers, event):
    arrives(httpd, channel, f"/events/{channel}{query}", body, event, headers=headers)


def test_an_empty_body(httpd, channel):
    arrives(httpd, channel, f"/events/{channel}", b"", "data:\n\n")


@only_http1("HTTP/2 has no chunks")
def test_a_chunked_body(httpd, channel):
    arrives(httpd, channel, f"/events/{channel}", b"5\r\nhello\r\n0\r\n\r\n", "data: hello\n\n",
            headers=[("Transfer-Encoding", "chunked")])


def test_to_several_channels(httpd):
    a, b = unique(), unique()
    target = f"/events/?channel={a},{b}"
    arrives(httpd, a, target, b"both", "data: both\n\n")
    arrives(httpd, b, target, b"both", "data: both\n\n")


def test_on_one_connection(client, channel):
    for n in range(5):
        published(client.post(f"/events/{channel}", b"x" * n))


def test_a_large_event(httpd, channel):
    text = "0123456789" * 90000
    arrives(httpd, channel, f"/events/{channel}", text.encode(), f"data: {text}\n\n")


@pytest.mark.parametrize("body,query,headers,code,parts", [
    (b"x" * 1000001, "", [], 413, ["more than 1000000 bytes"]),
    (b"\x01" * 200000, "", [], 413, ["as JSON"]),
    (b"\xff\xfe", "", [], 400, ["not UTF-8"]),
    (b"{", "", JSON, 400, ["no valid JSON"]),
    (b"", "", JSON, 400, ["no valid JSON"]),
    (b"x", "?event=a%0Ab", [], 400, ["CR, LF"]),
    (b"x", "?event=a%00b", [], 400, ["NUL"]),
    (b"x", "?event=" + 257 * "x", [], 400, ["256"]),
    (b"x", "?id=a%0Db", [], 400, ["id is not accepted"]),
    (b"x", "?id=" + 4097 * "x", [], 400, ["4096 bytes"]),
    (b"data=%zz", "", FORM, 400, ["percent-encoding"]),
    (b"x", "", [("Content-Type", "multipart/form-data; boundary=x")], 415, ["multipart"]),
    (b"x", "", [("Origin", "https://evil.test")], 403, ["other sites"]),
    (b"x", "", [("Origin", "null")], 403, ["other sites"]),
])
def test_refused(client, channel, body, query, headers, code, parts):
    refused(client.post(f"/events/{channel}{query}", body, headers=headers), code, *parts)


@pytest.mark.parametrize("origin", ["https://friend.test", "http://main.test"])
def test_own_pages_may(client, channel, origin):
    answer = client.post(f"/events/{channel}", b"x", headers=[("Origin", origin)])
    published(answer)
    friend = origin if "friend" in origin else None
    assert answer.get("Access-Control-Allow-Origin") == friend


def test_no_channel(client):
    refused(client.post("/events/", b"x"), 400, "No channels specified")


def test_off(client):
    answer = client.post("/events/closed/x", b"x")
    refused(answer, 405, "Method not allowed: POST.")
    assert answer.get("Allow") == "GET, HEAD, OPTIONS"
    answer = client.ask("/events/x", "OPTIONS", headers=[("Origin", "https://friend.test")])
    assert answer.get("Allow") == "GET, HEAD, OPTIONS, POST, DELETE"
    assert answer.get("Access-Control-Allow-Methods") == "GET, HEAD, OPTIONS, POST, DELETE"


def bearer(text):
    return [("Authorization", f"Bearer {text}")]


def token(**claims):
    return jwt.encode({"iss": "mysite", "exp": int(time.time()) + 600, **claims}, KEY, "HS256")


@pytest.mark.parametrize("claims", [{"channels": ["a", "b*"]}, {"publish": ["a", "b?"]},
                                    {"publish": "*", "channels": []}])
def test_a_token_publishes(client, claims):
    published(client.post("/keyed/?channel=a,b1", b"x", headers=bearer(token(**claims))))


def test_the_secret_publishes(client):
    published(client.post("/keyed/anything", b"x", headers=bearer(KEY)))


def test_who_may_not_publish(httpd):
    good = token(publish=["a"])

    def post(target, headers=()):
        with sse.Client(httpd.port("main")) as c:
            return c.post(target, b"x", headers=headers)

    refused(post("/keyed/a"), 401, "a bearer token is needed")
    refused(post(f"/keyed/a?token={good}"), 401, "a bearer token is needed")
    refused(post("/keyed/a", [("Cookie", f"eventstream_token={good}")]), 401)
    refused(post("/keyed/a", bearer(token(iss="x", publish=["a"]))), 401, "'iss'")
    refused(post("/keyed/a", bearer(token())), 403, "Permission denied to channels: a")
    refused(post("/keyed/a", bearer(token(subscribe=["a"]))), 403)
    refused(post("/keyed/?channel=a,b", bearer(good)), 403, "Permission denied to channels: b")
