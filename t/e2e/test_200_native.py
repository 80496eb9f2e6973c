# SPDX-License-Identifier: Apache-2.0
"""The native endpoint: which channels a URL gets, how a stream begins, what is refused, CORS."""

import json
import re

import pytest

import sse
from harness import TLS_CA, VERSIONS, no_stream, only_plain, unique
from publish import publish, item

BEGIN = b":" + b" " * 2048 + b"\n\nevent: stream-open\ndata:\n\nretry: 3000\n\n"
EVENTSOURCE = [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")]


@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd(modules=["auth_basic", "authn_file", "authn_core", "authz_user"])
    server.publisher()
    (server.root / "users").write_text("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")  # password
    server.site("main", """
        <Location /events/>
            SetHandler eventstream
        </Location>
        <Location /events/guarded/>
            Require all granted
            EventStreamRetry 5s
        </Location>
        <Location /param>
            SetHandler eventstream
            EventStreamChannelParam topic
        </Location>
        <Location /django/>
            SetHandler eventstream
            EventStreamChannelPrefix events-
        </Location>
        <Location /some/>
            SetHandler eventstream
            EventStreamAllowChannels news user-*
        </Location>
        <Location /fixed/>
            SetHandler eventstream
            EventStreamChannel fixed-one fixed-two
            EventStreamAllowChannels nothing
        </Location>
        <Location /mine/>
            AuthType Basic
            AuthName mine
            AuthUserFile users
            Require valid-user
            SetHandler eventstream
            EventStreamChannel "expr=user-%{REMOTE_USER}"
        </Location>
        <Location /nobody/>
            SetHandler eventstream
            EventStreamChannel "expr=%{REMOTE_USER}"
        </Location>
        <LocationMatch "^/match/[0-9]+/">
            SetHandler eventstream
        </LocationMatch>
        <Location /quick/>
            SetHandler eventstream
            EventStreamKeepAlive 1s
            EventStreamRetry 0
        </Location>
        <Location /cors/>
            SetHandler eventstream
            EventStreamAllowOrigin https://www.example.org https://*.example.net
            EventStreamAllowCredentials On
            EventStreamAllowHeaders Authorization X-Own
        </Location>
        <Location /open/>
            SetHandler eventstream
            EventStreamAllowOrigin *
        </Location>
    """)
    server.vhost("tls", server._tls() + """
        <Location /events/>
            SetHandler eventstream
        </Location>
    """)
    return server.start()


def opened(httpd, target, begin=BEGIN, **args):
    stream = sse.Stream.opened(httpd.port("main"), target, **args)
    return stream.wait_body(begin)


def ask(httpd, target, method="GET", **args):
    with sse.Client(httpd.port("main")) as c:
        return c.ask(target, method, **args)


def refused(answer, code, *parts):
    assert answer.code == code, answer
    assert answer.get("Content-Type") == "text/plain; charset=utf-8", answer
    for part in parts:
        assert part in answer.body.decode(), answer
    assert answer.body.endswith(b"\n") and answer.body.count(b"\n") == 1, answer


def gets(httpd, stream, channel, begin=BEGIN):
    """The stream is on that channel, and writes what comes with an id of the hub's."""
    text = f"data: {unique()}\n\n"
    publish(httpd.port("publish"), item(channel, text))
    stream.wait_for(text.encode())
    # the hub's id before the data
    assert re.fullmatch(rb"id: [\w-]{27}\n" + re.escape(text.encode()), stream.body[len(begin):])
    assert stream.body.startswith(begin)


# ---- the begin of a stream ------------------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
def test_stream(httpd, channel, version):
    with opened(httpd, f"/events/?channel={channel}", version=version,
                headers=EVENTSOURCE) as stream:
        head = stream.head
        assert head.get("Content-Type") == "text/event-stream; charset=utf-8"
        assert head.get("Cache-Control") == "no-cache, no-transform"
        assert head.get("X-Accel-Buffering") == "no"
        assert head.get("Vary") == "Accept"
        assert head.get("Content-Length") is None and head.get("ETag") is None
        assert head.chunked == (version == "1.1")
        gets(httpd, stream, channel)


@only_plain("its own host is TLS")
def test_tls(httpd, channel):
    with sse.Stream.opened(httpd.port("tls"), f"/events/{channel}",
                           wrap=sse.tls(TLS_CA)) as stream:
        stream.wait_body(BEGIN)
        gets(httpd, stream, channel)


def test_keep_alive_and_no_retry(httpd, channel):
    begin = BEGIN.replace(b"retry: 3000\n\n", b"")
    with opened(httpd, f"/quick/{channel}", begin=begin) as stream:
        stream.wait_body(begin + b"event: keep-alive\ndata:\n\n")


def test_a_request_body_does_not_reach_the_hub(httpd, channel):
    with opened(httpd, f"/events/{channel}", body=b"x" * 20000) as stream:
        gets(httpd, stream, channel)


def test_the_hub_holds_it(httpd, channel):
    before = httpd.status()["streams"]
    with opened(httpd, f"/events/{channel}"):
        httpd.wait_status(streams=before + 1)


# ---- which channels -------------------------------------------------------------------------------

@pytest.mark.parametrize("target,names", [
    ("/events/?channel={0}", ["{0}"]),
    ("/events/?channel={0}&channel={1}", ["{0}", "{1}"]),
    ("/events/?channel={0},{1}", ["{0}", "{1}"]),
    ("/events/?channel={0}%2C{1}", ["{0},{1}"]),
    ("/events/?channel={0}+%C3%A4", ["{0} \u00e4"]),
    ("/events/{0}", ["{0}"]),
    ("/events/{0}/", ["{0}"]),
    ("/events/rooms/{0}", ["rooms/{0}"]),
    ("/events/{0}?channel={1}", ["{0}"]),
    ("/param?topic={0}", ["{0}"]),
    ("/django/?channel={0}", ["events-{0}"]),
    ("/django/{0}%20b%25c", ["events-{0}%20b%25c"]),
    ("/match/7/x?channel={0}", ["{0}"]),
    ("/fixed/?channel={0}", ["fixed-one", "fixed-two"]),
    ("/some/?channel=user-{0}", ["user-{0}"]),
])
def test_channels(httpd, target, names):
    own = (unique(), unique())
    with opened(httpd, target.format(*own)) as stream:
        body = BEGIN
        for name in names:
            gets(httpd, stream, name.format(*own), body)
            body = stream.body
        publish(httpd.port("publish"), item(own[1] + "-not", "data: no\n\n"))
        gets(httpd, stream, names[0].format(*own), body)


def test_a_guarded_part_keeps_its_channels_name(httpd):
    """A section on the path, for its settings, does not change what a URL names."""
    name = unique()
    begin = BEGIN.replace(b"3000", b"5000")
    with opened(httpd, f"/events/guarded/{name}", begin=begin) as stream:
        gets(httpd, stream, f"guarded/{name}", begin)


def test_channel_of_the_user(httpd):
    with opened(httpd, "/mine/", headers=[("Authorization", "Basic YW5uOnBhc3N3b3Jk")]) as stream:
        gets(httpd, stream, "user-ann")
    assert ask(httpd, "/mine/").code == 401


def test_an_expression_without_a_value(httpd):
    refused(ask(httpd, "/nobody/"), 403, "no channel here for you")


@pytest.mark.parametrize("target,parts", [
    ("/events/", ["No channels specified", "?channel=NAME"]),
    ("/events/?channel=", ["No channels specified"]),
    ("/param?channel=x", ["?topic=NAME"]),
    ("/match/7/x", ["No channels specified"]),
    ("/events/?channel=%zz", ["percent-encoding", "%zz"]),
    ("/events/?channel=%ff", ["UTF-8"]),
    ("/events/?channel=a%0Ab", ["CR, LF or NUL"]),
    ("/events/?channel=" + ",".join(f"c{i}" for i in range(21)), ["over 20 channels"]),
    ("/events/?channel=" + "x" * 4097, ["4097 bytes", "4096"]),
    ("/events/?channel=a&since=yesterday", ["since"]),
    ("/events/?channel=a&rewind=-1", ["rewind"]),
    ("/events/?channel=a&rewind=100001", ["rewind"]),
    ("/events/?channel=a&since=1m&rewind=1", ["since", "rewind"]),
    ("/events/?channel=a&lastEventId=error", ["after stream-error"]),
])
def test_bad_requests(httpd, target, parts):
    refused(ask(httpd, target), 400, *parts)


@pytest.mark.parametrize("last", ["earliest", "0", "x" * 5000, "\xff\xfe", "AAECAwQFBgcICQoLDA0ODxAREhM"])
def test_any_last_event_id_is_a_stream(httpd, channel, last):
    """Whatever is no id of ours cannot be replayed; it is no error."""
    stream = sse.Stream.opened(httpd.port("main"), f"/events/{channel}",
                               headers=[("Last-Event-ID", last)])
    with stream:
        stream.wait_for(b"retry: 3000\n\n")


# ---- refusals -------------------------------------------------------------------------------------

def test_forbidden_channel(httpd):
    refused(ask(httpd, "/some/?channel=news,secret,user-x,other"), 403,
            "Permission denied to channels: secret, other")


def test_forbidden_channel_for_eventsource(httpd):
    """As django-eventstream: an event, and what comes back with its id ends for good."""
    answer = ask(httpd, "/some/?channel=news,secret", headers=EVENTSOURCE)
    assert answer.code == 200 and answer.get("Content-Type").startswith("text/event-stream")
    lines = answer.body.decode().split("\n")
    assert lines[:2] == ["event: stream-error", "id: error"] and lines[3:] == ["", ""], answer
    assert json.loads(lines[2].removeprefix("data: ")) == {
        "condition": "forbidden", "text": "Permission denied to channels: secret",
        "channels": ["secret"]}
    again = ask(httpd, "/some/?channel=news,secret",
                headers=[*EVENTSOURCE, ("Last-Event-ID", "error")])
    refused(again, 400, "Can't resume session after stream-error.")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE", "BREW"])
def test_methods(httpd, channel, method):
    answer = ask(httpd, f"/events/{channel}", method, headers=[("Content-Length", "0")])
    refused(answer, 405, f"Method not allowed: {method}.")
    assert answer.get("Allow") == "GET, HEAD, OPTIONS"


def test_head(httpd, channel):
    with sse.Client(httpd.port("main")) as c:
        answer = c.ask(f"/events/{channel}", "HEAD")
        assert answer.code == 200
        assert answer.get("Content-Type") == "text/event-stream; charset=utf-8"
        assert answer.get("Content-Length") is None
        assert c.ask("/events/", "HEAD").code == 400


def test_options(httpd):
    answer = ask(httpd, "/events/", "OPTIONS")
    assert answer.code == 204 and answer.get("Allow") == "GET, HEAD, OPTIONS"
    assert answer.get("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "text/*;q=0.1", "text/html, */*",
                                    "text/html, text/event-stream; q=0.2",
                                    "application/json, text/event-stream"])
def test_accept(httpd, channel, accept):
    with opened(httpd, f"/events/{channel}", headers=[("Accept", accept)]):
        pass


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream;q=0", "image/*",
                                    "*/*, text/event-stream; q=0.0"])
def test_not_acceptable(httpd, channel, accept):
    refused(ask(httpd, f"/events/{channel}", headers=[("Accept", accept)]), 406, "event-stream")


# ---- pages of other sites -------------------------------------------------------------------------

def cors(answer):
    return {k.lower().removeprefix("access-control-allow-"): v for k, v in answer.head.headers
            if k.lower().startswith("access-control-allow-")}


@pytest.mark.parametrize("origin", ["https://www.example.org", "https://a.example.net"])
def test_cors(httpd, channel, origin):
    target, headers = f"/cors/{channel}", [("Origin", origin)]
    wanted = {"origin": origin, "credentials": "true"}
    with opened(httpd, target, headers=headers) as stream:
        assert cors(stream) == wanted
        assert "Origin" in ", ".join(stream.head.all("Vary"))
    bad = ask(httpd, "/cors/", headers=headers)
    assert bad.code == 400 and cors(bad) == wanted
    pre = ask(httpd, target, "OPTIONS",
              headers=[*headers, ("Access-Control-Request-Method", "GET")])
    assert pre.code == 204
    assert cors(pre) == {**wanted, "methods": "GET, HEAD, OPTIONS",
                         "headers": "Authorization, X-Own"}
    assert pre.get("Access-Control-Max-Age") == "600"


@pytest.mark.parametrize("headers", [[], [("Origin", "https://www.example.com")],
                                     [("Origin", "null")]])
def test_cors_is_not_for_others(httpd, channel, headers):
    with opened(httpd, f"/cors/{channel}", headers=headers) as stream:
        assert cors(stream) == {}
        assert "Origin" in ", ".join(stream.head.all("Vary"))


def test_cors_for_all(httpd, channel):
    with opened(httpd, f"/open/{channel}", headers=[("Origin", "https://x.test")]) as stream:
        assert cors(stream) == {"origin": "*"}


@no_stream
# ---- directives -----------------------------------------------------------------------------------

@pytest.mark.parametrize("line,parts", [
    ("EventStreamChannel " + 4097 * "x", ["EventStreamChannel", "1 to 4096 bytes"]),
    ("EventStreamChannel 'expr=%{nonsense'", ["the expression '%{nonsense' is not accepted"]),
    ("EventStreamChannel " + " ".join(f"c{i}" for i in range(21)), ["at most 20 channels"]),
    ("EventStreamKeepAlive 500ms", ["give 0, or a time from 1 s to 1 h"]),
    ("EventStreamKeepAlive 1500ms", ["whole seconds"]),
    ("EventStreamKeepAlive soon", ["'soon' is not accepted"]),
    ("EventStreamRetry 2h", ["give 0, or a time from 100 ms to 1 h"]),
    ("EventStreamAllowChannels " + 4097 * "x", ["EventStreamAllowChannels", "not accepted"]),
    ("EventStreamAllowOrigin www.example.org", ["give an origin without a path"]),
    ("EventStreamAllowOrigin https://www.example.org/", ["give an origin without a path"]),
    ("EventStreamAllowOrigin *\nEventStreamAllowCredentials On", ["do not go together"]),
    ("EventStreamAllowCredentials On\nEventStreamAllowOrigin *", ["do not go together"]),
    ("EventStreamAllowHeaders 'X Y'", ["names of headers"]),
    ("EventStreamSubscribeKey base64:!", ["EventStreamSubscribeKey", "accepted are"]),
])
def test_wrong_values(make_httpd, line, parts):
    server = make_httpd()
    server.site("main", f"<Location /events/>\nSetHandler eventstream\n{line}\n</Location>")
    status, text = server.config_test()
    assert status != 0
    for part in parts:
        assert part in text, text


@no_stream
@pytest.mark.parametrize("line,part", [
    ("EventStreamHistory", "give a directory, or off"),
    ("EventStreamHistory off size=1M", "nothing may stand behind 'off'"),
    ("EventStreamHistory history size=512K", "size= may be 1M to 16T"),
    ("EventStreamHistory history size=99999999999999999999T", "'size=99999999999999999999T'"),
    ("EventStreamHistory history age=soon", "age= may be 1s to 3650d"),
    ("EventStreamHistory history count=0", "count= may be a whole number"),
    ("EventStreamHistory history count=1K", "count= may be a whole number"),
    ("EventStreamHistory history sizes=1M", "size=BYTES, age=TIME and count=N"),
    ("<VirtualHost *:1>\nEventStreamHistory off\n</VirtualHost>", "cannot occur within"),
])
def test_wrong_histories(make_httpd, line, part):
    status, text = make_httpd().add(line).config_test()
    assert status != 0 and part in text, text


@no_stream
@pytest.mark.parametrize("line", [
    "EventStreamHistory off", "EventStreamHistory history",
    "EventStreamHistory history size=1M age=1d count=1000",
    "EventStreamHistory /var/empty/x COUNT=1 AGE=90MIN size=16T",
])
def test_good_histories(make_httpd, line):
    status, text = make_httpd().add(line).config_test()
    assert status == 0, text
