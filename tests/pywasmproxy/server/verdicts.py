"""HTTP/1.1 messages and the verdicts on them, run on both codecs.

Each row: name, raw bytes of a client, then either the status of the refusal or the events that must come out,
in short form: (method, authority, path), body bytes, trailers.
"""

from __future__ import annotations

HOST = b"Host: a.test\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def get(fields: bytes = b"", target: bytes = b"/g") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED: list[tuple[str, bytes, int]] = [
    ("content-length and transfer-encoding", post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    ("transfer-encoding and content-length", post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"), 400),
    ("two lengths", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcdef"), 400),
    ("two equal lengths", post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    ("list of lengths", post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    ("signed length", post(b"Content-Length: +3\r\n", b"abc"), 400),
    ("negative length", post(b"Content-Length: -3\r\n", b"abc"), 400),
    ("hexadecimal length", post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    ("empty length", post(b"Content-Length: \r\n", b"abc"), 400),
    ("huge length", post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    ("blank before colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("tab before colon", b"GET / HTTP/1.1\r\nHost: a\r\nx\t: a\r\n\r\n", 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("no host but absolute target", b"GET http://b/ HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ("two equal hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
    ("host with blank", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
    ("host with slash", b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    ("host with at-sign", b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400),
    ("NUL in value", get(b"x: a\0b\r\n"), 400),
    ("NUL in name", get(b"x\0: a\r\n"), 400),
    ("NUL in target", get(target=b"/\0"), 400),
    ("control byte in value", get(b"x: a\x01b\r\n"), 400),
    ("DEL in value", get(b"x: a\x7fb\r\n"), 400),
    ("bare CR in value", get(b"x: a\rb\r\n"), 400),
    ("vertical tab before chunked", post(b"transfer-encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    ("coding gzip", post(b"transfer-encoding: gzip\r\n"), 501),
    ("coding list", post(b"transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    ("coding twice", post(CHUNKED + CHUNKED, b"0\r\n\r\n"), 501),
    ("coding identity", post(b"transfer-encoding: identity\r\n"), 501),
    ("coding chunked in quotes", post(b'transfer-encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    ("coding chunked, chunked", post(b"transfer-encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 501),
    ("coding xchunked", post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    ("coding empty", post(b"transfer-encoding:\r\n", b"0\r\n\r\n"), 501),
    ("gzip and a length", post(b"Content-Length: 3\r\ntransfer-encoding: gzip\r\n", b"abc"), 501),
    ("negative chunk", post(CHUNKED, b"-1\r\n\r\n"), 400),
    ("chunk size overflow", post(CHUNKED, b"fffffffffffffffff\r\nabc"), 400),
    ("chunk size in other digits", post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    ("blank behind chunk size", post(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    ("empty chunk size", post(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"), 400),
    ("bare LF behind chunk size", post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"), 400),
    ("bare LF behind chunk", post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"), 400),
    ("chunk longer than its size", post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    ("control byte in chunk extension", post(CHUNKED, b"3;\x01\r\nabc\r\n0\r\n\r\n"), 400),
    ("long chunk extension", post(CHUNKED, b"3;" + b"a" * 5000), 400),
    ("bare LF in trailers", post(CHUNKED, b"0\r\nx: a\n\r\n\r\n"), 400),
    ("folded trailer", post(CHUNKED, b"0\r\nx: a\r\n b\r\n\r\n"), 400),
    ("blank before trailer's colon", post(CHUNKED, b"0\r\nx : a\r\n\r\n"), 400),
    ("length in trailers", post(CHUNKED, b"0\r\ncontent-length: 5\r\n\r\n"), 400),
    ("coding in trailers", post(CHUNKED, b"0\r\ntransfer-encoding: chunked\r\n\r\n"), 400),
    ("host in trailers", post(CHUNKED, b"0\r\nhost: b\r\n\r\n"), 400),
    ("large headers", get(b"x: " + b"a" * 61441 + b"\r\n"), 431),
    ("large headers without end", b"GET / HTTP/1.1\r\nx: " + b"a" * 70000, 431),
    ("101 headers", get(b"x: a\r\n" * 100), 431),
    ("many trailers", post(CHUNKED, b"0\r\n" + b"x: a\r\n" * 101 + b"\r\n"), 431),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 426),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", 426),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("bare LF everywhere", b"GET / HTTP/1.1\nhost: a\n\n", 400),
    ("bare LF once", b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n", 400),
    ("bare LF at the end", b"GET / HTTP/1.1\r\nhost: a\r\n\n", 400),
    ("folded line", get(b"x: a\r\n b\r\n"), 400),
    ("folded first line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("unknown method", b"FOO / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("lower-case method", b"get / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("no method", b" / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("two blanks", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("blank behind version", b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n", 400),
    ("lower-case protocol", b"GET / http/1.1\r\nhost: a\r\n\r\n", 400),
    ("no version", b"GET /\r\nhost: a\r\n\r\n", 400),
    ("garbage", b"garbage\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    ("relative target", get(target=b"x"), 400),
    ("star with GET", get(target=b"*"), 400),
    ("fragment", get(target=b"/a#b"), 400),
    ("other scheme", get(target=b"ftp://a/"), 400),
    ("bytes above 0x7f in target", get(target=b"/\xff"), 400),
    ("no header name", get(b": x\r\n"), 400),
    ("no colon", get(b"x\r\n"), 400),
    ("blank in name", get(b"x y: a\r\n"), 400),
    ("name beyond ASCII", get(b"\xe9: a\r\n"), 400),
]

ACCEPTED: list[tuple[str, bytes, list[object]]] = [
    ("bare GET", get(), [("GET", "a.test", "/g"), []]),
    ("two requests", get() + get(target=b"/2"), [("GET", "a.test", "/g"), [], ("GET", "a.test", "/2"), []]),
    ("empty lines before", b"\r\n\r\n" + get(), [("GET", "a.test", "/g"), []]),
    ("length", post(b"Content-Length: 3\r\n", b"abc"), [("POST", "a.test", "/p"), b"abc", []]),
    ("length zero", post(b"Content-Length: 0\r\n"), [("POST", "a.test", "/p"), []]),
    ("POST without body", post(b""), [("POST", "a.test", "/p"), []]),
    ("GET with body", get(b"content-length: 1\r\n") + b"x", [("GET", "a.test", "/g"), b"x", []]),
    (
        "chunks",
        post(CHUNKED, b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        [("POST", "a.test", "/p"), b"abc0123456789", []],
    ),
    ("Chunked", post(b"transfer-encoding: Chunked\r\n", b"0\r\n\r\n"), [("POST", "a.test", "/p"), []]),
    ("leading zeros", post(CHUNKED, b"0003\r\nabc\r\n000\r\n\r\n"), [("POST", "a.test", "/p"), b"abc", []]),
    (
        "chunk extension",
        post(CHUNKED, b'3;a="b";c\r\nabc\r\n0\r\n\r\n'),
        [("POST", "a.test", "/p"), b"abc", []],
    ),
    (
        "trailers",
        post(CHUNKED, b"1\r\nx\r\n0\r\nX-T: 1\r\nX-T: 2\r\n\r\n"),
        [("POST", "a.test", "/p"), b"x", [("x-t", "1"), ("x-t", "2")]],
    ),
    (
        "next behind chunks",
        post(CHUNKED, b"0\r\n\r\n") + get(),
        [("POST", "a.test", "/p"), [], ("GET", "a.test", "/g"), []],
    ),
    (
        "next behind length",
        post(b"content-length: 1\r\n", b"x") + get(),
        [("POST", "a.test", "/p"), b"x", [], ("GET", "a.test", "/g"), []],
    ),
    ("absolute target", get(target=b"http://b.test:81/x?y"), [("GET", "b.test:81", "/x?y"), []]),
    ("absolute target without path", get(target=b"http://b.test"), [("GET", "b.test", "/"), []]),
    ("absolute target with query only", get(target=b"http://b.test?q"), [("GET", "b.test", "/?q"), []]),
    ("star", b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", [("OPTIONS", "a", "*"), []]),
    ("empty host", b"GET / HTTP/1.1\r\nhost:\r\n\r\n", [("GET", "", "/"), []]),
    ("IPv6 host", b"GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", [("GET", "[::1]:80", "/"), []]),
    ("bytes above 0x7f in value", get(b"x: \xff\xfe\r\n"), [("GET", "a.test", "/g"), []]),
    ("tab and blanks around a value", get(b"x:\t a b \t\r\n"), [("GET", "a.test", "/g"), []]),
    ("100 headers", get(b"x: a\r\n" * 99), [("GET", "a.test", "/g"), []]),
    ("other methods", b"M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n", [("M-SEARCH", "a", "/"), []]),
    ("upgrade", get(b"connection: upgrade\r\nupgrade: websocket\r\n"), [("GET", "a.test", "/g"), []]),
    (
        "upgrade and the next",
        get(b"connection: upgrade\r\nupgrade: x\r\n") + get(),
        [("GET", "a.test", "/g"), [], ("GET", "a.test", "/g"), []],
    ),
]
