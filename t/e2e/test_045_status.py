# SPDX-License-Identifier: Apache-2.0
"""The status handler: JSON, Prometheus text, HTML."""

import json
import re

import pytest

import sse
from harness import no_stream, unique
from publish import Publisher, item, publish


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    server = make_httpd()
    server.add("EventStreamThreads 3")
    server.grip_proxy(origin.port)
    server.publisher()
    return server.start()


def get(httpd, query, **args):
    with sse.Client(httpd.port("control")) as c:
        return c.get("/status" + query, **args)


@no_stream
def test_json(httpd):
    answer = get(httpd, "?json")
    assert answer.code == 200 and answer.get("Content-Type").startswith("application/json")
    status = httpd.status()
    assert sorted(status) == sorted([
        "hub", "streams", "reserved", "channels", "published", "refused", "deliveries",
        "keep_alives", "bytes", "log_lost", "ended", "history"])
    assert status["history"] is None
    assert sorted(status["hub"]) == ["pid", "threads", "uptime"]
    assert sorted(status["ended"]) == ["action", "client", "error", "expired", "lag", "shutdown",
                                       "timeout"]
    assert status["hub"]["threads"] == 3
    assert status["hub"]["pid"] == httpd.find_hub()
    assert 0 <= status["hub"]["uptime"] < 600
    for value in [*status["ended"].values(), *status["hub"].values()]:
        assert isinstance(value, int) and value >= 0


def test_counts(httpd, origin):
    """Exact: three streams, two channels, five messages, one of them for nobody."""
    a, b = unique(), unique()
    before = httpd.status()
    streams = [sse.Stream.opened(httpd.port(), origin.hold(c, b"")) for c in ([a], [a], [a, b])]
    httpd.wait_status(streams=3, reserved=0, channels=2)
    with Publisher(httpd.port("publish")) as p:
        p.send(item(a, "12345"), item(a, "12345"), item(b, "1234567"))
        p.send(item(unique(), "nobody"))
        p.text(a, "x")
    for s, want in zip(streams, (b"1234512345x", b"1234512345x", b"12345123451234567x")):
        s.wait_body(want)
    after = httpd.wait_status(deliveries=before["deliveries"] + 3 * 3 + 1)
    assert after["published"] - before["published"] == 5
    assert after["refused"] == before["refused"]
    assert after["bytes"] - before["bytes"] >= 11 + 11 + 18
    for s in streams:
        s.close()
    last = httpd.wait_status(streams=0, channels=0)
    assert last["ended"]["client"] - before["ended"]["client"] == 3


@no_stream
def test_prometheus(httpd):
    answer = get(httpd, "?prometheus")
    assert answer.code == 200 and answer.get("Content-Type").startswith("text/plain")
    text = answer.body.decode()
    seen = set()
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) [a-z_:][a-z0-9_:]* .+", line), line
            continue
        m = re.fullmatch(r"([a-z_:][a-z0-9_:]*)(\{[a-z_]+=\"[^\"]*\"(,[a-z_]+=\"[^\"]*\")*\})? "
                         r"[0-9.e+]+", line)
        assert m, line
        seen.add(m[1])
        assert f"# TYPE {m[1]} " in text, f"{m[1]} has no type"
    assert text.endswith("\n")
    assert not [n for n in seen if "history" in n]
    for part in ("streams", "channels", "published", "deliveries", "keep_alives", "bytes",
                 "ended"):
        assert [n for n in seen if part in n], f"{part} is missing in {sorted(seen)}"


@no_stream
def test_form_with_a_value(httpd):
    """Programs that only know names with values write ?prometheus=."""
    assert get(httpd, "?prometheus=").get("Content-Type").startswith("text/plain")
    assert json.loads(get(httpd, "?json=1&x=2").body)["streams"] >= 0


KEPT = ["usable", "messages", "channels", "bytes", "max_bytes", "oldest_age", "groups", "not_kept",
        "replaying"]


@no_stream
def test_history(make_httpd):
    server = make_httpd()
    server.publisher()
    server.add(f"EventStreamHistory {server.root}/run/history size=8M")
    server.start()
    a, b = unique(), unique()
    with Publisher(server.port("publish")) as p:
        p.send(item(a, "x" * 5000), item(a, "x"), item(b, "x"))
        p.send(item(a, "y"))
    kept = server.status()["history"]
    assert sorted(kept) == sorted(KEPT)
    assert (kept["usable"], kept["messages"], kept["channels"], kept["replaying"]) == (1, 4, 2, 0)
    assert (kept["max_bytes"], kept["not_kept"]) == (8 * 1024 * 1024, 0)
    assert 5000 <= kept["bytes"] <= kept["max_bytes"] and 2 <= kept["groups"] <= 4
    assert 0 <= kept["oldest_age"] < 600
    text = get(server, "?prometheus").body.decode()
    for name in KEPT:
        total = "_total" if name in ("groups", "not_kept") else ""
        assert f"# HELP eventstream_history_{name}{total} " in text
        if name != "oldest_age":
            assert f"\neventstream_history_{name}{total} {kept[name]}\n" in text
    assert "<td>eventstream_history_messages</td><td>4</td>" in get(server, "").body.decode()
    server.graceful()
    after = server.status()["history"]
    assert (after["messages"], after["groups"], after["usable"]) == (4, kept["groups"], 1)


def test_html(httpd, origin):
    channel = unique()
    with sse.Stream.opened(httpd.port(), origin.hold(channel, b"")):
        httpd.wait_status(streams=1)
        answer = get(httpd, "")
    assert answer.code == 200 and answer.get("Content-Type").startswith("text/html")
    text = answer.body.decode()
    assert "<html" in text.lower() and "</html>" in text.lower()
    rows = dict(re.findall(r"<tr><t[hd][^>]*>([^<]*)</t[hd]><td[^>]*>([^<]*)</td></tr>", text))
    assert [v for k, v in rows.items() if re.search(r"(?i)streams?$", k)] == ["1"], text


@no_stream
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(httpd, method):
    with sse.Client(httpd.port("control")) as c:
        answer = c.ask("/status", method, headers=[("Content-Length", "0")])
        assert answer.code == 405


@no_stream
def test_head(httpd):
    with sse.Client(httpd.port("control")) as c:
        assert c.ask("/status?json", "HEAD").code == 200
        assert c.get("/alive").code == 410


@no_stream
def test_status_is_not_cached(httpd):
    for query in ("?json", "?prometheus", ""):
        answer = get(httpd, query)
        value = answer.get("Cache-Control") or ""
        assert "no-store" in value or "no-cache" in value, (query, answer)


@no_stream
def test_one_publish_is_one_request(httpd):
    before = httpd.status()["published"]
    publish(httpd.port("publish"), item(unique(), "x"))
    assert httpd.status()["published"] == before + 1
