# SPDX-License-Identifier: Apache-2.0
"""A private httpd for the end-to-end tests.

Every Httpd has a ServerRoot of its own below the build directory, ports that the kernel handed out,
and an environment marker that finds each process it ever started, the hub included. What went
wrong in it is read from four places after every test (see check()): the error log, standard error,
core files, and sanitizer reports. A test names the warn- and error-level lines that it causes;
any other one fails it.

The environment that the test runner hands over:
  ES_MODULE            the module under test, absolute
  ES_MODULE_NEXT       the same module built as another version
  ES_HTTPD             the httpd program
  ES_HTTPD_LIBEXECDIR  where httpd's own modules are
  ES_BUILDDIR          everything is written below ES_BUILDDIR/t/e2e
  ES_MPM               event, worker or prefork
  ES_TRANSPORT         how clients reach the applications' virtual hosts: plain, tls12, tls13, h2 or
                       h2c; other hosts (control, publish, origin) are plain HTTP/1.1 always
  ES_SANITIZE          1: the module is built with ASan and UBSan, ES_PRELOAD holds their runtimes
"""

import atexit
import contextlib
import ctypes
import functools
import grp
import itertools
import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import pytest

import http2
import sse

WAIT = 30.0  # the deadline of a wait for a condition, in seconds; no wait takes it on a healthy run

HERE = Path(__file__).resolve().parent
MPM = os.environ.get("ES_MPM", "event")
TRANSPORT = os.environ.get("ES_TRANSPORT", "plain")
TRANSPORTS = ("plain", "tls12", "tls13", "h2", "h2c")
HTTP2 = TRANSPORT in ("h2", "h2c")
TLS = TRANSPORT in ("tls12", "tls13", "h2")
VERSIONS = ("2",) if HTTP2 else ("1.1", "1.0")  # of HTTP, that clients may speak
SANITIZE = os.environ.get("ES_SANITIZE", "0") == "1"

CRASH = re.compile(
    r"AH0005[012]\b|exit signal|Segmentation fault|Assertion .*failed|\bassertion\b.*failed"
    r"|pool concurrency check|glibc detected|corrupted|double free|free\(\): |malloc\(\): "
    r"|stack smashing|AddressSanitizer|UndefinedBehaviorSanitizer|runtime error:"
)
LOG_LINE = re.compile(r"^\[[^\]]+\] \[(?P<module>[\w-]*):(?P<level>\w+)\] ")
BAD_LEVELS = {"emerg", "alert", "crit", "error", "warn"}

# Lines that say nothing about the module.
HARMLESS = [
    r"AH00098: pid file .* overwritten",  # a killed server was started again in its ServerRoot
    # All workers are busy, or nearly: so they are when the machine is.
    r"AH0028[678]|AH00484|AH00161|AH03490|AH10159",
]


def env_path(name):
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"{name} is not set; run these tests with `make check`")
    return value


def wait_until(condition, what, timeout=WAIT, interval=0.01):
    """Waits for condition() to be true and returns what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what() if callable(what) else what}")
        time.sleep(interval)


_reserved = []  # sockets that are bound and never listen: nobody else is given their ports


def free_port():
    """A TCP port on 127.0.0.1 for a server that sets SO_REUSEADDR, as all servers here do. Runs
    side by side get different ones."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    _reserved.append(s)
    return s.getsockname()[1]


_names = itertools.count(1)


def unique(prefix="ch"):
    """A name that no other test of this run uses."""
    return f"{prefix}-{os.getpid()}-{next(_names)}"


TLS_CA = HERE / "tls.pem"


def only_http1(why):
    """Marks a test that is about HTTP/1.x itself: it runs where that is spoken."""
    return pytest.mark.transports("plain", "tls12", "tls13", why=why)


def only_plain(why):
    """Marks a test that the client's transport is no part of."""
    return pytest.mark.transports("plain", why=why)


no_stream = only_plain("no stream is in it")


@functools.lru_cache(maxsize=None)
def client_side():
    """For sse.hosts: (Client's class, wrap) of this run's transport; one TLS context for all."""
    kind = http2.Client if HTTP2 else sse.Client
    if not TLS:
        return kind, None
    context = sse.tls_context(TLS_CA)
    if HTTP2:
        context.set_alpn_protocols(["h2"])
    version = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}.get(TRANSPORT)
    return kind, sse.Resuming(context, version)


SERVER_SIDE = {
    "plain": "",
    "tls12": "SSLProtocol TLSv1.2",
    "tls13": "SSLProtocol TLSv1.3",
    "h2": "Protocols h2",
    "h2c": "Protocols h2c",
}


def reachable(path):
    """May any user read what is at `path`?"""
    path = Path(path).resolve()
    need = 0o005 if path.is_dir() else 0o004
    try:
        if path.stat().st_mode & need != need:
            return False
        return all(p.stat().st_mode & 0o001 for p in path.parents)
    except OSError:
        return False


@functools.lru_cache(maxsize=None)
def workdir():
    base = Path(env_path("ES_BUILDDIR")) / "t" / "e2e" / "run"
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)
    if os.geteuid() == 0 and not reachable(base):
        base = Path(tempfile.mkdtemp(prefix="eventstream-e2e-"))
        base.chmod(0o755)
        atexit.register(lambda: Httpd.keep or shutil.rmtree(base, ignore_errors=True))
    return base


class Httpd:
    """One private server. Build the configuration with add() and vhost(), then start()."""

    live = []  # every server that check() looks at
    keep = os.environ.get("ES_KEEP", "0") == "1"  # also set by the first failure

    def __init__(self, name, *, module_first=True, modules=(), with_module=True, mpm=None):
        self.name = name
        self.mpm = mpm or MPM
        self.mark = uuid.uuid4().hex
        self.root = Path(tempfile.mkdtemp(prefix=f"{name}-{self.mpm}-", dir=workdir()))
        self.root.chmod(0o755)
        for sub in ("logs", "htdocs", "cores", "run", "sanitizer"):
            (self.root / sub).mkdir()
            (self.root / sub).chmod(0o1777 if sub in ("cores", "sanitizer", "run") else 0o755)
        self.module_first = module_first
        self.with_module = with_module
        self.module = None  # another file than ES_MODULE
        self.extra_modules = list(modules)
        self.ports = {}
        self.lines = []
        self.process = None
        self.closed = False
        self._log_offset = 0
        self._stderr_offset = 0
        self._seen_times = set()
        self.allowed = []
        self.always_allowed = []
        self.soft_files = None  # the limit of open files that httpd starts with
        self.mpm_conf = MPM_HTTP2 if HTTP2 and not mpm else MPM_DEFAULT[self.mpm]
        self._standard()

    # ---- configuration ---------------------------------------------------------------------

    def port(self, name="main"):
        if name not in self.ports:
            self.ports[name] = free_port()
        return self.ports[name]

    def add(self, text):
        self.lines.append(_dedent(text))
        return self

    def vhost(self, name, text):
        port = self.port(name)
        return self.add(
            f"Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\nServerName {name}.test\n"
            f"{_dedent(text)}\n</VirtualHost>"
        )

    def site(self, name, text):
        """A virtual host of an application: clients reach it by the transport of this run."""
        lines = SERVER_SIDE[TRANSPORT]
        if TLS:
            lines += self._tls()
        if HTTP2:
            self._with_http2()
        if TRANSPORT != "plain":
            sse.hosts[self.port(name)] = client_side()
        return self.vhost(name, f"{lines}\n{_dedent(text)}")

    def _tls(self):
        if "ssl" not in self.extra_modules:
            self.extra_modules += ["socache_shmcb", "ssl"]
            # no file lock: the kernel takes two threads of two processes for a deadlock
            self.add("SSLSessionCache shmcb:run/sessions(512000)\nMutex pthread ssl-cache")
            # tls.pem is for localhost and is its own CA; an OpenSSL older than the compiled one
            self.always_allowed += [r"AH01909|AH01906|AH01882"]
        return (f"\nSSLEngine On\nSSLCertificateFile {TLS_CA}\n"
                f"SSLCertificateKeyFile {TLS_CA}\n")

    def _with_http2(self):
        if "http2" not in self.extra_modules:
            self.extra_modules.append("http2")
            # each open stream keeps one of these
            self.add("H2MaxWorkers 1024\nH2MaxSessionStreams 200")

    def _standard(self):
        """The control host: tells that the server answers, and what the hub counts."""
        status = ""
        if self.with_module:
            status = "<Location /status>\nSetHandler eventstream-status\n</Location>\n"
        self.vhost("control", f"Redirect gone /alive\n{status}")

    def grip_proxy(self, origin_port, name="main", path="/", extra="", server="", own=False):
        """The usual virtual host: everything goes to the origin, GRIP on. `own`: `server` says how
        it is reached, and so does the test."""
        return (self.vhost if own else self.site)(
            name,
            f"""
            {server}
            <Location "{path}">
                ProxyPass "http://127.0.0.1:{origin_port}{path}" retry=0
                EventStreamGrip On
                {extra}
            </Location>
            """,
        )

    def tls_proxy(self, origin_port, name="tls", server="", **args):
        """The same behind TLS, with the certificate of tls.pem, which is its own CA."""
        return self.grip_proxy(origin_port, name, own=True, server=self._tls() + server, **args)

    def publisher(self, name="publish", extra="", path="/"):
        """The usual publish listener, Pushpin's port 5561."""
        return self.vhost(
            name,
            f"""
            CustomLog logs/{name}_log "%{{remote}}p %k %m %U %>s %P"
            <Location "{path}">
                SetHandler eventstream-publish
                {extra}
            </Location>
            """,
        )

    def pull(self):
        """A ZeroMQ PULL endpoint; returns its address."""
        endpoint = f"tcp://127.0.0.1:{self.port('pull')}"
        self.add(f"EventStreamPull {endpoint}")
        return endpoint

    def _module_lines(self):
        libexec = env_path("ES_HTTPD_LIBEXECDIR")
        names = ["authz_core", "authz_host", "alias", "setenvif", "mime", "env", "headers",
                 "reqtimeout", "status"]
        names += [n for n in self.extra_modules if n not in names]
        ours = []
        if self.with_module:
            ours.append(f"LoadModule eventstream_module {self.module or env_path('ES_MODULE')}")
        others = []
        for n in dict.fromkeys([*names, "proxy", "proxy_http"]):
            others.append(f"LoadModule {n}_module {libexec}/mod_{n}.so")
        mpm = [f"LoadModule mpm_{self.mpm}_module {libexec}/mod_mpm_{self.mpm}.so"]
        return mpm + (ours + others if self.module_first else others + ours)

    def config_text(self):
        user = ""
        if os.geteuid() == 0:
            user = f"User {run_user()}\nGroup {run_group()}\n"
        head = "\n".join(self._module_lines())
        level = "LogLevel info" + (" eventstream:debug" if self.with_module else "")
        return (
            f"ServerRoot {self.root}\nServerName localhost\nPidFile run/httpd.pid\n"
            f"DefaultRuntimeDir run\nMutex file:run default\nCoreDumpDirectory {self.root}/cores\n"
            f"ErrorLog logs/error_log\nDocumentRoot htdocs\nTypesConfig /dev/null\n"
            f"{head}\n{level}\n{user}{self.mpm_conf}\n"
            "KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\nTimeout 60\n"
            "GracefulShutdownTimeout 20\nListenBacklog 1024\n"
            "<Directory />\nRequire all granted\n</Directory>\n"
            + "\n".join(self.lines)
            + "\n"
        )

    def write_config(self):
        path = self.root / "httpd.conf"
        path.write_text(self.config_text())
        return path

    # ---- running -----------------------------------------------------------------------------

    def environment(self):
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TZ", "HOME")}
        env["ES_E2E_MARK"] = self.mark
        if SANITIZE:
            env["LD_PRELOAD"] = env_path("ES_PRELOAD")
            env["ASAN_OPTIONS"] = (
                f"detect_leaks=0:log_path={self.root}/sanitizer/asan:quarantine_size_mb=8:"
                "malloc_context_size=10:abort_on_error=1:disable_coredump=1:"
                + os.environ.get("ASAN_OPTIONS", "")
            )
            env["UBSAN_OPTIONS"] = (
                f"print_stacktrace=1:log_path={self.root}/sanitizer/ubsan:"
                + os.environ.get("UBSAN_OPTIONS", "")
            )
        return env

    def command(self, *args):
        return [env_path("ES_HTTPD"), "-d", str(self.root), "-f", str(self.root / "httpd.conf"),
                *args]

    def config_test(self):
        """httpd -t: (exit status, everything it said)."""
        self.write_config()
        done = subprocess.run(self.command("-t"), env=self.environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        return done.returncode, done.stdout

    def start(self):
        self.write_config()

        def limits():
            die_with_parent()
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.soft_files or hard, hard))
            if not SANITIZE:
                with contextlib.suppress(ValueError, OSError):
                    core = resource.getrlimit(resource.RLIMIT_CORE)[1]
                    resource.setrlimit(resource.RLIMIT_CORE, (core, core))

        with open(self.root / "logs" / "stderr", "ab") as err:
            self.process = subprocess.Popen(
                self.command("-DFOREGROUND"), env=self.environment(), cwd=self.root,
                stdin=subprocess.DEVNULL, stdout=err, stderr=err, start_new_session=True,
                preexec_fn=limits)
        if self not in Httpd.live:
            Httpd.live.append(self)
        self.wait_ready()
        return self

    def answers(self):
        """Does the server serve an ordinary request?"""
        try:
            with sse.Client(self.port("control"), timeout=5) as c:
                return c.get("/alive").code == 410
        except (OSError, sse.FramingError):
            return False

    def wait_ready(self, timeout=WAIT):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"httpd ended with {self.process.returncode}\n{self.tail()}")
            if not self.answers():
                return False
            return not self.with_module or self.hub_pid() is not None

        wait_until(ready, lambda: f"{self.name} to answer\n{self.tail()}", timeout)
        self.remember_processes()

    def send_signal(self, number):
        self.remember_processes()
        os.kill(self.process.pid, number)

    def graceful(self):
        """Sends the signal of `-k graceful` and waits until the new generation answers."""
        self._again(signal.SIGUSR1, r"SIGUSR1 received|Graceful restart requested")

    def restart(self):
        """Sends the signal of `-k restart`, and the same. The event MPM closes the sockets of busy
        workers under them then, and may say so."""
        self.allow(r"\(9\)Bad file descriptor: AH03092")
        self._again(signal.SIGHUP, r"SIGHUP received")

    def _again(self, number, said):
        at = len(self.log_text())
        self.send_signal(number)
        self.wait_log(said, since=at)
        self.wait_log(r"resuming normal operations", since=at)
        self.wait_ready()

    def stop(self, number=signal.SIGTERM, timeout=WAIT):
        """Stops the server; returns the seconds that it took for every process to be gone."""
        if self.process is None:
            return 0.0
        began = time.monotonic()
        if self.process.poll() is None:
            self.send_signal(number)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                text = f"httpd did not stop in {timeout:g} s\n{self.tail()}"
                raise AssertionError(text) from None
        gone = time.monotonic() + 10
        left = self.processes()
        while left and time.monotonic() < gone:
            time.sleep(0.01)
            left = self.processes()
        took = time.monotonic() - began
        if left:
            names = [_describe(p) for p in left]
            self.kill()
            raise AssertionError("processes left after httpd stopped: " + "; ".join(names))
        self.process = None
        return took

    def kill(self):
        """The last resort of a failed test: ends every process of this server."""
        for p in self.processes():
            with contextlib.suppress(psutil.Error):
                p.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def close(self):
        """The end of a fixture: stop, look once more, forget; the files stay after a failure."""
        if self.closed:
            return
        self.closed = True
        try:
            self.stop()
            self.check()
        finally:
            if self in Httpd.live:
                Httpd.live.remove(self)
            if self.process is not None:
                self.kill()
        if not Httpd.keep:
            shutil.rmtree(self.root, ignore_errors=True)

    # ---- processes ---------------------------------------------------------------------------

    def processes(self):
        """Every process of this server that still runs, found by session, by the environment
        marker, or because it holds a file of this ServerRoot open."""
        found = []
        mark = f"ES_E2E_MARK={self.mark}".encode()
        root = str(self.root)
        for p in psutil.process_iter():
            try:
                if p.pid == os.getpid() or p.status() == psutil.STATUS_ZOMBIE:
                    continue
                if self._is_ours(p, mark, root):
                    found.append(p)
            except (psutil.Error, OSError):
                continue
        return found

    def _is_ours(self, p, mark, root):
        if (p.pid, p.create_time()) in self._seen_times:
            return True
        if self.process is not None and os.getsid(p.pid) == self.process.pid:
            return True
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{p.pid}/environ").read_bytes():
                return True
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{p.pid}/fd"):
                with contextlib.suppress(OSError):
                    link = os.readlink(f"/proc/{p.pid}/fd/{fd}")
                    if link.startswith(root) and p.pid != os.getpid():
                        return True
        return False

    def remember_processes(self):
        for p in self.processes():
            with contextlib.suppress(psutil.Error):
                self._seen_times.add((p.pid, p.create_time()))

    def children(self):
        """Pids of the httpd children (not the hub, not daemons of other modules)."""
        hub = self.hub_pid()
        parent = psutil.Process(self.process.pid)
        return [p.pid for p in parent.children() if p.pid != hub]

    def titled(self, title):
        """The processes of this server whose command line says so, as psutil has them."""
        found = []
        for p in self.processes():
            with contextlib.suppress(psutil.Error):
                if title in " ".join(p.cmdline()):
                    found.append(p)
        return found

    def keepers(self):
        """Processes that go on with the TLS streams of children that have ended."""
        return self.titled("eventstream keeper")

    def tls_holders(self):
        """Every process that may have clients' TLS connections."""
        return [psutil.Process(pid) for pid in self.children()] + self.keepers()

    # ---- the hub -----------------------------------------------------------------------------

    def status(self):
        with sse.Client(self.port("control")) as c:
            answer = c.get("/status?json")
        assert answer.code == 200, f"status says {answer.code}: {answer.body!r}"
        return json.loads(answer.body)

    def hub_pid(self):
        try:
            with sse.Client(self.port("control"), timeout=5) as c:
                answer = c.get("/status?json")
            if answer.code != 200:
                return None
            pid = json.loads(answer.body)["hub"]["pid"]
        except (OSError, sse.FramingError, ValueError, KeyError):
            return None
        return pid if isinstance(pid, int) and pid > 1 else None

    def find_hub(self):
        """The hub as the process table shows it, without asking the server; None: there is none.
        Only the parent's children whose command line names the module count."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.Error:
            return None
        for p in children:
            with contextlib.suppress(psutil.Error):
                title = " ".join(p.cmdline()) + " " + p.name()
                if "eventstream" in title and p.status() != psutil.STATUS_ZOMBIE:
                    return p.pid
        return None

    def wait_status(self, **want):
        """Waits until the status counts are as given: wait_status(streams=0)."""
        last = {}

        def same():
            last.clear()
            last.update(self.status())
            return all(last.get(k) == v for k, v in want.items())

        wait_until(same, lambda: f"status {want}, last {last}")
        return dict(last)

    def wait_ended(self, before, **want):
        """Waits until so many streams have ended since the status `before`, each for its reason:
        wait_ended(before, client=5). The hub counts a stream's end after the stream itself."""
        last = {}

        def same():
            ended = self.status()["ended"]
            last.update({k: n - before["ended"][k] for k, n in ended.items()})
            return all(n == want.get(k, 0) for k, n in last.items())

        wait_until(same, lambda: f"ended: {want}, last {last}")

    def hub_rss(self):
        return psutil.Process(self.hub_pid()).memory_info().rss

    # ---- logs --------------------------------------------------------------------------------

    def log_text(self):
        path = self.root / "logs" / "error_log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stderr_text(self):
        path = self.root / "logs" / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def access(self, name="publish"):
        path = self.root / "logs" / f"{name}_log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def tail(self, lines=25):
        text = self.stderr_text().splitlines()[-10:] + self.log_text().splitlines()[-lines:]
        return "\n".join(text)

    def log_mark(self):
        """Where the error log ends now; hand it to wait_log(since=...)."""
        return len(self.log_text())

    def wait_log(self, regex, since=0):
        """Waits for a line of the error log; a warn- or error-level line found so is expected."""
        self.allow(regex)
        found = wait_until(lambda: re.search(regex, self.log_text()[since:]),
                           lambda: f"log line {regex!r}\n{self.tail()}")
        return found

    def allow(self, *regex):
        """Warn- and error-level lines that the running test may cause."""
        self.allowed.extend(regex)

    def _new(self, which, path):
        if not path.exists():
            return ""
        with open(path, "rb") as f:
            f.seek(getattr(self, which))
            data = f.read()
        end = data.rfind(b"\n") + 1
        setattr(self, which, getattr(self, which) + end)
        return data[:end].decode(errors="replace")

    def check(self):
        """What went wrong since the last call; raises AssertionError with everything at once."""
        problems = []
        text = self._new("_log_offset", self.root / "logs" / "error_log")
        err = self._new("_stderr_offset", self.root / "logs" / "stderr")
        fine = [re.compile(r) for r in self.allowed + self.always_allowed + HARMLESS]
        for line in (text + err).splitlines():
            level = LOG_LINE.match(line)
            if CRASH.search(line) and not any(r.search(line) for r in fine):
                problems.append(f"crash: {line}")
            elif level and level["level"] in BAD_LEVELS and not any(r.search(line) for r in fine):
                problems.append(f"unexpected line: {line}")
        self.allowed = []
        problems += self._remains()
        if self.process is not None and self.process.poll() is not None:
            problems.append(f"httpd has ended by itself with {self.process.returncode}")
        if problems:
            Httpd.keep = True
            shown = problems[:20]
            if len(problems) > 20:
                shown.append(f"... and {len(problems) - 20} more")
            raise AssertionError(f"{self.name} ({self.root}):\n" + "\n".join(shown))

    def _remains(self):
        problems = []
        for path in (self.root / "cores").iterdir():
            if path.is_file() and path.stat().st_size and not path.name.startswith("seen-"):
                path.rename(path.with_name(f"seen-{path.name}-{time.monotonic_ns()}"))
                problems.append(f"core file: {path}")
        for path in sorted((self.root / "sanitizer").iterdir()):
            text = path.read_text(errors="replace")
            path.rename(self.root / f"seen-{path.name}")
            problems.append(f"sanitizer report {path.name}:\n{text[:6000]}")
        return problems


MPM_DEFAULT = {
    "event": "StartServers 2\nServerLimit 4\nThreadsPerChild 8\nThreadLimit 8\n"
             "MinSpareThreads 8\nMaxSpareThreads 32\nMaxRequestWorkers 32\n",
    "worker": "StartServers 2\nServerLimit 4\nThreadsPerChild 8\nThreadLimit 8\n"
              "MinSpareThreads 8\nMaxSpareThreads 32\nMaxRequestWorkers 32\n",
    "prefork": "StartServers 6\nServerLimit 32\nMinSpareServers 4\nMaxSpareServers 32\n"
               "MaxRequestWorkers 32\n",
}
# An open connection with streams keeps a thread, and a child that ends gracefully its slot.
MPM_HTTP2 = ("StartServers 2\nServerLimit 16\nThreadsPerChild 64\nThreadLimit 64\n"
             "MinSpareThreads 64\nMaxSpareThreads 256\nMaxRequestWorkers 256\n")


_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """For preexec_fn: this process gets SIGTERM when the tests are killed."""
    _libc.prctl(1, signal.SIGTERM)


def run_user():
    for name in ("www-data", "apache", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("no unprivileged user for httpd: www-data, apache or nobody")


def run_group():
    return grp.getgrgid(pwd.getpwnam(run_user()).pw_gid).gr_name


def _dedent(text):
    return "\n".join(line.strip() for line in text.strip("\n").splitlines())


def _describe(p):
    try:
        return f"{p.pid} ({' '.join(p.cmdline()) or p.name()})"
    except psutil.Error:
        return str(p.pid)


def site_packages():
    """A directory with the Python packages of this interpreter that the server's user may read:
    the interpreter's own where possible, else a copy in the work directory."""
    import django  # the package that the server-side applications need

    where = Path(django.__file__).resolve().parent.parent
    if os.geteuid() != 0 or reachable(where):
        return where
    copy = workdir() / "site-packages"
    if not copy.exists():
        shutil.copytree(where, copy, ignore=shutil.ignore_patterns("__pycache__", "pip", "*.pyc"))
    return copy


def python():
    return sys.executable
