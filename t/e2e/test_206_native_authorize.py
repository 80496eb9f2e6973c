# SPDX-License-Identifier: Apache-2.0
"""EventStreamAuthorize: the application is asked who may subscribe, and its answer is kept."""

import json
import re

import pytest

import sse
from harness import no_stream, unique
from publish import item, publish

EVENTSOURCE = [("Accept", "text/event-stream")]


class Application:
    """What the application answers next, and what it was asked."""

    def __init__(self, origin):
        self.path = origin.add(self.handle)
        self.origin = origin
        self.set()

    def set(self, status="204 No Content", headers=(), body=b""):
        self.reply = (status, list(headers), body)

    def json(self, value, headers=()):
        self.set("200 OK", [("Content-Type", "application/json"), *headers],
                 json.dumps(value).encode())

    def handle(self, request, write):
        status, headers, body = self.reply
        lines = [f"HTTP/1.1 {status}", *(f"{n}: {v}" for n, v in headers)]
        if not status.startswith("204"):
            lines.append(f"Content-Length: {len(body)}")
        write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    @property
    def asked(self):
        return self.origin.seen(self.path)


@pytest.fixture(scope="module")
def application(origin):
    return Application(origin)


@pytest.fixture(scope="module")
def httpd(make_httpd, origin, application):
    # one child, so that what it keeps is what every request meets
    server = make_httpd()
    server.publisher()
    server.site("main", f"""
        <Location /o/>
            ProxyPass "http://127.0.0.1:{origin.port}/o/" retry=0
        </Location>
        <Location /events/>
            SetHandler eventstream
            EventStreamAuthorize {application.path}
        </Location>
        <Location /events/free/>
            EventStreamAuthorize None
        </Location>
        <Location /query/>
            SetHandler eventstream
            EventStreamAuthorize {application.path}?from=apache
        </Location>
        <Location /missing/>
            SetHandler eventstream
            EventStreamAuthorize /nothing/here
        </Location>
        <Location /denied>
            Require all denied
        </Location>
        <Location /closed/>
            SetHandler eventstream
            EventStreamAuthorize /denied
        </Location>
        <Location /loop/>
            SetHandler eventstream
            EventStreamAuthorize /loop/
        </Location>
    """)
    server.mpm_conf = ("ServerLimit 1\nStartServers 1\nMaxRequestWorkers 8\nThreadsPerChild 8\n"
                       if server.mpm != "prefork" else
                       "ServerLimit 1\nStartServers 1\nMaxRequestWorkers 1\n")
    # all of its workers are busy at times, and httpd says so
    server.always_allowed += [r"AH10159|AH00161|AH00484|AH00286|AH00485"]
    return server.start()


@pytest.fixture(autouse=True)
def admits(application):
    application.set()


def ask(httpd, target, **args):
    with sse.Client(httpd.port("main")) as c:
        return c.get(target, **args)


def gets(httpd, target, channel, **args):
    with sse.Stream.opened(httpd.port("main"), target, **args) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        assert stream.body.startswith(b":" + b" " * 2048 + b"\n\nevent: stream-open\n")
        text = f"data: {unique()}\n\n".encode()
        publish(httpd.port("publish"), item(channel, text.decode()))
        stream.wait_for(text)
        return stream


def refused(answer, code, text):
    assert (answer.code, answer.body.decode()) == (code, text), answer


def test_what_the_application_is_asked(httpd, application, channel):
    headers = [("Cookie", "sessionid=1"), ("Authorization", "Basic YTpi"), ("Grip-Sig", "x"),
               ("Last-Event-ID", "earliest"), ("Accept-Encoding", "gzip"), ("X-Own", "y")]
    gets(httpd, f"/events/?channel={channel},a%26b%20%C3%A4", channel, headers=headers)
    request = application.asked[-1]
    assert request.method == "GET"
    assert request.target == f"{application.path}?channel={channel}&channel=a%26b+%c3%a4"
    assert request.get("Cookie") == "sessionid=1"
    assert request.get("Authorization") == "Basic YTpi" and request.get("X-Own") == "y"
    assert request.get("Accept") == "application/json"
    for name in ("Grip-Sig", "Last-Event-ID", "Accept-Encoding"):
        assert request.get(name) is None, request.headers
    gets(httpd, f"/query/{channel}", channel)
    assert application.asked[-1].target == f"{application.path}?from=apache&channel={channel}"


def test_nothing_of_its_answer_reaches_the_client(httpd, application, channel):
    application.set("200 OK", [("Set-Cookie", "a=b"), ("X-Secret", "s")], b"not for the client")
    stream = gets(httpd, f"/events/{channel}", channel)
    assert b"not for" not in stream.body
    assert stream.head.get("Set-Cookie") is None and stream.head.get("X-Secret") is None


@pytest.mark.parametrize("status,code,text", [
    ("401 Unauthorized", 401, "Not authorized.\n"), ("403 Forbidden", 403, "Forbidden.\n"),
    ("404 Not Found", 403, "Forbidden.\n"), ("302 Found", 403, "Forbidden.\n"),
])
def test_it_refuses(httpd, application, channel, status, code, text):
    application.set(status, [("WWW-Authenticate", 'Basic realm="app"')] if code == 401 else [],
                    b"a page")
    answer = ask(httpd, f"/events/{channel}", headers=EVENTSOURCE)
    refused(answer, code, text)
    assert answer.get("WWW-Authenticate") == ('Basic realm="app"' if code == 401 else None)


@pytest.mark.parametrize("reply", [
    ("500 Internal Server Error", [], b"trace"),
    ("200 OK", [("Content-Type", "application/json")], b"{"),
    ("200 OK", [("Content-Type", "application/json")], b'{"channels": 7}'),
    ("200 OK", [("Content-Type", "application/json")], b"[" + b" " * 70000 + b"]"),
])
def test_it_fails(httpd, application, channel, reply):
    httpd.allow(r"ES0107")
    application.set(*reply)
    mark = httpd.log_mark()
    refused(ask(httpd, f"/events/{channel}"), 502,
            "The application that decides who may failed.\n")
    httpd.wait_log(r"ES0107: EventStreamAuthorize /o/", mark)


def test_it_fails_for_now(httpd, application, channel):
    """EventSource would stop for good at 502: it is told to come back, and then gets its stream."""
    httpd.allow(r"ES0107")
    application.set("503 Service Unavailable")
    answer = ask(httpd, f"/events/{channel}", headers=EVENTSOURCE)
    assert answer.code == 200 and answer.get("Content-Type").startswith("text/event-stream")
    assert re.fullmatch(rb": The application that decides who may failed\.\n\nretry: \d{4,5}\n\n",
                        answer.body), answer
    application.set()
    gets(httpd, f"/events/{channel}", channel, headers=EVENTSOURCE)


def test_paths_that_cannot_be_asked(httpd, channel):
    httpd.allow(r"AH01630", r"ES0104", r"ES0107", r"AH00128")
    assert ask(httpd, f"/missing/{channel}").code == 403
    assert ask(httpd, f"/closed/{channel}").code == 403
    assert ask(httpd, f"/loop/{channel}").code == 502


def test_it_narrows(httpd, application):
    a, b = unique("a"), unique("b")
    application.json({"channels": [a, "user-*"]})
    gets(httpd, f"/events/?channel={a},user-{b}", a)
    refused(ask(httpd, f"/events/?channel={a},{b}"), 403, f"Permission denied to channels: {b}\n")
    answer = ask(httpd, f"/events/{b}", headers=EVENTSOURCE)
    assert answer.code == 200 and answer.body.startswith(b"event: stream-error\nid: error\n")
    application.set("200 OK", [("EventStream-Channels", b)])
    gets(httpd, f"/events/{b}", b)


def test_off_further_in(httpd, application, channel):
    before = len(application.asked)
    gets(httpd, f"/events/free/{channel}", f"free/{channel}")
    assert len(application.asked) == before


def test_too_long_to_ask(httpd):
    names = ",".join(f"{n}" * 2000 for n in "abcd")
    answer = ask(httpd, f"/events/?channel={names}", headers=[])
    assert answer.code in (400, 414) and b"too long" in answer.body


def count(application, httpd, target, **args):
    before = len(application.asked)
    with sse.Client(httpd.port("main")) as c:
        answer = c.ask(target, "HEAD", **args)
    return answer.code, len(application.asked) - before


def test_kept_for_the_time_it_says(httpd, application, channel):
    me = [("Cookie", f"sessionid={channel}")]
    target = f"/events/{channel}"
    application.json({"channels": [channel]}, [("Cache-Control", "private, max-age=600")])
    assert count(application, httpd, target, headers=me) == (200, 1)
    application.set("403 Forbidden")
    assert count(application, httpd, target, headers=me) == (200, 0)
    gets(httpd, target, channel, headers=me)
    # for nobody else, nothing else, nowhere else
    assert count(application, httpd, target) == (403, 1)
    assert count(application, httpd, target, headers=[("Cookie", "sessionid=2")]) == (403, 1)
    assert count(application, httpd, target, headers=[*me, ("Authorization", "x y")]) == (403, 1)
    assert count(application, httpd, f"{target}2", headers=me) == (403, 1)
    assert count(application, httpd, f"/query/{channel}", headers=me) == (403, 1)


@pytest.mark.parametrize("control", [None, "no-store", "max-age=0", "max-age=60, no-cache"])
def test_not_kept(httpd, application, channel, control):
    headers = [("Cache-Control", control)] if control else []
    application.set("200 OK", headers)
    assert count(application, httpd, f"/events/{channel}") == (200, 1)
    assert count(application, httpd, f"/events/{channel}") == (200, 1)


def test_a_refusal_is_not_kept(httpd, application, channel):
    application.set("403 Forbidden", [("Cache-Control", "max-age=600")])
    assert count(application, httpd, f"/events/{channel}") == (403, 1)
    application.set()
    assert count(application, httpd, f"/events/{channel}") == (200, 1)


@no_stream
@pytest.mark.parametrize("value", ["auth", "http://127.0.0.1/", "//host/", "/a#b"])
def test_wrong_values(make_httpd, value):
    server = make_httpd()
    server.site("main", f'<Location /e/>\nEventStreamAuthorize "{value}"\n</Location>')
    status, text = server.config_test()
    assert status != 0 and "give a path of this server" in text, text
