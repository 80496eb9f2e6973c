# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost, doubled or out of order at the native endpoint, while the hub is killed, Apache
is reloaded, and clients drop and come back. All is judged by content, never by id.

Each event says: channel, publisher, number, attempt, serial. A publisher gives every number until
it was acknowledged; each time it sends one is another attempt with the next serial. So what two
attempts brought is the publisher's repetition, and a serial that comes twice is the server's.

What all is measured by is the *reference*: what clients get who ask at the end for everything that
is stored. In it each acknowledged serial must be, once, and serials of one publisher in the order
in which they were sent. Each client must have seen the same in the same order. It may have seen
more: what was delivered and not yet stored when the hub was killed; that was never acknowledged.
"""

import itertools
import json
import os
import random
import signal
import threading
import time
from urllib.parse import quote

import pytest

import sse
from follow import Company, Follower, follow
from harness import unique, wait_until
from publish import Push, body, item

EVENTS, CHANNELS, CLIENTS = 20000, 50, 200
ON_A_STREAM = 20  # channels

DIED = r"\[eventstream:\w+\].*\bhub\b"


@pytest.fixture
def httpd(make_httpd):
    server = make_httpd()
    server.add("EventStreamHistory run/history size=64M\nEventStreamThreads 2")
    server.vhost("main", """
        <Location /events/>
            SetHandler eventstream
            EventStreamPublish On
            EventStreamRetry 100ms
        </Location>
    """)
    server.publisher()
    server.endpoint = server.pull()
    server.always_allowed += [DIED]
    yield server.start()
    server.close()


class Sender:
    """A publisher in a thread of its own; what it sent, and what was acknowledged."""

    def __init__(self, name, httpd, channels, numbers, done):
        self.name, self.httpd, self.channels = name, httpd, channels
        self.numbers, self.done = numbers, done
        self.serial = 0
        self.sent = {}       # serial: (channel, number, attempt)
        self.acked = {}      # number: serial
        self.attempts = {}
        self.unanswered = 0  # requests that brought no 200
        self.client = None
        self.chance = random.Random(name)
        self.wrong = None
        self.all = [self]
        self.thread = threading.Thread(target=self._guarded, daemon=True)

    def _guarded(self):
        try:
            self.run()
        except BaseException as e:
            self.wrong = e
        finally:
            self.close()

    def close(self):
        if self.client:
            self.client.close()
        self.client = None

    @property
    def part(self):
        return len(self.acked) / self.numbers

    def keep_pace(self):
        """So that all of them have something under way whenever the server is disturbed."""
        while self.part > min(s.part for s in self.all if not s.wrong) + 0.05:
            time.sleep(0.005)

    def made(self, number, channel):
        self.serial += 1
        attempt = self.attempts[number] = self.attempts.get(number, 0) + 1
        self.sent[self.serial] = (channel, number, attempt)
        return f"{channel} {self.name} {number} {attempt} {self.serial}"

    def ack(self, serials):
        for s in serials:
            self.acked[self.sent[s][1]] = s
            next(self.done)

    def post(self, port, target, data, headers=()):
        """Is it acknowledged? 503 and the end of the connection say that nobody knows."""
        try:
            self.client = self.client or sse.Client(port, timeout=60)
            answer = self.client.post(target, data, headers=headers)
        except (OSError, sse.FramingError):
            answer = None
        if answer is None or (answer.get("Connection") or "").lower() == "close":
            self.close()
        if answer is not None and answer.code == 200:
            return answer
        assert answer is None or answer.code == 503, answer
        self.unanswered += 1
        return None


class Poster(Sender):
    """One event a request, to the subscribers' own URL, and no next one before it is acknowledged.
    `each`: requests on one connection."""

    def __init__(self, *args, each=10**9):
        super().__init__(*args)
        self.each = each

    def run(self):
        requests = 0
        for number in range(self.numbers):
            channel = self.chance.choice(self.channels)
            while number not in self.acked:
                text = self.made(number, channel)
                requests += 1
                self.keep_pace()
                if requests % self.each == 0:
                    self.close()
                if self.post(self.httpd.port("main"), f"/events/{quote(channel)}", text.encode(),
                             [("Content-Type", "text/plain")]):
                    self.ack([self.serial])


class Batcher(Sender):
    """GRIP items, up to forty in a request; a batch that was not acknowledged comes again whole."""

    def run(self):
        todo = [(n, self.chance.choice(self.channels)) for n in range(self.numbers)]
        while todo:
            self.keep_pace()
            batch = todo[:self.chance.randint(1, 40)]
            first = self.serial + 1
            items = [item(c, f"data: {self.made(n, c)}\n\n") for n, c in batch]
            if self.post(self.httpd.port("publish"), "/publish/", body(items)):
                self.ack(range(first, self.serial + 1))
                todo = todo[len(batch):]


class Pusher(Sender):
    """ZeroMQ, which answers nothing. So after each window of events it looks at what came, then
    publishes a mark by HTTP, and reads the window again up to the mark, which was acknowledged:
    what is before it is stored. What is not there, and all after it, it sends again."""

    WINDOW = 300

    def run(self):
        todo = [(n, self.chance.choice(self.channels)) for n in range(self.numbers)]
        self.groups = [self.channels[i:i + ON_A_STREAM]
                       for i in range(0, len(self.channels), ON_A_STREAM)]
        with Push(self.httpd.endpoint) as push:
            since = self.mark("begin")
            while todo:
                self.keep_pace()
                first, window = self.serial + 1, todo[:self.WINDOW]
                for n, c in window:
                    push.bare(item(c, f"data: {self.made(n, c)}\n\n"))
                self.look(since, first, len(window))
                mark = self.mark(f"{first}")
                stored = self.stored(since, first, mark)
                good = list(itertools.takewhile(lambda s: s in stored,
                                                range(first, self.serial + 1)))
                self.ack(good)
                todo = todo[len(good):]
                since = mark

    def mark(self, text):
        """An event that is stored, on the first channel of each group: its text and ids."""
        while True:
            text = self.mark_text = f"mark {self.name} {text} {self.unanswered}"
            ids = []
            for g in self.groups:
                answer = self.post(self.httpd.port("main"), f"/events/{quote(g[0])}",
                                   text.encode(), [("Content-Type", "text/plain")])
                if answer is None:
                    break
                ids.append(json.loads(answer.body)["id"])
            else:
                return text, ids

    def mine(self, follower, first):
        words = [d.split() for d in follower.seen]
        return {int(w[4]) for w in words if w[1] == self.name and w[0] != "mark"
                and int(w[4]) >= first}

    def followers(self, since):
        out = [Follower(self.httpd.port("main"), g, first=id)
               for g, id in zip(self.groups, since[1])]
        for f in out:
            f.restless = False
        return out

    def look(self, since, first, n):
        """Until all is there, or for a while nothing new has come: then some was lost."""
        followers = self.followers(since)
        with Company().add(*followers) as company:
            seen, changed = 0, time.monotonic()
            while seen < n and time.monotonic() < changed + 2:
                company.pump()
                now = sum(len(self.mine(f, first)) for f in followers)
                if now > seen:
                    seen, changed = now, time.monotonic()

    def stored(self, since, first, mark):
        followers = self.followers(since)
        with Company().add(*followers) as company:
            company.wait(lambda f: mark[0] in f.seen, "the mark")
        return set().union(*(self.mine(f, first) for f in followers))


def kill_hub(httpd):
    old = httpd.status()["hub"]["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: httpd.hub_pid() not in (None, old), "the next hub", interval=0.05)


def by_channel(seen):
    out = {}
    for text in seen:
        if not text.startswith("mark "):
            out.setdefault(text.split()[0], []).append(text)
    return out


def read_reference(httpd, channels):
    """All that is stored, by channel."""
    port, reference = httpd.port("main"), {}
    for i in range(0, len(channels), ON_A_STREAM):
        names = channels[i:i + ON_A_STREAM]
        f = follow(port, names, "earliest",
                   lambda f, names=names: len(by_channel(f.seen)) == len(names)
                   and all(v[-1].endswith(" end") for v in by_channel(f.seen).values()))
        assert not f.resets
        reference.update(by_channel(f.seen))
    return reference


def check_publishers(reference, senders):
    """Each acknowledged event is stored, once; in order; and nothing that nobody sent."""
    stored = {s.name: set() for s in senders}
    for channel, texts in reference.items():
        newest = {}
        for text in texts[:-1]:
            name, number, attempt, serial = text.split()[1], *map(int, text.split()[2:])
            sender = next(s for s in senders if s.name == name)
            assert sender.sent[serial] == (channel, number, attempt), text
            assert serial > newest.get(name, 0), f"{text!r} came after {newest[name]}"
            newest[name] = serial
            stored[name].add(serial)
    for s in senders:
        assert sorted(s.acked) == list(range(s.numbers))
        lost = set(s.acked.values()) - stored[s.name]
        assert not lost, f"{s.name}: {len(lost)} acknowledged and lost: {sorted(lost)[:10]}"


def check_client(f, reference, senders, acked):
    """The same as the reference, in each channel; more only of what was not acknowledged."""
    assert not f.resets, f"{f.target}: {f.resets}"
    more = 0
    for channel, texts in by_channel(f.seen).items():
        want = reference[channel]
        known = set(want)
        extra = [t for t in texts if t not in known]
        got = [t for t in texts if t in known]
        begin = want.index(got[0]) if f.live else 0
        assert got == want[begin:], f"{f.target} {channel}: {parting(got, want[begin:])}"
        for t in extra:
            name, serial = t.split()[1], int(t.split()[4])
            assert (name, serial) not in acked, f"{t!r} is acknowledged and not stored"
        for s in senders:
            serials = [int(t.split()[4]) for t in texts[:-1] if t.split()[1] == s.name]
            assert serials == sorted(set(serials)), f"{f.target} {channel}: {s.name} out of order"
        more += len(extra)
    assert set(by_channel(f.seen)) == set(f.channels)
    return more


def has_ended(f):
    return len(f.seen) >= len(f.channels) and \
        all(t.endswith(" end") for t in f.seen[-len(f.channels):])


def parting(got, want):
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    return f"{len(got)} of {len(want)}, at {at} {got[at:at + 3]} instead of {want[at:at + 3]}"


def clients(httpd, channels, n, seed, first=None):
    chance = random.Random(seed)
    out = []
    for i in range(n):
        on = chance.sample(channels, chance.choice([1, 1, 2, 3, 5, 12]))
        f = Follower(httpd.port("main"), on, first=first, bytes=chance.choice([6000, 30000, 90000]),
                     seed=seed + i)
        f.live = False  # it sees everything
        out.append(f)
    return out


def test_twenty_thousand_events(httpd):
    channels = [unique("c") for _ in range(CHANNELS)]
    done = itertools.count()
    of = (httpd, channels)
    senders = [Poster("kept", *of, EVENTS // 8, done), Poster("new", *of, EVENTS // 8, done, each=10),
               Batcher("batch", *of, EVENTS * 3 // 8, done),
               Pusher("zeromq", *of, EVENTS * 3 // 8, done)]
    for s in senders:
        s.all = senders
    # each at so many acknowledged events, read off a counter that only counts
    plan = [(EVENTS * part // 100, what) for part, what in [
        (8, httpd.graceful), (22, lambda: kill_hub(httpd)), (35, lambda: later("earliest")),
        (45, httpd.graceful), (58, lambda: kill_hub(httpd)), (65, lambda: later(None)),
        (75, httpd.graceful)]]
    failed = []

    with Company() as company:
        def later(first):
            """More clients, while all goes on; those without a position get what is new."""
            more = clients(httpd, channels, CLIENTS // 8, 1000 if first else 2000, first)
            for f in more:
                f.live = first is None
                if f.live:
                    f.restless = False  # it has no id to come back with yet
            joining.append(more)

        def disturb():
            try:
                for at, what in plan:
                    wait_until(lambda at=at: sum(len(s.acked) for s in senders) >= at
                               or any(s.wrong for s in senders), f"{at} events", 120, 0.02)
                    what()
            except BaseException as e:
                failed.append(e)

        joining = []
        company.add(*clients(httpd, channels, CLIENTS * 3 // 4, 1))
        company.wait(lambda f: f.held, "their stream")
        threads = [s.thread for s in senders] + [threading.Thread(target=disturb, daemon=True)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads) and not any(s.wrong for s in senders):
            company.pump()
            if joining:
                company.add(*joining.pop())
            for f in company.all:
                if f.live and f.seen:
                    f.restless = True
        assert not failed, failed
        assert not [s.wrong for s in senders if s.wrong], [(s.name, s.wrong) for s in senders]
        for f in company.all:
            f.restless = False
        company.wait(lambda f: f.held, "their stream")
        with sse.Client(httpd.port("main")) as c:
            for name in channels:
                assert c.post(f"/events/{quote(name)}", f"{name} end".encode()).code == 200
        company.wait(has_ended, "the end of each channel")

        reference = read_reference(httpd, channels)
        check_publishers(reference, senders)
        acked = {(s.name, serial) for s in senders for serial in s.acked.values()}
        more = sum(check_client(f, reference, senders, acked) for f in company.all)

        everyone = company.all
        said = dict(seen=sum(len(f.seen) for f in everyone),
                    drops=sum(f.drops for f in everyone),
                    in_event=sum(f.in_event for f in everyone),
                    ends=sum(f.ends for f in everyone), refused=sum(f.refused for f in everyone),
                    more=more, unanswered=[s.unanswered for s in senders],
                    repeated=[s.serial - s.numbers for s in senders])
        # it was no idle walk
        assert len(everyone) == CLIENTS and sum(len(s.acked) for s in senders) == EVENTS
        assert said["drops"] > 3 * CLIENTS and said["in_event"] > CLIENTS, said
        assert said["ends"] >= CLIENTS, said  # two hubs were killed under them


def test_commits_in_flight(httpd):
    """The hub is killed while publishers wait for their commits, three times. What was acknowledged
    is there, once, in order; what the hub had read and not answered is not published again."""
    channels = [unique("f") for _ in range(8)]
    done = itertools.count()
    senders = [Poster(f"p{i}", httpd, [c], 10**9, done) for i, c in enumerate(channels)]
    for s in senders:
        s.stop = False
        s.run = lambda s=s: until_stopped(s)
        s.thread.start()
    try:
        for _ in range(3):
            before = [len(s.acked) for s in senders]
            wait_until(lambda: all(s.wrong or len(s.acked) >= n + 40
                                   for s, n in zip(senders, before)), "forty events of each")
            assert not [s.wrong for s in senders if s.wrong], [s.wrong for s in senders]
            kill_hub(httpd)
    finally:
        for s in senders:
            s.stop = True
        for s in senders:
            s.thread.join(60)
    assert not [s.wrong for s in senders if s.wrong], [s.wrong for s in senders]
    with sse.Client(httpd.port("main")) as c:
        for name in channels:
            assert c.post(f"/events/{quote(name)}", f"{name} end".encode()).code == 200
    reference = read_reference(httpd, channels)
    for s in senders:
        s.numbers = len(s.acked)
    check_publishers(reference, senders)
    assert sum(s.unanswered for s in senders) >= 3, [s.unanswered for s in senders]


def test_a_publish_that_the_hub_never_read(httpd, channel):
    """It goes to the next hub, and its publisher notices nothing."""
    old = httpd.status()["hub"]["pid"]
    os.kill(old, signal.SIGSTOP)
    with sse.Client(httpd.port("main"), timeout=60) as c:
        c.request(f"/events/{channel}", method="POST", body=b"waits",
                  headers=[("Content-Type", "text/plain")])
        # in the hub's socket: whatever else is asked waits as well
        with sse.Client(httpd.port("control"), timeout=0.5) as control:
            control.request("/status?json")
            with pytest.raises(TimeoutError):
                control.read_head()
        os.kill(old, signal.SIGKILL)
        answer = c.read_answer("POST")
        assert answer.code == 200, answer
        assert c.post(f"/events/{channel}", f"{channel} end".encode()).code == 200
    f = follow(httpd.port("main"), [channel], "earliest", lambda f: f"{channel} end" in f.seen)
    assert f.seen == ["waits", f"{channel} end"]


def until_stopped(s):
    """Numbers until it is told to stop; the one that was begun is brought to its end."""
    for number in itertools.count():
        if s.stop:
            return
        while number not in s.acked:
            text = s.made(number, s.channels[0])
            if s.post(s.httpd.port("main"), f"/events/{quote(s.channels[0])}", text.encode(),
                      [("Content-Type", "text/plain")]):
                s.ack([s.serial])
