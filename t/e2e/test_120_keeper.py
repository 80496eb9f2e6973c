# SPDX-License-Identifier: Apache-2.0
"""Adopted TLS streams outlive their child. A child that retires leaves them to a keeper: none ends,
none misses or sees a message twice; the scoreboard is free; keepers go when they should.

Children retire by MaxConnectionsPerChild. Messages come by ZeroMQ, past the children: a retiring
child drops a connection now and then, with or without the module."""

import os
import re
import signal
import ssl
import subprocess
import threading

import psutil
import pytest

import sse
from harness import MPM, TLS_CA, WAIT, unique, wait_until
from publish import Push, close_item, item
from test_112_tlsdetails import VERSIONS, SClient

CONF = {"prefork": "StartServers 2\nServerLimit 6\nMinSpareServers 2\nMaxSpareServers 4\n"
                   "MaxRequestWorkers 6\nMaxConnectionsPerChild 8\n"}
THREADS = ("StartServers 2\nServerLimit 6\nThreadsPerChild 4\nThreadLimit 4\nMinSpareThreads 8\n"
           "MaxSpareThreads 16\nMaxRequestWorkers 24\nMaxConnectionsPerChild 30\n")
BIG = 300000


def make(make_httpd, origin, name=None):
    server = make_httpd(name)
    server.mpm_conf = CONF.get(MPM, THREADS)
    server.tls_proxy(origin.port)
    server.vhost("mpm", "<Location />\nSetHandler server-status\n</Location>\n")
    server.add("ExtendedStatus Off\nEventStreamMaxLag 67108864")
    server.endpoint = server.pull()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    return make(make_httpd, origin)


@pytest.fixture
def own(make_httpd, origin):
    """A server that the test may stop."""
    server = make(make_httpd, origin, unique("keeper"))
    yield server
    server.close()


@pytest.fixture
def push(httpd):
    with Push(httpd.endpoint) as p:
        yield p


@pytest.fixture(autouse=True)
def nobody_left(request):
    """Keepers leave with their streams."""
    yield
    if "httpd" in request.fixturenames:
        server = request.getfixturevalue("httpd")
        wait_until(lambda: not keepers(server), lambda: f"keepers {keepers(server)} to leave")
        wait_status(server, streams=0, reserved=0, channels=0)


@pytest.fixture(scope="module")
def wrap():
    return sse.tls(TLS_CA)


def wait_status(server, **want):
    """As the harness's, but the child that is asked may retire."""
    last = {}

    def same():
        try:
            last.update(server.status())
        except (OSError, sse.FramingError):
            return False
        return all(last.get(k) == v for k, v in want.items())

    wait_until(same, lambda: f"status {want}, last {last}")


def keepers(server):
    """Pids of the keepers, oldest first, as ps shows them."""
    found = []
    for p in server.processes():
        try:
            if p.cmdline() and p.cmdline()[0].startswith("httpd: eventstream keeper"):
                assert p.name() == "es-keeper"
                found.append((p.create_time(), p.pid))
        except psutil.NoSuchProcess:
            continue
    return [pid for _, pid in sorted(found)]


def children(server):
    """Pids of httpd's own children, without asking them."""
    hub = server.find_hub()
    return {p.pid for p in psutil.Process(server.process.pid).children() if p.pid != hub}


def opened(server, path, **args):
    """A held stream; a connection that a retiring child dropped is made again."""
    for _ in range(50):
        try:
            return sse.Stream.opened(server.port("tls"), path, **args)
        except (OSError, sse.FramingError):
            continue
    raise AssertionError("50 connections in a row were dropped")


def retire(server, old=None, keeper=True):
    """Every child of now, or of `old`, makes room for another, and leaves a keeper. `keeper` None:
    or not."""
    old = old or children(server)

    def gone():
        server.answers()
        return not old & children(server)

    wait_until(gone, lambda: f"{old & children(server)} to retire", timeout=90, interval=0.001)
    assert keeper is None or bool(keepers(server)) == keeper


def pool_of(server, path, count, wrap):
    pool = sse.Pool()
    for _ in range(count):
        pool.add(opened(server, path, wrap=wrap))
    return pool


def scoreboard(server):
    with sse.Client(server.port("mpm")) as c:
        said = c.get("/?auto").body.decode()
    stopping = re.search(r"^Stopping: (\d+)", said, re.M)
    return re.search(r"^Scoreboard: (\S+)", said, re.M)[1], int(stopping[1]) if stopping else 0


def no_slot_is_taken(server):
    """One worker at work, the one that says so, and nobody who is on his way out."""
    last = []

    def free():
        try:
            last[:] = scoreboard(server)
        except (OSError, sse.FramingError):
            return False
        slots, stopping = last
        return len(re.sub(r"[_.]", "", slots)) == 1 and stopping == 0

    wait_until(free, lambda: f"a free scoreboard, last {last}")


def test_streams_go_on(httpd, origin, channel, push, wrap):
    """Three generations of children, each with streams; in the end all of them are in keepers."""
    path = origin.hold(channel, b"open.")
    want = b"open."
    with sse.Pool() as pool:
        for n in range(3):
            for _ in range(10):
                s = pool.add(opened(httpd, path, wrap=wrap))
                s.later = want[len(b"open."):]  # what was published before
            wait_status(httpd, streams=10 * (n + 1))
            retire(httpd)
            for k in range(20):
                push.bare(item(channel, f"{n}.{k};"))
                want += f"{n}.{k};".encode()
            pool.wait_all(lambda s: s.body == b"open." + want[5 + len(s.later):] or s.eof,
                          "each message")
        assert not [s for s in pool.streams if s.eof]
        assert len(keepers(httpd)) >= 3
        no_slot_is_taken(httpd)
        push.bare(close_item(channel))
        pool.wait_all(lambda s: s.eof, "the end")
        for s in pool.streams:
            assert s.ended and not s.reset
            assert s.body == b"open." + want[5 + len(s.later):]


def test_published_while_they_retire(httpd, origin, channel, wrap):
    """Messages without a pause: no fork loses one or sends it twice."""
    path = origin.hold(channel, b"")
    done, sent = threading.Event(), []

    def run():
        with Push(httpd.endpoint) as p:
            while not done.is_set():
                sent.append(f"<{len(sent)}>" + "x" * (len(sent) % 3000))
                p.bare(item(channel, sent[-1]))
                done.wait(0.001)
            p.bare(close_item(channel))

    with pool_of(httpd, path, 12, wrap) as pool:
        wait_status(httpd, streams=12)
        old, publisher = children(httpd), threading.Thread(target=run)
        publisher.start()
        try:
            while old & children(httpd):
                httpd.answers()
                pool.pump(0.005)
        finally:
            done.set()
            publisher.join()
        pool.wait_all(lambda s: s.eof, "the end")
        whole = "".join(sent).encode()
        for s in pool.streams:
            assert s.body == whole, sse.difference(s.body, whole)
            assert s.ended and not s.reset


@pytest.mark.parametrize("version", VERSIONS)
def test_stalled_readers(httpd, origin, channel, push, version):
    """Readers that have stopped at different places, records half written: in the keeper each goes
    on where it was, while another one, who reads, gets everything at once."""
    path = origin.hold(channel, b"")
    wrap = sse.tls(TLS_CA, VERSIONS[version])
    whole = b""
    before = httpd.status()["bytes"]
    reader = opened(httpd, path, wrap=wrap)
    stalled = [opened(httpd, path, wrap=wrap, rcvbuf=4096) for _ in range(4)]
    try:
        wait_status(httpd, streams=5)
        for n in range(24):
            text = f"<{n}>" * (BIG // 4)
            whole += text.encode()
            push.bare(item(channel, text))
            if n < 12:
                reader.wait(lambda: len(reader.body) >= len(whole), "each message")
                want = len(stalled[n % 4].body) + 1000 * n  # some bytes more for one of them
                stalled[n % 4].wait(lambda: len(stalled[n % 4].body) >= want, "some bytes")
            if n == 12:
                written = httpd.status()["bytes"] - before
                assert written < 5 * len(whole), "the kernel's buffers took everything"
                retire(httpd)
        reader.wait_body(whole)
        assert all(len(s.body) < len(whole) and not s.eof for s in stalled)
        push.bare(close_item(channel))
        for s in [*stalled, reader]:
            s.wait_clean_end()
            assert s.body == whole, sse.difference(s.body, whole)
    finally:
        for s in [*stalled, reader]:
            s.close()


def test_keeper_has_nothing_else(httpd, origin, channel, push, wrap):
    """Its streams' descriptors, /dev/null, epoll, signals: no port, no log, no link to the hub."""
    path = origin.hold(channel, b"open.")
    with pool_of(httpd, path, 6, wrap) as pool:
        wait_status(httpd, streams=6)
        retire(httpd)
        total = 0
        for pid in keepers(httpd):
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            sockets = [link for link in links if link.startswith("socket:")]
            others = sorted(link for link in links if not link.startswith("socket:"))
            assert others == ["/dev/null"] * 3 + ["anon_inode:[eventpoll]", "anon_inode:[signalfd]"]
            p = psutil.Process(pid)
            assert not [c for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert p.num_threads() == 1
            assert p.uids() == psutil.Process(httpd.find_hub()).uids()
            total += len(sockets)
        assert total == 2 * 6
        push.bare(close_item(channel))
        pool.wait_all(lambda s: s.eof, "the end")


def test_clients_leave(httpd, origin, channel, push, wrap):
    """Each way to leave a keeper is noticed; the others stay; the last one takes it along."""
    path = origin.hold(channel, b"open.")
    streams = [opened(httpd, path, wrap=wrap) for _ in range(10)]
    wait_status(httpd, streams=10)
    retire(httpd)
    for n, s in enumerate(streams):
        push.bare(item(channel, f"{n}."))
        for other in streams[n:]:
            other.wait_body(b"open." + "".join(f"{k}." for k in range(n + 1)).encode())
        if n % 4 == 0:
            s.client.reset()
        elif n % 4 == 1:
            s.client.sock.unwrap().close()
        elif n % 4 == 2:  # bytes that are no TLS: a fatal alert, and a session that is not good
            os.write(s.client.sock.fileno(), b"GET / HTTP/1.1\r\n\r\n" * 10)
        s.close()
        wait_status(httpd, streams=9 - n)


def test_new_keys(httpd, origin, channel, push):
    """KeyUpdate in a keeper, and bytes of the client, which nobody wants."""
    old = children(httpd)
    with SClient(httpd.port("tls"), "-tls1_3") as c:
        c.opened(origin.hold(channel, b"open."))
        wait_status(httpd, streams=1)
        retire(httpd, old)
        for n, command in enumerate("kKK"):
            c.send(command.encode() + b"\n")
            c.wait(b"KEYUPDATE", n + 1)
            push.bare(item(channel, f"message {n}."))
            c.wait(f"message {n}.".encode())
        c.send(b"bytes under the new key\n")
        push.bare(close_item(channel))
        c.wait(b"\r\n0\r\n\r\n")
        assert c.process.wait(WAIT) == 0


def test_resumption(httpd, origin, channel, push):
    """A session whose stream ended in a keeper is as good as before."""
    context = ssl.create_default_context(cafile=TLS_CA)
    context.minimum_version = context.maximum_version = VERSIONS["1.2"]
    with opened(httpd, origin.hold(channel, b"open."),
                wrap=sse.tls(TLS_CA, context=context)) as s:
        wait_status(httpd, streams=1)
        retire(httpd)
        push.bare(close_item(channel))
        s.wait_clean_end()
        session = s.client.sock.session
    with opened(httpd, origin.answer(b"plain"),
                wrap=sse.tls(TLS_CA, context=context, session=session)) as s:
        assert s.client.sock.session_reused


def test_signals(httpd, origin, channel, push, wrap):
    """What httpd sends to its whole process group means nothing to a keeper, but SIGTERM: it ends
    its streams with close_notify, and itself. The streams of another keeper stay."""
    path = origin.hold(channel, b"open.")
    with pool_of(httpd, path, 4, wrap) as first, pool_of(httpd, path, 0, wrap) as second:
        wait_status(httpd, streams=4)
        retire(httpd)
        old = keepers(httpd)
        for pid in old:
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE):
                os.kill(pid, number)
        for _ in range(4):
            second.add(opened(httpd, path, wrap=wrap)).wait_body(b"open.")
        wait_status(httpd, streams=8)
        retire(httpd)
        push.bare(item(channel, "all."))
        for pool in (first, second):
            pool.wait_all(lambda s: s.body == b"open.all.", "the message")
        for pid in old:
            os.kill(pid, signal.SIGTERM)
        first.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in first.streams if s.reset]
        wait_until(lambda: not set(old) & set(keepers(httpd)), "the keepers to end")
        wait_status(httpd, streams=4)
        push.bare(item(channel, "second."))
        second.wait_all(lambda s: s.body == b"open.all.second.", "the message")
        assert not [s for s in second.streams if s.eof]
        push.bare(close_item(channel))
        second.wait_all(lambda s: s.eof, "the end")


def test_hub_is_killed(httpd, origin, channel, wrap):
    """Streams in a keeper end with close_notify, and the keeper with them."""
    path = origin.hold(channel, b"open.")
    with pool_of(httpd, path, 6, wrap) as pool:
        wait_status(httpd, streams=6)
        retire(httpd)
        httpd.allow(r"ES0\d\d\d")
        hub = httpd.find_hub()
        os.kill(hub, signal.SIGKILL)
        pool.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in pool.streams if s.reset]
        wait_until(lambda: httpd.find_hub() not in (None, hub), "the next hub")
    wait_until(lambda: not keepers(httpd), "the keepers to end")
    wait_status(httpd, streams=0)
    httpd.allow(r"ES0\d\d\d")


def forbid_fork(pid):
    """Sets a child's limit of processes to 0: as its own user, who may do that without being root."""
    p = psutil.Process(pid)
    user = {}
    if os.geteuid() == 0:
        user = {"user": p.uids().real, "group": p.gids().real, "extra_groups": []}
    subprocess.run(["prlimit", f"--pid={pid}", "--nproc=0:0"], check=True, **user)


def retired_without_keeper(httpd, path, wrap):
    """Streams whose children may not fork; False: one retired before it was forbidden."""
    with pool_of(httpd, path, 6, wrap) as pool:
        wait_status(httpd, streams=6)
        since = httpd.log_mark()
        try:
            for pid in children(httpd):
                forbid_fork(pid)
        except (psutil.NoSuchProcess, subprocess.CalledProcessError):
            return False
        retire(httpd, keeper=None)
        if keepers(httpd):
            httpd.allow(r"ES0082")  # of the others
            return False
        pool.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in pool.streams if s.reset]
        httpd.wait_log(r"ES0082", since)
    return True


def test_no_process_to_be_had(httpd, origin, channel, push, wrap):
    """The fork fails: the streams end with close_notify, the log says why, the server goes on."""
    path = origin.hold(channel, b"open.")
    wait_until(lambda: retired_without_keeper(httpd, path, wrap), "children that cannot fork")
    httpd.allow(r"ES0082")
    with opened(httpd, path, wrap=wrap) as s:
        push.bare(item(channel, "one."))
        push.bare(close_item(channel))
        s.wait_clean_end()
        assert s.body == b"open.one."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGWINCH], ids=["stop", "graceful-stop"])
def test_stop(own, origin, channel, wrap, number):
    """Keepers of before, and a reader who has stopped: all ends with the server. The harness looks
    for processes that are left."""
    path = origin.hold(channel, b"open.")
    with pool_of(own, path, 6, wrap) as pool:
        wait_status(own, streams=6)
        retire(own)
        for _ in range(4):
            pool.add(opened(own, path, wrap=wrap))
        wait_status(own, streams=10)
        stalled = opened(own, path, wrap=wrap, rcvbuf=4096)
        wait_status(own, streams=11)
        with Push(own.endpoint) as push:
            for _ in range(3):
                push.bare(item(channel, "x" * 1000000))
            pool.wait_all(lambda s: len(s.body) >= 3000005, "the message")
        own.allow(r"AH00045")  # a child that mod_http2 or a slow machine keeps for a moment
        own.stop(number)
        pool.wait_all(lambda s: s.eof, "the end")
        assert not [s for s in pool.streams if s.reset]
        # prefork signals its whole process group: keepers end before the hub has ended each stream
        assert MPM == "prefork" or not [s for s in pool.streams if not s.ended]
        stalled.close()


@pytest.mark.parametrize("how", ["graceful", "restart"])
def test_reload(own, origin, channel, wrap, how):
    """The old children are gone and their slots free; their streams go on, but those of prefork when
    the restart is not graceful: they end as they should."""
    path = origin.hold(channel, b"open.")
    with pool_of(own, path, 10, wrap) as pool:
        wait_status(own, streams=10)
        old = children(own)
        getattr(own, how)()
        wait_until(lambda: not old & children(own), "the old children to end")
        no_slot_is_taken(own)
        with Push(own.endpoint) as push:
            push.bare(item(channel, "after"))
            pool.wait_all(lambda s: s.eof or s.body == b"open.after", "its end or the message")
        assert not [s for s in pool.streams if s.reset]
        if how == "graceful" or MPM != "prefork":
            assert not [s for s in pool.streams if s.eof]
    wait_until(lambda: not keepers(own), lambda: f"keepers {keepers(own)} to leave")
