# SPDX-License-Identifier: Apache-2.0
"""Scenarios that more than one test plays."""

import re
import threading
import time

import sse
from harness import HTTP2, TLS, TRANSPORT, wait_until
from publish import Publisher, body, item

# The socket of a plain stream is the hub's alone. TLS and HTTP/2 need the child too, and may end
# with it.
HUB_ALONE = TRANSPORT == "plain"


class Counter:
    """A publisher that posts numbers to a channel and remembers which were answered with 200, and
    when. One connection each; with `broken`, which says that a connection may end without an
    answer, one for as long as it lasts: an ungraceful restart of the event MPM takes sockets away
    from workers, and now and then crashes when one of them is just closing its own."""

    def __init__(self, httpd, channel, *, broken=False):
        self.port = httpd.port("publish")
        self.channel = channel
        self.broken = broken
        self.answered = []  # (number, begin of its post, its answer's arrival)
        self.wrong = []
        self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        self._stop.set()
        self._thread.join(60)

    def _post(self, kept, n):
        client = kept or sse.Client(self.port)
        answer = None
        try:
            answer = client.post("/publish/", body([item(self.channel, f"{n};")]))
        finally:
            if not self.broken or answer is None:
                client.close()
        return answer, client if self.broken and not client.eof else None

    def _run(self):
        n, kept = 0, None
        while not self._stop.is_set():
            n += 1
            began = time.monotonic()
            try:
                answer, kept = self._post(kept, n)
            except (OSError, sse.FramingError) as e:
                kept = None
                self.refused += 1
                if not self.broken:
                    self.wrong.append(repr(e))
                continue
            if answer.code == 200:
                self.answered.append((n, began, time.monotonic()))
            elif answer.code == 503:
                self.refused += 1
            else:
                self.wrong.append(repr(answer))


def reopen(port, path):
    """Opens a stream as a browser does: again until it is held."""
    def opened():
        try:
            s = sse.Stream(port, path)
        except OSError:
            return None
        try:
            if s.read_head().code == 200:
                return s
            assert s.head.code == 503, s.head.raw
        except (OSError, sse.FramingError):
            pass
        s.close()
        return None

    return wait_until(opened, "a held stream")


def ended_or_alive(httpd, pool, channel, before, politely=True):
    """After children or the hub were replaced: each stream of the pool, whose bodies were `before`,
    either was ended properly or still gets messages. Returns those that live."""
    with Publisher(httpd.port("publish")) as pub:
        pub.text(channel, "after")
    pool.wait_all(lambda s: s.eof or s.body == before + b"after", "its end or the next message")
    for s in pool.streams:
        assert may_end(s, politely) or not s.eof, f"cut: {s.body!r}"
        assert events_only(s.body) in (before, before + b"after"), s.body
    return [s for s in pool.streams if not s.eof]


def may_end(stream, politely=True):
    """Is this how a stream that went down with its child or hub may end? Its end was told, or over
    TLS the connection ended by close_notify, which no attacker can forge. But when children end
    without grace, `politely` is false, their HTTP/2 connections just break off: httpd takes their
    sockets away before anybody can say anything."""
    if HTTP2 and not politely:
        return stream.eof
    return stream.ended or (TLS and stream.eof and not stream.reset)


def events_only(body):
    """Without the `retry:` with which a stream may say goodbye."""
    return re.sub(rb"retry: \d+\n\n$", b"", body)


def no_answered_publish_is_lost(httpd, origin, channel, disturb, *, rounds, broken, clean):
    """While something disturbs the server a few times, a publisher posts numbers and a client
    reconnects as browsers do. A number whose post began after the client's head had come, and which
    was answered with 200 before the disturbance, must have arrived on that connection; other
    answers are 503. `clean`: the streams are ended, not cut, so nothing at all may be missing."""
    clean = clean and not (HTTP2 and broken)  # see may_end
    path = origin.hold(channel, b"")
    with Counter(httpd, channel, broken=broken) as counter:
        for n in range(rounds + 1):
            s = reopen(httpd.port(), path)
            held = time.monotonic()
            s.wait(lambda s=s: s.body.count(b";") >= 50, "fifty numbers")
            if n == rounds:
                counter.stop()
                s.wait_for(b"%d;" % counter.answered[-1][0])
                disturbed = time.monotonic()
            else:
                disturbed = time.monotonic()
                disturb()
                s.pump(30, lambda s=s: s.eof or s.marks[-1][0] > disturbed + 0.5)
            assert events_only(s.body).endswith(b";")
            came = [int(x) for x in s.body.split(b";")[:-1]]
            assert came == sorted(set(came)), "out of order or doubled"
            must = [n for n, began, ended in counter.answered if held < began and ended < disturbed]
            missing = sorted(set(must) - set(came))
            if missing and not clean and n < rounds:
                # what the hub had and the socket had not yet, when it was killed
                missing = [n for n in missing if n < came[-1]]
            assert not missing, f"answered with 200 and lost: {missing[:10]} of {len(must)}"
            if s.eof and clean:
                assert may_end(s), "cut"
            s.close()
    assert not counter.wrong, counter.wrong[:5]
    return counter
