# SPDX-License-Identifier: Apache-2.0
"""application/grip-instruct bodies, made by pygripcontrol's helpers and by hand."""

import base64
import json

import pytest
from gripcontrol import Channel, Response, create_hold_response, create_hold_stream

import sse
from harness import unique
from publish import close_item, item, publish


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


def instruct(origin, body, *, headers=(), status="200 OK", type="application/grip-instruct"):
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    return origin.answer(body, status=status, headers=[("Content-Type", type), *headers])


def text(httpd, channel, content, **args):
    publish(httpd.port("publish"), item(channel, content, **args))


def test_pygripcontrol_stream(httpd, origin, channel):
    path = instruct(origin, create_hold_stream(channel, Response(
        code=201, reason="Made", headers={"Content-Type": "text/plain", "X-One": "1"},
        body="open\n")))
    with sse.Stream(httpd.port(), path) as s:
        assert s.read_head().says(201, "Made")
        assert s.head.get("Content-Type") == "text/plain" and s.head.get("X-One") == "1"
        text(httpd, channel, "one\n")
        s.wait_body(b"open\none\n")
        publish(httpd.port("publish"), close_item(channel))
        s.wait_clean_end()


def test_pygripcontrol_channels_and_text(httpd, origin):
    a, b = unique(), unique()
    path = instruct(origin, create_hold_stream([Channel(a), Channel(b, prev_id="7")], "hello\n"))
    with sse.Stream.opened(httpd.port(), path) as s:
        s.wait_body(b"hello\n")
        text(httpd, a, "1")
        text(httpd, b, "2", id="8", prev_id="7")
        s.wait_body(b"hello\n12")


def test_pygripcontrol_binary_body(httpd, origin, channel):
    blob = bytes(range(256))
    path = instruct(origin, create_hold_stream(channel, blob))
    assert b"body-bin" in create_hold_stream(channel, blob).encode()
    with sse.Stream.opened(httpd.port(), path) as s:
        text(httpd, channel, "x")
        s.wait_body(blob + b"x")


def test_without_response(httpd, origin, channel):
    """No `response`: 200, an empty body, none of the application's headers."""
    path = instruct(origin, create_hold_stream(channel), headers=[("X-App", "1"),
                                                                  ("Set-Cookie", "a=1")])
    with sse.Stream.opened(httpd.port(), path) as s:
        assert s.head.get("X-App") is None and s.head.get("Set-Cookie") is None
        assert s.head.get("Content-Type") != "application/grip-instruct"
        text(httpd, channel, "x")
        s.wait_body(b"x")


def test_headers_as_pairs(httpd, origin, channel):
    """`headers` as a list of pairs may repeat a name; Grip-* among them goes nowhere."""
    path = instruct(origin, {
        "hold": {"mode": "stream", "channels": [{"name": channel}]},
        "response": {"code": "200", "headers": [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"],
                                                ["Content-Type", "text/event-stream"],
                                                ["Content-Length", "999"], ["Grip-Foo", "1"]],
                     "body-bin": base64.b64encode(b"\0\1\2").decode(), "body": "not this"}})
    with sse.Stream.opened(httpd.port(), path) as s:
        assert s.head.all("Set-Cookie") == ["a=1", "b=2"]
        assert s.head.get("Content-Type") == "text/event-stream"
        assert not [n for n in s.head.names() if n.startswith("grip-")]
        s.wait_body(b"\0\1\2")


def test_grip_headers_stay_in_force(httpd, origin):
    """Channels of the headers and of the body are both held; filters and meta of both count."""
    a, b = unique(), unique()
    path = instruct(origin, {"hold": {"mode": "stream", "channels": [
        {"name": b, "filters": ["skip-users"]}], "meta": {"user": "u1"}}},
        headers=[("Grip-Channel", a)])
    with sse.Stream.opened(httpd.port(), path) as s:
        text(httpd, a, "1")
        text(httpd, b, "no", meta={"skip_users": "u1"})
        text(httpd, b, "2")
        s.wait_body(b"12")


def test_keep_alive(httpd, origin, channel):
    path = instruct(origin, {"hold": {
        "mode": "stream", "channels": [{"name": channel}],
        "keep-alive": {"content-bin": base64.b64encode(b"\0ka").decode(), "timeout": 1}}})
    with sse.Stream.opened(httpd.port(), path) as s:
        s.wait_for(b"\0ka\0ka")
    assert s.body.replace(b"\0ka", b"") == b""


def test_without_hold(httpd, origin):
    """No `hold`: an ordinary answer, made from `response`."""
    path = instruct(origin, {"response": {"code": 404, "reason": "Nothing", "body": "gone\n",
                                          "headers": {"X-One": "1"}}})
    with sse.Client(httpd.port()) as c:
        for _ in range(2):
            answer = c.get(path)
            assert answer.head.says(404, "Nothing") and answer.body == b"gone\n"
            assert answer.get("Content-Length") == "5" and answer.get("X-One") == "1"
    path = instruct(origin, {"response": {"code": 200}})
    with sse.Client(httpd.port()) as c:
        answer = c.get(path)
        assert (answer.code, answer.body) == (200, b"")


def test_content_type_parameter(httpd, origin, channel):
    path = instruct(origin, create_hold_stream(channel, "p"),
                    type="application/grip-instruct; charset=utf-8")
    with sse.Stream.opened(httpd.port(), path) as s:
        s.wait_body(b"p")


def channels(*names):
    return [{"name": n} for n in names]


ERRORS = {
    "not-json": ("{", ["JSON"]),
    "not-an-object": ("[]", ["object"]),
    "hold-type": ({"hold": 5}, ["hold", "type"]),
    "no-channels": ({"hold": {"mode": "stream"}}, ["channels"]),
    "no-name": ({"hold": {"mode": "stream", "channels": [{}]}}, ["name"]),
    "name-type": ({"hold": {"mode": "stream", "channels": [{"name": 5}]}}, ["name", "type"]),
    "mode": ({"hold": {"mode": "strange", "channels": []}}, ["mode"]),
    "mode-response": ({"hold": {"channels": channels("a")}}, ["response"]),
    "code": ({"response": {"code": 1000}}, ["code"]),
    "headers-type": ({"response": {"code": 200, "headers": [["a"]]}}, ["headers"]),
    "meta-type": ({"hold": {"mode": "stream", "channels": [], "meta": {"a": 1}}}, ["meta", "a"]),
    "body-bin": ({"response": {"body-bin": 5}}, ["body-bin"]),
    "name-newline": ({"hold": {"mode": "stream", "channels": channels("a\r\nb")}}, ["name"]),
    "name-nul": ({"hold": {"mode": "stream", "channels": channels("a\0b")}}, []),
    "header-split": ({"response": {"headers": {"X-A": "1\r\nSet-Cookie: evil=1"}}}, ["X-A"]),
    "header-name": ({"response": {"headers": {"X-A: 1\r\nSet-Cookie": "evil=1"}}}, []),
    "reason-split": ({"response": {"code": 200, "reason": "OK\r\nSet-Cookie: evil=1"}},
                     ["reason"]),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_error(httpd, origin, name):
    body, parts = ERRORS[name]
    path = instruct(origin, body)
    since = httpd.log_mark()
    with sse.Client(httpd.port()) as c:
        answer = c.get(path)
        assert answer.code in ((501, 502) if name == "mode-response" else (502,)), answer
        assert b"evil" not in answer.head.raw and b"evil" not in answer.body
        line = httpd.wait_log(r"\[eventstream:(error|warn)\].*", since)[0]
        for part in parts:
            assert part in line, f"{part!r} is not in: {line}"
    httpd.wait_status(streams=0, reserved=0)


def test_error_status(httpd, origin, channel):
    """An instruct counts only in a 200."""
    path = instruct(origin, create_hold_stream(channel, "x"), status="201 Created")
    since = httpd.log_mark()
    with sse.Client(httpd.port()) as c:
        assert c.get(path).code == 502
    line = httpd.wait_log(r"\[eventstream:(error|warn)\].*grip-instruct.*", since)[0]
    assert "200" in line and "201" in line


def test_body_limit(httpd, origin, channel):
    """100 000 bytes of instruct are the limit; one more is refused before it is parsed."""
    frame = len(create_hold_stream(channel, Response(body="")))
    fits = create_hold_stream(channel, Response(body="x"))
    fits = fits.replace('"x"', '"' + "x" * (100000 - len(fits) + 1) + '"')
    assert len(fits) == 100000 and frame
    with sse.Stream.opened(httpd.port(), instruct(origin, fits)) as s:
        s.wait(lambda: len(s.body) == fits.count("x"), "the body")
    since = httpd.log_mark()
    with sse.Client(httpd.port()) as c:
        assert c.get(instruct(origin, fits + " ")).code == 502
    httpd.wait_log(r"\[eventstream:(error|warn)\].*100000", since)
    httpd.wait_status(streams=0, reserved=0)


def test_long_polling_instruct_is_refused(httpd, origin, channel):
    path = instruct(origin, create_hold_response(channel, "later"))
    since = httpd.log_mark()
    with sse.Client(httpd.port()) as c:
        assert c.get(path).code in (501, 502)
    httpd.wait_log(r"\[eventstream:(error|warn)\].*response", since)
