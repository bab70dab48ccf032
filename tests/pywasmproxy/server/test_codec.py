"""Both codecs, one verdict list; framing, cuts at every byte, differential fuzzing against each other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywasmproxy.server.codec import (
    Data,
    EndOfMessage,
    Framing,
    HeadParser,
    ProtocolError,
    RequestHead,
    ResponseHead,
    head_parser,
)
from pywasmproxy.server.readers import RequestReader, ResponseReader
from tests.pywasmproxy.server.verdicts import ACCEPTED, CHUNKED, HOST, REFUSED, get, post

PARSERS = ["h11", "httptools"]


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> HeadParser:
    if request.param == "httptools":
        pytest.importorskip("httptools", reason="extra: fast")
    return head_parser(request.param)


def events(reader: RequestReader | ResponseReader, pieces: list[bytes], eof: bool = False) -> list[object]:
    """Feed pieces; short forms of all events, adjoining data joined; a refusal is its status, last."""
    out: list[object] = []
    try:
        for piece in [*pieces, None]:
            if piece is not None:
                reader.feed(piece)
            elif eof:
                reader.feed_eof()
            while (event := reader.next_event()) is not None:
                match event:
                    case RequestHead():
                        out.append((event.method.decode(), event.authority.decode(), event.path.decode()))
                    case ResponseHead():
                        out.append((event.status, event.framing))
                    case Data():
                        assert event.data
                        if out and isinstance(out[-1], bytes):
                            out[-1] += event.data
                        else:
                            out.append(event.data)
                        if event.ends:
                            out.append([])
                    case EndOfMessage():
                        out.append([(name.decode(), value.decode()) for name, value in event.trailers])
    except ProtocolError as error:
        out.append(error.status if error.detail else "no reason given")
    return out


@pytest.mark.parametrize(("raw", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(parser: HeadParser, raw: bytes, status: int) -> None:
    assert events(RequestReader(parser), [raw])[-1] == status


@pytest.mark.parametrize(("raw", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_byte_by_byte(parser: HeadParser, raw: bytes, status: int) -> None:
    step = 1 if len(raw) < 1000 else 4000
    pieces = [raw[i : i + step] for i in range(0, len(raw), step)]
    assert events(RequestReader(parser), pieces)[-1] == status


@pytest.mark.parametrize(("raw", "wanted"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(parser: HeadParser, raw: bytes, wanted: list[object]) -> None:
    assert events(RequestReader(parser), [raw]) == wanted


@pytest.mark.parametrize(("raw", "wanted"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted_cut_anywhere(parser: HeadParser, raw: bytes, wanted: list[object]) -> None:
    assert events(RequestReader(parser), [raw[i : i + 1] for i in range(len(raw))]) == wanted
    for cut in range(1, len(raw), 7):
        assert events(RequestReader(parser), [raw[:cut], raw[cut:]]) == wanted


def test_names_are_lower_case_and_values_bare(parser: HeadParser) -> None:
    reader = RequestReader(parser)
    reader.feed(get(b"X-Dup:  1 \r\nx-dup: \xff\r\nEmpty:\r\n"))
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    assert head.headers == [(b"host", b"a.test"), (b"x-dup", b"1"), (b"x-dup", b"\xff"), (b"empty", b"")]


@pytest.mark.parametrize(
    ("raw", "keep_alive", "expects", "upgrade"),
    [
        (get(), True, False, b""),
        (get(b"connection: close\r\n"), False, False, b""),
        (get(b"Connection: x, Close\r\n"), False, False, b""),
        (get(b"connection: Upgrade\r\nupgrade: WebSocket\r\n"), True, False, b"websocket"),
        (get(b"upgrade: websocket\r\n"), True, False, b""),
        (post(b"expect: 100-Continue\r\ncontent-length: 1\r\n"), True, True, b""),
        (post(b"expect: other\r\ncontent-length: 1\r\n"), True, False, b""),
    ],
)
def test_facts_of_a_head(
    parser: HeadParser, raw: bytes, keep_alive: bool, expects: bool, upgrade: bytes
) -> None:
    reader = RequestReader(parser)
    reader.feed(raw)
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    assert (head.keep_alive, head.expects_continue, head.upgrade) == (keep_alive, expects, upgrade)


def test_http_10_where_it_is_allowed(parser: HeadParser) -> None:
    reader = RequestReader(parser, accept_http_10=True, default_host=b"fallback")
    reader.feed(b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n")
    first = reader.next_event()
    assert isinstance(first, RequestHead)
    assert (first.authority, first.keep_alive, first.minor) == (b"fallback", False, 0)
    assert reader.next_event() == EndOfMessage()
    second = reader.next_event()
    assert isinstance(second, RequestHead)
    assert (second.authority, second.keep_alive) == (b"a", True)
    no_host = RequestReader(parser, accept_http_10=True)
    assert events(no_host, [b"GET / HTTP/1.0\r\n\r\n"]) == [400]
    chunked = RequestReader(parser, accept_http_10=True)
    assert events(chunked, [b"POST / HTTP/1.0\r\nhost: a\r\n" + CHUNKED + b"\r\n"]) == [400]


def test_nothing_more_after_a_refusal(parser: HeadParser) -> None:
    reader = RequestReader(parser)
    assert events(reader, [b"garbage\r\n\r\n"]) == [400]
    assert events(reader, [get()]) == []


def test_end_of_input(parser: HeadParser) -> None:
    assert events(RequestReader(parser), [], eof=True) == []
    assert events(RequestReader(parser), [b"GET /"], eof=True) == [400]
    assert events(RequestReader(parser), [post(b"content-length: 3\r\n", b"ab")], eof=True)[-1] == 400
    assert events(RequestReader(parser), [post(CHUNKED, b"3\r\nab")], eof=True)[-1] == 400
    assert events(RequestReader(parser), [post(CHUNKED, b"0\r\nx: ")], eof=True)[-1] == 400
    reader = RequestReader(parser)
    assert reader.at_start
    reader.feed(b"GE")
    assert not reader.at_start
    assert reader.buffered == 2


RESPONSES: list[tuple[str, bytes, bytes, bool, list[object]]] = [
    (
        "length",
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        False,
        [(200, Framing.LENGTH), b"ok", []],
    ),
    ("no reason", b"GET", b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", False, [(200, Framing.LENGTH), []]),
    (
        "chunked",
        b"GET",
        b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\nt: 1\r\n\r\n",
        False,
        [(200, Framing.CHUNKED), b"ok", [("t", "1")]],
    ),
    ("until close", b"GET", b"HTTP/1.1 200 OK\r\n\r\nok", True, [(200, Framing.EOF), b"ok", []]),
    ("HEAD", b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", False, [(200, Framing.NONE), []]),
    ("HEAD chunked", b"HEAD", b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n", False, [(200, Framing.NONE), []]),
    ("204", b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", False, [(204, Framing.NONE), []]),
    (
        "304",
        b"GET",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        False,
        [(304, Framing.NONE), []],
    ),
    (
        "interim",
        b"GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
        False,
        [(100, Framing.NONE), (103, Framing.NONE), (204, Framing.NONE), []],
    ),
    (
        "status 999",
        b"GET",
        b"HTTP/1.1 999 x\r\ncontent-length: 0\r\n\r\n",
        False,
        [(999, Framing.LENGTH), []],
    ),
    ("garbage", b"GET", b"garbage\r\n\r\n", False, [502]),
    ("garbage start", b"GET", b"\x00\x01\x02", False, [400]),
    (
        "101",
        b"GET",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        False,
        [502],
    ),
    (
        "both framings",
        b"GET",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        False,
        [-1],
    ),
    (
        "two lengths",
        b"GET",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab",
        False,
        [-1],
    ),
    ("gzip coding", b"GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab", False, [-1]),
    ("bad header", b"GET", b"HTTP/1.1 200 OK\r\nx y: 2\r\n\r\nab", False, [-1]),
    ("too many", b"GET", b"HTTP/1.1 200 OK\r\n" + b"x: 2\r\n" * 101 + b"\r\n", False, [-1]),
    ("too long", b"GET", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70000, False, [-1]),
    ("cut head", b"GET", b"HTTP/1.1 200 OK\r\nx: ", True, [-1]),
    (
        "cut length",
        b"GET",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        True,
        [(200, Framing.LENGTH), b"ab", -1],
    ),
    (
        "cut chunk",
        b"GET",
        b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n3\r\nab",
        True,
        [(200, Framing.CHUNKED), b"ab", -1],
    ),
    ("HTTP/2", b"GET", b"HTTP/2 200 OK\r\n\r\n", False, [502]),
]


@pytest.mark.parametrize(
    ("method", "raw", "eof", "wanted"), [row[1:] for row in RESPONSES], ids=[row[0] for row in RESPONSES]
)
def test_responses(parser: HeadParser, method: bytes, raw: bytes, eof: bool, wanted: list[object]) -> None:
    step = 1 if len(raw) < 1000 else 5000
    for pieces in [raw], [raw[i : i + step] for i in range(0, len(raw), step)]:
        reader = ResponseReader(parser)
        reader.expect(method)
        got = events(reader, pieces, eof)
        if wanted[-1] == -1:  # refused, whatever the status: a client gets 502 for all of them
            assert isinstance(got[-1], int)
            assert got[:-1] == wanted[:-1]
            assert events(reader, [b"HTTP/1.1 200 OK\r\n\r\n"]) == []
        else:
            assert got == wanted


@pytest.mark.parametrize(
    ("fields", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n", True),
    ],
)
def test_upstream_keep_alive(parser: HeadParser, fields: bytes, keep_alive: bool) -> None:
    reader = ResponseReader(parser)
    reader.feed(fields + b"\r\n")
    head = reader.next_event()
    assert isinstance(head, ResponseHead)
    assert head.keep_alive is keep_alive
    assert reader.head_seen


def test_parsers_refuse_what_is_no_head(parser: HeadParser) -> None:
    for method in parser.request_fields, parser.response_fields:
        with pytest.raises(ValueError, match=r"."):
            method(b"")
        with pytest.raises(ValueError, match=r"."):
            method(b"nonsense\r\n\r\n")
    with pytest.raises(ValueError, match=r"."):
        parser.trailer_fields(b"a b: c\r\n\r\n")


def test_unknown_parser_falls_back_to_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pywasmproxy.server.codec_httptools", None)
    assert head_parser().name == "h11"
    with pytest.raises(ImportError):
        head_parser("httptools")


def _mutants(seed: int, count: int) -> list[bytes]:
    """Requests with a few bytes changed, lines repeated, dropped or swapped; reproducible."""
    generator = random.Random(seed)
    bases = [row[1] for row in ACCEPTED if len(row[1]) < 400] + [
        row[1] for row in REFUSED if len(row[1]) < 400
    ]
    alphabet = [
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\0",
        b"0",
        b"1",
        b"f",
        b"\xff",
        b"chunked",
    ]
    alphabet += [b"Content-Length: 3\r\n", CHUNKED, HOST, b"x: y\r\n", b"HTTP/1.0", b"/", b"%", b"#"]
    out = []
    for _ in range(count):
        raw = bytearray(generator.choice(bases))
        for _ in range(generator.randint(1, 4)):
            place = generator.randint(0, len(raw))
            match generator.randint(0, 3):
                case 0:
                    raw[place:place] = generator.choice(alphabet)
                case 1:
                    del raw[place : place + generator.randint(1, 4)]
                case 2:
                    raw[place : place + 1] = bytes([generator.randint(0, 255)])
                case _:
                    lines = bytes(raw).split(b"\r\n")
                    lines.insert(generator.randint(0, len(lines)), generator.choice(lines))
                    raw = bytearray(b"\r\n".join(lines))
        out.append(bytes(raw))
    return out


def test_fuzzed_requests_get_one_verdict() -> None:
    pytest.importorskip("httptools", reason="extra: fast")
    seed = 20261123
    one, other = head_parser("h11"), head_parser("httptools")
    for raw in _mutants(seed, 5000):
        assert events(RequestReader(one), [raw]) == events(RequestReader(other), [raw]), (seed, raw)


def test_a_head_is_read_alike_whatever_came_before_it(parser: HeadParser) -> None:
    """Fields that are those of the request before are not read again; nothing may depend on that."""
    requests = [raw for _, raw, _ in ACCEPTED] + [raw for _, raw, _ in REFUSED if len(raw) < 1000]
    sections = list(dict.fromkeys(raw.partition(b"\r\n")[2] for raw in requests))
    lines = [
        b"GET /a{b} HTTP/1.1",
        b'GET /"a HTTP/1.1',
        b"GET /a#b HTTP/1.1",
        b"GET //a HTTP/1.1",
        b"GET ? HTTP/1.1",
    ]
    lines += [
        b"FOO / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http://b.test/ HTTP/1.1",
        b"HEAD /a%zz HTTP/1.1",
    ]
    lines += dict.fromkeys(raw.partition(b"\r\n")[0] for raw in requests)
    tried = 0
    for section in sections:
        first = events(RequestReader(parser), [b"GET /first HTTP/1.1\r\n" + section])
        if not first or isinstance(first[-1], int) or section.count(b"\r\n\r\n") != 1:
            continue  # its connection is over, or it is no bare head
        for line in lines:
            reader = RequestReader(parser)
            assert events(reader, [b"GET /first HTTP/1.1\r\n" + section]) == first
            raw = line + b"\r\n" + section
            assert events(reader, [raw]) == events(RequestReader(parser), [raw]), raw
            tried += 1
    assert tried > 400


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(0, 10**6))
def test_chunks_come_out_as_they_went_in(chunks: list[bytes], seed: int) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    raw = post(CHUNKED, body)
    cuts = sorted(random.Random(seed).randint(0, len(raw)) for _ in range(4))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    joined = b"".join(chunks)
    wanted: list[object] = [("POST", "a.test", "/p"), *([joined] if joined else []), []]
    assert events(RequestReader(head_parser("h11")), pieces) == wanted


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"3", b"0", b"\r\n", b"abc", b";x", b" ", b"\n", b"t: 1", b"a", b"\r"]), max_size=9
    )
)
def test_whoever_takes_a_chunked_body_agrees_with_the_libraries(parts: list[bytes]) -> None:
    """What our decoder accepts, h11's own decoder accepts with the same result (ours is stricter)."""
    h11 = pytest.importorskip("h11")
    body = b"".join(parts)
    ours = events(RequestReader(head_parser("h11")), [post(CHUNKED, body)])
    if len(ours) < 2 or not isinstance(ours[-1], list):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(post(CHUNKED, body))
    data = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            data += bytes(event.data)
    assert data == b"".join(item for item in ours if isinstance(item, bytes))
    assert [(bytes(n).decode(), bytes(v).decode()) for n, v in event.headers] == ours[-1]


def test_chunks_of_one_read_stay_apart_up_to_a_number(parser: HeadParser) -> None:
    reader = RequestReader(parser)
    reader.feed(post(CHUNKED, b"1\r\nx\r\n" * 20 + b"0\r\n\r\n"))
    sizes = []
    while (event := reader.next_event()) is not None:
        if isinstance(event, Data):
            sizes.append(len(event.data))
    assert sizes == [1] * 8 + [12]


def test_a_204_announces_no_body(parser: HeadParser) -> None:
    reader = ResponseReader(parser)
    reader.expect(b"GET")
    reader.feed(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nx: 1\r\n\r\n")
    head = reader.next_event()
    assert isinstance(head, ResponseHead)
    assert head.headers == [(b"x", b"1")]
    assert isinstance(reader.next_event(), EndOfMessage)
    assert reader.at_start
