"""CEL expressions of guests: values of attributes, and bounds for hostile ones.

What Envoy gives for some 150 expressions is replayed from recordings (tests/replay/golden/foreign.json).
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from abi.proxy_wasm import cel
from abi.proxy_wasm.expressions import Expressions
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.wire import encode_integer, encode_map
from pywasmvm import Trap, TrapKind
from tests.abi.rig import Rig

SECOND = 1_000_000_000
FACTS: dict[str, Any] = {
    "connection_id": 3,
    "start_time": 1_700_000_000 * SECOND,
    "request_duration": 5 * SECOND,
    "source_address": "1.2.3.4:5678",
    "node": {"id": "me", "metadata": {"a": 1, "b": ["x", None]}},
    "dynamic_metadata": {"ns": {"n": 2, "list": [1, "two"]}},
}
HEADERS = HeaderMap([(":path", "/p?q=1"), ("x-a", "1"), ("x-a", "2"), ("x-b", "\xe9".encode("latin-1"))])


def value(source: str, rig: Rig | None = None) -> bytes | Status:
    """What an expression gives while request headers are looked at."""
    rig = rig or Rig(name="p")
    expressions = rig.plugin.expressions
    stream = rig.plugin.http_stream(StreamInfo(**FACTS))

    def evaluate() -> bytes | Status:
        token = expressions.create(source.encode())
        return (
            token
            if isinstance(token, Status)
            else expressions.evaluate(int.from_bytes(token, "little"), stream)
        )

    rig.during("proxy_on_request_headers", evaluate)
    stream.on_request_headers(HEADERS, True)
    answer: bytes | Status = rig.results["proxy_on_request_headers"]
    return answer


TRUE, FALSE = b"\1", b"\0"
FAILED, NO_BYTES = Status.INTERNAL_FAILURE, Status.SERIALIZATION_FAILURE


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("request.headers['x-a']", b"1,2"),
        ("request.headers['x-b']", b"\xe9"),  # no UTF-8, and still what it was
        ("request.headers", encode_map(HEADERS.lines)),
        ("size(request.headers) == 4", TRUE),
        ("request.time == timestamp('2023-11-14T22:13:20Z')", TRUE),
        ("request.time", encode_integer(1_700_000_000 * SECOND)),
        ("request.duration < duration('6s')", TRUE),
        ("request.duration", encode_integer(5 * SECOND)),
        ("source.port + 1", encode_integer(5679)),
        ("connection.id == 3u && connection.id == 3", TRUE),
        ("xds.node.id", b"me"),
        ("node.metadata.a", b"\0\0\0\0\0\0\xf0\x3f"),
        ("node.metadata.b[0]", b"x"),
        ("'a' in node.metadata", TRUE),
        ("metadata.filter_metadata.ns.n == 2.0", TRUE),
        ("metadata.filter_metadata['ns'].list[1]", b"two"),
        ("metadata.filter_metadata.ns.list.size() == 2", TRUE),
        ("metadata.filter_metadata.exists(k, k == 'ns')", TRUE),
        ("has(metadata.filter_metadata.other)", FALSE),
        ("request", NO_BYTES),
        ("{'a': request}", NO_BYTES),
        ("nosuch", FAILED),
        ("nosuch.member", FAILED),
        ("nosuch == 1 || true", TRUE),
        ("timestamp('1969-12-31T23:59:59Z')", encode_integer(-SECOND)),
        ("duration('-1.5s')", encode_integer(-1_500_000_000)),
        ("'a'.matches('^[a-z]$')", TRUE),
    ],
)
def test_values(source: str, expected: bytes | Status) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    "source", ["", "1 +", "(", "foo(1)", "'a'.foo()", "[1].reduce(a, b, 0, a + b)", "request.path.split('/')"]
)
def test_what_is_no_expression(source: str) -> None:
    assert value(source) == Status.BAD_ARGUMENT


def test_text_that_is_no_utf8() -> None:
    assert Rig().plugin.expressions.create(b"'\xff'") == Status.BAD_ARGUMENT


def test_properties_that_filters_stored() -> None:
    rig = Rig()
    rig.plugin.root.declared = {b"t": cel_text()}
    info = StreamInfo()
    for name in (b"t", b"b"):
        assert info.filter_state.put(b"wasm." + name, b"v")
    stream = rig.plugin.http_stream(info)
    for source, expected in {
        "t == 'v'": TRUE,
        "b == b'v'": TRUE,
        "b == 'v'": FALSE,
        "b": b"v",
        "filter_state['wasm.t']": b"v",
        "has(filter_state.nosuch)": FALSE,
    }.items():
        token = rig.plugin.expressions.create(source.encode())
        assert isinstance(token, bytes)
        assert rig.plugin.expressions.evaluate(int.from_bytes(token, "little"), stream) == expected, source


def cel_text() -> Any:
    from abi.proxy_wasm.filter_state import Declaration

    return Declaration(text=True)


# --- bounds ---------------------------------------------------------------------------------------------


def nested(times: int, body: str) -> str:
    return "[1,2,3,4,5,6,7,8,9,0].map(a, " * times + body + ")" * times


HOSTILE = {
    "long": "'" + "a" * cel.MAX_SOURCE + "'",
    "brackets": "(" * 300 + "1" + ")" * 300,
    "lists": "[" * 300 + "1" + "]" * 300,
    "signs": "-" * 3000 + "1",
    "not": "!" * 3000 + "true",
    "sum": "1" + "+1" * 3000,
    "members": "request" + ".a" * 3000,
    "choices": "true?1:" * 500 + "1",
    "loops": nested(8, "1"),
    "doubling": "['x']" + "".join(f".map(v{n}, v{n} + v{n})" for n in range(25)),
    "sharing": "[[1, 1]]" + "".join(f".map(v{n}, [v{n}, v{n}])" for n in range(25)),
    "empty": "[[[], []]]" + "".join(f".map(v{n}, [v{n}, v{n}])" for n in range(25)),
    "regex": "'a'.matches('((a{1,100}){1,100}){1,100}')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_expressions_are_a_status(name: str) -> None:
    assert value(HOSTILE[name]) == FAILED


def test_reading_expressions_leaves_the_recursion_limit_alone() -> None:
    before = sys.getrecursionlimit()
    Expressions(Rig().plugin).create(b"1")
    assert sys.getrecursionlimit() >= before


def test_the_time_of_the_call_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    token = rig.plugin.expressions.create(b"1 + 1")
    assert token == bytes(4)

    def late() -> None:
        raise Trap(TrapKind.DEADLINE_EXCEEDED)

    monkeypatch.setattr(rig.vm.store, "check_deadline", late)
    with pytest.raises(Trap):
        rig.plugin.expressions.evaluate(0, rig.plugin.root)


def test_mistakes_in_patterns_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert value("'a'.matches('[')") == FAILED
    assert capfd.readouterr().err == ""
