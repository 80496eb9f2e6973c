# SPDX-License-Identifier: Apache-2.0
"""The demo's page of the native endpoint: numbers are published with curl, the hub is killed by the
process number that the page shows, and the page's counters say that nothing got lost."""

import os
import re
import shutil
import signal
import subprocess
from urllib.parse import urlsplit

import pytest

from chromium import OUTPUT
from test_dashboard import START_SECONDS, Demo, until


@pytest.fixture(scope="module")
def demo():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    demo = Demo(OUTPUT / "native-demo.log")
    try:
        until(demo.started, START_SECONDS, "run.sh says where the dashboard is")
        yield demo
    finally:
        demo.end()


@pytest.fixture
def page(browser, demo):
    with browser.open(f"{demo.url}native") as page:
        page.until("document.getElementById('live').dataset.state === 'connected'")
        yield page


def curl(demo, page, numbers):
    """As the page's command does, without its pauses."""
    command = page.run("document.getElementById('publish').textContent")
    target = re.search(r"curl -s (\S+) -d \$n", command)[1]
    assert target == f"{demo.url}stream/numbers"
    for n in numbers:
        done = subprocess.run([shutil.which("curl"), "-q", "-sSf", "--noproxy", "*", target, "-d", str(n)],
                              stdout=subprocess.PIPE, timeout=60, check=True)
        assert b'"id"' in done.stdout, done.stdout


def shown(page):
    names = ("received", "missing", "doubled", "connections", "late")
    return {name: int(page.run(f"document.getElementById('{name}').textContent"))
            for name in names}


def wait_last(page, number):
    page.until(f"last === {number}", "document.getElementById('diary').innerText")


def hub_of(page):
    page.until("/^kill -9 [0-9]+$/.test(document.getElementById('kill').textContent)")
    return int(page.run("document.getElementById('kill').textContent").split()[-1])


def test_it_is_announced(demo, browser):
    assert f"{demo.url}native" in demo.said()
    with browser.open(demo.url) as dashboard:
        assert dashboard.run("document.querySelector('#path a').href") == f"{demo.url}native"


def test_nothing_gets_lost(demo, page):
    curl(demo, page, range(1, 31))
    wait_last(page, 30)
    for round in (1, 2):
        hub = hub_of(page)
        os.kill(hub, signal.SIGKILL)
        curl(demo, page, range(round * 30 + 1, round * 30 + 31))
        wait_last(page, round * 30 + 30)
        page.until(f"count.connections === {round + 1}", "count")
        page.until(f"document.getElementById('hub').textContent !== '{hub}'", "hub")
        assert f"which replaces {hub}" in page.run("document.getElementById('diary').innerText")
    curl(demo, page, range(91, 101))
    wait_last(page, 100)
    said = shown(page)
    assert said["late"] > 0
    assert said == {"received": 100, "missing": 0, "doubled": 0, "connections": 3,
                    "late": said["late"]}
    cells = page.run("[...document.querySelectorAll('#numbers i')].map((i) => i.textContent)")
    assert [int(text) for text in cells if text] == list(range(1, 101))
    assert page.run("document.getElementById('span').textContent") \
        == "1 to 100, each once, in order"
    assert len(page.shot("native-demo")) > 20_000
    noted = page.noted()
    assert not [line for line in noted["console"] if "ERR_INCOMPLETE_CHUNKED" not in line]
    assert {r["status"] for r in noted["responses"]} == {200}
    for request in noted["requests"]:
        assert urlsplit(request["url"]).netloc == f"127.0.0.1:{demo.port}"
    last_ids = [headers.get("last-event-id") for headers in page.streams()]
    assert last_ids[0] is None and len(set(last_ids)) == len(last_ids)


def test_what_is_missing_is_counted(demo, page):
    """The counters can count."""
    curl(demo, page, [1, 2, 5, 6, 6, 4])
    page.until("count.received === 6", "count")
    said = shown(page)
    assert (said["missing"], said["doubled"]) == (2, 2)
    assert page.run("document.querySelectorAll('#numbers .missing').length") == 2
    curl(demo, page, [1])  # a count from the beginning
    wait_last(page, 1)
    assert shown(page)["missing"] == 0


def test_the_button(demo, page):
    page.run("document.getElementById('count').click()")
    page.until("count.received >= 5", "count")
    page.run("document.getElementById('count').click()")
    assert page.run("counting") is False
    said = shown(page)
    assert (said["missing"], said["doubled"]) == (0, 0)


def test_other_channels_are_refused(demo, page):
    assert page.run("fetch('/stream/other').then((answer) => answer.status)") == 403
