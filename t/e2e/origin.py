# SPDX-License-Identifier: Apache-2.0
"""A small application behind the proxy: a real HTTP/1.1 server that says what a test tells it to.

Each test adds the paths that it needs; a path's handler gets the request and writes bytes. answer()
and hold() make the usual handlers. Connections are kept alive, as real application servers do.
"""

import itertools
import socket
import threading


class Request:
    def __init__(self, raw, rfile):
        lines = raw.split(b"\r\n")
        self.method, self.target, self.version = lines[0].decode("latin-1").split(" ", 2)
        self.headers = []
        for line in lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            self.headers.append((name, value.strip()))
        length = int(self.get("Content-Length") or 0)
        self.body = rfile.read(length) if length else b""

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None

    @property
    def path(self):
        return self.target.split("?")[0]


class Origin:
    """Listens on 127.0.0.1; one thread for each connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.paths = {}
        self.requests = {}
        self.connections = 0
        self.errors = []
        self._open = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self):
        with self._lock:
            sockets = list(self._open)
        for s in [self.listener, *sockets]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(10)
        self.listener.close()

    # ---- what tests say ------------------------------------------------------------------------

    def add(self, handler):
        """A new path that `handler(request, write)` answers."""
        path = f"/o/{next(self._numbers)}"
        self.paths[path] = handler
        self.requests[path] = []
        return path

    def answer(self, body=b"", *, status="200 OK", headers=(), length=True):
        """A path with a fixed answer."""
        lines = [f"HTTP/1.1 {status}"] + [f"{n}: {v}" for n, v in headers]
        if length:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

        def handler(request, write):
            write(head if request.method == "HEAD" else head + body)

        return self.add(handler)

    def hold(self, channels, body=b"", *, headers=(), mode="stream", type="text/event-stream",
             status="200 OK"):
        """A path that is held on a channel, or several: names, or whole Grip-Channel elements."""
        if isinstance(channels, str):
            channels = [channels]
        grip = [("Content-Type", type), ("Grip-Hold", mode)]
        if channels:
            grip.append(("Grip-Channel", ", ".join(channels)))
        return self.answer(body, status=status, headers=[*grip, *headers])

    def seen(self, path):
        """The requests for a path, as they came."""
        with self._lock:
            return list(self.requests[path])

    # ---- the server ------------------------------------------------------------------------------

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with sock, sock.makefile("rb") as rfile:
                while self._one(sock, rfile):
                    pass
        except OSError:
            pass  # the proxy went away
        finally:
            with self._lock:
                self._open.discard(sock)

    def _one(self, sock, rfile):
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            line = rfile.readline(65537)
            if not line:
                return False
            raw += line
        request = Request(raw[:-4], rfile)
        handler = self.paths.get(request.path)
        if handler is None:
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n")
            return True
        with self._lock:
            self.requests[request.path].append(request)
        keep = handler(request, sock.sendall)
        return keep is not False
