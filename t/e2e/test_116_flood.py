# SPDX-License-Identifier: Apache-2.0
"""A client that has sent more than its request is carried by the thread of its request: what it goes
on to send is thrown away, and its end is seen behind it."""

import contextlib

import pytest

import sse
from harness import TLS_CA
from publish import item, publish


@pytest.mark.parametrize("flood", [0, 64 * 65536], ids=["quiet", "flood"])
def test_pumped_client_leaves(make_httpd, origin, channel, flood):
    server = make_httpd()
    server.tls_proxy(origin.port)
    server.publisher()
    server.start()
    with sse.Stream.opened(server.port("tls"), origin.hold(channel, b"open."), wrap=sse.tls(TLS_CA),
                           behind=sse.request_bytes(origin.answer(b"second"))) as s:
        publish(server.port("publish"), item(channel, "held."))
        s.wait_body(b"open.held.")
        s.client.sock.settimeout(2)
        with contextlib.suppress(OSError):
            for _ in range(flood // 65536):
                s.client.send(b"x" * 65536)
    server.wait_status(streams=0, reserved=0)
    server.close()
