# SPDX-License-Identifier: Apache-2.0
"""The native endpoint with programs that others wrote: the real curl over each transport, and a
Django project whose send_event() publishes, with storage and without.

Browsers are in t/browser/test_native.py.
"""

import json
import os
import re
import select
import signal
import subprocess
import time
import urllib.parse

import pytest

import sse
from harness import MPM, MPM_HTTP2, TLS_CA, WAIT, unique, wait_until
from publish import close_item, item, publish
from test_050_django import Site

ID = re.compile(r"[\w-]{27}")  # ours; django-eventstream's have a colon

# name: (virtual host, curl's options, the status line's version)
TRANSPORTS = {
    "http1.1": ("plain", ["--http1.1"], "HTTP/1.1"),
    "http1.0": ("plain", ["--http1.0"], "HTTP/1.1"),  # httpd's answer says 1.1, without chunks
    "tls1.2": ("tls", ["--tlsv1.2", "--tls-max", "1.2"], "HTTP/1.1"),
    "tls1.3": ("tls", ["--tlsv1.3"], "HTTP/1.1"),
}
if MPM != "prefork":  # mod_http2 does not run there
    TRANSPORTS.update({
        "h2": ("h2", ["--http2"], "HTTP/2"),
        "h2c": ("h2c", ["--http2-prior-knowledge"], "HTTP/2"),
        "h2c-upgrade": ("h2c", ["--http2"], "HTTP/2"),
    })

ENDPOINTS = """
    <Location /events/>
        SetHandler eventstream
        EventStreamPublish On
    </Location>
    <Location /django/>
        SetHandler eventstream
        EventStreamChannelPrefix events-
    </Location>
"""


@pytest.fixture(scope="module")
def site():
    s = Site()
    yield s
    s.close()


@pytest.fixture(scope="module")
def httpd(make_httpd, site):
    server = make_httpd()
    server.add("EventStreamHistory run/history\nEventStreamDrain 1s")
    server.publisher()
    server.vhost("plain", ENDPOINTS)
    server.vhost("tls", server._tls() + ENDPOINTS)
    if MPM != "prefork":
        server.mpm_conf = MPM_HTTP2
        server._with_http2()
        server.vhost("h2", server._tls() + "Protocols h2 http/1.1\n" + ENDPOINTS)
        server.vhost("h2c", "Protocols h2c http/1.1\n" + ENDPOINTS)
    grip = f'GRIP_URL = "http://127.0.0.1:{server.port("publish")}"\n'
    site.settings("plain", grip)
    site.settings("stored", grip + 'EVENTSTREAM_STORAGE_CLASS = '
                                   '"django_eventstream.storage.DjangoModelStorage"\n')
    for name in ("plain", "stored"):
        site.migrate(name)
        site.serve(name)
        server.grip_proxy(site.ports[name], f"grip-{name}", own=True)
        # as in the manual, "Without asking Django"
        server.vhost(f"manual-{name}", f"""
            ProxyPass / http://127.0.0.1:{site.ports[name]}/
            <Location /events/>
                EventStreamGrip On
            </Location>
            <Location /live/>
                ProxyPass !
                SetHandler eventstream
                EventStreamChannelPrefix events-
                EventStreamAllowChannels ch-*
            </Location>
        """)
    site.wait()
    return server.start()


def send(httpd, *items):
    publish(httpd.port("publish"), *items)


def numbers(httpd, channel, first, last):
    for n in range(first, last + 1):
        send(httpd, item(channel, f"event: number\ndata: {n}\n\n"))


# ---- curl -----------------------------------------------------------------------------------------

def url(httpd, host, target):
    scheme = "https" if host in ("tls", "h2") else "http"
    return f"{scheme}://localhost:{httpd.port(host)}{target}"


def command(*args):
    return ["curl", "-q", "-sS", "--noproxy", "*", "--cacert", str(TLS_CA), "--max-time", "100",
            *args]


class Curl:
    """curl -N -i URL, and what it has printed so far."""

    def __init__(self, httpd, transport, target, *args):
        host, how, self.version = TRANSPORTS[transport]
        self.said = b""
        self.eof = False
        self.process = subprocess.Popen(
            command("-N", "-i", *how, *args, url(httpd, host, target)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()  # not SIGINT: whoever is started in the background ignores it
        self.process.wait(WAIT)
        self.process.stdout.close()

    def _read(self, deadline):
        fd = self.process.stdout.fileno()
        if select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            data = os.read(fd, 65536)
            self.said += data
            self.eof = not data

    def wait(self, until, what):
        deadline = time.monotonic() + WAIT
        while not until():
            assert not self.eof and time.monotonic() < deadline, \
                f"waited for {what}: {self.said.replace(b' ' * 2048, b'')[-2000:]!r}"
            self._read(deadline)
        return self

    def begun(self):
        return self.wait(lambda: b"\nretry: 3000\n" in self.said, "the stream's begin")

    def came(self, last):
        return self.wait(lambda: self.numbers()[-1:] == [last], f"number {last}")

    def ended(self):
        """Waits for curl's end; its status."""
        self.wait(lambda: self.eof, "its end")
        return self.process.wait(WAIT)

    @property
    def head(self):
        """The last head: before it there may be that of a 101."""
        heads = self.said.replace(b"\r\n\r\n:", b"\r\n\r\n\0:", 1).split(b"\0")[0]
        return heads.decode().strip().split("\r\n\r\n")[-1].split("\r\n")

    def events(self):
        return sse.parse_events(self.said.partition(b":" + b" " * 2048)[2])

    def numbers(self):
        return [int(e["data"]) for e in self.events() if e["event"] == "number"]

    def last_id(self):
        return [e["id"] for e in self.events() if "id" in e][-1]


@pytest.fixture(params=list(TRANSPORTS))
def transport(request):
    return request.param


def test_curl(httpd, channel, transport):
    """Each event is printed when it comes; the end is a proper one."""
    with Curl(httpd, transport, f"/events/{channel}") as curl:
        curl.begun()
        for n in (1, 2, 3):
            numbers(httpd, channel, n, n)
            curl.came(n)
        send(httpd, close_item(channel))
        assert curl.ended() == 0
        assert curl.head[0].split()[:2] == [curl.version, "200"]
        assert "content-type: text/event-stream; charset=utf-8" in [h.lower() for h in curl.head]
        events = curl.events()
        assert [e["event"] for e in events] == ["stream-open"] + 3 * ["number"]
        assert all(ID.fullmatch(e["id"]) for e in events)
        assert len({e["id"] for e in events}) == 4


def test_curl_resumes(httpd, channel, transport):
    """-H 'Last-Event-ID: ...': what was missed, then what is new; no gap, no double."""
    with Curl(httpd, transport, f"/events/{channel}") as curl:
        curl.begun()
        numbers(httpd, channel, 1, 5)
        curl.came(5)
        last = curl.last_id()
    numbers(httpd, channel, 6, 40)
    with Curl(httpd, transport, f"/events/?channel={channel}", "-H",
              f"Last-Event-ID: {last}") as curl:
        curl.came(40)
        numbers(httpd, channel, 41, 45)
        curl.came(45)
        assert curl.numbers() == list(range(6, 46))
        assert "stream-reset" not in [e["event"] for e in curl.events()]


def test_curl_and_a_killed_hub(httpd, channel, transport):
    """curl ends; with the last id that it printed, be it that of stream-open, nothing is lost."""
    httpd.allow(r"ES0002|ES0004|ES0021|AH00052")
    got = []
    last = None
    for first in (1, 11):
        with Curl(httpd, transport, f"/events/{channel}",
                  *(["-H", f"Last-Event-ID: {last}"] if last else [])) as curl:
            curl.begun()
            if first > 1:
                numbers(httpd, channel, first, first + 4)
                curl.came(first + 4)
            hub = httpd.hub_pid()
            os.kill(hub, signal.SIGKILL)
            curl.ended()
            wait_until(lambda: httpd.hub_pid() not in (None, hub), "another hub")  # noqa: B023
            got += curl.numbers()
            last = curl.last_id()
        numbers(httpd, channel, first + (5 if first > 1 else 0), first + 9)
    with Curl(httpd, transport, f"/events/{channel}", "-H", f"Last-Event-ID: {last}") as curl:
        curl.came(20)
        got += curl.numbers()
    assert got == list(range(1, 21))
    httpd.graceful()  # the hubs' early deaths are counted anew: see ES0003


def test_curl_publishes(httpd, channel, transport):
    """The manual's examples."""
    if transport == "http1.0":
        transport = "http1.1"
    host, how, _ = TRANSPORTS[transport]
    target = url(httpd, host, f"/events/{channel}")
    with Curl(httpd, transport, f"/events/{channel}") as curl:
        curl.begun()
        for args in (["-d", "hello"], ["--json", '{"text": "hello"}'],
                     ["-H", "Content-Type: text/plain", "--data-binary", "1\n2"]):
            said = subprocess.run(command(*how, *args, target + "?event=greeting"),
                                  stdout=subprocess.PIPE, timeout=120, check=True).stdout
            answer = json.loads(said)
            assert answer["receivers"] == 1 and ID.fullmatch(answer["id"])
        curl.wait(lambda: len(curl.events()) >= 4, "three events")
        assert [(e["event"], e["data"]) for e in curl.events()[1:]] == [
            ("greeting", "hello"), ("greeting", '{"text": "hello"}'), ("greeting", "1\n2")]
        assert answer["id"] == curl.last_id()


def test_curl_is_refused(httpd, transport):
    """The sentence, and with -f a status that scripts see."""
    host, how, _ = TRANSPORTS[transport]
    done = subprocess.run(command(*how, url(httpd, host, "/events/")), stdout=subprocess.PIPE,
                          timeout=120, check=True)
    assert done.stdout.startswith(b"No channels specified")
    done = subprocess.run(command("-f", *how, url(httpd, host, "/events/")), timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 22 and b"400" in done.stderr, done


def test_a_full_hub(make_httpd, channel):
    """A script gets 503; EventSource, which would stop for good, is told to come back."""
    server = make_httpd()
    server.add("EventStreamMaxStreams 1")
    server.vhost("plain", ENDPOINTS)
    server.start()
    target = f"/events/{channel}"

    def ask(**args):
        with sse.Client(server.port("plain")) as c:
            return c.get(target, **args)

    with sse.Stream.opened(server.port("plain"), target):
        server.allow(r"ES0340")
        answer = ask()
        assert (answer.code, answer.get("Retry-After")) == (503, "5"), answer
        answer = ask(headers=[("Accept", "text/event-stream")])
        assert answer.code == 200, answer
        assert answer.get("Content-Type") == "text/event-stream; charset=utf-8"
        said = re.fullmatch(rb": The stream cannot be held now\. Try again later\.\n\n"
                            rb"retry: (\d+)\n\n", answer.body)
        assert said and 5000 <= int(said[1]) <= 10000, answer
    server.wait_status(streams=0)
    with sse.Stream.opened(server.port("plain"), target) as stream:
        stream.wait_for(b"event: stream-open\n")


# ---- Django ---------------------------------------------------------------------------------------

@pytest.fixture(params=["plain", "stored"])
def project(request):
    return request.param


def send_event(httpd, project, *what):
    """send_event() in a request of the application's."""
    with sse.Client(httpd.port(f"grip-{project}")) as c:
        answer = c.post("/send/", json.dumps([what]).encode())
        assert (answer.code, answer.body) == (200, b"sent\n"), answer


def native(httpd, *channels, last=None):
    query = urllib.parse.urlencode([("channel", c) for c in channels])
    return sse.Stream.opened(httpd.port("plain"), f"/django/?{query}",
                             headers=[("Last-Event-ID", last)] if last else [])


def sent(stream):
    """The events that are not the stream's own, as (name, data)."""
    return [(e["event"], json.loads(e["data"])) for e in stream.events()
            if e["event"] not in ("stream-open", "keep-alive")]


def wait_sent(stream, count):
    return stream.wait(lambda: len(sent(stream)) >= count, f"{count} events")


def check_ids(stream):
    ids = [e["id"] for e in stream.events() if e["event"] != "keep-alive"]
    assert all(ID.fullmatch(i) for i in ids) and len(set(ids)) == len(ids), ids


def test_send_event(httpd, site, project):
    """What is written for Pushpin's build-id filter, with storage on, arrives unescaped; the ids
    are ours."""
    channel = unique()
    with native(httpd, channel) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        site.manage(project, "send", channel, "upd", "{n} 50% %I %(x)s %% \u00e4\n2nd", "--count", "12")
        wait_sent(stream, 12)
        assert sent(stream) == [("upd", {"text": f"{n} 50% %I %(x)s %% \u00e4\n2nd"})
                                for n in range(12)]
        check_ids(stream)
        last = stream.events()[5]["id"]
    with native(httpd, channel, last=last) as again:
        wait_sent(again, 7)
        send_event(httpd, project, channel, "message", {"text": "live"})
        wait_sent(again, 8)
        assert [d["text"].split()[0] for _, d in sent(again)] \
            == [str(n) for n in range(5, 12)] + ["live"]


def test_names_as_send_event_takes_them(httpd, project):
    """django-eventstream quotes a channel's name; a URL names it as send_event() does."""
    names = [unique("a") + " b", unique("r") + "\u00e4um/1", unique("p") + "%25,+"]
    quoted = [urllib.parse.quote(n, safe="") for n in names]
    target = "/django/?" + "&".join(f"channel={q}" for q in quoted)
    with sse.Stream.opened(httpd.port("plain"), target) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        for n, name in enumerate(names):
            send_event(httpd, project, name, "message", name)
            wait_sent(stream, n + 1)
        assert sent(stream) == [("message", name) for name in names]
        check_ids(stream)


def test_the_manuals_site(httpd, site, project):
    """Everything goes to Django but the native endpoint."""
    channel = unique()
    port = httpd.port(f"manual-{project}")
    with sse.Stream.opened(port, f"/live/?channel={channel}") as stream, \
            sse.Stream.opened(port, f"/events/?channel={channel}") as grip:
        stream.wait_for(b"retry: 3000\n\n")
        grip.wait_for(b"event: stream-open\n")
        send_event(httpd, project, channel, "message", {"text": "hello"})
        for s in (stream, grip):
            wait_sent(s, 1)
            assert sent(s) == [("message", {"text": "hello"})]
    with sse.Client(port) as c:
        assert c.get("/live/?channel=other").code == 403


def test_both_kinds_of_subscribers(httpd, project):
    """Streams that Django let in, by GRIP, and native ones get the same; each with its ids."""
    channel = unique()
    target = f"/events/?channel={channel}"
    with sse.Stream.opened(httpd.port(f"grip-{project}"), target) as grip, \
            native(httpd, channel) as stream:
        grip.wait_for(b"event: stream-open\n")
        stream.wait_for(b"retry: 3000\n\n")
        for n in range(5):  # the last one to others than user 7; nobody here is
            data = {"n": n, "text": "100%"}
            send_event(httpd, project, channel, "message", data, *([["7"]] if n == 4 else []))
            wait_sent(grip, n + 1)
        wait_sent(stream, 5)
        assert sent(grip) == sent(stream) == [("message", {"n": n, "text": "100%"})
                                              for n in range(5)]
        check_ids(stream)
        theirs = [e.get("id") for e in grip.events()[1:]]
        assert theirs == ([f"{channel}:{n + 1}" for n in range(5)] if project == "stored"
                          else 5 * [None])
