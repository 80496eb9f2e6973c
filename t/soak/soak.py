#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The soak: everything at once, for a long time, and nothing may be lost.

    make soak                  20 minutes, event MPM
    make soak SECONDS=7200 MPM=worker
    make soak KILL=1           also kills the hub every two minutes; what is lost then is counted
                               and does not fail the run: a killed hub loses what it had in hand

One httpd; clients of every kind that hold streams (plain, TLS 1.2 and 1.3, HTTP/2 with TLS and
without), some that read slowly, some that come and go all the time; publishers with ids, by HTTP on
one channel and by ZeroMQ on two others; a reload every 30 s, each second one with the module
built as another version.

How a loss is seen: the publisher counts, and puts each number into the application's store before
it publishes it. A stream must show every number once, in order. HTTP/2 streams end at each reload,
with a `retry:`; their client waits as it says and connects again with Last-Event-ID, and the
application, once the stream is reserved (the client has its head), answers with what the store has
after that. What comes twice then, from the store and from the hub, is told by its id, as
EventSource's users do; anywhere else a number that comes again is an error.

Prints a line every 10 s and a table at the end, writes both to soak.json in the build directory.
Exit status: 0 only if nothing was lost, doubled or out of order.
"""

import contextlib
import json
import os
import random
import ssl
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

import psutil  # noqa: E402

import h2  # noqa: E402
import harness  # noqa: E402
import sse  # noqa: E402
from crowd import Connection2, Crowd, Http1, Ticker, connect_many, event  # noqa: E402
from harness import MPM, TLS_CA, wait_until  # noqa: E402
from origin import Origin  # noqa: E402

SECONDS = int(os.environ.get("SOAK_SECONDS") or 1200)
KILL = os.environ.get("SOAK_KILL") == "1"
PREFORK = MPM == "prefork"
TICK, RELOAD, DEATH = 10.0, min(30.0, SECONDS / 4), 120.0
RATE = 20           # publishes a second on each of the two channels that all kinds are on
FAST = 200          # and by ZeroMQ on a third one, which has few streams: a reload must find some
FAST_STREAMS = 10   # of these messages under way
SIZES = {"plain": 200, "tls12": 60 if PREFORK else 100, "tls13": 60 if PREFORK else 100,
         "slow": 20, "h2": 0 if PREFORK else 12, "h2c": 0 if PREFORK else 12}
EACH = 3            # HTTP/2 streams of a connection
CHURN = 8           # clients that come and go at a time
V = ssl.TLSVersion
WRAPS = {"plain": None, "slow": None, "tls12": sse.tls(TLS_CA, V.TLSv1_2),
         "tls13": sse.tls(TLS_CA, V.TLSv1_3), "h2": h2.tls(TLS_CA), "h2c": None}
PORTS = {"plain": "main", "slow": "main", "tls12": "tls", "tls13": "tls", "h2": "tls", "h2c": "h2c"}
THREADS = ("StartServers 2\nServerLimit 16\nThreadsPerChild 50\nThreadLimit 50\n"
           "MinSpareThreads 50\nMaxSpareThreads 100\nMaxRequestWorkers 200\n")
CONF = {"prefork": "StartServers 6\nServerLimit 20\nMinSpareServers 4\nMaxSpareServers 20\n"
                   "MaxRequestWorkers 20\n"}


class Store:
    """The application: it holds streams, and answers a reconnect with what was missed."""

    def __init__(self, origin, channel):
        self.channel = channel
        self.newest = 0
        self.tickets = {}  # by key
        self.path = origin.add(self._answer)

    def before(self, n):
        """The publisher tells what it is about to publish."""
        self.newest = n

    def again(self, last):
        """A path for a client that has seen `last`, and the ticket on which it tells that it has
        the head."""
        key = f"{random.getrandbits(60):x}"
        self.tickets[key] = Ticket()
        return f"{self.path}?last={last}&key={key}", self.tickets[key]

    def _answer(self, request, write):
        query = dict(p.split("=") for p in request.target.partition("?")[2].split("&") if p)
        head = ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\n"
                f"Grip-Channel: {self.channel}\r\nGrip-Keep-Alive: :\\n\\n; format=cstring; "
                "timeout=20\r\n")
        if "key" not in query:
            write(f"{head}Content-Length: 3\r\n\r\n:\n\n".encode())
            return
        write(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n".encode())
        ticket = self.tickets.pop(query["key"])
        if ticket.head.wait(60):
            ticket.newest = self.newest
            for n in range(int(query["last"]) + 1, ticket.newest + 1):
                text = event(n).encode()
                write(b"%x\r\n%s\r\n" % (len(text), text))
        write(b"0\r\n\r\n")


class Ticket:
    """One reconnect."""

    def __init__(self):
        self.head = threading.Event()  # the client has it, so the stream is reserved
        self.newest = 0                # what the application's answer went up to


class Tally:
    """What finished readers leave behind."""

    def __init__(self):
        self.deliveries = self.reconnects = self.churned = self.again = 0
        self.lost, self.doubled, self.strange, self.cut = [], [], [], []


class Soak:
    def __init__(self):
        self.origin = Origin()
        self.httpd = harness.Httpd("soak", modules=[] if PREFORK else ["http2"])
        self.tally = Tally()
        self.lock = threading.Lock()
        self.samples, self.problems = [], []
        self.reloads = self.deaths = 0
        self.stop = threading.Event()
        self.modules = [harness.env_path("ES_MODULE"), harness.env_path("ES_MODULE_NEXT")]

    # ---- server ----------------------------------------------------------------------------

    def configure(self):
        s = self.httpd
        s.mpm_conf = CONF.get(MPM, THREADS)
        if KILL:
            s.always_allowed += [r"ES0\d\d\d", r"exit signal Killed"]
        s.add("LogLevel eventstream:info\nEventStreamDrain 5s")
        s.grip_proxy(self.origin.port)
        s.tls_proxy(self.origin.port, server="" if PREFORK else "Protocols h2 http/1.1")
        if not PREFORK:
            s.add("H2MaxWorkers 300")
            s.grip_proxy(self.origin.port, "h2c", server="Protocols h2c http/1.1")
        s.publisher()
        s.endpoint = s.pull()
        s.start()

    def reload(self):
        self.reloads += 1
        self.httpd.module = self.modules[self.reloads // 2 % 2]
        self.httpd.write_config()
        self.httpd.graceful()

    # ---- clients ---------------------------------------------------------------------------

    def url(self, kind):
        return self.httpd.port(PORTS[kind])

    def join(self, crowd, store, kind, count):
        if kind in ("h2", "h2c"):
            for c in connect_many(count, lambda: self.http2(store, kind, [None] * EACH)):
                crowd.add(c)
            return
        for c in connect_many(count, lambda: Http1(self.url(kind), store.path, WRAPS[kind],
                                                   kind=kind).wait_head()):
            c.store = store
            crowd.add(c)

    def http2(self, store, kind, last):
        """A connection; its streams go on behind the numbers in `last`."""
        c = Connection2(self.url(kind), WRAPS[kind])
        c.store, c.kind = store, kind
        for n in last:
            path, ticket = (store.path, None) if n is None else store.again(n)
            r = c.open(path)
            r.last, r.ticket = n, ticket
        c.wait_heads()
        for r in c.streams:
            if r.ticket:
                r.ticket.head.set()
        if not all(r.code == 200 for r in c.streams):
            c.close()
            raise OSError("not held")
        return c

    def finish(self, reader):
        """Adds what a reader saw to the tally; it is not read any more."""
        with self.lock:
            t = self.tally
            t.deliveries += reader.seen
            t.lost += [(reader.kind, n) for n in reader.lost()]
            t.strange += [(reader.kind, e) for e in reader.strange]
            ticket = getattr(reader, "ticket", None)
            again = {n for n in reader.doubled if ticket and n <= ticket.newest}
            t.again += len(again)
            more = list(reader.doubled)
            for n in again:
                more.remove(n)  # once
            t.doubled += [(reader.kind, n) for n in more]

    def reconnect(self, crowd, old):
        """Its streams have ended: as a browser, after what their `retry:` said."""
        with contextlib.suppress(ValueError):
            crowd.forget(old)
        for r in old.streams:
            if not KILL and not (r.ended and r.retry_is_last):
                self.tally.cut.append((r.kind, r.ended, r.reset, r.retry))
        old.close()
        last = [r.last for r in old.streams]
        self.stop.wait(min((r.retry or 1000 for r in old.streams)) / 1000)
        while not self.stop.is_set():
            try:
                new = self.http2(old.store, old.kind, last)
            except (OSError, AssertionError, sse.FramingError):
                self.stop.wait(0.2)
                continue
            crowd.add(new)
            self.tally.reconnects += 1
            break
        for r in old.streams:
            self.finish(r)

    def watch_http2(self, crowd):
        waiting = []
        while not self.stop.wait(0.1):
            for c in [c for c in list(crowd.connections) if isinstance(c, Connection2)]:
                if all(r.eof for r in c.streams) and c not in waiting:
                    waiting.append(c)
                    threading.Thread(target=self.reconnect, args=(crowd, c), daemon=True).start()

    def slow(self, crowd):
        """They stop reading for some seconds, again and again."""
        slow = [c for c in crowd.connections if c.readers()[0].kind == "slow"]
        while not self.stop.is_set():
            some = random.sample(slow, len(slow) // 2)
            for c in some:
                crowd.pause(c)
            self.stop.wait(random.uniform(1, 5))
            for c in some:
                crowd.resume(c)
            self.stop.wait(1)

    def churn(self, stores):
        """Comes, sees some numbers, and leaves in one way or another."""
        kinds = [k for k, n in SIZES.items() if n and k != "slow"]
        while not self.stop.is_set():
            kind, store = random.choice(kinds), random.choice(stores)
            with contextlib.suppress(OSError, AssertionError, sse.FramingError):
                if kind in ("h2", "h2c"):
                    c = self.http2(store, kind, [None])
                else:
                    c = Http1(self.url(kind), store.path, WRAPS[kind]).wait_head()
                c.sock.settimeout(0.2)
                until = time.monotonic() + random.uniform(0, 2)
                while time.monotonic() < until and not c.eof:
                    c.receive()
                for r in c.readers():
                    self.finish(r)
                c.close(random.choice(["close", "rst", "notify"] if kind.startswith("tls")
                                      else ["close", "rst"]))
            self.tally.churned += 1

    # ---- the run ---------------------------------------------------------------------------

    def guard(self, work, *args):
        def run():
            try:
                work(*args)
            except Exception as e:
                self.problems.append(f"{work.__name__}: {e!r}")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def sample(self, crowd, tickers, began):
        s = {"seconds": round(time.monotonic() - began), "reloads": self.reloads}
        with contextlib.suppress(psutil.Error, OSError, AssertionError, TypeError):
            hub = psutil.Process(self.httpd.hub_pid())
            s["hub_uss_kb"] = hub.memory_full_info().uss // 1024
            s["hub_descriptors"] = hub.num_fds()
            s["streams"] = self.httpd.status()["streams"]
            s["keepers"] = len(self.httpd.keepers())
            s["tails"] = len(self.httpd.titled("eventstream tail"))
            s["processes"] = len(self.httpd.processes())
        readers = crowd.readers
        s["deliveries"] = self.tally.deliveries + sum(r.seen for r in readers)
        s["lost"] = len(self.tally.lost) + sum(len(r.lost()) for r in readers)
        s["reconnects"], s["come_and_gone"] = self.tally.reconnects, self.tally.churned
        s["published"] = sum(t.sent for t in tickers)
        self.samples.append(s)
        print(" ".join(f"{k}={v}" for k, v in s.items()), flush=True)

    def run(self):
        self.configure()
        stores = [Store(self.origin, harness.unique()) for _ in range(3)]
        *both, fast = stores
        tickers = [Ticker(self.httpd, s.channel, rate, by=by, broken=KILL)
                   for s, by, rate in zip(stores, ("http", "zmq", "zmq"), (RATE, RATE, FAST))]
        for t, s in zip(tickers, stores):
            t.before = s.before
        with Crowd() as crowd:
            for kind, count in SIZES.items():
                for store in both:
                    self.join(crowd, store, kind, count // 2)
            self.join(crowd, fast, "plain", FAST_STREAMS)
            with contextlib.ExitStack() as stack:
                for t in tickers:
                    stack.enter_context(t)
                workers = [self.guard(self.watch_http2, crowd), self.guard(self.slow, crowd)]
                workers += [self.guard(self.churn, both) for _ in range(CHURN)]
                self.life(crowd, tickers)
                # every stream is there again before the last number
                self.wait(lambda: all(not r.eof for r in crowd.readers), "HTTP/2 to be back")
                self.stop.set()
                for w in workers:
                    w.join(60)
                last = {s: t.stop() for s, t in zip(stores, tickers)}
            for c in crowd.connections:
                self.wait(lambda c=c: all((r.last or 0) >= last[c.store] for r in c.readers()),
                          f"number {last[c.store]} on {c.readers()[0].kind}")
            for r in crowd.readers:
                if r.eof and r.kind not in ("h2", "h2c") and not KILL:
                    self.problems.append(f"a {r.kind} stream ended: {r.reset}")
                self.finish(r)
            maybe = {n for t in tickers for n in t.maybe}
            self.tally.lost = [x for x in self.tally.lost if x[1] not in maybe]
        return self.report()

    def wait(self, condition, what):
        try:
            wait_until(condition, what)
        except AssertionError as e:
            self.problems.append(str(e))

    def life(self, crowd, tickers):
        began = time.monotonic()
        ticked, reloaded, killed = began, began, began
        while time.monotonic() - began < SECONDS:
            time.sleep(0.2)
            now = time.monotonic()
            if now - ticked >= TICK:
                ticked = now
                self.sample(crowd, tickers, began)
            if now - reloaded >= RELOAD:
                reloaded = now
                self.reload()
            if KILL and now - killed >= DEATH:
                killed = now
                self.deaths += 1
                os.kill(self.httpd.hub_pid(), 9)
            if crowd.failed or any(t.wrong for t in tickers):
                self.problems.append(f"{crowd.failed!r} {[t.wrong[:3] for t in tickers]}")
                return
        self.sample(crowd, tickers, began)

    # ---- the end ---------------------------------------------------------------------------

    def report(self):
        t = self.tally
        try:
            self.httpd.wait_status(streams=0, reserved=0)
            wait_until(lambda: not self.httpd.keepers(), "no keeper after the last stream")
            self.httpd.close()
        except AssertionError as e:
            self.problems.append(str(e))
        numbers = {
            "MPM": MPM, "seconds": SECONDS,
            "streams held": sum(n * (EACH if k.startswith("h2") else 1)
                                for k, n in SIZES.items()) + FAST_STREAMS,
            "clients that came and went": t.churned, "reloads": self.reloads,
            "hubs killed": self.deaths,
            "published": self.samples[-1]["published"] if self.samples else 0,
            "deliveries": t.deliveries,
            "HTTP/2 connections that came back": t.reconnects,
            "seen again by id at a reconnect": t.again,
            "lost": len(t.lost), "doubled or out of order": len(t.doubled),
            "not understood": len(t.strange),
            "HTTP/2 streams without a retry at the end": len(t.cut),
        }
        for what in ("hub_uss_kb", "hub_descriptors", "keepers", "tails"):
            have = [s[what] for s in self.samples if what in s]
            if have:
                numbers[what] = f"{have[0]} at first, {max(have)} at most, {have[-1]} at last"
        print("\n| soak | |\n|---|---|")
        for name, value in numbers.items():
            print(f"| {name} | {value} |")
        for problem in self.problems[:20]:
            print(f"problem: {problem}")
        for what in ("lost", "doubled", "strange", "cut"):
            if getattr(t, what):
                print(f"{what}: {getattr(t, what)[:10]}")
        out = Path(harness.env_path("ES_BUILDDIR")) / "soak.json"
        out.write_text(json.dumps({"numbers": numbers, "samples": self.samples,
                                   "problems": self.problems}, indent=1))
        bad = t.doubled or t.strange or t.cut or self.problems or (t.lost and not KILL)
        print("FAILED" if bad else "nothing was lost, doubled or out of order")
        return 1 if bad else 0


def main():
    soak = Soak()
    try:
        return soak.run()
    finally:
        soak.stop.set()
        soak.httpd.kill()
        soak.origin.close()


if __name__ == "__main__":
    sys.exit(main())
