"""Header maps: values, availability per phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from abi.proxy_wasm.calls.http_fields import LINE_COST, MAX_FIELDS
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.single_value import SINGLE_VALUE
from abi.proxy_wasm.types import Action, Status
from abi.proxy_wasm.versions import AbiVersion
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
GET, ADD = "proxy_get_header_map_value", "proxy_add_header_map_value"
REPLACE = "proxy_replace_header_map_value"
REMOVE, SIZE = "proxy_remove_header_map_value", "proxy_get_header_map_size"
PAIRS, SET = "proxy_get_header_map_pairs", "proxy_set_header_map_pairs"


def in_headers(
    lines: list[tuple[str, str]],
    *questions: tuple[object, ...],
    version: AbiVersion = AbiVersion.V0_2_1,
    response: bool = False,
) -> tuple[list[tuple[bytes, bytes]], list[object]]:
    """The map's lines after host calls made in a headers callback, and the calls' answers."""
    rig = Rig(version)
    side = "response" if response else "request"
    rig.during(f"proxy_on_{side}_headers", lambda: [rig.ask(*q) for q in questions])  # type: ignore[arg-type]
    headers = HeaderMap(lines)
    getattr(rig.plugin.http_stream(), f"on_{side}_headers")(headers, True)
    return headers.lines, rig.results[f"proxy_on_{side}_headers"]


def test_get_gives_the_first_line_whatever_the_case() -> None:
    lines = [("x-a", "1"), ("x-A", "2"), ("x-e", "")]
    answers = in_headers(lines, (GET, 0, b"x-a", BYTES), (GET, 0, b"X-A", BYTES), (GET, 0, b"x-e", BYTES))[1]
    assert answers == [(OK, b"1"), (OK, b"1"), (OK, b"")]


def test_a_missing_header_is_not_found() -> None:
    assert in_headers([], (GET, 0, b"x", BYTES))[1] == [(MISSING, None)]


def test_a_missing_header_is_empty_for_0_1_0() -> None:
    assert in_headers([], (GET, 0, b"x", BYTES), version=AbiVersion.V0_1_0)[1] == [(OK, b"")]


def test_add_makes_another_line() -> None:
    lines, answers = in_headers([("x", "1"), ("y", "2")], (ADD, 0, b"X", b"3"), (GET, 0, b"x", BYTES))
    assert answers == [OK, (OK, b"1")]
    assert lines == [(b"x", b"1"), (b"y", b"2"), (b"x", b"3")]


MEASURED = [
    *((0, name) for name in (b":authority", b"host", b"user-agent", b"accept", b"content-type")),
    (0, b"content-length"),
    *((2, name) for name in (b"content-type", b"content-length", b"server", b"date")),
]
"""The names of which the ABI's document says so, spelled out beside the whole table."""


@pytest.mark.parametrize(("kind", "name"), MEASURED)
def test_the_best_known_single_value_headers_join(kind: int, name: bytes) -> None:
    stored = b":authority" if name == b"host" else name
    lines, answers = in_headers([(stored.decode(), "a")], (ADD, kind, name, b"b"), response=kind == 2)
    assert (answers, lines) == ([OK], [(stored, b"a,b")])


JOINED = [(kind, name) for kind in (0, 2) for name in sorted(SINGLE_VALUE[kind])]


@pytest.mark.parametrize(("kind", "name"), JOINED)
def test_add_joins_single_value_headers(kind: int, name: bytes) -> None:
    lines, _ = in_headers([(name.decode(), "a"), ("z", "")], (ADD, kind, name, b"b"), response=kind == 2)
    assert lines == [(name, b"a,b"), (b"z", b"")]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in (0, 2) for name in (b"cookie", b"set-cookie", b"x-own", b"")),
        (0, b"server"),
        (0, b"date"),
        (0, b"grpc-status"),
        (2, b"user-agent"),
        (2, b"accept"),
        (2, b"x-forwarded-for"),
    ],
)
def test_add_never_joins_others(kind: int, name: bytes) -> None:
    lines, _ = in_headers([(name.decode(), "a")], (ADD, kind, name, b"b"), response=kind == 2)
    assert lines == [(name, b"a"), (name, b"b")]


@pytest.mark.parametrize(("kind", "side", "joined"), [(1, "request", False), (3, "response", True)])
def test_trailers_join_the_grpc_ones_of_responses(kind: int, side: str, joined: bool) -> None:
    rig = Rig()
    questions = [(ADD, kind, name, b"b") for name in (b"grpc-status", b"grpc-message", b"content-type")]
    rig.during(f"proxy_on_{side}_trailers", lambda: [rig.ask(*question) for question in questions])
    trailers = HeaderMap([("grpc-status", "a"), ("grpc-message", "a"), ("content-type", "a")])
    getattr(rig.plugin.http_stream(), f"on_{side}_trailers")(trailers)
    grpc = [b"a,b"] if joined else [b"a", b"b"]
    assert trailers.all_bytes("grpc-status") == trailers.all_bytes("grpc-message") == grpc
    assert trailers.all_bytes("content-type") == [b"a", b"b"]


def test_host_is_another_name_for_authority_in_requests() -> None:
    lines, answers = in_headers(
        [(":authority", "a"), (":path", "/"), ("x", "1")],
        (GET, 0, b"Host", BYTES),
        (ADD, 0, b"host", b"b"),
        (GET, 0, b":authority", BYTES),
        (REPLACE, 0, b"host", b"c"),
    )
    assert answers == [(OK, b"a"), OK, (OK, b"a,b"), OK]
    assert lines == [(b":path", b"/"), (b":authority", b"c"), (b"x", b"1")]
    assert in_headers([("host", "h")], (GET, 2, b"host", BYTES), response=True)[1] == [(OK, b"h")]


def test_replace_leaves_one_line_at_the_end() -> None:
    lines, answers = in_headers([("x", "1"), ("y", "2"), ("x", "3")], (REPLACE, 0, b"X", b"4"))
    assert answers == [OK]
    assert lines == [(b"y", b"2"), (b"x", b"4")]


def test_replace_adds_what_is_missing() -> None:
    assert in_headers([("y", "2")], (REPLACE, 0, b"x", b"4"))[0] == [(b"y", b"2"), (b"x", b"4")]


def test_pseudo_headers_stay_in_front() -> None:
    lines, _ = in_headers(
        [(":path", "/"), (":method", "GET"), ("x", "1")],
        (REPLACE, 0, b":path", b"/new"),
        (ADD, 0, b":extra", b"e"),
    )
    assert lines == [(b":method", b"GET"), (b":path", b"/new"), (b":extra", b"e"), (b"x", b"1")]


def test_remove_takes_all_lines_and_does_not_mind_none() -> None:
    lines, answers = in_headers([("x", "1"), ("y", "2"), ("x", "3")], (REMOVE, 0, b"X"), (REMOVE, 0, b"nope"))
    assert answers == [OK, OK]
    assert lines == [(b"y", b"2")]


def test_size_counts_bytes() -> None:
    assert in_headers([("abc", "1"), ("d", "")], (SIZE, 0, WORD))[1] == [(OK, 5)]


def test_pairs_are_all_lines_in_order() -> None:
    lines = [("x", "1"), ("y", ""), ("x", "3")]
    pairs = encode_map([(b"x", b"1"), (b"y", b""), (b"x", b"3")])
    assert in_headers(lines, (PAIRS, 0, BYTES))[1] == [(OK, pairs)]


def test_pairs_of_an_empty_map_are_nothing() -> None:
    assert in_headers([], (PAIRS, 0, BYTES))[1] == [(OK, b"")]


def test_set_pairs_replaces_everything() -> None:
    new = encode_map([(b":status", b"203"), (b"X-A", b"1"), (b"date", b"a"), (b"date", b"b")])
    lines, answers = in_headers([(":status", "200"), ("y", "2")], (SET, 2, new), response=True)
    assert answers == [OK]
    assert lines == [(b":status", b"203"), (b"x-a", b"1"), (b"date", b"a,b")]


@pytest.mark.parametrize("data", [b"", b"\0", b"\1\0\0\0", encode_map([(b"a", b"b")]) + b"!"])
def test_undecodable_pairs_empty_the_map(data: bytes) -> None:
    assert in_headers([("y", "2")], (SET, 0, data)) == ([], [OK])


@pytest.mark.parametrize("text", [b"a\rb", b"a\nb", b"a\0b", b"\r\n"])
@pytest.mark.parametrize("what", ["name", "value"])
def test_line_breaks_and_nuls_are_refused(text: bytes, what: str) -> None:
    name, value = (text, b"v") if what == "name" else (b"n", text)
    # Sizes decide in a serialized map, so even a NUL can be sent in one.
    pairs = encode_map([(b"k", b"v"), (name, value)])
    calls = ((ADD, 0, name, value), (REPLACE, 0, name, value), (SET, 0, pairs))
    lines, answers = in_headers([("y", "2")], *calls)
    assert answers == [BAD, BAD, BAD]
    assert lines == [(b"y", b"2")]


@pytest.mark.parametrize(("name", "value"), [(b"bad name", b"v"), (b"", b"v"), (b"x", b"caf\xc3\xa9\x80")])
def test_other_odd_bytes_pass(name: bytes, value: bytes) -> None:
    assert in_headers([], (ADD, 0, name, value)) == ([(name, value)], [OK])


def all_calls(rig: Rig, kind: int) -> list[object]:
    return [
        rig.ask(GET, kind, b"x", BYTES),
        rig.ask(PAIRS, kind, BYTES),
        rig.ask(SIZE, kind, WORD),
        rig.ask(ADD, kind, b"new", b"1"),
        rig.ask(REPLACE, kind, b"new", b"1"),
        rig.ask(REMOVE, kind, b"new"),
        rig.ask(SET, kind, encode_map([(b"x", b"v")])),
    ]


ONE = encode_map([(b"x", b"v")])
CLOSED: list[object] = [(BAD, None), (OK, b""), (BAD, None), BAD, BAD, BAD, BAD]
OPEN: list[object] = [(OK, b"v"), (OK, ONE), (OK, 2), OK, OK, OK, OK]
READ_ONLY: list[object] = [(OK, b"v"), (OK, ONE), (BAD, None), BAD, BAD, BAD, BAD]
LOG_WITHOUT: list[object] = [(MISSING, None), (OK, b""), (BAD, None), BAD, BAD, BAD, BAD]
UNKNOWN: list[object] = [(BAD, None), (BAD, None), (BAD, None), BAD, BAD, BAD, BAD]

PHASES: list[tuple[str, dict[int, list[object]]]] = [
    ("proxy_on_context_create", {}),
    ("proxy_on_request_headers", {0: OPEN}),
    ("proxy_on_request_body", {}),
    ("proxy_on_request_trailers", {1: OPEN}),
    ("proxy_on_response_headers", {2: OPEN}),
    ("proxy_on_response_body", {}),
    ("proxy_on_response_trailers", {3: OPEN}),
    ("proxy_on_log", {**dict.fromkeys((0, 2, 3), READ_ONLY), **dict.fromkeys((1, 4, 5, 6, 7), LOG_WITHOUT)}),
    ("proxy_on_done", {}),
    ("proxy_on_delete", {}),
    ("proxy_on_tick", {}),
]


@pytest.mark.parametrize(("callback", "open_maps"), PHASES, ids=[name for name, _ in PHASES])
@pytest.mark.parametrize("kind", range(9))
def test_which_map_is_available_when(callback: str, open_maps: dict[int, list[object]], kind: int) -> None:
    rig = Rig()
    rig.during(callback, lambda: all_calls(rig, kind))

    def message() -> HeaderMap:
        return HeaderMap([("x", "v")])

    with rig.plugin.http_stream() as stream:
        steps: list[Callable[[], Action]] = [
            lambda: stream.on_request_headers(message(), False),
            lambda: stream.on_request_body(bytearray(b"a"), False),
            lambda: stream.on_request_trailers(message()),
            lambda: stream.on_response_headers(message(), False),
            lambda: stream.on_response_body(bytearray(b"a"), False),
            lambda: stream.on_response_trailers(message()),
        ]
        for step in steps:
            step()
        if callback == "proxy_on_tick":
            rig.plugin.tick()
    expected = UNKNOWN if kind > 7 else open_maps.get(kind, CLOSED)
    assert rig.results[callback] == expected


@pytest.mark.parametrize(
    ("version", "status", "value"), [(AbiVersion.V0_2_0, MISSING, None), (AbiVersion.V0_1_0, OK, b"")]
)
def test_a_response_that_never_was_is_missing_in_log(
    version: AbiVersion, status: Status, value: bytes | None
) -> None:
    rig = Rig(version)
    rig.during("proxy_on_log", lambda: rig.ask(GET, 2, b"x", BYTES))
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_log"] == (status, value)


@pytest.mark.parametrize(("side", "kind"), [("request", 1), ("response", 3)])
@pytest.mark.parametrize("how", [ADD, REPLACE, SET])
def test_trailers_can_be_made_as_the_body_ends(side: str, kind: int, how: str) -> None:
    rig = Rig()
    arguments = (encode_map([(b"t", b"1")]),) if how == SET else (b"t", b"1")
    rig.during(f"proxy_on_{side}_body", lambda: rig.ask(how, kind, *arguments))
    stream = rig.plugin.http_stream()
    callback = getattr(stream, f"on_{side}_body")
    callback(bytearray(b"a"), False)
    assert rig.results[f"proxy_on_{side}_body"] == BAD
    assert getattr(stream.info, f"{side}_trailers") is None
    callback(bytearray(), True)
    assert rig.results[f"proxy_on_{side}_body"] == OK
    assert getattr(stream.info, f"{side}_trailers").lines == [(b"t", b"1")]


def test_asking_for_their_size_makes_no_trailers() -> None:
    rig = Rig()
    rig.during("proxy_on_request_body", lambda: [rig.ask(SIZE, 1, WORD), rig.ask(REMOVE, 1, b"t")])
    stream = rig.plugin.http_stream()
    stream.on_request_body(bytearray(b"a"), True)
    assert rig.results["proxy_on_request_body"] == [(OK, 0), OK]
    assert stream.info.request_trailers is None


def test_held_headers_stay_available_until_the_phase_is_over() -> None:
    rig = Rig(allow_on_headers_stop_iteration=True)
    rig.returns("proxy_on_request_headers", 1)
    rig.during("proxy_on_request_body", lambda: rig.ask(GET, 0, b"x", BYTES))
    stream = rig.plugin.http_stream()
    stream.on_request_headers(HeaderMap([("x", "v")]), False)
    stream.on_request_body(bytearray(b"a"), False)
    assert rig.results["proxy_on_request_body"] == (OK, b"v")
    stream.request_phase_over()
    stream.on_request_body(bytearray(b"a"), True)
    assert rig.results["proxy_on_request_body"] == (BAD, None)


def test_held_response_headers_can_still_be_read_when_they_went_on() -> None:
    rig = Rig()
    rig.returns("proxy_on_response_headers", 1)
    rig.during("proxy_on_response_body", lambda: rig.ask(GET, 2, b"x", BYTES))
    stream = rig.plugin.http_stream()
    stream.on_response_headers(HeaderMap([("x", "v")]), False)
    stream.response_phase_over()
    stream.on_response_body(bytearray(b"a"), True)
    assert rig.results["proxy_on_response_body"] == (OK, b"v")


def test_held_trailers_and_bodies_end_with_their_phase() -> None:
    rig = Rig()
    for side in ("request", "response"):
        for what in ("body", "trailers"):
            rig.returns(f"proxy_on_{side}_{what}", 1)
    stream = rig.plugin.http_stream()
    stream.on_request_body(bytearray(b"a"), False)
    stream.on_request_trailers(HeaderMap([("x", "v")]))
    stream.on_response_body(bytearray(b"a"), False)
    stream.on_response_trailers(HeaderMap([("x", "v")]))

    def look() -> list[object]:
        rig.ask("proxy_set_effective_context", stream.id)
        maps = [rig.ask(GET, kind, b"x", BYTES)[0] for kind in (1, 3)]
        return maps + [rig.ask("proxy_get_buffer_bytes", kind, 0, 9, BYTES)[1] for kind in (0, 1)]

    rig.during("proxy_on_tick", look)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [OK, OK, b"a", b"a"]
    stream.request_phase_over()
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [BAD, OK, b"", b"a"]
    stream.response_phase_over()
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [BAD, BAD, b"", b""]


def test_pointers_outside_memory_are_refused() -> None:
    far = 0xFFFFFFF0
    bad = Status.INVALID_MEMORY_ACCESS

    def ask(rig: Rig) -> list[object]:
        return [
            rig.ask(GET, 0, far, 64, 0, 4),
            rig.ask(GET, 0, b"x", far, far),
            rig.ask(PAIRS, 0, far, far),
            rig.ask(SIZE, 0, far),
            rig.ask(ADD, 0, far, 64, 0, 1),
            rig.ask(REPLACE, 0, b"x", far, 64),
            rig.ask(REMOVE, 0, far, 64),
            rig.ask(SET, 0, far, 64),
        ]

    rig = Rig()
    rig.during("proxy_on_request_headers", lambda: ask(rig))
    rig.plugin.http_stream().on_request_headers(HeaderMap([("x", "v")]), True)
    assert rig.results["proxy_on_request_headers"] == [bad] * 8


@pytest.mark.parametrize("call", [ADD, REPLACE])
def test_a_map_cannot_grow_without_end(call: str) -> None:
    # An empty line costs something, too, or a guest could add such lines for ever.
    room = MAX_FIELDS - LINE_COST
    lines, answers = in_headers(
        [("", "")], (call, 0, b"x", b"v" * (room - LINE_COST)), (call, 0, b"x", b"v" * (room - LINE_COST - 1))
    )
    assert answers == [Status.INTERNAL_FAILURE, OK]
    assert [len(value) for _, value in lines] == [0, room - LINE_COST - 1]
