# SPDX-License-Identifier: Apache-2.0
"""Connections that cannot be held yet, TLS and HTTP/2, are refused with 501 and a clear line."""

import shutil
import ssl
import subprocess

import pytest

import sse
from harness import HERE, MPM, unique


@pytest.fixture(scope="module")
def httpd(make_httpd, origin):
    modules = ["socache_shmcb", "ssl"] + (["http2"] if MPM != "prefork" else [])
    server = make_httpd(modules=modules)
    shutil.copy(HERE / "tls.pem", server.root / "tls.pem")
    server.grip_proxy(origin.port, "tls", server=f"""
        SSLEngine On
        SSLCertificateFile {server.root}/tls.pem
        SSLCertificateKeyFile {server.root}/tls.pem
    """)
    if MPM != "prefork":
        server.grip_proxy(origin.port, "h2c", server="Protocols h2c http/1.1")
    server.publisher()
    server.always_allowed += [r"\[ssl:warn\]"]  # about the certificate and OpenSSL
    return server.start()


def test_tls(httpd, origin):
    context = ssl.create_default_context(cafile=HERE / "tls.pem")
    path = origin.hold(unique(), b"the initial body")
    plain = origin.answer(b"plain")
    since = httpd.log_mark()
    with sse.Client(httpd.port("tls"),
                    wrap=lambda s: context.wrap_socket(s, server_hostname="localhost")) as c:
        answer = c.get(plain)
        assert (answer.code, answer.body) == (200, b"plain")
        answer = c.get(path)
        assert answer.code == 501 and b"the initial body" not in answer.body
        assert not [n for n in answer.head.names() if n.startswith("grip-")]
    httpd.wait_log(r"\[eventstream:(error|warn)\].*TLS", since)
    httpd.wait_status(streams=0, reserved=0)


@pytest.mark.skipif(MPM == "prefork", reason="mod_http2 does not run under prefork")
def test_http2(httpd, origin):
    path = origin.hold(unique(), b"the initial body")
    plain = origin.answer(b"plain")
    since = httpd.log_mark()

    def curl(target):
        done = subprocess.run(
            ["curl", "-s", "--http2-prior-knowledge", "--max-time", "60", "-o", "-", "-w",
             "|%{http_version}|%{http_code}", f"http://127.0.0.1:{httpd.port('h2c')}{target}"],
            stdout=subprocess.PIPE, timeout=90, check=True)
        return done.stdout.decode()

    assert curl(plain) == "plain|2|200"
    said = curl(path)
    assert said.endswith("|2|501") and "the initial" not in said, said
    httpd.wait_log(r"\[eventstream:(error|warn)\].*HTTP/2", since)
    httpd.wait_status(streams=0, reserved=0)
