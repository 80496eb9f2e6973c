# SPDX-License-Identifier: Apache-2.0
"""The history's disk: full, damaged, not there. Publishers and the log say so, live delivery goes
on, and what is stored stays.

A full disk is a small file system of its own where mount(2) is allowed, and everywhere a limit on
the size of the hub's files. Both refuse what is written, at the same system calls.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import sse
from follow import follow
from harness import run_group, run_user, unique, wait_until, workdir

_libc = ctypes.CDLL(None, use_errno=True)
PLAIN = [("Content-Type", "text/plain")]
MS_NOSUID, MS_NODEV = 2, 4


class SmallDisk:
    """A file system of `megabytes`; what fills it is a file beside the history's directory."""

    errors = "No space left on device"

    def __init__(self, path, megabytes=6):
        self.path = Path(path)
        self.path.mkdir()
        options = f"size={megabytes}m,mode=1777".encode()
        if _libc.mount(b"tmpfs", bytes(self.path), b"tmpfs", MS_NOSUID | MS_NODEV, options) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def close(self):
        _libc.umount2(bytes(self.path), 2)  # MNT_DETACH

    def fill(self, httpd):
        fd = os.open(self.path / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * 4096)
        os.close(fd)

    def make_room(self, httpd):
        (self.path / "filler").unlink()


class SmallFiles:
    """No file of the hub may become larger than it is."""

    errors = "(File too large|Input/output error|No space left on device)"

    def __init__(self, path):
        self.path = Path(path)
        self.path.mkdir(mode=0o1777)
        self.path.chmod(0o1777)

    def close(self):
        pass

    def _limit(self, httpd, size):
        who = {}
        if os.geteuid() == 0:  # only the hub's own user may change its limits
            who = {"user": run_user(), "group": run_group(), "extra_groups": []}
        subprocess.run(["prlimit", f"--pid={httpd.hub_pid()}", f"--fsize={size}:"], check=True,
                       cwd="/", **who)

    def fill(self, httpd):
        self._limit(httpd, 65536)

    def make_room(self, httpd):
        self._limit(httpd, "unlimited")


def kinds():
    """Both where mounting is allowed."""
    path = Path(tempfile.mkdtemp(dir=workdir()))
    try:
        SmallDisk(path / "try").close()
    except OSError:
        return [SmallFiles]
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return [SmallFiles, SmallDisk]


def configured(server, directory, limits="size=64M"):
    server.add(f"EventStreamHistory {directory} {limits}")
    server.vhost("main", """
        <Location /events/>
            SetHandler eventstream
            EventStreamPublish On
        </Location>
    """)
    server.publisher()
    return server


@pytest.fixture
def small(make_httpd, request):
    made = []

    def make(kind):
        server = make_httpd("disk")
        made.append(server)
        disk = kind(server.root / "disk")
        made.append(disk)
        return configured(server, disk.path / "history"), disk

    yield make
    for thing in made:  # the server first
        thing.close()


def post(httpd, channel, text, code=200):
    with sse.Client(httpd.port("main")) as c:
        answer = c.post(f"/events/{channel}", text.encode(), headers=PLAIN)
    assert answer.code == code, answer
    return json.loads(answer.body)["id"] if code == 200 else answer.body.decode()


def read(httpd, channels, first, n, **args):
    """What is replayed first: at least n events."""
    return follow(httpd.port("main"), channels, first, lambda f: len(f.seen) >= n,
                  what=f"{n} events", **args)


def live(httpd, channel):
    stream = sse.Stream.opened(httpd.port("main"), f"/events/{channel}")
    return stream.wait_for(b"retry: 3000\n\n")


def reset(httpd, channels, last_id):
    """What a client gets that comes back with that id: is it told that something is gone?"""
    with sse.Stream.opened(httpd.port("main"), "/events/?channel=" + ",".join(channels),
                           headers=[("Last-Event-ID", last_id)]) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        mark = unique("mark")
        with sse.Client(httpd.port("main")) as c:  # whether or not it is kept
            c.post(f"/events/{channels[0]}", mark.encode(), headers=PLAIN)
        stream.wait_for(b"data: " + mark.encode() + b"\n\n")
        said = [e for e in stream.events() if e["event"] == "stream-reset"]
        assert len(said) < 2, said
        for e in said:
            assert json.loads(e["data"]) == {"channels": channels}
        return bool(said)


# ---- no room --------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", kinds())
def test_full(small, kind):
    httpd, disk = small(kind)
    httpd.start()
    a, big = unique("a"), unique("big")
    ids = [post(httpd, a, f"kept {i}") for i in range(300)]
    large = "0123456789" * 90000
    since = httpd.log_mark()
    with live(httpd, big) as stream:
        disk.fill(httpd)
        said = post(httpd, big, large, 507)
        assert said.startswith("Published, but not kept: ") \
            and re.search(disk.errors, said), said
        stream.wait_for(large.encode() + b"\n\n")  # delivered all the same
        httpd.wait_log(r"ES0367.*" + disk.errors, since)
        httpd.allow("ES0365")
        # GRIP's way in says the same
        with sse.Client(httpd.port("publish")) as c:
            answer = c.post("/publish/", json.dumps(
                {"items": [{"channel": big, "http-stream": {"content": large}}]}).encode())
        assert (answer.code, answer.body.decode().strip()) == (507, said.strip()), answer
        # said once, however many are refused
        assert len(re.findall("ES0367", httpd.log_text()[since:])) == 1
    # what was stored is there: nothing was given up for what would not fit
    stored = ask_info(httpd, a)["stored"]
    assert stored == 300 or kind is SmallFiles  # whose file has no room that could be known
    kept = read(httpd, [a], "earliest", stored).seen
    assert kept == [f"kept {i}" for i in range(300)][-len(kept):]
    disk.make_room(httpd)
    post(httpd, big, large + "again")
    httpd.wait_log("ES0366", since)
    assert read(httpd, [big], "earliest", 1).seen == [large + "again"]
    # who was there before is told that something is missing, who is there since is not
    assert reset(httpd, [big], ids[-1])
    assert not reset(httpd, [big], post(httpd, big, "newest"))
    info = ask_info(httpd, a)
    assert info["stored"] == len(kept) and info["id"] == ids[-1]


def ask_info(httpd, channel):
    with sse.Client(httpd.port("main")) as c:
        answer = c.get(f"/events/{channel}", headers=[("Accept", "application/json")])
    assert answer.code == 200, answer
    return json.loads(answer.body)["channels"][0]


@pytest.mark.parametrize("kind", kinds())
def test_full_for_a_long_time(small, kind):
    """Small events go on being published, by far more than fits: no hub dies, each publisher gets
    an answer, the newest that were kept are there, and there is no gap that nobody is told of."""
    httpd, disk = small(kind)
    httpd.start()
    channel = unique()
    httpd.allow("ES036[57]")
    first = post(httpd, channel, "first")
    hub = httpd.hub_pid()
    disk.fill(httpd)
    kept, lost = [], 0
    with sse.Client(httpd.port("main")) as c:
        for i in range(400):
            answer = c.post(f"/events/{channel}", f"{i} ".encode() + b"y" * 10000, headers=PLAIN)
            if answer.code == 200:
                kept.append(i)
            else:
                assert answer.code == 507, answer
                assert re.search(disk.errors, answer.body.decode()), answer
                lost += 1
    assert lost + len(kept) == 400
    assert httpd.hub_pid() == hub
    assert reset(httpd, [channel], first)
    disk.make_room(httpd)
    post(httpd, channel, "end")
    stored = [int(t.split()[0]) for t in
              follow(httpd.port("main"), [channel], "earliest",
                     lambda f: f.seen and f.seen[-1] == "end").seen if t[0].isdigit()]
    assert stored == kept[len(kept) - len(stored):], (stored, kept)


def test_a_hub_that_begins_on_a_full_disk(small):
    """Killed there, it comes back with what is stored; and a first start makes what it can."""
    kind = kinds()[-1]
    httpd, disk = small(kind)
    httpd.start()
    httpd.allow(r"\bhub\b", "ES036[57]", "ES0372")
    channel = unique()
    for i in range(100):
        post(httpd, channel, f"kept {i}")
    disk.fill(httpd)
    old = httpd.hub_pid()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: httpd.hub_pid() not in (None, old), "the next hub")
    if kind is SmallFiles:
        disk.fill(httpd)  # a limit dies with its process
    assert read(httpd, [channel], "earliest", 100).seen == [f"kept {i}" for i in range(100)]
    with live(httpd, channel) as stream:
        with sse.Client(httpd.port("main")) as c:
            answer = c.post(f"/events/{channel}", b"now", headers=PLAIN)
        assert answer.code in (200, 507), answer
        stream.wait_for(b"data: now\n\n")
    # the first start of all, with no byte to write: delivery works, publishers are told
    httpd.stop()
    shutil.rmtree(disk.path / "history")
    if kind is SmallDisk:
        disk.fill(httpd)
        httpd.start()
        httpd.wait_log("ES0372.*" + disk.errors)
        with live(httpd, channel) as stream:
            assert disk.errors in post(httpd, channel, "told", 507)
            stream.wait_for(b"data: told\n\n")
        disk.make_room(httpd)
        httpd.graceful()
        wait_until(lambda: ask_info(httpd, channel)["stored"] == 0, "the history's hub")
        post(httpd, channel, "kept")
        assert read(httpd, [channel], "earliest", 1).seen == ["kept"]


# ---- damage ---------------------------------------------------------------------------------------

def cut(path, size):
    with open(path, "r+b") as f:
        f.truncate(size)


def overwrite(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def newer(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


DAMAGE = {
    "cut in the middle": lambda p: cut(p, p.stat().st_size // 2 // 4096 * 4096),
    "cut to a few bytes": lambda p: cut(p, 100),
    "cut in a page": lambda p: cut(p, p.stat().st_size - 4096 * 3 - 1000),
    "no header": lambda p: overwrite(p, 0, bytes(8192)),
    "header of garbage": lambda p: overwrite(p, 0, os.urandom(8192)),
    "garbage": lambda p: p.write_bytes(os.urandom(300000)),
    "garbage behind the header": lambda p: overwrite(p, 8192, os.urandom(p.stat().st_size - 8192)),
    "another program's": lambda p: p.write_bytes(b"SQLite format 3\0" + bytes(100000)),
    "text": lambda p: p.write_text("not a history\n" * 1000),
    "of a newer version": lambda p: newer(p, b"mod_eventstream history 1",
                                          b"mod_eventstream history 7"),
}


@pytest.fixture(scope="module")
def damaged(make_httpd):
    server = configured(make_httpd("damage"), "run/history")
    return server.start()


def history_file(httpd):
    return httpd.root / "run" / "history" / "history.mdb"


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged(damaged, what):
    httpd, channel, other = damaged, unique(), unique("o")
    ids = [post(httpd, channel, f"{i} " + "z" * 1000) for i in range(60)]
    httpd.stop()
    file = history_file(httpd)
    owner = file.stat()
    DAMAGE[what](file)
    os.chown(file, owner.st_uid, owner.st_gid)
    harm = file.read_bytes()
    since = httpd.log_mark()
    httpd.start()
    line = httpd.wait_log(r"ES0362: history: \S+history\.mdb cannot be used: (.+)\. "
                          r"It was moved to (\S+) and a new history is begun", since)
    if "newer" in what:
        assert line[1] == "it has format 7, this build knows format 1 only"
    aside = Path(line[2])
    assert aside.parent == file.parent and re.fullmatch(
        r"history\.mdb\.damaged-\d{8}T\d{6}Z(-\d+)?", aside.name)
    assert aside.read_bytes() == harm  # for whoever wants to rescue something
    # all else goes on: who was there is told, who is new is not
    assert reset(httpd, [channel], ids[10])
    assert ask_info(httpd, other)["stored"] == 0
    newest = post(httpd, other, "new")
    assert read(httpd, [other], "earliest", 1).seen == ["new"]
    assert not reset(httpd, [other], newest)
    assert len(list(file.parent.glob("history.mdb.damaged-*"))) <= 3


def test_damaged_while_it_runs(damaged):
    """Somebody cuts the file: whatever that does to the hub, the next one has a history again."""
    httpd, channel = damaged, unique()
    httpd.allow(r"\[eventstream:\w+\]", "exit signal", "AddressSanitizer:DEADLYSIGNAL")
    ids = [post(httpd, channel, f"{i} " + "z" * 1000) for i in range(60)]
    cut(history_file(httpd), 8192)

    def goes_on():
        try:
            with sse.Client(httpd.port("main")) as c:
                return c.post(f"/events/{channel}", b"after", headers=PLAIN).code == 200
        except (OSError, sse.FramingError):
            return False

    since = httpd.log_mark()
    wait_until(goes_on, "a publish that is kept", 60, 0.1)
    assert read(httpd, [channel], "earliest", 1).seen[-1] == "after"
    assert reset(httpd, [channel], ids[-1]), httpd.log_text()[since:]
    for path in (httpd.root / "cores").iterdir():
        path.unlink()  # of the hub that met the hole
    for path in (httpd.root / "sanitizer").iterdir():
        assert re.search(r"#0 .*liblmdb", path.read_text()), path.read_text()
        path.unlink()


# ---- no place -------------------------------------------------------------------------------------

def nowhere(root):
    return "missing/history", "cannot make the directory"


def in_a_file(root):
    (root / "plain").write_text("")
    return "plain", "is not a directory"


def not_ours(root):
    (root / "foreign").mkdir(mode=0o555)
    (root / "foreign").chmod(0o555)
    return "foreign", "cannot write to the directory"


@pytest.mark.parametrize("where", [nowhere, in_a_file, not_ours])
def test_no_place(make_httpd, where):
    """Delivery works, publishers are told, and so is the log. A reload with a better place mends
    it, and cuts nobody."""
    httpd = make_httpd("noplace")
    directory, why = where(httpd.root)
    configured(httpd, directory)
    httpd.start()
    channel = unique()
    httpd.wait_log(r"ES0372: the history cannot be used: .*" + why)
    with live(httpd, channel) as stream:
        assert why in post(httpd, channel, "told", 507)
        stream.wait_for(b"data: told\n\n")
        assert ask_info(httpd, channel)["stored"] == 0
        httpd.lines = [line.replace(f"EventStreamHistory {directory}",
                                    "EventStreamHistory run/history") for line in httpd.lines]
        httpd.write_config()
        old = httpd.hub_pid()
        httpd.graceful()
        wait_until(lambda: httpd.hub_pid() not in (None, old), "the next hub")
        post(httpd, channel, "kept")
        stream.wait_for(b"data: kept\n\n")
    assert read(httpd, [channel], "earliest", 1).seen == ["kept"]
    httpd.close()
