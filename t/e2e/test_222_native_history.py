# SPDX-License-Identifier: Apache-2.0
"""The history as clients and publishers see it: what is told of a channel, replay from each kind of
position, limits, clearing, and that what was acknowledged outlives the hub and all of httpd."""

import json
import os
import signal
import time

import pytest

import sse
from follow import follow
from harness import SANITIZE, unique, wait_until
from publish import Publisher, item

PLAIN = [("Content-Type", "text/plain")]
DIED = r"\[eventstream:\w+\].*\bhub\b"
MANY = 2000 if SANITIZE else 10000  # channels


def configured(server, limits=""):
    server.add(f"EventStreamHistory run/history {limits}")
    server.vhost("main", """
        <Location /events/>
            SetHandler eventstream
            EventStreamPublish On
        </Location>
        <Location /prefixed/>
            SetHandler eventstream
            EventStreamPublish On
            EventStreamChannelPrefix events-
        </Location>
    """)
    server.publisher()
    return server.start()


@pytest.fixture(scope="module")
def httpd(make_httpd):
    return configured(make_httpd())


@pytest.fixture(scope="module")
def alone(make_httpd):
    """The one that is killed."""
    return configured(make_httpd("killed"))


def post(httpd, target, text):
    with sse.Client(httpd.port("main")) as c:
        answer = c.post(f"/events/{target}", text.encode(), headers=PLAIN)
    assert answer.code == 200, answer
    return json.loads(answer.body)["id"]


def info(httpd, target):
    with sse.Client(httpd.port("main")) as c:
        answer = c.get(f"/events/{target}", headers=[("Accept", "application/json")])
    assert answer.code == 200 and answer.get("Content-Type") == "application/json", answer
    assert "Accept" in answer.get("Vary")
    return json.loads(answer.body)["channels"]


def delete(httpd, target):
    with sse.Client(httpd.port("main")) as c:
        return c.ask(f"/events/{target}", "DELETE")


def replay(httpd, names, query="", last=None):
    """What a new stream gets of what is stored: (was it told of a reset, the data of its events).
    A mark is published behind it, so that nothing needs to be waited for."""
    headers = [("Last-Event-ID", last)] if last else []
    with sse.Stream.opened(httpd.port("main"), f"/events/?channel={','.join(names)}{query}",
                           headers=headers) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        mark = unique("mark")
        post(httpd, names[-1], mark)
        stream.wait_for(f"data: {mark}\n\n".encode())
        events = stream.events()
    assert events[-1]["data"] == mark
    told = [e for e in events if e["event"] == "stream-reset"]
    assert all(json.loads(e["data"]) == {"channels": names} for e in told) and len(told) < 2
    return bool(told), [e["data"] for e in events[:-1]
                        if e["event"] == "message" and not e["data"].startswith("mark-")]


# ---- what is told ---------------------------------------------------------------------------------

def test_info(httpd):
    a, b = unique(), unique()
    empty = {"receivers": 0, "id": None, "stored": 0, "oldest": None}
    assert info(httpd, a) == [{"channel": a, **empty}]
    ids = [post(httpd, a, f"{i}") for i in range(3)]
    with sse.Stream.opened(httpd.port("main"), f"/events/?channel={a},{b}") as stream:
        stream.wait_for(b"retry: 3000\n\n")
        assert info(httpd, f"?channel={a},{b}") == [
            {"channel": a, "receivers": 1, "id": ids[2], "stored": 3, "oldest": ids[0]},
            {"channel": b, **empty, "receivers": 1}]


def test_names_are_those_of_the_url(httpd, channel):
    with sse.Client(httpd.port("main")) as c:
        assert c.post(f"/prefixed/{channel}", b"x", headers=PLAIN).code == 200
        answer = c.get(f"/prefixed/{channel}", headers=[("Accept", "application/json")])
        told = json.loads(answer.body)["channels"][0]
    assert (told["channel"], told["stored"]) == (channel, 1)
    assert info(httpd, f"events-{channel}")[0]["stored"] == 1


# ---- replay ---------------------------------------------------------------------------------------

def test_from_each_position(httpd):
    """Of three channels, in the order of publishing, whichever channel the id came from."""
    names = [unique(x) for x in "abc"]
    ids, texts = [], [f"{i} {names[i % 3]}" for i in range(30)]
    for i, text in enumerate(texts):
        ids.append(post(httpd, names[i % 3], text))
    for at in (0, 7, 8, 9, 28):
        assert replay(httpd, names, last=ids[at]) == (False, texts[at + 1:])
        assert replay(httpd, names, f"&lastEventId={ids[at]}") == (False, texts[at + 1:])
        # an id is good for channels that it did not come from
        assert replay(httpd, names[:1], last=ids[at]) == (False, texts[(at // 3 + 1) * 3::3])
    assert replay(httpd, names, last="earliest") == (False, texts)
    assert replay(httpd, names, "&rewind=100000") == (False, texts)
    assert replay(httpd, names, "&since=1h") == (False, texts)
    assert replay(httpd, names, "&since=0") == (False, texts)
    assert replay(httpd, names) == (False, [])
    new = [unique(x) for x in "ab"]
    more = [post(httpd, new[i % 2], f"{i}") for i in range(10)]
    assert replay(httpd, new, "&rewind=3") == (False, ["7", "8", "9"])
    assert replay(httpd, new, "&last_event_id=" + more[4])[1] == list("56789")
    # the header counts before the query
    assert replay(httpd, new, "&rewind=3", last=more[5])[1] == list("6789")


def test_since_a_time(httpd, channel):
    """By the machine's clock in milliseconds, so a second lies between, wherever it ends."""
    post(httpd, channel, "before")
    between = int(time.time()) + 1
    wait_until(lambda: time.time() >= between, "the next second")
    post(httpd, channel, "after")
    assert replay(httpd, [channel], f"&since={between}") == (False, ["after"])
    assert replay(httpd, [channel], f"&since={between + 3600}") == (False, [])
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(between))
    assert replay(httpd, [channel], f"&since={stamp}") == (False, ["after"])


def test_ids_that_are_not_ours(httpd, alone, channel):
    mine = post(httpd, channel, "mine")
    other = post(alone, channel, "other")
    damaged = ("B" if mine[20] == "A" else "A").join([mine[:20], mine[21:]])
    for id in (other, damaged, mine[:-1], "7", "no-id", "%", "x" * 4000):
        assert replay(httpd, [channel], last=id) == (True, [])
    assert replay(httpd, [channel], last=mine) == (False, [])


def test_clear(httpd, channel):
    other = unique()
    ids = [post(httpd, channel, f"{i}") for i in range(5)]
    kept = post(httpd, other, "kept")
    answer = delete(httpd, channel)
    assert (answer.code, answer.body) == (204, b"")
    assert info(httpd, channel)[0]["stored"] == 0
    again = delete(httpd, channel)
    assert again.code == 404 and again.body == b"Nothing is held of these channels.\n"
    assert replay(httpd, [channel], last=ids[1]) == (True, [])
    assert replay(httpd, [channel], last="earliest") == (False, [])
    # who had seen all of it misses nothing, and other channels are as they were
    assert replay(httpd, [channel], last=kept) == (False, [])
    assert replay(httpd, [other], last="earliest") == (False, ["kept"])
    assert delete(httpd, f"?channel={channel},{other}").code == 204


# ---- limits ---------------------------------------------------------------------------------------

def test_count(make_httpd):
    httpd = configured(make_httpd("count"), "count=10")
    a, b = unique(), unique()
    ids = [post(httpd, a, f"{i}") for i in range(30)]
    assert post(httpd, b, "one")
    assert info(httpd, a)[0]["stored"] == 10 and info(httpd, b)[0]["stored"] == 1
    assert info(httpd, a)[0]["oldest"] == ids[20]
    assert replay(httpd, [a], last=ids[19]) == (False, [f"{i}" for i in range(20, 30)])
    assert info(httpd, a)[0]["stored"] == 10  # the mark was one
    assert replay(httpd, [a], last=ids[5])[0] is True
    httpd.close()


def test_age(make_httpd):
    httpd = configured(make_httpd("age"), "age=1s")
    channel = unique()
    id = post(httpd, channel, "old")
    wait_until(lambda: info(httpd, channel)[0]["stored"] == 0, "the end of its time")
    gone = post(httpd, channel, "new")
    assert replay(httpd, [channel], last=id)[0] is False  # it had seen what is gone
    assert gone
    httpd.close()


def test_size(make_httpd):
    """Ten times as much as may be kept: the newest are there, the file is bounded."""
    httpd = configured(make_httpd("size"), "size=1M")
    channel, text = unique(), "x" * 1000
    first = post(httpd, channel, "0 " + text)
    with Publisher(httpd.port("publish")) as p:
        for i in range(1, 10000, 100):
            p.send(*[item(channel, f"data: {n} {text}\n\n") for n in range(i, i + 100)])
    told = info(httpd, channel)[0]
    assert 100 < told["stored"] < 1100, told
    end = post(httpd, channel, "end")
    f = follow(httpd.port("main"), [channel], "earliest", lambda f: f.last_id == end)
    numbers = [int(t.split()[0]) for t in f.seen[:-1]]
    assert numbers == list(range(10001 - len(numbers), 10001)) and len(numbers) > 100
    assert replay(httpd, [channel], last=first)[0] is True
    assert replay(httpd, [channel], last=end) == (False, [])
    assert (httpd.root / "run/history/history.mdb").stat().st_size <= 1.5 * 2**20 + 16 * 2**20
    httpd.close()


# ---- what outlives what ---------------------------------------------------------------------------

def kill_hub(httpd):
    old = httpd.status()["hub"]["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: httpd.hub_pid() not in (None, old), "the next hub")


def kill_everything(httpd):
    httpd.remember_processes()
    pids = [httpd.process.pid, *[p.pid for p in httpd.processes()]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL) if os.path.exists(f"/proc/{pid}") else None
    httpd.process.wait()
    wait_until(lambda: not httpd.processes(), "their end")
    httpd.process = None
    httpd.start()


def stop_and_start(httpd):
    httpd.stop()
    httpd.start()


@pytest.mark.parametrize("how", [kill_hub, kill_everything, stop_and_start,
                                 lambda h: h.graceful(), lambda h: h.restart()],
                         ids=["hub", "all", "stop", "graceful", "restart"])
def test_what_was_acknowledged_is_there(alone, how):
    httpd = alone
    httpd.allow(DIED, r"\[eventstream:\w+\]")
    a, b = unique(), unique()
    texts = [f"{i}" for i in range(50)]
    ids = [post(httpd, (a, b)[i % 2], text) for i, text in enumerate(texts)]
    before = info(httpd, a)
    how(httpd)
    assert info(httpd, a) == before
    assert replay(httpd, [a, b], last=ids[9]) == (False, texts[10:])
    # new ids are newer than all that were given before
    later = post(httpd, a, "later")
    assert later not in ids
    assert replay(httpd, [a, b], last=ids[-1])[1] == ["later"]


def test_many_channels(httpd):
    """Each keeps its own; any of them is as quick to ask for."""
    prefix = unique("many")
    with Publisher(httpd.port("publish"), ) as p:
        for i in range(0, MANY, 500):
            p.send(*[item(f"{prefix}-{n}", f"data: {n}\n\n") for n in range(i, i + 500)])
    for n in range(0, MANY, MANY // 20):
        assert info(httpd, f"{prefix}-{n}")[0]["stored"] == 1
    names = [f"{prefix}-{n}" for n in range(0, MANY, MANY // 20)]
    assert replay(httpd, names, last="earliest") == (False, [n.split("-")[-1] for n in names])
