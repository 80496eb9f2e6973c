# SPDX-License-Identifier: Apache-2.0
"""Scenarios that more than one test plays."""

import threading
import time

import sse
from harness import wait_until
from publish import body, item


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


def no_answered_publish_is_lost(httpd, origin, channel, disturb, *, rounds, broken, clean):
    """While something disturbs the server a few times, a publisher posts numbers and a client
    reconnects as browsers do. A number whose post began after the client's head had come, and which
    was answered with 200 before the disturbance, must have arrived on that connection; other
    answers are 503. `clean`: the streams are ended, not cut, so nothing at all may be missing."""
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
            assert s.body.endswith(b";")
            came = [int(x) for x in s.body.split(b";")[:-1]]
            assert came == sorted(set(came)), "out of order or doubled"
            must = [n for n, began, ended in counter.answered if held < began and ended < disturbed]
            missing = sorted(set(must) - set(came))
            if missing and not clean and n < rounds:
                # what the hub had and the socket had not yet, when it was killed
                missing = [n for n in missing if n < came[-1]]
            assert not missing, f"answered with 200 and lost: {missing[:10]} of {len(must)}"
            if s.eof and clean:
                assert s.ended, "cut without the terminating chunk"
            s.close()
    assert not counter.wrong, counter.wrong[:5]
    return counter
