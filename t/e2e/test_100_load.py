# SPDX-License-Identifier: Apache-2.0
"""Order and completeness under load: every stream gets every message of its channels once, and the
messages of one publisher in the order in which it sent them."""

import threading
import time

import pytest

import sse
from harness import unique
from publish import Publisher, Push, item

CHANNELS, STREAMS, PUBLISHERS, MESSAGES = 5, 50, 4, 500


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.add("EventStreamThreads 2")
    server.grip_proxy(origin.port)
    server.publisher()
    server.endpoint = server.pull()
    return server.start()


def check(body, per_publisher):
    """The body's messages against what each publisher sent, in its order."""
    events = body.decode().split("\n\n")
    assert events[-1] == "", "the last message is cut"
    seen = {}
    for e in events[:-1]:
        who, number = e.removeprefix("data: ").split("-")
        seen.setdefault(int(who), []).append(int(number))
    assert seen == per_publisher


def test_four_publishers(httpd, origin):
    """Two publish over HTTP, one of them in batches, two over ZeroMQ; fifty streams on one of five
    channels each, and ten more on all of them; half of the streams have filters."""
    names = [unique() for _ in range(CHANNELS)]
    pool = sse.Pool()
    for n in range(STREAMS + 10):
        on = [names[n % CHANNELS]] if n < STREAMS else names
        grip = [f"{name}; filter=skip-users" for name in on] if n % 2 else on
        s = pool.add(sse.Stream(httpd.port(), origin.hold(
            grip, b"", headers=[("Grip-Set-Meta", "user=u")])))
        s.on = on
    pool.wait_heads()
    assert {s.head.code for s in pool.streams} == {200}
    failed = []

    def channel_of(who, n):
        return names[(n + who) % CHANNELS]

    def made(who, n):
        return item(channel_of(who, n), f"data: {who}-{n}\n\n")

    def run(who):
        try:
            if who == 0:
                with Publisher(httpd.port("publish")) as p:
                    for n in range(MESSAGES):
                        p.send(made(who, n))
            elif who == 1:
                with Publisher(httpd.port("publish")) as p:
                    for n in range(0, MESSAGES, 10):
                        p.send(*[made(who, m) for m in range(n, n + 10)])
            else:
                with Push(httpd.endpoint) as p:
                    send = p.bare if who == 2 else p.json
                    for n in range(MESSAGES):
                        send(made(who, n))
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(who,)) for who in range(PUBLISHERS)]
    with pool:
        for t in threads:
            t.start()
        for s in pool.streams:
            s.want = {who: [n for n in range(MESSAGES) if channel_of(who, n) in s.on]
                      for who in range(PUBLISHERS)}
            s.count = sum(map(len, s.want.values()))
        pool.wait_all(lambda s: s.body.count(b"\n\n") >= s.count, "its messages", timeout=60)
        for t in threads:
            t.join(30)
        assert not failed, failed
        pool.pump(0.2)  # a double would come now
        for s in pool.streams:
            check(s.body, s.want)
    status = httpd.wait_status(streams=0)
    assert status["ended"]["lag"] == 0


def test_subscribers_come_and_go(httpd, origin):
    """While one publisher counts, streams come and go; each sees a run of numbers without a gap
    that starts no later than the first post after its head."""
    channel = unique()
    path = origin.hold(channel, b"")
    stop, posted, failed = threading.Event(), [0], []

    def publisher():
        try:
            with Publisher(httpd.port("publish")) as p:
                while not stop.is_set():
                    p.text(channel, f"{posted[0]};")
                    posted[0] += 1
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=publisher)
    thread.start()
    try:
        for _ in range(60):
            with sse.Stream.opened(httpd.port(), path) as s:
                first = posted[0]  # this one's post may be on its way; the next has not begun
                s.wait(lambda: s.body.count(b";") >= 10, "ten numbers")
                got = [int(x) for x in s.body.split(b";")[:-1]]
                assert got == list(range(got[0], got[0] + len(got))), got
                assert got[0] <= first + 1, f"numbers from {got[0]}, held since {first}"
    finally:
        stop.set()
        thread.join(30)
    assert not failed, failed


def test_every_stream_on_twenty_channels(httpd, origin):
    """A message on each of twenty channels: all of them, in the order of publishing."""
    names = [unique() for _ in range(20)]
    with sse.open_many(httpd.port(), [origin.hold(names, b"")] * 30) as pool, \
            Publisher(httpd.port("publish")) as p:
        for round in range(20):
            p.send(*[item(name, f"{round}.{n};") for n, name in enumerate(names)])
        want = "".join(f"{r}.{n};" for r in range(20) for n in range(20)).encode()
        pool.wait_all(lambda s: len(s.body) >= len(want), "400 messages")
        for s in pool.streams:
            assert s.body == want, sse.difference(s.body, want)


def test_latency(httpd, origin):
    """A message is not kept back to be sent with the next one."""
    channel = unique()
    late = []
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")) as s, \
            Publisher(httpd.port("publish")) as p:
        for n in range(60):
            began = time.monotonic()
            p.text(channel, f"{n};")
            s.wait_for(f"{n};".encode())
            late.append(s.time_of(f"{n};".encode()) - began)
    assert min(late) < 0.03, late  # whatever kept one back on purpose would keep back each
