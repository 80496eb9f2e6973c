# SPDX-License-Identifier: Apache-2.0
"""Ten thousand clients of each kind that connect and leave, in every way there is: descriptors,
memory and the scoreboard are afterwards as they were."""

import re
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import h2
import sse
from crowd import Http1, connect_many
from harness import MPM, SANITIZE, TLS_CA, WAIT, wait_until

# One child, whose descriptors and memory can be compared, with room for what the test does at once.
CONF = {"prefork": "StartServers 6\nServerLimit 6\nMinSpareServers 1\nMaxSpareServers 6\n"
                   "MaxRequestWorkers 6\n"}
THREADS = ("StartServers 1\nServerLimit 1\nThreadsPerChild 128\nThreadLimit 128\n"
           "MinSpareThreads 1\nMaxSpareThreads 128\nMaxRequestWorkers 128\n")
CYCLES = 10000
BATCH = 100        # held at the same time
CONNECTIONS = 40   # of HTTP/2, at the same time
MARGIN_KB = 3000   # that the second half may need more than the first
TLS = sse.tls(TLS_CA)
H2 = h2.tls(TLS_CA)
WAYS = {"plain": ["close", "rst", "mid-head", "head-sent"],
        "tls": ["close", "rst", "notify", "mid-head", "head-sent"],
        "h2": ["close", "rst", "cancel"]}


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd(modules=[] if MPM == "prefork" else ["http2"])
    server.mpm_conf = CONF.get(MPM, THREADS)
    server.add("LogLevel eventstream:info")
    if MPM != "prefork":
        server.add("H2MaxWorkers 384\nH2MinWorkers 384")
    server.grip_proxy(origin.port)
    server.tls_proxy(origin.port, server="" if MPM == "prefork" else "Protocols h2 http/1.1")
    server.vhost("mpm", "<Location />\nSetHandler server-status\n</Location>\n")
    return server.start()


def busy(server):
    with sse.Client(server.port("mpm")) as c:
        said = c.get("/?auto").body.decode()
    return int(re.search(r"^BusyWorkers: (\d+)", said, re.M)[1]) - 1


def rest(server):
    """Waits until nothing of any client is left."""
    server.wait_status(streams=0, reserved=0, channels=0)
    wait_until(lambda: busy(server) == 0, lambda: f"idle workers, {busy(server)} are busy")


def processes(server):
    return [psutil.Process(p) for p in [server.hub_pid(), *server.children()]]


def descriptors(server, origin):
    """Of each process, without connections to the application: mod_proxy keeps as many as were ever
    in use at once."""
    return {p.pid: p.num_fds() - len([c for c in p.net_connections("tcp")
                                      if c.raddr and c.raddr.port == origin.port])
            for p in processes(server)}


def clients(server):
    """TCP connections with clients that the children still have."""
    ports = set(server.ports.values())
    return [c for p in processes(server) for c in p.net_connections("tcp")
            if c.laddr.port in ports and c.status != psutil.CONN_LISTEN]


def memory(server):
    """Private memory of the hub and the children, in kB."""
    return sum(p.memory_full_info().uss for p in processes(server)) // 1024


def leave_in_head(server, kind, path, whole):
    """Leaves within its request, or right behind it, before it can have an answer."""
    c = sse.Client(server.port("main" if kind == "plain" else "tls"),
                   wrap=None if kind == "plain" else TLS)
    request = sse.request_bytes(path)
    c.send(request if whole else request[:len(request) // 2])
    c.close()


def http1_batch(server, kind, path, way):
    port, wrap = (server.port(), None) if kind == "plain" else (server.port("tls"), TLS)
    if way in ("mid-head", "head-sent"):
        connect_many(BATCH, lambda: leave_in_head(server, kind, path, way == "head-sent"))
        return
    held = connect_many(BATCH, lambda: Http1(port, path, wrap).wait_head())
    assert {c.code for c in held} == {200}
    for c in held:
        c.close(way)


def http2_connection(server, path, way):
    """A connection with six streams that go with it; or with 24 that the client cancels, two at a
    time, since mod_http2 allows no more to a client that cancels (docs/operations.md)."""
    at_once, times = (2, 12) if way == "cancel" else (6, 1)
    with h2.Connection(server.port("tls"), wrap=H2) as c:
        for _ in range(times):
            streams = [c.get(path) for _ in range(at_once)]
            for s in streams:
                c.wait(lambda: s.head is not None or s.reset is not None, "its head")
                assert s.held, (s.head, s.reset)
            if way == "cancel":
                for s in streams:
                    s.cancel()
        if way == "rst":
            c.client.reset()
    return at_once * times


def http2_batch(server, path, way):
    """Many connections at once: the worker of a stream that is gone notices within 0.5 s."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(lambda _: http2_connection(server, path, way), range(CONNECTIONS)))


@pytest.mark.parametrize("kind", [k for k in WAYS if MPM != "prefork" or k != "h2"])
def test_ten_thousand_leave(httpd, origin, channel, kind):
    path = origin.hold(channel, b":\n\n")
    ways = WAYS[kind]
    done = 0

    def cycles(count):
        """So many clients, each way in turn."""
        nonlocal done
        end, turn = done + count, 0
        while done < end:
            way = ways[turn % len(ways)]
            turn += 1
            if kind == "h2":
                done += sum(http2_batch(httpd, path, way))
            else:
                http1_batch(httpd, kind, path, way)
                done += BATCH
            if turn % 8 == 0:  # the server's side of them may be behind
                httpd.wait_status(streams=0, reserved=0)
        rest(httpd)

    cycles(1000)  # links, threads and connections to the origin are there now
    before, processes_before = descriptors(httpd, origin), memory(httpd)
    cycles((CYCLES - 1000) // 2)
    middle = memory(httpd)
    cycles(CYCLES - done)
    end = memory(httpd)
    print(f"{kind}: {done} clients, memory {processes_before}, {middle}, {end} kB")
    assert before.keys() == descriptors(httpd, origin).keys(), "a process ended, or came"
    if not SANITIZE:  # which keeps freed memory
        first, second = middle - processes_before, end - middle
        assert second <= max(first, 0) + MARGIN_KB, (processes_before, middle, end)
    wait_until(lambda: not clients(httpd), lambda: f"no client, {clients(httpd)[:3]}")
    wait_until(lambda: all(n <= before[pid] + 3 for pid, n in descriptors(httpd, origin).items()),
               lambda: f"descriptors {before}, now {descriptors(httpd, origin)}", timeout=WAIT)
    rest(httpd)
