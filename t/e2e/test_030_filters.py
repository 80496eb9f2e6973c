# SPDX-License-Identifier: Apache-2.0
"""Filters: who gets a message (skip-self, skip-users, require-sub) and how it reads (build-id,
var-subst)."""

import pytest

import sse
from harness import unique
from publish import Publisher, close_item, item


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


@pytest.fixture
def pub(httpd):
    with Publisher(httpd.port("publish")) as p:
        yield p


def held(httpd, origin, channels, meta="", body=b""):
    headers = [("Grip-Set-Meta", meta)] if meta else []
    return sse.Stream.opened(httpd.port(), origin.hold(channels, body, headers=headers))


def test_skip_users(httpd, origin, pub, channel):
    grip = f"{channel}; filter=skip-users"
    with held(httpd, origin, grip, 'user="1"') as one, \
            held(httpd, origin, grip, 'user="2"') as two, \
            held(httpd, origin, grip) as nobody, held(httpd, origin, channel, 'user="1"') as free:
        pub.text(channel, "a")
        pub.text(channel, "b", meta={"skip_users": "1"})
        pub.text(channel, "c", meta={"skip_users": " 3 , 2,"})
        pub.text(channel, "d", meta={"skip_users": "11,12"})
        pub.text(channel, "e", meta={"skip_users": "1,2"})
        pub.text(channel, "f", meta={"skip_users": ""})
        one.wait_body(b"acdf")
        two.wait_body(b"abdf")
        nobody.wait_body(b"abcdef")
        free.wait_body(b"abcdef")


def test_skip_self(httpd, origin, pub, channel):
    grip = f"{channel}; filter=skip-self"
    with held(httpd, origin, grip, "user=alice") as alice, held(httpd, origin, grip) as nobody:
        pub.text(channel, "a", meta={"sender": "alice"})
        pub.text(channel, "b", meta={"sender": "bob"})
        pub.text(channel, "c")
        alice.wait_body(b"bc")
        nobody.wait_body(b"abc")


def test_require_sub(httpd, origin, pub):
    a, b, user = unique(), unique(), unique("user")
    with held(httpd, origin, [a, f"{user}; filter=require-sub"]) as s:
        pub.text(user, "1", meta={"require_sub": a})
        pub.text(user, "2", meta={"require_sub": b})
        pub.text(user, "3")
        pub.text(user, "4", meta={"require_sub": ""})
        pub.text(a, "5", meta={"require_sub": b})
        s.wait_body(b"1345")


def test_filters_gate_close(httpd, origin, pub):
    """A close that a filter drops closes nothing: django-eventstream's kick."""
    a, b, user = unique(), unique(), unique("user")
    with held(httpd, origin, [a, f"{user}; filter=require-sub"]) as s:
        pub.send(close_item(user, meta={"require_sub": b}))
        pub.text(a, "still here")
        s.wait_body(b"still here")
        pub.send(close_item(user, meta={"require_sub": a}))
        s.wait_clean_end()


def test_several_filters(httpd, origin, pub, channel):
    """All filters of a channel must let a message through."""
    grip = f"{channel}; filter=skip-self; filter=skip-users"
    with held(httpd, origin, grip, 'user="u"') as s:
        pub.text(channel, "1", meta={"sender": "u"})
        pub.text(channel, "2", meta={"skip_users": "u"})
        pub.text(channel, "3", meta={"sender": "x", "skip_users": "y"})
        s.wait_body(b"3")


def test_unknown_filter_is_ignored(httpd, origin, pub, channel):
    with held(httpd, origin, f"{channel}; filter=no-such; filter=skip-self", "user=u") as s:
        pub.text(channel, "1", meta={"sender": "u"})
        pub.text(channel, "2")
        s.wait_body(b"2")


def test_meta_grammar(httpd, origin, pub, channel):
    """Quotes, escapes and commas in Grip-Set-Meta, as django-grip writes them."""
    meta = 'user="a, \\"b\\" %(x): c", other=plain'
    with held(httpd, origin, f"{channel}; filter=var-subst", meta) as s:
        pub.text(channel, "<%(user)s|%(other)s|100%%>")
        s.wait_body(b'<a, "b" %(x): c|plain|100%>')


# ---- build-id -----------------------------------------------------------------------------------

def test_build_id(httpd, origin, pub, channel):
    """The id is the message's own; %% becomes %, also in the initial body."""
    with held(httpd, origin, f"{channel}; prev-id=1; filter=build-id",
              f'id_format="test:%({channel})s"', b'data: "50%% done"\n\n') as s:
        s.wait_body(b'data: "50% done"\n\n')
        pub.text(channel, 'event: upd\nid: %I\ndata: "100%%"\n\n', id="2", prev_id="1",
                 filters=["build-id"])
        pub.text(channel, "id: %I\n\n", id="3", prev_id="2", filters=["build-id"])
        s.wait_body(b'data: "50% done"\n\nevent: upd\nid: test:2\ndata: "100%"\n\nid: test:3\n\n')


def test_build_id_of_several_channels(httpd, origin, pub):
    """The id names each channel's newest id: where to go on from on all of them."""
    a, b = unique(), unique()
    with held(httpd, origin, [f"{a}; prev-id=5; filter=build-id",
                              f"{b}; prev-id=0; filter=build-id"],
              f'id_format="a:%({a})s,b:%({b})s"') as s:
        for n, (c, id, prev) in enumerate([(b, "1", "0"), (a, "6", "5"), (a, "7", "6"),
                                           (b, "2", "1")]):
            pub.text(c, "%I;", id=id, prev_id=prev, filters=["build-id"])
        s.wait_body(b"a:5,b:1;a:6,b:1;a:7,b:1;a:7,b:2;")


def test_build_id_percent_in_format(httpd, origin, pub, channel):
    """A percent-encoded name stays one: %% in the format is a percent sign."""
    with held(httpd, origin, f"{channel}; prev-id=0; filter=build-id",
              f'id_format="a%%20b:%({channel})s"') as s:
        pub.text(channel, "id: %I\n", id="1", prev_id="0", filters=["build-id"])
        s.wait_body(b"id: a%20b:1\n")


def test_build_id_lenient(httpd, origin, pub, channel):
    """A percent sign that nobody escaped is copied as it stands."""
    with held(httpd, origin, f"{channel}; prev-id=0; filter=build-id",
              f'id_format="%({channel})s"', b"20%25 %d %(x 100%") as s:
        s.wait_body(b"20%25 %d %(x 100%")
        pub.text(channel, "|%z %I 7%", id="1", prev_id="0")
        s.wait_body(b"20%25 %d %(x 100%|%z 1 7%")


def test_build_id_text(httpd, origin, pub, channel):
    with held(httpd, origin, f"{channel}; filter=build-id", f'id_format="x%({channel})s"',
              b"id: %(t:1)I\n") as s:
        s.wait_body(b"id: t:1\n")
        pub.text(channel, "id: %(t:2)I", id="9")
        s.wait_body(b"id: t:1\nid: t:2")


def test_build_id_hex(httpd, origin, pub, channel):
    with held(httpd, origin, f"{channel}; filter=build-id",
              f'id_format="n:%({channel})s", id_encoding=hex') as s:
        pub.text(channel, "%I", id="2")
        s.wait_body(b"n:2".hex().encode())


def test_without_filter_verbatim(httpd, origin, pub, channel):
    with held(httpd, origin, channel, 'id_format="x"', b"50%% %I") as s:
        pub.text(channel, "|100%% %I", id="1")
        s.wait_body(b"50%% %I|100%% %I")


def test_content_filters_assertion(httpd, origin, pub, channel):
    """Content that was written for other filters than the subscription's is not delivered."""
    with held(httpd, origin, f"{channel}; filter=build-id; filter=skip-users",
              f'id_format="%({channel})s"') as built, held(httpd, origin, channel) as plain:
        pub.text(channel, "for-plain;", id="1", filters=[])
        pub.text(channel, "for-built;", id="2", filters=["build-id"])
        pub.text(channel, "for-all;", id="3")
        built.wait_body(b"for-built;for-all;")
        plain.wait_body(b"for-plain;for-all;")


def test_slow_path_keeps_order(httpd, origin, pub, channel):
    """Messages that pass filters and those that do not interleave without loss, on streams with
    and without filters."""
    with held(httpd, origin, f"{channel}; filter=build-id; filter=skip-users",
              f'id_format="%({channel})s", user="me"') as filtered, \
            held(httpd, origin, channel) as shared:
        pub.send(*[item(channel, "%I;", id=str(n),
                        meta={"skip_users": "me"} if n % 3 == 0 else None) for n in range(500)])
        filtered.wait_body("".join(f"{n};" for n in range(500) if n % 3).encode())
        shared.wait_body(b"%I;" * 500)
