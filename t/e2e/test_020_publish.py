# SPDX-License-Identifier: Apache-2.0
"""The publish API over HTTP: every answer, the limits, keep-alive, batches, keys."""

import base64
import json
import time

import jwt
import pytest

import sse
from harness import no_stream, unique
from publish import Publisher, body, close_item, item

TEXT = "text/plain"


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    server.publisher("bearer", "EventStreamPublishKey base64:Y2hhbmdlbWU=")
    server.publisher("issued", "EventStreamPublishKey realm1 changeme")
    (server.root / "publish.key").write_text("from a file\n")
    server.publisher("filekey", "EventStreamPublishKey file:publish.key")
    server.publisher("require", "Require ip 127.0.0.2")
    server.vhost("paths", f"""
        <Location "/_grip">
            SetHandler eventstream-publish
        </Location>
        <Location "/realm/one">
            SetHandler eventstream-publish
        </Location>
        <Location "/">
            ProxyPass "http://127.0.0.1:{origin.port}/"
            EventStreamGrip On
        </Location>
        <Location "/_grip">
            ProxyPass "!"
        </Location>
        <Location "/realm/one">
            ProxyPass "!"
        </Location>
    """)
    return server.start()


@pytest.fixture
def api(httpd):
    with sse.Client(httpd.port("publish")) as c:
        yield c


@no_stream
def test_error_ends_the_connection_or_not_but_says_so(httpd):
    """httpd closes after a 400; what it announces is what happens."""
    with sse.Client(httpd.port("publish")) as c:
        answer = c.post("/publish/", b"{")
        assert answer.code == 400
        if (answer.get("Connection") or "").lower() == "close":
            assert c.at_end(), c.buffer
        else:
            ok(c.post("/publish/", body([])))


def held(httpd, origin, channel, grip="", **args):
    return sse.Stream.opened(httpd.port(), origin.hold(channel + grip, b"", **args))


def ok(answer):
    assert (answer.code, answer.body) == (200, b"Published\n"), answer
    assert answer.get("Content-Type").split(";")[0] == TEXT
    assert answer.get("Content-Length") == "10"


def refused(answer, code, text):
    assert (answer.code, answer.body.decode()) == (code, text), answer
    assert answer.get("Content-Type").split(";")[0] == TEXT


# ---- the rows of the control server -------------------------------------------------------------

@no_stream
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_root(api, method):
    answer = api.ask("/", method, headers=[("Content-Length", "0")])
    refused(answer, 200, "Pushpin API\n")


@no_stream
@pytest.mark.parametrize("path", ["/publish", "/publish/"])
def test_published(api, path):
    ok(api.post(path, body([item(unique(), "x")])))


@no_stream
def test_empty_batch(api):
    ok(api.post("/publish/", b'{"items": []}'))


@no_stream
def test_json_answer(api):
    answer = api.post("/publish/", body([item(unique(), "x")]),
                      headers=[("Accept", "application/json")])
    assert answer.code == 200 and answer.get("Content-Type") == "application/json"
    assert json.loads(answer.body) == {"message": "Published"} and answer.body.endswith(b"\n")


@no_stream
@pytest.mark.parametrize("accept,kind", [
    ("*/*", TEXT), ("text/*", TEXT), ("text/plain", TEXT), ("application/*", "application/json"),
    ("text/html, application/json", "application/json"), ("text/html, text/plain", TEXT),
    ("application/json; q=0.5", "application/json"),
])
def test_accept(api, accept, kind):
    answer = api.post("/publish/", body([]), headers=[("Accept", accept)])
    assert answer.code == 200 and answer.get("Content-Type").split(";")[0] == kind, answer


@no_stream
def test_not_acceptable(api):
    answer = api.post("/publish/", body([]), headers=[("Accept", "text/html, image/png")])
    refused(answer, 406,
            "Not Acceptable. Supported formats are text/plain and application/json.\n")


@no_stream
def test_errors_are_text(api):
    answer = api.post("/publish/", b"x", headers=[("Accept", "application/json")])
    refused(answer, 400, "Body is not valid JSON.\n")


@no_stream
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_method_not_allowed(api, method):
    answer = api.ask("/publish/", method, headers=[("Content-Length", "0")])
    refused(answer, 405, f"Method not allowed: {method}.\n")
    assert answer.get("Allow") == "POST"


@no_stream
@pytest.mark.parametrize("path", ["/nothing", "/publish/x", "/publishx", "/Publish"])
def test_not_found(api, path):
    refused(api.post(path, body([])), 404, "Not Found\n")


WRONG = {
    "no-json": (b"{", "Body is not valid JSON.\n"),
    "empty": (b"", "Body is not valid JSON.\n"),
    "scalar": (b"5", "Body is not valid JSON.\n"),
    "string": (b'"x"', "Body is not valid JSON.\n"),
    "not-utf8": (b'{"items": [{"channel": "\xff"}]}', "Body is not valid JSON.\n"),
    "garbage-after": (b'{"items": []} x', "Body is not valid JSON.\n"),
    "array": (b"[]", "Invalid format.\n"),
    "no-items": (b"{}", "Invalid format: object does not contain 'items'\n"),
    "items-type": (b'{"items": 5}', "Invalid format: object contains 'items' with wrong type\n"),
    "item-type": (b'{"items": [5]}', "Invalid format: publish item object is not an object\n"),
    "no-channel": (b'{"items": [{"http-stream": {"content": "x"}}]}',
                   "Invalid format: publish item object does not contain 'channel'\n"),
    "channel-type": (b'{"items": [{"channel": 5, "http-stream": {"content": "x"}}]}',
                     "Invalid format: publish item object contains 'channel' with wrong type\n"),
    "id-type": (b'{"items": [{"channel": "a", "id": 5, "http-stream": {"content": "x"}}]}',
                "Invalid format: publish item object contains 'id' with wrong type\n"),
    "prev-id-type": (
        b'{"items": [{"channel": "a", "prev-id": 5, "http-stream": {"content": "x"}}]}',
        "Invalid format: publish item object contains 'prev-id' with wrong type\n"),
    "no-format": (b'{"items": [{"channel": "a"}]}', "Invalid format: no formats specified\n"),
    "no-content": (b'{"items": [{"channel": "a", "http-stream": {}}]}',
                   "Invalid format: 'http-stream' does not contain 'content' or 'content-bin'\n"),
    "content-type": (b'{"items": [{"channel": "a", "http-stream": {"content": 5}}]}',
                     "Invalid format: 'http-stream' contains 'content' with wrong type\n"),
    "meta-type": (b'{"items": [{"channel": "a", "http-stream": {"content": "x"},'
                  b' "meta": {"user": 5}}]}',
                  "Invalid format: 'meta' contains 'user' with wrong type\n"),
    "no-response-body": (
        b'{"items": [{"channel": "a", "http-response": {"code": 200}}]}',
        "Invalid format: 'http-response' does not contain 'body', 'body-bin', or 'body-patch'\n"),
}


@no_stream
@pytest.mark.parametrize("name", sorted(WRONG))
def test_bad_body(api, name):
    data, text = WRONG[name]
    refused(api.post("/publish/", data), 400, text)


@no_stream
def test_unknown_action(api):
    answer = api.post("/publish/", b'{"items": [{"channel": "a", "http-stream":'
                                   b' {"action": "explode"}}]}')
    assert answer.code == 400 and answer.body.startswith(b"Invalid format: "), answer
    assert b"explode" in answer.body and b"close" in answer.body


@no_stream
def test_unknown_formats_and_fields_are_ignored(api):
    ok(api.post("/publish/", b'{"items": [{"channel": "a", "formats": {"carrier-pigeon": {}},'
                             b' "more": [1]}], "x": 1}'))


def test_one_bad_item_refuses_all(httpd, origin, api, channel):
    with held(httpd, origin, channel) as s:
        answer = api.post("/publish/", body([item(channel, "no"), {"channel": channel}]))
        refused(answer, 400, "Invalid format: no formats specified\n")
        with Publisher(httpd.port("publish")) as p:
            p.text(channel, "yes")
        s.wait_body(b"yes")


# ---- framing and limits -------------------------------------------------------------------------

@no_stream
def test_length_required(httpd):
    with sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\n\r\n")
        refused(c.read_answer(), 411, "Request requires Content-Length.\n")


@no_stream
def test_chunked_request(httpd):
    with sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
               b"d\r\n{\"items\": []}\r\n0\r\n\r\n")
        refused(c.read_answer(), 411, "Request requires Content-Length.\n")


@no_stream
@pytest.mark.parametrize("length", ["abc", "-1", "1x", "99999999999999999999"])
def test_bad_length(httpd, length):
    with sse.Client(httpd.port("publish")) as c:
        c.send(f"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        assert c.read_answer().code in (400, 413)


def padded(size, channel):
    data = body([item(channel, "")])
    return data.replace(b'"content": ""', b'"content": "' + b"x" * (size - len(data)) + b'"')


def test_body_limit(httpd, origin, channel):
    """A million bytes are accepted, and arrive; one more is refused."""
    fits, over = padded(1000000, channel), padded(1000001, channel)
    assert (len(fits), len(over)) == (1000000, 1000001)
    with held(httpd, origin, channel) as s, sse.Client(httpd.port("publish")) as c:
        ok(c.post("/publish/", fits))
        s.wait(lambda: len(s.body) == fits.count(b"x"), "the large event")
        assert s.body.strip(b"x") == b""
        refused(c.post("/publish/", over), 400, "Request body too large.\n")
    with held(httpd, origin, channel) as s:
        with Publisher(httpd.port("publish")) as p:
            p.text(channel, "end")
        s.wait_body(b"end")


@no_stream
def test_announced_length_is_enough_to_refuse(httpd):
    """A terabyte is refused without waiting for it."""
    with sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\nx")
        head = c.read_head()
        assert head.code == 400


@no_stream
def test_expect_continue(httpd):
    data = body([item(unique(), "x")])
    with sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
               b"Content-Length: %d\r\n\r\n" % len(data))
        assert c.read_any_head().code == 100
        c.send(data)
        ok(c.read_answer())


@no_stream
def test_http_10(httpd):
    data = body([item(unique(), "x")])
    with sse.Client(httpd.port("publish")) as c:
        ok(c.post("/publish/", data, version="1.0"))
        assert c.at_end()


def test_body_in_pieces(httpd, origin, channel):
    data = body([item(channel, "pieces")])
    with held(httpd, origin, channel) as s, sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data))
        for i in range(0, len(data), 7):
            c.send(data[i:i + 7])
        ok(c.read_answer())
        s.wait_body(b"pieces")


@no_stream
def test_body_cut_off(httpd, channel):
    """A client that leaves in the middle of its body publishes nothing."""
    before = httpd.status()["published"]
    data = body([item(channel, "half")])
    with sse.Client(httpd.port("publish")) as c:
        c.send(b"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data)
               + data[:-3])
        c.half_close()
        c.sock.settimeout(30)
        c.read_to_end()
    httpd.allow(r"ES\d+")
    assert httpd.status()["published"] == before


# ---- keep-alive and batches ---------------------------------------------------------------------

def test_keep_alive(httpd, origin, channel):
    """A thousand posts on one connection, in order."""
    with held(httpd, origin, channel) as s, Publisher(httpd.port("publish")) as p:
        for n in range(1000):
            p.text(channel, f"{n};")
        s.wait_body("".join(f"{n};" for n in range(1000)).encode())


@no_stream
def test_keep_alive_is_not_refused(api):
    for _ in range(3):
        answer = api.post("/publish/", body([]))
        ok(answer)
        assert (answer.get("Connection") or "keep-alive").lower() != "close"


def test_pipelining(httpd, origin, channel):
    with held(httpd, origin, channel) as s, sse.Client(httpd.port("publish")) as c:
        c.send(b"".join(sse.request_bytes("/publish/", "POST", body=body([item(channel, f"{n};")]))
                        for n in range(100)))
        for _ in range(100):
            ok(c.read_answer())
        s.wait_body("".join(f"{n};" for n in range(100)).encode())


@pytest.mark.parametrize("count", [10, 1000])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "formats"])
def test_batch(httpd, origin, api, channel, count, flat):
    with held(httpd, origin, channel) as s:
        before = httpd.status()["published"]
        ok(api.post("/publish/", body([item(channel, f"{n};", flat=flat) for n in range(count)])))
        s.wait_body("".join(f"{n};" for n in range(count)).encode())
        assert httpd.status()["published"] == before + count


def test_batch_with_close(httpd, origin, api, channel):
    """What follows a close in its batch does not reach the stream that it closed."""
    with held(httpd, origin, channel) as s:
        ok(api.post("/publish/", body([item(channel, "a"), close_item(channel),
                                       item(channel, "b")])))
        s.wait_clean_end()
        assert s.body == b"a"


def test_channel_names(httpd, origin, api):
    """Percent signs, spaces, quotes, UTF-8: names are bytes to us, and none matches a prefix."""
    names = [unique() + end for end in ("", "x", " a b", "%20", '"q"', "/p", "\u00e9", "\u4e2d")]
    streams = []
    for name in names:
        # header bytes are UTF-8; the origin writes latin-1, so the name is handed in as such
        streams.append(held(httpd, origin, name.encode().decode("latin-1")))
    for n, name in enumerate(names):
        ok(api.post("/publish/", json.dumps({"items": [item(name, f"{n}.")]}).encode()))
    for s in streams:
        s.wait(lambda s=s: len(s.body) >= 2, "its event")
    assert [s.body for s in streams] == [f"{n}.".encode() for n in range(len(names))]
    for s in streams:
        s.close()


@no_stream
def test_empty_channel_name(httpd, api):
    ok(api.post("/publish/", body([item("", "x")])))


def test_other_formats_do_not_disturb(httpd, origin, api, channel):
    """One item may carry all formats; a stream takes http-stream only."""
    with held(httpd, origin, channel) as s:
        ok(api.post("/publish/", body([{
            "channel": channel, "http-response": {"body": "r"}, "ws-message": {"content": "w"},
            "http-stream": {"content": "s"}}])))
        ok(api.post("/publish/", body([{"channel": channel, "http-response": {"body": "r"}}])))
        ok(api.post("/publish/", body([item(channel, "end")])))
        s.wait_body(b"send")


# ---- places -------------------------------------------------------------------------------------

@pytest.mark.parametrize("base", ["/_grip", "/realm/one"])
def test_below_a_location(httpd, origin, channel, base):
    with held(httpd, origin, channel) as s, sse.Client(httpd.port("paths")) as c:
        ok(c.post(base + "/publish/", body([item(channel, "1")])))
        ok(c.post(base + "/publish", body([item(channel, "2")])))
        assert c.get(base + "/").code == 200
        assert c.post(base + "/nothing", body([])).code == 404
        assert c.get(origin.answer(b"plain")).body == b"plain"
        s.wait_body(b"12")


@no_stream
def test_require(httpd):
    """Who may publish is also Apache's Require to say."""
    with sse.Client(httpd.port("require")) as c:
        assert c.post("/publish/", body([])).code == 403
    httpd.allow(r"AH01630")


# ---- keys ---------------------------------------------------------------------------------------

def token(key, alg="HS256", **claims):
    claims.setdefault("exp", int(time.time()) + 600)
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm=alg)


def bearer(value):
    return [("Authorization", "Bearer " + value)]


def attempt(httpd, name, headers):
    with sse.Client(httpd.port(name)) as c:
        return c.post("/publish/", body([]), headers=headers)


@no_stream
def test_key_verbatim(httpd):
    ok(attempt(httpd, "bearer", bearer("changeme")))
    ok(attempt(httpd, "bearer", [("authorization", "bearer changeme")]))
    ok(attempt(httpd, "filekey", bearer("from a file")))


@no_stream
def test_key_signs_a_token(httpd):
    ok(attempt(httpd, "bearer", bearer(token(b"changeme"))))
    ok(attempt(httpd, "bearer", bearer(token(b"changeme", iss="anybody"))))
    ok(attempt(httpd, "issued", bearer(token(b"changeme", iss="realm1"))))


def bad_tokens():
    good = token(b"changeme", iss="realm1")
    head, payload, sig = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return {
        "absent": [],
        "basic": [("Authorization", "Basic Y2hhbmdlbWU6")],
        "no-scheme": [("Authorization", "changeme")],
        "empty": [("Authorization", "Bearer ")],
        "wrong-key": bearer(token(b"changeyou", iss="realm1")),
        "wrong-secret": bearer("changeme2"),
        "shorter-secret": bearer("changem"),
        "expired": bearer(token(b"changeme", iss="realm1", exp=int(time.time()) - 10)),
        "no-exp": bearer(token(b"changeme", iss="realm1", exp=None)),
        "wrong-iss": bearer(token(b"changeme", iss="realm2")),
        "no-iss": bearer(token(b"changeme")),
        "hs512": bearer(token(b"changeme", alg="HS512", iss="realm1")),
        "alg-none": bearer(f"{none}.{payload}."),
        "cut": bearer(f"{head}.{payload}."),
        "two-parts": bearer(f"{head}.{payload}"),
        "damaged": bearer(f"{head}.{payload[:-2]}AA.{sig}"),
        "long": bearer("x" * 7000),
    }


@pytest.mark.parametrize("name", sorted(bad_tokens()))
def test_bad_token(httpd, origin, channel, name):
    """401, nothing published, and the log says why without the token."""
    headers = bad_tokens()[name]
    since = httpd.log_mark()
    with held(httpd, origin, channel) as s, sse.Client(httpd.port("issued")) as c:
        answer = c.post("/publish/", body([item(channel, "stolen")]), headers=headers)
        assert answer.code == 401, answer
        assert answer.get("WWW-Authenticate").lower().startswith("bearer")
        ok(c.post("/publish/", body([item(channel, "fine")]),
                  headers=bearer(token(b"changeme", iss="realm1"))))
        s.wait_body(b"fine")
    httpd.wait_log(r"\[eventstream:\w+\].*(token|Authorization|Bearer)", since)
    log = httpd.log_text()[since:]
    for _, value in headers:
        assert value.split()[-1:] == ["Bearer"] or value.split()[-1] not in log


@no_stream
def test_no_token_in_the_url(httpd):
    with sse.Client(httpd.port("issued")) as c:
        assert c.post("/publish/?token=changeme", body([])).code == 401
