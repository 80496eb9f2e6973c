# SPDX-License-Identifier: Apache-2.0
"""How a stream ends: closed by a publisher, left by its client; and who holds it meanwhile."""

import os
import pwd
import time

import psutil
import pytest

import sse
from harness import VERSIONS, only_plain, run_user, unique
from publish import Publisher, close_item, item, publish

SOON = 20.0  # seconds: long before the first keep-alive (55 s) could show that a client has gone


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


@pytest.fixture(autouse=True)
def nobody_left(httpd):
    httpd.wait_status(streams=0, reserved=0)
    yield
    httpd.wait_status(streams=0, reserved=0, channels=0)


def held(httpd, origin, channel, **args):
    return sse.Stream.opened(httpd.port(), origin.hold(channel, b"open."), **args)


def gone(httpd, before, reason):
    """Waits until the hub has no stream, and checks the reason."""
    began = time.monotonic()
    after = httpd.wait_status(streams=0)
    took = time.monotonic() - began
    ended = {k: after["ended"][k] - before["ended"][k] for k in after["ended"]}
    want = dict.fromkeys(ended, 0)
    want[reason] = 1
    assert ended == want
    assert took < SOON, took


@pytest.mark.parametrize("version", VERSIONS)
def test_close_action(httpd, origin, channel, version):
    before = httpd.status()
    with held(httpd, origin, channel, version=version) as s:
        publish(httpd.port("publish"), item(channel, "last"), close_item(channel))
        s.wait_clean_end()
        assert s.body == b"open.last"
        assert s.head.version in VERSIONS and s.chunked == (version == "1.1")
        gone(httpd, before, "action")


def test_close_reaches_every_stream_of_the_channel(httpd, origin, channel):
    other = unique()
    with sse.open_many(httpd.port(), [origin.hold([channel, other], b"")] * 20) as pool, \
            held(httpd, origin, other) as stays:
        publish(httpd.port("publish"), close_item(channel))
        pool.wait_all(lambda s: s.eof and s.ended, "the proper end")
        httpd.wait_status(streams=1)
        publish(httpd.port("publish"), item(other, "here"))
        stays.wait_body(b"open.here")


def test_client_closes(httpd, origin, channel):
    s = held(httpd, origin, channel)
    before = httpd.wait_status(streams=1)
    s.close()
    gone(httpd, before, "client")


def test_client_resets(httpd, origin, channel):
    s = held(httpd, origin, channel)
    before = httpd.wait_status(streams=1)
    s.client.reset()
    gone(httpd, before, "client")


def test_client_half_closes(httpd, origin, channel):
    """A client that will send no more is treated as gone, as Pushpin does."""
    with held(httpd, origin, channel) as s:
        before = httpd.wait_status(streams=1)
        s.client.half_close()
        s.wait_end()
        assert s.body == b"open."
        gone(httpd, before, "client")


def test_client_leaves_while_messages_come(httpd, origin, channel):
    """Leaving in the middle of a burst takes nothing from the others."""
    streams = [held(httpd, origin, channel) for _ in range(10)]
    with Publisher(httpd.port("publish")) as pub:
        for n in range(200):
            pub.text(channel, f"{n};")
            if n % 20 == 10:
                s = streams.pop()
                (s.client.reset if n % 40 == 10 else s.close)()
                if len(streams) == 1:
                    break
    want = b"open." + "".join(f"{i};" for i in range(n + 1)).encode()
    for s in streams:
        s.wait_body(want)
        s.close()


def test_status_forgets_channels(httpd, origin):
    names = [unique() for _ in range(10)]
    with sse.Stream.opened(httpd.port(), origin.hold(names, b"")):
        httpd.wait_status(streams=1, channels=10)
    httpd.wait_status(streams=0, channels=0)
    with Publisher(httpd.port("publish")) as pub:
        for name in names:
            pub.text(name, "to nobody")
    httpd.wait_status(channels=0)


def test_hub_is_one_unprivileged_process(httpd, origin, channel):
    with held(httpd, origin, channel):
        pid = httpd.status()["hub"]["pid"]
        assert httpd.find_hub() == pid
        hub = psutil.Process(pid)
        assert hub.ppid() == httpd.process.pid
        assert "eventstream" in " ".join(hub.cmdline()) + " " + hub.name()
        user = pwd.getpwnam(run_user()).pw_uid if os.geteuid() == 0 else os.geteuid()
        assert set(hub.uids()) == {user}
        if os.geteuid() == 0:
            status = open(f"/proc/{pid}/status").read()
            assert "CapEff:\t0000000000000000" in status
        others = [c for c in psutil.Process(httpd.process.pid).children()
                  if c.pid != pid and "eventstream" in " ".join(c.cmdline())
                  and "httpd.conf" not in " ".join(c.cmdline())]
        assert not others, others
        listening = [c for c in hub.net_connections() if c.status == psutil.CONN_LISTEN]
        assert not listening, "the hub keeps httpd's listeners open"


@only_plain("TLS and HTTP/2 stay with the child")
def test_httpd_lets_go_of_the_socket(httpd, origin, channel):
    """The connection belongs to the hub alone."""
    with held(httpd, origin, channel) as s:
        httpd.wait_status(streams=1)
        ours = s.client.sock.getsockname()[1]

        def holders():
            return [p.pid for p in httpd.processes()
                    for c in p.net_connections() if c.raddr and c.raddr.port == ours]

        from harness import wait_until
        wait_until(lambda: holders() == [httpd.find_hub()], lambda: f"one holder, {holders()}")


def test_access_log_and_error_log_say_what_happened(httpd, origin, channel):
    """At debug level each stream's end is told with its path and reason."""
    since = httpd.log_mark()
    path = origin.hold(channel, b"")
    s = sse.Stream.opened(httpd.port(), path)
    httpd.wait_status(streams=1)
    s.close()
    httpd.wait_log(rf"stream to \S+ for {path} ended: client", since)
