# SPDX-License-Identifier: Apache-2.0
"""Presence at the native endpoint: who is on a channel is told on CHANNEL/presence."""

import base64
import json
import os
import signal
import time

import jwt
import pytest

import sse
from harness import unique, wait_until
from publish import item, publish

KEY = "a secret of more than thirty-two bytes"

@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd(modules=["auth_basic", "authn_file", "authn_core", "authz_user"])
    server.publisher()
    sha = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="  # password
    (server.root / "users").write_text("".join(f"{n}:{sha}\n" for n in ("ann", "bob", "n" * 250)))
    login = "AuthType Basic\nAuthName who\nAuthUserFile users\nRequire valid-user"
    server.vhost("main", f"""
        <Location /events/>
            SetHandler eventstream
            EventStreamPresence On grace=500ms
            EventStreamPublish On
        </Location>
        <Location /long/>
            SetHandler eventstream
            EventStreamPresence On grace=1min
            {login}
        </Location>
        <Location /login/>
            SetHandler eventstream
            EventStreamPresence On grace=500ms
            {login}
        </Location>
        <Location /token/>
            SetHandler eventstream
            EventStreamPresence On grace=500ms
            EventStreamSubscribeKey "{KEY}"
        </Location>
        <Location /some/>
            SetHandler eventstream
            EventStreamPresence On
            EventStreamAllowChannels room-* */talk
        </Location>
        <Location /off/>
            SetHandler eventstream
            EventStreamPublish On
        </Location>
        <Location /app/>
            SetHandler eventstream
            EventStreamPresence On grace=0
            EventStreamAuthorize /may
        </Location>
        Alias /may {server.root}/htdocs/may.json
        <Location /may>
            ForceType application/json
        </Location>
    """)
    (server.root / "htdocs" / "may.json").write_text('{"name": "Zo\\u00eb of the application"}')
    return server.start()


def opened(httpd, target, **args):
    stream = sse.Stream.opened(httpd.port("main"), target, **args)
    return stream.wait_for(b"retry: 3000\n\n")


def user(name):
    return [("Authorization", "Basic " + base64.b64encode(f"{name}:password".encode()).decode())]


def token(**claims):
    claims = {"exp": int(time.time()) + 600, "channels": ["*"], **claims}
    return [("Authorization", "Bearer " + jwt.encode(claims, KEY, "HS256"))]


def told(stream):
    """The presence events so far: (event, data)."""
    return [(e["event"], json.loads(e["data"])) for e in stream.events()
            if e.get("event") in ("presence", "join", "leave")]


def wait_told(stream, n):
    """Waits for so many, and returns the last. No one more may be there."""
    stream.wait(lambda: len(told(stream)) >= n, f"{n} presence events, got {told(stream)}")
    assert len(told(stream)) == n, told(stream)
    return told(stream)[-1]


def state(channel, count, *names):
    return "presence", {"channel": channel, "count": count, "members": len(names),
                        "names": list(names)}


def change(event, channel, name, count, members):
    return event, {"channel": channel, "count": count, "members": members,
                   **({"name": name} if name else {})}


def watch(httpd, channel, place="events", **args):
    return opened(httpd, f"/{place}/{channel}/presence", **args)


def info(httpd, target, **args):
    with sse.Client(httpd.port("main")) as c:
        headers = [("Accept", "application/json")] + args.pop("headers", [])
        answer = c.get(target, headers=headers, **args)
    assert answer.code == 200, answer
    return json.loads(answer.body)["channels"][0]


def wait_count(httpd, channel, count):
    wait_until(lambda: info(httpd, f"/events/{channel}/presence")["presence"]["count"] == count,
               f"{count} streams on {channel}")


def test_a_user_comes_once_and_leaves_once(httpd, channel):
    with watch(httpd, channel) as w:
        assert wait_told(w, 1) == state(channel, 0)
        tabs = [opened(httpd, f"/login/{channel}", headers=user("ann")) for _ in range(3)]
        assert wait_told(w, 2) == change("join", channel, "ann", 1, 1)
        wait_count(httpd, channel, 3)
        with opened(httpd, f"/login/{channel}", headers=user("bob")):
            assert wait_told(w, 3) == change("join", channel, "bob", 4, 2)
            with watch(httpd, channel) as late:
                assert wait_told(late, 1) == state(channel, 4, "ann", "bob")
            for tab in tabs:
                tab.close()
            assert wait_told(w, 4) == change("leave", channel, "ann", 1, 1)
        assert wait_told(w, 5) == change("leave", channel, "bob", 0, 0)
        assert b"id:" not in w.body  # what they are at this moment, nobody can ask for later


def test_a_page_that_is_loaded_anew_is_no_event(httpd, channel):
    with watch(httpd, channel) as w:
        opened(httpd, f"/long/{channel}", headers=user("ann")).close()
        assert wait_told(w, 2) == change("join", channel, "ann", 1, 1)
        wait_count(httpd, channel, 0)
        with opened(httpd, f"/long/{channel}", headers=user("ann")), \
                opened(httpd, f"/long/{channel}", headers=user("bob")):
            assert wait_told(w, 3) == change("join", channel, "bob", 2, 2)


@pytest.mark.parametrize("claims,name", [
    ({"name": "Ann Ä", "sub": "7"}, "Ann Ä"), ({"sub": "7"}, "7"), ({}, None),
    ({"name": "with \u0001"}, None),
])
def test_names_of_tokens(httpd, channel, claims, name):
    with watch(httpd, channel, "token", headers=token()) as w:
        assert wait_told(w, 1) == state(channel, 0)
        with opened(httpd, f"/token/{channel}", headers=token(**claims)):
            members = 1 if name else 0
            assert wait_told(w, 2) == change("join", channel, name, 1, members)
            assert info(httpd, f"/token/{channel}/presence", headers=token())["presence"] == {
                "count": 1, "members": members, "names": [name] if name else []}
        assert wait_told(w, 3) == change("leave", channel, name, 0, 0)
    if "\u0001" in str(claims):
        httpd.wait_log(r"ES0120: EventStreamPresence: the name 'with \\x01' is not shown")


def test_the_name_of_a_client_is_not_its_own_word(httpd, channel):
    """A login that nobody has checked, a token that nobody asked for."""
    with watch(httpd, channel) as w:
        for headers in (user("ann"), token(name="ann"), [("Remote-User", "ann"), ("From", "ann")]):
            n = len(told(w)) or 1
            with opened(httpd, f"/events/{channel}?name=ann", headers=headers):
                assert wait_told(w, n + 1) == change("join", channel, None, 1, 0)
            assert wait_told(w, n + 2) == change("leave", channel, None, 0, 0)


def test_the_application_may_name_it(httpd, channel):
    with watch(httpd, channel) as w:
        assert wait_told(w, 1) == state(channel, 0)
        with opened(httpd, f"/app/{channel}"):
            assert wait_told(w, 2) == change("join", channel, "Zoë of the application", 1, 1)
        assert wait_told(w, 3) == change("leave", channel, "Zoë of the application", 0, 0)


def test_one_stream_on_both(httpd, channel):
    other = unique()
    target = f"/login/?channel={channel},{channel}/presence,{other}"
    with opened(httpd, target, headers=user("ann")) as s:
        assert wait_told(s, 2) == change("join", channel, "ann", 1, 1)
        assert told(s)[0] == state(channel, 0)
        publish(httpd.port("publish"), item(other, "data: x\n\n"))
        s.wait_for(b"data: x\n\n")


def test_without_presence_nobody_is_told(httpd, channel):
    with watch(httpd, channel, "off") as silent, watch(httpd, channel) as w, \
            opened(httpd, f"/off/{channel}"), opened(httpd, f"/events/{channel}"):
        assert wait_told(w, 2) == change("join", channel, None, 1, 0)
        assert wait_told(silent, 1) == change("join", channel, None, 1, 0)
    assert "presence" not in info(httpd, f"/off/{channel}/presence")
    assert "presence" not in info(httpd, f"/events/{channel}")


def test_the_name_itself_must_be_allowed(httpd):
    def ask(target):
        with sse.Client(httpd.port("main")) as c:
            return c.get(target)

    with watch(httpd, "room-1", "some") as w:
        assert wait_told(w, 1) == state("room-1", 0)
    opened(httpd, "/some/a/talk").close()
    answer = ask("/some/a/talk/presence")
    assert answer.code == 403 and b"a/talk/presence" in answer.body, answer
    only = token(channels=["news"])
    with sse.Client(httpd.port("main")) as c:
        assert c.get("/token/news/presence", headers=only).code == 403


def test_nobody_plays_the_hub(httpd, channel):
    with watch(httpd, channel) as w, sse.Client(httpd.port("main")) as c:
        forged = b'{"channel": "x", "name": "mallory", "count": 1}'
        answer = c.post(f"/events/{channel}/presence?event=join", forged)
        assert answer.code == 403, answer
        assert answer.body.decode() == (
            f"Nobody may publish to '{channel}/presence': the server itself tells there who is "
            "present.\n")
        with opened(httpd, f"/events/{channel}"):
            assert wait_told(w, 2) == change("join", channel, None, 1, 0)
    with sse.Client(httpd.port("main")) as c:
        assert c.post(f"/events/{channel}", b"x").code == 200
    with sse.Client(httpd.port("main")) as c:
        assert c.post(f"/off/{channel}/presence", b"x").code == 200  # a channel like any other


def test_a_reload_is_no_event(httpd, channel):
    with watch(httpd, channel) as w:
        ann = [opened(httpd, f"/login/{channel}", headers=user("ann")) for _ in range(2)]
        nobody = opened(httpd, f"/events/{channel}")
        assert wait_told(w, 3) == change("join", channel, None, 3, 1)
        hub = httpd.hub_pid()
        httpd.graceful()
        wait_until(lambda: httpd.hub_pid() not in (None, hub), "the next hub")
        bob = opened(httpd, f"/login/{channel}", headers=user("bob"))
        assert wait_told(w, 4) == change("join", channel, "bob", 4, 2)
        nobody.close()
        assert wait_told(w, 5) == change("leave", channel, None, 3, 2)
        for tab in ann:
            tab.close()
        assert wait_told(w, 6) == change("leave", channel, "ann", 1, 1)
        bob.close()


def test_a_new_hub_begins_with_who_is_back(httpd, channel):
    httpd.allow(r"ES0002|ES0003|ES0008|AH00052")
    w = watch(httpd, channel)
    ann = opened(httpd, f"/login/{channel}", headers=user("ann"))
    assert wait_told(w, 2) == change("join", channel, "ann", 1, 1)
    hub = httpd.hub_pid()
    os.kill(hub, signal.SIGKILL)
    w.wait_end()
    ann.wait_end()
    wait_until(lambda: httpd.hub_pid() not in (None, hub), "a new hub")
    w.close()
    ann.close()
    with watch(httpd, channel) as w:
        assert wait_told(w, 1) == state(channel, 0)
        with opened(httpd, f"/login/{channel}", headers=user("ann")):
            assert wait_told(w, 2) == change("join", channel, "ann", 1, 1)


@pytest.mark.parametrize("args,parts", [
    ("Maybe", ["'Maybe' is not accepted; give On or Off"]),
    ("On grace=2min", ["'grace=2min' is not accepted", "0 to 60 s"]),
    ("On 5s", ["'5s' is not accepted", "grace=TIME"]),
    ("On grace=-1s", ["'grace=-1s' is not accepted"]),
    ("Off grace=1s", ["'grace=1s' is not accepted; with On"]),
])
def test_bad_directives(make_httpd, args, parts):
    server = make_httpd()
    server.vhost("main", f"<Location /events/>\nEventStreamPresence {args}\n</Location>")
    code, said = server.config_test()
    assert code != 0
    for part in ["EventStreamPresence", *parts]:
        assert part in said, said
