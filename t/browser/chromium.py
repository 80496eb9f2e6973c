# SPDX-License-Identifier: Apache-2.0
"""Chromium as the tests see it: native.mjs in a process of its own, asked line by line."""

import itertools
import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILDDIR = Path(os.environ["ES_BUILDDIR"])
NODE = os.environ.get("ES_NODE") or "node"
NODE_PATH = Path(os.environ.get("NODE_PATH") or BUILDDIR / "node_modules")
OUTPUT = BUILDDIR / "check-logs" / "browser"

PATIENCE = 60  # seconds that a page gets for what a test waits for


class BrowserError(AssertionError):
    """What was asked of the browser failed; most often a wait in vain."""


class Browser:
    def __init__(self, home):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        self.log = open(OUTPUT / "chromium.log", "ab")
        self.node = subprocess.Popen(
            [NODE, HERE / "native.mjs", home / "profile"],
            env=dict(os.environ, HOME=str(home), NODE_PATH=str(NODE_PATH)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.names = itertools.count(1)

    def ask(self, do, **what):
        self.node.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self.node.stdin.flush()
        line = self.node.stdout.readline()
        if not line:
            raise BrowserError(f"{do}: the browser's process has ended; see {self.log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserError(f"{do} {what}: {answer['error']}")
        return answer["value"]

    def open(self, url):
        return Page(self, url)

    def cookie(self, **cookie):
        self.ask("cookie", cookie=cookie)

    def close(self):
        self.node.stdin.close()
        try:
            self.node.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.node.kill()
            self.node.wait()
            raise
        finally:
            self.node.stdout.close()
            self.log.close()


class Page:
    """A tab; closed at the end of `with`, so that none takes another test's connections."""

    def __init__(self, browser, url):
        self.browser = browser
        self.name = f"page{next(browser.names)}"
        self.ask("open", url=url)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.ask("close")

    def ask(self, do, **what):
        return self.browser.ask(do, page=self.name, **what)

    def run(self, code):
        return self.ask("run", code=code)

    def until(self, code, show="null"):
        """Waits until `code` is true; a wait in vain says what `show` is then."""
        try:
            self.ask("until", code=code, seconds=PATIENCE)
        except BrowserError as error:
            raise BrowserError(f"{error}; {show}: {self.run(show)}; {self.noted()['console']}") \
                from None

    def gate(self, shut):
        self.ask("gate", shut=shut)

    def noted(self):
        return self.ask("noted")

    def streams(self):
        """The headers of the requests that EventSources made, in their order."""
        return self.ask("streams")

    def shot(self, name):
        path = OUTPUT / f"{name}.png"
        self.ask("shot", path=str(path))
        return path.read_bytes()
