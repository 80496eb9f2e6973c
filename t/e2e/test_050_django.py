# SPDX-License-Identifier: Apache-2.0
"""A real Django project, its packages unmodified, in the places where Django runs behind Apache:
a server process behind ProxyPass, mod_wsgi's daemon process, mod_wsgi embedded in httpd.

Two variants of the site: `plain` has GRIP_URL = "http://127.0.0.1:PORT" and nothing else; `keyed`
has an issuer and a base64 key in a GRIP_URL with a path, storage, and GRIP_PROXY_REQUIRED.
"""

import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

import pytest

import sse
from harness import (HERE, VERSIONS, Httpd, die_with_parent, free_port, no_stream, python,
                     site_packages, unique, wait_until, workdir)

PROLOGUE = b":" + b" " * 2048 + b"\n\nevent: stream-open\ndata:\n\n"
KEY = "base64:c2VjcmV0IHdpdGggKy8tIGJ5dGVzPj4+Pz8/++++fiBhbmQgbW9yZQ=="  # plus signs on purpose
HOWS = ["proxy", "daemon", "embedded"]
SITES = ["plain", "keyed"]


class Site:
    """The Django project's files, settings and database, in a directory of their own."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="django-", dir=workdir()))
        self.root.chmod(0o755)
        shutil.copytree(HERE / "origin_django", self.root / "app")
        for p in [self.root / "app", *(self.root / "app").rglob("*")]:
            p.chmod(0o755 if p.is_dir() else 0o644)
        for name in ("db", "denied"):
            (self.root / name).mkdir()
            (self.root / name).chmod(0o777)
        self.processes = []
        self.ports = {}

    def settings(self, name, text):
        (self.root / "app" / f"{name}_settings.py").write_text(
            "from esite.base import *\n"
            f'DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3",'
            f' "NAME": "{self.root}/db/{name}.sqlite3", "OPTIONS": {{"timeout": 20}}}}}}\n'
            f'DENIED = "{self.root}/denied"\n{text}')
        (self.root / "app" / f"{name}.wsgi").write_text(
            # Python modules of the system would come with libraries for one interpreter only
            'import os, sys, warnings\nwarnings.simplefilter("ignore")\n'
            'sys.path[:] = [p for p in sys.path if not p.endswith("/dist-packages")]\n'
            f'os.environ["DJANGO_SETTINGS_MODULE"] = "{name}_settings"\n'
            "from django.core.wsgi import get_wsgi_application\n"
            "application = get_wsgi_application()\n")

    def environment(self, name):
        env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ASAN_OPTIONS")}
        return {**env, "DJANGO_SETTINGS_MODULE": f"{name}_settings",
                "PYTHONPATH": str(self.root / "app"), "PYTHONDONTWRITEBYTECODE": "1"}

    def manage(self, name, *args):
        done = subprocess.run([python(), "manage.py", *args], cwd=self.root / "app", text=True,
                              env=self.environment(name), timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def migrate(self, name):
        self.manage(name, "migrate", "-v0")
        (self.root / "db" / f"{name}.sqlite3").chmod(0o666)

    def serve(self, name):
        port = self.ports[name] = free_port()
        log = open(self.root / f"{name}.log", "wb")
        self.processes.append(subprocess.Popen(
            [python(), "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"], stdout=log,
            stderr=log, cwd=self.root / "app", env=self.environment(name),
            preexec_fn=die_with_parent))
        log.close()

    def wait(self):
        for name, port in self.ports.items():
            def answers(port=port):
                try:
                    with sse.Client(port) as c:
                        return c.get("/grip/", version="1.0").code == 200
                except (OSError, sse.FramingError):
                    return False

            wait_until(answers, lambda: (self.root / f"{name}.log").read_text()[-3000:])

    def close(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait(20)
        if not Httpd.keep:
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def site():
    s = Site()
    yield s
    s.close()


@pytest.fixture(scope="module")
def httpd(make_httpd, site):
    server = make_httpd(modules=["wsgi"])
    server.publisher("plainpub")
    server.publisher("keyedpub", f"EventStreamPublishKey realm1 {KEY}", path="/realm/one")
    site.settings("plain", f'GRIP_URL = "http://127.0.0.1:{server.port("plainpub")}"\n')
    site.settings("keyed", f"""
GRIP_URL = "http://127.0.0.1:{server.port("keyedpub")}/realm/one/?iss=realm1&key={KEY}"
GRIP_PROXY_REQUIRED = True
EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.DjangoModelStorage"
""")
    for name in SITES:
        site.migrate(name)
        site.serve(name)
    path = f"{site_packages()}:{site.root}/app"
    server.add(f"WSGIPythonPath {path}\nWSGISocketPrefix run/wsgi")
    server.add("WSGIDestroyInterpreter Off")  # else mod_wsgi's children hang when they end
    for name in SITES:
        key = f"EventStreamGripKey realm1 {KEY}" if name == "keyed" else ""
        server.grip_proxy(site.ports[name], f"{name}-proxy", server="ProxyPreserveHost On",
                          extra=key)
        server.add(f"WSGIDaemonProcess {name} processes=2 threads=4 home={site.root} "
                   f"python-path={path}")
        for how in ("daemon", "embedded"):
            group = name if how == "daemon" else "%{GLOBAL}"
            application = "%{GLOBAL}" if how == "daemon" else name
            server.site(f"{name}-{how}", f"""
                WSGIScriptAlias / {site.root}/app/{name}.wsgi
                <Location />
                    WSGIProcessGroup {group}
                    WSGIApplicationGroup {application}
                    EventStreamGrip On
                    {key}
                </Location>
            """)
    site.wait()
    server.always_allowed += [r"\[wsgi:warn\].*(WSGIPythonPath|mod_wsgi: Compiled)",
                              r"\[wsgi:error\].*(Not Found|Bad Request|Forbidden): "]
    return server.start()


@pytest.fixture(params=HOWS)
def how(request):
    return request.param


def port(httpd, name, how):
    return httpd.port(f"{name}-{how}")


def events(httpd, name, how, channels, cookie=None, **args):
    query = urllib.parse.urlencode([("channel", c) for c in channels])
    headers = [("Accept", "text/event-stream"), ("Accept-Encoding", "gzip, deflate")]
    if cookie:
        headers.append(("Cookie", cookie))
    return sse.Stream.opened(port(httpd, name, how), f"/events/?{query}",
                             headers=headers + args.pop("headers", []), **args)


def send(httpd, name, how, *what):
    """send_event in a request of the application's."""
    with sse.Client(port(httpd, name, how)) as c:
        answer = c.post("/send/", json.dumps(what).encode())
        assert (answer.code, answer.body) == (200, b"sent\n"), answer


def login(httpd, name, how, number):
    with sse.Client(port(httpd, name, how)) as c:
        answer = c.get(f"/login/{number}/")
        assert answer.code == 200, answer
        cookies = [v.split(";")[0] for v in answer.head.all("Set-Cookie")]
        return next(c for c in cookies if c.startswith("sessionid="))


def message(text, kind="message", id=None):
    line = f"id: {id}\n" if id else ""
    return f'event: {kind}\n{line}data: {json.dumps(text)}\n\n'.encode()


def test_the_head(httpd, how):
    """What a browser gets: the application's headers, no Grip-*, no length, no compression."""
    with events(httpd, "plain", how, [unique()]) as s:
        s.wait_body(PROLOGUE)
        assert s.head.get("Content-Type").split(";")[0] == "text/event-stream"
        assert s.head.get("Cache-Control") == "no-cache"
        assert s.head.get("X-Accel-Buffering") == "no"
        assert s.head.get("Access-Control-Allow-Origin") == "http://app.test"
        assert s.head.get("Access-Control-Allow-Credentials") == "true"
        assert "cookie" in s.head.get("Vary").lower()
        assert s.head.open_ended and s.head.get("Content-Encoding") is None
        assert not [n for n in s.head.names() if n.startswith("grip-")]


def test_grip_middleware_is_content(httpd, how):
    with sse.Client(port(httpd, "plain", how)) as c:
        said = json.loads(c.get("/grip/", headers=[("Accept-Encoding", "gzip")]).body)
    assert said["proxied"] is True and said["signed"] is False
    assert said["accept-encoding"] is None and "filter:build-id" in said["features"]
    with sse.Client(port(httpd, "keyed", how)) as c:
        said = json.loads(c.get("/grip/").body)
    assert said["proxied"] is True and said["signed"] is True


@pytest.mark.parametrize("name", SITES)
def test_send_event_from_another_process(httpd, site, how, name):
    """A management command of its own, as cron, Celery and shells do it."""
    channel = unique()
    with events(httpd, name, how, [channel]) as s:
        s.wait_body(PROLOGUE)
        site.manage(name, "send", channel, "upd", "number {n}", "--count", "12")
        want = b"".join(message({"text": f"number {n}"}, "upd",
                                f"{channel}:{n + 1}" if name == "keyed" else None)
                        for n in range(12))
        s.wait_body(PROLOGUE + want)


def test_send_event_from_a_request(httpd, how):
    channel = unique()
    with events(httpd, "plain", how, [channel]) as one, \
            events(httpd, "plain", how, [channel], version=VERSIONS[-1]) as two:
        # in one request: two could go to two processes, whose threads publish when they like
        send(httpd, "plain", how, [channel, "message", "50% d\u00f6ne\n%I"],
             [channel, "upd", {"a": [1, None]}])
        want = PROLOGUE + message("50% d\u00f6ne\n%I") + message({"a": [1, None]}, "upd")
        one.wait_body(want)
        two.wait_body(want)


def test_ids_of_stored_events(httpd, how):
    """With storage each event carries its id, and percent signs arrive as they were sent."""
    channel = unique()
    with events(httpd, "keyed", how, [channel]) as s:
        s.wait_body(PROLOGUE)
        for n in range(3):
            send(httpd, "keyed", how, [channel, "message", f"{n}% done"])
            s.wait(lambda n=n: len(s.events()) == n + 2, "the event")
        assert s.body == PROLOGUE + b"".join(
            message(f"{n}% done", id=f"{channel}:{n + 1}") for n in range(3))


def test_resume_from_storage(httpd, how):
    """Last-Event-ID: what was missed comes in the initial body, un-escaped, then live events."""
    channel = unique()
    with events(httpd, "keyed", how, [channel]) as witness:
        send(httpd, "keyed", how, *[[channel, "message", f"{n}%"] for n in range(3)])
        witness.wait(lambda: len(witness.events()) == 4, "what is missed by the next client")
    with events(httpd, "keyed", how, [channel],
                headers=[("Last-Event-ID", f"{channel}:1")]) as s:
        stored = b"".join(message(f"{n}%", id=f"{channel}:{n + 1}") for n in (1, 2))
        s.wait_body(PROLOGUE + stored)
        send(httpd, "keyed", how, [channel, "message", "live%"])
        s.wait_body(PROLOGUE + stored + message("live%", id=f"{channel}:4"))


def test_several_channels(httpd, how):
    """One connection, several channels, each event's id tells the place on all of them."""
    a, b = unique("a"), unique("b")
    with events(httpd, "keyed", how, [a, b]) as s:
        s.wait_body(PROLOGUE)
        for channel, text in ((a, "1"), (b, "2"), (a, "3")):
            send(httpd, "keyed", how, [channel, "message", text])
            s.wait_for(message(text).split(b"\n")[1])
        ids = [dict(p.split(":") for p in e["id"].split(",")) for e in s.events()[1:]]
        assert ids == [{a: "1", b: "0"}, {a: "1", b: "1"}, {a: "2", b: "1"}]


def test_channel_in_the_url(httpd, how):
    """A channel named by the path, with a name that needs escaping, and fixed channels."""
    name = unique("r") + " \u00e9%"
    with sse.Stream.opened(port(httpd, "plain", how),
                           f"/room/{urllib.parse.quote(name)}/") as room, \
            sse.Stream.opened(port(httpd, "plain", how), "/fixed/") as fixed:
        send(httpd, "plain", how, [name, "message", "room"], ["fixed-two", "message", "two"])
        room.wait_body(PROLOGUE + message("room"))
        fixed.wait_body(PROLOGUE + message("two"))


def test_skip_user_ids(httpd, how):
    """send_event(skip_user_ids=...): everybody but those."""
    channel = unique()
    one, two = (login(httpd, "plain", how, n) for n in (1, 2))
    with events(httpd, "plain", how, [channel], one) as s1, \
            events(httpd, "plain", how, [channel], two) as s2, \
            events(httpd, "plain", how, [channel]) as anonymous:
        send(httpd, "plain", how, [channel, "message", "all"],
             [channel, "message", "not one", ["1"]], [channel, "message", "neither", ["1", "2"]],
             [channel, "message", "end"])
        s1.wait_body(PROLOGUE + message("all") + message("end"))
        s2.wait_body(PROLOGUE + message("all") + message("not one") + message("end"))
        anonymous.wait_body(PROLOGUE + b"".join(map(message, ("all", "not one", "neither",
                                                              "end"))))


def test_permission_denied_passes_through(httpd, site, how):
    """A stream-error is no hold: it arrives, and the response ends."""
    channel = unique()
    (site.root / "denied" / channel).touch()
    with sse.Client(port(httpd, "plain", how)) as c:
        answer = c.get(f"/events/?channel={channel}")
        assert answer.code == 200 and answer.get("Content-Type") == "text/event-stream"
        error = sse.parse_events(answer.body)[0]
        assert error["event"] == "stream-error" and error["id"] == "error"
        assert json.loads(error["data"])["condition"] == "forbidden"
        assert answer.body.count(b"event:") == 1
        assert c.get("/grip/").code == 200
    httpd.wait_status(streams=0, reserved=0)


def test_bad_requests_pass_through(httpd, how):
    with sse.Client(port(httpd, "plain", how)) as c:
        answer = c.get("/events/")
        assert sse.parse_events(answer.body)[0]["event"] == "stream-error"
        answer = c.get("/events/?channel=a", headers=[("Last-Event-ID", "error")])
        assert answer.code == 400, answer
    with sse.Client(port(httpd, "plain", how)) as c:
        assert c.get("/nothing/").code == 404


def test_kick(httpd, site, how):
    """channel_permission_changed: a stream-error, then the stream ends; others stay."""
    channel, other = unique(), unique()
    with events(httpd, "plain", how, [channel]) as s, \
            events(httpd, "plain", how, [other]) as stays:
        s.wait_body(PROLOGUE)
        (site.root / "denied" / channel).touch()
        with sse.Client(port(httpd, "plain", how)) as c:
            assert c.get(f"/kick/{channel}/").body == b"kicked\n"
        s.wait_clean_end()
        assert s.body.startswith(PROLOGUE + b"event: stream-error\nid: error\ndata: ")
        assert s.body.count(b"\n\n") == 3
        send(httpd, "plain", how, [other, "message", "here"])
        stays.wait_body(PROLOGUE + message("here"))


def test_head_request(httpd, how):
    with sse.Client(port(httpd, "plain", how)) as c:
        answer = c.ask("/events/?channel=a", "HEAD")
        assert answer.code == 200 and answer.get("Content-Type") == "text/event-stream"
    httpd.wait_status(streams=0)


def test_forged_signature(httpd, how):
    """A client cannot pretend to be the proxy, nor read what the proxy would."""
    with sse.Client(port(httpd, "keyed", how)) as c:
        said = json.loads(c.get("/grip/", headers=[("Grip-Sig", "forged")]).body)
    assert said["signed"] is True  # the module's own replaced it


@no_stream
def test_publishing_without_the_key(httpd):
    with sse.Client(httpd.port("keyedpub")) as c:
        assert c.post("/realm/one/publish/", b'{"items": []}').code == 401
    httpd.allow(r"eventstream:\w+\].*(token|Authorization|Bearer)")


def test_many_browsers(httpd, how):
    """A hundred streams of the dashboard kind; each gets each event once. When all this takes more
    than 20 s, keep-alives come in between."""
    def without_keep_alives(s):
        return s.body.replace(b"event: keep-alive\ndata:\n\n", b"")

    channel = unique()
    with sse.open_many(port(httpd, "plain", how), [f"/events/?channel={channel}"] * 100) as pool:
        for n in range(5):
            send(httpd, "plain", how, [channel, "message", n])
        want = PROLOGUE + b"".join(message(n) for n in range(5))
        pool.wait_all(lambda s: len(without_keep_alives(s)) >= len(want), "five events")
        for s in pool.streams:
            blocks = without_keep_alives(s).split(b"\n\n")
            assert sorted(blocks) == sorted(want.split(b"\n\n"))
    httpd.wait_status(streams=0)
