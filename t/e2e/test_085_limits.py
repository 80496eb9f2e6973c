# SPDX-License-Identifier: Apache-2.0
"""Open files: the hub takes as many streams as the hard limit allows, and survives reaching it."""

import os
import resource

import psutil
import pytest

import sse
from harness import only_plain, unique
from publish import Publisher
from scenario import reopen

pytestmark = only_plain("the hub's descriptors are the same for all")


def server_with(make_httpd, origin, name, soft_files=None):
    server = make_httpd(name)
    server.soft_files = soft_files
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


def limit_files(process, limit):
    """Lowers another process' limit of open files, as its own user may."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(*[process.gids().real] * 3)
                os.setresuid(*[process.uids().real] * 3)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, "the hub's limit of open files cannot be set"


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1000,
                    reason="the hard limit of open files is below 1000")
def test_soft_limit_is_raised(make_httpd, origin, channel):
    """Services start with a soft limit; the hub raises its own to the hard one."""
    server = server_with(make_httpd, origin, "soft", soft_files=256)
    with sse.open_many(server.port(), [origin.hold(channel, b"")] * 600, timeout=60) as pool:
        server.wait_status(streams=600)
        with Publisher(server.port("publish")) as pub:
            pub.text(channel, "x")
        pool.wait_all(lambda s: s.body == b"x", "the message")


def test_out_of_descriptors(make_httpd, origin):
    """A hub that may open no more files: who does not fit is told or closed, who is held stays,
    and when some leave there is room again."""
    server = server_with(make_httpd, origin, "full")
    hub = psutil.Process(server.find_hub())
    keep, fill = unique(), unique()
    kept = [sse.Stream.opened(server.port(), origin.hold(keep, b"")) for _ in range(20)]
    server.wait_status(streams=20)
    room = hub.num_fds() + 150  # streams, and the children's links to the hub
    limit_files(hub, room)
    since = server.log_mark()
    server.allow(r"\[eventstream:\w+\]", r"AH0(0484|0161|0286|3490)")  # all workers wait
    path = origin.hold(fill, b"")
    streams = [sse.Stream(server.port(), path) for _ in range(300)]
    with sse.Pool(streams) as pool:
        pool.wait_all(lambda s: s.head is not None or s.eof, "an answer, or the end")
        held = server.status()["streams"]
        assert 20 < held < room, held
        assert server.find_hub() == hub.pid
        with Publisher(server.port("publish")) as pub:
            pub.text(keep, "kept")
        for s in kept:
            s.wait_body(b"kept")
        server.wait_log(r"\[eventstream:(warn|error)\].*(open files|out of .*descriptors)", since)
    server.wait_status(streams=20, reserved=0)
    channel = unique()
    path = origin.hold(channel, b"")
    with sse.Pool(reopen(server.port(), path) for _ in range(20)) as pool, \
            Publisher(server.port("publish")) as pub:
        pub.text(channel, "again")
        pool.wait_all(lambda s: s.body == b"again", "the message")
    for s in kept:
        s.close()
    server.wait_status(streams=0, reserved=0, channels=0)
