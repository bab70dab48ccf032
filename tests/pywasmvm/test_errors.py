"""Errors: their texts name what and where, and every trap has the official message."""

from __future__ import annotations

import pytest

from pywasmvm.errors import (
    Exhaustion,
    Frame,
    InvalidError,
    LinkError,
    MalformedError,
    Trap,
    TrapKind,
    WasmError,
    WasmException,
    format_backtrace,
)

# What the official test suite calls them.
OFFICIAL = {
    "unreachable", "integer divide by zero", "integer overflow", "invalid conversion to integer",
    "out of bounds memory access", "out of bounds table access", "undefined element", "uninitialized element",
    "indirect call type mismatch", "null reference", "call stack exhausted",
}  # fmt: skip


def test_kinds_of_trap() -> None:
    assert {kind.value for kind in TrapKind} >= OFFICIAL
    for kind in TrapKind:
        assert str(Trap(kind)) == kind.value
        assert Trap(kind).frames == ()
    assert Trap(TrapKind.UNINITIALIZED_ELEMENT, "5").message == "uninitialized element 5"


def test_the_tree() -> None:
    for error in (MalformedError("m"), InvalidError("m"), LinkError("m"), Trap(TrapKind.UNREACHABLE)):
        assert isinstance(error, WasmError)
    assert issubclass(Exhaustion, Trap)
    thrown = WasmException("tag", (1, 2))
    assert (thrown.tag, thrown.values) == ("tag", (1, 2))
    assert "uncaught exception" in str(thrown)


def test_texts_name_the_place() -> None:
    assert str(MalformedError("bad", offset=26)) == "bad (at offset 0x1a)"
    assert str(MalformedError("bad", line=3, column=7)) == "bad (line 3, column 7)"
    assert str(MalformedError("bad")) == "bad"
    assert str(InvalidError("bad", 3, 26, "drop")) == "bad (function 3, offset 0x1a, drop)"
    assert str(InvalidError("bad")) == "bad"
    assert (
        str(LinkError("unknown import", "m", "n", "func (->)"))
        == "unknown import: m.n (the module wants func (->))"
    )
    assert str(LinkError("bad", "m", "n", "a", "b")) == "bad: m.n (the module wants a, found b)"
    assert str(LinkError("bad")) == "bad"


def frame(number: int) -> Frame:
    return Frame("app", f"f{number}", number, 16 * number, "call")


def test_backtraces() -> None:
    assert str(frame(1)) == "app!f1[1] +0x010  call"
    assert str(Frame("env", "log", 0, None, None)) == "env!log[0]"
    trap = Trap(TrapKind.UNREACHABLE)
    trap.frames = (frame(1), frame(2))
    assert str(trap).splitlines() == [
        "unreachable",
        "wasm backtrace (innermost first):",
        "  0: app!f1[1] +0x010  call",
        "  1: app!f2[2] +0x020  call",
    ]


@pytest.mark.parametrize(("count", "lines"), [(30, 31), (31, 32), (1000, 32)])
def test_long_backtraces_leave_the_middle_out(count: int, lines: int) -> None:
    text = format_backtrace(tuple(frame(number) for number in range(count))).splitlines()
    assert len(text) == lines
    assert text[1].startswith("  0: app!f0[")
    assert text[-1].startswith(f"  {count - 1}: app!f{count - 1}[")
    assert any("more ..." in line for line in text) == (count > 30)
