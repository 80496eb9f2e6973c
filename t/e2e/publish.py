# SPDX-License-Identifier: Apache-2.0
"""What publishers send: items in GRIP's forms, over HTTP and over ZeroMQ."""

import json

import tnetstring
import zmq

import sse


def item(channel, content, *, id=None, prev_id=None, meta=None, filters=None, flat=True):
    """An item with http-stream content; flat is the form of pypubcontrol over HTTP."""
    form = {"content": content}
    if filters is not None:
        form["content-filters"] = filters
    return _item(channel, form, id, prev_id, meta, flat)


def close_item(channel, *, meta=None, flat=True):
    return _item(channel, {"action": "close"}, None, None, meta, flat)


def _item(channel, form, id, prev_id, meta, flat):
    out = {"channel": channel}
    if id is not None:
        out["id"] = id
    if prev_id is not None:
        out["prev-id"] = prev_id
    if meta is not None:
        out["meta"] = meta
    if flat:
        out["http-stream"] = form
    else:
        out["formats"] = {"http-stream": form}
    return out


def body(items):
    return json.dumps({"items": items}).encode()


class Publisher:
    """A keep-alive HTTP publisher that insists on 200."""

    def __init__(self, port, path="/publish/", headers=()):
        self.client = sse.Client(port)
        self.path = path
        self.headers = list(headers)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.close()

    def send(self, *items):
        answer = self.client.post(self.path, body(items), headers=self.headers)
        assert (answer.code, answer.body) == (200, b"Published\n"), answer

    def text(self, channel, content, **args):
        self.send(item(channel, content, **args))


def publish(port, *items, path="/publish/", headers=()):
    """One POST on a connection of its own."""
    with Publisher(port, path, headers) as p:
        p.send(*items)


class Push:
    """A ZeroMQ PUSH socket, connected."""

    def __init__(self, endpoint):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 20000)
        self.socket.connect(endpoint)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()
        self.context.term()

    def raw(self, *frames):
        self.socket.send_multipart(frames)

    def bare(self, item):
        self.raw(tnetstring.dumps(to_bytes(item)))

    def tnet(self, item):
        self.raw(b"T" + tnetstring.dumps(to_bytes(item)))

    def json(self, item):
        self.raw(b"J" + json.dumps(item).encode())


def to_bytes(value):
    """Text as UTF-8, for tnetstrings."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return {to_bytes(k): to_bytes(v) for k, v in value.items()}
    if isinstance(value, list):
        return [to_bytes(v) for v in value]
    return value
