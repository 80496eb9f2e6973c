#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a held HTTP/2 stream costs, next to a TLS and a plain one, and what happens at the limits.

    make http2-cost                  both MPMs, about two minutes
    ES_MPM=worker ... http2_cost.py  one, with the environment of `make check`

Every row has a server of its own with one child, so what the child needs more than before is what
the streams need. Memory is private memory (USS) and proportional (Pss) as /proc/PID/smaps_rollup
has it; the kernel's (sockets, thread structures) is in none of the numbers. All rows of one MPM are
of one run: compare within it. Prints Markdown; docs/operations.md has what came out.
"""

import os
import re
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

import psutil  # noqa: E402

import h2  # noqa: E402
import harness  # noqa: E402
import sse  # noqa: E402
from harness import MPM, TLS_CA, wait_until  # noqa: E402
from origin import Origin  # noqa: E402

STREAMS = 300
PATIENCE = 3.0  # an answer that takes longer waits for something that held streams have
IDLE = 5.0      # seconds over which idle streams' processor time is counted
H2 = h2.tls(TLS_CA)
TLS = sse.tls(TLS_CA)


class Server:
    """An httpd with one child (or more), and what that child needs."""

    def __init__(self, origin, threads=25, servers=1, conf=""):
        self.httpd = harness.Httpd("cost", modules=["http2"])
        n = threads * servers
        self.httpd.mpm_conf = (
            f"StartServers {servers}\nServerLimit {servers}\nThreadLimit {threads}\n"
            f"ThreadsPerChild {threads}\nMinSpareThreads 1\nMaxSpareThreads {n}\n"
            f"MaxRequestWorkers {n}\n{conf}\n")
        self.httpd.tls_proxy(origin.port, "tls", server="Protocols h2 http/1.1")
        self.httpd.grip_proxy(origin.port, "plain")
        self.httpd.vhost("mpm", "<Location />\nSetHandler server-status\n</Location>\n")
        self.open = []

    def __enter__(self):
        self.httpd.start()
        return self

    def __exit__(self, *exc):
        for c in self.open:
            c.close()
        try:
            if exc[0] is None:
                self.httpd.close()
        finally:
            self.httpd.kill()

    def connect(self):
        c = h2.Connection(self.httpd.port("tls"), wrap=H2, timeout=PATIENCE)
        self.open.append(c.client)
        return c

    def processes(self):
        return [psutil.Process(pid) for pid in self.httpd.children()]

    def busy(self):
        """Workers that mod_status counts as busy, but for the one that says so."""
        with sse.Client(self.httpd.port("mpm")) as c:
            said = c.get("/?auto").body.decode()
        return int(re.search(r"^BusyWorkers: (\d+)", said, re.M)[1]) - 1


def memory(pid):
    """Private and proportional memory, in kB, and the size of the address space."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    of = {n: int(v) for n, v in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
    virtual = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    return of["Private_Clean"] + of["Private_Dirty"], of["Pss"], virtual


def state(server):
    """Of the children: threads, descriptors, USS, Pss, virtual; of the hub: USS; busy workers."""
    children = server.processes()
    each = [memory(p.pid) for p in children]
    return {"threads": sum(p.num_threads() for p in children),
            "files": sum(p.num_fds() for p in children),
            "uss": sum(m[0] for m in each), "pss": sum(m[1] for m in each),
            "virtual": sum(m[2] for m in each),
            "hub": memory(server.httpd.hub_pid())[0],
            "busy": min(server.busy() for _ in range(5))}  # without requests that just end


def held(stream, seconds=PATIENCE):
    """Is the stream held in time?"""
    try:
        stream.connection.wait(lambda: stream.head is not None or stream.reset is not None,
                               "its head", seconds)
    except AssertionError:
        return False
    return stream.held


def raise_limit(connection, plain, times):
    """Ordinary requests in a row. mod_http2 works at six requests of a connection at once, and at
    twice as many after a request whose answer was sent before its worker had finished: by chance,
    and not more often than every 0.1 s."""
    for _ in range(times):
        connection.get(plain).wait_end()
        time.sleep(0.11)


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def table(title, *head):
    print(f"\n**{title}** ({MPM})\n", flush=True)
    row(*head)
    row(*["---"] * len(head))


# ---- one stream --------------------------------------------------------------------------------

def open_streams(server, kind, path, plain, count):
    """Opens `count` streams and returns how many connections they took; kind is plain, tls, or the
    number of HTTP/2 streams that share one."""
    if kind in ("plain", "tls"):
        wrap = TLS if kind == "tls" else None
        for _ in range(count):
            s = sse.Stream.opened(server.httpd.port(kind), path, wrap=wrap)
            server.open.append(s.client)
        return count
    for n in range(0, count, kind):
        for _ in range(20):
            c = server.connect()
            raise_limit(c, plain, 20 if kind > 6 else 0)
            if all(held(c.get(path), 1.0) for _ in range(kind)):
                break
            c.client.close()  # it may hold too few
            server.httpd.wait_status(streams=n, reserved=0)
        else:
            raise AssertionError(f"no connection holds {kind} streams")
    return count // kind


def warm_up(server, plain, times):
    """Ordinary requests of each protocol, so that what they need once is there."""
    for _ in range(times):
        for name, wrap in (("plain", None), ("tls", TLS)):
            with sse.Client(server.httpd.port(name), wrap=wrap) as c:
                assert c.get(plain).code == 200
        with h2.Connection(server.httpd.port("tls"), wrap=H2) as c:
            c.get(plain).wait_end()


def cost(origin, kind, label, stack=None, streams=STREAMS):
    """One row: what a stream of this kind needs."""
    connections = streams if kind in ("plain", "tls") else streams // kind
    threads = 25 if kind in ("plain", "tls") else connections + 10
    conf = f"H2MinWorkers 1\nH2MaxWorkers {streams + 20}\n"
    conf += f"ThreadStackSize {stack}\n" if stack else ""
    path, plain = origin.hold("cost", b":\n\n"), origin.answer(b"plain")
    with Server(origin, threads, conf=conf) as server:
        warm_up(server, plain, 100)
        wait_until(lambda: server.busy() == 0, "idle workers")
        before = state(server)
        opened = open_streams(server, kind, path, plain, streams)
        server.httpd.wait_status(streams=streams, reserved=0)
        if kind in ("plain", "tls"):
            wait_until(lambda: server.busy() == 0, "idle workers")
        after = state(server)
        began = [sum(p.cpu_times()[:2]) for p in server.processes()]
        time.sleep(IDLE)
        ended = [sum(p.cpu_times()[:2]) for p in server.processes()]
        idle = (sum(ended) - sum(began)) / IDLE
    more = {k: after[k] - before[k] for k in after}
    return {"label": label, "streams": streams, "connections": opened, "idle": idle,
            "per": {k: v / streams for k, v in more.items()}, **more}


def one_stream(origin):
    table(f"What one stream needs, {STREAMS} streams, ThreadStackSize not set",
          "stream", "connections", "busy MPM workers", "more threads",
          "child's descriptors", "child, USS kB a stream", "child, Pss kB a stream",
          "hub, USS kB a stream",
          "address space, kB a stream", f"idle: % of a CPU for {STREAMS}")
    kinds = [("plain", "plain HTTP/1.1"), ("tls", "TLS HTTP/1.1"), (1, "HTTP/2, 1 a connection"),
             (6, "HTTP/2, 6 a connection"), (50, "HTTP/2, 50 a connection")]
    for kind, label in kinds:
        c = cost(origin, kind, label)
        row(label, c["connections"], c["busy"], c["threads"], c["files"],
            f"{c['per']['uss']:.1f}",
            f"{c['per']['pss']:.1f}", f"{c['per']['hub']:.2f}", f"{c['per']['virtual']:.0f}",
            f"{100 * c['idle']:.1f}")


def stacks(origin):
    table("ThreadStackSize, 200 HTTP/2 streams, 50 a connection", "ThreadStackSize",
          "more threads", "address space, kB a stream", "child, USS kB a stream")
    for stack in (None, 1048576, 262144, 131072):
        c = cost(origin, 50, "", stack=stack, streams=200)
        row(stack or "not set", c["threads"], f"{c['per']['virtual']:.0f}",
            f"{c['per']['uss']:.1f}")


# ---- how many ----------------------------------------------------------------------------------

def fill(server, path, per_connection):
    """Opens streams until one waits, or a connection does; returns those held and a connection that
    has some."""
    count, connection, here = 0, None, per_connection
    while True:
        if here == per_connection:
            try:
                connection, here = server.connect(), 0
            except OSError:
                return count, connection
        if not held(connection.get(path)):
            return count, connection
        here, count = here + 1, count + 1


def probe(server, plain, connection):
    """Does an ordinary request get its answer: on this connection, a new one, over HTTP/1.1?"""
    def answers(ask):
        try:
            return "answered" if ask() else "waits"
        except (OSError, AssertionError, sse.FramingError):
            return "waits"

    def on(c):
        s = c.get(plain)
        c.wait(lambda: s.ended, "its answer", PATIENCE)
        return s.body == b"plain"

    def connect():
        return h2.Connection(server.httpd.port("tls"), timeout=PATIENCE, wrap=H2)

    def other():
        with connect() as c:
            return on(c)

    def over_http1(name, wrap):
        with sse.Client(server.httpd.port(name), wrap=wrap, timeout=PATIENCE) as c:
            return c.get(plain).body == b"plain"

    return (answers(lambda: on(connection)), answers(other),
            answers(lambda: over_http1("tls", TLS)), answers(lambda: over_http1("plain", None)))


ASKED = ("the same connection", "another HTTP/2 connection", "TLS HTTP/1.1", "plain HTTP/1.1")


def one_connection(origin):
    table("Streams that each of six connections holds, H2MaxWorkers 700; then an ordinary request",
          "ordinary requests before", "H2MaxSessionStreams", "held", *ASKED)
    path, plain = origin.hold("cost", b":\n\n"), origin.answer(b"plain")
    for warm, most in ((0, None), (5, None), (20, None), (20, 20), (20, 4)):
        conf = "H2MaxWorkers 700\n" + (f"H2MaxSessionStreams {most}\n" if most else "")
        with Server(origin, conf=conf) as server:
            counts = []
            for _ in range(6):
                connection = server.connect()
                raise_limit(connection, plain, warm)
                counts.append(next(n for n in range(1000)
                                   if not held(connection.get(path), 1.0)))
            row(warm, most or "100 (default)", ", ".join(map(str, counts)),
                *probe(server, plain, connection))


def cancelled(origin):
    """mod_http2 trusts a client less that takes requests back."""
    table("Streams that each of six connections holds after some that their client cancelled",
          "initial body", "cancelled before", "then ordinary requests", "held")
    plain = origin.answer(b"plain")
    for body, times, after in ((b":\n\n", 1, 0), (b":\n\n", 2, 0), (b":\n\n", 10, 0),
                               (b":\n\n", 10, 5), (b":\n\n", 10, 20), (b"", 10, 0)):
        path = origin.hold("cost", body)
        with Server(origin, conf="H2MaxWorkers 700\n") as server:
            counts = []
            for _ in range(6):
                connection = server.connect()
                for _ in range(times):
                    s = connection.opened(path)
                    s.wait_body(body)
                    s.cancel()
                    time.sleep(0.11)
                raise_limit(connection, plain, after)
                counts.append(next(n for n in range(1000)
                                   if not held(connection.get(path), 1.0)))
            row("an SSE comment" if body else "empty", times, after, ", ".join(map(str, counts)))


def one_child(origin):
    table("Streams that one child can hold, then an ordinary request on", "ThreadsPerChild",
          "H2MaxWorkers", "streams a connection", "held", *ASKED)
    path, plain = origin.hold("cost", b":\n\n"), origin.answer(b"plain")
    for threads, workers, each in ((25, None, 6), (25, 100, 6), (25, 200, 6), (25, 100, 1),
                                   (50, 100, 1)):
        conf = f"H2MaxWorkers {workers}\n" if workers else ""
        with Server(origin, threads=threads, conf=conf) as server:
            count, connection = fill(server, path, each)
            row(threads, workers or f"{threads * 3 // 2} (default)", each, count,
                *probe(server, plain, connection))


def several_children(origin):
    table("Four children, ThreadsPerChild 25: streams held when the first one waits",
          "H2MaxWorkers", "streams a connection", "room in all", "held at the first wait",
          "most and least HTTP/2 workers of a child")
    path = origin.hold("cost", b":\n\n")
    for workers, each in ((37, 6), (100, 6), (150, 6), (100, 1)):
        with Server(origin, servers=4, conf=f"H2MinWorkers 1\nH2MaxWorkers {workers}\n") as server:
            rest = {p.pid: p.num_threads() for p in server.processes()}
            count, _ = fill(server, path, each)
            used = [psutil.Process(pid).num_threads() - n + 1 for pid, n in rest.items()]
            row(workers, each, min(4 * workers, 100 * each), count,
                f"{max(used)}, {min(used)}")


def examples(origin):
    table("Worked examples, two streams for each browser, ThreadStackSize 262144",
          "browsers", "ThreadsPerChild", "MaxRequestWorkers", "H2MaxWorkers", "streams held",
          "threads in all", "children, Pss MB more", *ASKED[1:])
    path, plain = origin.hold("cost", b":\n\n"), origin.answer(b"plain")
    for browsers, threads, servers, workers in ((100, 25, 6, 100), (1000, 100, 12, 400)):
        conf = f"ThreadStackSize 262144\nH2MinWorkers {threads}\nH2MaxWorkers {workers}\n"
        with Server(origin, threads=threads, servers=servers, conf=conf) as server:
            before = state(server)
            open_streams(server, 2, path, plain, 2 * browsers)
            after = state(server)
            row(browsers, threads, threads * servers, workers,
                server.httpd.status()["streams"], after["threads"],
                f"{(after['pss'] - before['pss']) / 1024:.0f}",
                *probe(server, plain, server.connect())[1:])


def threads_at_rest(origin):
    table("Threads of a child without a request, ThreadsPerChild 25", "H2MinWorkers",
          "H2MaxWorkers", "threads")
    for least, most in ((None, None), (1, None), (1, 200), (200, 200)):
        conf = (f"H2MinWorkers {least}\n" if least else "") + (
            f"H2MaxWorkers {most}\n" if most else "")
        with Server(origin, conf=conf) as server:
            time.sleep(0.5)
            row(least or "not set", most or "not set",
                sum(p.num_threads() for p in server.processes()))


PARTS = [one_stream, stacks, one_connection, cancelled, one_child, several_children, examples,
         threads_at_rest]


def main():
    origin = Origin()
    wanted = os.environ.get("PARTS", "").split()
    try:
        for part in PARTS:
            if not wanted or part.__name__ in wanted:
                part(origin)
    finally:
        origin.close()


if __name__ == "__main__":
    main()
