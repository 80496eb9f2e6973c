#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What run.sh does with ports and processes.

    service.py free PORT NAME    fails, and says why, unless PORT is free on loopback
    service.py ipv6              succeeds if [::1] exists
    service.py answers URL PID   waits until URL answers; fails when PID has gone or after 60 s
    service.py ready URL PID     the same, but the answer must be 200
    service.py stop PID...       ends these processes and their descendants, waits until all are gone

A process is known by its id and its start time, so a reused id is never mistaken for it.
"""

import errno
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60.0
STOP_PATIENCE = 15.0
LOOPBACK = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def try_bind(family, address, port):
    """None if the port can be bound, else the errno."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
    except OSError as error:
        return error.errno
    return None


def free(text, name):
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        sys.exit(f"demo: {name}: {text!r} is not a port; 1 to 65535 is accepted")
    for family, address in LOOPBACK:
        problem = try_bind(family, address, int(text))
        if problem == errno.EADDRINUSE:
            sys.exit(
                f"demo: port {text} on {address} is in use by another program.\n"
                f"      Stop that one, or choose another port: {name}=PORT make demo"
            )
        if problem is not None and family == socket.AF_INET:
            sys.exit(f"demo: cannot listen on {address}:{text}: {os.strerror(problem)}")


def ipv6():
    sys.exit(0 if try_bind(socket.AF_INET6, "::1", 0) is None else 1)


def status_of(url):
    """The status of the answer, 0 if there is none."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def process_table():
    """{pid: (parent, start time)} of every process but zombies."""
    table = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "PID (NAME) STATE PPID ...", and NAME may hold blanks and parentheses
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            table[int(entry.name)] = (int(fields[1]), int(fields[19]))
    return table


def family(roots, table):
    """{(pid, start time)} of the processes in `roots` and of all below them."""
    pids = {pid for pid in roots if pid in table}
    while True:
        more = {pid for pid, (parent, _) in table.items() if parent in pids} - pids
        if not more:
            return {(pid, table[pid][1]) for pid in pids}
        pids |= more


def send(members, signum):
    for pid, _ in members:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            pass


def stop(roots):
    """TERM to the roots, which end their children; what is left after a while gets KILL."""
    known = family(roots, process_table())
    send({member for member in known if member[0] in roots}, signal.SIGTERM)
    end = time.monotonic() + STOP_PATIENCE
    killed = False
    while True:
        table = process_table()
        left = {(pid, start) for pid, start in known if table.get(pid, (0, None))[1] == start}
        known |= family([pid for pid, _ in left], table)
        if not left:
            return
        if time.monotonic() > end:
            pids = ", ".join(str(pid) for pid, _ in sorted(left))
            if killed:
                sys.exit(f"demo: still there: process {pids}")
            print(f"demo: ending what did not end by itself: process {pids}", file=sys.stderr)
            send(left, signal.SIGKILL)
            killed = True
            end = time.monotonic() + STOP_PATIENCE
        time.sleep(0.05)


def wait_for(url, pid, wanted):
    end = time.monotonic() + PATIENCE
    while pid in process_table():
        status = status_of(url)
        if wanted(status):
            return
        if status >= 500:
            sys.exit(f"demo: {url} answered {status}")
        if time.monotonic() > end:
            sys.exit(f"demo: {url} did not answer as expected in {PATIENCE:.0f} s (status {status})")
        time.sleep(0.1)
    sys.exit("demo: Apache ended before it answered")


def main(words):
    match words:
        case ["free", port, name]:
            free(port, name)
        case ["ipv6"]:
            ipv6()
        case ["answers", url, pid]:
            wait_for(url, int(pid), lambda status: 0 < status < 500)
        case ["ready", url, pid]:
            wait_for(url, int(pid), lambda status: status == 200)
        case ["stop", *pids] if pids:
            stop([int(pid) for pid in pids])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
