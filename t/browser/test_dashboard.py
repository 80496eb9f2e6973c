# SPDX-License-Identifier: Apache-2.0
"""The demo as a visitor sees it: demo/run.sh on free ports, its dashboard in Chromium, Ctrl-C.

Each wait here is for a condition and has an end. The tests run in the order of this file: the last
one stops the demo and looks for what it may have left.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

SRCDIR = Path(os.environ["ES_SRCDIR"])
BUILDDIR = Path(os.environ["ES_BUILDDIR"])
NODE = os.environ.get("ES_NODE") or "node"
HERE = Path(__file__).resolve().parent
OUTPUT = BUILDDIR / "check-logs" / "browser"

START_SECONDS = 90
BROWSER_SECONDS = 160
STOP_SECONDS = 40


def until(condition, seconds, what):
    """Returns the first true answer of `condition`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain: {what}")
        time.sleep(0.05)


def listening(port):
    """Whether anything listens on `port` of either loopback address."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                if sock.connect_ex((address, port)) == 0:
                    return True
        except OSError:
            continue
    return False


def free_ports(count):
    held = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
        held.append(sock)
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def alive(process):
    """Whether this very process, not one with a reused id, still runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Demo:
    """demo/run.sh in a session of its own, as in a terminal of its own."""

    def __init__(self, log):
        self.port, self.publish_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = log
        environment = dict(
            os.environ, ES_DEMO_PORT=str(self.port), ES_DEMO_PUBLISH_PORT=str(self.publish_port)
        )
        with open(log, "wb") as output:
            self.run = subprocess.Popen(
                [SRCDIR / "demo" / "run.sh"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # a terminal's programs have it, a background job's descendants do not
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.family = []

    def said(self):
        return self.log.read_text(errors="replace")

    def started(self):
        if self.run.poll() is not None:
            pytest.fail(f"run.sh ended with {self.run.returncode}:\n{self.said()}")
        return f"Dashboard: {self.url} " in self.said()

    def processes(self):
        me = psutil.Process(self.run.pid)
        return [me, *me.children(recursive=True)]

    def in_session(self):
        left = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.run.pid and alive(process):
                    left.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return left

    def left(self):
        """What still runs of all that the demo ever started."""
        return [process for process in {*self.family, *self.in_session()} if alive(process)]

    def end(self):
        """For a run that failed: ends what is left, by process id."""
        if self.run.poll() is None:
            self.family = self.processes()
            self.run.terminate()
            try:
                self.run.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        for process in self.left():
            process.kill()
        self.run.wait()


@pytest.fixture(scope="module")
def demo():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    demo = Demo(OUTPUT / "demo.log")
    try:
        until(demo.started, START_SECONDS, "run.sh says where the dashboard is")
        yield demo
    finally:
        demo.end()


@pytest.fixture(scope="module")
def seen(demo, tmp_path_factory):
    """What dashboard.mjs reports of one visit."""
    home = tmp_path_factory.mktemp("chromium")
    visit = subprocess.run(
        [NODE, HERE / "dashboard.mjs", demo.url, home / "profile", OUTPUT / "dashboard.png"],
        env=dict(
            os.environ,
            HOME=str(home),
            NODE_PATH=os.environ.get("NODE_PATH") or str(BUILDDIR / "node_modules"),
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BROWSER_SECONDS,
    )
    assert visit.returncode == 0, visit.stderr
    report = json.loads(visit.stdout)
    (OUTPUT / "dashboard.json").write_text(json.dumps(report, indent=2))
    assert report["waited_in_vain"] is None, f"{report}\n{demo.said()}"
    assert "error" not in report, report["error"]
    return report


def test_it_starts(demo):
    assert listening(demo.port)
    assert listening(demo.publish_port)
    assert "(Ctrl-C stops everything)" in demo.said()


def test_slash_leads_to_the_dashboard(demo, seen):
    assert urlsplit(seen["landed"]).path == "/dashboard/live/ssedashboard/"
    assert "mod_eventstream" in seen["title"]


def test_pushed_stat_changes_by_itself(seen):
    texts = seen["seen"]["pushed"]
    assert len(texts) >= 4
    for text in texts[1:]:
        assert re.match(r"\d+\.\d ?% .*\d\d:\d\d:\d\d UTC$", text), text


def test_chart_grows(seen):
    assert seen["points_after"] >= seen["points_before"] + 5
    before, after = seen["chart_before"], seen["chart_after"]
    assert after["pixels"] > 150, "there is no line"
    assert after["fingerprint"] != before["fingerprint"], "the line did not move"


def test_polled_stat_is_asked_for(demo, seen):
    texts = [text for text in seen["seen"]["polled"] if "UTC" in text]
    assert len(texts) >= 2
    for text in texts:
        assert re.match(r"\d+\.\d ?% .*\d\d:\d\d:\d\d UTC$", text), text
    polls = [url for url in seen["requests"] if url.endswith("/@component/polled/")]
    assert len(polls) >= 2


def test_one_stream_carries_everything(demo, seen):
    streams = [url for url in seen["requests"] if urlsplit(url).path == "/events/"]
    assert streams == [f"{demo.url}events/"]
    assert seen["live"] == "Connected"
    assert re.search(r"\d+ events on one connection", seen["delivery"]), seen["delivery"]


def test_no_errors_in_the_console(seen):
    assert seen["console"] == []
    assert {url: status for url, status in seen["statuses"].items() if status >= 400} == {}


def test_no_request_fails(demo, seen):
    # closing the page ends its stream, which the browser reports as a failed request
    assert [failure for failure in seen["failed"] if "/events/" not in failure] == []


def test_no_request_leaves_the_machine(demo, seen):
    assert seen["requests"]
    for url in seen["requests"]:
        parts = urlsplit(url)
        assert parts.scheme == "data" or parts.netloc == f"127.0.0.1:{demo.port}", url


def test_screenshot(seen):
    picture = (OUTPUT / "dashboard.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 20_000


def test_a_used_port_is_named(demo):
    environment = dict(
        os.environ, ES_DEMO_PORT=str(demo.port), ES_DEMO_PUBLISH_PORT=str(demo.publish_port)
    )
    second = subprocess.run(
        [SRCDIR / "demo" / "run.sh"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert second.returncode == 1
    assert f"port {demo.port} on 127.0.0.1 is in use" in second.stderr
    assert "ES_DEMO_PORT=PORT make demo" in second.stderr
    assert demo.run.poll() is None, "the first one must not mind"


def test_ctrl_c_leaves_nothing(demo):
    demo.family = demo.processes()
    names = {process.name() for process in demo.family}
    assert any("apache" in name or "httpd" in name for name in names), names
    assert len(demo.family) > 4, demo.family
    os.killpg(demo.run.pid, signal.SIGINT)
    try:
        status = demo.run.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"run.sh still runs {STOP_SECONDS} s after Ctrl-C:\n{demo.said()}")
    assert demo.left() == []
    assert not listening(demo.port)
    assert not listening(demo.publish_port)
    assert status == 0, demo.said()
    assert "did not end by itself" not in demo.said()
