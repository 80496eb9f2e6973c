# SPDX-License-Identifier: Apache-2.0
"""Configuration errors: httpd -t names the line, the directive, what was found and what is
accepted."""

import pathlib
import re
import shutil
import socket

import pytest

from harness import only_plain

pytestmark = only_plain("no client is in it")


@pytest.fixture
def conf(make_httpd):
    """A server that is never started; returns a function: configuration text in, (status, text)
    out, with the line number of the text's first line checked when it is refused."""
    server = make_httpd("config", modules=["ssl"])
    server.publisher()
    count = len(server.lines)

    def check(text):
        del server.lines[count:]
        server.add(text)
        status, said = server.config_test()
        server.said_line = None
        m = re.search(r"AH00526: Syntax error on line (\d+) of (\S+):\n", said)
        if m:
            wrong = (server.root / "httpd.conf").read_text().splitlines()[int(m[1]) - 1]
            server.said_line = wrong.strip()
        return status, said, server.said_line

    return check


def test_every_directive_is_accepted(conf):
    status, said, _ = conf("""
        EventStreamPull tcp://127.0.0.1:65001 tcp://127.0.0.1:65002
        EventStreamThreads 3
        EventStreamMaxLag 262144
        EventStreamMaxStreams 100000
        EventStreamMaxStreamsPerClient 0
        EventStreamSendTimeout 2min
        EventStreamLog logs/streams
        EventStreamDrain 2min
        <VirtualHost *>
        <Location "/app">
            EventStreamGrip On
            EventStreamGripKey apache base64:Y2hhbmdlbWU=
        </Location>
        <Location "/grip">
            SetHandler eventstream-publish
            EventStreamPublishKey changeme
        </Location>
        <Location "/realm/one">
            SetHandler eventstream-publish
            EventStreamPublishKey realm1 changeme
        </Location>
        <Location "/status">
            SetHandler eventstream-status
        </Location>
        </VirtualHost>
    """)
    assert status == 0 and "Syntax OK" in said, said


# the text, the line that is named, what the message must contain
WRONG = {
    "threads-zero": ("EventStreamThreads 0", ["EventStreamThreads", "0", "1", "64"]),
    "threads-many": ("EventStreamThreads 65", ["EventStreamThreads", "65", "64"]),
    "threads-word": ("EventStreamThreads many", ["EventStreamThreads", "many", "64"]),
    "threads-junk": ("EventStreamThreads 2x", ["EventStreamThreads", "2x"]),
    "drain-word": ("EventStreamDrain soon", ["EventStreamDrain", "soon", "0 s to 1 h"]),
    "drain-unit": ("EventStreamDrain 5x", ["EventStreamDrain", "5x", "ms, s, min, h"]),
    "drain-long": ("EventStreamDrain 3601", ["EventStreamDrain", "3601", "1 h"]),
    "drain-negative": ("EventStreamDrain -1", ["EventStreamDrain", "-1", "1 h"]),
    "lag-word": ("EventStreamMaxLag big", ["EventStreamMaxLag", "big"]),
    "lag-small": ("EventStreamMaxLag 100", ["EventStreamMaxLag", "100", "16384"]),
    "lag-negative": ("EventStreamMaxLag -1", ["EventStreamMaxLag", "-1", "16384"]),
    "streams-word": ("EventStreamMaxStreams many", ["EventStreamMaxStreams", "many", "100000000"]),
    "streams-negative": ("EventStreamMaxStreams -1", ["EventStreamMaxStreams", "-1", "from 0"]),
    "per-client-junk": ("EventStreamMaxStreamsPerClient 5x",
                        ["EventStreamMaxStreamsPerClient", "5x", "whole number of streams"]),
    "timeout-zero": ("EventStreamSendTimeout 0", ["EventStreamSendTimeout", "'0'", "1 s to 1 h"]),
    "timeout-short": ("EventStreamSendTimeout 999ms", ["EventStreamSendTimeout", "999ms", "1 s"]),
    "timeout-long": ("EventStreamSendTimeout 3601", ["EventStreamSendTimeout", "3601", "1 h"]),
    "timeout-word": ("EventStreamSendTimeout soon", ["EventStreamSendTimeout", "soon", "1 h"]),
    "log-empty": ('EventStreamLog ""', ["EventStreamLog", "one argument"]),
    "log-pipe-empty": ('EventStreamLog "|"', ["EventStreamLog", "'|'", "command"]),
    "pull-scheme": ("EventStreamPull http://127.0.0.1:5560",
                    ["EventStreamPull", "http://127.0.0.1:5560", "tcp://"]),
    "pull-no-scheme": ("EventStreamPull 127.0.0.1:5560", ["EventStreamPull", "tcp://"]),
    "pull-none": ("EventStreamPull", ["EventStreamPull", "argument"]),
    "grip-word": ("<Location />\nEventStreamGrip Maybe\n</Location>",
                  ["EventStreamGrip must be On or Off"]),
    "grip-key-one": ("<Location />\nEventStreamGripKey apache\n</Location>",
                     ["EventStreamGripKey", "two arguments"]),
    "grip-key-base64": ("<Location />\nEventStreamGripKey apache base64:!!\n</Location>",
                        ["EventStreamGripKey", "base64"]),
    "grip-key-empty": ('<Location />\nEventStreamGripKey apache ""\n</Location>',
                       ["EventStreamGripKey", "two arguments"]),
    "grip-key-file": ("<Location />\nEventStreamGripKey apache file:nowhere.key\n</Location>",
                      ["EventStreamGripKey", "nowhere.key", "No such file"]),
    "publish-key-base64": ("<Location />\nEventStreamPublishKey base64:!!\n</Location>",
                           ["EventStreamPublishKey", "base64"]),
    "publish-key-file": ("<Location />\nEventStreamPublishKey file:nowhere.key\n</Location>",
                         ["EventStreamPublishKey", "nowhere.key", "No such file"]),
    "publish-key-three": ("<Location />\nEventStreamPublishKey a b c\n</Location>",
                          ["EventStreamPublishKey"]),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_value(conf, name):
    text, parts = WRONG[name]
    status, said, line = conf(text)
    assert status != 0, f"accepted: {text}\n{said}"
    directive = next(t for t in text.splitlines() if t.startswith("EventStream"))
    assert line == directive, said
    for part in parts:
        assert part in said, f"{part!r} is not in: {said}"
    assert "Segmentation" not in said


@pytest.mark.parametrize("text", [
    "<VirtualHost *>\nEventStreamPull tcp://127.0.0.1:65001\n</VirtualHost>",
    "<VirtualHost *>\nEventStreamThreads 2\n</VirtualHost>",
    "<Location />\nEventStreamMaxLag 65536\n</Location>",
    "<VirtualHost *>\nEventStreamMaxStreams 10\n</VirtualHost>",
    "<VirtualHost *>\nEventStreamMaxStreamsPerClient 10\n</VirtualHost>",
    "<VirtualHost *>\nEventStreamSendTimeout 10\n</VirtualHost>",
    "<VirtualHost *>\nEventStreamLog logs/streams\n</VirtualHost>",
    "<VirtualHost *>\nEventStreamDrain 5\n</VirtualHost>",
])
def test_server_level_only(conf, text):
    directive = text.splitlines()[1]
    status, said, line = conf(text)
    assert status != 0, said
    assert line == directive, said
    assert f"{directive.split()[0]} " in said and ("not allowed" in said or "cannot occur" in said)


def test_keys_not_in_htaccess(make_httpd, origin):
    """A secret is not for whoever may write .htaccess files."""
    import sse
    server = make_httpd("htaccess")
    server.vhost("main", "")
    server.add("""
        <Directory "htdocs/user">
            AllowOverride All
        </Directory>
    """)
    (server.root / "htdocs" / "user").mkdir()
    (server.root / "htdocs" / "user" / ".htaccess").write_text("EventStreamGripKey apache secret\n")
    server.start()
    with sse.Client(server.port()) as c:
        assert c.get("/user/").code == 500
    server.wait_log(r"EventStreamGripKey not allowed here")


def test_config_test_binds_nothing(make_httpd):
    """httpd -t on a running server's configuration must not touch its sockets."""
    server = make_httpd("bound")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.add(f"EventStreamPull tcp://127.0.0.1:{taken.getsockname()[1]}")
        status, said = server.config_test()
    assert status == 0 and "Syntax OK" in said, said
    assert "ES0" not in said, said


KEYS = pathlib.Path(__file__).resolve().parents[1] / "fuzz" / "corpus" / "key"


@pytest.mark.parametrize("directive, key, said_too", [
    ("EventStreamGripKey x", "ec_private", None),
    ("EventStreamGripKey x", "rsa_private", None),
    ("EventStreamGripKey x", "rsa_public", "key is a public one; a private key or a secret"),
    ("EventStreamPublishKey", "ec_public", None),
    ("EventStreamPublishKey x", "rsa_public", None),
    ("EventStreamPublishKey", "ec_private", "key is a private one; a public key or a secret"),
    ("EventStreamPublishKey", "bad_small", "key is RSA of 1024 bits, at least 2048"),
    ("EventStreamPublishKey", "bad_password", "key is PEM with a password; accepted are PUBLIC"),
])
def test_halves_of_key_pairs(make_httpd, directive, key, said_too):
    server = make_httpd("keyhalves")
    shutil.copy(KEYS / key, server.root / "the.key")
    server.add(f"<Location />\n{directive} file:the.key\n</Location>")
    status, said = server.config_test()
    if said_too is None:
        assert status == 0 and "Syntax OK" in said, said
    else:
        assert status != 0 and said_too in said, said
        assert said.count("accepted are") <= 1, said


def test_key_from_file(make_httpd):
    server = make_httpd("keyfile")
    (server.root / "grip.key").write_text("changeme\n")
    server.add(f"""
        <Location />
            EventStreamGripKey apache file:{server.root}/grip.key
            EventStreamPublishKey file:grip.key
        </Location>
    """)
    status, said = server.config_test()
    assert status == 0 and "Syntax OK" in said, said
