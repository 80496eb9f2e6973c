# SPDX-License-Identifier: Apache-2.0
"""The native endpoint as browsers use it: EventSource in Chromium, django-eventstream's own
JavaScript client, htmx's sse extension.

A publisher counts while hubs are killed and configurations replaced; what a page was given, in
order, must be the same numbers. A publish that is under way when the hub is killed may come twice
(its publisher sends it again, see docs/publishing.md): so none is, at that moment.
"""

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import django
import jwt
import psutil
import pytest

import harness
import sse
from chromium import HERE, NODE_PATH
from harness import wait_until
from publish import Publisher, item

# by its place: importing the package needs Django's settings
DJANGO_FILES = Path(django.__file__).parent.parent / "django_eventstream/static/django_eventstream"
KEY = "a secret of more than thirty-two bytes"
FILES = [
    *(HERE / "pages" / name for name in ("recorder.js", "listen.html", "django.html", "htmx.html")),
    *(DJANGO_FILES / name for name in ("eventsource.min.js", "reconnecting-eventsource.js")),
    NODE_PATH / "htmx.org" / "dist" / "htmx.min.js",
    NODE_PATH / "htmx-ext-sse" / "sse.js",
]

ENDPOINTS = f"""
    <Location /events/>
        SetHandler eventstream
        EventStreamPublish On
        EventStreamRetry 200ms
        EventStreamAllowChannels ch-* news
    </Location>
    <Location /slow/>
        SetHandler eventstream
    </Location>
    <Location /django/>
        SetHandler eventstream
        EventStreamChannelPrefix events-
        EventStreamAllowChannels ch-*
        EventStreamKeepAlive 1s
        EventStreamRetry 200ms
    </Location>
    <Location /token/>
        SetHandler eventstream
        EventStreamSubscribeKey "{KEY}"
    </Location>
    <Location /closed/>
        SetHandler eventstream
        Require all denied
    </Location>
"""


@pytest.fixture(scope="module")
def httpd():
    server = harness.Httpd("browser")
    server.killed = False
    server.mpm_conf = harness.MPM_HTTP2
    server._with_http2()
    htdocs = server.root / "htdocs"
    for path in FILES:
        shutil.copy(path, htdocs)
        (htdocs / path.name).chmod(0o644)
    server.add("""
        EventStreamHistory run/history
        EventStreamDrain 1s
        AddType text/html .html
        AddType text/javascript .js
        <FilesMatch "^favicon">
            Redirect gone
        </FilesMatch>
    """)
    server.publisher()
    server.vhost("plain", ENDPOINTS)
    server.vhost("tls", server._tls() + "Protocols http/1.1\n" + ENDPOINTS)
    server.vhost("h2", server._tls() + "Protocols h2\n" + ENDPOINTS)
    # another origin's endpoints
    friend, page = f"http://127.0.0.1:{server.port('plain')}", "SetHandler eventstream"
    server.vhost("other", f"""
        <Location /cookies/>
            {page}
            EventStreamAllowOrigin {friend}
            EventStreamAllowCredentials On
            EventStreamSubscribeKey "{KEY}"
        </Location>
        <Location /friend/>
            {page}
            EventStreamAllowOrigin {friend}
        </Location>
        <Location /stranger/>
            {page}
            EventStreamAllowOrigin http://stranger.test
            EventStreamAllowCredentials On
        </Location>
    """)
    server.allow(r"AH01909|AH01906")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(autouse=True)
def fresh(httpd):
    """After a test that killed hubs their early deaths are counted anew: see ES0003."""
    yield
    if httpd.killed:
        httpd.killed = False
        httpd.graceful()


class Numbers:
    """Publishes 1, 2, 3, ... to a channel until it is stopped; each is answered with 200."""

    def __init__(self, httpd, channel):
        self.port = httpd.port("publish")
        self.channel = channel
        self.last = 0
        self.error = None
        self.between = threading.Lock()  # held while a number is under way
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def _run(self):
        while not self._stop.is_set() and not self.error:
            with self.between:
                try:
                    with Publisher(self.port) as publisher:
                        publisher.text(self.channel, f"data: {self.last + 1}\n\n")
                    self.last += 1
                except Exception as error:  # shown by stop()
                    self.error = error
            self._stop.wait(0.02)  # the pace; nothing is waited for

    def stop(self):
        self._stop.set()
        self._thread.join(60)
        assert self.error is None, self.error
        return self.last


def publish(httpd, channel, data, kind=None):
    event = f"event: {kind}\n" if kind else ""
    with Publisher(httpd.port("publish")) as publisher:
        publisher.send(item(channel, f"{event}data: {data}\n\n"))


def kill_hub(httpd, numbers=None):
    """SIGKILL, while nothing is being published."""
    httpd.allow(r"ES0002|ES0004|ES0021|AH00052")
    with numbers.between if numbers else contextlib.nullcontext():
        hub = psutil.Process(httpd.hub_pid())
        httpd.killed = True
        os.kill(hub.pid, signal.SIGKILL)
        wait_until(lambda: not hub.is_running() or hub.status() == psutil.STATUS_ZOMBIE,
                   "the hub's end")


def base(httpd, host):
    scheme = "http" if host in ("plain", "other") else "https"
    return f"{scheme}://127.0.0.1:{httpd.port(host)}"


def visit(browser, httpd, page="listen.html", host="plain"):
    return browser.open(f"{base(httpd, host)}/{page}")


def listen(page, url, kind="EventSource", options="{}"):
    page.run(f"listen(new {kind}('{url}', {options}))")


def opened(page, times=1):
    page.until(f"states.filter((s) => s === 'open').length >= {times}", "states")


def came(page, at_least):
    page.until(f"data('message').length >= {at_least}", "[states, seen.slice(-3)]")


def all_came(page, last):
    """The numbers up to `last`, each once, in order."""
    page.until(f"data('message').includes('{last}')", "[states, seen.slice(-3)]")
    assert page.run("data('message')") == [str(n + 1) for n in range(last)]


def disturb(httpd, page, numbers, how):
    """Something happens to the server; the page goes on getting numbers."""
    if how == "hub killed":
        kill_hub(httpd, numbers)
    else:
        httpd.graceful()
    before = numbers.last
    wait_until(lambda: numbers.last > before or numbers.error, "the next number is published")
    page.until(f"data('message').some((n) => Number(n) > {before})", "[states, seen.slice(-3)]")


CLIENTS = {
    "EventSource": ("listen.html", "EventSource"),
    "django-eventstream": ("django.html", "ReconnectingEventSource"),
    "django-eventstream, polyfill": ("django.html?old", "ReconnectingEventSource"),
}


@pytest.mark.parametrize("client,host", [
    *((client, "plain") for client in CLIENTS), ("EventSource", "tls"), ("EventSource", "h2"),
    ("django-eventstream", "h2"),
])
def test_nothing_is_lost(httpd, browser, channel, client, host):
    """The page reconnects by itself, and gets every number once and in order."""
    page_name, kind = CLIENTS[client]
    with visit(browser, httpd, page_name, host) as page:
        listen(page, f"/events/{channel}", kind)
        opened(page)
        with Numbers(httpd, channel) as numbers:
            came(page, 20)
            for how in ("hub killed", "graceful", "hub killed", "graceful"):
                disturb(httpd, page, numbers, how)
            all_came(page, numbers.stop())
        ids = page.run("seen.filter((e) => e.kind === 'message').map((e) => e.id)")
        assert len(set(ids)) == len(ids) and all(ids)
        if client == "EventSource":
            resumed = [headers.get("last-event-id") for headers in page.streams()]
            assert len(resumed) >= 3
            assert resumed[0] is None and all(i in ids for i in resumed[1:])
            assert page.run("states.includes('stopped')") is False
        if host == "h2":
            protocols = page.run("performance.getEntriesByType('navigation')"
                                 ".map((e) => e.nextHopProtocol)")
            assert protocols == ["h2"]
        page.shot(f"native-{client.replace(', ', '-')}-{host}")


def test_the_default_retry(httpd, browser, channel):
    """3 s, as the stream said; and nobody but the browser does anything."""
    with visit(browser, httpd) as page:
        listen(page, f"/slow/{channel}")
        opened(page)
        publish(httpd, channel, 1)
        came(page, 1)
        began = time.monotonic()
        kill_hub(httpd)
        publish(httpd, channel, 2)
        opened(page, 2)
        assert time.monotonic() - began >= 3
        publish(httpd, channel, 3)
        all_came(page, 3)


def test_nothing_is_lost_before_the_first_event(httpd, browser, channel):
    """A page that has had no event yet resumes where its stream began."""
    with visit(browser, httpd) as page:
        listen(page, f"/events/{channel}")
        opened(page)
        page.until("seen.length >= 1", "states")
        page.gate(shut=True)
        kill_hub(httpd)
        page.until("states.includes('broken')", "states")
        for n in (1, 2, 3):
            publish(httpd, channel, n)
        page.gate(shut=False)
        all_came(page, 3)
        assert page.run("data('stream-reset')") == []


def test_a_full_hub_does_not_stop_it(browser, httpd, channel):
    """It gets no stream for now, and comes back by itself."""
    full = harness.Httpd("full")
    full.add("EventStreamMaxStreams 1")
    full.publisher()
    full.vhost("plain", """
        <Location /events/>
            SetHandler eventstream
            EventStreamAllowOrigin *
        </Location>
    """)
    full.start()
    try:
        full.allow(r"ES0340")
        target = f"http://127.0.0.1:{full.port('plain')}/events/{channel}"
        with sse.Stream.opened(full.port("plain"), f"/events/{channel}") as other, \
                visit(browser, httpd) as page:
            listen(page, target)
            page.until("states.includes('broken')", "states")
            assert page.run("seen") == []
            other.close()
            page.until("data('stream-open').length > 0", "states")
            publish(full, channel, 1)
            all_came(page, 1)
    finally:
        full.close()


def test_a_graceful_restart_is_not_noticed(httpd, browser, channel):
    with visit(browser, httpd) as page:
        listen(page, f"/events/{channel}")
        opened(page)
        for n in (1, 2):
            publish(httpd, channel, n)
            came(page, n)
            httpd.graceful()
        publish(httpd, channel, 3)
        all_came(page, 3)
        assert page.run("states") == ["open"]


# ---- what the stream itself says ------------------------------------------------------------------

def clear(httpd, channel):
    with sse.Client(httpd.port("plain")) as c:
        assert c.ask(f"/events/{channel}", "DELETE").code == 204


@pytest.mark.parametrize("client", CLIENTS)
def test_stream_reset(httpd, browser, channel, client):
    """What was missed has been cleared: the page is told, then gets what is new."""
    page_name, kind = CLIENTS[client]
    with visit(browser, httpd, page_name) as page:
        listen(page, f"/events/{channel}", kind)
        opened(page)
        publish(httpd, channel, 1)
        came(page, 1)
        old = "old" in page_name
        if old:  # by XMLHttpRequest: the page itself comes back later
            page.run("source.close()")
        else:
            page.gate(shut=True)
            kill_hub(httpd)
            page.until("states.includes('broken')", "states")
        publish(httpd, channel, "missed")
        clear(httpd, channel)
        if old:
            last = page.run("seen.at(-1).id")
            listen(page, f"/events/{channel}", kind, f"{{lastEventId: '{last}'}}")
        else:
            page.gate(shut=False)
        page.until("data('stream-reset').length > 0", "[states, seen]")
        publish(httpd, channel, 2)
        all_came(page, 2)
        assert page.run("data('stream-reset').map(JSON.parse)") == [{"channels": [channel]}]


def test_events_by_name(httpd, browser, channel):
    with visit(browser, httpd) as page:
        listen(page, f"/events/?channel={channel}")
        opened(page)
        publish(httpd, channel, "one\ndata: two", "named")
        page.until("data('named').length > 0", "seen")
        assert page.run("data('named')") == ["one\ntwo"]
        assert page.run("data('message')") == []


@pytest.mark.parametrize("client", CLIENTS)
def test_open_and_keep_alive(httpd, browser, channel, client):
    page_name, kind = CLIENTS[client]
    with visit(browser, httpd, page_name) as page:
        listen(page, f"/django/?channel={channel}", kind)
        opened(page)
        page.until("data('keep-alive').length > 1", "seen")
        assert page.run("seen[0].kind") == "stream-open"
        assert page.run("[...new Set(seen.map((e) => e.kind))]") == ["stream-open", "keep-alive"]
        assert page.run("data('keep-alive').every((d) => d === '')")


# ---- refusals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("target,status", [
    ("/token/news", 401), ("/token/news?token=x.y.z", 401), ("/closed/news", 403),
    ("/events/", 400), ("/events/?channel=%ff", 400),
])
def test_a_refusal_stops_it(httpd, browser, target, status):
    httpd.allow(r"ES0101|AH01630")
    with visit(browser, httpd) as page:
        listen(page, target)
        page.until("states.includes('stopped')", "states")
        assert page.run("states") == ["stopped"] and page.run("source.readyState") == 2
        noted = page.noted()["responses"]
        assert [r["status"] for r in noted if target in r["url"]] == [status]


def test_stream_error(httpd, browser):
    """EventSource sees why; when it comes back it gets 400 and stops."""
    with visit(browser, httpd) as page:
        listen(page, "/events/?channel=news,secret")
        page.until("states.includes('stopped')", "[states, seen]")
        assert page.run("states") == ["open", "broken", "stopped"]
        assert page.run("data('stream-error').map(JSON.parse)") == [{
            "condition": "forbidden", "text": "Permission denied to channels: secret",
            "channels": ["secret"]}]
        assert [r["status"] for r in page.noted()["responses"] if "secret" in r["url"]] \
            == [200, 400]


@pytest.mark.parametrize("client", [c for c in CLIENTS if c != "EventSource"])
def test_stream_error_for_djangos_client(httpd, browser, client):
    """It never stops by itself: as with Django a page closes it on stream-error."""
    page_name, kind = CLIENTS[client]
    with visit(browser, httpd, page_name) as page:
        page.run(f"window.made = new {kind}('/django/?channel=ch-x,secret'), listen(made),"
                 " made.addEventListener('stream-error', () => made.close())")
        page.until("data('stream-error').length > 0", "[states, seen]")
        assert page.run("made.readyState") == 2
        assert page.run("seen[0].id") == "error"
        assert page.run("JSON.parse(seen[0].data).channels") == ["secret"]


# ---- tokens, pages of other sites -----------------------------------------------------------------

def token(channel):
    return jwt.encode({"exp": int(time.time()) + 600, "channels": [channel]}, KEY, "HS256")


def give_cookie(browser, httpd, channel):
    browser.cookie(name="eventstream_token", value=token(channel), domain="127.0.0.1", path="/",
                   httpOnly=True, sameSite="Strict")


def test_token_in_a_cookie(httpd, browser, channel):
    give_cookie(browser, httpd, channel)
    with visit(browser, httpd) as page:
        listen(page, f"/token/{channel}")
        opened(page)
        publish(httpd, channel, 1)
        all_came(page, 1)


@pytest.mark.parametrize("path,options,wanted", [
    ("cookies", "{withCredentials: true}", "open"),
    ("cookies", "{}", "stopped"),  # without its cookie: 401
    ("friend", "{}", "open"),
    ("friend", "{withCredentials: true}", "stopped"),  # credentials are not allowed
    ("stranger", "{}", "stopped"),
    ("stranger", "{withCredentials: true}", "stopped"),
])
def test_another_origin(httpd, browser, channel, path, options, wanted):
    httpd.allow(r"ES0101")
    give_cookie(browser, httpd, channel)
    with visit(browser, httpd) as page:
        listen(page, f"{base(httpd, 'other')}/{path}/{channel}", options=options)
        page.until("states.length > 0", "states")
        publish(httpd, channel, 1)
        if wanted == "open":
            all_came(page, 1)
        assert page.run("states") == [wanted]


# ---- htmx -----------------------------------------------------------------------------------------

def test_htmx(httpd, browser, channel):
    with visit(browser, httpd, f"htmx.html?channel={channel}") as page:
        page.until("opened === 1", "opened")
        publish(httpd, channel, "<b>bold</b>", "named")
        page.until("document.querySelector('#named b') !== null", "stream.innerHTML")
        assert page.run("document.getElementById('named').innerText") == "bold"
        with Numbers(httpd, channel) as numbers:
            page.until("document.getElementById('all').innerText.length > 20", "stream.innerHTML")
            for n in (2, 3):
                kill_hub(httpd, numbers)
                page.until(f"opened >= {n}", "opened")
            httpd.graceful()
            last = numbers.stop()
        page.until(f"document.getElementById('latest').innerText === '{last}'", "stream.innerHTML")
        assert page.run("document.getElementById('all').textContent") \
            == "".join(str(n + 1) for n in range(last))
        # broken connections are in the console, and nothing else
        assert not [line for line in page.noted()["console"] if line.startswith("exception")]
        assert len(page.shot("native-htmx")) > 3000
