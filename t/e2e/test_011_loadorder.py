# SPDX-License-Identifier: Apache-2.0
"""The wrap around mod_proxy and mod_wsgi works in whatever order the modules are loaded, and
however a request came to the proxy."""

import pytest

import sse
from harness import unique
from publish import Publisher, close_item

APPLICATION = """
import os, time

def slow(path):
    yield b'one.'
    while not os.path.exists(path):
        time.sleep(0.01)
    yield b'two.'

def application(environ, start_response):
    if environ['PATH_INFO'] == '/plain':
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [environ.get('HTTP_GRIP_SIG', 'none').split('.')[0].encode()[:3]]
    if environ['PATH_INFO'] == '/slow':
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return slow(environ['QUERY_STRING'])
    start_response('200 OK', [
        ('Content-Type', 'text/event-stream'), ('Content-Length', '5'), ('Set-Cookie', 'a=1'),
        ('Set-Cookie', 'b=2'), ('Grip-Hold', 'stream'),
        ('Grip-Channel', environ['QUERY_STRING'])])
    return [b'wsgi.']
"""


@pytest.fixture(scope="module", params=["first", "last"])
def httpd(request, make_httpd, origin):
    server = make_httpd(f"order-{request.param}", module_first=request.param == "first",
                        modules=["wsgi", "rewrite", "slotmem_shm", "proxy", "proxy_balancer",
                                 "lbmethod_byrequests"])
    script = server.root / "app.wsgi"
    script.write_text(APPLICATION)
    server.add("WSGIDestroyInterpreter Off")  # else mod_wsgi's children hang when they end
    server.grip_proxy(origin.port)
    server.site("wsgi", f"WSGIScriptAlias / {script}\n"
                        "<Location />\nEventStreamGrip On\n</Location>")
    server.site("rewrite", f"""
        RewriteEngine On
        RewriteRule "^/(.*)$" "http://127.0.0.1:{origin.port}/$1" [P]
        <Location />
            EventStreamGrip On
        </Location>
    """)
    server.site("balancer", f"""
        <Proxy "balancer://app">
            BalancerMember "http://127.0.0.1:{origin.port}"
        </Proxy>
        ProxyPass "/" "balancer://app/"
        <Location />
            EventStreamGrip On
        </Location>
    """)
    server.publisher()
    yield server.start()
    server.close()


@pytest.mark.parametrize("how", ["main", "rewrite", "balancer"])
def test_proxy(httpd, origin, how):
    channel = unique()
    path = origin.hold(channel, b"open.")
    with sse.Stream.opened(httpd.port(how), path) as s, Publisher(httpd.port("publish")) as p:
        assert not [n for n in s.head.names() if n.startswith("grip-")]
        p.text(channel, "one.")
        p.text(channel, "two.")
        p.send(close_item(channel))
        s.wait_clean_end()
    assert s.body == b"open.one.two."
    assert len(origin.seen(path)) == 1  # the application was asked once
    with sse.Client(httpd.port(how)) as c:
        assert c.get(origin.answer(b"plain")).body == b"plain"


def test_wsgi(httpd):
    channel = unique()
    with sse.Stream.opened(httpd.port("wsgi"), f"/held?{channel}") as s, \
            Publisher(httpd.port("publish")) as p:
        assert not [n for n in s.head.names() if n.startswith("grip-")]
        assert s.head.open_ended and s.head.all("Set-Cookie") == ["a=1", "b=2"]
        p.text(channel, "one.")
        p.send(close_item(channel))
        s.wait_clean_end()
    assert s.body == b"wsgi.one."
    with sse.Client(httpd.port("wsgi")) as c:
        assert c.get("/plain").body == b"eyJ"  # a token was handed in


def test_wsgi_passthrough_is_not_buffered(httpd):
    """What a WSGI application yields arrives before it yields the next piece."""
    flag = httpd.root / "run" / unique("go")
    with sse.Stream.opened(httpd.port("wsgi"), f"/slow?{flag}") as s:
        try:
            s.wait_body(b"one.")
        finally:
            flag.touch()
        s.wait_body(b"one.two.")
        s.wait_body_end()


def test_static_files_are_served(httpd):
    """The wrap leaves what is not an application's alone."""
    (httpd.root / "htdocs" / "file.txt").write_text("static\n")
    with sse.Client(httpd.port("control")) as c:
        answer = c.get("/file.txt")
        assert (answer.code, answer.body) == (200, b"static\n")
