# SPDX-License-Identifier: Apache-2.0
"""Who may subscribe at the native endpoint: tokens, where they are carried, what they open."""

import base64
import json
import time

import jwt
import pytest

import sse
from harness import unique
from publish import item, publish

KEY = "a secret of more than thirty-two bytes"


@pytest.fixture(scope="module")
def httpd(make_httpd):
    server = make_httpd()
    server.publisher()
    server.site("main", f"""
        <Location /events/>
            SetHandler eventstream
            EventStreamSubscribeKey mysite "{KEY}"
        </Location>
        <Location /any/>
            SetHandler eventstream
            EventStreamChannelPrefix events-
            EventStreamSubscribeKey "{KEY}"
        </Location>
        <Location /fixed/>
            SetHandler eventstream
            EventStreamChannel news room-1
            EventStreamSubscribeKey "{KEY}"
        </Location>
        <Location /allow/>
            SetHandler eventstream
            EventStreamAllowChannels a*
            EventStreamSubscribeKey "{KEY}"
        </Location>
        <Location /required/>
            SetHandler eventstream
            Require ip 127.0.0.2
        </Location>
    """)
    return server.start()


def token(key=KEY, algorithm="HS256", **claims):
    claims = {"iss": "mysite", "exp": int(time.time()) + 600, **claims}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm)


def bearer(text):
    return [("Authorization", f"Bearer {text}")]


def ask(httpd, target, **args):
    with sse.Client(httpd.port("main")) as c:
        return c.get(target, **args)


def unauthorized(answer, *parts):
    assert answer.code == 401, answer
    assert answer.get("WWW-Authenticate").startswith('Bearer realm="events"'), answer
    for part in parts:
        assert part in answer.body.decode(), answer


def gets(httpd, target, channel, **args):
    with sse.Stream.opened(httpd.port("main"), target, **args) as stream:
        stream.wait_for(b"retry: 3000\n\n")
        text = f"data: {unique()}\n\n".encode()
        publish(httpd.port("publish"), item(channel, text.decode()))
        stream.wait_for(text)


@pytest.mark.parametrize("claims", [
    {"channels": ["{0}"]}, {"channels": "{0}"}, {"channels": ["x", "ch-*"]},
    {"channels": [], "subscribe": ["{0}"]}, {"channels": ["*"], "publish": []},
])
def test_a_token_opens_its_channels(httpd, channel, claims):
    text = json.dumps(claims).replace("{0}", channel)
    gets(httpd, f"/events/{channel}", channel, headers=bearer(token(**json.loads(text))))


def test_where_a_token_is(httpd, channel):
    good, bad = token(channels=[channel]), token(channels=["other"])
    target = f"/events/?channel={channel}"
    gets(httpd, f"{target}&token={good}", channel)
    gets(httpd, target, channel, headers=[("Cookie", f"a=b; eventstream_token={good}; c=d")])
    # the header counts before the query, the query before the cookie
    gets(httpd, f"{target}&token={bad}", channel, headers=bearer(good))
    gets(httpd, f"{target}&token={good}", channel, headers=[("Cookie", f"eventstream_token={bad}")])
    # a login of another kind is no token
    gets(httpd, f"{target}&token={good}", channel, headers=[("Authorization", "Basic YTpi")])


def test_names_are_those_of_the_url(httpd, channel):
    headers = bearer(token(channels=[channel]))
    gets(httpd, f"/any/{channel}", f"events-{channel}", headers=headers)
    headers = bearer(token(channels=[f"events-{channel}"]))
    assert ask(httpd, f"/any/{channel}", headers=headers).code == 403


def part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


FOREVER = {"iss": "mysite", "exp": 4102444800, "channels": ["*"]}


@pytest.mark.parametrize("text,parts", [
    (lambda: None, ["a token is needed", "eventstream_token"]),
    (lambda: "x", ["token refused"]),
    (lambda: token(key="another secret, just as long as it is"), ["signature"]),
    (lambda: token(exp=int(time.time()) - 1), ["expired"]),
    (lambda: token(exp=None), ["'exp'"]),
    (lambda: token(iss="others"), ["'iss'"]),
    (lambda: token(iss=None), ["'iss'"]),
    (lambda: token(nbf=int(time.time()) + 600), ["not valid yet"]),
    (lambda: token(channels=7), ["channels"]),
    (lambda: part({"alg": "none"}) + "." + part(FOREVER) + ".", ["token refused"]),
    (lambda: token(algorithm="HS512", channels=["*"]), ["algorithm is not HS256"]),
])
def test_bad_tokens(httpd, channel, text, parts):
    text = text()
    headers = bearer(text) if text else []
    answer = ask(httpd, f"/events/{channel}", headers=headers)
    unauthorized(answer, *parts)
    assert ("invalid_token" in answer.get("WWW-Authenticate")) == (text is not None)


@pytest.mark.parametrize("claims", [{}, {"channels": []}, {"channels": ["other"]},
                                    {"channels": ["*"], "subscribe": ["other"]},
                                    {"publish": ["*"]}])
def test_a_token_for_other_channels(httpd, channel, claims):
    answer = ask(httpd, f"/events/{channel}", headers=bearer(token(**claims)))
    assert answer.code == 403, answer
    assert answer.body.decode() == f"Permission denied to channels: {channel}\n"


def test_all_that_is_refused_is_named(httpd):
    headers = bearer(token(channels=["a1", "b"]))
    answer = ask(httpd, "/allow/?channel=a1,a2,b", headers=headers)
    assert answer.code == 403
    assert answer.body == b"Permission denied to channels: b, a2\n"


def test_a_token_bounds_fixed_channels_too(httpd):
    gets(httpd, "/fixed/", "room-1", headers=bearer(token(channels=["news", "room-?"])))
    answer = ask(httpd, "/fixed/", headers=bearer(token(channels=["news"])))
    assert answer.body == b"Permission denied to channels: room-1\n"


def test_require(httpd, channel):
    httpd.allow(r"AH01630")
    assert ask(httpd, f"/required/{channel}").code == 403
